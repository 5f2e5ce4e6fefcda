"""Messages handed out by one reader of a subscription, until they are acknowledged."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from broker.connectors.kafka.offsets import Partition
from broker.ports import Delivery


@dataclass(slots=True)
class _Lease:
    partition: Partition
    offset: int
    delivery: Delivery
    deadline_s: float


@dataclass(slots=True)
class Leases:
    """What is on loan, and up to which offset everything is done.

    A message that was never acknowledged holds its partition's offset back; those after it
    that were acknowledged come again only if this reader ends before it.
    """

    _lent: dict[str, _Lease] = field(default_factory=dict)
    _open: dict[Partition, list[int]] = field(default_factory=dict)
    _done: dict[Partition, set[int]] = field(default_factory=dict)
    _next: dict[Partition, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._lent)

    def add(
        self, partition: Partition, offset: int, delivery: Delivery, deadline_s: float
    ) -> Delivery:
        """Lend a new message."""
        heapq.heappush(self._open.setdefault(partition, []), offset)
        self._next[partition] = offset + 1
        self._lent[delivery.message_id] = _Lease(partition, offset, delivery, deadline_s)
        return delivery

    def skip(self, partition: Partition, offset: int) -> None:
        """Note a message that nobody wants."""
        self._next[partition] = offset + 1

    def renew(self, now_s: float, count: int, ack_deadline_s: float) -> list[Delivery]:
        """Lend up to `count` expired messages again."""
        expired = [it for it in self._lent.values() if it.deadline_s <= now_s][:count]
        for lease in expired:
            lease.deadline_s = now_s + ack_deadline_s
            attempt = lease.delivery.attempt + 1
            ack_id = f"{lease.delivery.message_id}/{attempt}"
            lease.delivery = replace(lease.delivery, ack_id=ack_id, attempt=attempt)
        return [lease.delivery for lease in expired]

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Take messages off the loan for good, whichever lease of them is named."""
        for ack_id in ack_ids:
            lease = self._lent.pop(ack_id.rsplit("/", 1)[0], None)
            if lease is not None:
                self._done.setdefault(lease.partition, set()).add(lease.offset)

    def release(self, ack_ids: Sequence[str]) -> None:
        """Let leases expire now; an older lease of the same message changes nothing."""
        for ack_id in ack_ids:
            lease = self._lent.get(ack_id.rsplit("/", 1)[0])
            if lease is not None and lease.delivery.ack_id == ack_id:
                lease.deadline_s = float("-inf")

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop what belongs to partitions that others read now."""
        gone = set(partitions)
        self._lent = {key: it for key, it in self._lent.items() if it.partition not in gone}
        for partition in gone:
            for known in (self._open, self._done, self._next):
                known.pop(partition, None)

    def positions(self) -> dict[Partition, int]:
        """Return the offset before which everything is done, of each partition."""
        return {partition: self._position(partition) for partition in self._next}

    def _position(self, partition: Partition) -> int:
        waiting, done = self._open.get(partition, []), self._done.get(partition, set())
        while waiting and waiting[0] in done:
            done.discard(heapq.heappop(waiting))
        return waiting[0] if waiting else self._next[partition]
