"""The ledger: what was received, what became of it, and where each alert lies."""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from broker.errors import RefusedError, TransientError, UsageError
from broker.pipeline.index import SCHEMA as INDEX_SCHEMA
from broker.pipeline.index import SeenIndex, object_digest, unpack
from broker.ports import BatchKey, OffsetGap

_READ_ATTEMPTS = 10
"""Merges come seconds apart, so that a second attempt is already rare."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS workers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS batches (
    worker INTEGER NOT NULL, number INTEGER NOT NULL, night TEXT NOT NULL,
    opened TEXT NOT NULL, closed TEXT,
    received INTEGER NOT NULL, stored INTEGER NOT NULL,
    duplicates INTEGER NOT NULL, dead_lettered INTEGER NOT NULL,
    PRIMARY KEY (worker, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS open_batches ON batches (worker) WHERE closed IS NULL;
CREATE TABLE IF NOT EXISTS offsets (
    worker INTEGER NOT NULL, number INTEGER NOT NULL, topic TEXT NOT NULL, part INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (worker, number, topic, part, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fates (
    worker INTEGER NOT NULL, number INTEGER NOT NULL, stage TEXT NOT NULL, fate TEXT NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (worker, number, stage, fate)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejects (
    digest INTEGER PRIMARY KEY, worker INTEGER NOT NULL, number INTEGER NOT NULL, retried TEXT);
CREATE TABLE IF NOT EXISTS gaps (
    topic TEXT NOT NULL, part INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    reason TEXT NOT NULL, seen TEXT NOT NULL,
    PRIMARY KEY (topic, part, first, last)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Location:
    """Where the packet of an alert lies in the journals: a batch and a row in it."""

    key: BatchKey
    row: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Which alerts and which undecodable payloads of a batch were never seen before."""

    key: BatchKey
    new: NDArray[np.bool_]
    new_rejects: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sums:
    """Counts over batches; `fates` maps a stage to ``{fate: count}``."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    open_batches: int = 0
    fates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Intake:
    """What one batch brought: ids of its alerts, digests of its rejects, its offsets."""

    source_ids: NDArray[np.int64]
    object_ids: Sequence[str | int]
    reject_digests: NDArray[np.int64]
    offsets: pl.DataFrame


class UndecidedError(TransientError):
    """Another worker has claimed alerts of a batch, and may yet die before it keeps them.

    Parameters
    ----------
    keys : sequence of BatchKey
        The open batches of other workers that have them.
    """

    def __init__(self, keys: Sequence[BatchKey]) -> None:
        super().__init__(f"claimed by {', '.join(map(str, keys))}, which is still open")
        self.keys = keys


class Ledger:
    """The ledger of one instance in one SQLite file, shared by its workers.

    A batch is *opened* by `claim`, which settles in one transaction which of its alerts are
    new, and *closed* once everything that is made of them is in place. What a crash leaves
    open is finished or released when its worker starts again.

    Parameters
    ----------
    path : Path
        The SQLite file; made if absent.
    worker : str
        Name of the worker that writes.
    """

    def __init__(self, path: Path, worker: str = "reader") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = _connect(path)
        self.worker = worker
        self._workers: dict[str, int] = {}
        self._index = SeenIndex(path.with_suffix(".index"), self._db)

    def close_file(self) -> None:
        """Close the SQLite file."""
        self._db.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close_file()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                _roll_back(self._db)
                raise RefusedError(f"the ledger cannot be written: {error}") from error
            except BaseException:
                _roll_back(self._db)
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Hold one consistent view of the file, with the index as of now."""
        with self._lock:
            try:
                self._begin_reading()
                yield self._db
            finally:
                _roll_back(self._db)

    def _begin_reading(self) -> None:
        for _ in range(_READ_ATTEMPTS):
            self._db.execute("BEGIN")
            try:
                return self._index.refresh()
            except FileNotFoundError:  # a writer merged the run away since this view was taken
                _roll_back(self._db)
                self._index.forget()
        raise TransientError("the index changes faster than it can be read; try again")

    def _worker_id(self, name: str) -> int:
        if name not in self._workers:
            self._db.execute("INSERT OR IGNORE INTO workers (name) VALUES (?)", (name,))
            row = self._db.execute("SELECT id FROM workers WHERE name = ?", (name,)).fetchone()
            self._workers[name] = int(row[0])
        return self._workers[name]

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, parameters).fetchall()

    def claim(
        self, intake: Intake, night: date, now: datetime, settled: Collection[BatchKey] = ()
    ) -> Claim:
        """Open a batch and settle which of its alerts and rejects are new.

        Of equal ids within the batch the first is the new one. `settled` are open batches of
        other workers whose claims are known to hold: their packets are durable.

        Raises
        ------
        UndecidedError
            If other open batches have claimed some of the same; nothing was done. A repeat of
            what is not yet durable must not be forgotten by its source.
        """
        with self._writing() as db:
            worker = self._worker_id(self.worker)
            others = _claimed_by_others(db, worker, intake)
            if undecided := [key for key in others if key not in settled]:
                raise UndecidedError(undecided)
            last = db.execute("SELECT max(number) FROM batches WHERE worker = ?", (worker,))
            number = (last.fetchone()[0] or 0) + 1
            self._index.refresh()
            new = self._index.unseen(intake.source_ids)
            new_rejects = _first_unseen(db, intake.reject_digests)
            stored, rejected = int(new.sum()), int(new_rejects.sum())
            received = len(new) + len(new_rejects)
            sums = (received, stored, received - stored - rejected, rejected)
            db.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?)",
                (worker, number, night.isoformat(), now.isoformat(), *sums),
            )
            objects = [object_digest(intake.object_ids[i]) for i in np.flatnonzero(new).tolist()]
            digests = np.array(objects, dtype=np.int64)
            self._index.add(worker, number, intake.source_ids[new], digests)
            _insert_claims(db, worker, number, intake, new_rejects)
        return Claim(BatchKey(self.worker, number), new, new_rejects)

    def close(self, key: BatchKey, fates: Mapping[str, Mapping[str, int]], now: datetime) -> None:
        """Record what became of a batch's alerts, stage by stage, and close it."""
        with self._writing() as db:
            worker = self._worker_id(key.worker)
            db.executemany(
                "INSERT OR REPLACE INTO fates VALUES (?, ?, ?, ?, ?)",
                [
                    (worker, key.number, stage, fate, count)
                    for stage, counts in fates.items()
                    for fate, count in counts.items()
                ],
            )
            db.execute(
                "UPDATE batches SET closed = ? WHERE worker = ? AND number = ?",
                (now.isoformat(), worker, key.number),
            )
            merged = self._index.merge()
        if merged:
            with self._writing():
                self._index.sweep()

    def is_open(self, key: BatchKey) -> bool:
        """Tell whether a batch of any worker was opened and not closed."""
        rows = self._rows(
            "SELECT 1 FROM batches JOIN workers ON workers.id = worker"
            " WHERE name = ? AND number = ? AND closed IS NULL",
            (key.worker, key.number),
        )
        return bool(rows)

    def open_batches(self) -> list[BatchKey]:
        """List the batches of this worker that a crash left open, oldest first."""
        rows = self._rows(
            "SELECT number FROM batches JOIN workers ON workers.id = worker"
            " WHERE name = ? AND closed IS NULL ORDER BY number",
            (self.worker,),
        )
        return [BatchKey(self.worker, number) for (number,) in rows]

    def release(self, key: BatchKey, *, alerts: bool, rejects: bool) -> None:
        """Forget claims whose packets never became durable; their source sends them again."""
        with self._writing() as db:
            where = (self._worker_id(key.worker), key.number)
            if alerts:
                self._index.remove(*where)
                _take_back(db, "stored", where)
            if rejects:
                db.execute("DELETE FROM rejects WHERE worker = ? AND number = ?", where)
                _take_back(db, "dead_lettered", where)

    def locate(self, source_ids: Sequence[int]) -> dict[int, Location]:
        """Find where the packets of alerts lie; unknown ids are left out."""
        with self._reading() as db:
            names = dict(db.execute("SELECT id, name FROM workers").fetchall())
            found = self._index.locate(np.array(source_ids, dtype=np.int64))
        places = {source: unpack(location) for source, location in found.items()}
        return {
            source: Location(BatchKey(names[worker], number), row)
            for source, (worker, number, row) in places.items()
        }

    def alerts_of(self, object_id: str | int) -> list[int]:
        """List the source ids of an object's stored alerts, in order of id."""
        with self._reading():
            return self._index.sources_of(object_id)

    def sums(self, night: date | None = None) -> Sums:
        """Add up all batches, or those of one night."""
        values = (night.isoformat(),) * 2 if night else (None, None)
        totals = self._rows(
            "SELECT total(received), total(stored), total(duplicates), total(dead_lettered),"
            " total(closed IS NULL) FROM batches WHERE ? IS NULL OR night = ?",
            values,
        )[0]
        fates: dict[str, dict[str, int]] = {}
        for stage, fate, count in self._rows(
            "SELECT stage, fate, sum(count) FROM fates JOIN batches USING (worker, number)"
            " WHERE ? IS NULL OR night = ? GROUP BY stage, fate ORDER BY stage, fate",
            values,
        ):
            fates.setdefault(stage, {})[fate] = count
        received, stored, duplicates, rejected, still_open = (int(total) for total in totals)
        return Sums(received, stored, duplicates, rejected, still_open, fates)

    def nights(self) -> list[date]:
        """List the nights with at least one batch."""
        rows = self._rows("SELECT DISTINCT night FROM batches ORDER BY night")
        return [date.fromisoformat(night) for (night,) in rows]

    def times(self) -> list[tuple[str, int, str, str | None]]:
        """Return worker, number, and when it was opened and closed, of each batch."""
        return self._rows(
            "SELECT name, number, opened, closed FROM batches JOIN workers ON workers.id = worker"
        )

    def offset_ranges(self) -> dict[tuple[str, int], list[tuple[int, int]]]:
        """Return the offsets received, merged: ``{(topic, partition): [(first, last), …]}``."""
        ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for topic, part, first, last in self._rows(
            "SELECT topic, part, first, last FROM offsets ORDER BY topic, part, first"
        ):
            merged = ranges.setdefault((topic, part), [])
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return ranges

    def note_gaps(self, gaps: Sequence[OffsetGap], now: datetime) -> None:
        """Record offsets that a source found missing, and why; again does nothing."""
        rows = [(it.topic, it.partition, it.first, it.last, it.reason) for it in gaps]
        with self._writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO gaps VALUES (?, ?, ?, ?, ?, ?)",
                [(*row, now.isoformat()) for row in rows],
            )

    def noted_gaps(self) -> list[OffsetGap]:
        """Return the offsets that sources found missing, in order."""
        rows = self._rows("SELECT topic, part, first, last, reason FROM gaps")
        return sorted(OffsetGap(*row) for row in rows)

    def mark_retried(self, digests: Sequence[int], now: datetime) -> None:
        """Mark dead letters as retried with success."""
        with self._writing() as db:
            db.executemany(
                "UPDATE rejects SET retried = ? WHERE digest = ?",
                [(now.isoformat(), digest) for digest in digests],
            )

    def retried(self) -> set[int]:
        """Return the digests of the dead letters that were retried."""
        rows = self._rows("SELECT digest FROM rejects WHERE retried IS NOT NULL")
        return {digest for (digest,) in rows}


