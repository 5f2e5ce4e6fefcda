"""``pgb run``: take in alerts from files, folders, archives or a URL."""

from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import click

from broker.apps.cli._download import fetched
from broker.apps.cli._models import stage
from broker.apps.cli._options import options
from broker.apps.cli._output import print_json, print_table, run_display
from broker.apps.cli.broker_files import place, started
from broker.apps.metrics import RunCollector, health_of, served
from broker.apps.process import give_back_memory, taking_in
from broker.apps.simulator.models import SimulationBroker
from broker.apps.simulator.source import SimulatedSource
from broker.apps.subscriptions import make_subscriptions
from broker.config import Settings
from broker.connectors.sources.archive import ArchiveSource
from broker.connectors.sources.files import FileSource, Problem
from broker.errors import ForbiddenError, UsageError
from broker.pipeline import fitting
from broker.pipeline.runner import Report
from broker.ports import Source
from broker.wiring import Broker, open_source

_MAX_PROBLEMS_SHOWN = 20


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@options("survey", "home", "testid", "worker", "bus", "files", "tables", "json")
@place
@click.option("--follow", is_flag=True, help="Go on when the end is reached; stop with Ctrl-C.")
@click.option(
    "--plots", type=click.Choice(["always", "never"]), help="When fits are drawn (always)."
)
@click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    help="Tell Prometheus how the run goes (default host: here).",
)
@click.option(
    "--filter", "filters", multiple=True, metavar="FILE", help="User filter (.py or .sql)."
)
def command(
    places: tuple[str, ...],
    follow: bool,
    metrics: str | None,
    filters: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Take in the alerts of every PLACE: keep, filter and publish them.

    A PLACE is a file, a folder (with all below it), a .tar.gz in the layout of the public
    archive, or a URL (of a night of that archive, for one). The same command again adds only
    what is new.

    \b
      pgb run alerts/ --survey ztf
      pgb run ztf_public_20181129.tar.gz --json
      pgb run archive://20181129
      pgb run incoming/ --follow
      pgb run pubsub://my-project/ztf-alerts-in --bus pubsub:// --files gs:// --tables bigquery://
    """
    settings = started(filters=filters or None, **flags)
    source = fetched(open_source(places, settings, follow=follow))
    broker = _broker_for(source, settings)
    report = Report()
    try:
        with _told(metrics, broker, report):
            take_in(broker, source, report=report)
    finally:
        show(report, broker, problems_of(source), as_json=as_json)
    if problems_of(source) and not report.received:
        raise UsageError("nothing could be read")


def _broker_for(source: Source, settings: Settings) -> Broker:
    """Return the broker of a source, which may know its survey or schema registry."""
    if isinstance(source, SimulatedSource):
        return SimulationBroker(replace(settings, survey=source.survey.name))
    registry = settings.schema_registry or getattr(source, "schema_registry", "")
    return Broker(replace(settings, schema_registry=registry))


def _told(metrics: str | None, broker: Broker, report: Report) -> AbstractContextManager[None]:
    """Return the service of the run's metrics, if they are wanted."""
    if metrics is None:
        return nullcontext()
    return served(metrics, RunCollector(report, partial(health_of, broker.health_file)))


def take_in(
    broker: Broker, source: Source, total: int | None = None, report: Report | None = None
) -> Report:
    """Run the pipeline on a source, with a live line on a terminal.

    `report` is filled as the run goes, so that it holds what was done when a run is stopped.
    """
    salt2 = stage(broker)
    with (
        broker.working(),
        taking_in() as stop,
        closing(source),
        run_display(total) as display,
    ):
        report = broker.pipeline(salt2).run(stop.between(source), display.show, report)
        _subscribe(broker)
        give_back_memory()
        broker.tables.compact()
    return report


def _subscribe(broker: Broker) -> None:
    """Make the instance's own subscriptions, if this account may."""
    try:
        make_subscriptions(broker.bus, broker.instance, broker.filters)
    except ForbiddenError as error:
        words = f"the instance's own subscriptions were not made (pgb setup makes them): {error}"
        click.secho(words, fg="yellow", err=True)


def problems_of(source: Source) -> list[Problem]:
    """Return what a source could not read."""
    return source.problems if isinstance(source, FileSource | ArchiveSource) else []


def summary(report: Report, broker: Broker, problems: list[Problem]) -> dict[str, Any]:
    """Return what a run did as one JSON object."""
    values = asdict(report) | {"alerts_per_s": round(report.alerts_per_s, 1)}
    values["elapsed_s"] = round(report.elapsed_s, 3)
    values["problems"] = [asdict(problem) for problem in problems]
    return values | {"home": str(broker.home)}


def show(report: Report, broker: Broker, problems: list[Problem], *, as_json: bool) -> None:
    """Print what a run did."""
    if as_json:
        print_json(summary(report, broker, problems))
        return
    rows = [
        ("received", report.received, f"in {report.elapsed_s:.1f} s"),
        ("stored", report.stored, str(broker.home)),
        ("duplicates", report.duplicates, "already stored; nothing was added"),
        ("dead-lettered", report.dead_lettered, "kept with the reason: pgb deadletters"),
    ]
    for chosen in broker.filters:
        topic = broker.instance.name(chosen.topic)
        rows.append((f"passed {chosen.name}", report.passed.get(chosen.name, 0), f"topic {topic}"))
    if report.fitted:
        topic = broker.instance.name(fitting.NAME)
        rows.append(("fitted with SALT2", report.fitted, f"topic {topic}, table {fitting.NAME}"))
    print_table(f"Alerts of {broker.instance.survey}", ("what", "alerts", "where"), rows)
    for problem in problems[:_MAX_PROBLEMS_SHOWN]:
        click.secho(f"could not read {problem.place}: {problem.reason}", fg="yellow", err=True)
    if len(problems) > _MAX_PROBLEMS_SHOWN:
        more = len(problems) - _MAX_PROBLEMS_SHOWN
        click.secho(f"… and {more} more; --json lists them all", fg="yellow", err=True)
