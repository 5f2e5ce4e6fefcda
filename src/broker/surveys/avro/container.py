"""Object container files: headers, whole packets as dicts, and rewriting."""

import bz2
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cramjam
import fastavro
import orjson
import pyarrow as pa
from fastavro.schema import SchemaParseException

from broker.errors import DecodeError
from broker.surveys.avro.schema import AvroSchema, correct_header

MAGIC = b"Obj\x01"
SYNC_BYTES = 16

_MOST_HEADERS = 64
"""A night brings one or two headers; more than this at once is a mixture of archives."""

_LONGEST_KEPT = 1 << 20
"""Bytes of the longest header that is remembered; the surveys' have some 25 kB."""

_MOST_INFLATED = 1 << 26
"""Bytes that a container's blocks may become together; in columns it may be sixteen times that."""

_NO_FIT = "a value is not what its type allows"
_TOO_MANY = "the container expands to too many bytes"

FAILURES = (
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    SchemaParseException,
    StopIteration,
    TypeError,
    ValueError,
)
"""What fastavro raises on bytes that are not what the schema says."""

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (UnicodeDecodeError, "a string is not UTF-8"),
    (EOFError, "the packet ends too early"),
    (StopIteration, "the packet ends too early"),
    (IndexError, "there is no such branch of the union, or symbol of the enum"),
    (MemoryError, "a length is beyond the packet's end"),
    (OverflowError, "a number is too large for its type"),
)
"""The same in our words."""


@dataclass(frozen=True)
class ContainerHeader:
    """The header of an object container file.

    Parameters
    ----------
    schema : AvroSchema
        The writer's schema.
    codec : str
        How blocks are compressed; "null" is not at all.
    metadata : dict
        Every entry but the schema and the codec, as bytes.
    length : int
        Bytes of the header, with the 16 of the sync marker.
    prefix : bytes
        The header without the sync marker, which differs from file to file.
    """

    schema: AvroSchema
    codec: str
    metadata: dict[str, bytes]
    length: int
    prefix: bytes


_HEADERS: dict[bytes, ContainerHeader] = {}


def read_header(payload: bytes) -> ContainerHeader:
    """Read a container's header; one seen before is known by its bytes.

    Raises
    ------
    DecodeError
        If there is no header, or its schema cannot be used.
    """
    for header in tuple(_HEADERS.values()):
        if payload.startswith(header.prefix):
            return header
    header = _parse_header(payload)
    if header.length <= _LONGEST_KEPT:
        if len(_HEADERS) >= _MOST_HEADERS:
            _HEADERS.clear()
        _HEADERS[header.prefix] = header
    return header


def _parse_header(payload: bytes) -> ContainerHeader:
    if not payload.startswith(MAGIC):
        raise DecodeError("not an Avro container: it does not start with 'Obj' and 1")
    metadata, end = _metadata(payload)
    if end + SYNC_BYTES > len(payload):
        raise DecodeError("the container ends within its header")
    if "avro.schema" not in metadata:
        raise DecodeError("the container's header has no schema")
    schema = AvroSchema.parse(metadata.pop("avro.schema"))
    codec = metadata.pop("avro.codec", b"null").decode("utf-8", "replace")
    return ContainerHeader(schema, codec, metadata, end + SYNC_BYTES, payload[:end])


def _metadata(payload: bytes) -> tuple[dict[str, bytes], int]:
    found: dict[str, bytes] = {}
    at = len(MAGIC)
    while True:
        count, at = read_long(payload, at)
        if count == 0:
            return found, at
        if count < 0:
            count, (_, at) = -count, read_long(payload, at)
        for _ in range(count):
            key, at = _read_bytes(payload, at)
            value, at = _read_bytes(payload, at)
            found[key.decode("utf-8", "replace")] = value


