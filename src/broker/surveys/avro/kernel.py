"""The machine that runs a plan's ops over a batch of payloads.

Nothing in a payload is trusted: each read is preceded by a comparison with the payload's end,
each store by one with the capacity of its table. Positions below zero are failures, the
negative of one of the codes.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

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
    ITEM_END,
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

(
    GOOD,
    SHORT,
    BAD_BRANCH,
    BAD_LENGTH,
    BAD_TEXT,
    LONG_NUMBER,
    WIDE_INT,
    BAD_SYMBOL,
    BAD_TIME,
    LEFT_OVER,
    SLOW,
    ROWS_FULL,
    TEXT_FULL,
) = range(13)
"""How a payload ended; the last two stop the batch, which is run again with more room."""

REASONS = {
    SHORT: "the packet ends too early",
    BAD_BRANCH: "there is no such branch of the union",
    BAD_LENGTH: "a length or count is beyond the packet's end",
    BAD_TEXT: "a string is not UTF-8",
    LONG_NUMBER: "a number has more than ten bytes",
    WIDE_INT: "an int has more than 32 bits",
    BAD_SYMBOL: "there is no such symbol of the enum",
    BAD_TIME: "a time is beyond the calendar",
    LEFT_OVER: "bytes are left after the record",
}

_EARLIEST_S, _LATEST_S = -62135596800, 253402300800
"""0001-01-01 and 10000-01-01, in seconds since 1970: what Python's datetime holds."""

_INLINE = 12
"""Bytes of a string that an Arrow view holds itself."""

_LOW = tuple((1 << (8 * n)) - 1 for n in range(8))
"""Masks of the n low bytes of a word."""

_HIGH_BITS = -0x7F7F7F7F7F7F7F80
_LOW_BITS = 0x7F7F7F7F7F7F7F7F

# Without numba's runtime there is no counting of references, and nothing can be allocated.
_inline = njit(nogil=True, error_model="numpy", forceinline=True, _nrt=False)
_called = njit(nogil=True, error_model="numpy", _nrt=False)


class Memory(NamedTuple):
    """The buffers of all columns as bytes and as words, and the text of long strings."""

    bits: Any
    halves: Any
    words: Any
    text: Any


@intrinsic
def _bytes_at(_typing: Any, address: Any, size: Any) -> Any:
    """Make an array of the `size` bytes at an address."""
    made = types.Array(types.uint8, 1, "C")

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        array = make_array(made)(context, builder)
        pointer = builder.inttoptr(args[0], cgutils.voidptr_t)
        one = context.get_constant(types.intp, 1)
        populate_array(array, pointer, [args[1]], [one], one, None)
        return array._getvalue()

    return made(types.int64, types.int64), generate


