"""How a process that takes in alerts is set up: its memory and its collector."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h names them

_KEPT_BYTES = 512 << 20
"""So much freed memory stays with the process: the batches under way, twice."""

_LARGEST_KEPT = 32 << 20
"""Blocks up to this size come from what is kept; the largest that every glibc allows."""


@contextmanager
def taking_in() -> Iterator[None]:
    """Prepare this process for large batches of packets that come and go.

    glibc's allocator gives the memory of a batch back to the system and asks for it anew for
    the next one; the system then fills every page with zeros first, which costs a packet from
    a network more than its copying. Kept memory costs nothing. The collector, which thousands
    of packet views wake often, is kept from walking modules.
    """
    keep_freed_memory()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed, where it is glibc's."""
    with suppress(OSError, AttributeError, TypeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        allocator.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
