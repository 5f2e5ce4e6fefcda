"""Opening one alert from anything, and putting it into a container."""

import base64
import gzip
import io
import json

import fastavro
import numpy as np
import pytest
from astropy.io import fits

from broker.errors import DecodeError, UnknownSchemaError, UsageError
from broker.surveys import (
    DEFAULT_SURVEY,
    SURVEYS,
    container_of,
    decode_batch,
    get_survey,
    open_alert,
)
from broker.surveys.example import encode_as_sent, example_packet
from broker.surveys.ztf.generator import encode_packet, make_packet

LSST = get_survey("lsst")
ELASTICC = get_survey("elasticc")
PACKET = make_packet(candid=2752190655615010050)
PAYLOAD = encode_packet(PACKET)


def sent(survey, version):
    """Return an example packet and how its survey sends it."""
    avro = survey.schemas.get(version)
    packet = example_packet(avro)
    return packet, encode_as_sent(survey, avro, packet)


def read_container(payload):
    """Return the records of a container as fastavro reads them."""
    return list(fastavro.reader(io.BytesIO(payload)))


@pytest.fixture
def file(tmp_path):
    """A file with one alert."""
    path = tmp_path / "alert.avro"
    path.write_bytes(PAYLOAD)
    return path


def sources(file):
    """Return every form in which one alert may be handed over."""
    encoded = base64.b64encode(PAYLOAD)
    return [file, str(file), PAYLOAD, encoded, encoded.decode(), io.BytesIO(PAYLOAD)]


@pytest.mark.parametrize("which", range(6))
def test_every_form_gives_the_same_alert(file, which):
    """Path, text of a path, bytes, base64 bytes and text, and file objects are equal."""
    alert = open_alert(sources(file)[which])
    assert (alert.survey, alert.packet, alert.payload) == ("ztf", PACKET_READ, PAYLOAD)


PACKET_READ = read_container(PAYLOAD)[0]


def test_values_equal_fastavro_s():
    """The packet is what fastavro reads."""
    packet, payload = sent(LSST, "v9_0")
    body = io.BytesIO(payload[5:])
    expected = fastavro.schemaless_reader(body, LSST.schemas.get("v9_0").fastavro)
    assert open_alert(payload).packet == expected
    assert expected["diaSourceId"] == packet["diaSourceId"]


def test_a_frame_tells_survey_and_version():
    """A numbered frame needs no help."""
    alert = open_alert(sent(LSST, "v11_0")[1])
    assert (alert.survey, alert.schema_version) == ("lsst", "v11_0")


def test_a_bare_datum_opens_with_its_survey():
    """The survey's shipped schemas are tried."""
    alert = open_alert(sent(ELASTICC, "v0_9")[1], survey="elasticc")
    assert (alert.schema_version, alert.band) == ("v0_9", "r")


@pytest.mark.parametrize("schema", ["v9_0", "lsst.v9_0.alert"])
def test_a_bare_datum_opens_with_a_named_schema(schema):
    """A schema's version or full name is enough for a bare datum."""
    assert open_alert(sent(LSST, "v9_0")[1][5:], schema=schema).survey == "lsst"


def test_gzip_of_a_bare_datum_opens():
    """Gzip around a bare datum is opened first."""
    payload = gzip.compress(sent(ELASTICC, "v0_9_1")[1])
    assert open_alert(payload, survey="elasticc").schema_version == "v0_9_1"


def test_a_json_notice_opens():
    """A gravitational-wave notice has an id and no position."""
    packet = example_packet(get_survey("lvk").schemas.get("v1_0"), schema_version="v1_0")
    alert = open_alert(
        encode_as_sent(get_survey("lvk"), get_survey("lvk").schemas.get("v1_0"), packet)
    )
    assert (alert.survey, alert.object_id, alert.ra) == ("lvk", "MS240715a", None)


def test_the_cutouts_of_json_are_base64():
    """An image in a JSON alert is read like any other."""
    out = io.BytesIO()
    fits.PrimaryHDU(np.ones((3, 4), np.float32)).writeto(out)
    packet = example_packet(LSST.schemas.get("v10_0"), cutoutScience=out.getvalue())
    text = json.dumps(packet, default=lambda value: base64.b64encode(value).decode())
    assert open_alert(text.encode()).cutouts["science"].data.shape == (3, 4)


def test_garbage_lists_what_was_tried():
    """The error says as what the bytes were tried, and does not hold them."""
    with pytest.raises(DecodeError, match=r"as bytes: no known format.*as base64: no known format"):
        open_alert(b"bm90IGFuIGFsZXJ0")


def test_an_error_is_short_for_a_long_payload():
    """A large bad payload does not end up in the error."""
    with pytest.raises(DecodeError) as caught:
        open_alert(b"\xff" * 1_000_000)
    assert len(str(caught.value)) < 1000


