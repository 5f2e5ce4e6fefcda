"""How commands print: tables for people, JSON for programs, progress on standard error."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from broker.pipeline.runner import Report


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    click.echo(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, counts: bool = True
) -> None:
    """Print a table; numbers are set to the right, counts with thousands marked."""
    rows = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value, counts) for value in row))
    Console().print(table)


def _cell(value: Any, counts: bool) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if counts and isinstance(value, int) else str(value)


class RunDisplay:
    """A line that tells how a run goes."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("taking in alerts", total=total, counts="")

    def show(self, report: Report) -> None:
        """Show the counts so far."""
        counts = (
            f"{report.received:,} received  {report.stored:,} stored  "
            f"{report.duplicates:,} duplicate  {report.dead_lettered:,} dead-lettered  "
            f"{report.alerts_per_s:,.0f}/s"
        )
        self._progress.update(self._task, completed=report.received, counts=counts)


@contextmanager
def run_display(total: int | None) -> Iterator[RunDisplay]:
    """Show a live line on standard error, if that is a terminal."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.fields[counts]}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        yield RunDisplay(progress, total)
