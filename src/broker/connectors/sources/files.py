"""Alerts from files, folders and tar archives, in order of name."""

import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import polars as pl

from broker.errors import UsageError
from broker.ports import SourceBatch

ORIGIN_SCHEMA = {
    "topic": pl.String,
    "partition": pl.Int32,
    "offset": pl.Int64,
    "timestamp_ms": pl.Int64,
    "place": pl.String,
}
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
MAX_BATCH_BYTES = 192 << 20
"""A batch ends early at this size, so that memory stays flat whatever the packets weigh."""

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Problem:
    """A place that could not be read, wholly or in part."""

    place: str
    reason: str


@dataclass(slots=True)
class FileSource:
    """Read packets from files, folders (recursively) and tar archives.

    Nothing is remembered from run to run: the broker itself recognises what it has. Files
    that cannot be read, and archives that break off, are put into `problems`; the rest is
    delivered. Hidden files are left out.

    Parameters
    ----------
    places : iterable of Path
        What to read, in this order.
    follow : bool
        Keep looking for new files in the folders, instead of stopping at the end.
    max_bytes : int
        Of a larger file only so many bytes are handed on, enough to be told too large.
    sleep : callable
        Waits between two looks when following.

    Raises
    ------
    UsageError
        If a place does not exist.
    """

    places: Iterable[Path]
    follow: bool = False
    max_bytes: int = 64 << 20
    sleep: Callable[[float], None] = time.sleep
    problems: list[Problem] = field(default_factory=list)
    _seen: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.places = [Path(place) for place in self.places]
        for place in self.places:
            if not place.exists():
                raise UsageError(f"there is no file or folder {place}")

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield full batches, and at the end, or when nothing new comes, what is left."""
        payloads: list[bytes] = []
        places: list[str] = []
        size = 0
        for item in self._items(max_wait_s):
            if item is not None:
                places.append(item[0])
                payloads.append(item[1])
                size += len(item[1])
            if item is None or len(payloads) >= max_payloads or size >= MAX_BATCH_BYTES:
                yield _batch(payloads, places)
                payloads, places, size = [], [], 0
        if payloads:
            yield _batch(payloads, places)

    def commit(self, batch: SourceBatch) -> None:
        """Do nothing: files stay where they are."""

    def close(self) -> None:
        """Do nothing: no file is held open between batches."""

    def _items(self, max_wait_s: float) -> Iterator[tuple[str, bytes] | None]:
        """Yield (place, payload) pairs, and None when a look found nothing new."""
        while True:
            for place in self.places:
                yield from self._read_place(Path(place))
            if not self.follow:
                return
            yield None
            self.sleep(max(max_wait_s, _POLL_S))

    def _read_place(self, place: Path) -> Iterator[tuple[str, bytes]]:
        for path in _files_under(place):
            if path in self._seen or (self.follow and _is_being_written(path)):
                continue
            self._seen.add(path)
            try:
                yield from self._read_file(path)
            except (OSError, tarfile.TarError, EOFError) as error:
                self.problems.append(Problem(str(path), _words(error)))

    def _read_file(self, path: Path) -> Iterator[tuple[str, bytes]]:
        if path.name.endswith(_ARCHIVES):
            yield from self._read_archive(path)
            return
        with path.open("rb") as file:
            yield str(path), file.read(self.max_bytes)

    def _read_archive(self, path: Path) -> Iterator[tuple[str, bytes]]:
        with tarfile.open(path, mode="r|*") as archive:
            for member in archive:
                if member.isfile():
                    yield f"{path}!{member.name}", self._read_member(archive, member, path)

    def _read_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
        """Return a member's bytes, or as many as the archive still has of it."""
        file = archive.extractfile(member)
        if file is None:
            return b""
        parts: list[bytes] = []
        try:
            parts.extend(_chunks(file, self.max_bytes))
        except (OSError, tarfile.TarError, EOFError) as error:
            self.problems.append(Problem(f"{path}!{member.name}", _words(error)))
        return b"".join(parts)


def _chunks(file: IO[bytes], limit: int) -> Iterator[bytes]:
    """Read in pieces, so that those before a break are kept."""
    while limit > 0 and (chunk := file.read(min(limit, 1 << 16))):
        limit -= len(chunk)
        yield chunk


def _files_under(place: Path) -> Iterator[Path]:
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
            if path.is_file() and not hidden:
                yield path
    else:
        yield place


def _is_being_written(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < _POLL_S / 2


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _batch(payloads: list[bytes], places: list[str]) -> SourceBatch:
    origins = pl.DataFrame(
        {name: places if name == "place" else [None] * len(places) for name in ORIGIN_SCHEMA},
        schema=ORIGIN_SCHEMA,
    )
    return SourceBatch(payloads, origins)
