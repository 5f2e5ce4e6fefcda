"""The objects of one field in one night, and what every visit to them measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np

from broker.apps.simulator.cadence import Cadence, noise_of
from broker.apps.simulator.chance import Keys, key, normals, streams, uniform
from broker.apps.simulator.population import PERSISTENT, Parameters, Population
from broker.surveys.synthetic.columns import (
    LOOKS,
    SLOT_BITS,
    Bools,
    Epochs,
    Floats,
    Ints,
    Objects,
    Visits,
)

_MJD_OF_ORDINAL_ZERO = 678576
_SLOTS_A_DAY = 1 << SLOT_BITS - 9
_FIRST_PERSISTENT = 366 * _SLOTS_A_DAY
_PERSISTENT_YEAR = 2018
_THRESHOLD = 5.0
_FLOOR = 0.02
_TRIAL_FIELDS, _TRIAL_OBJECTS = 16, 400
_OBJECT_COLUMNS = ("redshift", "source_mag", "source_separation", "star_score")
_TRUTH_COLUMNS = ("z", "t0", "x0", "x1", "c", "period")


def mjd_of(night: date) -> int:
    """Return the MJD of a night's 0 h UTC."""
    return night.toordinal() - _MJD_OF_ORDINAL_ZERO


def _date_of(mjd: int) -> date:
    return date.fromordinal(mjd + _MJD_OF_ORDINAL_ZERO)


