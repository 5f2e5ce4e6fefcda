"""``pgb simulate``: nights with known truth, loads, streams, and reports against the truth."""

import shutil
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click
import orjson

from broker.apps.cli._models import tell_stand_ins
from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.apps.simulator.models import SimulationBroker
from broker.errors import UsageError
from broker.wiring import Broker

_SECONDS_A_MINUTE = 60.0
_DIGITS = tuple("0123456789.")
_AUTO = "auto"
_MODELS = click.Choice([_AUTO, "salt2", "toy", "parametric"])

_MINUTES = click.FloatRange(min=0, min_open=True)


class _Amount(click.ParamType[tuple[float, str]]):
    """A number and a unit, as ``10perSec`` or ``5min``."""

    name = "amount"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, str]:
        """Split number and unit."""
        text = str(value)
        number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        try:
            return float(number), text[len(number) :]
        except ValueError:
            self.fail(f"{text!r} is no number with a unit, such as 200perSec or 10min", param, ctx)


@click.group()
def command() -> None:
    """Make nights of alerts whose truth is known, and measure the broker with them.

    \b
      pgb simulate night --alerts 5000 --out night/
      pgb run night/alerts && pgb simulate report --truth night/truth
      pgb simulate load --profile lsst-night --minutes 3
      pgb simulate stream --rate 1perMin --runtime 10min --testid mytest
    """


