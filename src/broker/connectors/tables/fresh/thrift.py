"""Thrift's compact protocol, as far as the footer of a Parquet file needs it.

Values are made of bytes from the inside out: `struct` of the fields that `number`, `text`,
`listed` and the like return. Reference: the Thrift compact protocol specification.
"""

from collections.abc import Sequence
from typing import NamedTuple

_TRUE, _FALSE = 1, 2
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
_LONG_LIST = 15


class Value(NamedTuple):
    """A value's kind and its bytes."""

    kind: int
    coded: bytes


def varint(value: int) -> bytes:
    """Write a number that is not negative, seven bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(value: int, kind: int = I32) -> Value:
    """Return an integer."""
    return Value(kind, varint((value << 1) ^ (value >> 63)))


def flag(value: bool) -> Value:
    """Return a boolean, whose kind is its value."""
    return Value(_TRUE if value else _FALSE, b"")


def text(value: str) -> Value:
    """Return a string."""
    coded = value.encode()
    return Value(BINARY, varint(len(coded)) + coded)


def listed(kind: int, values: Sequence[Value], count: int | None = None) -> Value:
    """Return a list of values of one kind; `count` of them if some are in one piece already."""
    count = len(values) if count is None else count
    head = (
        bytes([count << 4 | kind])
        if count < _LONG_LIST
        else bytes([_LONG_LIST << 4 | kind]) + varint(count)
    )
    return Value(LIST, head + b"".join([value.coded for value in values]))


def struct(fields: dict[int, Value]) -> Value:
    """Return a struct of numbered fields, in order."""
    return Value(STRUCT, opened(fields) + b"\x00")


def opened(fields: dict[int, Value], last: int = 0) -> bytes:
    """Write fields after number `last`; more may follow."""
    out = []
    for place, value in fields.items():
        out += [bytes([place - last << 4 | value.kind]), value.coded]
        last = place
    return b"".join(out)
