"""Simulated ELAsTiCC packets, from columns: bare datums of schema v0_9_1, without cutouts.

Fluxes have zero point 27.5; an alert tells its object's host galaxy, -9 where there is none.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from broker.surveys.synthetic.columns import FieldNight, Ints, Packed, spans
from broker.surveys.synthetic.encoder import Column, RecordEncoder, Records, Texts, take, varint

_SCHEMA = Path(__file__).parent / "schemas" / "v0_9_1.json"
_FLUX_OF_NJY = 10 ** (0.4 * (27.5 - 31.4))
_NO_HOST = -9.0
_QUANTILES = range(0, 101, 10)


def write_packets(night: FieldNight) -> Packed:
    """Write a bare datum for each epoch of a field that sends an alert."""
    encoders, host_fields = _encoders()
    epochs = night.epochs
    alerts, seen = np.flatnonzero(epochs.alert), np.flatnonzero(epochs.detected)
    object_ids = night.field * 10**6 + night.objects.slot + (night.objects.year - 2000) * 10**12
    ids = night.source_numbers()
    sources = encoders["diaSource"].encode(take(_sources(night, ids, object_ids), seen))
    forced = encoders["diaForcedSource"].encode(_forced(night, ids, object_ids))
    objects = encoders["diaObject"].encode(_objects(night, object_ids, host_fields))
    first, _ = spans(epochs)
    row = epochs.object[alerts]
    place = np.searchsorted(seen, alerts).tolist()
    begin = np.searchsorted(seen, first)[row].tolist()
    tonight = int((night.visits.mjd >= night.night).sum())
    history = (first + np.maximum(len(night.visits.mjd) - tonight, 0))[row].tolist()
    payloads = [
        b"".join(
            (
                varint(source_id),
                sources.span(at, at + 1),
                _array(sources, start, at),
                _array(forced, forced_start, forced_end if at > start else forced_start),
                b"\x02",
                objects.span(number, number + 1),
            )
        )
        for source_id, at, start, forced_start, forced_end, number in zip(
            ids[alerts].tolist(), place, begin, first[row].tolist(), history, row.tolist(),
            strict=True,
        )
    ]  # fmt: skip
    return Packed(payloads, [str(one) for one in object_ids[row].tolist()], ids[alerts])


def _array(records: Records, begin: int, end: int) -> bytes:
    """Return records `begin` up to `end`; null where there are none."""
    if begin >= end:
        return b"\x00"
    return b"".join((b"\x02", varint(end - begin), records.span(begin, end), b"\x00"))


@cache
def _encoders() -> tuple[dict[str, RecordEncoder], frozenset[str]]:
    found: dict[str, Any] = {}
    for field in json.loads(_SCHEMA.read_text())["fields"]:
        for branch in field["type"] if isinstance(field["type"], list) else [field["type"]]:
            record = branch.get("items", branch) if isinstance(branch, dict) else {}
            if isinstance(record, dict) and record.get("type") == "record":
                found[record["name"].rsplit(".", 1)[-1]] = record
    names = frozenset(field["name"] for field in found["diaObject"]["fields"])
    host = {name: _NO_HOST for name in names if name.startswith("hostgal")}
    constants: Mapping[str, Mapping[str, Any]] = {
        "diaObject": {**host, "simVersion": "simulated", "mwebv": 0.03, "mwebv_err": 0.003}
    }
    return {name: RecordEncoder(one, constants.get(name)) for name, one in found.items()}, names


def _sources(night: FieldNight, ids: Ints, object_ids: Ints) -> dict[str, Column]:
    epochs = night.epochs
    return {
        "diaSourceId": ids,
        "diaObjectId": object_ids[epochs.object],
        "midPointTai": night.visits.mjd[epochs.visit] + night.time_offset,
        "filterName": Texts(night.bands, night.visits.band[epochs.visit]),
        "ra": epochs.ra,
        "decl": epochs.dec,
        "psFlux": epochs.flux * _FLUX_OF_NJY,
        "psFluxErr": epochs.flux_error * _FLUX_OF_NJY,
        "snr": np.abs(epochs.flux / epochs.flux_error),
    }


def _forced(night: FieldNight, ids: Ints, object_ids: Ints) -> dict[str, Column]:
    names = ("diaObjectId", "midPointTai", "filterName", "psFlux", "psFluxErr")
    found = _sources(night, ids, object_ids)
    return {"diaForcedSourceId": ids + 1, **{name: found[name] for name in names}}


def _objects(night: FieldNight, object_ids: Ints, names: frozenset[str]) -> dict[str, Column]:
    """Return each object with its host galaxy, where it is known to have one."""
    objects = night.objects
    has_host = np.isfinite(objects.redshift)

    def of_host(values: Any) -> Any:
        return np.where(has_host, values, _NO_HOST)

    z, mag = objects.redshift, objects.source_mag
    columns: dict[str, Column] = {
        "diaObjectId": object_ids,
        "ra": objects.ra,
        "decl": objects.dec,
        "z_final": of_host(z),
        "z_final_err": of_host(0.02 * (1 + z)),
        "hostgal_zphot": of_host(z),
        "hostgal_zphot_err": of_host(0.02 * (1 + z)),
        "hostgal_snsep": of_host(objects.source_separation),
        "hostgal_ra": of_host(objects.ra),
        "hostgal_dec": of_host(objects.dec),
    }
    for number, band in enumerate(night.bands):
        columns[f"hostgal_mag_{band}"] = of_host(mag + 0.5 - 0.2 * number)
        columns[f"hostgal_magerr_{band}"] = of_host(0.05)
    for percent in _QUANTILES:
        shift = 0.02 * (percent - 50) / 30
        columns[f"hostgal_zphot_q{percent:03d}"] = of_host(np.maximum(z + shift, 0))
    return {name: values for name, values in columns.items() if name in names}
