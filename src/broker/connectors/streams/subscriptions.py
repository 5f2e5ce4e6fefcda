"""Who has read what: cursors and leases of every subscription, in one SQLite file.

Several processes share the file; each change is one short transaction.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.connectors.disk import disk_errors
from broker.errors import NotFoundError, RefusedError, TransientError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS subscription (
    name TEXT PRIMARY KEY, topic TEXT NOT NULL, attribute_filter TEXT NOT NULL,
    ack_deadline_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursor (
    subscription TEXT, worker TEXT, batch INTEGER NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (subscription, worker)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    subscription TEXT, worker TEXT, batch INTEGER, row INTEGER,
    deadline_s REAL NOT NULL, attempt INTEGER NOT NULL,
    PRIMARY KEY (subscription, worker, batch, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lease_deadline ON lease (subscription, deadline_s);
"""
# How long a transaction waits for those of other processes.
_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as it was made."""

    name: str
    topic: str
    attribute_filter: str
    ack_deadline_s: float


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A message of one worker: its batch and row."""

    worker: str
    batch: int
    row: int

    @property
    def columns(self) -> tuple[str, int, int]:
        """The values of a table's columns ``worker, batch, row``."""
        return self.worker, self.batch, self.row


@dataclass(frozen=True, slots=True)
class Lease:
    """A message handed out for the `attempt`-th time."""

    position: Position
    attempt: int

    @property
    def message_id(self) -> str:
        """Name the message within its topic."""
        return f"{self.position.worker}-{self.position.batch}-{self.position.row}"

    @property
    def ack_id(self) -> str:
        """Name this lease of the message."""
        return f"{self.message_id}-{self.attempt}"


# Given the cursors and how many are wanted: messages that are new, and the cursors after them.
Scan = Callable[[dict[str, Position], int], tuple[list[Position], dict[str, Position]]]


class Subscriptions:
    """The subscriptions of one home.

    Parameters
    ----------
    path : Path
        The SQLite file, made if need be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _sqlite_errors(path):
            self._db = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)

    def create(self, wanted: Subscription) -> None:
        """Make a subscription; the same again does nothing.

        Raises
        ------
        RefusedError
            If the name is taken by another topic or filter.
        """
        with self.transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO subscription VALUES (?, ?, ?, ?)",
                (wanted.name, wanted.topic, wanted.attribute_filter, wanted.ack_deadline_s),
            )
        found = self.get(wanted.name)
        if (found.topic, found.attribute_filter) != (wanted.topic, wanted.attribute_filter):
            raise RefusedError(
                f"subscription {wanted.name!r} exists already, on topic {found.topic!r} "
                f"with filter {found.attribute_filter!r}"
            )

    def get(self, name: str) -> Subscription:
        """Return a subscription.

        Raises
        ------
        NotFoundError
            If there is none of this name.
        """
        for found in self.all():
            if found.name == name:
                return found
        raise NotFoundError(f"there is no subscription {name!r}")

    def all(self) -> list[Subscription]:
        """Return every subscription, in order of name."""
        with self._lock, _sqlite_errors(self._path):
            rows = self._db.execute("SELECT * FROM subscription ORDER BY name").fetchall()
        return [Subscription(*row) for row in rows]

    def pending(self, name: str) -> tuple[dict[str, Position], int]:
        """Return the cursors and how many messages are leased."""
        with self.transaction():
            (leased,) = self._db.execute(
                "SELECT count(*) FROM lease WHERE subscription = ?", (name,)
            ).fetchone()
            return self._cursors(name), leased

    def lease(
        self, subscription: Subscription, now_s: float, count: int, scan: Scan
    ) -> tuple[list[Lease], bool]:
        """Lease expired messages, then new ones.

        Returns
        -------
        tuple
            The leases, and whether `scan` moved a cursor, so that there may be more.
        """
        name, deadline = subscription.name, now_s + subscription.ack_deadline_s
        with self.transaction():
            leases = self._expired(name, now_s, count)
            before = self._cursors(name)
            positions, after = scan(before, count - len(leases))
            leases += [Lease(position, 1) for position in positions]
            self._db.executemany(
                "INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?)",
                [(name, *it.position.columns, deadline, it.attempt) for it in leases],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?)",
                [(name, *position.columns) for position in after.values()],
            )
        return leases, after != before

    def acknowledge(self, name: str, ack_ids: Sequence[str]) -> None:
        """Forget leases; a message that was leased again meanwhile is done as well."""
        keys = [(name, *found.position.columns) for found in leases_of(ack_ids)]
        with self.transaction():
            self._db.executemany(
                "DELETE FROM lease WHERE subscription = ? AND worker = ? AND batch = ? AND row = ?",
                keys,
            )

    def release(self, name: str, ack_ids: Sequence[str]) -> None:
        """Let leases expire now, unless the message was leased again meanwhile."""
        keys = [(name, *found.position.columns, found.attempt) for found in leases_of(ack_ids)]
        with self.transaction():
            self._db.executemany(
                "UPDATE lease SET deadline_s = 0 WHERE subscription = ? AND worker = ? "
                "AND batch = ? AND row = ? AND attempt = ?",
                keys,
            )

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the database for one change, which is there whole or not at all.

        Raises
        ------
        TransientError
            If the file cannot be used now.
        """
        with self._lock, _sqlite_errors(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _expired(self, name: str, now_s: float, count: int) -> list[Lease]:
        rows = self._db.execute(
            "SELECT worker, batch, row, attempt FROM lease "
            "WHERE subscription = ? AND deadline_s <= ? ORDER BY batch, row, worker LIMIT ?",
            (name, now_s, count),
        )
        return [Lease(Position(*position), attempt + 1) for *position, attempt in rows]

    def _cursors(self, name: str) -> dict[str, Position]:
        rows = self._db.execute(
            "SELECT worker, batch, row FROM cursor WHERE subscription = ?", (name,)
        )
        return {worker: Position(worker, batch, row) for worker, batch, row in rows}


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise TransientError(f"{path} cannot be used now: {error}") from error


def leases_of(ack_ids: Sequence[str]) -> Iterator[Lease]:
    """Iterate over the leases that acknowledgement ids name.

    Raises
    ------
    RefusedError
        If a text is no acknowledgement id.
    """
    for ack_id in ack_ids:
        worker, *numbers = ack_id.rsplit("-", 3)
        try:
            batch, row, attempt = map(int, numbers)
        except ValueError as error:
            raise RefusedError(f"{ack_id!r} is not an acknowledgement id") from error
        yield Lease(Position(worker, batch, row), attempt)
