"""Table rows of each survey."""

import io

import fastavro
import polars as pl
import pytest

from broker.surveys import decode_batch, get_survey
from broker.surveys.example import encode_as_sent, example_packet
from broker.surveys.ztf.generator import encode_packet, make_packet, schema

DECAT_OBJECT = (
    "objectid ra dec gallong gallat parallax tdisc ls_check lsobjectid lstype lsdist lszphotmed "
    "lszphotmean lszphotl68 lszphotu68 lszphotl95 lszphotu95"
)


def frame_of(name, version):
    """Return the frame of one example alert."""
    survey = get_survey(name)
    avro = survey.schemas.get(version)
    frames, _ = decode_batch([encode_as_sent(survey, avro, example_packet(avro))], survey)
    return frames[0]


def ztf_frame(**overrides):
    """Return the frame of one made ZTF alert."""
    return decode_batch([encode_packet(make_packet(**overrides))])[0][0]


def test_ztf_detections_have_107_columns():
    """Four ids, 102 fields of the candidate and the joined candids."""
    frame = ztf_frame()
    candidate = [one["name"] for one in schema().definition["fields"][4]["type"]["fields"]]
    candidate.remove("candid")
    expected = [
        "schemavsn",
        "publisher",
        "objectId",
        "candid",
        *candidate,
        "prv_candidates_candids",
    ]
    found = frame.survey.dia_source_rows(frame)
    assert (found.columns, len(expected)) == (expected, 107)


@pytest.mark.parametrize(
    ("history", "joined"), [(None, None), ([], ""), ([5, None, 6], "5,6"), ([None], "")]
)
def test_ztf_earlier_candids_are_joined(history, joined):
    """Null candids are left out; a null history stays null."""
    entry = make_packet()["prv_candidates"][0]
    listed = None if history is None else [entry | {"candid": one} for one in history]
    frame = ztf_frame(prv_candidates=listed)
    assert frame.survey.dia_source_rows(frame)["prv_candidates_candids"].to_list() == [joined]


def test_rows_of_a_survey_without_the_history():
    """The joined column is there, null in each of several rows."""
    frame = ztf_frame()
    rows = pl.concat([frame.rows.drop("prv_candidates")] * 3)

    found = frame.survey.source_table.rows(rows, rows.schema)

    assert found["prv_candidates_candids"].to_list() == [None] * 3


def test_ztf_alerts_have_no_cutouts():
    """The nested table has the packet's fields but the cutouts."""
    frame = ztf_frame()
    assert frame.survey.alerts_rows(frame).columns == [
        "schemavsn", "publisher", "objectId", "candid", "candidate", "prv_candidates", "fp_hists"
    ]  # fmt: skip


def test_lsst_detections_are_the_dia_source():
    """The fields of diaSource, its object ids among them."""
    frame = frame_of("lsst", "v11_1")
    found = frame.survey.dia_source_rows(frame)
    assert found.width == 102
    assert {"diaSourceId", "diaObjectId", "ssObjectId", "midpointMjdTai"} <= set(found.columns)


def test_elasticc_detections_have_the_alert_id():
    """The alert's id and the fields of diaSource."""
    frame = frame_of("elasticc", "v0_9_1")
    assert frame.survey.dia_source_rows(frame).columns == [
        "alertId", "diaSourceId", "diaObjectId", "midPointTai", "filterName", "ra", "decl",
        "psFlux", "psFluxErr", "snr",
    ]  # fmt: skip


def test_decat_detections_have_48_columns():
    """Object columns first; the detection's position is renamed, its cutouts are left out."""
    frame = frame_of("decat", "0.14")
    found = frame.survey.dia_source_rows(frame)
    assert found.columns[:17] == DECAT_OBJECT.split()
    assert {"source_ra", "source_dec", "sources_sourceids"} <= set(found.columns)
    assert found.width == 48


def test_fields_that_others_added_are_no_columns():
    """A re-serialised copy's own fields do not reach the table."""
    definition = schema().definition | {"name": "topLevelRecord"}
    definition["fields"] = [*definition["fields"], {"name": "added", "type": "int"}]
    out = io.BytesIO()
    fastavro.writer(out, fastavro.parse_schema(definition), [make_packet() | {"added": 1}])
    frame = decode_batch([out.getvalue()])[0][0]
    assert "added" in frame.rows.columns
    assert "added" not in frame.survey.alerts_rows(frame).columns
