"""Hands out the messages of local topics under each subscription's rules."""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import ceil
from typing import Protocol

from broker.connectors.streams import ordering
from broker.connectors.streams.rules import RuleBook, Rules
from broker.connectors.streams.segment import SegmentLog
from broker.connectors.streams.subscriptions import (
    Lease,
    Position,
    Subscription,
    Subscriptions,
    cursors,
    leases_of,
    place,
)
from broker.errors import BrokerError, NotFoundError, RefusedError
from broker.ports import Delivery

ORDERING_KEY = "googclient_orderingkey"
"""The attribute that keeps a message's ordering key; publishers cannot use the name."""

# What a message is taken to weigh until one was seen.
_FIRST_GUESS_BYTES = 64_000
# How long a dead letter is out while it is published.
_BURIAL_S = 60.0
_OF_LEASE = "WHERE subscription = ? AND worker = ? AND batch = ? AND row = ?"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """How much is wanted, and for how long; a first message may be larger than `most_bytes`."""

    count: int
    most_bytes: int
    deadline_s: float = 0.0


Bury = Callable[[str, Subscription, Sequence[Delivery]], None]
"""Publishes dead letters, given their topic and the subscription that gave them up."""


Scan = Callable[[dict[str, Position], int], tuple[list[Position], dict[str, Position]]]
"""Given cursors and how many are wanted: messages that are new, and the cursors after them."""


class Topics(Protocol):
    """The topics whose messages are handed out."""

    @property
    def subscriptions(self) -> Subscriptions:
        """Who has read what."""
        ...

    def log(self, topic: str) -> SegmentLog:
        """Return a topic's log."""
        ...

    def look(self, subscription: Subscription) -> Scan:
        """Return what finds the messages that a subscription has not seen."""
        ...

    def deliver(self, topic: str, leases: Sequence[Lease]) -> list[Delivery]:
        """Read the messages of leases."""
        ...

    def subscribe(
        self, topic: str, name: str, *, attribute_filter: str = "", ack_deadline_s: float = 60
    ) -> None:
        """Make a subscription, from the oldest message on."""
        ...


