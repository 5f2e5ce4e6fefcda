"""Every real packet: columns and blobs hold what fastavro reads, to the bit."""

import io
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from broker.errors import DecodeError
from broker.surveys.avro import (
    AvroSchema,
    ColumnDecoder,
    Decoded,
    correct_container,
    decode_container,
    read_header,
)


def same(found: Any, expected: Any) -> bool:
    """Tell whether two values agree, floats to the bit, and nothing is missing."""
    if isinstance(expected, Mapping):
        if isinstance(found, list):
            found = {entry["key"]: entry["value"] for entry in found}
        return found.keys() <= expected.keys() and all(
            same(found[key], value)
            if key in found
            else isinstance(value, bytes | None) or not has_values(value)
            for key, value in expected.items()
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return struct.pack("d", found) == struct.pack("d", expected) or (
            math.isnan(found) and math.isnan(expected)
        )
    return type(found) is type(expected) and found == expected


def has_values(value: Any) -> bool:
    """Tell whether there is anything but bytes in a value."""
    if isinstance(value, Mapping):
        return any(has_values(one) for one in value.values())
    if isinstance(value, list):
        return any(has_values(one) for one in value)
    return value is not None and not isinstance(value, bytes)


def check(decoded: Decoded, payloads: list[bytes], expected: dict[int, list[Any]]) -> None:
    """Compare a batch with fastavro's dicts by payload."""
    owners = [index for index, records in sorted(expected.items()) for _ in records]
    records = [record for _, found in sorted(expected.items()) for record in found]
    assert decoded.rows.tolist() == owners
    if decoded.complete:
        packets = [decoded.packet(payloads, row) for row in range(min(len(records), 3))]
        assert all(same(one, record) and one.keys() == record.keys()
                   for one, record in zip(packets, records[:3], strict=True))  # fmt: skip
    rows = decoded.frame.to_dicts()
    for place, (row, record) in enumerate(zip(rows, records, strict=True)):
        assert same(row, record), (place, row, record)
        for path, (offset, length) in decoded.blobs.items():
            value: Any = record
            for name in path.split("."):
                value = None if value is None else value[name]
            data = decoded.expanded.get(owners[place], payloads[owners[place]])
            at, size = int(offset[place]), int(length[place])
            assert (None if size < 0 else data[at : at + size]) == value, path


def containers(folder: Path) -> list[bytes]:
    """Read every container."""
    found = (path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    return [payload for payload in found if payload.startswith(b"Obj\x01")]


def test_containers(shared_data: Path) -> None:
    """Columns of every container of every survey agree with fastavro's dicts."""
    groups: dict[str, list[bytes]] = {}
    refused = complete = 0
    for payload in containers(shared_data):
        try:
            groups.setdefault(read_header(payload).schema.fingerprint, []).append(payload)
        except DecodeError:
            refused += 1
            with pytest.raises(Exception, match="Default value"):
                list(fastavro.reader(io.BytesIO(payload)))
    assert refused == 4

    for payloads in groups.values():
        schema = read_header(payloads[0]).schema
        decoded = ColumnDecoder(schema).decode(payloads, framing="container")
        expected = {i: list(fastavro.reader(io.BytesIO(p))) for i, p in enumerate(payloads)}
        complete += decoded.complete
        assert not decoded.errors
        check(decoded, payloads, expected)
        plain = [i for i, p in enumerate(payloads) if read_header(p).codec == "null"]
        chosen = [payloads[i] for i in plain]
        starts = np.asarray([len(read_header(p).prefix) for p in chosen], np.int64)
        decoded = ColumnDecoder(schema).decode(chosen, starts, "container")
        check(decoded, chosen, {new: expected[old] for new, old in enumerate(plain)})
    assert complete > 20


def schemas(folder: Path, pattern: str) -> AvroSchema:
    """Load a schema whose named types are in files beside it."""
    path = next(iter(sorted(folder.glob(pattern))))
    return AvroSchema.parse(fastavro.schema.load_schema(str(path), _write_hint=False))


@pytest.mark.parametrize("version", ["7_1", "7_3", "7_4", "9_0", "10_0", "11_0", "11_1", "8_0"])
def test_wire_packets(shared_data: Path, version: str) -> None:
    """Columns of bare datums behind a five-byte frame agree with fastavro's dicts."""
    found = [p for p in (shared_data / "lsst").rglob("*.bin") if f"v{version}" in p.name]
    payloads = [p.read_bytes() for p in sorted(found) if p.read_bytes()[:1] == b"\0"]
    assert payloads
    files = (shared_data / "schemas").rglob(f"*v{version}.alert.avsc")
    schema = AvroSchema.parse(fastavro.schema.load_schema(str(next(iter(sorted(files))))))
    decoded = ColumnDecoder(schema).decode(payloads, np.full(len(payloads), 5))
    expected = {}
    for index, payload in enumerate(payloads):
        stream = io.BytesIO(payload[5:])
        expected[index] = [fastavro.schemaless_reader(stream, schema.fastavro)]
    assert not decoded.errors
    check(decoded, payloads, expected)


def test_corrected_containers(shared_data: Path) -> None:
    """Every container can be corrected: records stay, and a second pass changes nothing."""
    for payload in containers(shared_data / "ztf")[::7]:
        corrected = correct_container(payload)

        for was, now in zip(decode_container(payload), decode_container(corrected), strict=True):
            assert same(now, was)
        assert correct_container(corrected) == corrected
