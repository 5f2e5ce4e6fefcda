"""Simulated LSST packets, from columns: numbered frames of schema 11.1.

Fluxes are signed, times are TAI at mid-exposure, moving objects have an ``ssSource`` and an orbit
but no ``diaObject``, and each cutout is plain FITS of three units: image, variance and PSF.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from broker.surveys.synthetic.columns import LOOKS, FieldNight, Floats, Ints, Packed, spans
from broker.surveys.synthetic.encoder import Column, RecordEncoder, Texts, take, varint
from broker.surveys.synthetic.stamps import StampPool, StampStyle, fits_unit

_SCHEMA = Path(__file__).parent / "schemas" / "v11_1.json"
_FRAME = b"\0" + struct.pack(">I", 1101)
_NULL, _SOME = b"\x00", b"\x02"
_PROCESSING_DAYS = 60 / 86400
_MJD_OF_ORDINAL_ZERO = 678576

_FLAGS = (
    "apFlux_flag", "apFlux_flag_apertureTruncated", "psfFlux_flag", "psfFlux_flag_edge",
    "psfFlux_flag_noGoodPixels", "centroid_flag", "forced_PsfFlux_flag",
    "forced_PsfFlux_flag_edge", "forced_PsfFlux_flag_noGoodPixels", "shape_flag",
    "shape_flag_no_pixels", "shape_flag_not_contained", "shape_flag_parent_source", "pixelFlags",
    "pixelFlags_bad", "pixelFlags_edge", "pixelFlags_nodata",
    "pixelFlags_nodataCenter", "pixelFlags_interpolated", "pixelFlags_interpolatedCenter",
    "pixelFlags_offimage", "pixelFlags_saturated", "pixelFlags_saturatedCenter",
    "pixelFlags_suspect", "pixelFlags_suspectCenter", "pixelFlags_streak",
    "pixelFlags_streakCenter", "pixelFlags_injected", "pixelFlags_injectedCenter",
    "pixelFlags_injected_template", "pixelFlags_injected_templateCenter", "glint_trail",
    "trail_flag_edge", "trail_flag",
)  # fmt: skip
_SOURCE: Mapping[str, Any] = {
    **dict.fromkeys(_FLAGS, False),
    "exposureTime": 30.0,
    "parentDiaSourceId": 0,
    "psfNdata": 1681,
    "psfChi2": 1700.0,
    "trailNdata": 961,
    "dipoleNdata": 1681,
    "bboxSize": 31,
    "reliabilityVersion": "simulated",
    "xErr": 0.1,
    "yErr": 0.1,
    "ixxPSF": 3.1,
    "iyyPSF": 3.1,
    "ixyPSF": 0.02,
    "dipoleFitAttempted": True,
}
_ORBIT: Mapping[str, Any] = {
    "id": 0,
    "created_at": 0,
    "updated_at": 0,
    "orbit_type_int": 10,
    "u_param": 0,
    "nobs_total": 412,
    "mpc_orb_jsonb": '{"CAR": {}, "COM": {}}',
    "epoch_mjd": 61000.0,
    "h": 18.0,
    "g": 0.15,
    "packed_primary_provisional_designation": "SIM",
    "unpacked_primary_provisional_designation": "SIM",
}
_POOL_VARIANTS = 5
_DIPOLE, _SPOT = LOOKS.index("dipole"), LOOKS.index("spot")

_Pieces = tuple[bytes | memoryview, ...]


def write_packets(night: FieldNight) -> Packed:
    """Write a numbered frame for each epoch of a field that sends an alert."""
    columns = _Columns(night)
    alerts = np.flatnonzero(night.epochs.alert)
    row = night.epochs.object[alerts]
    keys = _POOL.keys(night.objects.look[row], columns.snr[alerts], night.epochs.noise[alerts, 0])
    parts = zip(
        columns.source_ids[alerts].tolist(),
        _histories(night, columns, alerts),
        _about(columns, alerts, row),
        keys,
        strict=True,
    )
    payloads = [
        b"".join((_FRAME, varint(source_id), _TARGET, *history, *about, *_cutouts(key)))
        for source_id, history, about, key in parts
    ]
    names = [str(name) for name in columns.object_ids[row].tolist()]
    return Packed(payloads, names, columns.source_ids[alerts])


def _histories(night: FieldNight, columns: "_Columns", alerts: Ints) -> Iterator[_Pieces]:
    """Yield each detection with the ones before it, and forced photometry."""
    encoders, seen = _encoders(), np.flatnonzero(night.epochs.detected)
    sources = encoders["diaSource"].encode(columns.sources(seen))
    forced = encoders["diaForcedSource"].encode(columns.forced())
    row, (first, _) = night.epochs.object[alerts], spans(night.epochs)
    place = np.searchsorted(seen, alerts).tolist()
    begin = np.searchsorted(seen, first)[row].tolist()
    forced_spans = zip(first[row].tolist(), columns.before_tonight()[row].tolist(), strict=True)
    moving = columns.is_moving[row].tolist()
    for at, start, (low, high), moves in zip(place, begin, forced_spans, moving, strict=True):
        source = sources.span(at, at + 1)
        if moves:
            yield source, _NULL, _NULL
        else:
            yield source, _array(sources, start, at), _array(forced, low, high)


def _about(columns: "_Columns", alerts: Ints, row: Ints) -> Iterator[_Pieces]:
    """Yield the object, or for a solar-system object where it was expected, and its orbit."""
    encoders = _encoders()
    objects = encoders["diaObject"].encode(columns.objects(alerts))
    expected = encoders["ssSource"].encode(columns.solar_system(alerts))
    orbits = encoders["mpc_orbits"].encode(columns.orbits(alerts))
    for number, moves in enumerate(columns.is_moving[row].tolist()):
        if moves:
            one = expected.span(number, number + 1)
            yield _NULL, _SOME, one, _SOME, orbits.span(number, number + 1)
        else:
            yield _SOME, objects.span(number, number + 1), _NULL, _NULL


def _target() -> bytes:
    """Return why and at what the telescope looked."""
    reason, target = b"ddf_simulated", b"lowdust, ddf_simulated"
    return b"".join(_SOME + varint(len(text)) + text for text in (reason, target))


_TARGET = _target()


def _array(records: Any, begin: int, end: int) -> bytes:
    """Return a nullable array of records `begin` up to `end`."""
    if begin >= end:
        return _SOME + b"\x00"
    return b"".join((_SOME, varint(end - begin), records.span(begin, end), b"\x00"))


def _cutouts(key: int) -> tuple[bytes, ...]:
    science, template, difference = _POOL.triplet(key)
    return difference, science, template


@cache
def _encoders() -> dict[str, RecordEncoder]:
    found: dict[str, Any] = {}
    for field in json.loads(_SCHEMA.read_text())["fields"]:
        for branch in field["type"] if isinstance(field["type"], list) else [field["type"]]:
            record = branch.get("items", branch) if isinstance(branch, dict) else {}
            if isinstance(record, dict) and record.get("type") == "record":
                found[record["name"].rsplit(".", 1)[-1]] = record
    constants = {"diaSource": _SOURCE, "mpc_orbits": _ORBIT}
    return {name: RecordEncoder(one, constants.get(name)) for name, one in found.items()}


def _pack_image(image: Floats) -> bytes:
    """Write image, variance and PSF, with the mark of a nullable field and the length."""
    data = b"".join(
        (
            fits_unit(image, "f4", ("BUNIT   = 'nJy     '",), primary=True),
            fits_unit(np.full(image.shape, 64.0), "f4", ("EXTNAME = 'UNCERT  '",), primary=False),
            fits_unit(_psf(), "f8", ("EXTNAME = 'PSFIMAGE'",), primary=False),
        )
    )
    return _SOME + varint(len(data)) + data


@cache
def _psf() -> Floats:
    y, x = np.mgrid[:41, :41] - 20
    image = np.exp(-(x**2 + y**2) / (2 * 1.75**2))
    return np.asarray(image / image.sum())


_POOL = StampPool(StampStyle(48, 4.2, _POOL_VARIANTS, _pack_image))


class _Columns:
    """Fields of a night's records, one value an epoch or an object."""

    def __init__(self, night: FieldNight) -> None:
        self._night = night
        epochs, objects, visits = night.epochs, night.objects, night.visits
        self._visit, self._row = epochs.visit, epochs.object
        self._mjd = visits.mjd + night.time_offset
        self.source_ids = night.source_numbers()
        self.snr = epochs.flux / epochs.flux_error
        self.is_moving = objects.solar_system > 0
        number = (objects.year - 2000) * 10**15 + night.field * 10**7 + objects.slot
        self.object_ids = np.where(
            self.is_moving, 20_000_000_000_000_000 + objects.solar_system, 10**17 + number
        )
        days = visits.mjd.astype(np.int64) + _MJD_OF_ORDINAL_ZERO
        self._visit_ids = days * 10**7 + night.time_slots % 10**5
        self._bands = Texts(night.bands, visits.band[self._visit])
        self._reference = 10 ** (0.4 * (31.4 - objects.source_mag))[self._row]

    def sources(self, rows: Ints) -> dict[str, Column]:
        """Return the detections."""
        epochs, noise = self._night.epochs, self._night.epochs.noise
        error, time = epochs.flux_error, self._mjd[self._visit]
        moving = self.is_moving[self._row]
        position = 0.1 / 3600 / np.maximum(np.abs(self.snr), 1)
        columns: dict[str, Column] = {
            **self._shape(),
            "diaSourceId": self.source_ids,
            "visit": self._visit_ids[self._visit],
            "detector": np.full(len(self._row), self._night.field % 189),
            "diaObjectId": np.where(moving, 0, self.object_ids[self._row]),
            "ssObjectId": np.where(moving, self.object_ids[self._row], 0),
            "midpointMjdTai": time,
            "ra": epochs.ra,
            "raErr": position,
            "dec": epochs.dec,
            "decErr": position,
            "x": 4000 * noise[:, 1],
            "y": 4000 * noise[:, 2],
            "apFlux": epochs.flux + error * (noise[:, 3] - 0.5),
            "apFluxErr": 1.6 * error,
            "isNegative": epochs.flux < 0,
            "snr": np.abs(self.snr),
            "psfFlux": epochs.flux,
            "psfFluxErr": error,
            "psfLnL": -850 - 40 * noise[:, 0],
            "scienceFlux": self._reference + epochs.flux,
            "scienceFluxErr": error,
            "templateFlux": self._reference,
            "templateFluxErr": 0.3 * error,
            "reliability": epochs.reliability,
            "band": self._bands,
            "timeProcessedMjdTai": time + _PROCESSING_DAYS,
        }
        return take(columns, rows)

    def _shape(self) -> dict[str, Column]:
        """Return what tells a star from an artefact."""
        noise, look = self._night.epochs.noise, self._night.objects.look[self._row]
        return {
            "ixx": 3 + noise[:, 1],
            "iyy": 3 + noise[:, 2],
            "ixy": 0.2 * (noise[:, 3] - 0.5),
            "extendedness": np.where(look == LOOKS.index("transient"), 0.2, 0.0),
            "isDipole": look == _DIPOLE,
            "dipoleLength": np.where(look == _DIPOLE, 0.9, np.nan),
            "pixelFlags_cr": look == _SPOT,
            "pixelFlags_crCenter": look == _SPOT,
        }

    def forced(self) -> dict[str, Column]:
        """Return forced photometry of all visits, detections or not."""
        epochs, time = self._night.epochs, self._mjd[self._visit]
        return {
            "diaForcedSourceId": self.source_ids + 1,
            "diaObjectId": self.object_ids[self._row],
            "ra": self._night.objects.ra[self._row],
            "dec": self._night.objects.dec[self._row],
            "visit": self._visit_ids[self._visit],
            "detector": np.full(len(self._row), self._night.field % 189),
            "psfFlux": epochs.flux,
            "psfFluxErr": epochs.flux_error,
            "midpointMjdTai": time,
            "scienceFlux": self._reference + epochs.flux,
            "scienceFluxErr": epochs.flux_error,
            "band": self._bands,
            "timeProcessedMjdTai": time + _PROCESSING_DAYS,
        }

    def before_tonight(self) -> Ints:
        """Return one past the last epoch of the nights before, for each object.

        A packet carries forced photometry only of objects that were found before.
        """
        tonight = self._night.visits.mjd >= self._night.night
        first, end = spans(self._night.epochs)
        detected_before = self._night.epochs.detected & ~tonight[self._visit]
        known = np.bincount(self._row, detected_before, first.size) > 0
        return np.asarray(np.where(known, end - int(tonight.sum()), first))

    def objects(self, alerts: Ints) -> dict[str, Column]:
        """Return what the detections of an object up to each alert tell together."""
        row, time = self._row[alerts], self._mjd[self._visit]
        objects, detected = self._night.objects, self._night.epochs.detected
        first, _ = spans(self._night.epochs)
        seen: Ints = np.cumsum(detected)
        before: Ints = seen[first] - detected[first]
        start = np.minimum.reduceat(np.where(detected, time, np.inf), first)[row]
        columns: dict[str, Column] = {
            "diaObjectId": self.object_ids[row],
            "validityStartMjdTai": time[alerts] + _PROCESSING_DAYS,
            "ra": objects.ra[row],
            "dec": objects.dec[row],
            "raErr": np.full(row.size, 5e-6),
            "decErr": np.full(row.size, 5e-6),
            "firstDiaSourceMjdTai": start,
            "lastDiaSourceMjdTai": time[alerts],
            "nDiaSources": (seen[alerts] - before[row]).astype(np.int64),
        }
        for number, name in enumerate(self._night.bands):
            columns |= self._statistics(name, number, alerts)
        return columns

    def _statistics(self, band: str, number: int, alerts: Ints) -> dict[str, Column]:
        """Return number, mean, spread and range of the fluxes in one band so far."""
        epochs, row = self._night.epochs, self._row[alerts]
        chosen = epochs.detected & (self._night.visits.band[self._visit] == number)
        count = self._running(chosen.astype(np.float64), alerts)
        total = self._running(np.where(chosen, epochs.flux, 0.0), alerts)
        square = self._running(np.where(chosen, epochs.flux**2, 0.0), alerts)
        some = np.where(count > 0, count, np.nan)
        mean = total / some
        reference = 10 ** (0.4 * (31.4 - self._night.objects.source_mag))[row]
        spread = np.sqrt(np.maximum(square / some - mean**2, 0))
        return {
            f"{band}_psfFluxNdata": count.astype(np.int64),
            f"{band}_psfFluxMean": mean,
            f"{band}_psfFluxMeanErr": spread / np.sqrt(some),
            f"{band}_psfFluxSigma": np.where(count > 1, spread, np.nan),
            f"{band}_scienceFluxMean": mean + reference,
        }

    def _running(self, values: Floats, alerts: Ints) -> Floats:
        """Return sums over an object's epochs up to each alert."""
        first, _ = spans(self._night.epochs)
        sums = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray(sums[alerts + 1] - sums[first[self._row[alerts]]])

    def solar_system(self, alerts: Ints) -> dict[str, Column]:
        """Return where a known solar-system object was expected."""
        row, noise = self._row[alerts], self._night.epochs.noise[alerts]
        ra, dec = self._night.epochs.ra[alerts], self._night.epochs.dec[alerts]
        names = [f"SIM {number}" for number in self._night.objects.solar_system.tolist()]
        return {
            "diaSourceId": self.source_ids[alerts],
            "ssObjectId": self.object_ids[row],
            "designation": Texts(names, row),
            "eclLambda": ra,
            "eclBeta": 0.3 * dec,
            "galLon": ra,
            "galLat": dec,
            "ephRa": ra,
            "ephDec": dec,
            "ephOffset": 0.05 + 0.2 * noise[:, 0],
            "ephRate": 0.05 + 0.2 * noise[:, 1],
            "topoRange": 1.0 + 2 * noise[:, 2],
            "helioRange": 2.0 + 2 * noise[:, 2],
            "phaseAngle": 25 * noise[:, 3],
            "diaDistanceRank": np.ones(row.size, np.int64),
        }

    def orbits(self, alerts: Ints) -> dict[str, Column]:
        """Return the orbits of solar-system objects."""
        row, numbers = self._row[alerts], self._night.objects.solar_system
        names = [f"SIM {number}" for number in numbers.tolist()]
        spread = (numbers % 997 / 997)[row]
        return {
            "designation": Texts(names, row),
            "a": 2.2 + spread,
            "q": 1.9 + 0.8 * spread,
            "e": 0.05 + 0.2 * spread,
            "i": 20 * spread,
            "node": 360 * spread,
            "argperi": 360 * (1 - spread),
        }
