"""Batches of payloads into columns."""

import gzip
import io
import json
import re

import fastavro
import numpy as np
import pytest

from broker.errors import DecodeError, MissingFieldError, UnknownSchemaError
from broker.surveys import SURVEYS, decode_batch, get_survey
from broker.surveys.example import encode_as_sent, example_packet
from broker.surveys.ztf.generator import encode_packet, make_packet, schema
from broker.surveys.ztf.pattern import varint

LSST = get_survey("lsst")
ZTF = get_survey("ztf")
STREAMED = [(name, version) for name in ("lsst", "elasticc", "rapid", "ztf")
            for version in get_survey(name).schemas.versions] + [("decat", "0.14")]  # fmt: skip


def sent(survey, version, number=0, **overrides):
    """Return an example alert as its survey sends it."""
    avro = survey.schemas.get(version)
    return encode_as_sent(survey, avro, example_packet(avro, number, **overrides))


def container(definition, *records, codec="null"):
    """Return records as a container."""
    out = io.BytesIO()
    fastavro.writer(out, fastavro.parse_schema(definition), records, codec=codec)
    return out.getvalue()


@pytest.mark.parametrize(("name", "version"), STREAMED)
def test_every_shipped_version_decodes_as_its_survey_sends_it(name, version):
    """An alert of each shipped version is decoded from the stream's form."""
    survey = get_survey(name)
    frames, errors = decode_batch([sent(survey, version)], survey)
    assert (errors, [frame.schema_version for frame in frames]) == ({}, [version])


def test_the_survey_of_a_container_needs_no_telling():
    """A container tells its survey."""
    frames, _ = decode_batch([encode_packet(make_packet())])
    assert (frames[0].survey.name, frames[0].schema_version) == ("ztf", "4.02")


def test_keys_are_exact():
    """Ids keep all their digits; position and time are those of the packet."""
    packet = make_packet(candid=2752190655615010050, objectId="ZTF24abcdefg", jd=2460506.75)
    frames, _ = decode_batch([encode_packet(packet)], ZTF)
    keys = frames[0].keys.row(0, named=True)
    assert keys == {
        "object_id": "ZTF24abcdefg",
        "source_id": 2752190655615010050,
        "ra": packet["candidate"]["ra"],
        "dec": packet["candidate"]["dec"],
        "mjd": 60506.25,
        "n_previous": sum(one["candid"] is not None for one in packet["prv_candidates"]),
    }


def test_versions_in_one_batch_become_frames_and_keep_their_places():
    """Mixed versions give a frame each, whose index leads back to the payloads."""
    versions = ["v10_0", "v9_0", "v10_0", "v11_1"]
    frames, _ = decode_batch([sent(LSST, version) for version in versions], LSST)
    found = {frame.schema_version: frame.index.tolist() for frame in frames}
    assert found == {"v10_0": [0, 2], "v9_0": [1], "v11_1": [3]}


def test_equal_schemas_of_two_versions_stay_apart():
    """Headers that differ only in their version give frames of their own."""
    older = json.loads(json.dumps(schema().definition)) | {"version": "4.01"}
    payloads = [encode_packet(make_packet()), container(older, make_packet())]
    frames, _ = decode_batch(payloads, ZTF)
    assert sorted(frame.schema_version for frame in frames) == ["4.01", "4.02"]


def test_a_bad_payload_leaves_the_others_unharmed():
    """Each bad payload has its error; the alerts between them are decoded."""
    good = encode_packet(make_packet())
    frames, errors = decode_batch([good, b"", good[:-3000], b"garbage", good], ZTF)
    assert [frame.index.tolist() for frame in frames] == [[0, 4]]
    assert {number: type(error) for number, error in errors.items()} == dict.fromkeys(
        (1, 2, 3), DecodeError
    )


def test_every_cut_of_a_packet_is_an_error():
    """No truncation decodes or raises."""
    packet = sent(LSST, "v11_1")
    _, errors = decode_batch([packet[:cut] for cut in range(0, len(packet), 97)], LSST)
    assert len(errors) == len(range(0, len(packet), 97))


