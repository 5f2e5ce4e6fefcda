"""The Parquet files of a table: their names, and which of them count.

``<worker>-<batch>.parquet`` holds one batch, ``<worker>-<first>-<last>.parquet`` the merged
batches that its metadata lists. A file that a wider one has taken in does not count.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from broker.connectors.direct import DirectFile
from broker.connectors.disk import disk_errors, flush, flush_folder
from broker.ports import BatchKey

if TYPE_CHECKING:
    from broker.connectors.tables.fresh import Prepared

_NAME = re.compile(r"(?P<worker>.+?)-(?P<first>\d{10,})(?:-(?P<last>\d{10,}))?\.parquet")
_BATCHES, _BYTES = "broker.batches", "broker.bytes"
# Listings that may differ before one is believed; each repeat means that a merge was under way.
_LISTINGS = 20


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One file; `first` and `last` are the range of its batches."""

    worker: str
    first: int
    last: int
    path: Path

    @property
    def is_merged(self) -> bool:
        """Whether the file came from a merge."""
        return self.path.stem.count(f"-{self.first:010d}-{self.last:010d}") == 1

    def batches(self) -> frozenset[int]:
        """Return the numbers of the batches within."""
        return self._metadata()[0] if self.is_merged else frozenset({self.first})

    def frame_bytes(self) -> int:
        """Return what the rows take in memory, in bytes."""
        return self._metadata()[1]

    def _metadata(self) -> tuple[frozenset[int], int]:
        return _metadata(self.path, self.path.stat().st_mtime_ns)

    def covers(self, other: "Part") -> bool:
        """Tell whether `other` was taken into this file."""
        return (
            self.worker == other.worker
            and self.path != other.path
            and self.is_merged
            and self.first <= other.first
            and other.last <= self.last
            and other.batches() <= self.batches()
        )


def merged_name(worker: str, first: int, last: int) -> str:
    """Name the file of merged batches."""
    return f"{worker}-{first:010d}-{last:010d}.parquet"


def part_name(key: BatchKey) -> str:
    """Name the file of one batch."""
    return f"{key}.parquet"


def list_parts(folder: Path) -> list[Part]:
    """Return all files of a folder; two listings must agree, as one may miss a rename."""
    before = _listed(folder)
    for _ in range(_LISTINGS):
        after = _listed(folder)
        if after == before:
            break
        before = after
    return before


def split_covered(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Split into the files that count and those that wider ones have taken in."""
    counting: list[Part] = []
    covered: list[Part] = []
    merged: dict[str, list[Part]] = {}
    for part in parts:
        if part.is_merged:
            merged.setdefault(part.worker, []).append(part)
    for part in parts:
        is_covered = any(wide.covers(part) for wide in merged.get(part.worker, ()))
        (covered if is_covered else counting).append(part)
    return counting, covered


def write_part(path: Path, rows: "Prepared", batch: int, *, sync: bool = False) -> None:
    """Write the file of one batch as it lies in memory; it appears whole.

    Raises
    ------
    TransientError
        If the disk is full; nothing appeared.
    UsageError
        If the folder cannot be written to.
    """
    metadata = _metadata_of(rows.rows, [batch])
    with _appearing(path, sync=sync) as temporary:
        if rows.is_writable:
            with closing(DirectFile(temporary, os.O_CREAT | os.O_TRUNC)) as file:
                rows.write(file, metadata)
        else:
            rows.rows.write_parquet(temporary, compression="lz4", metadata=metadata)


def write_merged_part(
    path: Path, rows: pl.DataFrame, batches: Iterable[int], row_group_rows: int
) -> None:
    """Write the file of many batches, compressed; it appears whole and durable.

    With statistics, by which readers skip groups of rows.

    Raises
    ------
    TransientError
        If the disk is full; nothing appeared.
    UsageError
        If the folder cannot be written to.
    """
    with _appearing(path, sync=True) as temporary:
        rows.write_parquet(
            temporary,
            compression="lz4",
            statistics=True,
            row_group_size=row_group_rows,
            metadata=_metadata_of(rows, batches),
        )


def _metadata_of(rows: pl.DataFrame, batches: Iterable[int]) -> dict[str, str]:
    return {_BATCHES: _to_ranges(batches), _BYTES: str(rows.estimated_size())}


@contextmanager
def _appearing(path: Path, *, sync: bool) -> Iterator[Path]:
    """Let a file be written under another name, and rename it when it is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if sync:
                _flush_file(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            flush_folder(path.parent)


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def _listed(folder: Path) -> list[Part]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = ((name, _NAME.fullmatch(name)) for name in names if not name.startswith("."))
    return sorted(
        Part(it["worker"], int(it["first"]), int(it["last"] or it["first"]), folder / name)
        for name, it in matches
        if it
    )


@lru_cache(maxsize=65536)
def _metadata(path: Path, mtime_ns: int) -> tuple[frozenset[int], int]:  # noqa: ARG001
    """Return the batches of one version of a file and its bytes in memory."""
    found = pl.read_parquet_metadata(path)
    ranges = json.loads(found[_BATCHES])
    batches = frozenset(i for first, last in ranges for i in range(first, last + 1))
    return batches, int(found[_BYTES])


def _to_ranges(batches: Iterable[int]) -> str:
    """Encode numbers as ranges, ends included."""
    ranges: list[list[int]] = []
    for number in sorted(batches):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return json.dumps(ranges)
