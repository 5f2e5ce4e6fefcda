"""The durable log: whole batches appended to segment files, one writer a folder.

Layout: ``<topic>/<worker>/<number of the first batch>.seg``. Readers in other processes see
a batch when its last byte is there; nothing that was read ever changes.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import xxhash

from broker.connectors.disk import disk_errors, flush_folder
from broker.connectors.streams.frame import (
    HEADER_SIZE,
    TRAILER,
    Body,
    Frame,
    columns_from_bytes,
    encode,
    index_from_bytes,
    prefixes_from_bytes,
    scan,
)
from broker.connectors.streams.output import Output
from broker.errors import NotFoundError, ServiceError, UsageError
from broker.ports import BatchKey, Messages

SEGMENT_BYTES = 256 * 2**20
# A topic of tiny batches rolls too, so that finding a batch never scans a long file.
SEGMENT_FRAMES = 4096
_SUFFIX = ".seg"


class Partition:
    """Reads the segments of one worker, following its writer.

    Parameters
    ----------
    folder : Path
        The worker's folder; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segments: dict[int, _Segment] = {}
        self._lock = threading.Lock()

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Iterate over the batches numbered `start` or higher, in order."""
        segments = self._listed()
        for i, segment in enumerate(segments):
            if i + 1 < len(segments) and segments[i + 1].first <= start:
                continue
            yield from (frame for frame in self._scanned(segment) if frame.number >= start)

    def last(self) -> Frame | None:
        """Return the newest batch."""
        for segment in reversed(self._listed()):
            if frames := self._scanned(segment):
                return frames[-1]
        return None

    def find(self, number: int) -> Frame | None:
        """Return one batch, None if it is not there."""
        frame = next(self.frames(number), None)
        return frame if frame is not None and frame.number == number else None

    def attributes(self, frame: Frame) -> pl.DataFrame:
        """Read the attribute columns only."""
        return columns_from_bytes(_read(frame.path, frame.attributes_at, frame.attributes_size))

    def payloads(self, frame: Frame, rows: Sequence[int]) -> list[bytes]:
        """Read some payloads of a batch, in the order asked for."""
        blob = _read(frame.path, frame.index_at, frame.tails_at - frame.index_at)
        numbers, bounds = index_from_bytes(blob)
        prefixes = [*self._prefixes(frame), b""]
        with disk_errors(frame.path), open(frame.path, "rb", buffering=0) as file:
            return [
                prefixes[numbers[i]]
                + os.pread(file.fileno(), bounds[i + 1] - bounds[i], frame.tails_at + bounds[i])
                for i in rows
            ]

    def read(self, frame: Frame) -> Messages:
        """Read a whole batch and check every byte of it.

        Raises
        ------
        ServiceError
            If the bytes are not those that were written.
        """
        blob = memoryview(_read(frame.path, frame.offset, frame.end - frame.offset))
        _check(frame, blob)
        numbers, bounds = index_from_bytes(_part(frame, blob, frame.index_at, frame.tails_at))
        tails = blob[frame.tails_at - frame.offset :]
        prefixes = [*self._prefixes(frame), b""]
        return Messages(
            payloads=[
                prefixes[number] + tails[bounds[i] : bounds[i + 1]]
                for i, number in enumerate(numbers)
            ],
            attributes=columns_from_bytes(
                _part(frame, blob, frame.attributes_at, frame.prefixes_at)
            ),
            prefixes=prefixes[:-1],
            prefix_index=np.asarray(numbers, dtype=np.int32),
        )

    def segment_paths(self) -> list[Path]:
        """List the segment files, oldest first."""
        return [segment.path for segment in self._listed()]

    def _listed(self) -> list["_Segment"]:
        try:
            names = [name for name in os.listdir(self.folder) if name.endswith(_SUFFIX)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        with self._lock:
            for first in (int(name.removesuffix(_SUFFIX)) for name in names):
                if first not in self._segments:
                    self._segments[first] = _Segment(segment_path(self.folder, first), first)
            return [self._segments[first] for first in sorted(self._segments)]

    def _scanned(self, segment: "_Segment") -> list[Frame]:
        with self._lock:
            return segment.scanned()

    def _prefixes(self, frame: Frame) -> list[bytes]:
        with self._lock:
            return self._segments[int(frame.path.stem)].prefixes(frame)


class _Segment:
    """What is known so far of one file, which only grows."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self._frames: list[Frame] = []
        self._prefixes: list[bytes] = []
        self._prefixes_to = 0

    def scanned(self) -> list[Frame]:
        at = self._frames[-1].end if self._frames else 0
        self._frames.extend(scan(self.path, at))
        return self._frames

    def prefixes(self, upto: Frame) -> list[bytes]:
        """Return the file's prefixes that `upto` and the frames before it may use."""
        for frame in self._frames:
            if self._prefixes_to <= frame.offset <= upto.offset:
                blob = _read(self.path, frame.prefixes_at, frame.prefixes_size)
                self._prefixes = self._prefixes + prefixes_from_bytes(blob)
                self._prefixes_to = frame.end
        return self._prefixes


