"""``pgb ledger``: does everything add up?"""

import sys
from datetime import datetime
from typing import Any

import click

from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.pipeline.reconcile import gaps, reconcile, reconcile_sinks
from broker.wiring import Broker


@click.command()
@options("survey", "home", "testid", "json")
@click.option("--night", type=click.DateTime(["%Y-%m-%d", "%Y%m%d"]), help="One night only (UTC).")
def command(night: datetime | None, as_json: bool, **flags: Any) -> None:
    """Add up what was received and what became of it; exit 1 if anything does not agree.

    Over all nights, the sums are also held against what tables and topics really contain.
    """
    broker = Broker(settings_of(**flags))
    date = night.date() if night else None
    sums = broker.ledger.sums(date)
    checks = reconcile(broker.ledger, date)
    if date is None:
        checks += reconcile_sinks(broker.ledger, broker.instance, broker.bus, broker.tables)
    missing = gaps(broker.ledger)
    agrees = all(check.ok for check in checks)
    if as_json:
        print_json(
            {
                "received": sums.received,
                "stored": sums.stored,
                "duplicates": sums.duplicates,
                "dead_lettered": sums.dead_lettered,
                "fates": sums.fates,
                "checks": [
                    {"what": c.what, "expected": c.expected, "found": c.found, "ok": c.ok}
                    for c in checks
                ],
                "gaps": [(g.topic, g.partition, g.first, g.last) for g in missing],
                "reconciled": agrees,
            }
        )
    else:
        rows = [(c.what, c.expected, c.found, "ok" if c.ok else "DIFFERS") for c in checks]
        title = f"{broker.instance.name('ledger')}, {date or 'all nights'}"
        print_table(title, ("what", "ledger", "found", ""), rows)
        for gap in missing:
            words = f"{gap.topic}[{gap.partition}]: {gap.first}–{gap.last} never received"
            click.secho(words, fg="yellow")
        click.secho("everything adds up" if agrees else "it does not add up", bold=True)
    sys.exit(0 if agrees else 1)
