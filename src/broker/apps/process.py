"""How a process that takes in alerts is set up: its memory, its collector, its end."""

import ctypes
import gc
import signal
import threading
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
    of packet views wake often, is kept from walking modules. SIGTERM, by which services and
    containers are stopped, ends the work in order, as Ctrl-C does.
    """
    keep_freed_memory()
    gc.freeze()
    try:
        with _stopped_in_order():
            yield
    finally:
        gc.unfreeze()


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals are not for us
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed, where it is glibc's."""
    with suppress(OSError, AttributeError, TypeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        allocator.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
