"""Who has read what: cursors and leases of every subscription, in one SQLite file.

Several processes share the file; each change is one short transaction.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
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
        with self.transaction() as db:
            (leased,) = db.execute(
                "SELECT count(*) FROM lease WHERE subscription = ?", (name,)
            ).fetchone()
            return cursors(db, name), leased

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


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise TransientError(f"{path} cannot be used now: {error}") from error


def cursors(db: sqlite3.Connection, name: str) -> dict[str, Position]:
    """Return how far a subscription has read each worker's messages."""
    rows = db.execute("SELECT worker, batch, row FROM cursor WHERE subscription = ?", (name,))
    return {worker: Position(worker, batch, row) for worker, batch, row in rows}


def place(db: sqlite3.Connection, name: str, found: dict[str, Position]) -> None:
    """Note how far a subscription has read."""
    db.executemany(
        "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?)",
        [(name, *position.columns) for position in found.values()],
    )


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
