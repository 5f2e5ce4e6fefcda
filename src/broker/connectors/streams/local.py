"""Topics as folders of segment logs, with subscriptions; nothing but a disk is needed."""

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from broker.connectors.disk import disk_errors
from broker.connectors.streams.attribute_filter import AttributeFilter
from broker.connectors.streams.desk import Ask, Desk
from broker.connectors.streams.frame import Frame
from broker.connectors.streams.segment import Partition, SegmentLog
from broker.connectors.streams.subscriptions import (
    Lease,
    Position,
    Subscription,
    Subscriptions,
)
from broker.connectors.streams.texts import attribute_texts
from broker.errors import NotFoundError, RefusedError, UsageError
from broker.ports import BatchKey, Delivery, Messages, TopicInfo

# Most batches of a worker that one transaction of a pull looks through for matches.
_BATCHES_A_LOOK = 64
# A pull of the `Stream` counts messages, not bytes.
_ANY_BYTES = 2**62
# How a kept reference starts; neither Avro nor JSON does.
_REFERENCE = b"\x00ref\x00"
_NAME = re.compile(r"[A-Za-z0-9][\w.~+%-]*")


class LocalStream:
    """A `Stream` on disk: durable, for several processes, each worker with its own log.

    A topic is a folder; messages of one worker are delivered in order of publication unless
    they are delivered again.

    Parameters
    ----------
    root : Path
        The folder of all topics.
    worker : str
        Whose log `publish` appends to; pulling needs no worker of its own.
    now : callable
        The clock, for times of publication and deadlines.
    sync : bool
        Whether `publish` flushes to the disk before it returns.
    resolve : callable, optional
        Makes payloads from references. With it, messages that come with references are kept
        as those, and made when they are delivered.
    """

    def __init__(
        self,
        root: Path,
        worker: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        sync: bool = True,
        resolve: Callable[[Sequence[bytes]], Sequence[bytes]] | None = None,
    ) -> None:
        self._root = root
        self._resolve = resolve
        self._resolving = threading.Lock()
        self._worker = _checked("worker", worker)
        self._now = now
        self._sync = sync
        self._logs: dict[str, SegmentLog] = {}
        self._subscriptions = Subscriptions(root / "subscriptions.sqlite")
        self._desk = Desk(self, now=now)

    @property
    def subscriptions(self) -> Subscriptions:
        """Who has read what."""
        return self._subscriptions

    def log(self, topic: str) -> SegmentLog:
        """Return a topic's log, which is a `Journal` of the same messages."""
        found = self._logs.get(topic)
        if found is None:  # another thread may be here too: the first one's log is everybody's
            folder = self._root / _checked("topic", topic)
            made = SegmentLog(folder, self._worker, self._now, sync=self._sync)
            found = self._logs.setdefault(topic, made)
        return found

    def create_topic(self, topic: str) -> None:
        """Make a topic; the same call again does nothing."""
        folder = self._root / _checked("topic", topic)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Append to `topic`, creating it; durable on return.

        A second call with a key at or below the last of its worker on that topic does
        nothing.

        Raises
        ------
        TransientError
            If the disk is full; nothing was published.
        """
        if self._resolve is not None and messages.references:
            kept = [_REFERENCE + reference for reference in messages.references]
            messages = Messages(kept, messages.attributes)
        if messages.payloads:
            self.log(topic).append(key, messages)
        else:
            self.create_topic(topic)

    def topics(self) -> list[TopicInfo]:
        """List the topics, in order of name."""
        names = sorted(entry.name for entry in self._root.iterdir() if entry.is_dir())
        subscriptions = self._subscriptions.all()
        return [
            TopicInfo(
                name,
                self._count(name),
                {it.name: self._backlog(it) for it in subscriptions if it.topic == name},
            )
            for name in names
        ]

    def subscribe(
        self, topic: str, name: str, *, attribute_filter: str = "", ack_deadline_s: float = 60
    ) -> None:
        """Make a subscription, from the oldest message on; the same call again does nothing.

        Raises
        ------
        NotFoundError
            If there is no such topic.
        RefusedError
            If the name is taken by another topic or filter.
        UsageError
            If the filter's grammar is wrong.
        """
        if not (self._root / _checked("topic", topic)).is_dir():
            raise NotFoundError(f"there is no topic {topic!r}")
        AttributeFilter(attribute_filter)
        self._subscriptions.create(Subscription(name, topic, attribute_filter, ack_deadline_s))

    def pull(self, subscription: str, max_messages: int) -> list[Delivery]:
        """Lease up to `max_messages`, those whose lease expired first.

        The subscription's `Rules` hold, if it has any. What has become a dead letter is not
        delivered; it waits for one who publishes it.

        Raises
        ------
        NotFoundError
            If there is no such subscription.
        """
        return self._desk.pull(subscription, Ask(max_messages, _ANY_BYTES))

    def look(self, subscription: Subscription) -> "Look":
        """Return what finds the messages that a subscription has not seen."""
        return Look(self.log(subscription.topic), AttributeFilter(subscription.attribute_filter))

    def deliver(self, topic: str, leases: Sequence[Lease]) -> list[Delivery]:
        """Read the messages of the leases.

        Raises
        ------
        NotFoundError
            If a message is gone.
        """
        return self._resolved(self._deliver(self.log(topic), leases))

    def has_topic(self, topic: str) -> bool:
        """Tell whether there is such a topic."""
        return bool(_NAME.fullmatch(topic)) and (self._root / topic).is_dir()

    def topic_names(self) -> list[str]:
        """Name the topics, in order, without looking into them."""
        return sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())

    def delete_topic(self, topic: str) -> None:
        """Remove a topic and its messages, which must be this worker's.

        Raises
        ------
        NotFoundError
            If there is no such topic.
        RefusedError
            If another worker wrote to it.
        """
        if not self.has_topic(topic):
            raise NotFoundError(f"there is no topic {topic!r}")
        if others := sorted({*self.log(topic).partitions()} - {self._worker}):
            raise RefusedError(
                f"topic {topic!r} holds messages of {', '.join(others)} and stays; "
                "only topics that were written to here can be deleted here"
            )
        self._logs.pop(topic).close()
        folder = self._root / topic
        with disk_errors(folder):
            aside = Path(mkdtemp(prefix="removed-", dir=self._root.parent))
            folder.rename(aside / topic)
            rmtree(aside)

    def _resolved(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Make the payloads of messages that were kept as references."""
        kept = [i for i, one in enumerate(deliveries) if one.payload.startswith(_REFERENCE)]
        if not kept or self._resolve is None:
            return deliveries
        places = [deliveries[i].payload.removeprefix(_REFERENCE) for i in kept]
        with self._resolving:
            payloads = self._resolve(places)
        for i, payload in zip(kept, payloads, strict=True):
            deliveries[i] = replace(deliveries[i], payload=payload)
        return deliveries

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Never deliver these again."""
        self._desk.acknowledge(subscription, ack_ids)

    def release(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Deliver these again now."""
        self._desk.extend(subscription, ack_ids, 0)

    def close(self) -> None:
        """Let go of the logs and the subscriptions; all is flushed already."""
        for log in self._logs.values():
            log.close()
        self._subscriptions.close()

    def _count(self, topic: str) -> int:
        lasts = (partition.last() for partition in self.log(topic).partitions().values())
        return sum(last.first + last.count for last in lasts if last)

    def _backlog(self, subscription: Subscription) -> int:
        cursors, leased = self._subscriptions.pending(subscription.name)
        return leased + self.look(subscription).count(cursors)

    def _deliver(self, log: SegmentLog, leases: Sequence[Lease]) -> list[Delivery]:
        """Read the messages of the leases, batch by batch."""
        batches: dict[tuple[str, int], list[Lease]] = {}
        for lease in leases:
            batches.setdefault((lease.position.worker, lease.position.batch), []).append(lease)
        return [
            delivery
            for (worker, number), of_batch in batches.items()
            for delivery in _deliver_batch(log.partition(worker), number, of_batch)
        ]


