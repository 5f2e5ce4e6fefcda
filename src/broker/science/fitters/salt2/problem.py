"""From light curves and a preset to the packed numbers that both engines minimise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ScienceError
from broker.science.fitters.salt2.presets import MIN_SNR, PARAMETERS, Preset, Redshift
from broker.science.fitters.salt2.tables import ZERO_POINT, Coverage

if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """Light curves ready to fit, packed; number n has the points ``offsets[n]:offsets[n+1]``.

    Parameters
    ----------
    offsets : ndarray (n + 1,)
        Where light curves begin.
    source : ndarray (points,)
        Position of each point in all light curves put end to end.
    time, flux, error : ndarray (points,)
        MJD, and flux and its error on zero point 25.
    band : ndarray (points,)
        Index of the passband.
    early : ndarray (points,) of bool
        Points of a first fit, before phases are known.
    low, high : ndarray (n, 5)
        Bounds; equal for a fixed parameter.
    prior : ndarray (n, 2)
        Mean and width of the redshift's prior; width 0 means none.
    failures : dict
        For light curves that cannot be fitted, why.
    """

    offsets: NDArray[np.int64]
    source: NDArray[np.int64]
    time: Array
    band: NDArray[np.int64]
    flux: Array
    error: Array
    early: Mask
    low: Array
    high: Array
    prior: Array
    failures: dict[int, ScienceError]

    def points(self, number: int) -> slice:
        """Return the range of one light curve's points."""
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))


def pose(
    lightcurves: Sequence["LightCurve"],
    coverage: Coverage,
    preset: Preset,
    redshifts: Sequence[Redshift | None],
) -> Batch:
    """Select points, scale them and work out bounds, for a batch at once."""
    sizes = [lightcurve.mjd.size for lightcurve in lightcurves]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    failures: dict[int, ScienceError] = {}
    limits = np.array([_z_bounds(preset, redshift, coverage) for redshift in redshifts])
    limits = limits.reshape(-1, 2)
    for n in np.flatnonzero((limits[:, 0] < 0) | (limits[:, 1] > coverage.z_max + 1e-9)):
        failures[int(n)] = ScienceError(
            f"redshift {limits[n, 1]:.4g} is outside the tables (0 to {coverage.z_max:.4g})"
        )
        limits[n] = preset.z
    points, keep = _points(lightcurves, coverage, preset, limits, owner)
    owner = owner[keep]
    low, high = _bounds(preset, limits, owner, points)
    early = np.ones(owner.size, np.bool_)
    if preset.phase_range is not None:
        stay, early = _windows(preset.phase_range, owner, points, low, high)
        keep, owner, early = keep[stay], owner[stay], early[stay]
        points = {name: column[stay] for name, column in points.items()}
    _explain(failures, owner, low, len(sizes))
    return Batch(
        offsets=np.searchsorted(owner, np.arange(len(sizes) + 1)).astype(np.int64),
        source=keep.astype(np.int64),
        early=early,
        low=low,
        high=high,
        prior=np.array([_prior(redshift) for redshift in redshifts]).reshape(-1, 2),
        failures=failures,
        **points,
    )


def mode(redshift: Redshift | None) -> str:
    """Say how the redshift is treated: free, fixed or prior."""
    if redshift is None:
        return "free"
    return "prior" if redshift.error > 0 else "fixed"


def at_bound(parameters: Array, low: Array, high: Array) -> list[tuple[str, ...]]:
    """Name, for each fit (n, 5), the free parameters that ended on a bound."""
    reach = 1e-4 * np.minimum(high - low, 1e9)
    free = low < high
    below = free & (parameters <= low + reach)
    above = free & (parameters >= high - reach)
    names: list[tuple[str, ...]] = [()] * len(parameters)
    for n in np.flatnonzero((below | above).any(axis=1)).tolist():
        lower = [f"{PARAMETERS[i]}_low" for i in np.flatnonzero(below[n])]
        upper = [f"{PARAMETERS[i]}_high" for i in np.flatnonzero(above[n])]
        names[n] = (*lower, *upper)
    return names


def _prior(redshift: Redshift | None) -> tuple[float, float]:
    return (0.0, 0.0) if redshift is None else (redshift.value, redshift.error)


def _z_bounds(preset: Preset, redshift: Redshift | None, coverage: Coverage) -> tuple[float, float]:
    """Return bounds of z; five standard deviations of a prior, within what can be fitted."""
    if redshift is None:
        return preset.z
    if redshift.error <= 0:
        return redshift.value, redshift.value
    reach = 5 * redshift.error
    return max(redshift.value - reach, 0.0), min(redshift.value + reach, coverage.z_max)


