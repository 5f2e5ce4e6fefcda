"""The machine that runs a plan's ops over a batch of payloads.

Nothing in a payload is trusted: each read is preceded by a comparison with the payload's end,
each store by one with the capacity of its table. Positions below zero are failures, the
negative of one of the codes.
"""

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from broker.surveys.avro import plan as _plan
from broker.surveys.avro import strings as _strings
from broker.surveys.avro import words as _words
from broker.surveys.avro.plan import (
    ARG,
    ARRAY,
    BITS,
    BOOLEAN,
    BRANCH,
    BYTES,
    DOUBLE,
    END,
    ENUM,
    EXTRA,
    FIXED,
    FLOAT,
    INT,
    KIND,
    LAST_SCALAR,
    LONG,
    NEXT,
    NOTHING,
    NULL,
    RECORD,
    SLOT,
    STEP,
    STRING,
    TIME,
)
from broker.surveys.avro.strings import store_string
from broker.surveys.avro.words import (
    BAD_BRANCH,
    BAD_LENGTH,
    BAD_SYMBOL,
    BAD_TIME,
    LEFT_OVER,
    ROWS_FULL,
    SHORT,
    SLOW,
    WIDE_INT,
    bytes_at,
    called,
    inline,
    op_at,
    put32,
    put64,
    read_half,
    read_word,
    set_bit,
    varint,
)

_EARLIEST_S, _LATEST_S = -62135596800, 253402300800
"""0001-01-01 and 10000-01-01, in seconds since 1970: what Python's datetime holds."""


class Memory(NamedTuple):
    """The buffers of all columns as bytes and as words, and the text of long strings."""

    bits: Any
    halves: Any
    words: Any
    text: Any


@inline
def _blob(data, at, size, op, row, memory):  # type: ignore[no-untyped-def]
    """Note where bytes are."""
    if size < 0 or size > data.shape[0] - at:
        return np.int64(-BAD_LENGTH)
    if op[SLOT] >= 0:
        put64(memory.words, op[SLOT] + row, at)
        put32(memory.halves, op[EXTRA] + row, size)
    return at + size


@inline
def _bytes(data, at, op, row, memory):  # type: ignore[no-untyped-def]
    size, at = varint(data, at)
    return at if at < 0 else _blob(data, at, size, op, row, memory)


@inline
def _is_time(value, which):  # type: ignore[no-untyped-def]
    scale = 1000000 if which == 0 else 1000
    if which == 2:
        return _EARLIEST_S // 86400 <= value < _LATEST_S // 86400
    return _EARLIEST_S * scale <= value < _LATEST_S * scale


@inline
def _boolean(data, at, op, row, memory):  # type: ignore[no-untyped-def]
    if at >= data.shape[0]:
        return np.int64(-SHORT)
    if op[SLOT] >= 0 and data[at] != 0:
        set_bit(memory.bits, op[SLOT], row)
    return at + 1


@called
def _rare(data, at, op, row, memory):  # type: ignore[no-untyped-def]
    """Read an enum, a time, a fixed, or what has no value of its own."""
    kind = op[KIND]
    if kind in (NOTHING, RECORD):
        return at
    if kind == FIXED:
        return _blob(data, at, np.int64(op[ARG]), op, row, memory)
    value, at = varint(data, at)
    if at < 0:
        return at
    if kind == BRANCH:
        return at if value == 0 else np.int64(-BAD_BRANCH)
    if kind == ENUM:
        if not 0 <= value < op[ARG]:
            return np.int64(-BAD_SYMBOL)
    elif not _is_time(value, op[ARG]):
        return np.int64(-BAD_TIME)
    if op[SLOT] >= 0 and op[EXTRA] == 64:
        put64(memory.words, op[SLOT] + row, value)
    elif op[SLOT] >= 0:
        put32(memory.halves, op[SLOT] + row, value)
    return at