@dataclass(frozen=True, slots=True)
class Members:
    """Objects of one population that may be seen in a night, one row each.

    `visit` is the only visit in which a single one is seen, counted within the night; -1: all.
    `keys` gives the parameters, `own` the noise and the position.
    """

    keys: Keys
    own: Keys
    slot: Ints
    year: Ints
    born: Floats
    visit: Ints
    parameters: Parameters

    def select(self, mask: Bools) -> "Members":
        """Return the rows where `mask` holds."""
        parameters = {name: values[mask] for name, values in self.parameters.items()}
        names = ("keys", "own", "slot", "year", "born", "visit")
        return Members(**{name: getattr(self, name)[mask] for name in names}, parameters=parameters)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the visits to some objects of one population measure, one row an epoch."""

    epochs: Epochs
    objects: Objects
    flux_true: Floats
    truth: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class _Census:
    """Births: how many a population and night, and the first slot of each."""

    nights: Ints
    counts: Ints
    first: Ints

    def of(self, number: int, life: int) -> tuple[Ints, Ints, Ints]:
        """Return night of birth (0: always there), number within it, and slot of each object."""
        if life == PERSISTENT:
            index = np.arange(self.counts[number, 0])
            return np.zeros(index.size, np.int64), index, self.first[number, 0] + index
        counts, first = self.counts[number, -life:], self.first[number, -life:]
        begin = np.cumsum(counts) - counts
        index = np.arange(counts.sum()) - np.repeat(begin, counts)
        return np.repeat(self.nights[-life:], counts), index, np.repeat(first, counts) + index


@dataclass(frozen=True)
class Sky:
    """A simulated sky: a survey's cadence, the shares of populations, and a seed.

    Parameters
    ----------
    cadence : Cadence
    populations : sequence of Population
        Those of the mix.
    shares : sequence of float
        Share of each in the alerts.
    seed : int
        The same seed gives the same sky.
    """

    cadence: Cadence
    populations: tuple[Population, ...]
    shares: tuple[float, ...]
    seed: int

    @cached_property
    def rates(self) -> Floats:
        """Objects of each population a field: in all, or born each night."""
        return np.array(
            [
                self._rate(population, share)
                for population, share in zip(self.populations, self.shares, strict=True)
            ]
        )

    def _rate(self, population: Population, share: float) -> float:
        """Find by trial how many objects send the wanted share of a field's alerts."""
        alerts = np.mean([self._trial(population, field) for field in range(_TRIAL_FIELDS)])
        life = max(population.life_days, 1)
        return share * self.cadence.field_alerts / max(float(alerts), 0.01) / life

    def _trial(self, population: Population, field: int) -> float:
        """Return how many alerts an object sends on average in one night of some field."""
        cadence = self.cadence
        keys = key(99, field, np.arange(_TRIAL_OBJECTS))
        nights = np.arange(60000, 60000 + cadence.revisit_days)
        visits = cadence.visits_of(1, field, nights)
        age = np.floor(population.life_days * uniform(keys, 51))
        number = np.arange(keys.size)
        members = Members(
            keys=keys,
            own=keys,
            slot=number,
            year=number,
            born=np.floor(visits.mjd[0]) - age,
            visit=np.full(keys.size, -1),
            parameters=population.draw(keys, cadence),
        )
        detected = self._look(population, members, visits, field).epochs.detected
        turns = len(cadence.visits) if population.is_single else 1
        return float(detected.sum() / keys.size / turns)

    def field(self, field: int, night: int) -> tuple[Visits, list[tuple[Population, Seen]]]:
        """Return a field's visits, and the objects that send an alert in a night (its MJD)."""
        nights = np.arange(night - self.cadence.history_days, night + 1)
        visits = self.cadence.visits_of(self.seed, field, nights)
        tonight = visits.mjd >= night
        now, first = visits.select(tonight), int((~tonight).sum())
        census = self._census(field, night)
        found = []
        for number, population in enumerate(self.populations):
            members = self._members(number, field, census)
            glimpse = self._look(population, members, now, field, first)
            alerts = np.bincount(glimpse.epochs.object, glimpse.epochs.detected, len(members.keys))
            seen = members.select(alerts > 0)
            if len(seen.keys):
                whole = self._look(population, seen, visits, field)
                found.append((population, _with_alerts(whole, tonight)))
        return visits, found

    @cached_property
    def _lives(self) -> Ints:
        return np.array([one.life_days for one in self.populations])

    def _census(self, field: int, night: int) -> "_Census":
        """Count births of each population in all nights that matter, the last being tonight."""
        nights = np.arange(night - int(self._lives.max()) + 1, night + 1)
        number = np.arange(len(self.populations))[:, None]
        is_moving = np.array([[one.is_moving] for one in self.populations])
        turns = np.where(is_moving, len(self.cadence.visits), 1)
        # Those that stay, and the asteroids, are the same in all nights.
        constant = is_moving | (self._lives[:, None] == PERSISTENT)
        chance = uniform(self.seed, field, number, np.where(constant, 0, nights), 62)
        counts = (self.rates[:, None] / turns + chance).astype(np.int64) * turns
        stays = self._lives[:, None] == PERSISTENT
        day = np.array([_date_of(int(one)).timetuple().tm_yday - 1 for one in nights])
        slots = [np.cumsum(np.where(kind, counts, 0), axis=0) for kind in (stays, ~stays)]
        first = np.where(stays, slots[0] + _FIRST_PERSISTENT, slots[1] + day * _SLOTS_A_DAY)
        return _Census(nights, counts, first - counts)

    def _members(self, number: int, field: int, census: "_Census") -> Members:
        """List the objects of one population that are there in a night."""
        population = self.populations[number]
        born, index, slot = census.of(number, int(self._lives[number]))
        turns = len(self.cadence.visits)
        own = key(self.seed, field, number, born, index)
        visit = index % turns if population.is_single else np.full(index.size, -1)
        keys = key(self.seed, field, number, 7, index // turns) if population.is_moving else own
        years = np.array([_date_of(one).year for one in census.nights.tolist()], np.int64)
        is_new = born >= census.nights[0]
        year = np.where(is_new, years[np.maximum(born - census.nights[0], 0)], _PERSISTENT_YEAR)
        parameters = population.draw(keys, self.cadence)
        return Members(keys, own, slot, year, born.astype(np.float64), visit, parameters)

    def _look(
        self, population: Population, members: Members, visits: Visits, field: int, first: int = 0
    ) -> Seen:
        """Measure every object in every visit."""
        cadence, count, size = self.cadence, len(members.keys), len(visits.mjd)
        row, visit = np.repeat(np.arange(count), size), np.tile(np.arange(size), count)
        mjd, parameters = visits.mjd[visit], _at_birth(members)
        true = self._shine(population, parameters, row, mjd, visits.band[visit])
        true = np.where(mjd >= members.born[row], true, 0.0)
        if population.is_single:
            chosen = members.visit[row]
            is_then = visit - (size - len(cadence.visits)) == chosen
            true = np.where(is_then | (chosen < 0), true, 0.0)
        error = np.hypot(noise_of(visits.limit_mag[visit]), _FLOOR * np.abs(true))
        moment = key(members.own[row], np.round(mjd * 1e5).astype(np.int64))
        chance = streams(moment, 9)
        bumps = np.concatenate([normals(chance[0], chance[1]), normals(chance[2], chance[3])])
        flux = true + error * bumps[0]
        bright = np.abs(flux) < 10 ** (0.4 * (31.4 - cadence.saturation_mag))
        detected = (np.abs(flux) > _THRESHOLD * error) & bright & (true != 0)
        ra, dec = self._positions(members, field, row, mjd)
        wobble = cadence.position_error / 3600
        epochs = Epochs(
            object=row,
            visit=visit + first,
            flux=flux,
            flux_error=error,
            ra=ra + wobble * bumps[1] / np.cos(np.radians(dec)),
            dec=dec + wobble * bumps[2],
            reliability=_reliability(population, np.abs(flux / error), chance[4]),
            noise=chance[5:].T,
            detected=detected,
            alert=detected,
        )
        objects = self._objects(population, members, ra, dec, size)
        truth = {name: parameters[name] for name in _TRUTH_COLUMNS if name in parameters}
        return Seen(epochs, objects, true, truth)

    def _shine(
        self, population: Population, parameters: Parameters, row: Ints, mjd: Floats, band: Ints
    ) -> Floats:
        """Return the true difference flux of each epoch."""
        wavelength = np.array([one.wavelength for one in self.cadence.bands])[band]
        at = {name: values[row] for name, values in parameters.items()}
        at |= {"_row": row.astype(np.float64), "_band": band.astype(np.float64)}
        return population.change(at, mjd, wavelength)

    def _positions(
        self, members: Members, field: int, row: Ints, mjd: Floats
    ) -> tuple[Floats, Floats]:
        """Return true positions; moving ones leave the field on one side and enter opposite."""
        ra0, dec0 = self.cadence.centre(self.seed, field)
        x, y = uniform(members.keys, 81)[row], uniform(members.keys, 82)[row]
        side = self.cadence.side_deg
        if "rate_ra" in members.parameters:
            x = (x + members.parameters["rate_ra"][row] * (mjd - 60000) / side) % 1.0
            y = (y + members.parameters["rate_dec"][row] * (mjd - 60000) / side) % 1.0
        dec = dec0 + side * (y - 0.5)
        return np.asarray((ra0 + side * (x - 0.5) / np.cos(np.radians(dec0))) % 360.0), dec

    def _objects(
        self, population: Population, members: Members, ra: Floats, dec: Floats, size: int
    ) -> Objects:
        p = members.parameters
        numbers = (members.keys >> np.uint64(45)).astype(np.int64) + 1000
        return Objects(
            slot=members.slot,
            year=members.year,
            look=np.full(len(members.keys), LOOKS.index(population.look)),
            ra=ra[::size],
            dec=dec[::size],
            source_mag=p["source_mag"],
            source_separation=p["source_separation"],
            star_score=p["star_score"],
            redshift=p["redshift"],
            solar_system=numbers if population.is_moving else 0 * numbers,
        )


def _at_birth(members: Members) -> dict[str, Floats]:
    """Return parameters with times as MJD."""
    found = dict(members.parameters)
    if "t0" in found:
        found["t0"] = found["t0"] + members.born
    return found


def _reliability(population: Population, snr: Floats, chance: Floats) -> Floats:
    """Score detections: real ones high, the more so the brighter; artefacts mostly low."""
    if population.is_real:
        return np.asarray(1 - 0.6 * chance ** (1 + snr / 12))
    return np.asarray(0.75 * chance**1.6)


def _with_alerts(seen: Seen, tonight: Bools) -> Seen:
    epochs = seen.epochs
    values = {name: getattr(epochs, name) for name in Epochs.__slots__}
    values["alert"] = epochs.detected & tonight[epochs.visit]
    return Seen(Epochs(**values), seen.objects, seen.flux_true, seen.truth)