def _points(
    lightcurves: Sequence["LightCurve"],
    coverage: Coverage,
    preset: Preset,
    limits: Array,
    owner: NDArray[np.intp],
) -> tuple[dict[str, Any], NDArray[np.intp]]:
    """Return the points that can be fitted, scaled, and their positions."""
    if not lightcurves:
        empty = np.zeros(0)
        none = np.zeros(0, np.int64)
        return {"time": empty, "band": none, "flux": empty, "error": empty}, none
    columns = {
        name: np.concatenate([getattr(lightcurve, name) for lightcurve in lightcurves])
        for name in ("mjd", "band", "flux", "fluxerr", "zp", "zpsys", "kind")
    }
    band = _band_index(columns["band"], coverage)
    good = coverage.covers(band, limits[owner]) & (columns["zpsys"] == "ab")
    good &= np.isfinite(columns["flux"]) & (columns["fluxerr"] > 0)
    good &= np.isin(columns["kind"], preset.kinds)
    keep = np.flatnonzero(good)
    scale = 10.0 ** (0.4 * (ZERO_POINT - columns["zp"][keep]))
    points = {
        "time": columns["mjd"][keep],
        "band": band[keep],
        "flux": columns["flux"][keep] * scale,
        "error": columns["fluxerr"][keep] * scale * preset.error_scale,
    }
    return points, keep


def _band_index(names: NDArray[np.str_], coverage: Coverage) -> NDArray[np.int64]:
    """Return the index of each band, -1 for one that is not known."""
    index = np.full(names.size, -1, np.int64)
    for i, band in enumerate(coverage.bands):
        index[names == band] = i
    return index


def _bounds(
    preset: Preset, limits: Array, owner: NDArray[np.intp], points: dict[str, Any]
) -> tuple[Array, Array]:
    """Return bounds (n, 5); a t0 of NaN where there is nothing to centre it on."""
    count = len(limits)
    low = np.tile([0.0, 0.0, -np.inf, preset.x1[0], preset.c[0]], (count, 1))
    high = np.tile([0.0, 0.0, np.inf, preset.x1[1], preset.c[1]], (count, 1))
    low[:, 0], high[:, 0] = limits.T
    centre = _first(owner, points, count) if preset.t0_at_first else _peak(owner, points, count)
    low[:, 1], high[:, 1] = centre - preset.t0_half_width, centre + preset.t0_half_width
    return low, high


def _peak(owner: NDArray[np.intp], points: dict[str, Any], count: int) -> Array:
    """Return the time of the brightest point with S/N >= 5, or of the best S/N."""
    snr = points["flux"] / points["error"]
    bright = np.where(snr >= MIN_SNR, points["flux"], -np.inf)
    order = np.lexsort((snr, bright, owner))
    centre = np.full(count, np.nan)
    centre[owner[order]] = points["time"][order]
    return centre


def _first(owner: NDArray[np.intp], points: dict[str, Any], count: int) -> Array:
    """Return the whole day of the first point with S/N >= 5."""
    significant = np.flatnonzero(points["flux"] / points["error"] >= MIN_SNR)[::-1]
    centre = np.full(count, np.nan)
    centre[owner[significant]] = np.floor(points["time"][significant])
    return centre


def _windows(
    phases: tuple[float, float],
    owner: NDArray[np.intp],
    points: dict[str, Any],
    low: Array,
    high: Array,
) -> tuple[Mask, Mask]:
    """Return which points any allowed t0 could use, and which serve a first fit."""
    begin, end = phases
    stretch = 1.0 + high[owner, 0]
    time = points["time"]
    stay = (time > low[owner, 1] + begin * stretch) & (time < high[owner, 1] + end * stretch)
    middle = 0.5 * (low[owner, 1] + high[owner, 1])
    return stay, time < middle + end * stretch


def _explain(
    failures: dict[int, ScienceError], owner: NDArray[np.intp], low: Array, count: int
) -> None:
    """Note why light curves without points or without a time cannot be fitted."""
    filled = np.bincount(owner, minlength=count) > 0
    for n in np.flatnonzero(~filled | np.isnan(low[:, 1])).tolist():
        reason = (
            f"no point reaches a signal-to-noise ratio of {MIN_SNR:g}"
            if filled[n]
            else "no point can be fitted: no known band, flux or kind of photometry"
        )
        failures.setdefault(n, ScienceError(reason))
