"""A file that grows by large pieces, each with a checksum after it."""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import xxhash

from broker.connectors.direct import ALIGN, LEAST_DIRECT, DirectFile, aligned
from broker.connectors.disk import flush
from broker.connectors.streams.frame import TRAILER, Bytes

# What is hashed and written at a time: it stays in the processor's cache in between.
_PIECE = 2 * 2**20
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
        self._file = DirectFile(path, flags)

    @cached_property
    def _scratch(self) -> memoryview:
        return aligned(_PIECE + ALIGN)

    def put(self, offset: int, size: int, parts: Iterable[Bytes]) -> None:
        """Write `size` bytes in parts from `offset` on, and their checksum.

        The file never grows beyond what is written, and only forwards.
        """
        digest = xxhash.xxh3_64()
        if size < LEAST_DIRECT:
            whole = b"".join(parts)
            digest.update(whole)
            self._file.write_small(memoryview(whole + TRAILER.pack(digest.intdigest())), offset)
            return
        start, end = offset % ALIGN, offset + size
        for stop in _pour(parts, self._scratch[:_PIECE], start):
            digest.update(self._scratch[start:stop])
            at, offset = offset, offset + stop - start
            if offset == end:
                TRAILER.pack_into(self._scratch, stop, digest.intdigest())
                offset, stop = offset + TRAILER.size, stop + TRAILER.size
            self._file.write(self._scratch, start, stop, at)
            start = 0

    def flush(self, end: int) -> None:
        """Make all durable; `end` is where the file ends."""
        descriptor = self._file.descriptor
        flush(descriptor)
        if not self._file.is_direct and end > _CACHED_BYTES and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, end - _CACHED_BYTES, os.POSIX_FADV_DONTNEED)

    def cut(self, end: int) -> None:
        """Drop what lies after `end`."""
        os.ftruncate(self._file.descriptor, end)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


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
