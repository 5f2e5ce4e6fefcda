"""Photometry: magnitudes, fluxes, their errors and signs, and time scales of days."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

JD_OF_MJD_ZERO = 2_400_000.5
AB_ZERO_POINT_NJY = 31.4
"""Magnitude of 1 nJy in the AB system: 8.90 + 2.5 * 9 (Oke & Gunn 1983)."""

_MAG_TO_RELATIVE_FLUX = np.log(10.0) / 2.5


def mag_to_flux(
    mag: ArrayLike, zeropoint: ArrayLike, magerr: ArrayLike, *, original_error: bool = False
) -> tuple[Floats, Floats]:
    """Convert magnitudes to fluxes and their errors.

    Parameters
    ----------
    mag, zeropoint, magerr : array_like
        Magnitudes, zero points and errors, in mag.
    original_error : bool
        Use the factor ln(10 / 2.5) of the first version of this broker, which makes errors
        1.505 times too large; only to reproduce its results.

    Returns
    -------
    flux, fluxerr : ndarray of float64
        ``10 ** ((zeropoint - mag) / 2.5)`` and ``flux * magerr * ln(10) / 2.5``.

    References
    ----------
    First-order propagation of the error through Pogson's formula; Bevington & Robinson 2003,
    Data Reduction and Error Analysis, eq. 3.14.

    Examples
    --------
    >>> flux, fluxerr = mag_to_flux([20.0], 25.0, [0.1])
    >>> flux.tolist(), fluxerr.round(4).tolist()
    ([100.0], [9.2103])
    """
    magnitude, zero, error = (np.asarray(one, dtype=np.float64) for one in (mag, zeropoint, magerr))
    flux = np.power(10.0, (zero - magnitude) / 2.5)
    factor = np.log(10.0 / 2.5) if original_error else _MAG_TO_RELATIVE_FLUX
    return flux, flux * error * factor


def flux_to_mag(flux: ArrayLike, zeropoint: ArrayLike, fluxerr: ArrayLike) -> tuple[Floats, Floats]:
    """Convert fluxes to magnitudes and their errors; NaN where a flux is not positive.

    Parameters
    ----------
    flux, fluxerr : array_like
        Fluxes and errors in one unit.
    zeropoint : array_like
        Magnitude of one unit of flux.

    Returns
    -------
    mag, magerr : ndarray of float64
        In mag.

    Examples
    --------
    >>> mag, magerr = flux_to_mag([100.0, -3.0], 25.0, [9.2103, 1.0])
    >>> mag.tolist(), magerr.round(3).tolist()
    ([20.0, nan], [0.1, nan])
    """
    value, error = (np.asarray(one, dtype=np.float64) for one in (flux, fluxerr))
    value = np.where(value > 0, value, np.nan)
    mag = np.asarray(zeropoint, dtype=np.float64) - 2.5 * np.log10(value)
    return mag, error / value / _MAG_TO_RELATIVE_FLUX


def njy_to_abmag(flux: ArrayLike, fluxerr: ArrayLike = np.nan) -> tuple[Floats, Floats]:
    """Convert fluxes in nJy to AB magnitudes and their errors.

    References
    ----------
    Oke & Gunn 1983, ApJ 266, 713: ``m_AB = 31.4 - 2.5 log10(flux / nJy)``.

    Examples
    --------
    >>> njy_to_abmag([1.0, 1e4], [0.1, 1e3])[0].tolist()
    [31.4, 21.4]
    """
    return flux_to_mag(flux, AB_ZERO_POINT_NJY, fluxerr)


def mag_to_njy(mag: ArrayLike, magerr: ArrayLike = np.nan) -> tuple[Floats, Floats]:
    """Convert AB magnitudes to fluxes in nJy and their errors.

    Examples
    --------
    >>> mag_to_njy([31.4])[0].tolist()
    [1.0]
    """
    return mag_to_flux(mag, AB_ZERO_POINT_NJY, magerr)


def sign_of_subtraction(isdiffpos: ArrayLike) -> NDArray[np.float64]:
    """Return the sign of a subtraction from how packets write it.

    Parameters
    ----------
    isdiffpos : array_like
        ``t`` or ``1`` (also true) where the new image is brighter, ``f`` or ``0`` where the
        reference is; anything else is unknown.

    Returns
    -------
    ndarray of float64
        1, -1, or NaN where unknown. A magnitude of a negative difference is that of its
        absolute value, so the sign belongs on the flux.

    Examples
    --------
    >>> sign_of_subtraction(["t", "1", "f", "0", None]).tolist()
    [1.0, 1.0, -1.0, -1.0, nan]
    """
    written = np.asarray(isdiffpos, dtype=object)
    signs = [_SIGNS.get(str(one).lower(), np.nan) for one in written.ravel()]
    return np.array(signs, dtype=np.float64).reshape(written.shape)


_SIGNS = {"t": 1.0, "1": 1.0, "true": 1.0, "f": -1.0, "0": -1.0, "false": -1.0}


def jd_to_mjd(jd: ArrayLike) -> Any:
    """Convert Julian dates to modified Julian dates, in days of the same time scale.

    Examples
    --------
    >>> float(jd_to_mjd(2459000.75))
    59000.25
    """
    return np.asarray(jd, dtype=np.float64) - JD_OF_MJD_ZERO


def mjd_to_jd(mjd: ArrayLike) -> Any:
    """Convert modified Julian dates to Julian dates, in days of the same time scale.

    Examples
    --------
    >>> float(mjd_to_jd(59000.25))
    2459000.75
    """
    return np.asarray(mjd, dtype=np.float64) + JD_OF_MJD_ZERO
