"""``pgb explain``: why an alert passes a filter, or does not."""

from typing import Any

import click

from broker.apps.cli._options import options, reading_settings_of
from broker.apps.cli._output import print_json
from broker.errors import UsageError
from broker.science.filters import CutVerdict, Explanation, Filter, explain
from broker.surveys import decode_batch
from broker.wiring import Broker

_COLOURS = {"pass": "green", "fail": "red", "unknown": "yellow"}


@click.command()
@click.argument("filter_name", metavar="FILTER")
@click.argument("alert_id", metavar="ID")
@options("survey", "home", "testid", "json")
def command(filter_name: str, alert_id: str, as_json: bool, **flags: Any) -> None:
    """Show every cut of a FILTER for a stored alert: value, threshold, verdict.

    Works for alerts that pass and for those that do not. ID is that of an alert or of an
    object (its latest alert).

    \b
      pgb explain purity ZTF21abiuvdk
      pgb explain extragalactic 1654467630315015003 --json
    """
    broker = Broker(reading_settings_of(**flags))
    chosen = _filter(broker, filter_name)
    latest = next(broker.archive.alerts(alert_id))
    frames, _ = decode_batch([latest.payload], broker.survey, resolver=broker.resolver)
    explanation = explain(chosen, frames[0].rows)
    if as_json:
        ids = {"object_id": latest.object_id, "source_id": latest.source_id}
        print_json(ids | explanation.to_dict())
    else:
        _show(explanation, f"{latest.object_id} / {latest.source_id}")


def _filter(broker: Broker, name: str) -> Filter:
    for chosen in broker.filters:
        if name in (chosen.name, chosen.topic):
            return chosen
    known = ", ".join(chosen.name for chosen in broker.filters)
    raise UsageError(f"there is no filter {name!r}; there are: {known}")


def _show(explanation: Explanation, alert: str) -> None:
    verdict = "passes" if explanation.passed else "does not pass"
    click.secho(f"{alert} {verdict} {explanation.filter}", bold=True)
    if not explanation.applicable:
        click.echo(f"  {explanation.reason}")
    for cut in explanation.cuts:
        click.echo(f"  {_line(cut)}")


def _line(cut: CutVerdict) -> str:
    verdict = click.style(f"{cut.verdict:8}", fg=_COLOURS[cut.verdict])
    wanted = f"{cut.comparison} {cut.threshold} {cut.unit}".strip()
    why = f"  ({cut.reason})" if cut.reason else ""
    return f"{verdict} {cut.name:24} {cut.value!s:>14}   wants {wanted}{why}   [{cut.reference}]"
