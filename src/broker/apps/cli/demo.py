"""``pgb demo``: a night of made-up alerts through the whole broker."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import numpy as np
import polars as pl

from broker.apps.cli._options import options, settings_of
from broker.apps.cli.run import show, take_in
from broker.apps.simulator.models import SimulationBroker
from broker.errors import UsageError
from broker.wiring import Broker, open_source

_MARK = ".made-by-pgb-demo"
_TRUTH = "truth"


@click.command()
@click.option("--alerts", default=2000, show_default=True, help="How many alerts the night has.")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same night.")
@options("survey", "home", "json")
def command(alerts: int, seed: int, home: str | None, as_json: bool, **flags: Any) -> None:
    """Make a small night of alerts and run the whole broker on it.

    Needs no account, no network and no data. The night's data stay in a folder of the
    demo's own, made anew each time, unless --home names another.
    """
    settings = settings_of(home=home, **flags)
    if home is None:
        settings = settings_of(home=str(_fresh_home(settings.home_path / "demo")), **flags)
    broker = SimulationBroker(settings)
    night = datetime.now(UTC).date()
    wishes = f"alerts={alerts}&seed={seed}&night={night}&truth={quote(str(broker.home / _TRUTH))}"
    source = open_source([f"sim://{broker.survey.name}?{wishes}"], settings)
    report = take_in(broker, source, total=alerts)
    show(report, broker, [], as_json=as_json)
    if not as_json:
        _tell_truth(broker)
        _teach(broker)


def _fresh_home(home: Path) -> Path:
    """Empty the demo's folder, if it is really the demo's, and mark it."""
    if home.exists() and any(home.iterdir()) and not (home / _MARK).exists():
        raise UsageError(f"{home} holds something else: choose a folder with --home")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / _MARK).touch()
    return home


def _tell_truth(broker: Broker) -> None:
    """Say how many supernovae of the night were found and fitted, as their truth is known."""
    from broker.apps.simulator.report import make_report
    from broker.apps.simulator.truth import read_truth

    truth = read_truth(broker.home / _TRUTH)
    made = make_report(broker, truth)
    there = truth.filter(pl.col("class") == "SNIa")["object_id"].n_unique()
    words = f"\nOf {there} type Ia supernovae in this night, {len(made.fits)} were fitted"
    if len(made.fits):
        off = float(np.median((made.fits["z"] - made.fits["z_true"]).abs().to_numpy()))
        words += f": half of their redshifts are within {off:.3f} of the truth"
    click.echo(f"{words}.")


def _teach(broker: Broker) -> None:
    dataset = broker.instance.dataset
    sql = f"SELECT object_id FROM {dataset}.verdicts WHERE purity LIMIT 1"  # noqa: S608 - a name of ours
    newest = broker.tables.query(sql)
    some_id = newest.item() if len(newest) else "ID"
    click.echo(f"\nTry next (with PGB_HOME={broker.home}):")
    click.echo(f'  pgb query "SELECT * FROM {dataset}.DIASource LIMIT 5"')  # noqa: S608
    click.echo(f"  pgb alert {some_id} --plot alert.png")
    click.echo(f"  pgb explain purity {some_id}")
    click.echo(f"  pgb simulate report --truth {broker.home / _TRUTH} --out report.html")
