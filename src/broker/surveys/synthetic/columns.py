"""Simulated detections as columns: what a survey's packet writer gets, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LOOKS = ("transient", "star", "nucleus", "moving", "dipole", "spot")
"""What a cutout shows: light beside a galaxy, a changing star or nucleus, an asteroid without
template, a bad subtraction, and a cosmic ray."""

SLOT_BITS = 18
"""A field has room for this many bits of object numbers."""


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of one field that send alerts in a night, one row each.

    Attributes
    ----------
    slot : int64
        Number within the field, below ``2 ** SLOT_BITS``.
    year : int64
        Year in which the object was first there.
    look : int64
        Index into `LOOKS`.
    ra, dec : float64, deg
        Mean position.
    source_mag, source_separation, star_score : float64
        Nearest catalogued source: AB magnitude, distance in arcsec, and 0 (galaxy) to 1 (star).
    redshift : float64
        NaN where it has none.
    solar_system : int64
        Number of a solar-system object; 0 for others.
    """

    slot: Ints
    year: Ints
    look: Ints
    ra: Floats
    dec: Floats
    source_mag: Floats
    source_separation: Floats
    star_score: Floats
    redshift: Floats
    solar_system: Ints


@dataclass(frozen=True, slots=True)
class Epochs:
    """Every visit to every object of a field, in order of object, then time.

    Attributes
    ----------
    object : int64
        Row of the object.
    visit : int64
        Row of the visit.
    flux, flux_error : float64, nJy
        Measured difference flux.
    ra, dec : float64, deg
        Measured position.
    reliability : float64
        Score of being real, 0 to 1.
    noise : float64, shape (epochs, 4)
        Uniform random numbers for whatever else a packet tells.
    detected, alert : bool
        Above the threshold; and sends an alert in this night.
    """

    object: Ints
    visit: Ints
    flux: Floats
    flux_error: Floats
    ra: Floats
    dec: Floats
    reliability: Floats
    noise: Floats
    detected: Bools
    alert: Bools


@dataclass(frozen=True, slots=True)
class Visits:
    """Images of a field in order of time.

    Attributes
    ----------
    mjd : float64, d
        Start of the exposure (UTC).
    band : int64
        Row in the survey's list of bands.
    limit_mag : float64
        Five-sigma depth.
    seeing : float64, arcsec
        Full width at half maximum.
    """

    mjd: Floats
    band: Ints
    limit_mag: Floats
    seeing: Floats

    def select(self, mask: Bools) -> "Visits":
        """Return the visits where `mask` holds."""
        return Visits(*(getattr(self, name)[mask] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class FieldNight:
    """Everything that one field sends in one night.

    Attributes
    ----------
    field, night : int
        Number of the field, and MJD of the night.
    time_offset : float, d
        What the survey's own times are later than UTC at the start of an exposure.
    bands : tuple of str
        The survey's names of its bands.
    """

    field: int
    night: int
    time_offset: float
    bands: tuple[str, ...]
    visits: Visits
    objects: Objects
    epochs: Epochs

    @property
    def time_slots(self) -> Ints:
        """Start of each visit in units of 1e-5 d: nine digits."""
        return np.floor((self.visits.mjd - _DAY_ZERO_MJD) * 1e5).astype(np.int64)

    def source_numbers(self) -> Ints:
        """Return a number of 18 or 19 digits for each epoch, unique over all fields and nights."""
        at = self.time_slots[self.epochs.visit] * 10**10
        return at + self.field * (1 << SLOT_BITS) + self.objects.slot[self.epochs.object]


_DAY_ZERO_MJD = 57754.0
MOST_FIELDS = 10**10 >> SLOT_BITS
"""Fields whose detections have numbers of their own."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Packets of a field, one for each epoch that sends an alert, in the same order."""

    payloads: Sequence[bytes]
    object_ids: Sequence[str]
    source_ids: Ints


PacketWriter = Callable[[FieldNight], Packed]


def spans(epochs: Epochs) -> tuple[Ints, Ints]:
    """Return the first epoch of each object, and one past its last."""
    count = int(epochs.object[-1]) + 1 if len(epochs.object) else 0
    rows = np.arange(count)
    first = np.searchsorted(epochs.object, rows, side="left")
    return first.astype(np.int64), np.searchsorted(epochs.object, rows, side="right")
