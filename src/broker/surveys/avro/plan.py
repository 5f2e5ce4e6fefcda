"""A schema compiled to ops: what the kernel runs, and which columns come out of it."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from broker.surveys.avro.shape import Shape

KIND, NULL, SLOT, BITS, NEXT, ARG, EXTRA, STEP = range(8)
"""The columns of the op table.

KIND, what to read; NULL, index of the null branch or -1; SLOT, the column's number (in the
kernel: where its values start, in elements) or -1; BITS, number (place) of the validity bitmap
or -1; NEXT, the op after this value; ARG, size, count of symbols, limit or table of an array's
items; EXTRA, the second column of a blob, the fewest bytes of an item,
bits of a time's column, or how many nullable floats follow in a row; STEP, 1 if the rows of
an array's items are kept.
"""

(
    FLOAT,
    DOUBLE,
    INT,
    LONG,
    STRING,
    BOOLEAN,
    BYTES,
    FIXED,
    ENUM,
    TIME,
    NOTHING,
    BRANCH,
    RECORD,
    LAST_SCALAR,
    ARRAY,
    ITEM_END,
    END,
) = range(17)
"""Kinds of op. BRANCH reads the index of a union of one type."""

_SCALARS = {
    "float": FLOAT,
    "double": DOUBLE,
    "int": INT,
    "long": LONG,
    "string": STRING,
    "boolean": BOOLEAN,
    "bytes": BYTES,
    "fixed": FIXED,
    "enum": ENUM,
    "null": NOTHING,
}

TIME_LIMITS = {
    "timestamp-micros": 0,
    "timestamp-millis": 1,
    "local-timestamp-micros": 0,
    "local-timestamp-millis": 1,
    "date": 2,
}
"""Logical types that the kernel reads, and which pair of the kernel's limits they keep."""

_MOST_SMALLEST = 2**31 - 1
"""What the op table can hold; of items larger than that no packet has any."""

WIDTH_BITS = {
    FLOAT: 32,
    INT: 32,
    ENUM: 32,
    DOUBLE: 64,
    LONG: 64,
    STRING: 128,
    BOOLEAN: 1,
}
"""Bits of one value in its column."""


@dataclass(frozen=True)
class Column:
    """A buffer of one table: `bits` per row, and `more` rows beyond the table's."""

    table: int
    bits: int
    more: int = 0