@inline
def _number(data, at, op, row, memory):  # type: ignore[no-untyped-def]
    """Read an int or a long."""
    value, at = varint(data, at)
    slot = op[SLOT]
    if at < 0:
        return at
    if op[KIND] == LONG:
        if slot >= 0:
            put64(memory.words, slot + row, value)
    else:
        if value != np.int32(value):
            return np.int64(-WIDE_INT)
        if slot >= 0:
            put32(memory.halves, slot + row, value)
    return at


@inline
def _double(data, at, slot, row, memory):  # type: ignore[no-untyped-def]
    if at + 8 > data.shape[0]:
        return np.int64(-SHORT)
    if slot >= 0:
        put64(memory.words, slot + row, read_word(data, at))
    return at + 8


@inline
def _scalar(data, at, op, row, memory, used):  # type: ignore[no-untyped-def]
    """Read one value into its column; return the next position."""
    kind = op[KIND]
    slot = op[SLOT]
    if kind == FLOAT:
        if at + 4 > data.shape[0]:
            return np.int64(-SHORT)
        if slot >= 0:
            put32(memory.halves, slot + row, read_half(data, at))
        return at + 4
    if kind == DOUBLE:
        return _double(data, at, slot, row, memory)
    if kind in (INT, LONG):
        return _number(data, at, op, row, memory)
    if kind == STRING:
        return store_string(data, at, slot + 2 * row if slot >= 0 else -1, memory, used)
    if kind == BYTES:
        return _bytes(data, at, op, row, memory)
    if kind == BOOLEAN:
        return _boolean(data, at, op, row, memory)
    return _rare(data, at, op, row, memory)


@inline
def _float(data, at, ops, place, row, memory):  # type: ignore[no-untyped-def]
    """Store a float that is not null."""
    put32(memory.halves, op_at(ops, place)[SLOT] + row, read_half(data, at))
    set_bit(memory.bits, op_at(ops, place)[BITS], row)


@inline
def _floats(data, at, ops, place, row, memory):  # type: ignore[no-untyped-def]
    """Read nullable floats four at a time, while all four or none are null.

    Most fields of most surveys are such, and four reads that need not wait for one another
    take hardly longer than one.
    """
    if op_at(ops, place)[KIND] != FLOAT or op_at(ops, place)[EXTRA] < 4:
        return place, at
    end = place + op_at(ops, place)[EXTRA] - 4
    kept = op_at(ops, place)[SLOT] >= 0
    good = np.uint8(2 - 2 * op_at(ops, place)[NULL])
    nulls = np.int32(0x02020202 * op_at(ops, place)[NULL])
    last = data.shape[0] - 20
    while place <= end and at <= last:
        if (
            data[at] == good
            and data[at + 5] == good
            and data[at + 10] == good
            and data[at + 15] == good
        ):
            for step in range(4 if kept else 0):
                _float(data, at + 1 + 5 * step, ops, place + step, row, memory)
            at += 20
        elif read_half(data, at) == nulls:
            for step in range(4 if kept else 0):
                put32(memory.halves, op_at(ops, place + step)[SLOT] + row, 0)
            at += 4
        else:
            break
        place += 4
    return place, at


@inline
def _clear(op, row, memory):  # type: ignore[no-untyped-def]
    """Write zeros for a scalar that is null."""
    kind = op[KIND]
    slot = op[SLOT]
    if slot < 0:
        return
    if kind in (FLOAT, INT, ENUM):
        put32(memory.halves, slot + row, 0)
    elif kind in (DOUBLE, LONG):
        put64(memory.words, slot + row, 0)
    elif kind == STRING:
        put64(memory.words, slot + 2 * row, 0)
        put64(memory.words, slot + 2 * row + 1, 0)
    elif kind in (BYTES, FIXED):
        put64(memory.words, slot + row, -1)
        put32(memory.halves, op[EXTRA] + row, -1)
    elif kind == TIME and op[EXTRA] == 64:
        put64(memory.words, slot + row, 0)
    elif kind == TIME:
        put32(memory.halves, slot + row, 0)


