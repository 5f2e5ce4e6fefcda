"""Containers: headers, codecs, wrapping and correcting."""

import bz2
import io
import lzma
import random
import struct
import zlib
from collections.abc import Callable

import cramjam
import fastavro
import pytest

from broker.errors import DecodeError
from broker.surveys.avro import (
    AvroSchema,
    ColumnDecoder,
    container_from_body,
    correct_container,
    decode_container,
    decode_record,
    read_header,
    write_container,
)

SCHEMA = AvroSchema.parse(
    {
        "type": "record",
        "name": "packet",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "mag", "type": ["float", "null"], "default": None},
            {"name": "stamp", "type": ["null", "bytes"], "default": None},
        ],
    }
)
RECORDS = [
    {"id": 2**53 + 1, "mag": 1.100000023841858, "stamp": b"\x1f\x8b"},
    {"id": -1, "mag": None, "stamp": None},
]


def written(codec: str = "null", records: list[dict[str, object]] = RECORDS) -> bytes:
    """Write records with fastavro, one block each."""
    out = io.BytesIO()
    fastavro.writer(out, SCHEMA.fastavro, records, codec=codec, sync_interval=1)
    return out.getvalue()


def body(number: int = 5) -> bytes:
    """Write one bare datum."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA.fastavro, {"id": number, "mag": 2.5, "stamp": b"s"})
    return out.getvalue()


def test_write_then_decode() -> None:
    """Records survive a container, and the same records give the same bytes."""
    payload = write_container(SCHEMA, RECORDS)

    assert decode_container(payload) == RECORDS
    assert list(fastavro.reader(io.BytesIO(payload))) == RECORDS
    assert write_container(SCHEMA, RECORDS) == payload


def test_wrapped_body_is_unchanged() -> None:
    """A bare datum is wrapped byte for byte."""
    payload = container_from_body(SCHEMA, body(), b"s" * 16)

    assert body() in payload
    assert payload.endswith(b"s" * 16)
    assert decode_container(payload)[0]["id"] == 5


def test_header_is_read_once() -> None:
    """A second packet with the same header gets the same object."""
    first, second = (container_from_body(SCHEMA, body(n)) for n in (1, 2))

    header = read_header(first)

    assert read_header(second) is header
    assert first[: header.length - 16] == header.prefix
    assert header.codec == "null"


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_codecs_and_several_blocks(codec: str) -> None:
    """Records of compressed containers and of several blocks become rows of one payload."""
    payloads = [container_from_body(SCHEMA, body()), written(codec), b"Obj\x01rubbish"]

    decoded = ColumnDecoder(SCHEMA).decode(payloads, framing="container")

    assert decode_container(payloads[1]) == RECORDS
    assert decoded.rows.tolist() == [0, 1, 1]
    assert decoded.frame["id"].to_list() == [5, 2**53 + 1, -1]
    assert list(decoded.errors) == [2]
    offset, length = decoded.blobs["stamp"]
    data = decoded.expanded.get(1, payloads[1])
    assert data[offset[1] : offset[1] + length[1]] == b"\x1f\x8b"
    assert length[2] == -1


def compressed(codec: bytes, block: bytes) -> bytes:
    """Make a container around a block that is compressed already."""
    plain = container_from_body(SCHEMA, block)
    name = bytes([2 * len(codec)]) + codec
    return plain.replace(b"\x14avro.codec\x08null", b"\x14avro.codec" + name)


def test_snappy() -> None:
    """Snappy blocks are expanded, and their checksum counts."""
    block = bytes(cramjam.snappy.compress_raw(body())) + struct.pack(">I", zlib.crc32(body()))
    damaged = block[:-1] + bytes([block[-1] ^ 1])

    assert decode_container(compressed(b"snappy", block))[0]["id"] == 5
    with pytest.raises(DecodeError, match="checksum"):
        decode_container(compressed(b"snappy", damaged))


def test_zstandard_of_any_size() -> None:
    """A block that stays large when compressed, as cutouts do, is expanded too."""
    stamp = random.Random(1).randbytes(70_000)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA.fastavro, {"id": 1, "mag": None, "stamp": stamp})

    block = bytes(cramjam.zstd.compress(out.getvalue()))

    assert decode_container(compressed(b"zstandard", block))[0]["stamp"] == stamp


def test_zstandard() -> None:
    """Zstandard blocks are expanded; what is cut or none is refused."""
    block = bytes(cramjam.zstd.compress(body()))

    assert decode_container(compressed(b"zstandard", block))[0]["id"] == 5
    for broken in (block[:-3], b"none", b""):
        with pytest.raises(DecodeError):
            decode_container(compressed(b"zstandard", broken))


def test_unknown_codec_is_refused() -> None:
    """A codec that nobody knows is an error of the packet."""
    with pytest.raises(DecodeError, match="codec"):
        decode_container(compressed(b"rot13", body()))


def test_bomb_is_refused() -> None:
    """A block that expands beyond the limit is refused before it fills the memory."""
    out = io.BytesIO()
    big = {"id": 1, "mag": None, "stamp": bytes(1 << 29)}
    fastavro.writer(out, SCHEMA.fastavro, [big], codec="deflate")

    with pytest.raises(DecodeError, match="too many bytes"):
        decode_container(out.getvalue())


@pytest.mark.parametrize("codec", ["deflate", "bzip2", "xz", "zstandard"])
def test_bombs_one_after_another_are_refused(codec: str) -> None:
    """Blocks that fit one by one count together; fifty would fill the memory of a small host."""
    squeeze: dict[str, Callable[[bytes], bytes]] = {
        "deflate": lambda data: zlib.compress(data, wbits=-15),
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstandard": lambda data: bytes(cramjam.zstd.compress(data)),
    }
    one = compressed(codec.encode(), squeeze[codec](bytes(30 << 20)))
    whole = one + one[read_header(one).length :] * 2

    decoded = ColumnDecoder(SCHEMA).decode([whole], framing="container")

    assert decoded.errors == {0: "the container expands to too many bytes"}


def test_records_of_no_bytes_are_refused() -> None:
    """A schema whose record takes no bytes is none of ours: a block may promise any number."""
    with pytest.raises(DecodeError, match="takes no bytes"):
        AvroSchema.parse({"type": "record", "name": "a", "fields": [{"name": "x", "type": "null"}]})


@pytest.mark.parametrize("end", [0, 3, 4, 30, -20, -17, -1])
def test_cut_containers_are_refused(end: int) -> None:
    """A container cut anywhere is an error."""
    payload = container_from_body(SCHEMA, body())

    with pytest.raises(DecodeError):
        decode_container(payload[:end])


def test_bytes_after_the_record_are_refused() -> None:
    """A bare datum with a byte too many is an error."""
    assert decode_record(SCHEMA, body())["id"] == 5
    with pytest.raises(DecodeError, match="left"):
        decode_record(SCHEMA, body() + b"\n")


def test_correct_container_keeps_the_records() -> None:
    """Correction changes the header and the branches, not the values; twice is once."""
    payload = written()

    corrected = correct_container(payload)

    assert read_header(corrected).schema.definition["fields"][1]["type"] == ["null", "float"]
    assert decode_container(corrected) == RECORDS
    assert corrected[-16:] == payload[-16:]
    assert correct_container(corrected) is corrected
