"""Random numbers that are functions of what they are for, not of what was drawn before.

The same seed, field, object and visit give the same number in whatever order nights are made,
so that an object comes back the next night with the history that the first night showed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


def key(*parts: Any) -> Keys:
    """Mix integers, or arrays of them, into 64-bit keys; shapes broadcast.

    References
    ----------
    Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA.
    """
    mixed = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            # The product keeps (1, 2) apart from (2, 1).
            mixed = _finish(mixed * _STEP + np.asarray(part).astype(np.uint64) + _STEP)
    return np.asarray(mixed)


def _finish(value: Any) -> Any:
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


def uniform(*parts: Any) -> NDArray[np.float64]:
    """Return numbers in [0, 1) for the keys of `parts`."""
    return np.asarray((key(*parts) >> np.uint64(11)).astype(np.float64) * _TO_UNIT)


def normal(*parts: Any) -> NDArray[np.float64]:
    """Return standard normal numbers (Box and Muller 1958)."""
    mixed = key(*parts)
    radius = np.sqrt(-2 * np.log(1.0 - uniform(mixed, 1)))
    return np.asarray(radius * np.cos(2 * np.pi * uniform(mixed, 2)))


def streams(keys: Keys, count: int) -> NDArray[np.float64]:
    """Return `count` numbers in [0, 1) for each key, shape (count, keys)."""
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64)[:, None] * _STEP
        mixed = _finish(keys[None, :] + steps)
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) * _TO_UNIT)


def normals(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn two uniform numbers into two normal ones, shape (2, …)."""
    radius, angle = np.sqrt(-2 * np.log(1.0 - first)), 2 * np.pi * second
    return np.asarray([radius * np.cos(angle), radius * np.sin(angle)])
