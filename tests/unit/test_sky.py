"""HEALPix ids against known values, and for positions that are none."""

import numpy as np
import polars as pl
import pytest

from broker.alerts.sky import healpix_ids


def test_known_ids() -> None:
    """The ids of a known position are exact at every order."""
    found = healpix_ids([270.1], [-30.2]).row(0)
    assert found == (1839101, 1928437384743, 2022113159144974258)


def test_order_zero() -> None:
    """The north cap at right ascension 45 deg is cell 0 of the twelve."""
    assert healpix_ids([45.0], [60.0], orders=(0,)).row(0) == (0,)


@pytest.mark.parametrize(
    ("ra", "dec"), [(np.nan, 0.0), (10.0, np.nan), (10.0, 90.1), (np.inf, 0.0), (10.0, -999.0)]
)
def test_impossible_position(ra: float, dec: float) -> None:
    """A position that does not exist has no id and harms no other."""
    found = healpix_ids([ra, 270.1], [dec, -30.2])["healpix9"]
    assert found.to_list() == [None, 1839101]


def test_turns() -> None:
    """Right ascension may be given in any turn."""
    found = healpix_ids([-89.9, 270.1, 630.1], [-30.2, -30.2, -30.2])
    assert found["healpix19"].n_unique() == 1


def test_no_positions() -> None:
    """No positions give no rows, with the types of ids."""
    assert healpix_ids([], []).schema == dict.fromkeys(
        ("healpix9", "healpix19", "healpix29"), pl.Int64
    )


def test_missing_values_of_a_column() -> None:
    """A column with nulls can be given as it is."""
    ra, dec = pl.Series([None, 270.1]), pl.Series([1.0, -30.2])
    assert healpix_ids(ra, dec)["healpix9"].to_list() == [None, 1839101]
