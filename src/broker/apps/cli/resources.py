"""``pgb resources``: what an instance is made of, and what that costs in Google Cloud."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.apps.cloud.cost import Line, cost, first_broker
from broker.apps.cloud.registry import Context, Resource, registry
from broker.instance import Instance, OldName, recognise
from broker.surveys import SURVEYS
from broker.wiring import Broker


@click.command()
@options("survey", "testid", "json")
@click.option("--project", metavar="ID", help="Google Cloud project, for the names of buckets.")
@click.option(
    "--cost", "alerts", type=click.IntRange(min=1), metavar="ALERTS", help="Say what so many cost."
)
@click.option(
    "--name", metavar="NAME", help="Say what NAME stands for, an old name too; exit 1 if nothing."
)
def command(alerts: int | None, name: str | None, as_json: bool, **flags: Any) -> None:
    """List what an instance is made of; say what a number of alerts costs.

    \b
      pgb resources --survey ztf --testid mytest
      pgb resources --survey ztf --cost 1000000
      pgb resources --name ztf_alert_avro_bucket
    """
    settings = settings_of(**flags)
    broker = Broker(settings)
    context = Context(broker.instance, settings.project, settings.region)
    found = registry(context, broker.filters)
    if name is not None:
        _explain(name, context, found, as_json=as_json)
    elif alerts is None:
        _list(found, as_json=as_json)
    else:
        _price(cost(found, alerts), alerts, as_json=as_json)


def _list(found: Sequence[Resource], *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"kind": it.kind, "name": it.name, "for": it.purpose, "settings": dict(it.settings)}
                for it in found
            ]
        )
        return
    rows = [(it.kind.replace("_", " "), it.name, it.purpose) for it in found]
    print_table("", ("kind", "name", "for"), rows)


def _price(lines: Sequence[Line], alerts: int, *, as_json: bool) -> None:
    total = sum(line.usd for line in lines)
    if as_json:
        rows = [
            {
                "resource": str(line.resource),
                "what": line.price.words,
                "quantity": line.quantity,
                "unit": line.price.unit,
                "usd": line.usd,
            }
            for line in lines
        ]
        print_json({"alerts": alerts, "usd": total, "lines": rows})
        return
    table = [
        (str(it.resource), it.price.words, f"{it.quantity:.4g} {it.price.unit}", f"{it.usd:.2f}")
        for it in lines
        if it.usd >= 0.005
    ]
    print_table(f"Cost of {alerts:,} alerts", ("resource", "what", "quantity", "USD"), table)
    usd, whose = first_broker()
    click.echo(f"together {total:.2f} USD, {total / alerts * 1e6:.2f} per million alerts")
    click.echo(f"{usd:.2f} USD: {whose}")


def _explain(name: str, context: Context, found: Sequence[Resource], *, as_json: bool) -> None:
    """Tell what a name stands for, in this instance and in the brokers before it."""
    own = [
        {"age": "now", "kind": it.kind, "stub": it.stub, "name": it.name}
        for it in found
        if it.name == name
    ]
    old = [
        {"age": it.age, "kind": it.kind, "stub": it.stub, "name": _today(it, context)}
        for it in recognise(name)
        if it.survey in ("", *SURVEYS)
    ]
    if as_json:
        print_json([*own, *old])
    elif own or old:
        rows = [(it["age"], it["kind"], it["stub"], it["name"]) for it in [*own, *old]]
        print_table("", ("names of", "kind", "stub", "today"), rows, counts=False)
    else:
        click.echo(f"{name} is no name of this instance, nor of the brokers before it")
    sys.exit(not (own or old))


def _today(old: OldName, context: Context) -> str:
    """Return today's name of what an old name stands for, for the instance that it tells."""
    instance = context.instance
    if old.survey:
        instance = Instance(old.survey, old.testid or None)
    return replace(context, instance=instance).name(old.kind, old.stub)
