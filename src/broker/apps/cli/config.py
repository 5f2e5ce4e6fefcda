"""``pgb config``: every setting, its value and what it is for."""

from dataclasses import fields
from typing import Any

import click

from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.config import Secret, Settings


@click.command()
@options("home", "survey", "testid", "worker", "json")
def command(as_json: bool, **flags: Any) -> None:
    """Show every setting with its present value and its meaning.

    A setting comes from the TOML file that $PGB_CONFIG names, is overruled by the
    environment (PGB_ and its name in capitals), and that by a flag of the command.
    """
    settings = settings_of(**flags)
    rows = [(f.name, getattr(settings, f.name), f.metadata["doc"]) for f in fields(Settings)]
    if as_json:
        print_json({name: _plain(value) for name, value, _ in rows})
    else:
        print_table("", ("setting", "value", "meaning"), rows)


def _plain(value: Any) -> Any:
    """Return what JSON can hold; of a secret only whether there is one."""
    return repr(value) if isinstance(value, Secret) else value