def test_a_container_of_two_records_is_refused():
    """One alert is one record."""
    avro = LSST.schemas.get("v9_0")
    out = io.BytesIO()
    fastavro.writer(out, avro.fastavro, [example_packet(avro), example_packet(avro, 1)])
    with pytest.raises(DecodeError, match="holds 2 records"):
        open_alert(out.getvalue())


def test_an_unknown_schema_stays_an_unknown_schema_error():
    """The advice on unknown schemas reaches the caller."""
    with pytest.raises(UnknownSchemaError, match="pgb schemas add"):
        open_alert(io.BytesIO(b"\x00" + (1200).to_bytes(4, "big") + b"rest"), survey="lsst")


def test_a_missing_file_is_a_usage_error(tmp_path):
    """A path that does not exist is named."""
    with pytest.raises(UsageError, match=r"gone\.avro"):
        open_alert(tmp_path / "gone.avro")


def test_text_that_is_nothing_is_a_usage_error():
    """Text must be the name of a file or base64."""
    with pytest.raises(UsageError, match="neither a file nor base64"):
        open_alert("no such file.avro")


def test_an_unknown_schema_name_is_a_usage_error():
    """A schema that does not ship is named."""
    with pytest.raises(UsageError, match="v99_0"):
        open_alert(b"x", schema="v99_0")


def test_an_unknown_survey_lists_the_known_ones():
    """The error helps to correct the name."""
    with pytest.raises(UsageError, match="decat, elasticc, lsst, lvk, rapid, ztf"):
        get_survey("zft")


def test_the_default_survey_is_known():
    """The default is one of the surveys."""
    assert DEFAULT_SURVEY in SURVEYS


@pytest.mark.parametrize(
    ("name", "version"),
    [("lsst", "v11_1"), ("lsst", "v7_0"), ("elasticc", "v0_9_1"), ("rapid", "v01_00")],
)
def test_any_alert_goes_into_a_container(name, version):
    """What came as a frame or a bare datum is a valid container with the same data."""
    survey = get_survey(name)
    _, payload = sent(survey, version)
    alert = open_alert(payload, survey=name)
    assert read_container(container_of(payload, survey)) == [alert.packet]
    assert read_container(alert.to_container()) == [alert.packet]


def test_a_gzipped_container_becomes_the_container():
    """Gzip is taken off and nothing else is changed."""
    assert container_of(gzip.compress(PAYLOAD)) == container_of(PAYLOAD)


def test_json_goes_into_a_container():
    """A JSON alert becomes Avro with the fields of its version."""
    packet = example_packet(LSST.schemas.get("v10_0"))
    text = json.dumps(packet, default=lambda value: "").encode()
    record = read_container(container_of(text, LSST))[0]
    assert record["diaSource"]["diaSourceId"] == packet["diaSource"]["diaSourceId"]


def test_a_second_pass_through_the_container_changes_nothing():
    """A corrected container is left as it is."""
    once = container_of(sent(LSST, "v9_0")[1], LSST)
    assert container_of(once, LSST) == once


def test_single_alerts_and_batches_agree(shared_data):
    """Keys from columns are the words of the packets, for real alerts of every version."""
    folders = [
        *sorted((shared_data / "ztf").glob("*/*.avro"))[::5],
        *(shared_data / "lsst/wire").iterdir(),
    ]
    payloads = [file.read_bytes() for file in folders]
    frames, errors = decode_batch(payloads)
    assert errors == {}
    for frame in frames:
        for place, row in zip(frame.index, frame.keys.iter_rows(named=True), strict=True):
            alert = open_alert(payloads[place])
            words = (alert.object_id, alert.source_id, alert.ra, alert.dec, alert.mjd)
            assert words == tuple(row.values())[:5]
            assert alert.attributes["n_previous_detections"] == row["n_previous"]
            assert alert.schema_version == frame.schema_version


def test_real_alerts_open_and_contain_the_same_data(shared_data):
    """One real file of each folder opens, cutouts and attributes included."""
    for folder, pattern in (("ztf", "*/*.avro"), ("decat", "*.avro"), ("lsst", "wire/*.bin")):
        files = sorted((shared_data / folder).glob(pattern))[::20]
        for file in files:
            alert = open_alert(file)
            assert alert.attributes["schema_version"] == alert.schema_version
            assert len(alert.cutouts) in (0, 3)
            assert len(read_container(alert.to_container())) == 1


@pytest.mark.parametrize("size", [300, 3000])
def test_text_of_any_length_may_be_base64(size: int):
    """Also where it would be too long for the name of a file."""
    with pytest.raises(DecodeError, match="not an alert"):
        open_alert(base64.b64encode(b"x" * size).decode())
