"""Options that several commands share, and the settings they make."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from broker.config import Settings, load_settings

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_OPTIONS = {
    "home": click.option(
        "--home", metavar="DIR", help="Folder of everything the broker keeps (or $PGB_HOME)."
    ),
    "survey": click.option(
        "--survey", metavar="NAME", help="Keyword of the survey that sends the alerts."
    ),
    "testid": click.option("--testid", metavar="ID", help="Use a separate instance for tests."),
    "worker": click.option("--worker", metavar="NAME", help="Name of this worker (default w0)."),
    "bus": click.option(
        "--bus", metavar="URL", help="Where messages go or are, like pubsub://PROJECT."
    ),
    "files": click.option(
        "--files", metavar="URL", help="Where packets and pictures are stored, like gs://PROJECT."
    ),
    "tables": click.option(
        "--tables", metavar="URL", help="Where rows go or are, like bigquery://PROJECT."
    ),
    "json": click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
}


def options(*names: str) -> Decorator:
    """Add shared options to a command."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = _OPTIONS[name](function)
        return function

    return add


def settings_of(**flags: Any) -> Settings:
    """Read the settings under the flags given."""
    return load_settings(**flags)


def reading_settings_of(**flags: Any) -> Settings:
    """Read the settings of a command that reads a home: its only survey need not be named."""
    settings = load_settings(**flags)
    if settings.survey:
        return settings
    found = surveys_in(settings.home_path)
    if len(found) == 1:
        return load_settings(**flags | {"survey": found[0]})
    if found:
        click.secho(f"this home has alerts of {', '.join(found)}: choose with --survey", err=True)
    return settings


def surveys_in(home: Path) -> list[str]:
    """Name the surveys that have a ledger in a home."""
    return sorted({path.name.split("-", 1)[0] for path in home.glob("ledger/*-ledger*.sqlite")})
