"""The index of every alert seen: flat cost per alert, however many are stored.

Ids of the last few dozen batches are rows of the ledger's SQLite file, one row a batch.
Older ones are in *runs*: immutable files of sorted numbers that are searched by bisection
and merged by size, so that an id is rewritten a logarithmic number of times in its life and
no page of a growing B-tree is ever touched.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

MERGE_BATCHES = 64
"""Closed batches that become one run; bounds what every claim must look through."""

MERGE_RUNS = 6
"""Runs of about one size that become one; larger means fewer rewrites and more look-ups."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS claims (
    id INTEGER PRIMARY KEY AUTOINCREMENT, worker INTEGER NOT NULL, number INTEGER NOT NULL,
    sources BLOB NOT NULL, objects BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tier INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS index_state (id INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
INSERT OR IGNORE INTO index_state VALUES (0, 0);
"""

_ROW_BITS, _NUMBER_BITS = 16, 32
MAX_ROWS = 1 << _ROW_BITS
"""Most alerts of one batch, given by how a location is packed into 64 bits."""


def object_digest(object_id: str | int) -> int:
    """Return the signed 64-bit number that stands for an object in the index."""
    if isinstance(object_id, int):
        return object_id
    digest = xxhash.xxh3_64_intdigest(object_id.encode())
    return digest - (1 << 64) if digest >> 63 else digest


def pack(worker: int, number: int, rows: Int64s) -> Int64s:
    """Pack locations: 15 bits of worker, 32 of batch number, 16 of row."""
    return rows | np.int64((worker << (_ROW_BITS + _NUMBER_BITS)) | (number << _ROW_BITS))


def unpack(location: int) -> tuple[int, int, int]:
    """Return worker, batch number and row of a packed location."""
    number = (location >> _ROW_BITS) & ((1 << _NUMBER_BITS) - 1)
    return location >> (_ROW_BITS + _NUMBER_BITS), number, location & (MAX_ROWS - 1)


@dataclass(frozen=True, slots=True)
class Run:
    """Sorted ids with their locations, and sorted objects with their ids."""

    sources: Int64s
    locations: Int64s
    objects: Int64s
    object_sources: Int64s

    @classmethod
    def of(cls, sources: Int64s, locations: Int64s, objects: Int64s, owners: Int64s) -> "Run":
        """Sort what is given."""
        by_source = np.argsort(sources, kind="stable")
        by_object = np.lexsort((owners, objects))
        return cls(sources[by_source], locations[by_source], objects[by_object], owners[by_object])

    @classmethod
    def load(cls, path: Path) -> "Run":
        """Map a file into memory."""
        return cls(*np.load(path, mmap_mode="r"))

    def save(self, path: Path) -> None:
        """Write a file that appears whole or not at all."""
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            columns = (self.sources, self.locations, self.objects, self.object_sources)
            np.save(file, np.stack(columns))
            file.flush()
        partial.rename(path)

    def find(self, ids: Int64s) -> tuple[NDArray[np.bool_], Int64s]:
        """Tell which ids are here, and the location of each (meaningless where not)."""
        if not len(self.sources) or ids.max() < self.sources[0] or ids.min() > self.sources[-1]:
            return np.zeros(len(ids), dtype=bool), ids
        at = np.minimum(np.searchsorted(self.sources, ids), len(self.sources) - 1)
        return self.sources[at] == ids, self.locations[at]

    def sources_of(self, digest: int) -> list[int]:
        """List the ids of one object's alerts."""
        low, high = np.searchsorted(self.objects, [digest, digest + 1]).tolist()
        return [int(source) for source in self.object_sources[low:high]]


class SeenIndex:
    """The ids seen by all workers of an instance, as of the last `refresh`.

    Parameters
    ----------
    folder : Path
        Where the runs are kept.
    db : sqlite3.Connection
        The ledger's connection, which also carries the transactions.
    """

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._db = db
        self.forget()

    def forget(self) -> None:
        """Drop what is known, so that the next `refresh` reads everything anew."""
        self._generation = -1
        self._last_claim = 0
        self._recent: set[int] = set()
        self._claims: list[Run] = []
        self._runs: list[Run] = []

    def refresh(self) -> None:
        """Take in what other workers and merges changed, in the caller's transaction."""
        query = "SELECT generation FROM index_state"
        generation = self._db.execute(query).fetchone()[0]
        if generation != self._generation:
            self.forget()
            self._generation = generation
            ids = self._db.execute("SELECT id FROM runs ORDER BY id").fetchall()
            self._runs = [Run.load(self._path(run)) for (run,) in ids]
        query = "SELECT id, worker, number, sources, objects FROM claims WHERE id > ? ORDER BY id"
        for claim, worker, number, sources, objects in self._db.execute(
            query, (self._last_claim,)
        ).fetchall():
            self._last_claim = claim
            self._take(_unsorted(worker, number, sources, objects))

    def _take(self, run: Run) -> None:
        self._claims.append(run)
        self._recent.update(run.sources.tolist())

    def _path(self, run: int) -> Path:
        return self._folder / f"{run:08d}.npy"

    def unseen(self, ids: Int64s) -> NDArray[np.bool_]:
        """Tell for each id whether it is neither stored nor earlier in `ids`."""
        unseen = np.zeros(len(ids), dtype=bool)
        if len(ids):
            unseen[np.unique(ids, return_index=True)[1]] = True
            recent = self._recent
            unseen &= np.fromiter((i not in recent for i in ids.tolist()), bool, len(ids))
            for run in self._runs:
                unseen &= ~run.find(ids)[0]
        return unseen

    def add(self, worker: int, number: int, sources: Int64s, objects: Int64s) -> None:
        """Claim ids for a batch, in the transaction that the caller has open."""
        if len(sources):
            self._db.execute(
                "INSERT INTO claims (worker, number, sources, objects) VALUES (?, ?, ?, ?)",
                (worker, number, sources.tobytes(), objects.tobytes()),
            )

    def remove(self, worker: int, number: int) -> None:
        """Forget a batch's claims, in the transaction that the caller has open."""
        self._db.execute("DELETE FROM claims WHERE worker = ? AND number = ?", (worker, number))
        self._bump()

    def _bump(self) -> None:
        self._db.execute("UPDATE index_state SET generation = generation + 1")

    def locate(self, ids: Int64s) -> dict[int, int]:
        """Return the packed location of each id that is known."""
        found: dict[int, int] = {}
        for run in (*self._runs, *self._claims):
            if len(ids):
                here, locations = run.find(ids)
                found |= dict(zip(ids[here].tolist(), locations[here].tolist(), strict=True))
        return found

    def sources_of(self, object_id: str | int) -> list[int]:
        """List the ids of an object's alerts, in order of id."""
        digest = object_digest(object_id)
        runs = (*self._runs, *self._claims)
        return sorted({source for run in runs for source in run.sources_of(digest)})

    def merge(self) -> bool:
        """Merge closed claims into a run, or runs into a larger one, in the caller's transaction.

        Returns
        -------
        bool
            Whether anything was merged.
        """
        return self._merge_claims() or self._merge_runs()

    def _merge_claims(self) -> bool:
        rows = self._db.execute(
            "SELECT id, worker, number, sources, objects FROM claims"
            " JOIN batches USING (worker, number) WHERE closed IS NOT NULL ORDER BY id"
        ).fetchall()
        if len(rows) < MERGE_BATCHES:
            return False
        parts = [_unsorted(*row[1:]) for row in rows]
        self._add_run(0, parts)
        self._db.executemany("DELETE FROM claims WHERE id = ?", [row[:1] for row in rows])
        return True

    def _merge_runs(self) -> bool:
        full = self._db.execute(
            "SELECT tier FROM runs GROUP BY tier HAVING count(*) >= ? ORDER BY tier LIMIT 1",
            (MERGE_RUNS,),
        ).fetchone()
        if full is None:
            return False
        ids = self._db.execute("SELECT id FROM runs WHERE tier = ?", full).fetchall()
        self._add_run(full[0] + 1, [Run.load(self._path(run)) for (run,) in ids])
        self._db.executemany("DELETE FROM runs WHERE id = ?", ids)
        return True

    def _add_run(self, tier: int, parts: Sequence[Run]) -> None:
        columns = [
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("sources", "locations", "objects", "object_sources")
        ]
        run = Run.of(*columns)
        cursor = self._db.execute(
            "INSERT INTO runs (tier, size) VALUES (?, ?)", (tier, len(run.sources))
        )
        run.save(self._path(int(cursor.lastrowid or 0)))
        self._bump()

    def sweep(self) -> None:
        """Delete run files that no longer belong to the index."""
        live = {self._path(run) for (run,) in self._db.execute("SELECT id FROM runs").fetchall()}
        for path in self._folder.iterdir():
            if path not in live:
                path.unlink(missing_ok=True)


def _unsorted(worker: int, number: int, sources: bytes, objects: bytes) -> Run:
    ids = np.frombuffer(sources, dtype=np.int64)
    digests = np.frombuffer(objects, dtype=np.int64)
    locations = pack(worker, number, np.arange(len(ids), dtype=np.int64))
    return Run.of(ids, locations, digests, ids)