@dataclass(frozen=True)
class Node:
    """One value of the frame: its shape, where its buffers are, and what is in it."""

    shape: Shape
    table: int
    slot: int = -1
    bits: int = -1
    children: tuple["Node", ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything about a schema that does not depend on the batch."""

    ops: NDArray[np.int32]
    columns: tuple[Column, ...]
    tables: tuple[int, ...]
    root: Node
    blobs: dict[str, tuple[int, int]]


@dataclass
class _Builder:
    wanted: frozenset[str]
    ops: list[list[int]] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    tables: list[int] = field(default_factory=lambda: [1])
    blobs: dict[str, tuple[int, int]] = field(default_factory=dict)


def is_compilable(shape: Shape) -> bool:
    """Tell whether the kernel can read all of a schema."""
    if shape.kind in ("map", "union"):
        return False
    if shape.logical and not (shape.logical in TIME_LIMITS and shape.kind in ("int", "long")):
        return False
    return all(is_compilable(child) for child in shape.children)


def compile_plan(shape: Shape, wanted: Collection[str] | None) -> Plan:
    """Compile a record; `wanted` are the dotted paths to keep, None for all."""
    builder = _Builder(frozenset(("",) if wanted is None else wanted))
    children = _fields(builder, shape, "", 0, wanted is None)
    _op(builder, END)
    ops = np.asarray(builder.ops, np.int32).reshape(-1, 8)
    _mark_runs(ops)
    root = Node(shape, 0, children=children)
    return Plan(ops, tuple(builder.columns), tuple(builder.tables), root, builder.blobs)


def _mark_runs(ops: NDArray[np.int32]) -> None:
    """Note at each nullable float how many follow in a row, all kept or none, itself counted."""
    ops[ops[:, KIND] == FLOAT, EXTRA] = 0
    for place in np.flatnonzero((ops[:, KIND] == FLOAT) & (ops[:, NULL] >= 0))[::-1]:
        this, after = ops[place], ops[place + 1]
        alike = this[NULL] == after[NULL] and (this[SLOT] < 0) == (after[SLOT] < 0)
        this[EXTRA] = 1 + (after[EXTRA] if after[KIND] == FLOAT and alike else 0)


def _fields(builder: _Builder, shape: Shape, path: str, table: int, kept: bool) -> tuple[Node, ...]:
    found = []
    for child in shape.children:
        inner = f"{path}.{child.name}" if path else child.name
        keep = not child.hidden and (kept or inner in builder.wanted)
        node = _value(builder, child, inner, table, keep)
        if node is not None:
            found.append(node)
    return tuple(found)


def _op(builder: _Builder, kind: int, null: int = -1) -> list[int]:
    row = [kind, null, -1, -1, len(builder.ops) + 1, 0, -1, 0]
    builder.ops.append(row)
    return row


def _column(builder: _Builder, table: int, bits: int, more: int = 0) -> int:
    builder.columns.append(Column(table, bits, more))
    return len(builder.columns) - 1


def _value(builder: _Builder, shape: Shape, path: str, table: int, kept: bool) -> Node | None:
    """Add the ops of one value; return its node if anything of it is kept."""
    if shape.wrapped:
        _op(builder, BRANCH)
    if shape.kind == "record":
        return _record(builder, shape, path, table, kept)
    if shape.kind == "array":
        return _array(builder, shape, path, table, kept)
    return _scalar(builder, shape, path, table, kept)


def _inside(builder: _Builder, path: str) -> bool:
    return any(one.startswith(f"{path}.") for one in builder.wanted)


def _bits(builder: _Builder, shape: Shape, table: int, kept: bool) -> int:
    return _column(builder, table, 1) if kept and shape.null >= 0 else -1


def _record(builder: _Builder, shape: Shape, path: str, table: int, kept: bool) -> Node | None:
    some = kept or _inside(builder, path)
    bits = _bits(builder, shape, table, some)
    op = _op(builder, RECORD, shape.null) if shape.null >= 0 else None
    children = _fields(builder, shape, path, table, kept)
    if op is not None:
        op[BITS], op[NEXT] = bits, len(builder.ops)
    return Node(shape, table, -1, bits, children) if children else None


def _array(builder: _Builder, shape: Shape, path: str, table: int, kept: bool) -> Node | None:
    item = shape.children[0]
    some = (kept or _inside(builder, path)) and item.dtype is not None
    items = len(builder.tables)
    builder.tables.append(item.smallest)
    op = _op(builder, ARRAY, shape.null)
    op[ARG], op[EXTRA], op[STEP] = items, min(item.smallest, _MOST_SMALLEST), int(some)
    if some:
        op[SLOT] = _column(builder, table, 64, 1)
    op[BITS] = _bits(builder, shape, table, some)
    child = _value(builder, item, path, items, kept and some)
    _op(builder, ITEM_END)[ARG] = items
    op[NEXT] = len(builder.ops)
    if not some or child is None:
        return None
    return Node(shape, table, op[SLOT], op[BITS], (child,))


def _scalar(builder: _Builder, shape: Shape, path: str, table: int, kept: bool) -> Node | None:
    kind = TIME if shape.logical else _SCALARS[shape.kind]
    op = _op(builder, kind, shape.null)
    op[ARG] = TIME_LIMITS[shape.logical] if shape.logical else shape.size or len(shape.symbols)
    if not kept:
        return None
    if shape.is_blob:
        if table == 0:
            op[SLOT], op[EXTRA] = _column(builder, 0, 64), _column(builder, 0, 32)
            builder.blobs[path] = (op[SLOT], op[EXTRA])
        return None
    if kind != NOTHING:
        bits = (32 if shape.kind == "int" else 64) if kind == TIME else WIDTH_BITS[kind]
        op[SLOT] = _column(builder, table, bits)
        op[EXTRA] = bits
    op[BITS] = _bits(builder, shape, table, kept)
    return Node(shape, table, op[SLOT], op[BITS])
