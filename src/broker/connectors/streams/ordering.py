"""Order within a key: what of a subscription's leases may be delivered, and what waits.

Messages of one key, by one worker, are a line. Its first message that is not acknowledged
rules it: while that is out, nothing behind it is delivered; when it comes again, all behind
it come again, acknowledged or not.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from broker.connectors.streams.subscriptions import Lease, Position

SCHEMA = """
CREATE TABLE IF NOT EXISTS keyed (
    subscription TEXT, worker TEXT, batch INTEGER, row INTEGER, ordering_key TEXT NOT NULL,
    acknowledged INTEGER NOT NULL, PRIMARY KEY (subscription, worker, batch, row)) WITHOUT ROWID
"""
# A deadline that never comes.
_NEVER_S = 1e18
# More messages than this wait for those before them in no subscription; the rest is not read.
MOST_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class Member:
    """A message of a line: `lease.attempt` counts its deliveries so far."""

    lease: Lease
    deadline_s: float
    key: str
    acknowledged: bool


def members(db: sqlite3.Connection, subscription: str) -> list[Member]:
    """Return every message that is out or waits, in order."""
    rows = db.execute(
        "SELECT worker, batch, row, attempt, deadline_s, coalesce(ordering_key, ''),"
        " coalesce(acknowledged, 0) FROM lease LEFT JOIN keyed USING"
        " (subscription, worker, batch, row) WHERE lease.subscription = ?"
        " ORDER BY batch, row, worker",
        (subscription,),
    )
    return [
        Member(Lease(Position(worker, batch, row), attempt), deadline, key, bool(done))
        for worker, batch, row, attempt, deadline, key, done in rows
    ]


def due(
    found: Sequence[Member], now_s: float, rests_s: Callable[[int], float]
) -> tuple[list[Member], set[tuple[str, str]]]:
    """Return what may be delivered now, in order, and the lines that must wait.

    Parameters
    ----------
    found : sequence of Member
        In order.
    now_s : float
        The time.
    rests_s : callable
        Given how often a message was delivered, how long it rests before it comes again.
    """
    chosen: list[Member] = []
    blocked: set[tuple[str, str]] = set()
    for line, of_line in groupby(sorted(found, key=_line), key=_line):
        free = _free(
            list(of_line), line[1], lambda one: one.deadline_s + rests_s(one.lease.attempt) <= now_s
        )
        if line[1] and not free:
            blocked.add(line)
        chosen += free
    return sorted(chosen, key=lambda one: _place(one.lease.position)), blocked


def _free(line: list[Member], key: str, is_due: Callable[[Member], bool]) -> list[Member]:
    if not key:
        return [member for member in line if is_due(member)]
    for i, member in enumerate(line):
        if not member.acknowledged:
            return [_once_more(it, is_due(it)) for it in line[i:]] if is_due(member) else []
    return []


def _once_more(member: Member, is_due: bool) -> Member:
    """Let a follower come again under the lease that it had."""
    lease = member.lease
    attempt = lease.attempt if is_due or not lease.attempt else lease.attempt - 1
    return replace(member, lease=replace(lease, attempt=attempt))


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


def acknowledge(db: sqlite3.Connection, subscription: str, positions: set[Position]) -> None:
    """Note messages as done, and forget those that nothing before them can bring back."""
    gone: list[Position] = []
    done: list[Position] = []
    for (_, key), line in groupby(sorted(members(db, subscription), key=_line), key=_line):
        settled = True
        for member in line:
            position = member.lease.position
            acknowledged = member.acknowledged or position in positions
            settled = settled and acknowledged
            if acknowledged:
                (gone if settled or not key else done).append(position)
            settled = settled or not key
    db.executemany(
        "UPDATE keyed SET acknowledged = 1 WHERE subscription = ? AND worker = ? AND batch = ?"
        " AND row = ?",
        [(subscription, *position.columns) for position in done],
    )
    db.executemany(
        "UPDATE lease SET deadline_s = ? WHERE subscription = ? AND worker = ? AND batch = ?"
        " AND row = ?",
        [(_NEVER_S, subscription, *position.columns) for position in done],
    )
    forget(db, subscription, gone)


def forget(db: sqlite3.Connection, subscription: str, positions: Iterable[Position]) -> None:
    """Drop messages from their lines and their leases."""
    keys = [(subscription, *position.columns) for position in positions]
    for table in ("lease", "keyed"):
        db.executemany(
            f"DELETE FROM {table} WHERE subscription = ? AND worker = ? AND batch = ? AND row = ?",  # noqa: S608
            keys,
        )


def _line(member: Member) -> tuple[str, str]:
    return member.lease.position.worker, member.key


def _place(position: Position) -> tuple[int, int, str]:
    return position.batch, position.row, position.worker
