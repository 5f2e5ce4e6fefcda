"""What ``pgb setup`` and ``pgb teardown`` share: where, and whether to go on."""

import sys
from collections.abc import Callable
from typing import Any

import click

from broker.apps.cli._options import Decorator, settings_of
from broker.apps.cloud.opening import Opened, open_instance
from broker.errors import UsageError


def place_options() -> Decorator:
    """Add the options that say where an instance is set up."""
    added = (
        click.option("--project", metavar="ID", help="Google Cloud project, instead of a home."),
        click.option("--region", metavar="NAME", help="Google Cloud region (us-central1)."),
        click.option("--dry-run", is_flag=True, help="Print the plan and do nothing."),
        click.option("--yes", is_flag=True, help="Go on without being asked."),
    )

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(added):
            function = option(function)
        return function

    return add


def opened(image: str = "", **flags: Any) -> Opened:
    """Find the instance that flags and settings name, in the project or home that they name."""
    from broker.apps.cli import cli

    settings = settings_of(**flags)
    in_cloud = bool(flags.get("project") or (settings.project and not flags.get("home")))
    commands = cli.list_commands(click.Context(cli))
    return open_instance(settings, in_cloud=in_cloud, image=image, commands=commands)


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask a person whether to go on; the default is no.

    Raises
    ------
    UsageError
        If nobody can be asked, and --yes is not given.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here, and nothing was changed: give --yes to go on")
    return click.confirm(question, default=False, err=True)
