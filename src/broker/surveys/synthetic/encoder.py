"""Avro records from columns: thousands a millisecond, for simulated packets.

A record's constant fields are encoded once; a compiled loop puts the columns between them.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numba
import numpy as np
from numpy.typing import NDArray

NULL_INT = np.iinfo(np.int64).min
"""Stands for null in a column of integers; NaN does in one of floats."""

_CONSTANT, _FLOAT, _DOUBLE, _LONG, _BOOLEAN, _TEXT = range(6)
_CODES = {"float": _FLOAT, "double": _DOUBLE, "int": _LONG, "long": _LONG, "boolean": _BOOLEAN}
_LONGEST_NUMBER = 11


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts: different ones, and which of them each row has (-1: null)."""

    words: Sequence[str]
    index: NDArray[np.int64]

    def where(self, mask: NDArray[np.bool_]) -> "Texts":
        """Return the column with nulls where `mask` does not hold."""
        return Texts(self.words, np.where(mask, self.index, -1))


Column = NDArray[Any] | Texts


def take(columns: Mapping[str, Column], rows: NDArray[np.int64]) -> dict[str, Column]:
    """Return some rows of columns."""
    return {
        name: Texts(one.words, one.index[rows]) if isinstance(one, Texts) else one[rows]
        for name, one in columns.items()
    }


@dataclass(frozen=True, slots=True)
class Records:
    """Encoded records, one after the other; record i is ``data[offsets[i]:offsets[i + 1]]``."""

    data: memoryview
    offsets: list[int]

    def span(self, begin: int, end: int) -> memoryview:
        """Return the bytes of records `begin` up to `end`."""
        return self.data[self.offsets[begin] : self.offsets[end]]


class RecordEncoder:
    """Encodes records of one flat type.

    Parameters
    ----------
    definition : mapping
        Avro record of primitive fields and unions of null with one.
    constants : mapping, optional
        Fields that are the same in all records. Fields neither here nor in a call's columns
        are null, or zero where they cannot be.
    """

    def __init__(
        self, definition: Mapping[str, Any], constants: Mapping[str, Any] | None = None
    ) -> None:
        self._fields = {field["name"]: field["type"] for field in definition["fields"]}
        self._constants = dict(constants or {})

    def encode(self, columns: Mapping[str, Column]) -> Records:
        """Encode one record for each row.

        Parameters
        ----------
        columns : mapping
            Arrays of floats (NaN is null), integers (`NULL_INT` is null) or booleans, or
            texts.
        """
        if unknown := set(columns) - set(self._fields):
            raise KeyError(f"the record has no fields {sorted(unknown)}")
        plan = _Plan(self._fields, self._constants, columns)
        size = _size(columns)
        out = np.empty(size * plan.longest, np.uint8)
        offsets = np.zeros(size + 1, np.int64)
        used = _write(plan.table(), plan.floats(), plan.ints(), plan.pool(), (out, offsets))
        return Records(memoryview(out[:used].tobytes()), offsets.tolist())


class _Plan:
    """The steps that write one record, and the matrices that they read."""

    def __init__(
        self,
        fields: Mapping[str, Any],
        constants: Mapping[str, Any],
        columns: Mapping[str, Column],
    ) -> None:
        self._steps: list[tuple[int, int, int, int]] = []
        self._floats: list[NDArray[np.float64]] = []
        self._ints: list[NDArray[np.int64]] = []
        self._texts: list[bytes] = []
        self._constant = bytearray()
        self.longest = 0
        self._count = _size(columns)
        for name, type_ in fields.items():
            if name in columns:
                self._flush()
                self._add(type_, columns[name])
            else:
                self._constant += _encoded(type_, constants.get(name))
        self._flush()

    def table(self) -> NDArray[np.int64]:
        """Steps: code, null branch (-1: no union), column or first text, unused or length."""
        return np.array(self._steps, np.int64).reshape(-1, 4)

    def floats(self) -> NDArray[np.float64]:
        return np.array(self._floats).reshape(-1, self._count)

    def ints(self) -> NDArray[np.int64]:
        return np.array(self._ints, np.int64).reshape(-1, self._count)

    def pool(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Every constant and text, and where each begins."""
        begins = np.cumsum([0, *map(len, self._texts)])
        return np.frombuffer(b"".join(self._texts) or b"\0", np.uint8), begins.astype(np.int64)

    def _flush(self) -> None:
        if self._constant:
            self._steps.append((_CONSTANT, -1, len(self._texts), 0))
            self._texts.append(bytes(self._constant))
            self.longest += len(self._constant)
            self._constant.clear()

    def _add(self, type_: Any, column: Column) -> None:
        kind, null_branch = _kind(type_)
        if isinstance(column, Texts):
            self._add_texts(column, null_branch)
            return
        values = np.asarray(column)
        code = _CODES[kind]
        if code in (_FLOAT, _DOUBLE):
            self._steps.append((code, null_branch, len(self._floats), 0))
            self._floats.append(values.astype(np.float64))
        else:
            self._steps.append((code, null_branch, len(self._ints), 0))
            self._ints.append(values.astype(np.int64))
        self.longest += _LONGEST_NUMBER

    def _add_texts(self, column: Texts, null_branch: int) -> None:
        """Put each word into the pool, after a null; the column becomes their numbers."""
        prefix = b"" if null_branch < 0 else _branch(1 - null_branch)
        first = len(self._texts) + 1
        self._texts += [b"" if null_branch < 0 else _branch(null_branch)]
        self._texts += [prefix + _text(word) for word in column.words]
        self._steps.append((_TEXT, -1, len(self._ints), first))
        self._ints.append(column.index.astype(np.int64))
        self.longest += max(map(len, self._texts[first - 1 :]))


def _size(columns: Mapping[str, Column]) -> int:
    first = next(iter(columns.values()))
    return len(first.index if isinstance(first, Texts) else first)


def _kind(type_: Any) -> tuple[str, int]:
    """Return a field's primitive type, and the branch of null in its union (-1: no union)."""
    if not isinstance(type_, list):
        return (type_["type"] if isinstance(type_, Mapping) else str(type_)), -1
    kind = next(_kind(one)[0] for one in type_ if one != "null")
    return kind, type_.index("null")


def _encoded(type_: Any, value: Any) -> bytes:
    if value is None and not isinstance(type_, list):
        value = "" if _kind(type_)[0] == "string" else 0
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(_plain(type_)), value)
    return out.getvalue()


