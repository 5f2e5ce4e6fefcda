"""Order within a key: what of a subscription's leases may be delivered, and what waits.

Messages of one key, by one worker, are a line. Its first message that is not acknowledged
rules it: while that is out, nothing behind it is delivered; when it comes again, all behind
it come again, acknowledged or not.
"""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from broker.connectors.streams.subscriptions import Lease, Position

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS keyed (
    subscription TEXT, worker TEXT, batch INTEGER, row INTEGER, ordering_key TEXT NOT NULL,
    acknowledged INTEGER NOT NULL, PRIMARY KEY (subscription, worker, batch, row)) WITHOUT ROWID
""",
    """
CREATE INDEX IF NOT EXISTS keyed_line
    ON keyed (subscription, ordering_key, worker, batch, row, acknowledged)
""",
)
# More messages than this wait for those before them in no subscription; the rest is not read.
MOST_WAITING = 2_000
# A deadline that never comes.
_NEVER_S = 1e18
_THIS = "subscription = ? AND worker = ? AND batch = ? AND row = ?"
_LINE = "keyed.subscription = ? AND keyed.ordering_key = ? AND keyed.worker = ?"
_WITH_LEASE = "keyed JOIN lease USING (subscription, worker, batch, row)"
# Of each line the first message that is not acknowledged: SQLite takes a row's other columns
# from where the minimum is.
_HEADS = """
WITH head AS (
    SELECT subscription, ordering_key, worker, batch, row, min((batch << 32) + row) FROM keyed
    WHERE subscription = ? AND acknowledged = 0 GROUP BY ordering_key, worker)
SELECT ordering_key, worker, batch, row, attempt, deadline_s
FROM head JOIN lease USING (subscription, worker, batch, row)
"""
_UNKEYED = """
SELECT worker, batch, row, attempt, deadline_s FROM lease
WHERE subscription = ? AND deadline_s <= ? AND NOT EXISTS (
    SELECT 1 FROM keyed WHERE keyed.subscription = lease.subscription
    AND keyed.worker = lease.worker AND keyed.batch = lease.batch AND keyed.row = lease.row)
"""


@dataclass(frozen=True, slots=True)
class Patience:
    """When a message comes again.

    `rests_s` tells how long one rests that was delivered so often.
    """

    now_s: float
    rests_s: Callable[[int], float]

    def is_over(self, deadline_s: float, attempt: int) -> bool:
        """Tell whether a message may be delivered again."""
        return deadline_s + self.rests_s(attempt) <= self.now_s


def due(
    db: sqlite3.Connection, subscription: str, patience: Patience, count: int
) -> tuple[list[Lease], set[tuple[str, str]]]:
    """Return what may be delivered now, in order, and the lines (worker, key) that must wait.

    At most `count` of each line are returned; of a lease, `attempt` counts its deliveries.
    """
    free: list[Lease] = []
    blocked: set[tuple[str, str]] = set()
    for key, worker, batch, row, attempt, deadline_s in db.execute(
        _HEADS, (subscription,)
    ).fetchall():
        if patience.is_over(deadline_s, attempt):
            place = (subscription, key, worker, batch, row, count)
            free += _line_from(db, place, patience)
        else:
            blocked.add((worker, key))
    for worker, batch, row, attempt, deadline_s in db.execute(
        _UNKEYED, (subscription, patience.now_s)
    ):
        if patience.is_over(deadline_s, attempt):
            free.append(Lease(Position(worker, batch, row), attempt))
    return sorted(free, key=_place), blocked


def _line_from(
    db: sqlite3.Connection, place: tuple[str, str, str, int, int, int], patience: Patience
) -> list[Lease]:
    """Return a line from its head on; who only follows keeps the attempt that it was at."""
    rows = db.execute(
        f"SELECT worker, batch, row, attempt, deadline_s FROM {_WITH_LEASE} WHERE {_LINE}"  # noqa: S608
        " AND (batch, row) >= (?, ?) ORDER BY batch, row LIMIT ?",
        place,
    )
    return [
        Lease(
            Position(worker, batch, row),
            attempt if patience.is_over(deadline_s, attempt) else max(attempt - 1, 0),
        )
        for worker, batch, row, attempt, deadline_s in rows
    ]


def keep(db: sqlite3.Connection, subscription: str, found: Iterable[tuple[Position, str]]) -> None:
    """Note the keys of messages."""
    db.executemany(
        "INSERT OR REPLACE INTO keyed VALUES (?, ?, ?, ?, ?, 0)",
        [(subscription, *position.columns, key) for position, key in found if key],
    )


def wait(db: sqlite3.Connection, subscription: str, positions: Iterable[Position]) -> None:
    """Let messages wait for those before them in their line."""
    db.executemany(
        "INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, 0, 0)",
        [(subscription, *position.columns) for position in positions],
    )


def come_again(db: sqlite3.Connection, subscription: str, leases: Iterable[Lease]) -> None:
    """Note messages as not acknowledged any more."""
    db.executemany(
        f"UPDATE keyed SET acknowledged = 0 WHERE {_THIS}",  # noqa: S608
        [(subscription, *lease.position.columns) for lease in leases],
    )


def acknowledge(db: sqlite3.Connection, subscription: str, positions: Iterable[Position]) -> None:
    """Note messages as done, and forget those that nothing before them can bring back."""
    gone: list[Position] = []
    lines: dict[tuple[str, str, str], None] = {}
    for position in positions:
        this = (subscription, *position.columns)
        found = db.execute(f"SELECT ordering_key FROM keyed WHERE {_THIS}", this).fetchone()  # noqa: S608
        if found is None:
            gone.append(position)
            continue
        lines[subscription, found[0], position.worker] = None
        db.execute(f"UPDATE keyed SET acknowledged = 1 WHERE {_THIS}", this)  # noqa: S608
        db.execute(f"UPDATE lease SET deadline_s = ? WHERE {_THIS}", (_NEVER_S, *this))  # noqa: S608
    for line in lines:
        gone += _settled(db, line)
    forget(db, subscription, gone)


def _settled(db: sqlite3.Connection, line: tuple[str, str, str]) -> list[Position]:
    """Return the acknowledged messages at the front of a line."""
    rows = db.execute(
        f"SELECT worker, batch, row, acknowledged FROM keyed WHERE {_LINE} ORDER BY batch, row",  # noqa: S608
        line,
    )
    found: list[Position] = []
    for *position, acknowledged in rows:
        if not acknowledged:
            break
        found.append(Position(*position))
    return found


def forget(db: sqlite3.Connection, subscription: str, positions: Iterable[Position]) -> None:
    """Drop messages from their lines and their leases."""
    keys = [(subscription, *position.columns) for position in positions]
    for table in ("lease", "keyed"):
        db.executemany(f"DELETE FROM {table} WHERE {_THIS}", keys)  # noqa: S608


def _place(lease: Lease) -> tuple[int, int, str]:
    return lease.position.batch, lease.position.row, lease.position.worker