class SegmentWriter:
    """Appends batches to the segments of one folder; there is one writer a folder.

    Parameters
    ----------
    folder : Path
        The worker's folder, made if need be. A torn last batch is cut off.
    now : callable
        The clock; its answer is kept as each batch's time of publication.
    sync : bool
        Whether a batch is flushed to the disk before `append` returns.
    segment_bytes : int
        A file that has reached this size gets a successor.

    Raises
    ------
    UsageError
        If another writer has the folder, or it cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        sync: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder
        self._now = now
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._file: Output | None = None
        self._path = folder
        self._known: dict[bytes, int] = {}
        self._frames_in_file = 0
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(folder)
            self._last = self._recover()

    @property
    def last(self) -> int:
        """Number of the newest batch, -1 if there is none."""
        return self._last.number if self._last else -1

    def append(self, number: int, messages: Messages) -> bool:
        """Append a batch unless its number was reached before; tell whether it was.

        Raises
        ------
        TransientError
            If the disk is full; the log is as it was before.
        """
        if number <= self.last:
            return False
        with disk_errors(self._folder):
            if self._file is None or self._is_full():
                self._file = self._roll(number)
            self._last = self._write(self._file, number, messages)
        self._frames_in_file += 1
        return True

    def close(self) -> None:
        """Let go of the folder."""
        if self._file is not None:
            self._file.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._file, self._lock = None, -1

    def _is_full(self) -> bool:
        large = self._last is not None and self._last.end >= self._segment_bytes
        return large or self._frames_in_file >= SEGMENT_FRAMES

    def _roll(self, number: int) -> Output:
        path = segment_path(self._folder, number)
        file = Output(path, os.O_CREAT | os.O_TRUNC)
        if self._file is not None:
            self._file.close()
        self._path = path
        self._known, self._frames_in_file = {}, 0
        if self._sync:
            flush_folder(self._folder)
        return file

    def _write(self, file: Output, number: int, messages: Messages) -> Frame:
        body = encode(messages, self._known)
        frame = self._frame(number, len(messages.payloads), body)
        size = frame.end - frame.offset - TRAILER.size
        try:
            file.put(frame.offset, size, frame.header() + body.before_tails, body.tails)
            if self._sync:
                file.flush(frame.end)
        except (OSError, UsageError):
            file.cut(frame.offset)
            raise
        for prefix in body.new_prefixes:
            self._known[prefix] = len(self._known)
        return frame

    def _frame(self, number: int, count: int, body: Body) -> Frame:
        last, in_file = self._last, self._frames_in_file > 0
        return Frame(
            path=self._path,
            offset=last.end if last and in_file else 0,
            number=number,
            first=last.first + last.count if last else 0,
            published_us=int(self._now().timestamp() * 1e6),
            count=count,
            attributes_size=len(body.attributes),
            prefixes_size=len(body.prefixes),
            tails_size=body.tails.size,
        )

    def _recover(self) -> Frame | None:
        """Cut a torn tail off the newest file and go on from there."""
        reader = Partition(self._folder)
        for path in reversed(reader.segment_paths()):
            frames = list(scan(path))
            if frames and not _is_intact(frames[-1]):
                frames.pop()
            _cut(path, frames[-1].end if frames else 0)
            if frames:
                self._resume(path, frames)
                return frames[-1]
            path.unlink()
        return None

    def _resume(self, path: Path, frames: list[Frame]) -> None:
        self._file, self._path = Output(path, 0), path
        self._frames_in_file = len(frames)
        for frame in frames:
            blob = _read(path, frame.prefixes_at, frame.prefixes_size)
            for prefix in prefixes_from_bytes(blob):
                self._known[prefix] = len(self._known)


class SegmentLog:
    """The log of one topic: this worker's writer and a reader of every worker's part.

    It is a `Journal`; a local stream publishes through it, so that a topic and the journal
    can be the same bytes.

    Parameters
    ----------
    folder : Path
        The topic's folder.
    worker : str
        Whose batches are appended here.
    now, sync, segment_bytes
        As for `SegmentWriter`.
    """

    def __init__(
        self,
        folder: Path,
        worker: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        sync: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder
        self._worker = worker
        self._open: Callable[[], SegmentWriter] = lambda: SegmentWriter(
            folder / worker, now, sync=sync, segment_bytes=segment_bytes
        )
        self._writer: SegmentWriter | None = None
        self._partitions: dict[str, Partition] = {}

    def append(self, key: BatchKey, messages: Messages) -> None:
        """Append and flush to disk; a key at or below the last does nothing.

        Raises
        ------
        UsageError
            If the key is of another worker.
        TransientError
            If the disk is full; the log is as it was before.
        """
        if key.worker != self._worker:
            raise UsageError(f"worker {self._worker} cannot append batch {key} of another worker")
        if self._writer is None:
            self._writer = self._open()
        self._writer.append(key.number, messages)

    def read(self, key: BatchKey) -> Messages | None:
        """Return a batch, byte for byte as appended; None if it is not there."""
        partition = self.partition(key.worker)
        frame = partition.find(key.number)
        return None if frame is None else partition.read(frame)

    def message(self, key: BatchKey, row: int) -> bytes:
        """Return one payload, reading little else.

        Raises
        ------
        NotFoundError
            If there is no such batch or row.
        """
        partition = self.partition(key.worker)
        frame = partition.find(key.number)
        if frame is None or not 0 <= row < frame.count:
            raise NotFoundError(f"{self._folder.name} has no message {row} in batch {key}")
        return partition.payloads(frame, [row])[0]

    def keys(self) -> Iterator[BatchKey]:
        """Iterate over the batches of all workers."""
        for worker, partition in self.partitions().items():
            yield from (BatchKey(worker, frame.number) for frame in partition.frames())

    def last(self) -> BatchKey | None:
        """Return the key of this worker's newest batch."""
        frame = self.partition(self._worker).last()
        return None if frame is None else BatchKey(self._worker, frame.number)

    def partition(self, worker: str) -> Partition:
        """Return the reader of one worker's part."""
        return self._partitions.setdefault(worker, Partition(self._folder / worker))

    def partitions(self) -> dict[str, Partition]:
        """Return the readers of all workers' parts, in order of name."""
        if not self._folder.is_dir():
            return {}
        workers = sorted(entry.name for entry in os.scandir(self._folder) if entry.is_dir())
        return {worker: self.partition(worker) for worker in workers}

    def close(self) -> None:
        """Let go of the writer."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def segment_path(folder: Path, first: int) -> Path:
    """Name the segment whose first batch is `first`."""
    return folder / f"{first:010d}{_SUFFIX}"


def _take_lock(folder: Path) -> int:
    descriptor = os.open(folder / "writer.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(
            f"worker {folder.name!r} is already running on {folder.parent}; "
            "give this one another name"
        ) from error
    return descriptor


def _read(path: Path, at: int, size: int) -> bytes:
    if not size:
        return b""
    with disk_errors(path), open(path, "rb", buffering=0) as file:
        blob = os.pread(file.fileno(), size, at)
    if len(blob) != size:
        raise ServiceError(f"{path} is damaged: it ends within a batch")
    return blob


def _part(frame: Frame, blob: memoryview, start: int, stop: int) -> bytes:
    return bytes(blob[start - frame.offset : stop - frame.offset])


def _check(frame: Frame, blob: memoryview) -> None:
    (expected,) = TRAILER.unpack(blob[-TRAILER.size :])
    if xxhash.xxh3_64_intdigest(blob[: -TRAILER.size]) != expected:
        raise ServiceError(f"{frame.path} is damaged: batch {frame.number} fails its checksum")


def _is_intact(frame: Frame) -> bool:
    try:
        _check(frame, memoryview(_read(frame.path, frame.offset, frame.end - frame.offset)))
    except ServiceError:
        return False
    return True


def _cut(path: Path, end: int) -> None:
    """Drop what lies after the last whole batch; keep it aside if it is no plain torn write."""
    size = path.stat().st_size
    if size <= end:
        return
    tail = _read(path, end, size - end)
    if len(tail) >= HEADER_SIZE and not tail.startswith(b"PGSG") and any(tail[:HEADER_SIZE]):
        path.with_suffix(".damaged").write_bytes(tail)
    os.truncate(path, end)
