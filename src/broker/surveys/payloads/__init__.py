"""Payloads where they lie in memory: compared and copied by the batch, not one by one."""

import ctypes
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


class Payloads:
    """Payloads, their addresses and sizes; the payloads live as long as this.

    Parameters
    ----------
    payloads : sequence of bytes
    """

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.payloads = payloads if isinstance(payloads, list | tuple) else list(payloads)
        count = len(self.payloads)
        self._pointers = (ctypes.c_char_p * count)(*self.payloads)
        view = memoryview(self._pointers)
        self.addresses: NDArray[np.int64] = np.frombuffer(view, np.int64, count) if count else _NONE
        self.sizes: NDArray[np.int64] = np.fromiter(map(len, self.payloads), np.int64, count)

    def __len__(self) -> int:
        return len(self.payloads)

    def count_starting(self, prefix: bytes, first: int) -> int:
        """Count those from number `first` on that start with `prefix`, up to one that does not."""
        from broker.surveys.payloads.kernel import count_starting

        held = np.frombuffer(prefix, np.uint8)
        return int(count_starting(self.addresses, self.sizes, held, first))


_NONE = np.empty(0, np.int64)


class Tails:
    """What is left of payloads without their first bytes, to be copied one after another.

    Parameters
    ----------
    payloads : sequence of bytes
    starts : array of int64, shape (payloads,)
        How many bytes of each are left out.
    """

    def __init__(self, payloads: Sequence[bytes], starts: NDArray[np.int64]) -> None:
        self._whole = Payloads(payloads)
        self._starts = starts
        self.sizes = self._whole.sizes - starts

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return int(self.sizes.sum())

    def first_without(self, endings: Sequence[bytes], which: NDArray[np.int64]) -> int:
        """Find a payload that does not have its ending before its tail; -1 if all have.

        Parameters
        ----------
        endings : sequence of bytes
        which : array of int64, shape (payloads,)
            The ending of each payload.
        """
        from broker.surveys.payloads.kernel import first_without

        joined = np.frombuffer(b"".join(endings), np.uint8)
        bounds = np.cumsum([0, *map(len, endings)]).astype(np.int64)
        parts = (self._whole.addresses, self._starts, self._whole.sizes)
        return int(first_without(*parts, joined, bounds, which))

    def pour(self, scratch: NDArray[np.uint8], fill: int) -> Iterator[int]:
        """Copy them after the first `fill` bytes; tell where they end when full, and at last."""
        from broker.surveys.payloads.kernel import pour

        done = np.zeros(2, np.int64)
        addresses = self._whole.addresses + self._starts
        while True:
            fill = int(pour(addresses, self.sizes, done, scratch, fill))
            yield fill
            if done[0] == len(self.sizes):
                return
            fill = 0
