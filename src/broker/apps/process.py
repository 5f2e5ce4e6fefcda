"""How a process that takes in alerts is set up: its memory, its collector, its end."""

import ctypes
import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from broker.ports import Source, SourceBatch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h names them

_KEPT_BYTES = 512 << 20
"""So much freed memory stays with the process: the batches under way, twice."""

_LARGEST_KEPT = 32 << 20
"""Blocks up to this size come from what is kept; the largest that every glibc allows."""

GRACE_S = 2.0
"""A run that is to stop gets so long to come to the end of a batch; a batch takes far less."""


@dataclass(slots=True)
class Stop:
    """Whether the run is to end; asked for by a signal, obeyed between two batches.

    An interrupt anywhere else could fall between the closing of a batch and the commit of its
    offsets, and then its alerts would come once more.
    """

    wanted: bool = False

    def between(self, source: Source) -> Source:
        """Return the source, interrupted between batches when the run is to end."""
        return _Interruptible(source, self)

    def check(self) -> None:
        """Interrupt if the run is to end; from here on only another signal interrupts again."""
        if self.wanted:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class _Interruptible:
    """A source whose batches end with an interrupt when the run is to end."""

    source: Source
    stop: Stop

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield batches; see the port."""
        for batch in self.source.batches(max_payloads, max_wait_s):
            self.stop.check()
            yield batch
            self.stop.check()

    def commit(self, batch: SourceBatch) -> None:
        """Record that a batch and all before it are durable; see the port."""
        self.source.commit(batch)

    def close(self) -> None:
        """Let go; see the port."""
        self.source.close()


@contextmanager
def taking_in(grace_s: float = GRACE_S) -> Iterator[Stop]:
    """Prepare this process for large batches of packets that come and go.

    glibc's allocator gives the memory of a batch back to the system and asks for it anew for
    the next one; the system then fills every page with zeros first, which costs a packet from
    a network more than its copying. Kept memory costs nothing. The collector, which thousands
    of packet views wake often, is kept from walking modules.

    Ctrl-C, and SIGTERM, by which services and containers are stopped, are for what is yielded,
    so that they end the work in order. A second one interrupts at once, and so does the first
    one where no batch comes to its end within `grace_s` seconds, as when a service is away.
    """
    keep_freed_memory()
    gc.freeze()
    try:
        with _stopped_in_order(grace_s) as stop:
            yield stop
    finally:
        gc.unfreeze()


@contextmanager
def _stopped_in_order(grace_s: float) -> Iterator[Stop]:
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # signals are not for us
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.wanted:
            signal.default_int_handler(number, frame)
        stop.wanted = True
        signal.setitimer(signal.ITIMER_REAL, grace_s)

    late = signal.signal(signal.SIGALRM, signal.default_int_handler)
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # Only now is nobody left who sets the timer, which would end the process.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, late)


def give_back_memory() -> None:
    """Return to the system what was kept, before work that needs memory of another kind."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed, where it is glibc's."""
    with suppress(OSError, AttributeError, TypeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        allocator.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
