"""Make nights of ZTF-like alerts: schema 4.02, with history, forced photometry and cutouts.

The packets have the structure, sizes, quirks and ids of real ones; the populations are simple.
"""

import io
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
from numpy.typing import NDArray

from broker.errors import UsageError
from broker.surveys.avro import AvroSchema, container_from_body
from broker.surveys.shipped import ShippedSchemas
from broker.surveys.ztf.model import (
    Exposure,
    Record,
    candidate_record,
    detection_record,
    draw_exposure,
    draw_history,
    forced_record,
    limit_record,
    night_start_jd,
)
from broker.surveys.ztf.pattern import (
    Bytes,
    Pattern,
    RecordEncoder,
    doubles,
    floats,
    longs,
    texts,
    varint,
)
from broker.surveys.ztf.stamps import make_triplet

VERSION = "4.02"
PUBLISHER = "ZTF (www.ztf.caltech.edu)"

_ALERTS_PER_EXPOSURE = 64
_TRIPLETS_PER_KIND = 8
_FIRST_NUMBER = 64  # from here to 8191 an Avro long has two bytes
_LAST_NUMBER = 8191
_ARCSEC = 1 / 3600

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """What is seen: how often, in how many earlier images, and how it looks."""

    fraction: float
    stamp: str
    detected: float
    rb: tuple[float, float]
    candidate: Record


_FAR_STAR = {"distpsnr1": 8.0, "sgscore1": 0.3}
KINDS = (
    Kind(
        0.35,
        "artifact",
        0.1,
        (0.05, 0.6),
        {"nbad": 3, "elong": 1.6, "distpsnr1": 0.8, "sgscore1": 0.9},
    ),
    Kind(0.30, "star", 0.7, (0.45, 0.95), {"distpsnr1": 0.3, "sgscore1": 0.98}),
    Kind(0.15, "moving", 0.0, (0.45, 0.95), {"ssdistnr": 1.5, "ssmagnr": 18.9, "ssnamenr": "1234"}),
    Kind(0.12, "transient", 0.4, (0.5, 0.98), _FAR_STAR),
    Kind(0.08, "transient", 0.4, (0.5, 0.98), dict.fromkeys(("distpsnr1", "sgscore1", "drb"))),
)


def make_night(alerts: int, seed: int, night: date, *, repeats: int = 0) -> Iterator[bytes]:
    """Make the packets of one night.

    Parameters
    ----------
    alerts : int
        How many alerts, each with its own candid.
    seed : int
        The same seed makes the same bytes.
    night : date
        UTC date.
    repeats : int
        How many of the first packets are sent again at the end.

    Yields
    ------
    bytes
        Avro containers.

    Raises
    ------
    UsageError
        If a number is negative, or `night` is before the survey began.
    """
    if alerts < 0 or repeats < 0 or night < date(2018, 6, 1):
        raise UsageError("a made night has 0 or more alerts, on or after 2018-06-01")
    rng = np.random.default_rng(seed)
    return _make(alerts, rng, night, min(repeats, alerts))


def make_packet(seed: int = 0, **overrides: Any) -> dict[str, Any]:
    """Make one decoded packet.

    Parameters
    ----------
    seed : int
    **overrides
        Fields of the packet or else of its candidate; ``candid`` sets both.

    Raises
    ------
    UsageError
        If a name is no field.
    """
    rng = np.random.default_rng(seed)
    now = draw_exposure(rng, night_start_jd(date(2024, 7, 15)) + 0.3, 700, 30)
    earlier = draw_history(rng, now)
    candid = now.candid(1000)
    place = {"ra": 150.0, "dec": 20.0, "ranr": 150.0, "decnr": 20.0}
    found = [rng.random() < 0.5 for _ in earlier]
    history = [
        _full(
            "prv_candidates",
            detection_record(rng, one, 19.0) | place if seen else limit_record(one),
        )
        for one, seen in zip(earlier, found, strict=True)
    ]
    forced = [_full("fp_hists", forced_record(rng, one, 300.0) | place) for one in earlier[-10:]]
    packet = {
        "schemavsn": VERSION,
        "publisher": PUBLISHER,
        "objectId": "ZTF24aaaaaaa",
        "candid": candid,
        "candidate": _full(
            "candidate", candidate_record(rng, now, 18.5) | place | {"candid": candid}
        ),
        "prv_candidates": history,
        "fp_hists": forced,
        **_cutout_fields(candid, now.pid, make_triplet(rng, "transient")),
    }
    return _overridden(packet, overrides)


