"""Columns of lists, opened so that all their items are worked on at once."""

import numpy as np
import polars as pl
from numpy.typing import NDArray


def open_lists(lists: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
    """Return the items of all lists in a row, and where each list starts.

    Parameters
    ----------
    lists : polars.Series
        One list a row; a null counts as an empty one.

    Returns
    -------
    items : polars.Series
        The items of the first list, then those of the second, …
    bounds : ndarray (rows + 1,), int64
        List i has the items from ``bounds[i]`` up to ``bounds[i + 1]``.

    Examples
    --------
    >>> items, bounds = open_lists(pl.Series([[1, 2], None, [], [3]]))
    >>> items.to_list(), bounds.tolist()
    ([1, 2, 3], [0, 2, 2, 2, 3])
    """
    bounds = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum(lists.list.len().fill_null(0).to_numpy(), out=bounds[1:])
    return lists.explode(empty_as_null=False, keep_nulls=False), bounds


def count_items(flags: NDArray[np.bool_], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the flagged items of each list.

    Parameters
    ----------
    flags : ndarray (items,), bool
        One flag for each item.
    bounds : ndarray (rows + 1,), int64
        As `open_lists` returns them.

    Examples
    --------
    >>> count_items(np.array([True, False, True]), np.array([0, 2, 2, 3])).tolist()
    [1, 0, 1]
    """
    before = np.zeros(len(flags) + 1, dtype=np.int64)
    np.cumsum(flags, out=before[1:])
    return np.diff(before[bounds])
