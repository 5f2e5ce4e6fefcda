"""How a survey looks at the sky, read from its own folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import yaml

from broker.apps.simulator.chance import key, normal, uniform
from broker.errors import UsageError
from broker.surveys import SURVEYS, Survey
from broker.surveys.synthetic.columns import Floats, Ints, PacketWriter, Visits

_SIGMAS = 5.0
_AB_NJY = 31.4


@dataclass(frozen=True, slots=True)
class Band:
    """One passband.

    Parameters
    ----------
    name, passband : str
        The survey's name, and that of the transmission curve.
    wavelength : float, Angstrom
        Effective wavelength.
    edges : tuple of float, Angstrom
        Where its transmission is half.
    limit_mag : float
        Five-sigma depth.
    seeing : float, arcsec
        Full width at half maximum.
    """

    name: str
    passband: str
    wavelength: float
    limit_mag: float
    seeing: float
    edges: tuple[float, float]

    @property
    def noise(self) -> float:
        """One standard deviation of the sky, in nJy."""
        return float(10 ** (0.4 * (_AB_NJY - self.limit_mag))) / _SIGMAS


@dataclass(frozen=True, slots=True)
class Profile:
    """A named load.

    Parameters
    ----------
    name, survey : str
        Names of the profile and of its survey.
    alerts : int
        Alerts of one visit.
    every_s, within_s : float
        Time between visits, and within which a visit's alerts arrive.
    about : str
        What it stands for.
    """

    name: str
    survey: str
    alerts: int
    every_s: float
    within_s: float
    about: str


@dataclass(frozen=True, slots=True)
class Cadence:
    """Times, depths and shares of a survey.

    Parameters
    ----------
    bands : tuple of Band
        In the order of increasing wavelength or any other.
    start, hours, between_visits : float
        Start of a night in days after 0 h UTC, its length in hours, time between visits in days.
    offset_days : float
        What the survey's own times are later than UTC at the start of an exposure.
    revisit_days : int
        Nights from one visit to a field to the next.
    visits : tuple of int
        Bands in which a field is seen in a night.
    limit_scatter, saturation_mag : float
        Spread of the depth, and the brightest magnitude.
    history_days : int
        How far back an alert's history goes.
    field_alerts : int
        About how many alerts a field sends in a night.
    side_deg : float
        Side of a field.
    dec_range, redshift : tuple of float
        Declinations of fields; redshifts of supernovae.
    position_error : float, arcsec
        Of one detection.
    mixes : mapping
        Name of a mix to the share of each population in the alerts.
    """

    bands: tuple[Band, ...]
    start: float
    hours: float
    between_visits: float
    offset_days: float
    revisit_days: int
    visits: tuple[int, ...]
    limit_scatter: float
    saturation_mag: float
    history_days: int
    field_alerts: int
    side_deg: float
    dec_range: tuple[float, float]
    redshift: tuple[float, float]
    position_error: float
    mixes: Mapping[str, Mapping[str, float]]

    @property
    def faintest(self) -> float:
        """Depth of the deepest band in use."""
        return max(self.bands[band].limit_mag for band in self.visits)

    def mix(self, name: str) -> Mapping[str, float]:
        """Return the shares of a mix.

        Raises
        ------
        UsageError
            If there is none of that name.
        """
        if name not in self.mixes:
            raise UsageError(f"there is no mix {name!r}; there are: {', '.join(self.mixes)}")
        return self.mixes[name]

    def is_visited(self, seed: int, field: int, night: int) -> bool:
        """Tell whether a field is seen in a night (its MJD)."""
        turn = int(key(seed, field, 11) % np.uint64(self.revisit_days))
        return (night + turn) % self.revisit_days == 0

    def visits_of(self, seed: int, field: int, nights: Ints) -> Visits:
        """Return the images of a field in some nights, in order of time."""
        seen = nights[[self.is_visited(seed, field, int(night)) for night in nights]]
        night = np.repeat(seen, len(self.visits))
        turn = np.tile(np.arange(len(self.visits)), len(seen))
        room = self.hours / 24 - len(self.visits) * self.between_visits
        begin = uniform(seed, field, night, 12) * max(room, 0.0)
        band = self._bands_of(seed, field, night, turn)
        scatter = normal(seed, field, night, turn, 13)
        depth = np.array([one.limit_mag for one in self.bands])[band]
        blur = np.array([one.seeing for one in self.bands])[band]
        return Visits(
            mjd=night + self.start + begin + turn * self.between_visits,
            band=band,
            limit_mag=depth + self.limit_scatter * scatter,
            seeing=blur * (1.0 - 0.1 * scatter),
        )

    def _bands_of(self, seed: int, field: int, night: Ints, turn: Ints) -> Ints:
        """Two of a night's three visits are in the usual bands, in turn; rarely in another."""
        usual = np.array(self.visits)[turn]
        other = (uniform(seed, field, night, turn, 14) * len(self.bands)).astype(np.int64)
        return np.asarray(np.where(uniform(seed, field, night, turn, 15) < 0.06, other, usual))

    def centre(self, seed: int, field: int) -> tuple[float, float]:
        """Return the position of a field, by area."""
        low, high = np.sin(np.radians(self.dec_range))
        dec = np.degrees(np.arcsin(low + (high - low) * float(uniform(seed, field, 17))))
        return 360.0 * float(uniform(seed, field, 16)), float(dec)