@pytest.mark.parametrize("version", ["v7_0", "v11_1"])
def test_damaged_payloads_are_alerts_or_errors(version):
    """Whatever one changed byte does, each payload has one fate and nothing is raised."""
    payload = sent(LSST, version)
    rng = np.random.default_rng(1)
    damaged = [bytearray(payload) for _ in range(300)]
    for one, place, value in zip(
        damaged, rng.integers(len(payload), size=300), rng.integers(256, size=300), strict=True
    ):
        one[place] = value
    frames, errors = decode_batch([bytes(one) for one in damaged], LSST)
    fates = sorted([*errors, *(number for frame in frames for number in frame.index.tolist())])
    assert fates == list(range(300))


def test_avro_that_is_no_alert_is_an_error():
    """A valid container of another kind is refused by the name of its record."""
    definition = {"type": "record", "name": "other.thing", "fields": [{"name": "a", "type": "int"}]}
    _, errors = decode_batch([container(definition, {"a": 1})])
    assert "other.thing is valid Avro" in str(errors[0])


@pytest.mark.parametrize(
    "schema_text",
    ['"string"', "[]", '["null", "int"]', '{"type": "fixed", "name": "lsst.alert", "size": 2}',
     '{"type": "record", "name": "topLevelRecord", "fields": []}',
     '{"type": "record", "name": "ztf.alert", "fields": []}'],
)  # fmt: skip
def test_headers_without_an_alert_s_record_are_errors(schema_text):
    """Whatever the header says, the payload is an error and nothing is raised."""
    text = schema_text.encode()
    head = b"Obj\x01\x02\x16avro.schema" + varint(len(text)) + text + b"\x00" + bytes(16)
    frames, errors = decode_batch([head + b"\x02\x04ab" + bytes(16)])
    assert (frames, len(errors)) == ([], 1)


def test_an_alert_of_another_survey_is_an_error():
    """With a survey given, another's alerts are refused by name."""
    _, errors = decode_batch([encode_packet(make_packet())], LSST)
    assert str(errors[0]) == "record ztf.alert is an alert of ztf, not of lsst"


@pytest.mark.parametrize("codec", ["deflate", "null"])
def test_a_container_of_several_records_gives_several_rows(codec):
    """All records of a container are decoded, compressed or not."""
    avro = LSST.schemas.get("v9_0")
    records = [example_packet(avro, number) for number in range(3)]
    payload = container(avro.definition, *records, codec=codec)
    frames, errors = decode_batch([b"x", payload], LSST)
    assert (list(errors), frames[0].index.tolist()) == ([0], [1, 1, 1])


def test_gzip_is_opened():
    """A gzipped payload decodes like the plain one."""
    payload = sent(get_survey("elasticc"), "v0_9_1")
    frames, _ = decode_batch([gzip.compress(payload), payload], get_survey("elasticc"))
    assert frames[0].rows.row(0) == frames[0].rows.row(1)


def test_a_bare_datum_needs_its_schema():
    """Without survey and schema nothing can be said about bare bytes; with one they decode."""
    body = sent(LSST, "v9_0")[5:]
    _, errors = decode_batch([body])
    frames, _ = decode_batch([body], schema=LSST.schemas.get("v9_0"))
    assert "needs a named schema" in str(errors[0])
    assert frames[0].schema_version == "v9_0"


@pytest.mark.parametrize("version", ["v7_0", "v11_1"])
def test_a_frame_that_lost_its_id_decodes_with_the_schema_that_fits(version):
    """A bare datum of a survey that numbers its schemas is tried with all that ship."""
    frames, _ = decode_batch([sent(LSST, version)[5:]], LSST)
    assert [frame.schema_version for frame in frames] == [version]


def test_bare_garbage_gives_one_reason():
    """The error has the words of one schema, not of ten."""
    _, errors = decode_batch([b"\x02garbage"], LSST)
    assert re.fullmatch(r"no known .* lsst\.v11_1\.alert: .* \(nor of 9 .*\)", str(errors[0]))


def test_bare_datums_of_both_versions_decode_in_one_batch():
    """The schemas that ship are tried, newest first."""
    survey = get_survey("elasticc")
    payloads = [sent(survey, version, 7) for version in ("v0_9", "v0_9_1")]
    frames, errors = decode_batch(payloads, survey)
    found = {frame.schema_version: frame.index.tolist() for frame in frames}
    assert (found, errors) == ({"v0_9": [0], "v0_9_1": [1]}, {})


