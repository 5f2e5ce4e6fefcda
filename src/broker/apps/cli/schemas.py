"""``pgb schemas``: which packets can be read, and how to add to them."""

from pathlib import Path
from typing import Any

import click

from broker.apps.cli._options import options
from broker.apps.cli._output import print_json, print_table
from broker.surveys import SURVEYS, get_survey
from broker.surveys.add_schema import add_schemas


@click.group(name="schemas")
def command() -> None:
    """List the schemas that are shipped, or add new versions."""


@command.command(name="list")
@options("json")
def list_schemas(as_json: bool) -> None:
    """List the surveys and the schema versions that are shipped for each."""
    shipped = {name: sorted(survey.shipped_versions()) for name, survey in SURVEYS.items()}
    if as_json:
        print_json(shipped)
        return
    rows = [(name, ", ".join(versions) or "in each packet") for name, versions in shipped.items()]
    print_table("", ("survey", "schema versions"), rows)


@command.command(name="add")
@click.argument("origin")
@options("survey")
@click.option("--target", type=click.Path(file_okay=False, path_type=Path), help="Where to write.")
def add(origin: str, survey: str | None, target: Path | None, **_: Any) -> None:
    """Add schema versions from ORIGIN: a folder of .avsc files, or a registry's schema URL.

    Names and types are kept, documentation is dropped. Without --target they go where the
    survey's shipped schemas are.
    """
    for path in add_schemas(origin, get_survey(survey or ""), target):
        click.echo(f"written: {path}")
