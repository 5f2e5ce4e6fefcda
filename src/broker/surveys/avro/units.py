"""What is decoded at a time, and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

Blobs = dict[str, tuple[NDArray[np.int64], NDArray[np.int32]]]


@dataclass(frozen=True)
class Units:
    """Stretches of bytes that hold records, and the payload that each belongs to.

    A count of -1 says that a container's sync marker is at the start, and one record in one
    block after it.
    """

    data: Sequence[bytes]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    counts: NDArray[np.int64]
    owners: NDArray[np.int64]

    def part(self, chosen: slice) -> "Units":
        """Return some of the units."""
        return Units(
            self.data[chosen],
            self.starts[chosen],
            self.ends[chosen],
            self.counts[chosen],
            self.owners[chosen],
        )


@dataclass(frozen=True)
class Part:
    """Rows of some units; `rows` and the keys of `errors` and `slow` are payloads.

    `slow` are containers whose frame is not that of one record in one plain block.
    """

    frame: pl.DataFrame
    rows: NDArray[np.int64]
    blobs: Blobs
    errors: dict[int, str]
    slow: tuple[int, ...] = ()

    def take(self, chosen: NDArray[np.int64]) -> "Part":
        """Return some rows."""
        return replace(
            self,
            # A frame of no columns has no rows to choose from.
            frame=self.frame[chosen] if self.frame.width else self.frame,
            rows=self.rows[chosen],
            blobs={path: (at[chosen], size[chosen]) for path, (at, size) in self.blobs.items()},
        )


def merge(parts: Sequence[Part]) -> Part:
    """Join parts in order of payloads; a payload with an error keeps no row."""
    if len(parts) == 1:
        return parts[0]
    blobs = {
        path: (
            np.concatenate([part.blobs[path][0] for part in parts]),
            np.concatenate([part.blobs[path][1] for part in parts]),
        )
        for path in parts[0].blobs
    }
    joined = Part(
        pl.concat([part.frame for part in parts]),
        np.concatenate([part.rows for part in parts]),
        blobs,
        {payload: why for part in parts for payload, why in part.errors.items()},
        tuple(payload for part in parts for payload in part.slow),
    )
    order = np.argsort(joined.rows, kind="stable")
    bad = np.fromiter(joined.errors, np.int64, len(joined.errors))
    return joined.take(order[~np.isin(joined.rows[order], bad)])
