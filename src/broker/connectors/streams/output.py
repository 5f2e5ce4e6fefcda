"""A file that grows by large pieces, each with a checksum after it."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash

from broker.connectors.direct import ALIGN, DirectFile, aligned
from broker.connectors.disk import flush
from broker.connectors.streams.frame import TRAILER
from broker.surveys.payloads import Tails

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

    def put(self, offset: int, size: int, head: bytes, tails: Tails) -> None:
        """Write head and tails, `size` bytes in all, from `offset` on, and their checksum.

        The file never grows beyond what is written, and only forwards.
        """
        digest = xxhash.xxh3_64()
        start, end = offset % ALIGN, offset + size
        for stop in self._poured(head, tails, start):
            digest.update(self._scratch[start:stop])
            at, offset = offset, offset + stop - start
            if offset == end:
                TRAILER.pack_into(self._scratch, stop, digest.intdigest())
                offset, stop = offset + TRAILER.size, stop + TRAILER.size
            self._file.write(self._scratch, start, stop, at)
            start = 0

    def _poured(self, head: bytes, tails: Tails, fill: int) -> Iterator[int]:
        """Fill scratch piece by piece, the first after `fill` bytes; tell where each ends."""
        piece = self._scratch[:_PIECE]
        at = 0
        while len(head) - at > _PIECE - fill:
            piece[fill:] = head[at : at + _PIECE - fill]
            at += _PIECE - fill
            yield _PIECE
            fill = 0
        piece[fill : fill + len(head) - at] = head[at:]
        yield from tails.pour(np.frombuffer(piece, np.uint8), fill + len(head) - at)

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
