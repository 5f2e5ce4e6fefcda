"""Schemas, datums and damage to them, and a plain reading of Avro to compare with."""

import bz2
import io
import json
import lzma
import math
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cramjam
import fastavro

from broker.errors import DecodeError
from broker.surveys.avro import (
    AvroSchema,
    ColumnDecoder,
    Decoded,
    decode_container,
    read_header,
)
from broker.surveys.avro.shape import Shape

PLAIN = ["int", "long", "float", "double", "string", "bytes", "boolean", "null"]
TIMES = [("long", "timestamp-micros"), ("long", "timestamp-millis"), ("int", "date")]
TEXTS = [
    "",
    "t",
    "null",
    "twelve bytes",
    "thirteen byte",
    "é",
    "naïve ∆ 😀 longer than a view",
    "x" * 40,
]
FLOATS = [0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 3.4e38, 1e-45]
LONGS = [0, 1, -1, 63, 64, -65, 8191, 8192, 2**31 - 1, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)]


class Refused(Exception):
    """The bytes are no datum; `ours` if fastavro takes them and we do not."""

    def __init__(self, ours: bool = False) -> None:
        super().__init__()
        self.ours = ours


def make_type(rng: random.Random, depth: int, counter: list[int]) -> Any:
    """Draw a type; named ones get new names."""
    counter[0] += 1
    name = f"n{counter[0]}"
    kind = rng.choice([*PLAIN * 2, "time", "enum", "fixed", *(["record", "array"] * 5 * depth)])
    if kind == "record":
        fields = [
            {"name": f"f{i}", "type": make_field(rng, depth - 1, counter)}
            for i in range(rng.randint(1, 6))
        ]
        return {"type": "record", "name": name, "fields": fields}
    if kind == "array":
        items = make_field(rng, depth - 1, counter)
        return {"type": "array", "items": items if items != "null" else ["null", "int"]}
    if kind == "enum":
        return {"type": "enum", "name": name, "symbols": ["A", "B", "CC"]}
    if kind == "fixed":
        return {"type": "fixed", "name": name, "size": rng.randint(1, 9)}
    if kind == "time":
        base, logical = rng.choice(TIMES)
        return {"type": base, "logicalType": logical}
    return kind


def make_field(rng: random.Random, depth: int, counter: list[int]) -> Any:
    """Draw a type, often one that may be null, in runs as surveys have them."""
    inner = make_type(rng, depth, counter)
    how = rng.random()
    if inner == "null" or how < 0.4:
        return inner
    return ["null", inner] if how < 0.7 else [inner, "null"] if how < 0.95 else [inner]


def make_schema(seed: int) -> AvroSchema:
    """Draw a schema that the kernel reads."""
    rng, counter = random.Random(seed), [0]
    fields = []
    for i in range(rng.randint(1, 8)):
        kind = make_field(rng, 2, counter)
        fields += [{"name": f"f{i}", "type": kind}]
        if kind == ["null", "float"] or rng.random() < 0.2:
            null_first = rng.random() < 0.5
            union = ["null", "float"] if null_first else ["float", "null"]
            fields += [{"name": f"f{i}_{j}", "type": union} for j in range(rng.randint(3, 9))]
    try:
        return AvroSchema.parse({"type": "record", "name": "packet", "fields": fields})
    except DecodeError:
        return make_schema(seed + 1_000_003)  # an array whose items take no bytes


def make_value(rng: random.Random, shape: Shape) -> bytes:
    """Draw a datum of a shape, as bytes."""
    if shape.null >= 0 and rng.random() < 0.4:
        return varint(shape.null)
    head = varint(1 - shape.null) if shape.null >= 0 else b"\0" if shape.wrapped else b""
    return head + make_plain(rng, shape)


def make_plain(rng: random.Random, shape: Shape) -> bytes:
    """Draw a datum of a shape that is not null."""
    kind = shape.kind
    if kind == "record":
        return b"".join(make_value(rng, child) for child in shape.children)
    if kind == "array":
        parts = [b"".join(make_value(rng, shape.children[0]) for _ in range(n)) for n in (2, 1)]
        first = varint(-2) + varint(len(parts[0])) if rng.random() < 0.5 else varint(2)
        blocks = [
            b"",
            varint(1) + parts[1],
            first + parts[0],
            first + parts[0] + varint(1) + parts[1],
        ]
        return rng.choice(blocks) + b"\0"
    if kind in ("int", "long"):
        limit = 2**31 if kind == "int" else 2**63
        numbers = [n for n in LONGS if -limit <= n < limit]
        return varint(rng.randint(-(10**6), 10**6) if shape.logical else rng.choice(numbers))
    if kind in ("float", "double"):
        return struct.pack("<f" if kind == "float" else "<d", rng.choice(FLOATS))
    if kind in ("string", "bytes"):
        text = rng.choice(TEXTS).encode()
        return varint(len(text)) + text
    if kind == "fixed":
        return rng.randbytes(shape.size)
    return {"boolean": rng.choice([b"\0", b"\1"]), "null": b"", "enum": varint(rng.randint(0, 2))}[
        kind
    ]


