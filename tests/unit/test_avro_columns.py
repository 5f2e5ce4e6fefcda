"""Columns: projection, starts, schemas that need fastavro, growth, threads."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import fastavro
import numpy as np
import polars as pl
import pytest

from broker.errors import UsageError
from broker.surveys.avro import AvroSchema, ColumnDecoder, container_from_body, decode_record

POINT = {
    "type": "record",
    "name": "point",
    "fields": [{"name": "mag", "type": ["null", "float"]}, {"name": "raw", "type": "bytes"}],
}
FIELDS = [
    {"name": "id", "type": "long"},
    {"name": "now", "type": POINT},
    {"name": "past", "type": ["null", {"type": "array", "items": "point"}]},
    {"name": "words", "type": {"type": "array", "items": "string"}},
    {"name": "time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
]
SCHEMA = AvroSchema.parse({"type": "record", "name": "packet", "fields": FIELDS})
WIDER = AvroSchema.parse(
    {
        "type": "record",
        "name": "packet",
        "fields": [
            *FIELDS,
            {"name": "map", "type": {"type": "map", "values": "int"}},
            {"name": "number", "type": ["null", "int", "double"]},
        ],
    }
)
NOW = datetime(2026, 2, 24, 1, 2, 3, 4, UTC)


def packet(number: int, items: int = 2) -> dict[str, object]:
    """Make one packet's dict."""
    past = [{"mag": None if i % 2 else float(i), "raw": b"x"} for i in range(items)]
    words = ["a word longer than a view"] * items
    return {
        "id": number, "now": {"mag": 1.5, "raw": b"raw"}, "past": past or None, "words": words,
        "time": NOW, "map": {"one": 1}, "number": 2 if number % 2 else 0.5,
    }  # fmt: skip


def encoded(schema: AvroSchema, *packets: dict[str, object]) -> list[bytes]:
    """Write bare datums."""
    bodies = []
    for one in packets:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema.fastavro, one)
        bodies.append(out.getvalue())
    return bodies


def test_projection_keeps_the_wanted_columns() -> None:
    """Only wanted fields have columns; the others are checked all the same."""
    bodies = encoded(SCHEMA, packet(1), packet(2))
    bad = bodies[0][:-1]

    decoded = ColumnDecoder(SCHEMA, ["now.mag", "past"]).decode([*bodies, bad])

    assert decoded.frame.columns == ["now", "past"]
    assert decoded.frame["now"].struct.field("mag").to_list() == [1.5, 1.5]
    assert decoded.frame["past"].to_list()[0] == [{"mag": 0.0}, {"mag": None}]
    assert not decoded.blobs
    assert list(decoded.errors) == [2]


def test_nothing_wanted() -> None:
    """Without columns the rows are still known."""
    decoded = ColumnDecoder(SCHEMA, []).decode(encoded(SCHEMA, packet(1)))

    assert decoded.rows.tolist() == [0]
    assert decoded.frame.width == 0


def test_types_of_columns() -> None:
    """Each Avro type has its column type, in an empty batch too."""
    point = pl.Struct({"mag": pl.Float32})
    expected = {
        "id": pl.Int64, "now": point, "past": pl.List(point), "words": pl.List(pl.String),
        "time": pl.Datetime("us", "UTC"),
    }  # fmt: skip

    assert dict(ColumnDecoder(SCHEMA).decode([]).frame.schema) == expected


def test_starts() -> None:
    """A datum may start anywhere; a start outside of the payload is an error."""
    body = encoded(SCHEMA, packet(7))[0]
    starts = np.array([3, 0, -1, 10_000])

    decoded = ColumnDecoder(SCHEMA).decode([b"abc" + body, body, body, body], starts)

    assert decoded.rows.tolist() == [0, 1]
    assert list(decoded.errors) == [2, 3]
    offset, length = decoded.blobs["now.raw"]
    assert (b"abc" + body)[offset[0] : offset[0] + length[0]] == b"raw"


def test_fallback_gives_the_same_frame() -> None:
    """A schema with a map is read by fastavro; the other columns are the same."""
    packets = [packet(1), packet(2, 0), packet(3)]
    plain = ColumnDecoder(SCHEMA).decode(encoded(SCHEMA, *packets))
    bodies = encoded(WIDER, *packets)
    decoder = ColumnDecoder(WIDER)

    decoded = decoder.decode([bodies[0], b"\x00", *bodies[1:]])

    assert not decoder.compiled
    assert decoded.rows.tolist() == [0, 2, 3]
    assert list(decoded.errors) == [1]
    assert decoded.frame.select(plain.frame.columns).equals(plain.frame)
    assert decoded.frame["map"].to_list()[0] == [{"key": "one", "value": 1}]
    assert decoded.frame["number"].to_list() == [2.0, 0.5, 2.0]
    offset, length = decoded.blobs["now.raw"]
    assert bodies[0][offset[0] : offset[0] + length[0]] == b"raw"


@pytest.mark.parametrize("more", [[], [{"name": "map", "type": {"type": "map", "values": "int"}}]])
def test_last_of_two_fields_of_one_name_counts(more: list[dict[str, object]]) -> None:
    """As with fastavro, whether the kernel or fastavro reads; WINTER has such schemas."""
    fields = [
        {"name": "b", "type": "bytes"},
        {"name": "x", "type": ["null", POINT]},
        {"name": "x", "type": "int"},
        {"name": "b", "type": "bytes"},
        *more,
    ]
    schema = AvroSchema.parse({"type": "record", "name": "packet", "fields": fields})
    body = b"\x02a" + b"\x02\x00\x04zz" + b"\x0a" + b"\x04yy" + b"\x00" * len(more)

    decoded = ColumnDecoder(schema).decode([body, body[:-1]])

    assert decoded.frame["x"].to_list() == [5]
    offset, length = decoded.blobs["b"]
    assert body[offset[0] : offset[0] + length[0]] == b"yy"
    assert decode_record(schema, body)["b"] == b"yy"
    assert list(decoded.errors) == [1]


