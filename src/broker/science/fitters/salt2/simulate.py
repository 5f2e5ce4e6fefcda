"""Simulated light curves of type Ia supernovae, on the same tables as the fast engine."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.alerts.lightcurve import LightCurve
from broker.science.fitters.salt2 import kernel
from broker.science.fitters.salt2.engine import expand
from broker.science.fitters.salt2.kernel import Model
from broker.science.fitters.salt2.tables import ZERO_POINT, SourceTables

Array = NDArray[np.float64]

PEAK_MAG = -19.31
"""B-band peak magnitude of a supernova with x1 = c = 0 (Betoule et al. 2014)."""

ALPHA, COLOUR_SLOPE = 0.14, 3.1
"""Stretch and colour corrections (Betoule et al. 2014, table 10)."""

SALT_OFFSET = 10.5
"""Peak B magnitude of x0 = 1: m_B = 10.5 - 2.5 log10 x0 (Mosher et al. 2014, equation 2)."""

_COLOURS = (-0.3, 0.8)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How simulated supernovae are observed.

    Parameters
    ----------
    bands : tuple of str
        Passbands, visited in turn.
    cadence : float, days
        Mean time between visits.
    phases : tuple of float, rest-frame days
        First and last phase of a full light curve.
    limit_mag : float
        Five-sigma depth of a visit.
    floor : float
        Relative flux error of bright points.
    threshold : float
        Points below so many standard deviations are not seen.
    z : tuple of float
        Redshifts are drawn within it, by volume.
    """

    bands: tuple[str, ...]
    cadence: float = 2.0
    phases: tuple[float, float] = (-14.0, 40.0)
    limit_mag: float = 20.5
    floor: float = 0.02
    threshold: float = 3.0
    z: tuple[float, float] = (0.01, 0.1)


@dataclass(frozen=True, slots=True)
class Simulated:
    """A light curve and the parameters (z, t0, x0, x1, c) that it was made with."""

    lightcurve: LightCurve
    truth: Array


def simulate(
    tables: SourceTables, sampling: Sampling, count: int, rng: np.random.Generator
) -> list[Simulated]:
    """Draw supernovae and observe them.

    Parameters
    ----------
    tables : SourceTables
        The model.
    sampling : Sampling
        Visits and noise.
    count : int
        How many light curves of at least five detections.
    rng : numpy.random.Generator
        Source of all randomness.
    """
    model = expand(tables, _COLOURS)
    made: list[Simulated] = []
    for number in range(50 * count):
        if len(made) == count:
            break
        truth = _draw(sampling, rng)
        lightcurve = _observe(tables, model, sampling, truth, rng, number)
        if lightcurve.mjd.size >= 5:
            made.append(Simulated(lightcurve, truth))
    return made


def packet(full: LightCurve, rng: np.random.Generator, days: float = 30.0) -> LightCurve:
    """Cut a light curve to what one alert carries: a random epoch and `days` before it.

    Parameters
    ----------
    full : LightCurve
        At least five points.
    rng : numpy.random.Generator
        Chooses the epoch; five points are kept where there are that many.
    days : float
        Length of an alert's history.
    """
    last = full.mjd[rng.integers(4, full.mjd.size)]
    keep = (full.mjd <= last) & (full.mjd > last - days)
    if keep.sum() < 5:
        keep = np.arange(full.mjd.size) < 5
    return full.select(keep)


def _draw(sampling: Sampling, rng: np.random.Generator) -> Array:
    low, high = sampling.z
    z = (low**3 + (high**3 - low**3) * rng.random()) ** (1 / 3)
    x1 = np.clip(rng.normal(0.0, 1.0), -3, 3)
    c = np.clip(rng.normal(-0.05, 0.07) + rng.exponential(0.08), *_COLOURS)
    modulus = 5 * np.log10(_distance_mpc(z)) + 25
    mag = PEAK_MAG - ALPHA * x1 + COLOUR_SLOPE * c + modulus + rng.normal(0.0, 0.1)
    return np.array([z, 59000 + 300 * rng.random(), 10 ** (0.4 * (SALT_OFFSET - mag)), x1, c])


def _distance_mpc(z: float) -> float:
    """Luminosity distance to second order for H0 = 70 km/s/Mpc and q0 = -0.55."""
    return 299792.458 / 70 * z * (1 + 0.5 * 1.55 * z)


def _observe(
    tables: SourceTables,
    model: Model,
    sampling: Sampling,
    truth: Array,
    rng: np.random.Generator,
    number: int,
) -> LightCurve:
    begin, end = (truth[1] + phase * (1 + truth[0]) for phase in sampling.phases)
    time = np.arange(begin, end, sampling.cadence)
    time = np.sort(time + rng.uniform(-0.3, 0.3, time.size))
    time = time[(time > begin) & (time < end)]
    names = np.array(sampling.bands)[rng.integers(0, len(sampling.bands), time.size)]
    band = np.array([tables.coverage.bands.index(name) for name in names.tolist()], np.int64)
    flux = np.empty(time.size)
    kernel.model_flux(truth, time, band, model, flux)
    sky = 10 ** (0.4 * (ZERO_POINT - sampling.limit_mag)) / 5
    error = np.hypot(sky, sampling.floor * np.abs(flux))
    flux = flux + rng.normal(0.0, error)
    seen = LightCurve.of_detections(f"SIM{number:06d}", number, time, names, flux, error)
    return seen.select(flux > sampling.threshold * error)
