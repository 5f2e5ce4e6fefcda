"""``pgb replay``: a stored night sent again, into an instance of its own."""

from dataclasses import replace
from typing import Any

import click

from broker.apps.cli._download import fetched
from broker.apps.cli._options import options, settings_of
from broker.apps.cli.run import show, take_in
from broker.connectors.sources.archive import read_night
from broker.errors import UsageError
from broker.instance import Instance
from broker.wiring import Broker

_DEFAULT_TESTID = "replay"


@click.command()
@click.option("--night", "text", metavar="YYYYMMDD", help="UTC date of the observations.")
@click.option("--from", "origin", default="home", show_default=True, metavar="PLACE",
              help="archive, home, or a folder or file of packets.")  # fmt: skip
@click.option("--speed", default="max", show_default=True, help="As 10x, or max.")
@click.option("--into", "target", metavar="TESTID", help=f"Instance (default: {_DEFAULT_TESTID}).")
@options("survey", "home", "testid", "json")
def command(
    text: str | None, origin: str, speed: str, target: str | None, as_json: bool, **flags: Any
) -> None:
    """Send a stored night through the broker again, without touching the original.

    The night comes in the order in which it was observed, at its own pace times --speed.

    \b
      pgb replay --night 20181129 --from home --speed 10x
      pgb replay --night 20181129 --from archive --speed max
      pgb replay --night 20181129 --from packets/ --into second
    """
    from broker.apps.simulator.replay import parse_speed
    from broker.apps.simulator.replaying import replayed

    settings = settings_of(**flags)
    original = Broker(settings)
    broker = Broker(replace(settings, testid=target or _DEFAULT_TESTID))
    _check_apart(original.instance, broker.instance)
    night = None if text is None else read_night(text, f"--night {text!r}")
    with replayed(original, origin, night, parse_speed(speed), fetched) as found:
        made = take_in(broker, found.source, total=found.alerts)
    show(made, broker, list(found.problems), as_json=as_json)


def _check_apart(original: Instance, target: Instance) -> None:
    """Refuse what would add to the alerts of the sky."""
    if target.testid is None:
        raise UsageError("a replay never goes into production: name a test instance with --into")
    if target == original:
        raise UsageError(f"instance {target.testid!r} cannot be replayed into itself: use --into")