def varint(number: int) -> bytes:
    """Write a variable-length number."""
    number, out = (number << 1) ^ (number >> 63), []
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


ABSURD = [
    *(varint(n) for n in (-1, -2, 2**31, 2**62, 2**63 - 1, -(2**63), 1000, 64)),
    *(b"\xff" * 12, b"\x80" * 9 + b"\x7f", b"\x80" * 11 + b"\0"),
    *(b"\x80\x00", b"\x82\x00", b"\xed\xa0\x80"),
]


def damage(rng: random.Random, body: bytes) -> bytes:
    """Flip bits, cut, put absurd numbers in, or leave as it is."""
    data = bytearray(body)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(5)
        if what == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[at:]
        elif what == 2:
            data[at : at + rng.randint(0, 2)] = rng.choice(ABSURD)
        elif what == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 3))
        else:
            del data[at : at + rng.randint(1, 4)]
    return bytes(data)


class Reader:
    """Reads one datum by the book, and says what fastavro would do otherwise."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.ours = data, 0, False

    def check(self, good: bool, ours: bool = False) -> None:
        """Refuse unless `good`."""
        if not good:
            raise Refused(ours)

    def take(self, size: int) -> bytes:
        """Take bytes."""
        self.check(0 <= size <= len(self.data) - self.at)
        self.at += size
        return self.data[self.at - size : self.at]

    def long(self) -> int:
        """Take a number."""
        number = 0
        for place in range(10):
            byte = self.take(1)[0]
            number |= (byte & 127) << (7 * place)
            if byte < 128:
                number &= 2**64 - 1
                return (number >> 1) ^ -(number & 1)
        raise Refused(ours=True)

    def value(self, shape: Shape) -> None:
        """Take a value."""
        if shape.null >= 0 or shape.wrapped:
            branch, count = self.long(), 1 if shape.wrapped else 2
            self.check(0 <= branch < count, ours=-count <= branch < 0)
            if branch == shape.null:
                return
        getattr(self, f"_{shape.kind}", self._width)(shape)

    def _record(self, shape: Shape) -> None:
        for child in shape.children:
            self.value(child)

    def _array(self, shape: Shape) -> None:
        while count := self.long():
            if count < 0:
                self.long()
                self.check(count > -(2**63), ours=True)
            # The items cannot all be there, so that reading them one by one ends in a refusal.
            self.check(abs(count) * shape.children[0].smallest <= len(self.data) - self.at, True)
            for _ in range(abs(count)):
                self.value(shape.children[0])

    def _string(self, shape: Shape) -> None:
        try:
            self.take(self.long()).decode()
        except UnicodeDecodeError as error:
            raise Refused from error

    def _bytes(self, shape: Shape) -> None:
        self.take(self.long())

    def _enum(self, shape: Shape) -> None:
        index = self.long()
        self.check(0 <= index < len(shape.symbols), ours=-len(shape.symbols) <= index < 0)

    def _int(self, shape: Shape) -> None:
        number = self.long()
        if shape.logical:
            self.check(-719162 <= number <= 2932896)
        self.check(-(2**31) <= number < 2**31, ours=True)

    def _long(self, shape: Shape) -> None:
        number = self.long()
        if shape.logical:
            scale = 10**6 if "micros" in shape.logical else 1000
            self.check(-62135596800 * scale <= number < 253402300800 * scale)

    def _width(self, shape: Shape) -> None:
        widths = {"float": 4, "double": 8, "boolean": 1, "null": 0, "fixed": shape.size}
        self.take(widths[shape.kind])


def verdict(schema: AvroSchema, body: bytes) -> str:
    """Tell what becomes of bytes: "good", "bad", or "ours" where only fastavro takes them."""
    reader = Reader(body)
    try:
        reader.value(schema.shape)
        reader.check(reader.at == len(body), ours=True)
    except Refused as refused:
        return "ours" if refused.ours else "bad"
    return "good"


def fastavro_value(schema: AvroSchema, body: bytes) -> Any:
    """Read with fastavro; None if it refuses."""
    try:
        return fastavro.schemaless_reader(io.BytesIO(body), schema.fastavro)
    except (EOFError, IndexError, OverflowError, UnicodeDecodeError, ValueError, TypeError):
        return None


def strip(shape: Shape, value: Any) -> Any:
    """Leave out what has no column; floats become their bits."""
    if value is None:
        return None
    if shape.kind == "record":
        return {one.name: strip(one, value[one.name]) for one in shape.columns}
    if shape.kind == "array":
        return [strip(shape.children[0], item) for item in value]
    return struct.pack("<d", value) if isinstance(value, float) else value


def compare(decoder: ColumnDecoder, bodies: list[bytes]) -> None:
    """Decode a batch, and compare each packet with fastavro and the book."""
    schema = decoder.schema
    decoded = decoder.decode(bodies)
    verdicts = [verdict(schema, body) for body in bodies]
    good = [i for i, found in enumerate(verdicts) if found == "good"]
    assert decoded.rows.tolist() == good, (schema.definition, bodies, decoded.errors, verdicts)
    assert sorted(decoded.errors) == [i for i in range(len(bodies)) if i not in good]
    rows = decoded.frame.to_dicts() if decoded.frame.width else [{} for _ in good]
    for place, index in enumerate(good):
        value = fastavro_value(schema, bodies[index])
        found = strip(schema.shape, rows[place])
        assert found == strip(schema.shape, value), (schema.definition, bodies[index])
        compare_blobs(decoded, place, bodies[index], value)
    for body, found in zip(bodies, verdicts, strict=True):
        if found == "bad":
            assert fastavro_value(schema, body) is None, (schema.definition, body)


SQUEEZE: dict[str, Callable[[bytes], bytes]] = {
    "null": lambda data: data,
    "deflate": lambda data: zlib.compress(data, wbits=-15),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstandard": lambda data: bytes(cramjam.zstd.compress(data)),
}


def make_container(rng: random.Random, schema: AvroSchema, codec: str) -> bytes:
    """Draw a container of some blocks of some records, damaged or not."""
    entries = {"avro.schema": json.dumps(schema.definition), "avro.codec": codec}
    parts = [b"Obj\x01", varint(len(entries))]
    for name, text in entries.items():
        parts += [varint(len(name)), name.encode(), varint(len(text.encode())), text.encode()]
    parts += [b"\0", sync := rng.randbytes(16)]
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        bodies = [make_value(rng, schema.shape) for _ in range(rng.choice([0, 1, 1, 2, 5]))]
        data = SQUEEZE[codec](b"".join(bodies))
        count = len(bodies) if rng.random() < 0.9 else rng.choice([-1, 2**40, len(bodies) + 1])
        data = damage(rng, data) if rng.random() < 0.2 else data
        parts += [varint(count), varint(len(data)), data, sync]
    payload = b"".join(parts)
    return damage(rng, payload) if rng.random() < 0.3 else payload


def compare_containers(schema: AvroSchema, payloads: list[bytes]) -> None:
    """Decode containers into columns, and compare with their records as dicts."""
    decoded = ColumnDecoder(schema).decode(payloads, framing="container")
    rows = decoded.frame.to_dicts() if decoded.frame.width else [{} for _ in decoded.rows]
    for index, payload in enumerate(payloads):
        found = [row for row, owner in zip(rows, decoded.rows, strict=True) if owner == index]
        try:
            same = read_header(payload).schema == schema
            records = decode_container(payload) if same else []
        except DecodeError:
            records = []
        if index in decoded.errors:  # fastavro takes some numbers that we do not
            assert not found
            assert not records or decoded.errors[index] in OURS
        else:
            assert [strip(schema.shape, it) for it in found] == [
                strip(schema.shape, it) for it in records
            ]


OURS = {
    "an int has more than 32 bits",
    "there is no such branch of the union",
    "there is no such symbol of the enum",
    "a number has more than ten bytes",
    "a length or count is beyond the packet's end",
}
"""Why a packet may be refused that fastavro takes."""


def compare_blobs(decoded: Decoded, place: int, body: bytes, record: Any) -> None:
    """Compare the fields of bytes of one row."""
    for path, (offsets, lengths) in decoded.blobs.items():
        value = record
        for name in path.split("."):
            value = None if value is None else value[name]
        at, size = int(offsets[place]), int(lengths[place])
        assert (None if size < 0 else body[at : at + size]) == value