def _word_reader(bits: int, result: Any) -> Any:
    """Make an intrinsic that reads an unaligned word from an array of bytes."""

    @intrinsic
    def read(_typing: Any, data: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            place = builder.gep(array.data, [args[1]])
            pointer = builder.bitcast(place, ir.IntType(bits).as_pointer())
            return builder.load(pointer, align=1)

        return result(data, types.int64), generate

    return read


@intrinsic
def _lowest(_typing: Any, word: Any) -> Any:
    """Return the place of the lowest bit of a word that is not zero."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


_read32 = _word_reader(32, types.int32)
_read64 = _word_reader(64, types.int64)


def _storer(bits: int, merge: bool) -> Any:
    """Make an intrinsic that stores an element of an array, or merges it into what is there."""

    @intrinsic
    def store(_typing: Any, target: Any, at: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            place = builder.gep(array.data, [args[1]])
            value = builder.or_(builder.load(place), args[2]) if merge else args[2]
            builder.store(value, place)
            return context.get_dummy_value()

        return types.void(target, types.int64, getattr(types, f"int{bits}")), generate

    return store


_store32 = _storer(32, merge=False)
_store64 = _storer(64, merge=False)
_merge8 = _storer(8, merge=True)


@intrinsic
def _op(_typing: Any, table: Any, at: Any) -> Any:
    """Return one row of the op table, which no packet can change."""
    made = types.Array(types.int32, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = context.make_array(signature.args[0])(context, builder, args[0])
        array = make_array(made)(context, builder)
        eight = context.get_constant(types.intp, 8)
        pointer = builder.gep(source.data, [builder.mul(args[1], eight)])
        four = context.get_constant(types.intp, 4)
        populate_array(array, pointer, [eight], [four], four, None)
        return array._getvalue()

    return made(table, types.int64), generate


# Plain indexing counts from the end below zero, which costs three instructions an access. In
# the functions below it only serves the bounds checker; the compiler drops it otherwise.


@_inline
def _put32(target, at, value):  # type: ignore[no-untyped-def]
    target[at]
    _store32(target, at, value)


@_inline
def _put64(target, at, value):  # type: ignore[no-untyped-def]
    target[at]
    _store64(target, at, value)


@_inline
def _set_bit(bits, base, row):  # type: ignore[no-untyped-def]
    bits[base + (row >> 3)]
    _merge8(bits, base + (row >> 3), 1 << (row & 7))


@_inline
def _half(data, at):  # type: ignore[no-untyped-def]
    """Read 4 bytes."""
    data[at + 3]
    return _read32(data, at)


@_inline
def _word(data, at):  # type: ignore[no-untyped-def]
    """Read 8 bytes."""
    data[at + 7]
    return _read64(data, at)


@_called
def _long_varint(data, at):  # type: ignore[no-untyped-def]
    number = np.int64(0)
    end = min(at + 10, data.shape[0])
    shift = np.int64(0)
    for place in range(at, end):
        byte = np.int64(data[place])
        number |= (byte & 127) << shift
        if byte < 128:
            return ((number >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(number & 1), place + 1
        shift += 7
    return np.int64(0), np.int64(-LONG_NUMBER if end - at == 10 else -SHORT)


@_inline
def _word_varint(data, at):  # type: ignore[no-untyped-def]
    """Read a number of up to eight bytes at once, by pushing their low bits together."""
    word = _word(data, at)
    stops = ~word & _HIGH_BITS
    if stops == 0:
        return _long_varint(data, at)
    size = (_lowest(stops) >> 3) + 1
    word &= (stops ^ (stops - 1)) & _LOW_BITS
    word = (word & 0x007F007F007F007F) | ((word & 0x7F007F007F007F00) >> 1)
    word = (word & 0x00003FFF00003FFF) | ((word & 0x3FFF00003FFF0000) >> 2)
    word = (word & 0x0FFFFFFF) | ((word & 0x0FFFFFFF00000000) >> 4)
    return (word >> 1) ^ -(word & 1), at + size


@_inline
def _varint(data, at):  # type: ignore[no-untyped-def]
    """Read a number; return it and the next position."""
    if at < data.shape[0]:
        byte = np.int64(data[at])
        if byte < 128:
            return (byte >> 1) ^ -(byte & 1), at + 1
        if at + 8 <= data.shape[0]:
            return _word_varint(data, at)
    return _long_varint(data, at)


@_called
def _is_text(data, at, end):  # type: ignore[no-untyped-def]
    """Tell whether bytes are UTF-8: no surrogates, nothing overlong."""
    while at < end:
        lead = data[at]
        at += 1
        if lead < 0x80:
            continue
        if lead < 0xC2 or lead > 0xF4:
            return False
        more = 1 if lead < 0xE0 else (2 if lead < 0xF0 else 3)
        if at + more > end:
            return False
        low = 0xA0 if lead == 0xE0 else (0x90 if lead == 0xF0 else 0x80)
        high = 0x9F if lead == 0xED else (0x8F if lead == 0xF4 else 0xBF)
        if data[at] < low or data[at] > high:
            return False
        for place in range(at + 1, at + more):
            if data[place] & 0xC0 != 0x80:
                return False
        at += more
    return True


@_inline
def _some(data, at, size):  # type: ignore[no-untyped-def]
    """Read `size` < 8 bytes as a word."""
    if at + 8 <= data.shape[0]:
        return _word(data, at) & _LOW[size]
    word = np.int64(0)
    for place in range(size):
        word |= np.int64(data[at + place]) << (8 * place)
    return word


@_called
def _short_string(data, at, size, slot, memory):  # type: ignore[no-untyped-def]
    """Store a string that fits its view; return the or of its bytes."""
    if size > 4:
        first = np.int64(_half(data, at)) & 0xFFFFFFFF
        rest = size - 4
        second = _word(data, at + 4) if rest == 8 else _some(data, at + 4, rest)
    else:
        first = _some(data, at, size)
        second = np.int64(0)
    if slot >= 0:
        _put64(memory.words, slot, size | (first << 32))
        _put64(memory.words, slot + 1, second)
    return first | second


@_called
def _long_string(data, at, size, slot, memory, used):  # type: ignore[no-untyped-def]
    """Copy a string to the text and store its view; return the or of its bytes."""
    place = used[0] >> 3
    last = size >> 3
    seen = np.int64(0)
    for step in range(last):
        word = _word(data, at + 8 * step)
        seen |= word
        _put64(memory.text, place + step, word)
    if size & 7:
        word = _some(data, at + 8 * last, size & 7)
        seen |= word
        _put64(memory.text, place + last, word)
    first = np.int64(_half(data, at)) & 0xFFFFFFFF
    _put64(memory.words, slot, size | (first << 32))
    _put64(memory.words, slot + 1, used[0] << 32)
    used[0] += (size + 7) & ~7
    return seen


@_called
def _or(data, at, size):  # type: ignore[no-untyped-def]
    seen = np.int64(0)
    for step in range(size >> 3):
        seen |= _word(data, at + 8 * step)
    return seen | _some(data, at + (size & ~7), size & 7)


@_inline
def _string(data, at, slot, memory, used):  # type: ignore[no-untyped-def]
    size, at = _varint(data, at)
    if at < 0:
        return at
    if size < 0 or size > data.shape[0] - at:
        return np.int64(-BAD_LENGTH)
    if size <= _INLINE:
        seen = _short_string(data, at, size, slot, memory)
    elif slot >= 0:
        if used[0] + size + 8 > 8 * memory.text.shape[0]:
            return np.int64(-TEXT_FULL)
        seen = _long_string(data, at, size, slot, memory, used)
    else:
        seen = _or(data, at, size)
    if seen & _HIGH_BITS and not _is_text(data, at, at + size):
        return np.int64(-BAD_TEXT)
    return at + size


@_inline
def _blob(data, at, size, op, row, memory):  # type: ignore[no-untyped-def]
    """Note where bytes are."""
    if size < 0 or size > data.shape[0] - at:
        return np.int64(-BAD_LENGTH)
    if op[SLOT] >= 0:
        _put64(memory.words, op[SLOT] + row, at)
        _put32(memory.halves, op[EXTRA] + row, size)
    return at + size


@_inline
def _is_time(value, which):  # type: ignore[no-untyped-def]
    scale = 1000000 if which == 0 else 1000
    if which == 2:
        return _EARLIEST_S // 86400 <= value < _LATEST_S // 86400
    return _EARLIEST_S * scale <= value < _LATEST_S * scale


@_inline
def _boolean(data, at, op, row, memory):  # type: ignore[no-untyped-def]
    if at >= data.shape[0]:
        return np.int64(-SHORT)
    if op[SLOT] >= 0 and data[at] != 0:
        _set_bit(memory.bits, op[SLOT], row)
    return at + 1


@_called
def _rare(data, at, op, row, memory):  # type: ignore[no-untyped-def]
    """Read an enum, a time, a fixed, or what has no value of its own."""
    kind = op[KIND]
    if kind in (NOTHING, RECORD):
        return at
    if kind == FIXED:
        return _blob(data, at, np.int64(op[ARG]), op, row, memory)
    value, at = _varint(data, at)
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
        _put64(memory.words, op[SLOT] + row, value)
    elif op[SLOT] >= 0:
        _put32(memory.halves, op[SLOT] + row, value)
    return at


@_inline
def _number(data, at, op, row, memory):  # type: ignore[no-untyped-def]
    """Read an int or a long."""
    value, at = _varint(data, at)
    slot = op[SLOT]
    if at < 0:
        return at
    if op[KIND] == LONG:
        if slot >= 0:
            _put64(memory.words, slot + row, value)
    else:
        if value != np.int32(value):
            return np.int64(-WIDE_INT)
        if slot >= 0:
            _put32(memory.halves, slot + row, value)
    return at


@_inline
def _scalar(data, at, op, row, memory, used):  # type: ignore[no-untyped-def]
    """Read one value into its column; return the next position."""
    kind = op[KIND]
    slot = op[SLOT]
    if kind == FLOAT:
        if at + 4 > data.shape[0]:
            return np.int64(-SHORT)
        if slot >= 0:
            _put32(memory.halves, slot + row, _half(data, at))
        return at + 4
    if kind == DOUBLE:
        if at + 8 > data.shape[0]:
            return np.int64(-SHORT)
        if slot >= 0:
            _put64(memory.words, slot + row, _word(data, at))
        return at + 8
    if kind in (INT, LONG):
        return _number(data, at, op, row, memory)
    if kind == STRING:
        return _string(data, at, slot + 2 * row if slot >= 0 else -1, memory, used)
    if kind == BYTES:
        size, at = _varint(data, at)
        return at if at < 0 else _blob(data, at, size, op, row, memory)
    if kind == BOOLEAN:
        return _boolean(data, at, op, row, memory)
    return _rare(data, at, op, row, memory)


@_inline
def _float(data, at, ops, place, row, memory):  # type: ignore[no-untyped-def]
    """Store a float that is not null."""
    _put32(memory.halves, _op(ops, place)[SLOT] + row, _half(data, at))
    _set_bit(memory.bits, _op(ops, place)[BITS], row)


@_inline
def _floats(data, at, ops, place, row, memory):  # type: ignore[no-untyped-def]
    """Read nullable floats four at a time, while all four or none are null.

    Most fields of most surveys are such, and four reads that need not wait for one another
    take hardly longer than one.
    """
    end = place + _op(ops, place)[EXTRA] - 4
    kept = _op(ops, place)[SLOT] >= 0
    good = np.uint8(2 - 2 * _op(ops, place)[NULL])
    nulls = np.int32(0x02020202 * _op(ops, place)[NULL])
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
        elif _half(data, at) == nulls:
            for step in range(4 if kept else 0):
                _put32(memory.halves, _op(ops, place + step)[SLOT] + row, 0)
            at += 4
        else:
            break
        place += 4
    return place, at


@_inline
def _clear(op, row, memory):  # type: ignore[no-untyped-def]
    """Write zeros for a scalar that is null."""
    kind = op[KIND]
    slot = op[SLOT]
    if slot < 0:
        return
    if kind in (FLOAT, INT, ENUM):
        _put32(memory.halves, slot + row, 0)
    elif kind in (DOUBLE, LONG):
        _put64(memory.words, slot + row, 0)
    elif kind == STRING:
        _put64(memory.words, slot + 2 * row, 0)
        _put64(memory.words, slot + 2 * row + 1, 0)
    elif kind in (BYTES, FIXED):
        _put64(memory.words, slot + row, -1)
        _put32(memory.halves, op[EXTRA] + row, -1)
    elif kind == TIME and op[EXTRA] == 64:
        _put64(memory.words, slot + row, 0)
    elif kind == TIME:
        _put32(memory.halves, slot + row, 0)


@_called
def _clear_all(ops, first, row, memory, rows):  # type: ignore[no-untyped-def]
    """Write zeros and empty lists for a record or list that is null."""
    end = _op(ops, first)[NEXT]
    at = first
    while at < end:
        if _op(ops, at)[KIND] == ARRAY:
            if _op(ops, at)[SLOT] >= 0:
                _put64(memory.words, _op(ops, at)[SLOT] + row + 1, rows[_op(ops, at)[ARG]])
            at = _op(ops, at)[NEXT]
        else:
            _clear(_op(ops, at), row, memory)
            at += 1


@_called
def _next_block(data, at, op, rows, room):  # type: ignore[no-untyped-def]
    """Read how many items follow; return that and the next position."""
    count, at = _varint(data, at)
    if at < 0 or count == 0:
        return np.int64(0), at
    if count < 0:
        count = -count
        at = _varint(data, at)[1]
        if at < 0:
            return np.int64(0), at
    if count < 0 or count > (data.shape[0] - at) // op[EXTRA]:
        return np.int64(0), np.int64(-BAD_LENGTH)
    if op[STEP] and count > room[op[ARG]] - rows[op[ARG]]:
        return np.int64(0), np.int64(-ROWS_FULL)
    return count, at


@_called
def _list(data, at, ops, place, row, depth, memory, rows, room, stack):  # type: ignore[no-untyped-def]
    """Begin a list, or go on after one of its items; return place, row, depth and position."""
    if _op(ops, place)[KIND] == ARRAY:
        depth += 1
        stack[depth, 0] = place
        stack[depth, 1] = row
        stack[depth, 2] = 0
    else:
        rows[_op(ops, place)[ARG]] += _op(ops, stack[depth, 0])[STEP]
        stack[depth, 2] -= 1
    first = stack[depth, 0]
    if stack[depth, 2] <= 0:
        stack[depth, 2], at = _next_block(data, at, _op(ops, first), rows, room)
    if stack[depth, 2] > 0:
        return first + 1, rows[_op(ops, first)[ARG]], depth, at
    row = stack[depth, 1]
    if _op(ops, first)[SLOT] >= 0:
        _put64(memory.words, _op(ops, first)[SLOT] + row + 1, rows[_op(ops, first)[ARG]])
    return np.int64(_op(ops, first)[NEXT]), row, depth - 1, at


@_called
def _record(data, at, ops, memory, rows, room, used, stack):  # type: ignore[no-untyped-def]
    """Read one record into the next row of each table; return the next position."""
    place = np.int64(0)
    depth = np.int64(-1)
    row = rows[0]
    while at >= 0:
        if _op(ops, place)[KIND] == FLOAT and _op(ops, place)[EXTRA] > 3:
            place, at = _floats(data, at, ops, place, row, memory)
        op = _op(ops, place)
        kind = op[KIND]
        null = op[NULL]
        if null >= 0:
            branch, at = _varint(data, at)
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
                _set_bit(memory.bits, op[BITS], row)
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


@_inline
def _copy(source, target):  # type: ignore[no-untyped-def]
    for index in range(source.shape[0]):
        target[index] = source[index]


@_called
def _undo(rows, before, bit_columns, memory):  # type: ignore[no-untyped-def]
    """Forget the rows since `before`, and clear their bits."""
    for index in range(bit_columns.shape[0]):
        table = bit_columns[index, 0]
        base = bit_columns[index, 1]
        last = min(rows[table] + 1, bit_columns[index, 2])
        for row in range(before[table], last):
            memory.bits[base + (row >> 3)] &= np.uint8(255 - (1 << (row & 7)))
    _copy(before, rows)


@_called
def _block_end(data, at):  # type: ignore[no-untyped-def]
    """Check the frame of a container's one record; return where it starts and ends."""
    start, size = at + 16, np.int64(-1)
    if at >= 0 and start <= data.shape[0]:
        count, start = _varint(data, start)
        if start >= 0 and count == 1:
            size, start = _varint(data, start)
    if start < 0 or size < 0 or size != data.shape[0] - start - 16:
        return np.int64(-SLOW), np.int64(0)
    for place in range(16):
        if data[at + place] != data[start + size + place]:
            return np.int64(-SLOW), np.int64(0)
    return start, start + size


@_called
def _unit(units, unit, ops, memory, tables, used, owners, stack):  # type: ignore[no-untyped-def]
    """Read all records of one unit, which they must fill; return a position."""
    rows, room = tables[0], tables[1]
    end = units[unit, 1]
    data = _bytes_at(units[unit, 0], end)
    at = units[unit, 2]
    count = units[unit, 3]
    if count < 0:
        count = 1
        at, end = _block_end(data, at)
        if at < 0:
            return at
        data = _bytes_at(units[unit, 0], end)
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
    "int64[:,::1], int64[::1], int64[:,::1], int32[:,::1], int64[::1], int64[:,::1])"
)


@njit(SIGNATURE, nogil=True, error_model="numpy", cache=True, _nrt=False)
def run(  # type: ignore[no-untyped-def]
    units, ops, bits, halves, words, text, tables, used, bit_columns, outcome, owners, stack
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
    outcome : ndarray (n, 2), int32
        Filled: how each unit ended, the record that failed.
    owners : ndarray, int64
        Filled: the unit of each row.
    stack : ndarray (tables, 3), int64
        Scratch.
    """
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
            outcome[unit, 0] = -at
    return np.int64(units.shape[0])