def test_an_unknown_schema_id_is_an_error():
    """A major version that does not ship is an error that says what to do."""
    payload = b"\x00" + (1200).to_bytes(4, "big") + b"rest"
    _, errors = decode_batch([payload], LSST)
    assert isinstance(errors[0], UnknownSchemaError)


def test_an_lsst_alert_without_any_object_is_missing_a_field():
    """Both ids null or 0 is no alert that can be stored."""
    nothing = {"diaObjectId": 0, "ssObjectId": 0}
    payload = sent(LSST, "v11_1", diaSource=nothing, diaObject=None, ssSource=None)
    _, errors = decode_batch([payload], LSST)
    assert isinstance(errors[0], MissingFieldError)
    assert "object_id" in str(errors[0])


def test_a_solar_system_alert_has_the_id_of_its_object():
    """Without a diaObject the id is that of the ssObject, under its own attribute."""
    payloads = [
        sent(LSST, "v11_1", 0, diaSource={"diaObjectId": 0, "ssObjectId": 55}, diaObject=None,
             ssSource={"ssObjectId": 55}),
        sent(LSST, "v11_1", 1, ssSource=None),
    ]  # fmt: skip
    frames, _ = decode_batch(payloads, LSST)
    attributes = frames[0].attributes.select("diaObject_diaObjectId", "ssSource_ssObjectId")
    dia = example_packet(LSST.schemas.get("v11_1"))["diaObject"]["diaObjectId"]
    assert frames[0].keys["object_id"].to_list() == [55, dia]
    assert attributes.rows() == [(None, 55), (dia, None)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e99])
def test_a_position_that_is_no_place_is_missing(value):
    """NaN is how some surveys send null; what is beyond the sky is damage."""
    _, errors = decode_batch([encode_packet(make_packet(ra=value))], ZTF)
    assert str(errors[0]) == "the ztf alert has no usable ra"


def test_shared_headers_are_kept_once():
    """Payloads of one header point to it; it is what they start with."""
    payloads = [encode_packet(make_packet(seed)) for seed in range(3)]
    frames, _ = decode_batch(payloads, ZTF)
    prefix = frames[0].prefixes[0]
    assert frames[0].prefix_index.tolist() == [0, 0, 0]
    assert all(payload.startswith(prefix) for payload in payloads)


def test_frames_without_headers_have_no_prefix():
    """A Confluent frame shares no leading bytes worth keeping."""
    frames, _ = decode_batch([sent(LSST, "v11_1")], LSST)
    assert frames[0].prefix_index.tolist() == [-1]


def test_attributes_name_ids_version_and_history():
    """The packet's own message attributes come with the frame."""
    frames, _ = decode_batch([encode_packet(make_packet(candid=17))], ZTF)
    row = frames[0].attributes.row(0, named=True)
    assert list(row) == ["objectId", "candid", "schema_version", "n_previous_detections"]
    assert (row["candid"], row["schema_version"]) == (17, "4.02")


def test_a_null_history_counts_no_detections():
    """Null and empty histories hold no earlier detection."""
    payloads = [encode_packet(make_packet(prv_candidates=none)) for none in (None, [])]
    frames, _ = decode_batch(payloads, ZTF)
    assert frames[0].keys["n_previous"].to_list() == [0, 0]


def test_cutouts_are_no_columns():
    """Rows hold no bytes, at any depth."""
    frames, _ = decode_batch([encode_packet(make_packet())], ZTF)
    assert "Binary" not in str(frames[0].rows.schema)


def test_rows_of_a_copy_without_version_are_labelled_by_what_they_say():
    """A re-serialised copy is known by its fields; its packets tell the version."""
    definition = json.loads(json.dumps(schema().definition)) | {"name": "topLevelRecord"}
    del definition["version"]
    payload = container(definition, make_packet(schemavsn="3.3"), make_packet(schemavsn="4.02"))
    frames, _ = decode_batch([payload])
    assert sorted(frame.schema_version for frame in frames) == ["3.3", "4.02"]


