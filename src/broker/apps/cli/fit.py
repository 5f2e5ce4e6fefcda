"""``pgb fit``: SALT2 fits of stored alerts, of packets in files, of tables."""

from pathlib import Path
from typing import Any

import click
import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from broker.apps.cli._models import fetch
from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.apps.fitting import Fits, fit
from broker.errors import ConfigError, UsageError
from broker.pipeline.fitting import picture_name
from broker.science.fitters.salt2.fitter import Painter
from broker.science.fitters.salt2.presets import Redshift
from broker.wiring import Broker

_SHOWN = ("success", "z", "z_err", "t0", "t0_err", "x0", "x0_err", "x1", "x1_err", "c", "c_err")
_MORE = ("chisq", "ndof", "at_bound", "second_minimum", "bands", "model", "preset", "reason")
_MOST_SHOWN = 20


@click.command()
@click.argument("what", metavar="ID|FILE|TABLE")
@options("survey", "home", "testid", "json")
@click.option("--model", default="", help="Name of the model, such as salt2-T23 or salt3-2.0.")
@click.option("--preset", default="", help="default or original.")
@click.option("--z", "redshift", metavar="Z[+-ERR]", help="Redshift: fixed, or a prior with +-.")
@click.option(
    "--engine",
    type=click.Choice(["fast", "sncosmo"]),
    default="fast",
    show_default=True,
    help="sncosmo is the reference, some hundred times slower.",
)
@click.option("--original-errors", is_flag=True, help="The first broker's, 1.5 times too large.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG file, or folder for several.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="CSV or Parquet.")
def command(
    what: str,
    model: str,
    preset: str,
    redshift: str | None,
    engine: str,
    original_errors: bool,
    plot: Path | None,
    output: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Fit the supernova model SALT2 to a light curve, or to ten thousand.

    WHAT is the id of a stored object or alert, a file with an alert packet, or a table of
    photometry (.csv or .parquet) with columns for object, mjd, band, and flux and fluxerr or
    mag and magerr; columns z and z_err give redshifts. A table of ids alone fits what is
    stored of each.

    \b
      pgb fit ZTF21abiuvdk --z 0.0035+-0.001 --plot fit.png
      pgb fit photometry.csv --model salt2-T23 --output fits.csv
    """
    broker = Broker(settings_of(**flags))
    _be_ready(broker, model)
    known = _redshift(redshift) if redshift else None
    how = {"model": model, "preset": preset, "redshift": known, "engine": engine}
    fits = _fit(what, broker, original_errors=original_errors, **how)
    table = fits.table()
    if output:
        table.write_parquet(output) if output.suffix == ".parquet" else table.write_csv(output)
    if plot:
        _draw(fits, Painter(broker.source_tables(model), broker.preset(preset)), plot)
    _show(table, as_json)


def _be_ready(broker: Broker, model: str) -> None:
    """Fetch model data that is missing, if that is allowed."""
    try:
        broker.source_tables(model)
    except ConfigError:
        if broker.settings.fetch_models != "once":
            raise
        fetch(broker, [model or broker.settings.salt2_model, *broker.passbands()])


def _redshift(text: str) -> Redshift:
    value, _, error = text.partition("+-")
    try:
        return Redshift(float(value), float(error or 0.0))
    except ValueError as wrong:
        raise UsageError(f"--z needs a number, or NUMBER+-ERROR, not {text!r}") from wrong


def _fit(what: str, broker: Broker, **how: Any) -> Fits:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("fits", total=None)
        return fit(
            what,
            broker=broker,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **how,
        )


def _draw(fits: Fits, painter: Painter, place: Path) -> None:
    pairs = list(zip(fits.fits, fits.curves, strict=True))
    if len(pairs) == 1 and place.suffix:
        place.write_bytes(painter.draw(*pairs[0]))
        return
    place.mkdir(parents=True, exist_ok=True)
    for one, curve in pairs:
        name = Path(picture_name(one.object_id, one.source_id)).name
        (place / name).write_bytes(painter.draw(one, curve))


def _show(table: pl.DataFrame, as_json: bool) -> None:
    if as_json:
        rows = table.to_dicts()
        print_json(rows[0] if len(rows) == 1 else rows)
    elif len(table) == 1:
        row = table.row(0, named=True)
        shown = [(name, _rounded(row[name])) for name in (*_SHOWN, *_MORE)]
        print_table(f"{row['objectId']}", ("", "fit"), shown)
    else:
        columns = ("objectId", "success", "z", "t0", "x1", "c", "chisq", "ndof", "at_bound")
        cells = [[_rounded(v) for v in row] for row in table.select(columns).iter_rows()]
        print_table("", columns, cells[:_MOST_SHOWN])
        click.echo(f"{len(table):,} fits, {table['success'].sum():,} with success")


def _rounded(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) > 1000 else f"{value:.4g}"
    return "–" if value in (None, "") else str(value)
