"""Files written by large pieces past the page cache, where the system allows it.

Copying to the page cache costs two to ten times more than the transfer itself, and what is
written here is seldom read soon.
"""

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

# Memory, places and lengths of direct writes are multiples of a page; every disk's block fits.
ALIGN = mmap.PAGESIZE
# Below this the fixed cost of a direct write outweighs the copy.
LEAST_DIRECT = 256 * 2**10
_HUGE = 2 * 2**20
"""Bytes of a huge page; where they are larger, nothing is gained."""


def aligned(size: int) -> memoryview:
    """Return memory of at least `size` bytes that starts at a page.

    Large memory is in huge pages where the system has them: the disk is told of each page.
    """
    if size < _HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return memoryview(mmap.mmap(-1, max(size, 1)))
    size = -(-size // _HUGE) * _HUGE
    memory = mmap.mmap(-1, size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(memory, np.uint8).ctypes.data % _HUGE
    return memoryview(memory)[start : start + size]


class DirectFile:
    """A file open for writing.

    Parameters
    ----------
    path : Path
        The file.
    flags : int
        How it is opened, as for `os.open`.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | flags, 0o644)
        self._path = path
        self._past: int | None = None

    @property
    def is_direct(self) -> bool:
        """Whether the page cache is passed by."""
        return self._past is not None and self._past >= 0

    def write(self, memory: memoryview, start: int, stop: int, offset: int) -> None:
        """Write `memory` from `start` to `stop`; if that is much, whole pages past the cache.

        Parameters
        ----------
        memory : memoryview
            What starts at a page, as `aligned` makes it.
        start, stop : int
            A part of it.
        offset : int
            Where it goes in the file: as far into a page as `start` is.
        """
        if stop - start < LEAST_DIRECT:
            return self.write_small(memory[start:stop], offset)
        first, last = -(-start // ALIGN) * ALIGN, stop // ALIGN * ALIGN
        self.write_small(memory[start:first], offset)
        written = self._write_past(memory[first:last], offset + first - start)
        first += written
        return self.write_small(memory[first:stop], offset + first - start)

    def write_small(self, data: memoryview, offset: int) -> None:
        """Write through the page cache, with however many calls the system needs for it."""
        while data:
            written = os.pwrite(self.descriptor, data, offset)
            data, offset = data[written:], offset + written

    def _write_past(self, pages: memoryview, offset: int) -> int:
        """Write pages past the cache; return how many bytes went that way."""
        if self._past is None:
            self._past = _open_past(self._path)
        if self._past < 0:
            return 0
        try:
            return os.pwrite(self._past, pages, offset)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
        os.close(self._past)
        self._past = -1
        return 0

    def close(self) -> None:
        """Let go of the file."""
        for descriptor in (self.descriptor, self._past):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self.descriptor, self._past = -1, None


def _open_past(path: Path) -> int:
    """Open a file to be written past the page cache; -1 where that is not possible."""
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except (AttributeError, OSError):  # not on this system, not on this filesystem
        return -1
