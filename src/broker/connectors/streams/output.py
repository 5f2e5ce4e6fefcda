"""A file that grows by large pieces, written past the page cache where the system allows it.

Copying to the page cache costs two to ten times more than the transfer itself, and what is
written here is seldom read soon.
"""

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import xxhash

from broker.connectors.disk import flush
from broker.connectors.streams.frame import TRAILER, Bytes

# Memory, places and lengths of direct writes are multiples of a page; every disk's block fits.
_ALIGN = mmap.PAGESIZE
# What is hashed and written at a time: it stays in the processor's cache in between.
_PIECE = 2 * 2**20
# Below this the fixed cost of a direct write outweighs the copy.
_LEAST_DIRECT = 256 * 2**10
# What was written through the page cache stays there this long. Reusing few pages is what keeps
# a write cheap: on memory that the machine has not touched yet it costs up to ten times more.
_CACHED_BYTES = 64 * 2**20


class Output:
    """One open file; what is put is whole pieces with a checksum after them.

    Parameters
    ----------
    path : Path
        The file.
    flags : int
        How it is opened for writing, as for `os.open`.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self._cached = os.open(path, os.O_WRONLY | flags, 0o644)
        self._direct = _open_direct(path)

    @cached_property
    def _scratch(self) -> memoryview:
        return memoryview(mmap.mmap(-1, _PIECE + _ALIGN))

    def put(self, offset: int, size: int, parts: Iterable[Bytes]) -> None:
        """Write `size` bytes in parts from `offset` on, and their checksum.

        The file never grows beyond what is written, and only forwards.
        """
        digest = xxhash.xxh3_64()
        if size < _LEAST_DIRECT:
            whole = b"".join(parts)
            digest.update(whole)
            _write(self._cached, memoryview(whole + TRAILER.pack(digest.intdigest())), offset)
            return
        start, end = offset % _ALIGN, offset + size
        for stop in _pour(parts, self._scratch[:_PIECE], start):
            digest.update(self._scratch[start:stop])
            offset += stop - start
            if offset == end:
                TRAILER.pack_into(self._scratch, stop, digest.intdigest())
                offset, stop = offset + TRAILER.size, stop + TRAILER.size
            self._write_piece(start, stop, offset - stop)
            start = 0

    def _write_piece(self, start: int, stop: int, base: int) -> None:
        """Write scratch from `start` to `stop`, whole pages of it past the cache."""
        piece = self._scratch
        first, last = min(-(-start // _ALIGN) * _ALIGN, stop), stop // _ALIGN * _ALIGN
        _write(self._cached, piece[start:first], base + start)
        written = self._write_past(piece[first:last], base + first)
        _write(self._cached, piece[first + written : stop], base + first + written)

    def _write_past(self, pages: memoryview, offset: int) -> int:
        """Write pages past the cache; return how many bytes went that way."""
        if self._direct < 0 or not pages:
            return 0
        try:
            return os.pwrite(self._direct, pages, offset)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
        os.close(self._direct)
        self._direct = -1
        return 0

    def flush(self, end: int) -> None:
        """Make all durable; `end` is where the file ends."""
        flush(self._cached)
        if self._direct < 0 and end > _CACHED_BYTES and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._cached, 0, end - _CACHED_BYTES, os.POSIX_FADV_DONTNEED)

    def cut(self, end: int) -> None:
        """Drop what lies after `end`."""
        os.ftruncate(self._cached, end)

    def close(self) -> None:
        """Let go of the file."""
        for descriptor in (self._cached, self._direct):
            if descriptor >= 0:
                os.close(descriptor)
        self._cached = self._direct = -1


def _open_direct(path: Path) -> int:
    """Open a file to be written past the page cache; -1 where that is not possible."""
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except (AttributeError, OSError):  # not on this system, not on this filesystem
        return -1


def _pour(parts: Iterable[Bytes], scratch: memoryview, fill: int) -> Iterator[int]:
    """Copy parts after the first `fill` bytes; tell where they end when full, and at last."""
    for part in parts:
        while len(part) > len(scratch) - fill:
            room = len(scratch) - fill
            scratch[fill:] = part[:room]
            yield len(scratch)
            part, fill = part[room:], 0
        scratch[fill : fill + len(part)] = part
        fill += len(part)
    yield fill


def _write(descriptor: int, piece: memoryview, offset: int) -> None:
    """Write a piece, however many calls the system needs for it."""
    while piece:
        written = os.pwrite(descriptor, piece, offset)
        piece, offset = piece[written:], offset + written
