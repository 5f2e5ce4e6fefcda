"""Where a consumer stands in each partition: read, durable, committed, missing."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Jump:
    """Offsets between two messages of a partition that never came."""

    partition: Partition
    first: int
    last: int


@dataclass(slots=True)
class Offsets:
    """The offsets of the assigned partitions; each is that of the next message.

    A position is committed only while its partition is assigned, and only forward. What was
    read before a partition was taken away is therefore read again by its new owner; if it
    comes back to us meanwhile, committing an older batch is right, as all before it is
    durable here or was committed by someone.

    A partition may end with offsets that hold no message: marks of transactions, aborted
    messages. Once all before them is durable, they are committed as well, or nobody could
    tell that the partition is done.
    """

    read: dict[Partition, int] = field(default_factory=dict)
    _handed: dict[Partition, int] = field(default_factory=dict)
    _ends: dict[Partition, int] = field(default_factory=dict)
    _durable: dict[Partition, int] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    _assigned: set[Partition] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def assigned(self) -> list[Partition]:
        """The partitions that are ours now, in order."""
        with self._lock:
            return sorted(self._assigned)

    def assign(self, partitions: Mapping[Partition, int]) -> None:
        """Take partitions over, each with its committed offset, negative if there is none."""
        with self._lock:
            self._assigned |= partitions.keys()
            for partition, committed in partitions.items():
                self._ends.pop(partition, None)
                self._handed.pop(partition, None)
                if committed >= 0:
                    self.committed[partition] = committed
                    self.read[partition] = committed

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Give partitions up; nothing of theirs is committed any more."""
        with self._lock:
            for partition in partitions:
                self._assigned.discard(partition)
                known = (self.read, self._handed, self._ends, self._durable, self.committed)
                for offsets in known:
                    offsets.pop(partition, None)

    def take(self, origins: pl.DataFrame) -> list[Jump]:
        """Note what was read; return the offsets that were jumped over."""
        jumps: list[Jump] = []
        for topic, part, first, last, count in _spans(origins):
            partition = (topic, part)
            expected = self.read.get(partition, first)
            if first > expected or last - first + 1 != count:
                jumps += _jumps(origins, partition, expected)
            self.read[partition] = self._handed[partition] = last + 1
        return jumps

    def reached_end(self, partition: Partition, offset: int) -> list[Jump]:
        """Note that all before `offset` was read; return the offsets that never came."""
        if partition not in self._assigned:
            return []
        expected = self.read.get(partition, offset)
        self.read[partition] = self._ends[partition] = max(offset, expected)
        return [Jump(partition, expected, offset - 1)] if offset > expected else []

    def make_durable(self, origins: pl.DataFrame) -> None:
        """Note that a batch and all before it are durable."""
        with self._lock:
            for topic, part, _, last, _ in _spans(origins):
                known = self._durable.get((topic, part), -1)
                self._durable[topic, part] = max(known, last + 1)

    def to_commit(self) -> dict[Partition, int]:
        """Return what is durable and not committed yet, of the assigned partitions."""
        with self._lock:
            done = {partition: self._done(partition) for partition in self._assigned}
            return {
                partition: offset
                for partition, offset in done.items()
                if offset > max(self.committed.get(partition, -1), 0)
            }

    def _done(self, partition: Partition) -> int:
        """Return the offset before which all is durable or holds no message."""
        durable = self._durable.get(partition, -1)
        if self._handed.get(partition, -1) > durable:
            return durable
        return max(durable, self._ends.get(partition, -1))

    def confirm(self, committed: Mapping[Partition, int]) -> None:
        """Note what the server has recorded."""
        with self._lock:
            for partition, offset in committed.items():
                if partition in self._assigned:
                    self.committed[partition] = max(offset, self.committed.get(partition, -1))


def _spans(origins: pl.DataFrame) -> Sequence[tuple[str, int, int, int, int]]:
    """Return topic, partition, first and last offset and count of each partition."""
    spans = origins.group_by("topic", "partition").agg(
        first=pl.col("offset").min(), last=pl.col("offset").max(), count=pl.len()
    )
    return spans.rows()


def _jumps(origins: pl.DataFrame, partition: Partition, expected: int) -> list[Jump]:
    of_partition = (pl.col("topic") == partition[0]) & (pl.col("partition") == partition[1])
    offsets = origins.filter(of_partition)["offset"].to_list()
    before = [expected - 1, *offsets]
    return [
        Jump(partition, last + 1, first - 1)
        for last, first in zip(before, offsets, strict=False)
        if first > last + 1
    ]
