"""Real packets of every survey, where they are at hand: all kept, all right."""

import csv
import io
import math
from pathlib import Path

import fastavro
import pytest

from broker.surveys import get_survey, open_alert
from broker.surveys.avro import read_header

SURVEYS = ("ztf", "lsst", "elasticc", "decat")
NO_PACKET_OF_ITS_OWN = {"lsst/schemaless/lasair_msg.v5_0.bin"}
"""A bare datum of a version that no stream sends any more, with a stray newline."""


@pytest.fixture(scope="module")
def manifest(shared_data: Path) -> list[dict[str, str]]:
    """Return the list of the packets."""
    with (shared_data / "MANIFEST.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("survey", SURVEYS)
def test_every_packet_is_stored_or_a_dead_letter(pgb, survey: str, shared_data: Path, manifest):
    """With the ids of the manifest, and again with nothing new."""
    place = str(shared_data / survey)
    expected = {
        int(row["candid_or_diaSourceId"])
        for row in manifest
        if row["path"].startswith(f"{survey}/")
        and row["decodes"] == "y"
        and row["candid_or_diaSourceId"].isdigit()
        and row["path"] not in NO_PACKET_OF_ITS_OWN
    }

    first = pgb.json("run", place, "--survey", survey)
    again = pgb.json("run", place, "--survey", survey)
    stored = pgb.rows(f"SELECT source_id FROM {survey}_alerts.verdicts")
    letters = pgb.json("deadletters", "list", "--survey", survey)

    assert first["received"] == first["stored"] + first["duplicates"] + first["dead_lettered"]
    assert expected <= {row["source_id"] for row in stored}
    assert len(stored) == first["stored"]
    assert all(letter["reason"] for letter in letters)
    assert (again["stored"], again["dead_lettered"]) == (0, 0)
    assert again["duplicates"] == first["received"]
    assert pgb.json("ledger", "--survey", survey)["reconciled"] is True


def test_packets_that_nothing_can_read_are_dead_letters(pgb, shared_data: Path, manifest):
    """The four whose headers are not valid Avro, among others."""
    undecodable = {
        Path(row["path"]).name
        for row in manifest
        if row["path"].startswith("other/") and row["decodes"] == "n"
    }

    report = pgb.json("run", str(shared_data / "other"))
    letters = pgb.json("deadletters", "list")

    assert report["stored"] == 0
    assert len(undecodable) == 4
    assert undecodable <= {Path(letter["place"]).name for letter in letters}


@pytest.mark.parametrize("survey", SURVEYS)
def test_opened_values_equal_fastavros(survey: str, shared_data: Path, manifest):
    """For every single-alert container."""
    compared = 0
    for row in manifest:
        path = shared_data / row["path"]
        if not row["path"].startswith(f"{survey}/") or row["decodes"] != "y":
            continue
        payload = path.read_bytes() if path.is_file() else b""
        if not payload.startswith(b"Obj\x01"):
            continue
        records = list(fastavro.reader(io.BytesIO(payload)))
        if len(records) != 1 or not get_survey(survey).recognises(read_header(payload).schema):
            continue
        compared += 1
        assert same(open_alert(payload, survey=survey).packet, records[0]), path
    assert compared > 0


def same(one: object, other: object) -> bool:
    """Compare values; NaN equals NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one)
    return one == other or (both_nan and math.isnan(other))
