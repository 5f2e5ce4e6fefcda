"""How the columns of a frame are described in a Parquet file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from broker.connectors.tables.fresh import kernel
from broker.connectors.tables.fresh.thrift import (
    BINARY,
    I32,
    STRUCT,
    Value,
    flag,
    listed,
    number,
    opened,
    struct,
    text,
)
from broker.connectors.tables.types import instance

BOOLEAN, INT32, INT64, FLOAT, DOUBLE, BYTE_ARRAY = 0, 1, 2, 4, 5, 6
_OPTIONAL, _REPEATED = 1, 2
_PLAIN, _RLE = 0, 3
_UNCOMPRESSED = 0

_STRING, _LIST, _DATE, _TIMESTAMP, _INTEGER = 1, 3, 6, 8, 10
"""Numbers of the logical types in the union `LogicalType`."""

_UTF8, _LISTED, _DATE_32 = 0, 3, 6
"""Numbers of the older `ConvertedType`."""

_UNITS = {"ms": 1, "us": 2, "ns": 3}
_EMPTY = struct({})

_KINDS = {
    BOOLEAN: kernel.BITS,
    INT32: kernel.WORDS4,
    FLOAT: kernel.WORDS4,
    INT64: kernel.WORDS8,
    DOUBLE: kernel.WORDS8,
    BYTE_ARRAY: kernel.VIEWS,
}
_NARROW: Mapping[type[pl.DataType], int] = {
    pl.Int8: kernel.INT8,
    pl.UInt8: kernel.UINT8,
    pl.Int16: kernel.INT16,
    pl.UInt16: kernel.UINT16,
}

Described = tuple[int, int | None, Value | None]
"""Physical type, converted type, logical type."""


def _logical(kind: int, inner: Value = _EMPTY) -> Value:
    return struct({kind: inner})


def _integer(bits: int, signed: bool) -> Described:
    converted = {8: 15, 16: 16, 32: 17, 64: 18}[bits] if signed else bits.bit_length() + 7
    width = Value(3, bytes([bits]))
    inner = struct({1: width, 2: flag(signed)})
    return INT64 if bits == 64 else INT32, converted, _logical(_INTEGER, inner)


_PLAIN_TYPES: dict[type[pl.DataType], Described] = {
    pl.Boolean: (BOOLEAN, None, None),
    pl.Int8: _integer(8, True),
    pl.Int16: _integer(16, True),
    pl.Int32: (INT32, None, None),
    pl.Int64: (INT64, None, None),
    pl.UInt8: _integer(8, False),
    pl.UInt16: _integer(16, False),
    pl.UInt32: _integer(32, False),
    pl.UInt64: _integer(64, False),
    pl.Float32: (FLOAT, None, None),
    pl.Float64: (DOUBLE, None, None),
    pl.String: (BYTE_ARRAY, _UTF8, _logical(_STRING)),
    pl.Binary: (BYTE_ARRAY, None, None),
    pl.Date: (INT32, _DATE_32, _logical(_DATE)),
}


@dataclass(frozen=True, slots=True)
class Group:
    """What columns are in: the frame itself, a record, or the items of a list.

    `place` is its place in group number `parent`; `depth` is how many lists are around its fields.
    """

    parent: int
    place: int
    is_list: bool
    depth: int
    most_defined: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A schema as the kernel and the footers of files have it.

    Attributes
    ----------
    schema : Value
        The list of its elements.
    groups : sequence of Group
        Each after the one that it is in; the first is the frame.
    columns : array of int64, shape (columns, 4)
        The columns of values, in order, as the kernel is told of them.
    heads : array of uint8
        What a footer says of each column before the numbers.
    bounds : array of int64, shape (columns + 1,)
        Where the head of each starts.
    """

    schema: Value
    groups: Sequence[Group]
    columns: NDArray[np.int64]
    heads: NDArray[np.uint8]
    bounds: NDArray[np.int64]


def layout(schema: pl.Schema) -> Layout | None:
    """Describe a schema; None if it has a type that is not known here."""
    making = _Making()
    try:
        for place, (name, dtype) in enumerate(schema.items()):
            making.add(name, dtype, (), 0, place)
    except KeyError:
        return None
    root = struct({4: text("schema"), 5: number(len(schema))})
    heads = making.heads
    return Layout(
        listed(STRUCT, [root, *making.elements]),
        making.groups,
        np.array(making.columns, np.int64).reshape(-1, kernel.MOST_DEFINED + 1),
        np.frombuffer(b"".join(heads), np.uint8),
        np.cumsum([0, *map(len, heads)]).astype(np.int64),
    )


class _Making:
    """Collects the elements of a schema, depth first."""

    def __init__(self) -> None:
        self.elements: list[Value] = []
        self.groups = [Group(-1, 0, False, 0, 0)]
        self.columns: list[tuple[int, ...]] = []
        self.heads: list[bytes] = []

    def add(
        self, name: str, dtype: pl.DataType, path: tuple[str, ...], parent: int, place: int
    ) -> None:
        """Add an optional column or field and what is in it."""
        path, number_here = (*path, name), len(self.groups)
        if isinstance(dtype, pl.Struct) and dtype.fields:
            self._group(parent, place, is_list=False)
            self._element(name, len(dtype.fields), _OPTIONAL)
            for inner, field in enumerate(dtype.fields):
                self.add(field.name, instance(field.dtype), path, number_here, inner)
        elif isinstance(dtype, pl.List):
            self._group(parent, place, is_list=True)
            self._element(name, 1, _OPTIONAL, {6: number(_LISTED), 10: _logical(_LIST)})
            self._element("list", 1, _REPEATED)
            self.add("element", instance(dtype.inner), (*path, "list"), number_here, 0)
        else:
            self._column(name, dtype, path, parent, place)

    def _group(self, parent: int, place: int, *, is_list: bool) -> None:
        outer = self.groups[parent]
        depth, most = outer.depth + is_list, outer.most_defined + 1 + is_list
        self.groups.append(Group(parent, place, is_list, depth, most))

    def _element(
        self, name: str, children: int, repetition: int, more: Mapping[int, Value] | None = None
    ) -> None:
        fields = {3: number(repetition), 4: text(name), 5: number(children), **(more or {})}
        self.elements.append(struct(fields))

    def _column(
        self, name: str, dtype: pl.DataType, path: tuple[str, ...], parent: int, place: int
    ) -> None:
        physical, converted, logical = _described(dtype)
        fields = {1: number(physical), 3: number(_OPTIONAL), 4: text(name)}
        if converted is not None:
            fields[6] = number(converted)
        if logical is not None:
            fields[10] = logical
        self.elements.append(struct(fields))
        head = {
            1: number(physical),
            2: listed(I32, [number(_PLAIN), number(_RLE)]),
            3: listed(BINARY, [text(part) for part in path]),
            4: number(_UNCOMPRESSED),
        }
        self.heads.append(opened(head))
        kind = _NARROW.get(type(dtype), _KINDS[physical])
        self.columns.append((parent, place, kind, self.groups[parent].most_defined + 1))


def _described(dtype: pl.DataType) -> Described:
    if isinstance(dtype, pl.Datetime):
        unit = struct({_UNITS[dtype.time_unit]: _EMPTY})
        inner = struct({1: flag(dtype.time_zone is not None), 2: unit})
        return INT64, None, _logical(_TIMESTAMP, inner)
    return _PLAIN_TYPES[type(dtype)]
