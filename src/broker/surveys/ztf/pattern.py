"""Many Avro datums that differ in a few fixed-width fields, written as one byte matrix.

Encoding a packet field by field takes milliseconds. A made night has thousands of packets with
the same structure, so one is encoded with stand-in values and the others are copies with the
bytes of some fields replaced.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import fastavro
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

# Zig-zag numbers from 2**55 to 2**62 take nine bytes: every ZTF candid has 18 or 19 digits.
LONG_BYTES = 9


class RecordEncoder:
    """Writes records of one type, and tells where fields begin.

    Parameters
    ----------
    definition : mapping
        Avro record without references to types defined elsewhere.
    """

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self._definition = definition
        self._segments: dict[tuple[str, ...], list[_Segment]] = {}

    def encode(
        self, record: Mapping[str, Any], names: tuple[str, ...] = ()
    ) -> tuple[bytes, dict[str, int]]:
        """Return a record as a bare datum, and where the values of fields `names` begin.

        Fields are not null, and the byte of a union is skipped.
        """
        if names not in self._segments:
            self._segments[names] = list(self._split(names))
        out, offsets = io.BytesIO(), {}
        for segment in self._segments[names]:
            if segment.first is not None:
                offsets[segment.first] = out.tell() + segment.in_union
            fastavro.schemaless_writer(out, segment.schema, record)
        return out.getvalue(), offsets

    def _split(self, names: tuple[str, ...]) -> "Iterator[_Segment]":
        """Cut the record so that each of `names` begins a piece; pieces are records too."""
        fields = self._definition["fields"]
        cuts = [place for place, one in enumerate(fields) if one["name"] in names]
        for start, end in pairwise([0, *(cut for cut in cuts if cut), len(fields)]):
            piece = fields[start:end]
            schema = fastavro.parse_schema({**self._definition, "fields": piece}, _write_hint=False)
            first = piece[0]["name"]
            in_union = isinstance(piece[0]["type"], list)
            yield _Segment(schema, first if first in names else None, in_union)


@dataclass(frozen=True, slots=True)
class _Segment:
    schema: Any
    first: str | None
    in_union: bool


class Pattern:
    """An encoded datum and its places to fill.

    Parameters
    ----------
    count : int
        How many copies to make.
    """

    def __init__(self, count: int) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self._places: list[tuple[int, Bytes]] = []
        self._count = count

    def add(self, data: bytes, places: Mapping[int, Bytes] | None = None) -> None:
        """Append bytes; `places` maps offsets in them to values, shape (count, width)."""
        for offset, values in (places or {}).items():
            self._places.append((self._length + offset, values))
        self._parts.append(data)
        self._length += len(data)

    def fill(self) -> Bytes:
        """Return the copies with their places filled, shape (count, length)."""
        once = np.frombuffer(b"".join(self._parts), np.uint8)
        filled = np.tile(once, (self._count, 1))
        for offset, values in self._places:
            filled[:, offset : offset + values.shape[1]] = values
        return filled


def doubles(values: NDArray[np.float64]) -> Bytes:
    """Return Avro doubles, shape (n, 8)."""
    return np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(-1, 8)


def floats(values: NDArray[np.float64]) -> Bytes:
    """Return Avro floats, shape (n, 4)."""
    return np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(-1, 4)


def longs(values: NDArray[np.int64]) -> Bytes:
    """Return Avro longs of nine bytes each, shape (n, 9)."""
    zigzag = values.astype(np.uint64) << np.uint64(1)
    shifts = np.arange(LONG_BYTES, dtype=np.uint64) * np.uint64(7)
    groups = (zigzag[:, None] >> shifts).astype(np.uint8) & np.uint8(0x7F)
    groups[:, :-1] |= 0x80
    return groups


def texts(values: list[str]) -> Bytes:
    """Return texts of one length, without their length, shape (n, length)."""
    return np.frombuffer("".join(values).encode(), np.uint8).reshape(len(values), -1)


def varint(value: int) -> bytes:
    """Return one Avro int or long.

    Examples
    --------
    >>> varint(1), varint(64).hex()
    (b'\\x02', '8001')
    """
    zigzag, out = value << 1, bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return struct.pack(f"{len(out) + 1}B", *out, zigzag)