def _plain(type_: Any) -> Any:
    """Return a type without logical types: values are as they travel."""
    if isinstance(type_, list):
        return [_plain(one) for one in type_]
    return type_["type"] if isinstance(type_, Mapping) else type_


def _branch(number: int) -> bytes:
    return bytes([2 * number])


def _text(text: str) -> bytes:
    raw = text.encode()
    return varint(len(raw)) + raw


def varint(value: int) -> bytes:
    """Return an Avro int or long.

    Examples
    --------
    >>> varint(1), varint(-1), varint(64).hex()
    (b'\\x02', b'\\x01', '8001')
    """
    zigzag, out = (value << 1) ^ (value >> 63), bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


@numba.njit(nogil=True, cache=True)
def _write(steps, floats, ints, pool, out):  # type: ignore[no-untyped-def]
    """Write every record; return the number of bytes written."""
    data, offsets = out
    single = np.empty(1, np.float32)
    double = np.empty(1, np.float64)
    single_bytes, double_bytes = single.view(np.uint8), double.view(np.uint8)
    at = 0
    for row in range(offsets.size - 1):
        for step in range(steps.shape[0]):
            code, null_branch, column = steps[step, 0], steps[step, 1], steps[step, 2]
            if code == _CONSTANT:
                at = _copy_text(pool, column, data, at)
            elif code == _TEXT:
                at = _copy_text(pool, steps[step, 3] + ints[column, row], data, at)
            elif code <= _DOUBLE:
                value = floats[column, row]
                is_null = null_branch >= 0 and np.isnan(value)
                at = _put_branch(null_branch, is_null, data, at)
                if not is_null and code == _FLOAT:
                    single[0] = value
                    at = _copy(single_bytes, data, at)
                elif not is_null:
                    double[0] = value
                    at = _copy(double_bytes, data, at)
            else:
                number = ints[column, row]
                is_null = null_branch >= 0 and number == NULL_INT
                at = _put_branch(null_branch, is_null, data, at)
                if not is_null and code == _BOOLEAN:
                    data[at] = number
                    at += 1
                elif not is_null:
                    at = _put_long(number, data, at)
        offsets[row + 1] = at
    return at


@numba.njit(nogil=True, cache=True)
def _copy(source, data, at):  # type: ignore[no-untyped-def]
    for i in range(source.size):
        data[at + i] = source[i]
    return at + source.size


@numba.njit(nogil=True, cache=True)
def _copy_text(pool, number, data, at):  # type: ignore[no-untyped-def]
    texts, begins = pool
    return _copy(texts[begins[number] : begins[number + 1]], data, at)


@numba.njit(nogil=True, cache=True)
def _put_branch(null_branch, is_null, data, at):  # type: ignore[no-untyped-def]
    if null_branch < 0:
        return at
    data[at] = 2 * (null_branch if is_null else 1 - null_branch)
    return at + 1


@numba.njit(nogil=True, cache=True)
def _put_long(number, data, at):  # type: ignore[no-untyped-def]
    zigzag = np.uint64((number << 1) ^ (number >> 63))
    while zigzag > np.uint64(0x7F):
        data[at] = np.uint8((zigzag & np.uint64(0x7F)) | np.uint64(0x80))
        zigzag >>= np.uint64(7)
        at += 1
    data[at] = np.uint8(zigzag)
    return at + 1
