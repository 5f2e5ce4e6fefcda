"""Simulated ZTF packets, from columns: containers of schema 4.02 with all that real ones have.

The quirks are those measured on real alerts: -999 and the text ``null`` for what is missing,
non-detections as history, forced photometry in no order and partly -99999, magnitudes of the
absolute difference with a sign of their own, and now and then a cutout of 63 x 60 pixels.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from broker.surveys.synthetic.columns import LOOKS, Bools, FieldNight, Floats, Ints, Packed, spans
from broker.surveys.synthetic.encoder import (
    NULL_INT,
    Column,
    RecordEncoder,
    Records,
    Texts,
    take,
    varint,
)
from broker.surveys.synthetic.stamps import StampPool, StampStyle, fits_unit, gzipped

_SCHEMA = Path(__file__).parent / "schemas" / "4.02.json"
_SYNC = bytes(range(16))
_JD_OF_MJD_ZERO = 2400000.5
_NIGHT_ZERO_MJD = 57754.0
_AB_NJY = 31.4
_MISSING, _MISSING_FORCED = -999.0, -99999.0
_FAILED_FORCED = 0.12
_PIXEL_ARCSEC = 1.01
_ZERO_POINT = 26.2
_FID = {"g": 1, "r": 2, "i": 3}
_NEAR_ASTEROID_ARCSEC = 1.0
_BAD_PIXELS_BELOW = 0.3
_DIPOLE, _SPOT = LOOKS.index("dipole"), LOOKS.index("spot")

_COMMON: Mapping[str, Any] = {
    "programpi": "Kulkarni",
    "programid": 1,
    "magzpsciunc": 8.5e-06,
    "magzpscirms": 0.031,
    "clrcoeff": -0.048,
    "clrcounc": 1.4e-05,
    "rbversion": "t17_f5_c3",
}
_FOUND: Mapping[str, Any] = {
    "chinr": 0.95,
    "sharpnr": 0.02,
    "classtar": 0.98,
    "nneg": 2,
    "aimagerat": 0.36,
    "bimagerat": 0.34,
    "sumrat": 0.98,
}
_CANDIDATE: Mapping[str, Any] = {
    "tooflag": 0,
    "nmtchps": 8,
    "nframesref": 15,
    "dsnrms": 9.0,
    "ssnrms": 12.0,
    "dsdiff": -3.0,
    "nmatches": 900,
    "zpclrcov": -7.9e-06,
    "zpmed": _ZERO_POINT,
    "clrmed": 0.7,
    "clrrms": 0.2,
    "exptime": 30.0,
    "neargaia": 24.0,
    "maggaia": 18.2,
    "neargaiabright": _MISSING,
    "maggaiabright": _MISSING,
    "drbversion": "d6_m7",
}
_NO_NEIGHBOUR = dict.fromkeys(("sgmag", "srmag", "simag", "szmag"), _MISSING)


def write_packets(night: FieldNight) -> Packed:
    """Write a container for each epoch of a field that sends an alert."""
    encoders, prefix = _encoders()
    columns = _Columns(night)
    alerts = np.flatnonzero(night.epochs.alert)
    found = columns.found()
    candidates = encoders["candidate"].encode(take(found | columns.candidate(found), alerts))
    history = encoders["prv_candidate"].encode(columns.history(found))
    forced, order = columns.forced(encoders["fp_hist"])
    first, _ = spans(night.epochs)
    names = [columns.object_id(row) for row in range(len(night.objects.slot))]
    heads = [_top(name) for name in names]
    epoch_object = night.epochs.object[alerts].tolist()
    begins = first[night.epochs.object[alerts]].tolist()
    stamps = columns.stamps(alerts)
    payloads = []
    for number, (row, begin, at) in enumerate(
        zip(epoch_object, begins, alerts.tolist(), strict=True)
    ):
        body = (
            heads[row],
            varint(columns.ids[at]),
            candidates.span(number, number + 1),
            *_array(history, begin, at),
            *_array(forced, *order[row]),
            *stamps[number],
        )
        size = sum(map(len, body))
        payloads.append(b"".join((prefix, varint(size), *body, _SYNC)))
    return Packed(payloads, [names[row] for row in epoch_object], columns.numbers[alerts])


def _array(records: Records, begin: int, end: int) -> tuple[bytes | memoryview, ...]:
    """Return a nullable array of records `begin` up to `end`."""
    if begin == end:
        return (b"\x02", b"\x00")
    return b"\x02", varint(end - begin), records.span(begin, end), b"\x00"


def _top(object_id: str) -> bytes:
    texts = ("4.02", "ZTF (www.ztf.caltech.edu)", object_id)
    return b"".join(varint(len(text)) + text.encode() for text in texts)


@cache
def _encoders() -> tuple[dict[str, RecordEncoder], bytes]:
    """Return the encoders of each record and the container's header up to its one block."""
    text = _SCHEMA.read_text()
    found: dict[str, Any] = {}
    for field in json.loads(text)["fields"]:
        one = field["type"] if isinstance(field["type"], list) else [field["type"]]
        for branch in one:
            record = branch.get("items", branch) if isinstance(branch, dict) else {}
            if record.get("type") == "record":
                found[record["name"].rsplit(".", 1)[-1]] = record
    constants = {
        "candidate": {**_COMMON, **_FOUND, **_CANDIDATE},
        "prv_candidate": _COMMON,
        "fp_hist": {**_COMMON, "exptime": 30.0, "adpctdif1": 0.06, "adpctdif2": 0.07},
    }
    encoders = {
        name: RecordEncoder(found[name], _known(found[name], values))
        for name, values in constants.items()
    }
    meta = varint(2) + b"".join(
        varint(len(one)) + one
        for one in (b"avro.schema", text.strip().encode(), b"avro.codec", b"null")
    )
    return encoders, b"Obj\x01" + meta + b"\x00" + _SYNC + varint(1)


