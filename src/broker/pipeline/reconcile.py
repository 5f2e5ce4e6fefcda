"""Does everything add up? The ledger's sums against what the sinks really hold."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from broker.instance import Instance
from broker.pipeline.copies import STAGE
from broker.pipeline.ledger import Ledger, Sums
from broker.ports import OffsetGap, Stream, Tables

Partition = tuple[str, int]
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must add up: what the ledger says, and what was found."""

    what: str
    expected: int
    found: int

    @property
    def ok(self) -> bool:
        """Whether both agree."""
        return self.expected == self.found


def reconcile(ledger: Ledger, night: date | None = None) -> list[Check]:
    """Check that the ledger agrees with itself, over all nights or for one."""
    return list(_within(ledger.sums(night)))


def reconcile_sinks(
    ledger: Ledger, instance: Instance, stream: Stream, tables: Tables
) -> list[Check]:
    """Check that tables and topics hold what the ledger says, over all nights.

    Topics whose service does not count messages are left out.
    """
    sums = ledger.sums()
    topics = {topic.name: topic.messages for topic in stream.topics()}
    letters = instance.name("deadletters")
    sent = {**sums.fates.get("published", {}), letters: sums.dead_lettered}
    checks = [
        Check(f"rows in table {table}", count, _rows(tables, instance.dataset, table))
        for table, count in _merged(sums.fates, "rows", "products").items()
    ]
    return checks + [
        Check(f"messages in topic {topic}", count, topics.get(topic, 0))
        for topic, count in sent.items()
        if topics.get(topic, 0) >= 0
    ]


def _merged(fates: Mapping[str, Mapping[str, int]], *stages: str) -> dict[str, int]:
    return {name: count for stage in stages for name, count in fates.get(stage, {}).items()}


def gaps(ledger: Ledger) -> list[OffsetGap]:
    """Name every stretch of offsets that is missing, with the reason where a source knew it.

    A stretch between two that were received and of which no source has said why it is
    missing has no reason.
    """
    noted: dict[Partition, list[OffsetGap]] = {}
    for gap in ledger.noted_gaps():
        noted.setdefault((gap.topic, gap.partition), []).append(gap)
    ranges = ledger.offset_ranges()
    return [
        gap
        for partition in sorted({*noted, *ranges})
        for gap in _gaps_of(partition, ranges.get(partition, []), noted.get(partition, []))
    ]


def _gaps_of(
    partition: Partition, received: Sequence[Range], noted: Sequence[OffsetGap]
) -> list[OffsetGap]:
    """Return the missing offsets of one partition, from its ranges and what sources said."""
    found, told = [], -1
    for gap in noted:
        holes = _without((max(gap.first, told + 1), gap.last), received)
        found += [OffsetGap(*partition, *hole, gap.reason) for hole in holes]
        told = max(told, gap.last)
    if received:
        known = sorted([*received, *((gap.first, gap.last) for gap in found)])
        holes = _without((received[0][0], received[-1][1]), known)
        found += [OffsetGap(*partition, *hole) for hole in holes]
    return sorted(found)


def _without(span: Range, known: Sequence[Range]) -> Iterator[Range]:
    """Yield what is left of a range without others, which are in order and do not overlap."""
    first, last = span
    for i in range(bisect_left(known, first, key=lambda it: it[1]), len(known)):
        start, end = known[i]
        if first > last or start > last:
            break
        if first < start:
            yield first, start - 1
        first = end + 1
    if first <= last:
        yield first, last


def _within(sums: Sums) -> Iterator[Check]:
    fates = sums.stored + sums.duplicates + sums.dead_lettered
    yield Check("received = stored + duplicates + dead-lettered", sums.received, fates)
    yield Check("batches left open", 0, sums.open_batches)
    for table, count in sums.fates.get("rows", {}).items():
        yield Check(f"stored = rows of {table}", sums.stored, count)
    if files := sums.fates.get(STAGE):
        yield Check("stored = alert files", sums.stored, sum(files.values()))
    for stage, counts in sums.fates.items():
        if stage.startswith("filter "):
            yield Check(f"stored = verdicts of {stage}", sums.stored, sum(counts.values()))
            yield from _published(stage, counts, sums.fates)


def _published(
    stage: str, counts: Mapping[str, int], fates: Mapping[str, Mapping[str, int]]
) -> Iterator[Check]:
    sent = fates.get(f"published by {stage}", {})
    yield Check(f"passed {stage} = published", counts.get("pass", 0), sum(sent.values()))


def _rows(tables: Tables, dataset: str, table: str) -> int:
    if f"{dataset}.{table}" not in tables.tables():
        return 0
    counted = tables.query(f"SELECT COUNT(*) AS n FROM {dataset}.{table}")  # noqa: S608 - names of ours
    return int(counted.item())