class Look:
    """Looks for messages that a subscription has not seen."""

    def __init__(self, log: SegmentLog, attribute_filter: AttributeFilter) -> None:
        self._log = log
        self._filter = attribute_filter

    def __call__(
        self, cursors: dict[str, Position], count: int
    ) -> tuple[list[Position], dict[str, Position]]:
        """Find up to `count`, an equal share of each worker's."""
        partitions = self._log.partitions()
        found: list[Position] = []
        after = dict(cursors)
        share = ceil(count / max(len(partitions), 1))
        for worker, partition in partitions.items():
            start = cursors.get(worker, Position(worker, 0, 0))
            got, after[worker] = self._take(partition, start, min(share, count - len(found)))
            found += got
        return found, after

    def count(self, cursors: dict[str, Position]) -> int:
        """Count all of them."""
        return sum(
            len(self._rows(partition, frame, cursors.get(worker, Position(worker, 0, 0))))
            for worker, partition in self._log.partitions().items()
            for frame in partition.frames(cursors[worker].batch if worker in cursors else 0)
        )

    def _take(
        self, partition: Partition, cursor: Position, count: int
    ) -> tuple[list[Position], Position]:
        found: list[Position] = []
        if count <= 0:
            return found, cursor
        for frame in _first(partition.frames(cursor.batch), _BATCHES_A_LOOK):
            rows = self._rows(partition, frame, cursor)[: count - len(found)]
            found += [Position(cursor.worker, frame.number, row) for row in rows]
            if len(found) == count:
                return found, Position(cursor.worker, frame.number, rows[-1] + 1)
            cursor = Position(cursor.worker, frame.number + 1, 0)
        return found, cursor

    def _rows(self, partition: Partition, frame: Frame, cursor: Position) -> Sequence[int]:
        start = cursor.row if frame.number == cursor.batch else 0
        if not self._filter.text.strip():
            return range(start, frame.count)
        rows = self._filter.rows(partition.attributes(frame), frame.count)
        found: list[int] = rows[rows >= start].tolist()
        return found


def _first(frames: Iterator[Frame], count: int) -> Iterator[Frame]:
    return (frame for frame, _ in zip(frames, range(count), strict=False))


def _deliver_batch(
    partition: Partition, number: int, leases: Sequence[Lease]
) -> Iterator[Delivery]:
    frame = partition.find(number)
    if frame is None:
        raise NotFoundError(f"batch {number} is gone from {partition.folder}")
    rows = [lease.position.row for lease in leases]
    texts = attribute_texts(partition.attributes(frame), rows)
    published = datetime.fromtimestamp(frame.published_us / 1e6, UTC)
    for lease, payload, text in zip(leases, partition.payloads(frame, rows), texts, strict=True):
        yield Delivery(lease.message_id, lease.ack_id, payload, text, published, lease.attempt)


def _checked(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{kind} name {name!r} is not allowed: use letters, digits and . _ ~ + % -"
        )
    return name