def _known(record: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field["name"] for field in record["fields"]}
    return {name: value for name, value in values.items() if name in names}


def _pack_image(image: Floats) -> bytes:
    return gzipped(fits_unit(image, "f4", ("BUNIT   = 'DN      '",), primary=True))


def _pack_narrow(image: Floats) -> bytes:
    """Write a cutout at the edge of a detector, three pixels narrower."""
    return _pack_image(image[:-3])


_POOL = StampPool(StampStyle(63, 2.2, 10, _pack_image))
_EDGE_POOL = StampPool(StampStyle(63, 2.2, 1, _pack_narrow))
_EDGE_SHARE = 0.001


class _Columns:
    """Fields of a night's records, one value an epoch."""

    def __init__(self, night: FieldNight) -> None:
        self._night = night
        epochs, visits = night.epochs, night.visits
        self._visit, self._row = epochs.visit, epochs.object
        self._limit = visits.limit_mag[epochs.visit]
        self.numbers = night.source_numbers()
        self.ids = self.numbers.tolist()
        slots = night.time_slots
        fid = np.array([_FID[name] for name in night.bands])
        rcid = night.field % 64
        self._pid = slots * 10**4 + (rcid // 4 + 1) * 100 + 15
        self._images = {
            "jd": visits.mjd + _JD_OF_MJD_ZERO,
            "fid": fid[visits.band],
            "pid": self._pid,
            "nid": (visits.mjd - _NIGHT_ZERO_MJD).astype(np.int64),
            "rcid": np.full(slots.size, rcid),
            "field": np.full(slots.size, 200 + night.field % 700),
            "diffmaglim": visits.limit_mag,
            "magzpsci": np.full(slots.size, _ZERO_POINT),
        }
        names = [f"ztf_{pid}_scimrefdiffimg.fits" for pid in self._pid.tolist()]
        self._file_names = Texts(names, self._visit)
        with np.errstate(divide="ignore"):
            self._mag = _AB_NJY - 2.5 * np.log10(np.abs(epochs.flux))
        self._snr = epochs.flux / epochs.flux_error

    def object_id(self, row: int) -> str:
        """Name an object: its year and seven letters, scrambled without repeats."""
        objects = self._night.objects
        number = (self._night.field << 18) + int(objects.slot[row])
        number = number * 3_141_592_653 % 26**7
        letters = ""
        for _ in range(7):
            number, letter = divmod(number, 26)
            letters = chr(97 + letter) + letters
        return f"ZTF{int(objects.year[row]) % 100:02d}{letters}"

    def found(self) -> dict[str, Column]:
        """Return the fields that a candidate and a detection in a history share."""
        epochs, noise = self._night.epochs, self._night.epochs.noise
        return {
            **{name: values[self._visit] for name, values in self._images.items()},
            "pdiffimfilename": self._file_names,
            "candid": self.numbers,
            "isdiffpos": Texts(("f", "t"), (epochs.flux > 0).astype(np.int64)),
            "tblid": (noise[:, 1] * 900).astype(np.int64) + 1,
            "xpos": 20 + 3000 * noise[:, 1],
            "ypos": 20 + 3000 * noise[:, 2],
            "ra": epochs.ra,
            "dec": epochs.dec,
            "mindtoedge": 20 + 1500 * noise[:, 2],
            "rb": epochs.reliability,
            **self._brightness(),
            **self._shape(),
            **self._near(),
        }

    def _brightness(self) -> dict[str, Column]:
        """Return magnitudes of the absolute difference, and their errors."""
        noise, mag = self._night.epochs.noise, self._mag
        error = np.clip(1.0857 / np.abs(self._snr), 0.01, 0.22)
        return {
            "magpsf": mag,
            "sigmapsf": error,
            "magap": mag + 0.4 * error * (noise[:, 3] - 0.5),
            "sigmagap": 1.3 * error,
            "magapbig": mag + 0.6 * error * (noise[:, 1] - 0.5),
            "sigmagapbig": 1.5 * error,
            "magfromlim": self._limit - mag,
            "scorr": np.abs(self._snr),
            "sky": noise[:, 3] - 0.5,
        }

    def _shape(self) -> dict[str, Column]:
        """Return what tells a star from an artefact."""
        noise = self._night.epochs.noise
        look = self._night.objects.look[self._row]
        odd = np.select([look == _DIPOLE, look == _SPOT], [1.9, 1.5]) * noise[:, 1]
        elongation = 1.0 + 0.25 * noise[:, 0] ** 2 + odd
        width = self._night.visits.seeing[self._visit] / _PIXEL_ARCSEC
        is_bad = self._night.epochs.reliability < _BAD_PIXELS_BELOW
        return {
            "chipsf": 0.4 + 2 * noise[:, 2],
            "magdiff": 0.06 * (noise[:, 2] - 0.5) + 0.2 * odd,
            "fwhm": width * (0.95 + 0.2 * noise[:, 3]) + np.where(odd > 1, 2, 0),
            "seeratio": 0.9 + 0.3 * noise[:, 0],
            "aimage": 0.75 * elongation,
            "bimage": np.full(len(self._row), 0.75),
            "elong": elongation,
            "nbad": np.where(is_bad, (noise[:, 0] * 4).astype(np.int64), 0),
        }

    def _near(self) -> dict[str, Column]:
        """Return the nearest source of the reference image, and solar-system object."""
        objects, noise = self._night.objects, self._night.epochs.noise
        numbers = objects.solar_system
        names = [str(number) if number else "null" for number in numbers.tolist()]
        moving = numbers[self._row] > 0
        return {
            "distnr": 0.1 + objects.source_separation[self._row],
            "magnr": objects.source_mag[self._row],
            "sigmagnr": np.full(len(self._row), 0.04),
            "ranr": objects.ra[self._row],
            "decnr": objects.dec[self._row],
            "ssdistnr": np.where(moving, _NEAR_ASTEROID_ARCSEC * noise[:, 1], _MISSING),
            "ssmagnr": np.where(moving, self._mag + noise[:, 0] - 0.5, _MISSING),
            "ssnamenr": Texts(names, self._row),
        }

    def candidate(self, found: Mapping[str, Column]) -> dict[str, Column]:
        """Return the fields of the triggering detection alone."""
        epochs, objects = self._night.epochs, self._night.objects
        first, _ = spans(epochs)
        seen: Ints = np.cumsum(epochs.detected) - epochs.detected
        earlier: Ints = seen - seen[first][self._row]
        jd = np.asarray(found["jd"])
        start = np.where(epochs.detected, jd, np.inf)
        since = np.minimum.reduceat(start, first)[self._row] if first.size else start
        fid, field = np.asarray(found["fid"]), np.asarray(found["field"])
        return {
            **self._neighbours(),
            "ndethist": earlier + 1,
            "ncovhist": np.arange(len(self._row)) - first[self._row] + 40,
            "jdstarthist": since,
            "jdendhist": jd,
            "rfid": field * 10**6 + fid * 10**5 + np.asarray(found["rcid"]),
            "jdstartref": jd - 1200.0,
            "jdendref": jd - 900.0,
            "drb": np.clip(epochs.reliability * 1.05, 0, 1),
            "objectidps1": 8 * 10**16 + objects.slot[self._row],
        }

    def _neighbours(self) -> dict[str, Column]:
        """Return the three nearest catalogued sources; there is never a fourth band."""
        objects, size = self._night.objects, len(self._row)
        mag, score = objects.source_mag[self._row], objects.star_score[self._row]
        near = objects.source_separation[self._row]
        found: dict[str, Column] = {
            "sgmag1": mag + 0.4,
            "srmag1": mag,
            "simag1": mag - 0.2,
            "szmag1": np.full(size, _MISSING),
            "sgscore1": score,
            "distpsnr1": near,
        }
        for place in (2, 3):
            found |= {f"{name}{place}": np.full(size, v) for name, v in _NO_NEIGHBOUR.items()}
            found[f"sgscore{place}"] = np.full(size, 0.5)
            found[f"distpsnr{place}"] = near + 6.0 * place
            found[f"objectidps{place}"] = 8 * 10**16 + place + 10 * objects.slot[self._row]
        return found

    def history(self, found: Mapping[str, Column]) -> dict[str, Column]:
        """Return detections with all fields, and non-detections with a limit only."""
        seen = self._night.epochs.detected
        always = {*self._images, "pdiffimfilename"}
        return (
            {
                name: values if name in always else _where_seen(values, seen)
                for name, values in found.items()
            }
            | {
                name: np.where(seen, value, np.nan)
                for name, value in _FOUND.items()
                if name != "nneg"
            }
            | {"nneg": np.where(seen, 2, NULL_INT)}
        )

    def forced(self, encoder: RecordEncoder) -> tuple[Records, list[tuple[int, int]]]:
        """Return forced photometry of the nights before, in no order, and each object's part."""
        night, epochs = self._night, self._night.epochs
        before = np.flatnonzero(night.visits.mjd[epochs.visit] < night.night)
        order = before[np.lexsort((epochs.noise[before, 3], self._row[before]))]
        if not order.size:
            return Records(memoryview(b""), [0]), [(0, 0)] * len(night.objects.slot)
        records = encoder.encode(self._forced_columns(order))
        rows = np.arange(len(night.objects.slot))
        parts = [
            np.searchsorted(self._row[order], rows, side).tolist() for side in ("left", "right")
        ]
        return records, list(zip(*parts, strict=True))

    def _forced_columns(self, rows: Ints) -> dict[str, Column]:
        epochs, objects = self._night.epochs, self._night.objects
        visit, row = self._visit[rows], self._row[rows]
        failed = epochs.noise[rows, 2] < _FAILED_FORCED
        counts = 10 ** (0.4 * (_ZERO_POINT - _AB_NJY))

        def measured(values: Floats) -> Floats:
            return np.where(failed, _MISSING_FORCED, values)

        images = {name: values[visit] for name, values in self._images.items() if name != "nid"}
        return {
            **images,
            "rfid": images["field"] * 10**6 + images["fid"] * 10**5 + images["rcid"],
            "sciinpseeing": self._night.visits.seeing[visit] / _PIXEL_ARCSEC,
            "scibckgnd": 180 + 60 * epochs.noise[rows, 0],
            "scisigpix": 8 + 3 * epochs.noise[rows, 1],
            "forcediffimflux": measured(epochs.flux[rows] * counts),
            "forcediffimfluxunc": measured(epochs.flux_error[rows] * counts),
            "procstatus": Texts(("0", "61"), failed.astype(np.int64)),
            "distnr": measured(0.1 + objects.source_separation[row]),
            "ranr": measured(objects.ra[row]),
            "decnr": measured(objects.dec[row]),
            "magnr": measured(objects.source_mag[row]),
            "sigmagnr": measured(np.full(rows.size, 0.04)),
            "chinr": measured(np.full(rows.size, 0.95)),
            "sharpnr": measured(np.full(rows.size, 0.02)),
        }

    def stamps(self, alerts: Ints) -> list[tuple[bytes, ...]]:
        """Return the three cutouts of each alert, with their file names."""
        noise, flux = self._night.epochs.noise[alerts], self._night.epochs.flux[alerts]
        look = self._night.objects.look[self._row[alerts]]
        keys = _POOL.keys(look, self._snr[alerts], noise[:, 0])
        narrow = _EDGE_POOL.keys(look, self._snr[alerts], 0 * noise[:, 0])
        pids = self._pid[self._visit[alerts]].tolist()
        found = []
        for number, (at, pid, positive) in enumerate(
            zip(alerts.tolist(), pids, (flux > 0).tolist(), strict=True)
        ):
            edge = noise[number, 3] < _EDGE_SHARE
            images = _EDGE_POOL.triplet(narrow[number]) if edge else _POOL.triplet(keys[number])
            found.append(_cutouts(self.ids[at], pid, images, positive=positive))
        return found


def _where_seen(values: Column, seen: Bools) -> Column:
    if isinstance(values, Texts):
        return values.where(seen)
    null = NULL_INT if np.issubdtype(values.dtype, np.integer) else np.nan
    return np.where(seen, values, null)


def _cutouts(
    candid: int, pid: int, images: tuple[bytes, bytes, bytes], *, positive: bool
) -> tuple[bytes, ...]:
    """Write three cutout records; the difference's name tells what was subtracted."""
    sign = "scimref" if positive else "refmsci"
    names = (
        f"candid{candid}_pid{pid}_targ_sci.fits.gz",
        f"candid{candid}_ref.fits.gz",
        f"candid{candid}_pid{pid}_targ_{sign}.fits.gz",
    )
    parts: list[bytes] = []
    for name, image in zip(names, images, strict=True):
        parts += [b"\x02" + varint(len(name)) + name.encode() + varint(len(image)), image]
    return tuple(parts)