def encode_packet(packet: Mapping[str, Any]) -> bytes:
    """Return a decoded 4.02 packet as an Avro container."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema().fastavro, packet)
    return container_from_body(schema(), out.getvalue())


@cache
def schema() -> AvroSchema:
    """Return the schema of the made packets."""
    found = ShippedSchemas(Path(__file__).parent / "schemas").get(VERSION)
    if found is None:
        raise UsageError(f"schema {VERSION} is gone from the package")
    return found


def _make(alerts: int, rng: np.random.Generator, night: date, repeats: int) -> Iterator[bytes]:
    prefix, sync = _container_ends(rng.bytes(16))
    pools = {stamp: _triplets(rng, stamp) for stamp in sorted({kind.stamp for kind in KINDS})}
    start = night_start_jd(night) + 0.12
    kept: list[bytes] = []
    images = -(-alerts // _ALERTS_PER_EXPOSURE)
    for image in range(images):
        jd = start + 0.4 * image / images
        now = draw_exposure(rng, jd, 200 + image % 800, int(rng.integers(64)))
        count = min(_ALERTS_PER_EXPOSURE, alerts - image * _ALERTS_PER_EXPOSURE)
        for body in _image_alerts(rng, now, count, image, pools):
            packet = b"".join((prefix, b"\x02", varint(len(body)), body, sync))
            if len(kept) < repeats:
                kept.append(packet)
            yield packet
    yield from kept


def _container_ends(sync: bytes) -> tuple[bytes, bytes]:
    whole = container_from_body(schema(), b"", sync)
    return whole[: whole.index(sync) + len(sync)], sync


def _triplets(rng: np.random.Generator, stamp: str) -> list[tuple[bytes, bytes, bytes]]:
    return [make_triplet(rng, stamp) for _ in range(_TRIPLETS_PER_KIND)]


def _image_alerts(
    rng: np.random.Generator,
    now: Exposure,
    count: int,
    image: int,
    pools: Mapping[str, list[tuple[bytes, bytes, bytes]]],
) -> list[bytes]:
    """Make the alerts of one image, kinds mixed."""
    earlier = draw_history(rng, now)
    center = (float(rng.uniform(0, 360)), float(rng.uniform(-28, 80)))
    numbers = rng.choice(np.arange(_FIRST_NUMBER, _LAST_NUMBER), count, replace=False)
    which = rng.choice(len(KINDS), count, p=[kind.fraction for kind in KINDS])
    bodies: list[bytes] = [b""] * count
    for place, kind in enumerate(KINDS):
        members = np.flatnonzero(which == place)
        if len(members):
            group = _Group(rng, kind, now, earlier, numbers[members], center)
            names = [_object_id(now, image, int(member)) for member in members]
            for member, body in zip(members, group.bodies(names, pools[kind.stamp]), strict=True):
                bodies[member] = body
    return bodies


class _Group:
    """The alerts of one kind in one image, which share the structure of their packets."""

    def __init__(
        self,
        rng: np.random.Generator,
        kind: Kind,
        now: Exposure,
        earlier: list[Exposure],
        numbers: NDArray[np.int64],
        center: tuple[float, float],
    ) -> None:
        self._rng, self._kind, self._now, self._earlier = rng, kind, now, earlier
        self._numbers, self._count = numbers, len(numbers)
        self._ra = (center[0] + rng.uniform(-0.4, 0.4, self._count)) % 360
        self._dec = center[1] + rng.uniform(-0.4, 0.4, self._count)

    def bodies(self, names: list[str], pool: list[tuple[bytes, bytes, bytes]]) -> list[bytes]:
        """Return the datums."""
        pattern = Pattern(self._count)
        head = _text(VERSION) + _text(PUBLISHER)
        pattern.add(head + _text(names[0]), {len(head) + 1: texts(names)})
        candids = self._candids(self._now)
        pattern.add(bytes(9), {0: longs(candids)})
        self._add_candidate(pattern)
        self._add_history(pattern)
        self._add_forced(pattern)
        picked = self._rng.integers(len(pool), size=self._count)
        return [
            row.tobytes() + _cutouts(int(candid), self._now.pid, pool[one])
            for row, candid, one in zip(pattern.fill(), candids, picked, strict=True)
        ]

    def _candids(self, exposure: Exposure) -> NDArray[np.int64]:
        return np.asarray(exposure.candid(0) + self._numbers, np.int64)

    def _add_candidate(self, pattern: Pattern) -> None:
        rng, count = self._rng, self._count
        record = candidate_record(rng, self._now, self._now.limit - 1.5) | self._kind.candidate
        record["isdiffpos"] = "f" if self._kind.stamp == "star" and rng.random() < 0.5 else "t"
        drawn = {
            "magpsf": self._now.limit - rng.exponential(1.2, count) - 0.05,
            "rb": rng.uniform(*self._kind.rb, count),
            "fwhm": rng.normal(2.6, 0.9, count).clip(1, 12),
            "elong": record["elong"] + rng.exponential(0.06, count),
            "magdiff": rng.normal(0, 0.06, count),
            "xpos": rng.uniform(20, 3050, count),
            "ypos": rng.uniform(20, 3060, count),
        }
        pattern.add(*self._placed("candidate", record, self._now, drawn))

    def _add_history(self, pattern: Pattern) -> None:
        pattern.add(b"\x02" + varint(len(self._earlier)))
        mag = self._now.limit - 1.3
        for exposure in self._earlier:
            if self._rng.random() < self._kind.detected:
                record = detection_record(self._rng, exposure, mag)
                record["ssdistnr"] = record["ssmagnr"] = record["ssnamenr"] = None
                pattern.add(*self._placed("prv_candidates", record, exposure, {}))
            else:
                pattern.add(_encoder("prv_candidates").encode(limit_record(exposure))[0])
        pattern.add(b"\x00")

    def _add_forced(self, pattern: Pattern) -> None:
        chosen = self._rng.permutation(np.arange(len(self._earlier)))[:15]  # not sorted by time
        pattern.add(b"\x02" + varint(len(chosen)))
        for place in chosen:
            exposure = self._earlier[place]
            record = forced_record(self._rng, exposure, 200.0)
            pattern.add(*self._placed("fp_hists", record, exposure, {}))
        pattern.add(b"\x00")

    def _placed(
        self, name: str, record: Record, exposure: Exposure, drawn: Mapping[str, Floats]
    ) -> tuple[bytes, dict[int, Bytes]]:
        """Return an encoded record and where the values of each alert go in it."""
        encoder = _encoder(name)
        values = {field: floats(value) for field, value in drawn.items()}
        values |= {"ranr": doubles(self._ra), "decnr": doubles(self._dec)}
        if "candid" in record:
            scatter = self._rng.normal(0, 0.1 * _ARCSEC, (2, self._count))
            values |= {"ra": doubles(self._ra + scatter[0]), "dec": doubles(self._dec + scatter[1])}
            values |= {"candid": longs(self._candids(exposure)), "tblid": _shorts(self._numbers)}
        data, offsets = encoder.encode(record, tuple(values))
        return data, {offsets[field]: value for field, value in values.items()}


@cache
def _encoder(name: str) -> RecordEncoder:
    return RecordEncoder(_definition(name))


@cache
def _definition(name: str) -> dict[str, Any]:
    """Return the record that a top-level field holds, or lists."""
    types = {one["name"]: one["type"] for one in schema().definition["fields"]}
    inner = types[name]
    if isinstance(inner, list):
        inner = next(one for one in inner if one != "null")
    found: dict[str, Any] = inner.get("items", inner)
    return found


def _full(name: str, record: Record) -> Record:
    return {one["name"]: record.get(one["name"]) for one in _definition(name)["fields"]}


def _overridden(packet: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    candidate = packet["candidate"]
    if unknown := sorted(set(overrides) - set(packet) - set(candidate)):
        raise UsageError(f"no field of a packet: {', '.join(unknown)}")
    top = {name: value for name, value in overrides.items() if name in packet}
    inner = {name: value for name, value in overrides.items() if name in candidate}
    return packet | {"candidate": candidate | inner} | top


def _cutout_names(candid: int, pid: int) -> dict[str, str]:
    target = f"candid{candid}_pid{pid}_targ"
    return {
        "cutoutScience": f"{target}_sci.fits.gz",
        "cutoutTemplate": f"candid{candid}_ref.fits.gz",
        "cutoutDifference": f"{target}_scimref.fits.gz",
    }


def _cutout_fields(candid: int, pid: int, triplet: tuple[bytes, bytes, bytes]) -> dict[str, Any]:
    names = _cutout_names(candid, pid)
    return {
        field: {"fileName": name, "stampData": data}
        for (field, name), data in zip(names.items(), triplet, strict=True)
    }


def _cutouts(candid: int, pid: int, triplet: tuple[bytes, bytes, bytes]) -> bytes:
    parts: list[bytes] = []
    for name, data in zip(_cutout_names(candid, pid).values(), triplet, strict=True):
        parts += (b"\x02", _text(name), varint(len(data)), data)
    return b"".join(parts)


def _object_id(now: Exposure, image: int, member: int) -> str:
    """Name an object ``ZTFyyaaaaaaa``; no two of a night have the same name."""
    number, letters = now.nid % 1000 * 26**4 * 4 + image * _ALERTS_PER_EXPOSURE + member, ""
    for _ in range(7):
        number, place = divmod(number, 26)
        letters = string.ascii_lowercase[place] + letters
    return f"ZTF{18 + (now.nid - 365) // 365:02d}{letters}"


def _shorts(values: NDArray[np.int64]) -> Bytes:
    """Return Avro longs of two bytes each, shape (n, 2)."""
    zigzag = values << 1
    return np.stack([zigzag & 0x7F | 0x80, zigzag >> 7], axis=1).astype(np.uint8)


def _text(text: str) -> bytes:
    data = text.encode()
    return varint(len(data)) + data
