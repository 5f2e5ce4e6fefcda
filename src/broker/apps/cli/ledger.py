"""``pgb ledger``: does everything add up?"""

import sys
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any

import click

from broker.apps.cli._options import options, settings_of, surveys_in
from broker.apps.cli._output import print_json, print_table
from broker.pipeline.ledger import Sums
from broker.pipeline.reconcile import Check, gaps, reconcile, reconcile_sinks
from broker.ports import OffsetGap
from broker.wiring import Broker

_MOST_GAPS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class _Account:
    """What one ledger says, and whether it is so."""

    name: str
    sums: Sums
    checks: list[Check]
    offsets: dict[tuple[str, int], list[tuple[int, int]]]
    missing: list[OffsetGap]

    @property
    def agrees(self) -> bool:
        return all(check.ok for check in self.checks)


@click.command()
@options("survey", "home", "testid", "bus", "tables", "json")
@click.option("--night", type=click.DateTime(["%Y-%m-%d", "%Y%m%d"]), help="One night only (UTC).")
def command(night: datetime | None, as_json: bool, **flags: Any) -> None:
    """Add up what was received and what became of it; exit 1 if anything does not agree.

    Over all nights, the sums are also held against what tables and topics really contain.
    Without --survey, every survey of the home is looked at.
    """
    settings = settings_of(**flags)
    surveys = [settings.survey] if settings.survey else surveys_in(settings.home_path)
    accounts = [
        _account(Broker(settings_of(**flags | {"survey": survey})), night.date() if night else None)
        for survey in surveys or [""]
    ]
    if as_json:
        values = [_values(account) for account in accounts]
        print_json(values[0] if len(values) == 1 else values)
    else:
        for account in accounts:
            _show(account)
    sys.exit(0 if all(account.agrees for account in accounts) else 1)


def _account(broker: Broker, night: date | None) -> _Account:
    checks = reconcile(broker.ledger, night)
    if night is None:
        checks += reconcile_sinks(broker.ledger, broker.instance, broker.bus, broker.tables)
    ledger = broker.ledger
    name = f"{broker.instance.name('ledger')}, {night or 'all nights'}"
    return _Account(name, ledger.sums(night), checks, ledger.offset_ranges(), gaps(ledger))


def _values(account: _Account) -> dict[str, Any]:
    sums = account.sums
    return {
        "ledger": account.name,
        "received": sums.received,
        "stored": sums.stored,
        "duplicates": sums.duplicates,
        "dead_lettered": sums.dead_lettered,
        "fates": sums.fates,
        "checks": [
            {"what": c.what, "expected": c.expected, "found": c.found, "ok": c.ok}
            for c in account.checks
        ],
        "offsets": [
            {"topic": topic, "partition": partition, "first": first, "last": last}
            for (topic, partition), ranges in account.offsets.items()
            for first, last in ranges
        ],
        "gaps": [asdict(gap) for gap in account.missing],
        "reconciled": account.agrees,
    }


def _show(account: _Account) -> None:
    rows = [(c.what, c.expected, c.found, "ok" if c.ok else "DIFFERS") for c in account.checks]
    print_table(account.name, ("what", "ledger", "found", ""), rows)
    _show_offsets(account)
    click.secho("everything adds up" if account.agrees else "it does not add up", bold=True)


def _show_offsets(account: _Account) -> None:
    """Print what was received of each partition, and name what is missing."""
    if not account.offsets and not account.missing:
        return
    missing = Counter((gap.topic, gap.partition) for gap in account.missing)
    rows = [
        (*partition, ranges[0][0], ranges[-1][1], missing[partition] or "gap-free")
        for partition, ranges in account.offsets.items()
    ]
    print_table("Offsets", ("topic", "partition", "first", "last", "gaps"), rows)
    for (topic, partition, reason), group in groupby(
        sorted(account.missing, key=_partition_and_reason), _partition_and_reason
    ):
        found = [f"{gap.first}–{gap.last} never came" for gap in group]
        if len(found) > _MOST_GAPS_SHOWN:
            found = [*found[:_MOST_GAPS_SHOWN], f"and {len(found) - _MOST_GAPS_SHOWN:,} gaps more"]
        for words in found:
            why = reason or "no reason is known"
            click.secho(f"{topic}[{partition}]: {words} ({why})", fg="yellow")


def _partition_and_reason(gap: OffsetGap) -> tuple[str, int, str]:
    return gap.topic, gap.partition, gap.reason
