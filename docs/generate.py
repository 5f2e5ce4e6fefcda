"""Write the pages of the reference that follow from the code."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import click

from broker.apps.cli import cli
from broker.apps.cloud.cost import cost, first_broker, prices, workload
from broker.apps.cloud.registry import KINDS, Context, Resource, registry
from broker.config import Settings
from broker.instance import AGES, Instance, old_stubs
from broker.science.filters import FILTERS, describe

REFERENCE = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by docs/generate.py; change the code instead. -->\n\n"


def commands() -> str:
    """Return the page of all commands, as their own help tells it."""
    settings = {**cli.context_settings, "terminal_width": 88, "max_content_width": 88}
    context = click.Context(cli, info_name="pgb", **settings)
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


def resources() -> str:
    """Return the page of what an instance is made of, its old names and its costs."""
    instance = Instance("{survey}")
    listed = registry(Context(instance, "{project}", "{region}"), list(FILTERS.values()))
    return "\n".join([_RESOURCES, *_by_kind(listed), *_old_names(instance), *_costs(listed), ""])


_RESOURCES = """# Resources

What an instance of the broker is made of. `pgb setup` makes it, `pgb teardown` removes it,
`pgb resources` lists it. An instance with a test id has the same under names that end in
`-{testid}` (`_{testid}` for the dataset). On a laptop the topics, subscriptions, buckets
(without the project), tables and the ledger are in the home, and the rest is not needed.

In a project each bears the label `pgb-instance={survey}` or `pgb-instance={survey}-{testid}`, and
teardown removes nothing else. Schedules have it in their description.
"""


_TITLES = {"vm": "Machines", "ledger": "Ledger", "alert_policy": "Alert policies"}


def _by_kind(listed: Sequence[Resource]) -> Iterator[str]:
    for kind in KINDS:
        yield f"## {_TITLES.get(kind, f'{kind.capitalize()}s')}\n"
        yield "| name | for | made with |\n|---|---|---|"
        for one in (it for it in listed if it.kind == kind):
            yield f"| `{one.name}` | {one.purpose} | {_code(_made(one))} |"
        yield ""


def _made(one: Resource) -> str:
    """Spell the settings of a resource, but for what its table repeats."""
    shown = {
        name: it for name, it in one.settings.items() if name not in ("dataset", "environment")
    }
    texts = {name: " ".join(it) if isinstance(it, list) else it for name, it in shown.items()}
    return ", ".join(f"{name}: {it}" for name, it in texts.items())


def _code(text: str) -> str:
    return f"`{text}`" if text else "–"


def _old_names(instance: Instance) -> Iterator[str]:
    yield "## Names of other ages\n\nWhat earlier and later brokers called things.\n"
    yield f"| | {' | '.join(AGES)} |\n|---|{'---|' * len(AGES)}"
    for kind, stub in old_stubs():
        names = [
            instance.named(kind, stub, project="{project}", age=age, version="4.02") for age in AGES
        ]
        yield f"| {kind} | {' | '.join(f'`{name}`' for name in names)} |"
    yield ""


def _costs(listed: Sequence[Resource]) -> Iterator[str]:
    lines = cost(listed)
    usd, whose = first_broker()
    yield "## Cost of a million alerts\n"
    yield f"Together {sum(it.usd for it in lines):.2f} US dollars; {whose}, was {usd:.2f}."
    yield "`pgb resources --cost ALERTS` computes it for another number.\n"
    yield "| resource | what | quantity | USD |\n|---|---|---:|---:|"
    for it in lines:
        amount = f"{it.quantity:.4g} {it.price.unit}"
        yield f"| {it.resource} | {it.price.words} | {amount} | {it.usd:.2f} |"
    yield "\nThe workload that this is computed for:\n\n| quantity | value | |\n|---|---:|---|"
    for name, each in workload().items():
        yield f"| `{name}` | {each['value']:,} | {each['words']} |"
    yield "\nThe prices, in us-central1, without what is free every month:\n"
    yield "| what | unit | USD | told at | as of |\n|---|---|---:|---|---|"
    for price in prices():
        yield f"| {price.words} | {price.unit} | {price.usd:g} | {price.source} | {price.date} |"


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "settings.md": settings,
    "filters.md": filters,
    "resources.md": resources,
}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(_NOTE + page())


if __name__ == "__main__":
    main()
