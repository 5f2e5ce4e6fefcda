"""``pgb query``: SQL over everything stored."""

import sys
from pathlib import Path
from typing import IO, Any

import click
import orjson
import polars as pl
import polars.selectors as cs

from broker.alerts.convert import clean
from broker.apps.cli._options import options, reading_settings_of
from broker.apps.cli._output import print_table
from broker.errors import UsageError
from broker.wiring import Broker

_MAX_ROWS_SHOWN = 1000


@click.command()
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="How to print the rows; parquet needs --output or a pipe.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file.")
@click.option(
    "--param", "params", multiple=True, metavar="NAME=VALUE", help="Value of @NAME in the SQL."
)
@options("survey", "home", "testid", "tables")
def command(
    sql: str, form: str, output: Path | None, params: tuple[str, ...], **flags: Any
) -> None:
    """Run one SELECT in BigQuery's dialect over the stored tables, also while alerts come in.

    \b
      pgb query "SELECT objectId, candid, magpsf FROM ztf_alerts.DIASource
                 WHERE rb > 0.8 ORDER BY jd"
      pgb query "SELECT objectId, p.jd, p.magpsf
                 FROM ztf_alerts.alerts, UNNEST(prv_candidates) AS p"
      pgb query "SELECT * FROM ztf_alerts.verdicts WHERE object_id = @id" --param id=ZTF21abc
    """
    broker = Broker(reading_settings_of(**flags))
    rows = broker.tables.query(sql, dict(_parameter(text) for text in params))
    if form == "table" and output is None:
        _print(rows)
    else:
        _write(rows, form, output)


def _parameter(text: str) -> tuple[str, str | int | float]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--param needs NAME=VALUE, not {text!r}")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def _print(rows: pl.DataFrame) -> None:
    shown = rows.head(_MAX_ROWS_SHOWN)
    print_table("", rows.columns, shown.iter_rows(), counts=False)
    if len(rows) > len(shown):
        click.echo(f"… {len(rows) - len(shown):,} more rows: use --format or LIMIT", err=True)


def _write(rows: pl.DataFrame, form: str, output: Path | None) -> None:
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("parquet is not text: give --output FILE, or pipe it somewhere")
    if form != "parquet":
        rows = rows.with_columns(cs.binary().bin.encode("base64"))
    target: IO[bytes] = output.open("wb") if output else sys.stdout.buffer
    if form == "csv":
        _flat(rows).write_csv(target)
    elif form == "parquet":
        rows.write_parquet(target)
    else:
        rows.write_ndjson(target)
    target.flush()
    if output:
        target.close()


def _flat(rows: pl.DataFrame) -> pl.DataFrame:
    """Write records and lists as JSON text, as a CSV file has no other place for them."""
    nested = [name for name, kind in rows.schema.items() if kind.is_nested()]
    texts = [
        pl.Series(name, [orjson.dumps(clean(value)).decode() for value in rows[name].to_list()])
        for name in nested
    ]
    return rows.with_columns(texts)
