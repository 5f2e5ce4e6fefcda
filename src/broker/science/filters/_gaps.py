"""The cut against moving objects: two detections at one place, some time apart."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from broker.alerts.lists import open_lists
from broker.science.filters._base import Cut

MIN_GAP_MINUTES = 30.0
PATTERSON = "Patterson et al. 2019, PASP 131, 018001"

_MINUTES_A_DAY = 1440.0


def largest_gap(
    trigger: pl.Expr, history: pl.Expr | None = None, time: str = "", keep: pl.Expr | None = None
) -> pl.Expr:
    """Return the largest gap between consecutive times, in minutes.

    Parameters
    ----------
    trigger : polars.Expr
        Time of the triggering detection, in days, null where it does not count.
    history : polars.Expr, optional
        List of the records of earlier detections, in any order; may be null.
    time : str
        Field of these records: the time, in days.
    keep : polars.Expr, optional
        Over the fields of these records: which of them count; by default all.

    Returns
    -------
    polars.Expr
        Minutes, rounded to 6 ms as a Julian date in double precision resolves 0.04 ms
        only; null where fewer than two times are left.
    """
    if history is None:
        return pl.when(pl.lit(value=False)).then(trigger)
    counted = pl.col(time).cast(pl.Float64)
    counted = counted if keep is None else pl.when(keep).then(counted)

    def gaps(columns: Sequence[pl.Series]) -> pl.Series:
        records, bounds = open_lists(columns[1])
        times = records.struct.unnest().select(counted).to_series().to_numpy()
        return pl.Series(_largest_gaps(columns[0].to_numpy(), times, bounds), nan_to_null=True)

    return pl.map_batches([trigger, history], gaps, return_dtype=pl.Float64)


def _largest_gaps(
    triggers: NDArray[np.float64], times: NDArray[np.float64], bounds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the largest gap of each row in minutes; NaN is no time, and no gap."""
    found = np.full(len(triggers), np.nan)
    owners = np.repeat(np.arange(len(triggers)), np.diff(bounds) + 1)
    every = np.insert(times, bounds[1:], triggers)
    known = ~np.isnan(every)
    every, owners = every[known], owners[known]
    same = owners[1:] == owners[:-1]
    if not same.any():
        return found
    _sort_rows(every, owners, same)
    gaps, owners = np.diff(every)[same], owners[1:][same]
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    found[owners[starts]] = np.maximum.reduceat(gaps, starts)
    return np.round(found * _MINUTES_A_DAY, 4)


def _sort_rows(
    times: NDArray[np.float64], owners: NDArray[np.int64], same: NDArray[np.bool_]
) -> None:
    """Sort in place the times of each row whose times are not in order, which are few."""
    wrong = owners[1:][same & (np.diff(times) < 0)]
    if len(wrong):
        places = np.flatnonzero(np.isin(owners, wrong))
        times[places] = times[places][np.lexsort((times[places], owners[places]))]


def not_moving(gap: pl.Expr, what: str) -> Cut:
    """Make the cut that two detections lie at least 30 min apart, from :func:`largest_gap`."""
    return Cut(
        "not_moving",
        gap,
        (gap >= MIN_GAP_MINUTES).fill_null(value=False),
        MIN_GAP_MINUTES,
        ">=",
        "min",
        f"{PATTERSON}; two detections at one place 30 min apart exclude moving objects",
        f"fewer than two detections {what}",
    )
