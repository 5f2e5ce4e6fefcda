"""Write the pages of the reference that follow from the code: commands, settings, filters."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import click

from broker.apps.cli import cli
from broker.config import Settings
from broker.science.filters import FILTERS, describe

REFERENCE = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by docs/generate.py; change the code instead. -->\n\n"


def commands() -> str:
    """Return the page of all commands, as their own help tells it."""
    context = click.Context(cli, info_name="pgb", terminal_width=88, max_content_width=88)
    return "# Commands\n\n" + "\n".join(_command(cli, context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if context.parent is not None:
        yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                inner_context = click.Context(
                    inner, context, info_name=name, terminal_width=88, max_content_width=88
                )
                yield from _command(inner, inner_context)


def settings() -> str:
    """Return the page of all settings."""
    lines = [
        "# Settings",
        "",
        "From the TOML file that `PGB_CONFIG` names, overruled by the environment, and that by",
        "flags of a command. `pgb config` shows what is in force.",
        "",
        "| setting | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    for one in fields(Settings):
        default = f"`{one.default}`" if one.default not in ("", ()) else "–"
        variable = f"PGB_{one.name.upper()}"
        lines.append(f"| `{one.name}` | `{variable}` | {default} | {one.metadata['doc']} |")
    return "\n".join(lines) + "\n"


def filters() -> str:
    """Return the page of all built-in filters, cut by cut."""
    return describe(FILTERS.values())


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "settings.md": settings,
    "filters.md": filters,
}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(_NOTE + page())


if __name__ == "__main__":
    main()
