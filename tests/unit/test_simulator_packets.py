"""Simulated packets: valid in every reader, with the quirks of real ones."""

import io
import json
import re
from datetime import date
from functools import cache

import fastavro
import fastavro.validation
import numpy as np
import polars as pl
import pytest

from broker.alerts.cutout import open_cutout
from broker.apps.simulator.night import Night
from broker.surveys import SURVEYS, decode_batch

NIGHT = date(2026, 11, 20)
VERSIONS = {"ztf": "4.02", "lsst": "v11_1", "elasticc": "v0_9_1"}
FRAME_BYTES = 5


@cache
def made(survey: str, night: date = NIGHT, count: int = 700):
    """Return packets and truth of a small night."""
    parts = list(Night(SURVEYS[survey], night, seed=3).alerts(count))
    payloads = [payload for part in parts for payload in part.payloads]
    return payloads, pl.concat([part.truth for part in parts])


@cache
def schema(survey: str):
    """Return the shipped schema definition."""
    file = SURVEYS[survey].folder / "schemas" / f"{VERSIONS[survey]}.json"
    return json.loads(file.read_text())


@cache
def packets(survey: str):
    """Decode with fastavro."""
    parsed = fastavro.parse_schema(schema(survey))
    return [decoded(survey, payload, parsed) for payload in made(survey)[0]]


def decoded(survey: str, payload: bytes, parsed):
    """Decode one packet; nothing may be left over."""
    if survey == "ztf":
        (record,) = fastavro.reader(io.BytesIO(payload))
        return record
    data = io.BytesIO(datum(survey, payload))
    record = fastavro.schemaless_reader(data, parsed, None)
    assert data.read() == b""
    return record


def datum(survey: str, payload: bytes) -> bytes:
    """Return a packet of a stream without its frame."""
    return payload[FRAME_BYTES:] if survey == "lsst" else payload


surveys = pytest.mark.parametrize("survey", sorted(VERSIONS))


@surveys
def test_packets_are_valid_by_the_schema_of_the_survey(survey):
    """Fastavro's validation, which forbids unknown and missing fields."""
    parsed = fastavro.parse_schema(schema(survey))

    for packet in packets(survey)[:100]:
        assert fastavro.validation.validate(packet, parsed, strict=True)


@surveys
def test_packets_are_the_bytes_that_fastavro_writes(survey):
    """Encoding what was decoded gives the same datum."""
    parsed = fastavro.parse_schema(schema(survey))

    for payload, packet in zip(made(survey)[0][:100], packets(survey), strict=False):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, packet)
        assert out.getvalue() in payload


@surveys
def test_a_strict_reader_reads_them(survey):
    """The reference implementation of Avro."""
    avro_schema = pytest.importorskip("avro.schema")
    avro_io = pytest.importorskip("avro.io")
    from avro.datafile import DataFileReader

    definition = avro_schema.parse(json.dumps(schema(survey)))
    for payload, expected in zip(made(survey)[0][:10], packets(survey), strict=False):
        if survey == "ztf":
            (found,) = DataFileReader(io.BytesIO(payload), avro_io.DatumReader())
        else:
            decoder = avro_io.BinaryDecoder(io.BytesIO(datum(survey, payload)))
            found = avro_io.DatumReader(definition).read(decoder)
        assert set(found) == set(expected)
        assert avro_io.validate(definition, found)


@surveys
def test_the_broker_decodes_all_of_them(survey):
    """No packet is an error, and ids and positions are those of the truth."""
    payloads, truth = made(survey)

    (frame,), errors = decode_batch(payloads, SURVEYS[survey])

    assert errors == {}
    assert frame.keys["source_id"].to_list() == truth["source_id"].to_list()
    assert frame.keys["object_id"].cast(pl.String).to_list() == truth["object_id"].to_list()
    assert np.allclose(frame.keys["mjd"], truth["mjd"])


@surveys
def test_ids_are_unique_and_beyond_floats(survey):
    """18 or 19 digits."""
    ids = made(survey)[1]["source_id"]

    assert ids.n_unique() == len(ids) == 700
    assert ids.min() > 1 << 53


