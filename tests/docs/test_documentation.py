"""Nothing public stays undocumented, and what is written is true."""

import importlib.util
import re
import shlex
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import click
import pytest

from broker import errors
from broker.apps.cli import cli
from broker.config import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """Return the script that writes the reference."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "settings.md", "filters.md", "resources.md"])
def test_the_reference_is_up_to_date(name: str, generate: ModuleType):
    """Run `make docs` after a change."""
    written = (ROOT / "docs" / "reference" / name).read_text()

    assert written.split("\n\n", 1)[1] == generate.PAGES[name]()


def test_every_command_is_in_the_reference():
    """And every setting."""
    commands = (ROOT / "docs" / "reference" / "commands.md").read_text()
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text()

    assert [
        n for n in cli.list_commands(click.Context(cli)) if f"## `pgb {n}`" not in commands
    ] == []
    assert [f.name for f in fields(Settings) if f"`{f.name}`" not in settings] == []


def test_every_command_has_help_that_teaches():
    """A summary, and a help for each option."""
    context = click.Context(cli)
    silent = [
        f"{name} {parameter.name}"
        for name in cli.list_commands(context)
        for parameter in (cli.get_command(context, name) or click.Command("")).params
        if isinstance(parameter, click.Option) and not parameter.help
    ]

    assert silent == []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help


def test_every_error_is_in_the_tree():
    """The drawing at the head of the module."""
    names = [name for name, value in vars(errors).items() if isinstance(value, type)]

    assert [name for name in names if name not in (errors.__doc__ or "")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    """Relative ones."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []


def commands_in(page: Path) -> list[list[str]]:
    """Return the pgb commands in a page's code blocks."""
    blocks = re.findall(r"```(?:console|sh|bash)?\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("pgb ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_pages_exist(page: Path):
    """With the options that are written there."""
    for words in commands_in(page):
        words = words[1 : words.index("|")] if "|" in words else words[1:]
        context = click.Context(cli, info_name="pgb")
        command: click.Command = cli
        while isinstance(command, click.Group):
            name = words.pop(0)
            found = command.get_command(context, name)
            assert found is not None, f"pgb has no command {name}"
            command, context = found, click.Context(found, context, info_name=name)
        options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= options | {"--help"}, (page.name, words)
