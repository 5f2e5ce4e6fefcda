"""Payloads where they lie in memory: compared and copied by the batch, not one by one."""

import ctypes
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from broker.errors import UsageError


class Payloads(Sequence[bytes]):
    """Payloads that know their addresses and sizes.

    Parameters
    ----------
    payloads : sequence of bytes
    """

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self._payloads = payloads if isinstance(payloads, list | tuple) else list(payloads)

    @classmethod
    def of(cls, payloads: Sequence[bytes]) -> "Payloads":
        """Return payloads as these, the same if they are."""
        return payloads if isinstance(payloads, Payloads) else cls(payloads)

    @cached_property
    def addresses(self) -> NDArray[np.int64]:
        """Where each is, as long as this lives; shape (payloads,)."""
        count = len(self._payloads)
        pointers = (ctypes.c_char_p * count)(*self._payloads)
        return np.array(np.frombuffer(memoryview(pointers), np.int64) if count else [], np.int64)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each, shape (payloads,)."""
        return np.fromiter(map(len, self._payloads), np.int64, len(self._payloads))

    def count_starting(self, prefix: bytes, first: int) -> int:
        """Count those from number `first` on that start with `prefix`, up to one that does not."""
        from broker.surveys.payloads.kernel import count_starting

        held = np.frombuffer(prefix, np.uint8)
        where = (held.ctypes.data, held.size)
        return int(count_starting(self.addresses, self.sizes, *where, first))

    def __len__(self) -> int:
        return len(self._payloads)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self._payloads[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._payloads)


class Tails:
    """What is left of payloads without their prefixes, to be copied one after another.

    Parameters
    ----------
    payloads : sequence of bytes
    prefixes : sequence of bytes
    which : array of int64, shape (payloads,)
        The prefix of each payload.
    """

    def __init__(
        self, payloads: Sequence[bytes], prefixes: Sequence[bytes], which: NDArray[np.int64]
    ) -> None:
        self._payloads = Payloads.of(payloads)
        self._prefixes = [np.frombuffer(prefix, np.uint8) for prefix in prefixes]
        self._which = which
        self._starts = np.array([prefix.size for prefix in self._prefixes], np.int64)[which]
        self.sizes = self._payloads.sizes - self._starts
        self._refuse(np.flatnonzero(self.sizes < 0))

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return int(self.sizes.sum())

    def pour(self, scratch: NDArray[np.uint8], fill: int) -> Iterator[int]:
        """Copy them after the first `fill` bytes; tell where they end when full, and at last.

        Raises
        ------
        UsageError
            If a payload does not start with its prefix. Whoever names one has compared it, so
            that its end tells enough.
        """
        from broker.surveys.payloads.kernel import pour

        done = np.zeros(2, np.int64)
        while True:
            fill = int(pour(self._told, done, scratch, fill))
            if fill < 0:
                self._refuse(done[:1])
            yield fill
            if done[0] == len(self.sizes):
                return
            fill = 0

    @cached_property
    def _told(self) -> NDArray[np.int64]:
        """What the kernel is told of each: its address and size, and those of its prefix's end."""
        ends = [prefix[-_COMPARED:] for prefix in self._prefixes]
        where = np.array([(end.ctypes.data, end.size) for end in ends], np.int64)[self._which]
        return np.column_stack((self._payloads.addresses + self._starts, self.sizes, where))

    def _refuse(self, wrong: NDArray[np.int64]) -> None:
        for number in wrong.tolist():
            raise UsageError(f"payload {number} does not start with prefix {self._which[number]}")


_COMPARED = 64
"""Bytes at the end of a prefix that a payload is held against; a sync marker has 16."""
