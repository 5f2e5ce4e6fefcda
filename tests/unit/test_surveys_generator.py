"""Made nights of ZTF-like alerts."""

import io
import re
from datetime import date

import fastavro
import pytest
from fastavro.validation import validate

from broker.errors import UsageError
from broker.surveys import get_survey, open_alert
from broker.surveys.ztf.generator import encode_packet, make_night, make_packet, schema

NIGHT = date(2024, 7, 15)


@pytest.fixture(scope="module")
def payloads():
    """The packets of a small night."""
    return list(make_night(150, seed=3, night=NIGHT))


@pytest.fixture(scope="module")
def packets(payloads):
    """The same, as fastavro reads them."""
    return [next(iter(fastavro.reader(io.BytesIO(payload)))) for payload in payloads]


def test_packets_fit_the_schema(packets):
    """Every packet is valid by its schema."""
    assert all(validate(packet, schema().fastavro) for packet in packets)


def test_ids_look_like_the_survey_s(packets):
    """Candids have 19 digits, object ids the survey's form; no two are equal."""
    assert all(re.fullmatch(r"ZTF\d{2}[a-z]{7}", packet["objectId"]) for packet in packets)
    assert all(len(str(packet["candid"])) == 19 for packet in packets)
    assert len({packet["candid"] for packet in packets}) == len(packets)
    assert len({packet["objectId"] for packet in packets}) == len(packets)


def test_every_part_of_a_packet_agrees(packets):
    """The candidate has the packet's candid; history lies at the same place, earlier."""
    for packet in packets:
        now = packet["candidate"]
        found = [one for one in packet["prv_candidates"] if one["candid"]]
        assert now["candid"] == packet["candid"]
        assert all(one["jd"] < now["jd"] for one in packet["prv_candidates"])
        assert all(abs(one["dec"] - now["dec"]) < 2e-4 for one in found)


def test_histories_hold_detections_and_limits(packets):
    """Most earlier images show nothing, as in the real stream."""
    entries = [one for packet in packets for one in packet["prv_candidates"]]
    limits = sum(one["candid"] is None for one in entries)
    assert 0.4 < limits / len(entries) < 0.9


def test_earlier_candids_are_distinct(packets):
    """No two detections of a night's packets share an id."""
    ids = [one["candid"] for packet in packets for one in packet["prv_candidates"] if one["candid"]]
    assert len(set(ids)) == len(ids)


def test_forced_photometry_is_unsorted_and_partly_missing(packets):
    """The quirks of real forced photometry are there."""
    times = [[one["jd"] for one in packet["fp_hists"]] for packet in packets]
    flux = [one["forcediffimflux"] for packet in packets for one in packet["fp_hists"]]
    assert any(sorted(one) != one for one in times)
    assert -99999.0 in flux


def test_some_fields_are_null_and_some_are_minus_999(packets):
    """Both ways of saying "missing" occur."""
    candidates = [packet["candidate"] for packet in packets]
    assert {one["distpsnr1"] for one in candidates} > {None}
    assert {one["ssdistnr"] for one in candidates} >= {-999.0}


def test_cutouts_are_images(payloads):
    """Each packet has three images of 63 x 63 pixels."""
    cutouts = open_alert(payloads[0]).cutouts
    assert {kind: one.data.shape for kind, one in cutouts.items()} == dict.fromkeys(
        ("science", "template", "difference"), (63, 63)
    )


def test_sizes_are_like_the_real_ones(payloads):
    """A packet has some 50 to 90 kB."""
    assert 50_000 < sum(map(len, payloads)) / len(payloads) < 90_000


def test_the_seed_decides(payloads):
    """The same seed makes the same bytes, another one others."""
    assert list(make_night(20, 5, NIGHT)) == list(make_night(20, 5, NIGHT))
    assert list(make_night(20, 5, NIGHT)) != list(make_night(20, 6, NIGHT))


def test_repeats_are_sent_at_the_end():
    """Repeated packets are byte for byte those of before."""
    payloads = list(make_night(10, 5, NIGHT, repeats=3))
    assert (len(payloads), payloads[10:]) == (13, payloads[:3])


def test_a_night_of_nothing_is_empty():
    """No alerts, no packets."""
    assert list(make_night(0, 1, NIGHT)) == []


@pytest.mark.parametrize(("alerts", "night"), [(-1, NIGHT), (1, date(2017, 1, 1))])
def test_impossible_nights_are_refused(alerts, night):
    """A negative count or a night before the survey is an error."""
    with pytest.raises(UsageError):
        make_night(alerts, 1, night)


def test_the_survey_exports_the_generator():
    """The generator is found through its survey."""
    survey = get_survey("ztf")
    assert len(list(survey.generate(5, 1, NIGHT))) == 5


def test_a_made_packet_takes_overrides():
    """Names of the candidate and of the packet can be set."""
    packet = make_packet(rb=0.25, candid=77, objectId="ZTF20aaaaaab")
    assert (packet["candidate"]["rb"], packet["candidate"]["candid"]) == (0.25, 77)
    assert (packet["candid"], packet["objectId"]) == (77, "ZTF20aaaaaab")


def test_an_unknown_override_is_refused():
    """A misspelt field is an error, not an unused value."""
    with pytest.raises(UsageError, match="magsf"):
        make_packet(magsf=1.0)


def test_an_encoded_packet_reads_back():
    """What was encoded is what fastavro reads."""
    packet = make_packet(nbad=2)
    found = next(iter(fastavro.reader(io.BytesIO(encode_packet(packet)))))
    assert (found["candid"], found["candidate"]["nbad"]) == (packet["candid"], 2)
