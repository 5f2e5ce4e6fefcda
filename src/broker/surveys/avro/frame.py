"""The buffers that the kernel fills, and the frame made of them without a copy."""

import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from broker.surveys.avro.plan import BITS, EXTRA, SLOT, Node, Plan
from broker.surveys.avro.shape import Shape

_ALIGN = 64
"""Bytes between the starts of columns are a multiple of this, as Arrow advises."""

_PAGE = 4096

_PROBE = [object()]
_UNUSED = sys.getrefcount(_PROBE[0])
"""References to what only a list holds, as this Python counts them."""

_MOST_WASTE, _MOST_POOLED = 4, 8
_LEAST_KEPT, _MOST_KEPT = 1 << 16, 1 << 26
"""How far memory may be larger than asked for, how many are kept, and of how many bytes."""

_ARROW: dict[str, pa.DataType] = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string_view(),
    "enum": pa.int32(),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
    "date": pa.date32(),
}


class _Pool:
    """Memory of batches that nobody looks at any more, to be filled again.

    Fresh memory costs a fault a page, which at this speed is a third of all the work. An array
    is free when the pool holds the only reference: every column and view holds one too.
    """

    def __init__(self) -> None:
        self._kept: list[NDArray[np.int64]] = []
        self._lock = threading.Lock()

    def take(self, words: int) -> NDArray[np.int64]:
        """Return at least `words` words; what is in them is left over from others."""
        with self._lock:
            for place in range(len(self._kept)):
                if sys.getrefcount(self._kept[place]) == _UNUSED:
                    found = self._kept[place]
                    if words <= found.size <= _MOST_WASTE * words:
                        return found
            fresh = np.empty(words + words // 8, np.int64)
            if _LEAST_KEPT <= fresh.nbytes <= _MOST_KEPT:
                places = range(len(self._kept))
                busy = [i for i in places if sys.getrefcount(self._kept[i]) != _UNUSED]
                self._kept = [*(self._kept[i] for i in busy[-_MOST_POOLED:]), fresh]
            return fresh


class Layout:
    """Where each column of a plan lies in one piece of memory, for any number of rows."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pool, self._texts = _Pool(), _Pool()
        self._table = np.asarray([one.table for one in plan.columns], np.int64)
        self._bits = np.asarray([one.bits for one in plan.columns], np.int64)
        self._more = np.asarray([one.more for one in plan.columns], np.int64)
        # Bits come first, in one stretch, as they alone must start as zeros.
        self._order = np.argsort(self._bits, kind="stable")
        self._is_bit = self._bits == 1
        self._is_list = self._more > 0
        self._element = np.where(self._is_bit, 1, np.minimum(self._bits, 64) // 8)
        ops = plan.ops
        extra = np.isin(ops[:, SLOT], [value for value, _ in plan.blobs.values()])
        extra &= ops[:, SLOT] >= 0
        self._places = [
            (SLOT, ops[:, SLOT] >= 0),
            (BITS, ops[:, BITS] >= 0),
            (EXTRA, extra),
        ]

    def allocate(self, room: NDArray[np.int64], text_bytes: int) -> "Buffers":
        """Make room for `room` rows in each table."""
        rows = room[self._table] + self._more
        sizes = np.where(self._is_bit, (rows + 7) // 8, rows * self._bits // 8)
        sizes = -(-sizes // _ALIGN) * _ALIGN
        # Columns a whole number of pages apart would fight for the same lines of the cache.
        sizes += np.where((sizes % _PAGE == 0) & (sizes > 0), _ALIGN, 0)
        starts = np.empty_like(sizes)
        starts[self._order] = np.cumsum(sizes[self._order]) - sizes[self._order]
        memory = self._pool.take(int(sizes.sum()) // 8 + 1).view(np.uint8)
        memory[: int(sizes[self._is_bit].sum())] = 0
        bases = starts // self._element
        memory.view(np.int64)[bases[self._is_list]] = 0
        ops = self._plan.ops.copy()
        for column, where in self._places:
            ops[where, column] = bases[ops[where, column]]
        bit_columns = np.column_stack((self._table, starts, rows))[self._is_bit]
        return Buffers(memory, self._texts.take(text_bytes // 8 + 2), starts, ops, bit_columns)


@dataclass(frozen=True)
class Buffers:
    """One batch's memory: every column, the text, and where things are."""

    memory: NDArray[np.uint8]
    text: NDArray[np.int64]
    starts: NDArray[np.int64]
    ops: NDArray[np.int32]
    bit_columns: NDArray[np.int64]


def blobs_of(
    plan: Plan, buffers: Buffers, rows: int
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Return offset and length of each field of bytes."""

    def view(column: int, dtype: Any) -> Any:
        start = int(buffers.starts[column])
        return buffers.memory[start : start + rows * np.dtype(dtype).itemsize].view(dtype)

    return {
        path: (view(offset, np.int64), view(length, np.int32))
        for path, (offset, length) in plan.blobs.items()
    }


class Framer:
    """Wraps buffers as frames of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._nodes = plan.root.children
        self._names = [node.shape.name for node in self._nodes]
        self._types: dict[int, pa.DataType] = {}
        for node in self._nodes:
            self._remember(node)

    def _remember(self, node: Node) -> pa.DataType:
        inner = [self._remember(child) for child in node.children]
        kind = node.shape.kind
        if kind == "record":
            names = (child.shape.name for child in node.children)
            found = pa.struct(list(zip(names, inner, strict=True)))
        elif kind == "array":
            found = pa.large_list(inner[0])
        else:
            found = _ARROW[node.shape.logical or kind]
        self._types[id(node)] = found
        return pa.string_view() if kind == "enum" else found

    def frame(self, buffers: Buffers, rows: NDArray[np.int64]) -> pl.DataFrame:
        """Return the frame; `rows` are the rows of each table."""
        assembler = _Assembler(self._types, buffers, rows)
        arrays = [assembler.array(node) for node in self._nodes]
        return pl.DataFrame(pa.RecordBatch.from_arrays(arrays, names=self._names))


class _Assembler:
    """Makes Arrow arrays over the buffers of one batch."""

    def __init__(
        self, kinds: dict[int, pa.DataType], buffers: Buffers, rows: NDArray[np.int64]
    ) -> None:
        self._types = kinds
        self._memory = pa.py_buffer(buffers.memory)
        self._text = pa.py_buffer(buffers.text)
        self._starts = buffers.starts.tolist()
        self._rows = rows.tolist()

    def array(self, node: Node) -> pa.Array:
        rows, kind, dtype = (
            self._rows[node.table],
            node.shape.kind,
            self._types[id(node)],
        )
        valid = None if node.bits < 0 else self._memory.slice(self._starts[node.bits])
        if kind == "record":
            children = [self.array(child) for child in node.children]
            return pa.StructArray.from_buffers(dtype, rows, [valid], children=children)
        if kind == "null":
            return pa.nulls(rows)
        buffers = [valid, self._memory.slice(self._starts[node.slot])]
        if kind == "array":
            items = [self.array(child) for child in node.children]
            return pa.LargeListArray.from_buffers(dtype, rows, buffers, children=items)
        if kind == "string":
            buffers.append(self._text)
        array = pa.Array.from_buffers(dtype, rows, buffers)
        return _symbols(node.shape, array) if kind == "enum" else array


def _symbols(shape: Shape, indices: pa.Array) -> pa.Array:
    symbols = pa.array(shape.symbols, pa.string())
    return symbols.take(indices).cast(pa.string_view())
