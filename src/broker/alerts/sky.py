"""Positions on the sky as HEALPix ids, which message attributes and tables carry."""

from collections.abc import Sequence

import hpgeom
import numpy as np
import polars as pl
from numpy.typing import ArrayLike

ORDERS = (9, 19, 29)
_DEEPEST = 29


def healpix_ids(ra: ArrayLike, dec: ArrayLike, orders: Sequence[int] = ORDERS) -> pl.DataFrame:
    """Return nested HEALPix ids of positions.

    Parameters
    ----------
    ra, dec : array_like
        Right ascension (any turn) and declination, in degrees (ICRS).
    orders : sequence of int
        Orders, 0 to 29; the side of a cell is about 58.6 deg / 2**order.

    Returns
    -------
    polars.DataFrame
        Columns ``healpix{order}``, int64, null where the position is missing or impossible.

    References
    ----------
    Górski et al. 2005, ApJ 622, 759. In the nested scheme the id of a parent cell is that of
    its child without the last two bits, so the deepest id gives all others.

    Examples
    --------
    >>> healpix_ids([270.1, float("nan")], [-30.2, 0.0]).rows()
    [(1839101, 1928437384743, 2022113159144974258), (None, None, None)]
    """
    longitude, latitude = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (ra, dec))
    usable = np.isfinite(longitude) & (np.abs(latitude) <= 90.0)
    deepest = np.zeros(usable.shape, dtype=np.int64)
    deepest[usable] = hpgeom.angle_to_pixel(
        1 << _DEEPEST, longitude[usable] % 360.0, latitude[usable], nest=True, lonlat=True
    )
    ids = [pl.Series(f"healpix{n}", deepest >> 2 * (_DEEPEST - n)) for n in orders]
    found = pl.DataFrame(ids)
    return found if usable.all() else found.select(pl.when(pl.Series(usable)).then(pl.all()))