def test_wide_int_is_refused_by_fastavro_too() -> None:
    """What the kernel refuses is an error where fastavro reads, and not one of the frame."""
    fields = [
        {"name": "n", "type": "int"},
        {"name": "map", "type": {"type": "map", "values": "int"}},
    ]
    schema = AvroSchema.parse({"type": "record", "name": "packet", "fields": fields})

    decoded = ColumnDecoder(schema).decode([b"\x80\x80\x80\x80\x20\x00", b"\x02\x00"])

    assert decoded.frame["n"].to_list() == [1]
    assert decoded.errors == {0: "an int has more than 32 bits"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x07", "there is no such branch of the union, or symbol of the enum"),
        (b"\x02\x04\xff\xff", "a string is not UTF-8"),
        (b"\x02\x40", "the packet ends too early"),
        (b"\x04\x08none", "a value is not what its type allows"),
    ],
)
def test_reasons_of_fastavro_are_in_our_words(body: bytes, reason: str) -> None:
    """No error of Python's is quoted."""
    id_ = {"name": "id", "type": {"type": "string", "logicalType": "uuid"}}
    union = ["int", "string", {"type": "record", "name": "u", "fields": [id_]}]
    fields = [{"name": "x", "type": union}]
    schema = AvroSchema.parse({"type": "record", "name": "packet", "fields": fields})

    assert ColumnDecoder(schema).decode([body]).errors == {0: reason}


def test_packets_of_bytes_only() -> None:
    """Where no field has a column, damaged containers are errors and the others rows."""
    fields = [{"name": "a", "type": "bytes"}]
    schema = AvroSchema.parse({"type": "record", "name": "packet", "fields": fields})
    good = container_from_body(schema, b"\x04hi")

    decoded = ColumnDecoder(schema).decode([good, good[:-1], good], framing="container")

    assert decoded.rows.tolist() == [0, 2]
    assert list(decoded.errors) == [1]
    assert decoded.blobs["a"][1].tolist() == [2, 2]


def test_room_grows() -> None:
    """Lists and strings far beyond what was expected are decoded all the same."""
    bodies = encoded(SCHEMA, packet(1), packet(2, 5000), packet(3))

    decoded = ColumnDecoder(SCHEMA).decode(bodies)

    assert decoded.frame["past"].list.len().to_list() == [2, 5000, 2]
    assert decoded.frame["words"].list.last().unique().to_list() == ["a word longer than a view"]


@pytest.mark.parametrize("count", [2**62, 2**31, 10**6])
def test_absurd_counts_are_refused_at_once(count: int) -> None:
    """A count that the bytes cannot hold costs neither time nor memory."""
    head = encoded(SCHEMA, packet(1, 0))[0][:-10]
    number, size = count << 1, bytearray()
    while number > 127:
        size.append(number & 127 | 128)
        number >>= 7
    body = head + bytes([*size, number]) + b"\0" * 50

    assert ColumnDecoder(SCHEMA).decode([body]).errors


def test_frames_do_not_share_memory() -> None:
    """A frame that is kept does not change when further batches are decoded."""
    decoder = ColumnDecoder(SCHEMA)
    kept = decoder.decode(encoded(SCHEMA, *map(packet, range(500)))).frame
    for start in range(1, 5):
        decoder.decode(encoded(SCHEMA, *map(packet, range(start, 500))))

    assert kept["id"].to_list() == list(range(500))
    assert kept["words"].list.first().n_unique() == 1


def test_threads() -> None:
    """One decoder serves several threads."""
    decoder = ColumnDecoder(SCHEMA)
    batches = [encoded(SCHEMA, *(packet(n, n % 9) for n in range(s, s + 300))) for s in range(8)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(decoder.decode, batches * 4))

    for place, decoded in enumerate(found):
        start = place % 8
        assert decoded.frame["id"].to_list() == list(range(start, start + 300))
        lengths = decoded.frame["words"].list.len().to_list()
        assert lengths == [n % 9 for n in range(start, start + 300)]


def test_container_with_another_schema_is_an_error() -> None:
    """A container of another schema than the decoder's is refused."""
    payload = container_from_body(WIDER, encoded(WIDER, packet(1))[0])

    decoded = ColumnDecoder(SCHEMA).decode([payload], framing="container")

    assert "another" in decoded.errors[0]


def test_import_does_not_compile() -> None:
    """Importing the package leaves the compiler alone."""
    code = "import sys, broker.surveys.avro; sys.exit('numba' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_packet_from_columns() -> None:
    """A whole dict comes back from the columns; where bytes are in lists it is refused."""
    fields = [one for one in FIELDS if one["name"] != "past"]
    schema = AvroSchema.parse({"type": "record", "name": "packet", "fields": fields})
    bodies = encoded(schema, packet(1), packet(2))

    found = ColumnDecoder(schema).decode(bodies).packet(bodies, 1)

    assert found == decode_record(schema, bodies[1])
    with pytest.raises(UsageError):
        ColumnDecoder(SCHEMA).decode(encoded(SCHEMA, packet(1))).packet(bodies, 0)