@surveys
def test_the_same_seed_makes_the_same_bytes(survey):
    """And more alerts begin with the same ones."""
    few = [p for part in Night(SURVEYS[survey], NIGHT, seed=3).alerts(20) for p in part.payloads]

    assert sorted(few) == sorted(made(survey)[0][:20])


@surveys
def test_another_seed_makes_another_night(survey):
    """No object is the same."""
    other = next(Night(SURVEYS[survey], NIGHT, seed=4).alerts(200)).truth

    assert not set(other["ra"].round(6)) & set(made(survey)[1]["ra"].round(6))


@pytest.mark.parametrize(("survey", "days"), [("ztf", 2), ("lsst", 3), ("elasticc", 3)])
def test_objects_come_back_with_a_history_that_has_grown(survey, days):
    """The alerts of one night are in the history of the next visit's."""
    key = {"ztf": ("candid", "prv_candidates"), "lsst": ("diaSourceId", "prvDiaSources")}
    source, history = key.get(survey, key["lsst"])
    later = date.fromordinal(NIGHT.toordinal() + days)
    before = made(survey)[1].filter(~pl.col("is_moving"))
    after = made(survey, later)[1]
    common = set(before["object_id"]) & set(after["object_id"])
    parsed = fastavro.parse_schema(schema(survey))

    assert len(common) > 50
    ids = dict(zip(before["object_id"], before["source_id"], strict=True))
    for index, object_id in enumerate(after["object_id"].head(300)):
        if object_id in common:
            packet = decoded(survey, made(survey, later)[0][index], parsed)
            assert ids[object_id] in [one[source] for one in packet[history] or []]


def test_a_trigger_is_not_in_its_own_history():
    """Of any survey's packets."""
    for packet in packets("ztf"):
        assert packet["candid"] not in [one["candid"] for one in packet["prv_candidates"]]
    for packet in packets("lsst"):
        previous = packet["prvDiaSources"] or []
        assert packet["diaSourceId"] not in [one["diaSourceId"] for one in previous]


def test_names_of_objects_are_like_real_ones():
    """The year and seven letters."""
    names = made("ztf")[1]["object_id"]

    assert all(re.fullmatch(r"ZTF\d{2}[a-z]{7}", name) for name in names)


def test_what_is_missing_is_written_as_in_real_packets():
    """-999 and the text null, but an asteroid where there is one."""
    truth = made("ztf")[1]
    for packet, moving in zip(packets("ztf"), truth["is_moving"], strict=True):
        candidate = packet["candidate"]
        assert (candidate["ssdistnr"] == -999.0) is not moving
        assert (candidate["ssnamenr"] == "null") is not moving
        assert candidate["szmag1"] == -999.0


def test_history_has_limits_for_what_was_not_seen():
    """Most entries of most objects are non-detections: ids, magnitudes and positions null."""
    entries = [one for packet in packets("ztf") for one in packet["prv_candidates"]]
    limits = [one for one in entries if one["candid"] is None]

    assert 0.3 < len(limits) / len(entries) < 0.9
    for one in limits:
        assert one["diffmaglim"] > 17
        assert {one[name] for name in ("magpsf", "sigmapsf", "ra", "dec", "isdiffpos", "rb")} == {
            None
        }


def test_forced_photometry_is_not_in_order_of_time():
    """And some of it failed."""
    records = [packet["fp_hists"] for packet in packets("ztf") if packet["fp_hists"]]
    times = [[one["jd"] for one in several] for several in records]
    fluxes = [one["forcediffimflux"] for several in records for one in several]

    assert sum(one != sorted(one) for one in times) > 0.9 * len(times)
    assert 0.05 < fluxes.count(-99999.0) / len(fluxes) < 0.25
    assert {one["procstatus"] for several in records for one in several} == {"0", "61"}


def test_differences_have_both_signs():
    """The magnitude is of the absolute difference; the sign is a field of its own."""
    truth = made("ztf")[1]
    signs = [packet["candidate"]["isdiffpos"] for packet in packets("ztf")]

    assert [sign == "t" for sign in signs] == (truth["flux"] > 0).to_list()
    assert set(signs) == {"t", "f"}


