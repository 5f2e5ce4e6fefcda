"""Writes a frame as a Parquet file: one row group, one plain page a column."""

import ctypes
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from broker.connectors.direct import DirectFile, aligned
from broker.connectors.tables.fresh import kernel
from broker.connectors.tables.fresh.layout import Layout, layout
from broker.connectors.tables.fresh.thrift import I64, STRUCT, Value, listed, number, struct, text

_MAGIC = b"PAR1"
_CREATED_BY = "pitt-google-broker"
_MOST_BYTES = 1 << 30
"""Above this a page's size might not fit into its 32 bits, and batches are never so large."""

_MOST_KINDS = 256
"""Schemas that are remembered; a night brings a dozen."""

_MOST_KEPT = 64 << 20
"""Memory that is kept from one batch to the next, in bytes."""

_CHUNK_BYTES = 64
"""Room for the numbers that a footer tells of a column."""

_ADDRESS_OF = ctypes.pythonapi.PyCapsule_GetPointer
_ADDRESS_OF.restype, _ADDRESS_OF.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)

_Longs = NDArray[np.int64]
_Octets = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of rows of one schema: a name for it, and its layout if it has one."""

    fingerprint: str
    layout: Layout | None


_KINDS: dict[pa.DataType, Kind] = {}


class Prepared:
    """Rows that are about to be written.

    Parameters
    ----------
    rows : polars.DataFrame
        A batch of them.
    """

    def __init__(self, rows: pl.DataFrame) -> None:
        self.rows = rows
        records = rows.rechunk().to_struct("rows")
        self._arrow = records.to_arrow(compat_level=pl.CompatLevel.newest())
        self._kind = _kind(self._arrow.type, rows)

    @property
    def fingerprint(self) -> str:
        """A name for the columns and their types."""
        return self._kind.fingerprint

    @property
    def is_writable(self) -> bool:
        """Whether `write` can do it: types that are known, and not too many bytes."""
        return self._kind.layout is not None and self._arrow.nbytes < _MOST_BYTES

    def write(self, file: DirectFile, metadata: Mapping[str, str]) -> None:
        """Write a Parquet file, all rows in one row group.

        Parameters
        ----------
        file : DirectFile
            An empty file.
        metadata : mapping
            Keys and values for the file's footer.

        Raises
        ------
        TypeError
            If the rows are not writable here.
        OSError
            If the file cannot be written.
        """
        form = self._kind.layout
        if form is None:
            raise TypeError("a column's type is not known here")
        columns = _Columns(self._arrow, form)
        with _POOL.lent(columns.room()) as memory:
            spots, end = columns.put(np.frombuffer(memory, np.uint8))
            file.write(memory, 0, end, 0)
        footer = _footer(form, spots, len(self.rows), metadata)
        tail = b"".join([footer, len(footer).to_bytes(4, "little"), _MAGIC])
        file.write_small(memoryview(tail), end)


def _kind(arrow: pa.DataType, rows: pl.DataFrame) -> Kind:
    """Describe rows by their Arrow type: to ask for their Polars types takes ten times longer."""
    if arrow not in _KINDS:
        if len(_KINDS) >= _MOST_KINDS:
            _KINDS.clear()
        schema = rows.schema
        text = "\n".join(f"{name}\t{dtype!r}" for name, dtype in schema.items())
        _KINDS[arrow] = Kind(xxhash.xxh3_64_hexdigest(text.encode()), layout(schema))
    return _KINDS[arrow]


class _Pool:
    """One piece of memory, kept for the next batch: fresh pages cost as much as the copying."""

    def __init__(self) -> None:
        self._kept = aligned(0)
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, size: int) -> Iterator[memoryview]:
        """Lend at least `size` bytes that start at a page."""
        with self._lock:
            found, self._kept = self._kept, aligned(0)
        if len(found) < size:
            found = aligned(size + size // 8)
        try:
            yield found
        finally:
            with self._lock:
                if len(self._kept) < len(found) <= _MOST_KEPT:
                    self._kept = found


_POOL = _Pool()


class _Entries:
    """Entries of columns, as the kernel has them: levels of definition and repetition, slots."""

    def __init__(self, defined: _Octets, repeated: _Octets, slots: _Longs) -> None:
        self.parts = (defined, repeated, slots)
        self._codes: tuple[_Octets, ...] = ()

    @classmethod
    def of_rows(cls, count: int) -> "_Entries":
        """Return one entry a row."""
        levels = np.zeros(count, np.uint8)
        return cls(levels, levels, np.arange(count, dtype=np.int64))

    def of_items(self, lists: int, depth: int) -> "_Entries":
        """Return the entries of the items of the lists at an address."""
        count = kernel.count_items(lists, self.parts[2])
        made = (np.empty(count, np.uint8), np.empty(count, np.uint8), np.empty(count, np.int64))
        kernel.open_lists(lists, depth, self.parts, made)
        return _Entries(*made)

    def of_fields(self, records: int) -> "_Entries":
        """Return the entries of the fields of the records at an address."""
        defined, repeated, slots = self.parts
        if not kernel.has_nulls(records):
            return _Entries(defined + (slots >= 0), repeated, slots)
        made = (np.empty_like(defined), repeated, np.empty_like(slots))
        kernel.open_records(records, self.parts, made)
        return _Entries(*made)

    def told(self, depth: int, most_defined: int) -> tuple[int, ...]:
        """Return what the kernel is told of them, with the levels of a column without nulls."""
        defined, repeated, slots = self.parts
        repeats = _coded(repeated, depth) if depth else np.empty(0, np.uint8)
        levels = _coded(defined + (slots >= 0), most_defined)
        self._codes = (repeats, levels)  # their addresses are told
        return (
            *(defined.ctypes.data, slots.ctypes.data, len(slots), *kernel.look_at(slots)),
            *(repeats.ctypes.data, repeats.size, levels.ctypes.data, levels.size),
        )


def _coded(levels: _Octets, most: int) -> _Octets:
    out = np.empty(len(levels) + 32, np.uint8)
    return out[: kernel.put_levels(out, 0, levels, most)]


class _Columns:
    """The columns of a frame at their addresses, and the entries of their groups."""

    def __init__(self, records: pa.StructArray, form: Layout) -> None:
        self._form = form
        self._exported = records.__arrow_c_array__()[1]
        addresses = [_ADDRESS_OF(self._exported, b"arrow_array")]
        self._entries = [_Entries.of_rows(len(records))]
        for group in form.groups[1:]:
            array = kernel.child_of(addresses[group.parent], group.place)
            outer = self._entries[group.parent]
            inner = outer.of_items(array, group.depth) if group.is_list else outer.of_fields(array)
            addresses.append(array)
            self._entries.append(inner)
        self._addresses = np.array(addresses, np.int64)
        told = [
            entries.told(group.depth, group.most_defined + 1)
            for entries, group in zip(self._entries, form.groups, strict=True)
        ]
        self._table = np.array(told, np.int64)

    def room(self) -> int:
        """Return how many bytes the file takes at most, but for its footer."""
        room = kernel.room_for(self._form.columns, self._addresses, self._table)
        return len(_MAGIC) + int(room)

    def put(self, out: _Octets) -> tuple[_Longs, int]:
        """Fill all but the footer; return what is where, and where it ends."""
        columns = self._form.columns
        out[: len(_MAGIC)] = np.frombuffer(_MAGIC, np.uint8)
        spots = np.zeros((len(columns), kernel.ENTRIES + 1), np.int64)
        end = kernel.put_pages(columns, self._addresses, self._table, out, len(_MAGIC), spots)
        return spots, int(end)


def _footer(form: Layout, spots: _Longs, rows: int, metadata: Mapping[str, str]) -> bytes:
    chunks = np.empty(len(form.heads) + _CHUNK_BYTES * len(spots), np.uint8)
    end = kernel.put_chunks(form.heads, form.bounds, spots, chunks)
    size = int((spots[:, kernel.END] - spots[:, kernel.START]).sum())
    columns = listed(STRUCT, [Value(STRUCT, chunks[:end].tobytes())], count=len(spots))
    group = struct({1: columns, 2: number(size, I64), 3: number(rows, I64)})
    pairs = [struct({1: text(key), 2: text(value)}) for key, value in metadata.items()]
    fields = {
        1: number(1),
        2: form.schema,
        3: number(rows, I64),
        4: listed(STRUCT, [group]),
        5: listed(STRUCT, pairs),
        6: text(_CREATED_BY),
    }
    return struct(fields).coded
