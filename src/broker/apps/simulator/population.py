"""How sources of the simulated sky are drawn, and how they shine.

Light curves of supernovae of type Ia come from the SALT2 tables where these are at hand, all
others from parametric shapes. Amplitudes are drawn so that what a survey can see is seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from broker.apps.simulator import shapes
from broker.apps.simulator.cadence import Cadence
from broker.apps.simulator.chance import Keys, normal, uniform
from broker.apps.simulator.spectra import colour
from broker.surveys.synthetic.columns import Floats

Parameters = Mapping[str, Floats]
Draw = Callable[[Keys, Cadence], dict[str, Floats]]
Change = Callable[[Parameters, Floats, Floats], Floats]

PERSISTENT = 0
_AB_NJY = 31.4
_HUBBLE_MPC = 299792.458 / 70
_Q0_TERM = 0.775


@dataclass(frozen=True, slots=True)
class Population:
    """Sources of one class.

    Parameters
    ----------
    name, group : str
        Class, and what it belongs to: ``supernova``, ``transient``, ``variable``, ``nucleus``,
        ``moving`` or ``bogus``.
    look : str
        What its cutouts show.
    life_days : int
        How long it is there after its birth; `PERSISTENT` for ever.
    draw : callable
        Keys of objects to their parameters; times are days after birth.
    change : callable
        Parameters, MJD and wavelength of epochs to difference flux [nJy].
    is_single : bool
        Seen in one visit only.
    """

    name: str
    group: str
    look: str
    life_days: int
    draw: Draw
    change: Change
    is_single: bool = False

    @property
    def is_real(self) -> bool:
        """Whether there is anything in the sky."""
        return self.group != "bogus"

    @property
    def is_moving(self) -> bool:
        """Whether it is a solar-system object."""
        return self.group == "moving"


def njy(mag: Floats | float) -> Floats:
    """Return the flux of an AB magnitude."""
    return np.asarray(10 ** (0.4 * (_AB_NJY - np.asarray(mag))))


def between(low: float, high: float, *parts: object) -> Floats:
    """Return uniform random numbers between two values."""
    return low + (high - low) * uniform(*parts)


def modulus(z: Floats) -> Floats:
    """Return the distance modulus for H0 = 70 km/s/Mpc and q0 = -0.55, to second order."""
    return np.asarray(5 * np.log10(_HUBBLE_MPC * z * (1 + _Q0_TERM * z)) + 25)


# --- supernovae and other transients ----------------------------------------------------------


def _host(keys: Keys, z: Floats) -> dict[str, Floats]:
    """Place a galaxy beside a transient: faint with distance, extended, a few arcsec off."""
    return {
        "redshift": z,
        "source_mag": np.clip(modulus(z) - 19.5 + 1.3 * normal(keys, 31), 14, 26),
        "source_separation": np.exp(0.4 + 0.7 * normal(keys, 32)) * np.sqrt(0.08 / (z + 0.02)),
        "star_score": 0.45 * uniform(keys, 33),
    }


def draw_type_ia(keys: Keys, cadence: Cadence) -> dict[str, Floats]:
    """Draw z by volume, stretch, colour and brightness of type Ia supernovae.

    References
    ----------
    Betoule et al. 2014, A&A 568, A22, table 10 (alpha, beta, M_B); Scolnic & Kessler 2016,
    ApJ 822, L35 (shapes of the distributions of x1 and c, here simplified).
    """
    low, high = cadence.redshift
    z = (low**3 + (high**3 - low**3) * uniform(keys, 1)) ** (1 / 3)
    x1 = np.clip(normal(keys, 2), -2.5, 2.5)
    c = np.clip(-0.05 + 0.06 * normal(keys, 3) - 0.06 * np.log(1 - uniform(keys, 4)), -0.25, 0.4)
    mag = -19.31 - 0.14 * x1 + 3.1 * c + modulus(z) + 0.1 * normal(keys, 5)
    return _host(keys, z) | {
        "z": z,
        "t0": 19.0 * (1 + z),
        "x0": 10 ** (0.4 * (10.5 - mag)),
        "x1": x1,
        "c": c,
        "peak": njy(mag),
    }


def parametric_type_ia(p: Parameters, mjd: Floats, wavelength: Floats) -> Floats:
    """Return fluxes of type Ia supernovae where no SALT2 tables are at hand."""
    age = (mjd - p["t0"]) / (1 + p["z"]) / (1 + 0.09 * p["x1"])
    scale = {"rise": 3.2, "fall": 21.0, "plateau": 9.0, "slope": 0.035}
    shape = shapes.villar({name: np.full(mjd.shape, v) for name, v in scale.items()}, age + 9.0)
    heat = 5200 + 7000 / (1 + np.exp(np.clip(age / 8, -30, 30)))
    rest = wavelength / (1 + p["z"])
    reddened = 10 ** (-0.4 * 3.1 * p["c"] * (4400 / rest - 4400 / 6200))
    return np.asarray(1.15 * p["peak"] * shape * colour(rest, heat) * reddened)


def draw_parametric(absolute: tuple[float, float], **ranges: tuple[float, float]) -> Draw:
    """Make the draw of a class: absolute magnitude with scatter, and ranges of its shape."""

    def draw(keys: Keys, cadence: Cadence) -> dict[str, Floats]:
        brightness = absolute[0] + absolute[1] * normal(keys, 1)
        # Sources out to the depth of the survey, by volume.
        mag = cadence.faintest + 0.2 + np.log10(np.maximum(uniform(keys, 2), 1e-3)) / 0.6
        z = np.clip(10 ** ((mag - brightness - 25) / 5) / _HUBBLE_MPC, 0.001, 2.0)
        drawn = {
            name: between(*limits, keys, 40 + i) for i, (name, limits) in enumerate(ranges.items())
        }
        return _host(keys, z) | drawn | {"peak": njy(mag), "t0": 3 * drawn["rise"]}

    return draw


def transient_light(p: Parameters, mjd: Floats, wavelength: Floats) -> Floats:
    """Return fluxes of a cooling black body whose brightness rises and falls."""
    age = mjd - p["t0"]
    heat = p["cool"] + (p["hot"] - p["cool"]) * np.exp(-np.clip(age, 0, 400) / p["cooling"])
    return np.asarray(p["peak"] * shapes.villar(p, age) * colour(wavelength, heat))


def draw_stellar_burst(**ranges: tuple[float, float]) -> Draw:
    """Make the draw of an outburst of a faint star."""

    def draw(keys: Keys, cadence: Cadence) -> dict[str, Floats]:
        mag = cadence.faintest - 3.5 * uniform(keys, 2)
        drawn = {
            name: between(*limits, keys, 40 + i) for i, (name, limits) in enumerate(ranges.items())
        }
        star = _star(keys, mag + between(1.5, 4.0, keys, 3))
        return star | drawn | {"peak": njy(mag), "t0": 3 * drawn["rise"] + drawn["delay"]}

    return draw


# --- variables, nuclei ------------------------------------------------------------------------


def _star(keys: Keys, mag: Floats) -> dict[str, Floats]:
    return {
        "redshift": np.full(keys.shape, np.nan),
        "source_mag": mag,
        "source_separation": 0.05 + 0.25 * uniform(keys, 32),
        "star_score": between(0.8, 1.0, keys, 33),
    }


def draw_variable(
    change: tuple[float, float], period: tuple[float, float], heat: tuple[float, float]
) -> Draw:
    """Make the draw of a variable star: relative amplitude, period in days, temperature."""

    def draw(keys: Keys, cadence: Cadence) -> dict[str, Floats]:
        amplitude = between(*change, keys, 1)
        # Bright enough that half the amplitude is some way above the depth.
        seen = cadence.faintest - 4.0 * uniform(keys, 2) + 0.5
        mag = np.maximum(seen + 2.5 * np.log10(amplitude), cadence.saturation_mag + 1)
        low, high = np.log(period)
        return _star(keys, mag) | {
            "peak": njy(mag) * amplitude,
            "period": np.exp(between(float(low), float(high), keys, 3)),
            "phase": uniform(keys, 4),
            "skew": between(0.1, 0.5, keys, 5),
            "width": between(0.03, 0.09, keys, 6),
            "ratio": between(0.2, 0.95, keys, 7),
            "timescale": np.exp(between(float(low), float(high), keys, 3)),
            "seed": (keys >> np.uint64(12)).astype(np.float64),
            "heat": between(*heat, keys, 8),
        }

    return draw


def draw_nucleus(keys: Keys, cadence: Cadence) -> dict[str, Floats]:
    """Draw active nuclei, which vary slowly and have a redshift."""
    drawn = draw_variable((0.15, 0.5), (60.0, 600.0), (9000, 16000))(keys, cadence)
    z = between(0.05, 1.5, keys, 9)
    spot = {"source_separation": 0.05 + 0.3 * uniform(keys, 32), "star_score": uniform(keys, 33)}
    return drawn | spot | {"redshift": z}


def varying(shape: Callable[[Parameters, Floats], Floats]) -> Change:
    """Make the light curves of sources that change around their reference."""

    def change(p: Parameters, mjd: Floats, wavelength: Floats) -> Floats:
        return np.asarray(p["peak"] * shape(p, mjd) * colour(wavelength, p["heat"]))

    return change


# --- single visits ----------------------------------------------------------------------------


def _nowhere(keys: Keys) -> dict[str, Floats]:
    """Return the catalogued source that happens to be nearest to an empty place."""
    return {
        "redshift": np.full(keys.shape, np.nan),
        "source_mag": between(17, 22, keys, 31),
        "source_separation": between(2.5, 20, keys, 32),
        "star_score": uniform(keys, 33),
    }


def draw_asteroid(keys: Keys, cadence: Cadence) -> dict[str, Floats]:
    """Draw brightness, spin and motion of asteroids."""
    mag = np.maximum(cadence.faintest + 0.3 - 5 * uniform(keys, 1) ** 2, cadence.saturation_mag)
    return _nowhere(keys) | {
        "peak": njy(mag),
        "period": between(0.1, 0.6, keys, 2),
        "phase": uniform(keys, 3),
        "rate_ra": between(-0.28, 0.05, keys, 4),
        "rate_dec": between(-0.1, 0.1, keys, 5),
        "heat": np.full(keys.shape, 5600.0),
    }


def sunlight(p: Parameters, mjd: Floats, wavelength: Floats) -> Floats:
    """Return fluxes of spinning asteroids."""
    spin = 1 + 0.15 * np.cos(4 * np.pi * (mjd / p["period"] + p["phase"]))
    return np.asarray(p["peak"] * spin * colour(wavelength, p["heat"]))


def draw_dipole(keys: Keys, cadence: Cadence) -> dict[str, Floats]:
    """Draw bad subtractions of bright stars."""
    star = _star(keys, between(cadence.saturation_mag + 1, cadence.saturation_mag + 4, keys, 31))
    sign = np.where(uniform(keys, 2) < 0.45, -1.0, 1.0)
    mag = cadence.faintest - 0.5 - 3 * uniform(keys, 1)
    return star | {"peak": sign * njy(mag)}


def draw_cosmic_ray(keys: Keys, cadence: Cadence) -> dict[str, Floats]:
    """Draw cosmic rays."""
    return _nowhere(keys) | {"peak": njy(cadence.faintest - 0.5 - 3 * uniform(keys, 1))}


def artefact(p: Parameters, mjd: Floats, wavelength: Floats) -> Floats:
    """Return what an artefact is taken for."""
    return np.asarray(p["peak"] + 0 * mjd * wavelength)