def noise_of(limit_mag: Floats) -> Floats:
    """Return one standard deviation in nJy of images with a five-sigma depth."""
    return np.asarray(10 ** (0.4 * (_AB_NJY - limit_mag)) / _SIGMAS)


@cache
def cadence_of(survey: Survey) -> Cadence:
    """Read how a survey looks at the sky.

    Raises
    ------
    UsageError
        If the survey cannot be simulated.
    """
    words = _words(survey)
    time, field = words["time"], words["field"]
    return Cadence(
        bands=tuple(Band(**band) for band in words["bands"]),
        start=time["start"],
        hours=time["hours"],
        between_visits=time["between_visits"],
        offset_days=time["offset_s"] / 86400,
        revisit_days=words["revisit_days"],
        visits=tuple(words["visits"]),
        limit_scatter=words["limit_scatter"],
        saturation_mag=words["saturation_mag"],
        history_days=words["history_days"],
        field_alerts=field["alerts"],
        side_deg=field["side_deg"],
        dec_range=tuple(field["dec"]),
        redshift=tuple(words["redshift"]),
        position_error=words["position_error_arcsec"],
        mixes=words["mixes"],
    )


def _words(survey: Survey) -> dict[str, Any]:
    file = survey.folder / "cadence.yaml"
    if not file.exists():
        known = ", ".join(sorted(name for name, one in SURVEYS.items() if can_simulate(one)))
        raise UsageError(f"{survey.name} alerts cannot be simulated; those of {known} can")
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def can_simulate(survey: Survey) -> bool:
    """Tell whether a survey has what a simulation needs."""
    return (survey.folder / "cadence.yaml").exists()


def packet_writer(survey: Survey) -> PacketWriter:
    """Return what writes a survey's packets.

    Raises
    ------
    UsageError
        If the survey cannot be simulated.
    """
    name = f"broker.surveys.{survey.name}.packets"
    if find_spec(name) is None:
        raise UsageError(f"nothing writes packets of {survey.name}")
    writer: PacketWriter = import_module(name).write_packets
    return writer


def profiles() -> dict[str, Profile]:
    """Return the named loads of all surveys."""
    found = {}
    for survey in SURVEYS.values():
        if can_simulate(survey):
            for name, load in _words(survey)["profiles"].items():
                found[name] = Profile(name=name, survey=survey.name, **load)
    return found


def named_rates() -> dict[str, tuple[float, str]]:
    """Return the named rates of all surveys' streams as number and unit."""
    found: dict[str, tuple[float, str]] = {}
    for survey in SURVEYS.values():
        if can_simulate(survey):
            rates = _words(survey).get("rates", {})
            found |= {name: (rate[0], rate[1]) for name, rate in rates.items()}
    return found