def test_a_copy_that_says_nothing_has_the_version_it_is_like():
    """Without any label the version is the shipped one with the same fields."""
    definition = LSST.schemas.get("v8_0").definition | {"name": "topLevelRecord"}
    payload = container(definition, example_packet(LSST.schemas.get("v8_0")))
    frames, _ = decode_batch([payload])
    assert (frames[0].survey.name, frames[0].schema_version) == ("lsst", "v8_0")


def test_json_alerts_decode():
    """A JSON rendering of an alert has the same keys as the alert."""
    packet = example_packet(LSST.schemas.get("v10_0"))
    text = json.dumps(packet, default=lambda value: "").encode()
    frames, errors = decode_batch([text, sent(LSST, "v10_0")])
    assert errors == {}
    assert frames[0].keys.rows() == frames[1].keys.rows()


@pytest.mark.parametrize("text", [b"{", b'{"a": 1}', b'{"diaSource": NaN}'])
def test_json_that_is_no_alert_is_an_error(text):
    """JSON of another kind is refused."""
    _, errors = decode_batch([text])
    assert isinstance(errors[0], DecodeError)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("psfFlux", "bright", "diaSource.psfFlux is no float"),
        ("diaSourceId", 2**63, "diaSource.diaSourceId is no long"),
        ("diaSourceId", 1.5, "diaSource.diaSourceId is no long"),
        ("band", "\ud800", "diaSource.band is no string"),
        ("band", {}, "diaSource.band is no string"),
    ],
)
def test_json_that_does_not_fit_says_where(field, value, reason):
    """The reason names the field and what it should be, and quotes no error of Python's."""
    packet = example_packet(LSST.schemas.get("v10_0"))
    packet["diaSource"][field] = value
    text = json.dumps(packet, default=lambda value: "").encode()

    _, errors = decode_batch([text])

    assert re.fullmatch(
        rf"the JSON does not fit schema lsst\.v1\d_\d\.alert: {reason}", str(errors[0])
    )


def test_cutouts_of_json_are_base64():
    """Other text in their place is a reason to refuse the packet."""
    packet = example_packet(LSST.schemas.get("v10_0")) | {"cutoutScience": "A"}
    text = json.dumps(packet, default=lambda value: "").encode()

    _, errors = decode_batch([text])

    assert str(errors[0]).endswith("cutoutScience is no bytes")


@pytest.mark.parametrize("text", [b'{"a": "\xff"}', b'{"a":' * 100_000, b'{"a": ' + b"9" * 9000])
def test_json_that_python_cannot_read_is_told_in_words(text):
    """Bytes that are no text, endless nesting and endless numbers are no JSON of ours."""
    _, errors = decode_batch([text])

    assert re.match("not JSON: (it is not UTF-8|nested too deeply)", str(errors[0]))


def test_an_empty_batch_is_empty():
    """No payloads, no frames."""
    assert decode_batch([]) == ([], {})


def test_selecting_rows_keeps_all_parts_in_step():
    """A mask applies to rows, keys, index and prefixes alike."""
    payloads = [encode_packet(make_packet(candid=10 + number)) for number in range(3)]
    frame = decode_batch(payloads)[0][0].select(np.array([True, False, True]))
    assert frame.index.tolist() == [0, 2]
    assert frame.keys["source_id"].to_list() == frame.rows["candid"].to_list() == [10, 12]


def test_real_alerts_of_every_survey_decode(shared_data):
    """Every real file gives rows or an error in words; ids agree with the manifest."""
    lines = (shared_data / "MANIFEST.tsv").read_text().splitlines()[1:]
    cells = [line.split("\t") for line in lines]
    for name in ("ztf", "decat", "elasticc"):
        wanted = {
            int(one[9]) for one in cells if one[0].startswith(f"{name}/") and one[9].isdigit()
        }
        files = [shared_data / one[0] for one in cells if one[6] == name and one[13] != "schema"]
        files = [file for file in files if not file.name.endswith(".tar.gz")]
        frames, errors = decode_batch([file.read_bytes() for file in files], SURVEYS[name])
        found = {one for frame in frames for one in frame.keys["source_id"].to_list()}
        assert (errors, wanted - found) == ({}, set())
