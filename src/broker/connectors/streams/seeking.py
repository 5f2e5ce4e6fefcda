"""Back and forth in a subscription: to a time, or to what a snapshot remembers."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from broker.connectors.streams.desk import from_time
from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.subscriptions import place
from broker.errors import NotFoundError, RefusedError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshot (
    name TEXT PRIMARY KEY, topic TEXT NOT NULL, created_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot_cursor (
    snapshot TEXT, worker TEXT, batch INTEGER NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (snapshot, worker)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot_message (
    snapshot TEXT, worker TEXT, batch INTEGER, row INTEGER, ordering_key TEXT NOT NULL,
    PRIMARY KEY (snapshot, worker, batch, row)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a subscription had not acknowledged at one moment."""

    name: str
    topic: str
    created_s: float


class Seeker:
    """Moves subscriptions of a home.

    Parameters
    ----------
    stream : LocalStream
        The topics.
    """

    def __init__(self, stream: LocalStream) -> None:
        self._stream = stream
        self._book = stream.subscriptions
        with self._book.transaction() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)

    def to_time(self, name: str, moment: datetime) -> None:
        """Let everything from `moment` on be delivered again, and nothing before it.

        Raises
        ------
        NotFoundError
            If there is no such subscription.
        """
        found = self._book.get(name)
        with self._book.transaction() as db:
            _clear(db, name)
            if found.topic:
                place(db, name, from_time(self._stream.log(found.topic), moment.timestamp(), {}))

    def snapshot(self, name: str, subscription: str, created: datetime) -> Snapshot:
        """Remember what a subscription has not acknowledged.

        Raises
        ------
        NotFoundError
            If there is no such subscription.
        RefusedError
            If the name is taken.
        """
        made = Snapshot(name, self._book.get(subscription).topic, created.timestamp())
        with self._book.transaction() as db:
            if db.execute("SELECT 1 FROM snapshot WHERE name = ?", (name,)).fetchone():
                raise RefusedError(f"snapshot {name!r} exists already")
            db.execute("INSERT INTO snapshot VALUES (?, ?, ?)", (name, made.topic, made.created_s))
            db.execute(
                "INSERT INTO snapshot_cursor SELECT ?, worker, batch, row FROM cursor"
                " WHERE subscription = ?",
                (name, subscription),
            )
            db.execute(
                "INSERT INTO snapshot_message SELECT ?, worker, batch, row,"
                " coalesce(ordering_key, '') FROM lease LEFT JOIN keyed USING"
                " (subscription, worker, batch, row)"
                " WHERE lease.subscription = ? AND coalesce(acknowledged, 0) = 0",
                (name, subscription),
            )
        return made

    def snapshots(self) -> list[Snapshot]:
        """List the snapshots, in order of name."""
        with self._book.transaction() as db:
            rows = db.execute("SELECT * FROM snapshot ORDER BY name").fetchall()
        return [Snapshot(*row) for row in rows]

    def get(self, name: str) -> Snapshot:
        """Return a snapshot.

        Raises
        ------
        NotFoundError
            If there is none of this name.
        """
        for found in self.snapshots():
            if found.name == name:
                return found
        raise NotFoundError(f"there is no snapshot {name!r}")

    def to_snapshot(self, name: str, snapshot: str) -> None:
        """Let what a snapshot remembers, and all that came after, be delivered again.

        Raises
        ------
        NotFoundError
            If there is no such subscription or snapshot.
        RefusedError
            If the snapshot is of another topic.
        """
        found, remembered = self._book.get(name), self.get(snapshot)
        if found.topic != remembered.topic:
            raise RefusedError(f"snapshot {snapshot!r} is of another topic")
        with self._book.transaction() as db:
            _clear(db, name)
            db.execute(
                "INSERT INTO cursor SELECT ?, worker, batch, row FROM snapshot_cursor"
                " WHERE snapshot = ?",
                (name, snapshot),
            )
            db.execute(
                "INSERT INTO lease SELECT ?, worker, batch, row, 0, 0 FROM snapshot_message"
                " WHERE snapshot = ?",
                (name, snapshot),
            )
            db.execute(
                "INSERT INTO keyed SELECT ?, worker, batch, row, ordering_key, 0"
                " FROM snapshot_message WHERE snapshot = ? AND ordering_key != ''",
                (name, snapshot),
            )

    def drop(self, name: str) -> None:
        """Forget a snapshot."""
        with self._book.transaction() as db:
            db.execute("DELETE FROM snapshot WHERE name = ?", (name,))
            for table in ("snapshot_cursor", "snapshot_message"):
                db.execute(f"DELETE FROM {table} WHERE snapshot = ?", (name,))  # noqa: S608


def _clear(db: sqlite3.Connection, name: str) -> None:
    for table in ("cursor", "lease", "keyed"):
        db.execute(f"DELETE FROM {table} WHERE subscription = ?", (name,))  # noqa: S608
