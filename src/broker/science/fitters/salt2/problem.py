"""From a light curve and a preset to the numbers that both engines minimise."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from broker.errors import ScienceError
from broker.science.fitters.salt2.presets import (
    MIN_SNR,
    ORIGINAL_ERROR_SCALE,
    PARAMETERS,
    Preset,
    Redshift,
)
from broker.science.fitters.salt2.tables import ZERO_POINT, Coverage

if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve

Array = NDArray[np.float64]

_T0 = PARAMETERS.index("t0")


@dataclass(frozen=True, slots=True)
class Problem:
    """One light curve, ready to fit: points on zero point 25, bounds and prior.

    `chosen` are the positions of the points in the light curve; `early` marks those of a first
    fit, before phases are known.
    """

    chosen: NDArray[np.intp]
    time: Array
    band: NDArray[np.int64]
    flux: Array
    error: Array
    early: NDArray[np.bool_]
    low: Array
    high: Array
    prior: tuple[float, float]


def pose(
    lightcurve: "LightCurve", coverage: Coverage, preset: Preset, redshift: Redshift | None
) -> Problem:
    """Select points, scale them and work out bounds.

    Raises
    ------
    ScienceError
        If no point can be fitted, or the redshift is beyond the tables.
    """
    z = _z_bounds(preset, redshift, coverage)
    chosen, band = _select(lightcurve, coverage, preset, z)
    scale = 10.0 ** (0.4 * (ZERO_POINT - lightcurve.zp[chosen]))
    flux = lightcurve.flux[chosen] * scale
    error = lightcurve.fluxerr[chosen] * scale * preset.error_scale
    time = lightcurve.mjd[chosen]
    brightest = _brightest(time, flux, error)
    centre = _first(time, flux, error) if preset.t0_at_first else brightest
    low, high = _bounds(preset, z, centre)
    early = np.ones(time.size, np.bool_)
    if preset.phase_range is not None:
        keep, early = _windows(time, brightest, low, high, preset.phase_range)
        chosen, band, time = chosen[keep], band[keep], time[keep]
        flux, error, early = flux[keep], error[keep], early[keep]
    prior = (0.0, 0.0) if redshift is None else (redshift.value, redshift.error)
    return Problem(chosen, time, band, flux, error, early, low, high, prior)


def mode(redshift: Redshift | None) -> str:
    """Say how the redshift is treated: free, fixed or prior."""
    if redshift is None:
        return "free"
    return "prior" if redshift.error > 0 else "fixed"


def at_bound(parameters: Array, low: Array, high: Array) -> tuple[str, ...]:
    """Name the free parameters that ended on a bound."""
    names = []
    for i, name in enumerate(PARAMETERS):
        reach = 1e-4 * min(high[i] - low[i], 1e9)
        if low[i] < high[i] and parameters[i] <= low[i] + reach:
            names.append(f"{name}_low")
        if low[i] < high[i] and parameters[i] >= high[i] - reach:
            names.append(f"{name}_high")
    return tuple(names)


def _z_bounds(preset: Preset, redshift: Redshift | None, coverage: Coverage) -> tuple[float, float]:
    if redshift is None:
        low, high = preset.z
    else:
        low = max(redshift.value - 5 * redshift.error, 0.0)
        high = redshift.value + 5 * redshift.error
        if redshift.error > 0:
            high = min(high, coverage.z_max)
    if not 0 <= low <= high <= coverage.z_max + 1e-9:
        raise ScienceError(f"redshift {high:.4g} is outside the tables (0 to {coverage.z_max:.4g})")
    return low, high


def _select(
    lightcurve: "LightCurve", coverage: Coverage, preset: Preset, z: tuple[float, float]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return positions and table bands of the points that can be fitted."""
    known = coverage.covered(*z)
    band = np.array([known.get(name, -1) for name in lightcurve.band.tolist()], np.int64)
    good = (band >= 0) & np.isin(lightcurve.kind, preset.kinds) & (lightcurve.zpsys == "ab")
    good &= np.isfinite(lightcurve.flux) & (lightcurve.fluxerr > 0)
    chosen = np.flatnonzero(good)
    if chosen.size == 0:
        raise ScienceError("no point can be fitted: no known band, flux or kind of photometry")
    return chosen, band[chosen]


def _brightest(time: Array, flux: Array, error: Array) -> float:
    snr = flux / error
    bright = np.where(snr >= min(MIN_SNR, snr.max()), flux, -np.inf)
    return float(time[np.argmax(bright)])


def _first(time: Array, flux: Array, error: Array) -> float:
    significant = time[flux / error >= MIN_SNR]
    if significant.size == 0:
        raise ScienceError(f"no point reaches a signal-to-noise ratio of {MIN_SNR:g}")
    return float(int(significant[0]))


def _bounds(preset: Preset, z: tuple[float, float], centre: float) -> tuple[Array, Array]:
    t0 = (centre - preset.t0_half_width, centre + preset.t0_half_width)
    ranges = (z, t0, (-np.inf, np.inf), preset.x1, preset.c)
    low, high = np.array(ranges).T
    return low.copy(), high.copy()


def _windows(
    time: Array, brightest: float, low: Array, high: Array, phases: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which points any allowed t0 could use, and which serve a first fit."""
    stretch = 1.0 + high[0]
    begin, end = phases
    keep = (time > low[_T0] + begin * stretch) & (time < high[_T0] + end * stretch)
    return keep, time < brightest + end * stretch


def with_original_errors(preset: Preset) -> Preset:
    """Return the preset with the first broker's flux errors, 1.505 times too large."""
    return replace(preset, error_scale=ORIGINAL_ERROR_SCALE)