def _night(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--night {text}: {error}") from error


@command.command()
@click.option("--alerts", default=1000, show_default=True, help="How many alerts a night has.")
@click.option("--nights", default=1, show_default=True, help="Nights in a row.")
@click.option("--night", "first", metavar="DATE", help="First night, UTC (default: today).")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same nights.")
@click.option(
    "--mix",
    default="teaching",
    show_default=True,
    help="teaching, or survey: about the real shares.",
)
@click.option("--model", type=_MODELS, default="auto", help="Light curves of type Ia supernovae.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for packets.")
@click.option("--pictures", is_flag=True, help="Draw distributions instead of writing packets.")
@options("survey", "home", "json")
def night(
    alerts: int,
    nights: int,
    first: str | None,
    seed: int,
    mix: str,
    model: str,
    out: Path,
    pictures: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write the packets of simulated nights, and their truth as Parquet beside them."""
    from broker.apps.simulator.writing import simulate_nights

    broker = SimulationBroker(settings_of(**flags))
    if model == _AUTO:
        tell_stand_ins(broker)
    wanted = (_night(first), nights, alerts)
    made = simulate_nights(broker, wanted, seed=seed, mix=mix, model=model)
    if pictures:
        from broker.apps.simulator.pictures import write_pictures

        _, parts = next(made)
        files = write_pictures(broker.survey, parts, out)
        click.echo("\n".join(str(file) for file in files))
        return
    from broker.apps.simulator.writing import write_night

    rows = [(str(day), *write_night(broker.survey, day, parts, out)) for day, parts in made]
    if as_json:
        print_json([dict(zip(("night", "alerts", "folder"), row, strict=True)) for row in rows])
    else:
        print_table("Simulated nights", ("night", "alerts", "folder"), rows)


@command.command()
@click.option(
    "--truth", type=click.Path(path_type=Path), required=True, help="Truth, or its folder."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="report.html",
    show_default=True,
    help="The page; its numbers are beside it, as .json.",
)
@options("survey", "home", "testid", "json")
def report(truth: Path, out: Path, as_json: bool, **flags: Any) -> None:
    """Write a page on what the broker found of what was there."""
    from broker.apps.simulator.page import render
    from broker.apps.simulator.report import make_report, rows_of
    from broker.apps.simulator.truth import read_truth

    made = make_report(Broker(settings_of(**flags)), read_truth(truth))
    out.write_text(render(made))
    out.with_suffix(".json").write_bytes(orjson.dumps(made.summary()))
    if as_json:
        print_json(made.summary())
        return
    print_table("Filters", ("filter", "passed", "completeness", "purity"), rows_of(made))
    click.echo(f"{made.alerts:,} alerts, {made.missing:,} missing; the page is {out}")


@command.command()
@click.option("--profile", "name", metavar="NAME", help="A named load; without it they are listed.")
@click.option("--minutes", type=_MINUTES, metavar="FLOAT", default=3.0,
              show_default=True, help="How long alerts arrive; at least one visit.")  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same alerts.")
@click.option("--keep", is_flag=True, help="Keep what the broker stored.")
@options("home", "json")
def load(
    name: str | None, minutes: float, seed: int, keep: bool, as_json: bool, **flags: Any
) -> None:
    """Let alerts arrive at a survey's rate, and tell how the broker kept up.

    The broker works on a folder of its own, which is removed at the end.
    """
    from broker.apps.simulator.cadence import profiles
    from broker.apps.simulator.driving import drive

    known = profiles()
    if name is None:
        rows = [(p.name, p.alerts, p.every_s, p.within_s, p.about) for p in known.values()]
        print_table("Loads", ("name", "alerts", "every [s]", "within [s]", "what it is"), rows)
        return
    if name not in known:
        raise UsageError(f"there is no load {name!r}; there are: {', '.join(known)}")
    settings = settings_of(survey=known[name].survey, **flags)
    tell_stand_ins(SimulationBroker(settings))
    home = settings.home_path
    home.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="load-", dir=home)
    try:
        made = drive(known[name], minutes * _SECONDS_A_MINUTE, Path(folder), seed)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json(made.summary())
        return
    _show_load(made)


def _show_load(made: Any) -> None:
    rows = [
        (sink, *(f"{values[name]:.2f}" for name in ("p50", "p99", "max")))
        for sink, values in made.latency_s.items()
    ]
    print_table("From arrival to", ("place", "p50 [s]", "p99 [s]", "max [s]"), rows)
    for place, reason in made.not_measured.items():
        click.echo(f"{place}: not measured: {reason}")
    step = max(len(made.backlog) // 20, 1)
    print_table("Backlog", ("time [s]", "alerts"), made.backlog[::step])
    verdict = "kept up" if made.kept_up else "did NOT keep up"
    click.secho(
        f"{made.alerts:,} alerts in {made.arrival_s:.0f} s, done after {made.elapsed_s:.0f} s, "
        f"at most {made.most_behind:,} behind: {verdict}",
        fg="green" if made.kept_up else "red",
    )


@command.command()
@click.option("--rate", required=True, metavar="RATE",
              help="As 50once, 2perSec, 1perMin, 9perHr, 300perNight, or a name.")  # fmt: skip
@click.option("--runtime", type=_Amount(), metavar="TIME",
              help="As 30sec, 10min, 2hr, 1night; not needed with once.")  # fmt: skip
@click.option("--every", default=5.0, show_default=True, help="Seconds between batches.")
@click.option("--subscription", metavar="NAME", help="Reservoir (default: the survey's own).")
@click.option("--topic", metavar="NAME", help="Where to (default: alerts of the instance).")
@click.option("--nack", is_flag=True, help="Leave the alerts in the reservoir.")
@click.option("--wait", is_flag=True, help="Wait at an empty reservoir instead of stopping.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options("survey", "testid", "home", "bus", "json")
def stream(
    rate: str,
    runtime: tuple[float, str] | None,
    every: float,
    subscription: str | None,
    topic: str | None,
    nack: bool,
    wait: bool,
    yes: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Publish the alerts of a reservoir to a topic at a chosen rate.

    \b
      pgb simulate stream --rate 1perMin --runtime 10min --testid mytest
      pgb simulate stream --rate 300once --subscription my-reservoir --topic my-topic
    """
    from broker.apps.simulator.commanding import stream_summary

    amount = _Amount().convert(rate, None, None) if rate[:1] in _DIGITS else rate
    settings = settings_of(**flags)
    summary = stream_summary(
        settings, amount, runtime, every,
        ends=(subscription, topic), nack=nack, on_empty="wait" if wait else "stop", confirm=yes,
    )  # fmt: skip
    if as_json:
        print_json(summary)
        return
    click.echo(
        f"{summary['published']:,} of {summary['wanted']:,} alerts from {summary['subscription']}"
        f" to {summary['topic']}: {summary['ended']}"
    )
