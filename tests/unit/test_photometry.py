"""Photometry against numbers worked out by hand."""

import math

import numpy as np
import pytest

from broker.alerts.photometry import (
    flux_to_mag,
    jd_to_mjd,
    mag_to_flux,
    mag_to_njy,
    mjd_to_jd,
    njy_to_abmag,
    sign_of_subtraction,
)


def test_flux_and_error() -> None:
    """Magnitude 20 at zero point 25 is 100, with the error of first-order propagation."""
    flux, fluxerr = mag_to_flux(20.0, 25.0, 0.05)
    assert (flux, fluxerr) == (pytest.approx(100.0), pytest.approx(5 * math.log(10) / 2.5))


def test_original_error() -> None:
    """The first version's error factor can be reproduced."""
    assert mag_to_flux(20.0, 25.0, 0.05, original_error=True)[1] == pytest.approx(5 * math.log(4))


def test_error_is_the_derivative() -> None:
    """The error agrees with the flux difference that a small magnitude step makes."""
    step = 1e-6
    brighter, fainter = (mag_to_flux(19.0 + sign * step, 26.0, 0.0)[0] for sign in (-1, 1))
    assert mag_to_flux(19.0, 26.0, step)[1] == pytest.approx((brighter - fainter) / 2, rel=1e-6)


def test_missing_stays_missing() -> None:
    """NaN in gives NaN out, without a warning."""
    flux, fluxerr = mag_to_flux([np.nan, 20.0], 25.0, [0.1, np.nan])
    assert np.isnan(flux).tolist() == [True, False]
    assert np.isnan(fluxerr).tolist() == [True, True]


def test_there_and_back() -> None:
    """A flux turned into a magnitude and back is the same, with its error."""
    mag, magerr = njy_to_abmag([30.0, 3e5], [1.0, 50.0])
    flux, fluxerr = mag_to_njy(mag, magerr)
    np.testing.assert_allclose(flux, [30.0, 3e5])
    np.testing.assert_allclose(fluxerr, [1.0, 50.0])


def test_magnitude_of_negative_flux() -> None:
    """A flux that is not positive has no magnitude."""
    assert np.isnan(flux_to_mag([0.0, -1.0], 25.0, 1.0)[0]).all()


@pytest.mark.parametrize(
    ("written", "sign"), [("t", 1), ("1", 1), (True, 1), (1, 1), ("f", -1), ("0", -1), (False, -1)]
)
def test_sign(written: object, sign: int) -> None:
    """Every way to write the sign is understood."""
    assert sign_of_subtraction([written]).tolist() == [sign]


def test_unknown_sign() -> None:
    """An unknown sign is not taken for either."""
    assert np.isnan(sign_of_subtraction([None, "x"])).all()


def test_days() -> None:
    """Julian dates and modified Julian dates differ by 2400000.5."""
    assert jd_to_mjd(2400001.0) == 0.5
    assert mjd_to_jd(jd_to_mjd(np.array([2459000.25]))).tolist() == [2459000.25]
