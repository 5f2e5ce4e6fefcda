"""Cuts that hold a number of the alert against a constant, many at once.

Most cuts are such. To compare a column with all its thresholds in one step takes a fraction
of what an expression engine needs to plan as many expressions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

_HOLDS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": lambda value, threshold: value >= threshold,
    ">": lambda value, threshold: value > threshold,
    "<=": lambda value, threshold: value <= threshold,
    "<": lambda value, threshold: value < threshold,
    "abs <=": lambda value, threshold: abs(value) <= threshold,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column, by its dotted path, held against a constant; `single`, in single precision."""

    column: str
    single: bool
    sign: str
    threshold: float


def comparison_of(
    value: pl.Expr, passes: pl.Expr, sign: str, threshold: str | float
) -> Comparison | None:
    """Return what a cut compares, None unless it is a plain comparison as it says."""
    names = value.meta.root_names()
    if sign not in _HOLDS or isinstance(threshold, str | bool) or len(names) != 1:
        return None
    holds = _HOLDS[sign]
    plain, single = pl.col(names[0]), pl.col(names[0]).cast(pl.Float32)
    if value.meta.eq(plain) and passes.meta.eq(holds(plain, threshold)):
        return Comparison(names[0], False, sign, threshold)
    in_single = pl.lit(threshold, dtype=pl.Float32)
    if value.meta.eq(single) and passes.meta.eq(holds(single, in_single)):
        return Comparison(names[0], True, sign, threshold)
    return None


def compare(
    comparisons: Sequence[Comparison], columns: Mapping[str, pl.Series], height: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Evaluate comparisons with columns of floats, of so many alerts each.

    Returns
    -------
    holds, known : ndarray (comparisons, alerts), bool
        Whether each holds, and whether there is a value.
    """
    shape = (len(comparisons), height)
    holds, known = np.empty(shape, dtype=np.bool_), np.empty(shape, dtype=np.bool_)
    alike: dict[tuple[str, bool, str], list[int]] = {}
    for place, one in enumerate(comparisons):
        alike.setdefault((one.column, one.single, one.sign), []).append(place)
    for (column, single, sign), places in alike.items():
        values = columns[column].to_numpy()
        thresholds = np.array([[comparisons[place].threshold] for place in places])
        with np.errstate(over="ignore"):
            values = values.astype(np.float32) if single else values
            holds[places] = _HOLDS[sign](values, thresholds.astype(values.dtype))
        known[places] = ~np.isnan(values)
    return holds, known