class Desk:
    """Subscriptions of a home with all that they may ask for.

    Parameters
    ----------
    stream : Topics
        The topics.
    bury : callable, optional
        Publishes dead letters; without it they stay, and are not delivered.
    now : callable
        The clock.
    """

    def __init__(
        self,
        stream: Topics,
        bury: Bury | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stream = stream
        self._book = stream.subscriptions
        self._bury = bury
        self._now = now
        self.rules = RuleBook(self._book)
        self._weights: dict[str, float] = {}
        with self._book.transaction() as db:
            for statement in ordering.SCHEMA:
                db.execute(statement)

    def create(self, wanted: Subscription, rules: Rules, *, from_start: bool = False) -> None:
        """Make a subscription that gets what is published from now on, or all there is.

        Raises
        ------
        RefusedError
            If the name is taken.
        NotFoundError
            If there is no such topic.
        """
        if any(found.name == wanted.name for found in self._book.all()):
            raise RefusedError(f"subscription {wanted.name!r} exists already")
        self._stream.subscribe(
            wanted.topic,
            wanted.name,
            attribute_filter=wanted.attribute_filter,
            ack_deadline_s=wanted.ack_deadline_s,
        )
        self.rules.set(wanted.name, rules)
        if not from_start:
            with self._book.transaction() as db:
                place(db, wanted.name, ends(self._stream.log(wanted.topic)))

    def change(self, name: str, ack_deadline_s: float, rules: Rules) -> None:
        """Change what can be changed of a subscription."""
        with self._book.transaction() as db:
            db.execute(
                "UPDATE subscription SET ack_deadline_s = ? WHERE name = ?", (ack_deadline_s, name)
            )
        self.rules.set(name, rules)

    def drop(self, name: str) -> None:
        """Forget a subscription and who has read what of it."""
        with self._book.transaction() as db:
            db.execute("DELETE FROM subscription WHERE name = ?", (name,))
            for table in ("cursor", "lease", "keyed", "rule"):
                db.execute(f"DELETE FROM {table} WHERE subscription = ?", (name,))  # noqa: S608

    def detach(self, topic: str) -> list[str]:
        """Take the subscriptions off a topic that goes away; return their names."""
        names = [found.name for found in self._book.all() if found.topic == topic]
        with self._book.transaction() as db:
            for name in names:
                db.execute("UPDATE subscription SET topic = '' WHERE name = ?", (name,))
                for table in ("cursor", "lease", "keyed"):
                    db.execute(f"DELETE FROM {table} WHERE subscription = ?", (name,))  # noqa: S608
        return names

    def pull(self, name: str, ask: Ask) -> list[Delivery]:
        """Lease messages, those that come again first.

        Raises
        ------
        NotFoundError
            If there is no such subscription.
        """
        found, rules = self._book.get(name), self.rules.get(name)
        got: list[Delivery] = []
        size, more = 0, bool(found.topic)
        while more and len(got) < ask.count and size < ask.most_bytes:
            weight = self._weights.get(name, _FIRST_GUESS_BYTES)
            count = min(ask.count - len(got), ceil((ask.most_bytes - size) / weight))
            leases, more = self._lease(found, rules, count, ask.deadline_s or found.ack_deadline_s)
            deliveries = self._stream.deliver(found.topic, leases)
            fitting, size = _fit(deliveries, size, ask.most_bytes)
            self._weigh(name, deliveries)
            got += deliveries[:fitting]
            if fitting < len(deliveries):
                self.take_back(name, deliveries[fitting:])
                break
        return got

    def bury_dead(self, name: str) -> int:
        """Publish a subscription's dead letters; return how many."""
        with suppress(NotFoundError):
            found, rules = self._book.get(name), self.rules.get(name)
            if rules.max_attempts and found.topic:
                with self._book.transaction() as db:
                    waiting, _ = self._waiting(db, name, rules, -1)
                    _, dead = self._divide(db, name, rules, waiting)
                return self._bury_all(found, rules, dead)
        return 0

    def acknowledge(self, name: str, ack_ids: Sequence[str], *, exact: bool = False) -> list[str]:
        """Never deliver these again; what was leased again meanwhile is done as well.

        Parameters
        ----------
        name : str
            The subscription.
        ack_ids : sequence of str
            As they were delivered.
        exact : bool
            Whether a lease that is over counts for nothing.

        Returns
        -------
        list of str
            The ids that counted for nothing.

        Raises
        ------
        RefusedError
            If a text is no acknowledgement id.
        """
        leases = list(leases_of(ack_ids))
        ordered = self.rules.get(name).ordered
        with self._book.transaction() as db:
            stale = self._stale(db, name, leases) if exact else set()
            positions = {lease.position for lease in leases if lease.ack_id not in stale}
            if ordered:
                ordering.acknowledge(db, name, positions)
            else:
                _delete(db, name, positions)
        return [ack_id for ack_id in ack_ids if ack_id in stale]

    def extend(
        self, name: str, ack_ids: Sequence[str], seconds: float, *, exact: bool = False
    ) -> list[str]:
        """Let leases last `seconds` from now; 0 gives messages back.

        A lease that is over does not take the message from who has it now. Parameters and
        result are as those of `acknowledge`.

        Raises
        ------
        RefusedError
            If a text is no acknowledgement id.
        """
        leases = list(leases_of(ack_ids))
        deadline_s = self._now().timestamp() + seconds
        with self._book.transaction() as db:
            stale = self._stale(db, name, leases) if exact else set()
            db.executemany(
                f"UPDATE lease SET deadline_s = ? {_OF_LEASE} AND attempt = ?",  # noqa: S608
                [(deadline_s, name, *it.position.columns, it.attempt) for it in leases],
            )
        return [ack_id for ack_id in ack_ids if ack_id in stale]

    def _stale(self, db: sqlite3.Connection, name: str, leases: Sequence[Lease]) -> set[str]:
        """Return the ids of leases that are over because the message came again or is done."""
        stale = set()
        for lease in leases:
            row = db.execute(
                f"SELECT attempt FROM lease {_OF_LEASE}",  # noqa: S608
                (name, *lease.position.columns),
            ).fetchone()
            if row is None or row[0] != lease.attempt:
                stale.add(lease.ack_id)
        return stale

    def _lease(
        self, found: Subscription, rules: Rules, count: int, seconds: float
    ) -> tuple[list[Lease], bool]:
        """Lease up to `count`; tell whether there may be more."""
        name = found.name
        with self._book.transaction() as db:
            waiting, blocked = self._waiting(db, name, rules, count)
            again, dead = self._divide(db, name, rules, waiting)
            again = again[:count]
            before = cursors(db, name)
            new, after = self._new(db, found, rules, count - len(again), blocked)
            leases = [replace(it, attempt=it.attempt + 1) for it in again]
            leases += [Lease(position, 1) for position in new]
            deadline_s = self._now().timestamp() + seconds
            db.executemany(
                "INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?)",
                [(name, *it.position.columns, deadline_s, it.attempt) for it in leases],
            )
            if rules.ordered:
                ordering.come_again(db, name, again)
            place(db, name, {key: it for key, it in after.items() if before.get(key) != it})
        self._bury_all(found, rules, dead)
        return leases, after != before

    def _waiting(
        self, db: sqlite3.Connection, name: str, rules: Rules, count: int
    ) -> tuple[list[Lease], set[tuple[str, str]]]:
        """Return what may come again, and the lines in which nothing new may come."""
        now_s = self._now().timestamp()
        if rules.ordered:
            patience = ordering.Patience(now_s, rules.backoff_s)
            return ordering.due(db, name, patience, count)
        rows = db.execute(
            "SELECT worker, batch, row, attempt, deadline_s FROM lease "
            "WHERE subscription = ? AND deadline_s <= ? ORDER BY batch, row, worker LIMIT ?",
            (name, now_s, -1 if rules.max_attempts or rules.maximum_backoff_s else count),
        )
        return [
            Lease(Position(worker, batch, row), attempt)
            for worker, batch, row, attempt, deadline_s in rows
            if deadline_s + rules.backoff_s(attempt) <= now_s
        ], set()

    def _divide(
        self, db: sqlite3.Connection, name: str, rules: Rules, waiting: list[Lease]
    ) -> tuple[list[Lease], list[Lease]]:
        """Take out the dead letters, and hold them while they are published."""
        dead = [lease for lease in waiting if rules.is_dead(lease.attempt)]
        alive = [lease for lease in waiting if not rules.is_dead(lease.attempt)]
        if self._bury is None:
            return alive, []
        until_s = self._now().timestamp() + _BURIAL_S
        db.executemany(
            f"UPDATE lease SET deadline_s = ? {_OF_LEASE}",  # noqa: S608
            [(until_s, name, *lease.position.columns) for lease in dead],
        )
        return alive, dead

    def _new(
        self,
        db: sqlite3.Connection,
        found: Subscription,
        rules: Rules,
        count: int,
        blocked: set[tuple[str, str]],
    ) -> tuple[list[Position], dict[str, Position]]:
        """Return messages that were never delivered, and the cursors after them."""
        start = cursors(db, found.name)
        if rules.retention_s:
            oldest = self._now().timestamp() - rules.retention_s
            start = from_time(self._stream.log(found.topic), oldest, start)
        if rules.ordered and _count(db, found.name) > ordering.MOST_WAITING:
            return [], start
        positions, after = self._stream.look(found)(start, count)
        if not rules.ordered:
            return positions, after
        keyed = list(zip(positions, self._keys(found.topic, positions), strict=True))
        ordering.keep(db, found.name, keyed)
        held = [position for position, key in keyed if (position.worker, key) in blocked]
        ordering.wait(db, found.name, held)
        return [position for position in positions if position not in held], after

    def _keys(self, topic: str, positions: Sequence[Position]) -> list[str]:
        """Read the ordering keys of messages, none being empty."""
        log, columns = self._stream.log(topic), {}
        for batch in {(position.worker, position.batch) for position in positions}:
            partition = log.partition(batch[0])
            frame = partition.find(batch[1])
            table = partition.attributes(frame) if frame else None
            known = table is not None and ORDERING_KEY in table.columns
            columns[batch] = table[ORDERING_KEY].to_list() if table is not None and known else []
        found = [columns[position.worker, position.batch] for position in positions]
        rows = [position.row for position in positions]
        return [(keys[row] or "") if keys else "" for keys, row in zip(found, rows, strict=True)]

    def _bury_all(self, found: Subscription, rules: Rules, dead: list[Lease]) -> int:
        if not dead or self._bury is None:
            return 0
        try:
            self._bury(rules.dead_letter_topic, found, self._stream.deliver(found.topic, dead))
        except BrokerError as error:
            facts = {"subscription": found.name, "reason": str(error)}
            _log.warning(
                "Dead letters could not be published; they will be tried again", extra=facts
            )
            return 0
        with self._book.transaction() as db:
            ordering.forget(db, found.name, [lease.position for lease in dead])
        return len(dead)

    def take_back(self, name: str, deliveries: Sequence[Delivery]) -> None:
        """Undo leases that nobody saw; their attempts do not count."""
        with self._book.transaction() as db:
            db.executemany(
                f"UPDATE lease SET deadline_s = 0, attempt = attempt - 1 {_OF_LEASE}",  # noqa: S608
                [
                    (name, *lease.position.columns)
                    for lease in leases_of([delivery.ack_id for delivery in deliveries])
                ],
            )

    def _weigh(self, name: str, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            mean = sum(map(weight_of, deliveries)) / len(deliveries)
            self._weights[name] = (self._weights.get(name, mean) + mean) / 2


def weight_of(delivery: Delivery) -> int:
    """Return about how many bytes a message takes on the wire."""
    attributes = delivery.attributes.items()
    return (
        len(delivery.payload) + 200 + sum(len(key) + 4 * len(text) + 8 for key, text in attributes)
    )


def ends(log: SegmentLog) -> dict[str, Position]:
    """Return the cursors after the last message there is."""
    lasts = {worker: partition.last() for worker, partition in log.partitions().items()}
    return {
        worker: Position(worker, frame.number + 1, 0) for worker, frame in lasts.items() if frame
    }


def from_time(log: SegmentLog, time_s: float, start: dict[str, Position]) -> dict[str, Position]:
    """Return the cursors at the first message published at `time_s` or later, or `start`."""
    found = dict(start)
    for worker, partition in log.partitions().items():
        for frame in partition.frames(start[worker].batch if worker in start else 0):
            if frame.published_us >= int(time_s * 1e6):
                break
            found[worker] = Position(worker, frame.number + 1, 0)
    return found


def _fit(deliveries: Sequence[Delivery], size: int, most: int) -> tuple[int, int]:
    """Return how many of the deliveries fit, and the size with them."""
    for i, delivery in enumerate(deliveries):
        weight = weight_of(delivery)
        if size and size + weight > most:
            return i, size
        size += weight
    return len(deliveries), size


def _delete(db: sqlite3.Connection, name: str, positions: set[Position]) -> None:
    db.executemany(
        f"DELETE FROM lease {_OF_LEASE}",  # noqa: S608
        [(name, *position.columns) for position in positions],
    )


def _count(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT count(*) FROM lease WHERE subscription = ?", (name,)).fetchone()
    return int(row[0])
