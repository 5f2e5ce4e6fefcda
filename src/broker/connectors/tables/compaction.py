"""Merging small files into large sorted ones, beside writers and readers.

A merged file appears by rename; from then on readers leave out the files that it took in,
and only then are those deleted. A crash at any step leaves every row there once.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import polars as pl

from broker.connectors.disk import disk_errors
from broker.connectors.tables.parts import (
    Part,
    list_parts,
    merged_name,
    split_covered,
    write_merged_part,
)

# Rows of one merge in memory; reading, sorting and writing them takes about four times this.
MERGE_BYTES = 32 * 2**20
# Fewer files than this are left for a later merge.
_FEWEST = 8
# A merged file is merged again only into one at least this many times larger, so that a row of
# a table of n parts is written log n times, to this base.
_GROWTH = 5
# Small row groups let a reader skip most of a sorted file; too small and the footer grows.
_GROUP_BYTES = 16 * 2**20
_GROUP_ROWS = (512, 8192)


def compact_folder(folder: Path, sort_columns: Sequence[str]) -> int:
    """Merge the small files of one folder and return how many files went away.

    Parameters
    ----------
    folder : Path
        Files of one schema; a folder that another process is merging is left alone.
    sort_columns : sequence of str
        Rows are sorted by the first of these that there is.
    """
    with disk_errors(folder), _lock(folder) as mine:
        if not mine:
            return 0
        counting, covered = split_covered(list_parts(folder))
        removed = _remove(covered)
        for group in _groups(counting):
            if _merge(folder, group, sort_columns):
                removed += _remove(group) - 1
    return removed


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    descriptor = os.open(folder / ".compact.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _groups(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Choose neighbours to merge: many files, none of them large beside the rest together."""
    for _, of_worker in groupby(parts, key=lambda part: part.worker):
        for group in _filled(list(of_worker)):
            sizes = [part.frame_bytes() for part in group]
            while len(group) >= _FEWEST and _GROWTH * sizes[0] > sum(sizes):
                group, sizes = group[1:], sizes[1:]
            if len(group) >= _FEWEST:
                yield group


def _filled(parts: list[Part]) -> Iterator[list[Part]]:
    """Cut neighbours into groups of up to the bytes of one merge."""
    group: list[Part] = []
    total = 0
    for part in parts:
        size = part.frame_bytes()
        if group and total + size > MERGE_BYTES:
            yield group
            group, total = [], 0
        group.append(part)
        total += size
    if group:
        yield group


def _merge(folder: Path, group: Sequence[Part], sort_columns: Sequence[str]) -> bool:
    """Write the merged file unless its name is taken; tell whether it was written.

    A name stands for the same rows for ever, or a reader could see some of them twice. It is
    taken where late batches filled gaps in a merged range; they wait for the next batch.
    """
    batches = frozenset[int]().union(*(part.batches() for part in group))
    path = folder / merged_name(group[0].worker, min(batches), max(batches))
    if path.exists():
        return False
    rows = pl.concat([pl.read_parquet(part.path) for part in group], rechunk=False)
    by = next((name for name in sort_columns if name in rows.columns), None)
    if by is not None:
        rows = rows.sort(by, maintain_order=True)
    write_merged_part(path, rows, batches, _group_rows(rows))
    return True


def _group_rows(rows: pl.DataFrame) -> int:
    fewest, most = _GROUP_ROWS
    row_bytes = max(1, int(rows.estimated_size()) // max(1, rows.height))
    return max(fewest, min(most, _GROUP_BYTES // row_bytes))


def _remove(parts: Sequence[Part]) -> int:
    for part in parts:
        part.path.unlink(missing_ok=True)
    return len(parts)