def _read_bytes(payload: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(payload, at)
    if not 0 <= size <= len(payload) - at:
        raise DecodeError(f"a length of {size} at byte {at} is beyond the payload")
    return payload[at : at + size], at + size


def read_long(payload: bytes, at: int) -> tuple[int, int]:
    """Read a variable-length number; return it and where it ends.

    Raises
    ------
    DecodeError
        If the payload ends first, or the number is longer than ten bytes.
    """
    number = 0
    for shift, byte in zip(range(0, 70, 7), payload[at : at + 10], strict=False):
        number |= (byte & 127) << shift
        if byte < 128:
            number &= (1 << 64) - 1
            return (number >> 1) ^ -(number & 1), at + shift // 7 + 1
    raise DecodeError(f"no number at byte {at}")


def write_long(number: int) -> bytes:
    """Write a variable-length number."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@dataclass(frozen=True)
class Block:
    """Some records of a container, as plain bytes.

    `start` is where `data` begins in the payload, -1 if it was compressed there.
    """

    data: bytes
    start: int
    count: int


def blocks(payload: bytes, header: ContainerHeader) -> Iterator[Block]:
    """Iterate over a container's blocks.

    Raises
    ------
    DecodeError
        If a block is broken off, has another sync marker, or cannot be expanded, or if all
        expand to more than any container of alerts.
    """
    at, room = header.length, _MOST_INFLATED
    sync = payload[at - SYNC_BYTES : at]
    while at < len(payload):
        count, at = read_long(payload, at)
        start = read_long(payload, at)[1]
        data, at = _read_bytes(payload, at)
        if count < 0 or payload[at : at + SYNC_BYTES] != sync:
            raise DecodeError("a block of the container has a wrong count or sync marker")
        at += SYNC_BYTES
        if header.codec == "null":
            yield Block(data, start, count)
        else:
            expanded = _expand(data, header.codec, room)
            room -= len(expanded)
            yield Block(expanded, -1, count)


def _expand(data: bytes, codec: str, most: int) -> bytes:
    expand = _CODECS.get(codec)
    if expand is None:
        raise DecodeError(f"the container's codec {codec!r} is not known")
    try:
        expanded = expand(data, most)
    except (
        zlib.error,
        lzma.LZMAError,
        OSError,
        EOFError,
        cramjam.DecompressionError,
    ) as error:
        raise DecodeError(f"a block cannot be expanded: {error}") from error
    return _checked(expanded, most)


def _checked(expanded: bytes, most: int) -> bytes:
    """Return the bytes unless they are too many."""
    if len(expanded) > most:
        raise DecodeError(_TOO_MANY)
    return expanded


def _limited(make: Callable[[], Any]) -> Callable[[bytes, int], bytes]:
    def expand(data: bytes, most: int) -> bytes:
        machine = make()
        expanded = _checked(machine.decompress(data, most + 1), most)
        if not machine.eof:
            raise EOFError("the data ends too early")
        return expanded

    return expand


def _snappy(data: bytes, most: int) -> bytes:
    if len(data) < 4:
        raise EOFError("the data ends too early")
    if read_snappy_size(data) > most:
        raise DecodeError(_TOO_MANY)
    expanded = bytes(cramjam.snappy.decompress_raw(data[:-4]))
    if zlib.crc32(expanded) != int.from_bytes(data[-4:], "big"):
        raise DecodeError("a block's checksum is wrong")
    return expanded


def read_snappy_size(data: bytes) -> int:
    """Read the size that a snappy block says it expands to."""
    size = 0
    for place, byte in enumerate(data[:5]):
        size |= (byte & 127) << (7 * place)
        if byte < 128:
            break
    return size


def _zstandard(data: bytes, most: int) -> bytes:
    if not data:
        raise EOFError("the data ends too early")
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        expanded: bytes = stream.read(most + 1)
    return expanded


_CODECS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "deflate": _limited(lambda: zlib.decompressobj(-15)),
    "bzip2": _limited(bz2.BZ2Decompressor),
    "xz": _limited(lzma.LZMADecompressor),
    "snappy": _snappy,
    "zstandard": _zstandard,
}


def read_records(schema: AvroSchema, data: bytes, count: int) -> list[Any]:
    """Decode bare datums with fastavro; they must fill `data`.

    Raises
    ------
    DecodeError
        If they do not, or the bytes are not what the schema says.
    """
    if count * max(schema.shape.smallest, 1) > len(data) + 1:
        raise DecodeError(f"{count} records cannot be in {len(data)} bytes")
    stream = io.BytesIO(data)
    try:
        records = [fastavro.schemaless_reader(stream, schema.fastavro) for _ in range(count)]
    except FAILURES as error:
        reason = next((words for kind, words in _REASONS if isinstance(error, kind)), _NO_FIT)
        raise DecodeError(reason) from error
    if left := len(data) - stream.tell():
        raise DecodeError(f"{left} bytes are left after the record")
    return records


def decode_record(schema: AvroSchema, body: bytes) -> dict[str, Any]:
    """Decode one bare datum into a dict.

    Raises
    ------
    DecodeError
        If the bytes are not one record of this schema.
    """
    record: dict[str, Any] = read_records(schema, body, 1)[0]
    return record


def decode_container(payload: bytes) -> list[dict[str, Any]]:
    """Decode every record of a container into dicts.

    Raises
    ------
    DecodeError
        If the header or any record cannot be read.
    """
    header = read_header(payload)
    return [
        record
        for block in blocks(payload, header)
        for record in read_records(header.schema, block.data, block.count)
    ]


def write_container(schema: AvroSchema, records: Iterable[Mapping[str, Any]]) -> bytes:
    """Write records as a container of one block; the same records give the same bytes.

    Raises
    ------
    DecodeError
        If a record does not fit the schema.
    """
    out, rows = io.BytesIO(), list(records)
    try:
        for record in rows:
            fastavro.schemaless_writer(out, schema.fastavro, record)
    except FAILURES as error:
        raise DecodeError(f"a record does not fit the schema: {error}"[:200]) from error
    return _container(schema, [(len(rows), out.getvalue())] if rows else [])


def container_from_body(schema: AvroSchema, body: bytes, sync: bytes | None = None) -> bytes:
    """Wrap one bare datum as a container, byte for byte.

    Parameters
    ----------
    schema : AvroSchema
        The datum's schema.
    body : bytes
        The datum; it is not looked at.
    sync : bytes, optional
        The 16 bytes that end each block; by default a hash of `body`.
    """
    return _container(schema, [(1, body)], sync)


def _container(
    schema: AvroSchema, body: list[tuple[int, bytes]], sync: bytes | None = None
) -> bytes:
    prefix = _prefix({"avro.codec": b"null", "avro.schema": orjson.dumps(schema.definition)})
    marker = sync or hashlib.md5(b"".join(d for _, d in body), usedforsecurity=False).digest()
    return b"".join([prefix, marker, *(_block(n, data, marker) for n, data in body)])


def _block(count: int, data: bytes, sync: bytes) -> bytes:
    return b"".join([write_long(count), write_long(len(data)), data, sync])


def _prefix(metadata: Mapping[str, bytes]) -> bytes:
    parts = [MAGIC, write_long(len(metadata))]
    for key, value in metadata.items():
        parts += [
            write_long(len(key.encode())),
            key.encode(),
            write_long(len(value)),
            value,
        ]
    return b"".join([*parts, b"\x00"])


def correct_container(payload: bytes, doc: str = "") -> bytes:
    """Put "null" first where a container's schema has null as a default; see `correct_header`.

    The records are the same to the last bit; the sync marker and all other metadata are kept.
    A container that needs no correction is returned as it is.

    Parameters
    ----------
    payload : bytes
        A container.
    doc : str
        Documentation that the schema gets if it has none.

    Raises
    ------
    DecodeError
        If the container cannot be read.
    """
    header = read_header(payload)
    definition = correct_header(header.schema.definition)
    if doc and "doc" not in definition:
        definition["doc"] = doc
    if definition == header.schema.definition:
        return payload
    metadata, end = _metadata(payload)
    metadata["avro.schema"] = orjson.dumps(definition)
    if "avro.codec" in metadata:
        metadata["avro.codec"] = b"null"
    sync = payload[end : end + SYNC_BYTES]
    target = AvroSchema.parse(definition)
    body = [_recoded(block, header.schema, target, sync) for block in blocks(payload, header)]
    return b"".join([_prefix(metadata), sync, *body])


def _recoded(block: Block, source: AvroSchema, target: AvroSchema, sync: bytes) -> bytes:
    out = io.BytesIO()
    for record in read_records(source, block.data, block.count):
        fastavro.schemaless_writer(out, target.fastavro, record)
    return _block(block.count, out.getvalue(), sync)