def _connect(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA cache_size = -65536")
        db.executescript(_SCHEMA + INDEX_SCHEMA)
    except sqlite3.Error as error:
        raise UsageError(f"the ledger {path} cannot be opened: {error}") from error
    return db


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


def _first_unseen(db: sqlite3.Connection, digests: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for each reject whether it is neither recorded nor earlier in `digests`."""
    unseen = np.zeros(len(digests), dtype=bool)
    unseen[np.unique(digests, return_index=True)[1]] = True
    for i in np.flatnonzero(unseen).tolist():
        query = "SELECT 1 FROM rejects WHERE digest = ?"
        unseen[i] = db.execute(query, (int(digests[i]),)).fetchone() is None
    return unseen


def _insert_claims(
    db: sqlite3.Connection, worker: int, number: int, intake: Intake, rejects: NDArray[np.bool_]
) -> None:
    db.executemany(
        "INSERT INTO rejects VALUES (?, ?, ?, NULL)",
        [(digest, worker, number) for digest in intake.reject_digests[rejects].tolist()],
    )
    db.executemany(
        "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(worker, number, *row) for row in intake.offsets.iter_rows()],
    )


def _claimed_by_others(db: sqlite3.Connection, worker: int, intake: Intake) -> list[BatchKey]:
    """Name the open batches of other workers that hold ids or rejects of this one."""
    query = (
        "SELECT worker, number, name, sources FROM batches JOIN workers ON workers.id = worker"
        " LEFT JOIN claims USING (worker, number) WHERE closed IS NULL AND worker != ?"
    )
    rejected = "SELECT worker, number FROM rejects WHERE digest = ?"
    found = []
    for other, number, name, sources in db.execute(query, (worker,)).fetchall():
        same = np.isin(np.frombuffer(sources or b"", np.int64), intake.source_ids).any()
        if same or (other, number) in {
            place
            for digest in intake.reject_digests.tolist()
            for place in db.execute(rejected, (digest,)).fetchall()
        }:
            found.append(BatchKey(name, number))
    return found


def _take_back(db: sqlite3.Connection, column: str, where: tuple[int, int]) -> None:
    db.execute(
        f"UPDATE batches SET received = received - {column}, {column} = 0"  # noqa: S608 - a constant of this module
        " WHERE worker = ? AND number = ?",
        where,
    )


def utc_now() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)