@called
def _clear_all(ops, first, row, memory, rows):  # type: ignore[no-untyped-def]
    """Write zeros and empty lists for a record or list that is null."""
    end = op_at(ops, first)[NEXT]
    at = first
    while at < end:
        if op_at(ops, at)[KIND] == ARRAY:
            if op_at(ops, at)[SLOT] >= 0:
                put64(
                    memory.words,
                    op_at(ops, at)[SLOT] + row + 1,
                    rows[op_at(ops, at)[ARG]],
                )
            at = op_at(ops, at)[NEXT]
        else:
            _clear(op_at(ops, at), row, memory)
            at += 1


@called
def _next_block(data, at, op, rows, room):  # type: ignore[no-untyped-def]
    """Read how many items follow; return that and the next position."""
    count, at = varint(data, at)
    if at < 0 or count == 0:
        return np.int64(0), at
    if count < 0:
        count = -count
        at = varint(data, at)[1]
        if at < 0:
            return np.int64(0), at
    if count < 0 or count > (data.shape[0] - at) // op[EXTRA]:
        return np.int64(0), np.int64(-BAD_LENGTH)
    if op[STEP] and count > room[op[ARG]] - rows[op[ARG]]:
        return np.int64(0), np.int64(-ROWS_FULL)
    return count, at


@called
def _list(data, at, ops, place, row, depth, memory, rows, room, stack):  # type: ignore[no-untyped-def]
    """Begin a list, or go on after one of its items; return place, row, depth and position."""
    if op_at(ops, place)[KIND] == ARRAY:
        depth += 1
        stack[depth, 0] = place
        stack[depth, 1] = row
        stack[depth, 2] = 0
    else:
        rows[op_at(ops, place)[ARG]] += op_at(ops, stack[depth, 0])[STEP]
        stack[depth, 2] -= 1
    first = stack[depth, 0]
    if stack[depth, 2] <= 0:
        stack[depth, 2], at = _next_block(data, at, op_at(ops, first), rows, room)
    if stack[depth, 2] > 0:
        return first + 1, rows[op_at(ops, first)[ARG]], depth, at
    row = stack[depth, 1]
    if op_at(ops, first)[SLOT] >= 0:
        put64(
            memory.words,
            op_at(ops, first)[SLOT] + row + 1,
            rows[op_at(ops, first)[ARG]],
        )
    return np.int64(op_at(ops, first)[NEXT]), row, depth - 1, at


@called
def _record(data, at, ops, memory, rows, room, used, stack):  # type: ignore[no-untyped-def]
    """Read one record into the next row of each table; return the next position."""
    place = np.int64(0)
    depth = np.int64(-1)
    row = rows[0]
    while at >= 0:
        place, at = _floats(data, at, ops, place, row, memory)
        op = op_at(ops, place)
        kind = op[KIND]
        null = op[NULL]
        if null >= 0:
            branch, at = varint(data, at)
            if at < 0:
                return at
            if branch == null:
                if kind < RECORD:
                    _clear(op, row, memory)
                else:
                    _clear_all(ops, place, row, memory, rows)
                place = np.int64(op[NEXT])
                continue
            if branch != 1 - null:
                return np.int64(-BAD_BRANCH)
            if op[BITS] >= 0:
                set_bit(memory.bits, op[BITS], row)
        if kind < LAST_SCALAR:
            at = _scalar(data, at, op, row, memory, used)
            place += 1
        elif kind == END:
            return at
        else:
            place, row, depth, at = _list(
                data, at, ops, place, row, depth, memory, rows, room, stack
            )
    return at


@inline
def _copy(source, target):  # type: ignore[no-untyped-def]
    for index in range(source.shape[0]):
        target[index] = source[index]


@called
def _undo(rows, before, bit_columns, memory):  # type: ignore[no-untyped-def]
    """Forget the rows since `before`, and clear their bits."""
    for index in range(bit_columns.shape[0]):
        table = bit_columns[index, 0]
        base = bit_columns[index, 1]
        last = min(rows[table] + 1, bit_columns[index, 2])
        for row in range(before[table], last):
            memory.bits[base + (row >> 3)] &= np.uint8(255 - (1 << (row & 7)))
    _copy(before, rows)