def test_fluxes_are_signed_and_in_njy():
    """As the truth has them."""
    truth = made("lsst")[1]
    fluxes = np.array([packet["diaSource"]["psfFlux"] for packet in packets("lsst")])

    assert np.allclose(fluxes, truth["flux"], rtol=1e-6)
    assert fluxes.min() < 0 < fluxes.max()


def test_solar_system_objects_of_frames_have_no_dia_object():
    """They have an orbit and a place where they were expected."""
    for packet, moving in zip(packets("lsst"), made("lsst")[1]["is_moving"], strict=True):
        assert (packet["diaObject"] is None) is moving
        assert (packet["ssSource"] is not None) is moving
        assert (packet["mpc_orbits"] is not None) is moving
        assert (packet["prvDiaSources"] is None) is moving


def test_asteroids_move_between_the_visits_of_a_night():
    """Two detections of one number lie apart, as new objects."""
    seen: dict[str, list[tuple[str, float]]] = {}
    for packet in packets("ztf"):
        name = packet["candidate"]["ssnamenr"]
        if name != "null":
            seen.setdefault(name, []).append((packet["objectId"], packet["candidate"]["ra"]))
    twice = [found for found in seen.values() if len(found) == 2]

    assert len(twice) > 5
    assert all(first[0] != second[0] for first, second in twice)
    assert np.median([abs(first[1] - second[1]) * 3600 for first, second in twice]) > 1.5


def test_artefacts_score_lower_than_what_is_real():
    """By the score that filters cut on."""
    truth = made("ztf")[1]
    scores = pl.Series([packet["candidate"]["rb"] for packet in packets("ztf")])

    assert scores.filter(truth["is_real"]).median() > 0.65
    assert scores.filter(~truth["is_real"]).median() < 0.4


def test_hosts_are_told_where_there_is_one():
    """-9 stands for none."""
    truth = made("elasticc")[1]
    for packet, z in zip(packets("elasticc"), truth["redshift"], strict=True):
        expected = -9.0 if z is None else z
        assert packet["diaObject"]["hostgal_zphot"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("survey", "names"),
    [
        ("ztf", ("cutoutScience", "cutoutTemplate", "cutoutDifference")),
        ("lsst", ("cutoutScience", "cutoutTemplate", "cutoutDifference")),
    ],
)
def test_cutouts_are_fits_that_show_the_source(survey, names):
    """The middle of the difference stands out, with the sign of the flux."""
    truth = made(survey)[1].with_row_index()
    bright = truth.filter(pl.col("is_real"), (pl.col("flux") / pl.col("flux_error")).abs() > 15)
    for index, flux in bright.select("index", "flux").head(20).iter_rows():
        found = packets(survey)[index][names[2]]
        raw = found["stampData"] if survey == "ztf" else found
        image = open_cutout("difference", raw).data
        noise = np.nanstd(image[:10])
        middle = image[image.shape[0] // 2 - 1 :][:3, image.shape[1] // 2 - 1 :][:, :3]
        assert np.nanmean(middle) * np.sign(flux) > 3 * noise


def test_cutouts_of_frames_have_three_images():
    """Image, variance and PSF, uncompressed."""
    raw = packets("lsst")[0]["cutoutScience"]
    cutout = open_cutout("science", raw)

    assert raw.startswith(b"SIMPLE  =")
    assert cutout.variance.shape == cutout.data.shape
    assert cutout.psf.shape == (41, 41)
    assert cutout.psf.sum() == pytest.approx(1.0)


def test_a_few_cutouts_are_narrower():
    """One in a thousand lies at the edge of a detector; others have NaN pixels there."""
    shapes, edges = set(), 0
    for payload in made("ztf", count=2500)[0]:
        (packet,) = fastavro.reader(io.BytesIO(payload))
        if len(packet["cutoutScience"]["stampData"]) < 15_500 or packet["candid"] % 50 == 0:
            image = open_cutout("science", packet["cutoutScience"]["stampData"]).data
            shapes.add(image.shape)
            edges += bool(np.isnan(image).any())

    assert shapes == {(63, 63), (60, 63)}
    assert edges
