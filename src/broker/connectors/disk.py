"""What every connector on a local disk does alike: errors in words, durable small files."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from broker.errors import ServiceError, TransientError, UsageError

# EFBIG is what a size limit on the process gives; for the writer it is a full disk too.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}

# macOS has no fdatasync; fsync flushes the same and the file's times as well.
flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's error about `path` into one of ours.

    Raises
    ------
    TransientError
        If the disk is full; what was there before is unharmed.
    UsageError
        If the place cannot be written to.
    ServiceError
        If anything else went wrong with the disk.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        number = _errno(error)
        if number in _FULL:
            raise TransientError(f"disk full: could not write {path}: {error}") from error
        if number in _DENIED:
            raise UsageError(f"{path} cannot be used: {error}") from error
        if number is None:
            raise
        raise ServiceError(f"the disk failed at {path}: {error}") from error


def _errno(error: Exception) -> int | None:
    """Return the system's number of an error, which Polars has in its text only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def flush_folder(folder: Path) -> None:
    """Make new and renamed entries of `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