@called
def _block_end(data, at):  # type: ignore[no-untyped-def]
    """Check the frame of a container's one record; return where it starts and ends."""
    start, size = at + 16, np.int64(-1)
    if at >= 0 and start <= data.shape[0]:
        count, start = varint(data, start)
        if start >= 0 and count == 1:
            size, start = varint(data, start)
    if start < 0 or size < 0 or size != data.shape[0] - start - 16:
        return np.int64(-SLOW), np.int64(0)
    for place in range(16):
        if data[at + place] != data[start + size + place]:
            return np.int64(-SLOW), np.int64(0)
    return start, start + size


@called
def _unit(units, unit, ops, memory, tables, used, owners, stack):  # type: ignore[no-untyped-def]
    """Read all records of one unit, which they must fill; return a position."""
    rows, room = tables[0], tables[1]
    end = units[unit, 1]
    data = bytes_at(units[unit, 0], end)
    at = units[unit, 2]
    count = units[unit, 3]
    if count < 0:
        count = 1
        at, end = _block_end(data, at)
        if at < 0:
            return at
        data = bytes_at(units[unit, 0], end)
    for _ in range(count):
        if rows[0] >= room[0]:
            return np.int64(-ROWS_FULL)
        at = _record(data, at, ops, memory, rows, room, used, stack)
        if at < 0:
            return at
        owners[rows[0]] = unit
        rows[0] += 1
    return at if at == end else np.int64(-LEFT_OVER)


SIGNATURE = (
    "int64(int64[:,::1], int32[:,::1], uint8[::1], int32[::1], int64[::1], int64[::1],"
    "int64[:,::1], int64[::1], int64[:,::1], int32[::1], int64[::1], int64[:,::1])"
)


def _compiled(revision: int) -> Any:
    """Compile the kernel, or take it from the disk.

    `revision` makes a kernel that was compiled of other parts another one: numba looks only at
    the file that the function is in, and at the values that it closes over.
    """

    @njit(SIGNATURE, nogil=True, error_model="numpy", cache=True, _nrt=False)
    def run(  # type: ignore[no-untyped-def]
        units,
        ops,
        bits,
        halves,
        words,
        text,
        tables,
        used,
        bit_columns,
        outcome,
        owners,
        stack,
    ):
        """Decode units into the buffers; return how many were done before room ran out.

        Parameters
        ----------
        units : ndarray (n, 4), int64
            Address, size, start and count of records (-1: a container's sync marker is at start).
        ops : ndarray, int32
            The plan's, with places for numbers of columns.
        bits, halves, words : ndarray
            The same memory in elements of 1, 4 and 8 bytes.
        text : ndarray, int64
            Long strings.
        tables : ndarray (3, tables), int64
            Rows so far, the most that there is space for, and scratch.
        used : ndarray (2,), int64
            Bytes of text; why the run stopped.
        bit_columns : ndarray (m, 3), int64
            Table, place and capacity of each column of bits.
        outcome : ndarray (n,), int32
            Filled: how each unit ended.
        owners : ndarray, int64
            Filled: the unit of each row.
        stack : ndarray (tables, 3), int64
            Scratch.
        """
        _ = revision
        memory = Memory(bits, halves, words, text)
        rows, before = tables[0], tables[2]
        for unit in range(units.shape[0]):
            _copy(rows, before)
            text_before = used[0]
            at = _unit(units, unit, ops, memory, tables, used, owners, stack)
            if at < 0:
                _undo(rows, before, bit_columns, memory)
                used[0] = text_before
                if at <= -ROWS_FULL:
                    used[1] = -at
                    return np.int64(unit)
                outcome[unit] = -at
        return np.int64(units.shape[0])

    return run


_PARTS = [Path(str(part.__file__)).read_bytes() for part in (_plan, _strings, _words)]

run = _compiled(zlib.crc32(b"".join(_PARTS)))
