"""What the kernel is made of: codes, words at addresses, numbers and UTF-8.

Positions below zero are failures, the negative of one of the codes.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

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

_LOW = tuple((1 << (8 * n)) - 1 for n in range(8))
"""Masks of the n low bytes of a word."""

HIGH_BITS = -0x7F7F7F7F7F7F7F80
_LOW_BITS = 0x7F7F7F7F7F7F7F7F

# Without numba's runtime there is no counting of references, and nothing can be allocated.
inline = njit(nogil=True, error_model="numpy", forceinline=True, _nrt=False)
called = njit(nogil=True, error_model="numpy", _nrt=False)


@intrinsic  # type: ignore[untyped-decorator]
def bytes_at(_typing: Any, _address: Any, _size: Any) -> Any:
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

    @intrinsic  # type: ignore[untyped-decorator]
    def read(_typing: Any, data: Any, _at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            place = builder.gep(array.data, [args[1]])
            pointer = builder.bitcast(place, ir.IntType(bits).as_pointer())
            return builder.load(pointer, align=1)

        return result(data, types.int64), generate

    return read


@intrinsic  # type: ignore[untyped-decorator]
def _lowest(_typing: Any, _word: Any) -> Any:
    """Return the place of the lowest bit of a word that is not zero."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


_read32 = _word_reader(32, types.int32)
_read64 = _word_reader(64, types.int64)


def _storer(bits: int, merge: bool) -> Any:
    """Make an intrinsic that stores an element of an array, or merges it into what is there."""

    @intrinsic  # type: ignore[untyped-decorator]
    def store(_typing: Any, target: Any, _at: Any, _value: Any) -> Any:
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


@intrinsic  # type: ignore[untyped-decorator]
def op_at(_typing: Any, table: Any, _at: Any) -> Any:
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


@inline
def put32(target, at, value):  # type: ignore[no-untyped-def]
    """Store 4 bytes."""
    target[at]
    _store32(target, at, value)


@inline
def put64(target, at, value):  # type: ignore[no-untyped-def]
    """Store 8 bytes."""
    target[at]
    _store64(target, at, value)


@inline
def set_bit(bits, base, row):  # type: ignore[no-untyped-def]
    """Set the bit of a row in a column of bits."""
    bits[base + (row >> 3)]
    _merge8(bits, base + (row >> 3), 1 << (row & 7))


@inline
def read_half(data, at):  # type: ignore[no-untyped-def]
    """Read 4 bytes."""
    data[at + 3]
    return _read32(data, at)


@inline
def read_word(data, at):  # type: ignore[no-untyped-def]
    """Read 8 bytes."""
    data[at + 7]
    return _read64(data, at)


@called
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


@inline
def _word_varint(data, at):  # type: ignore[no-untyped-def]
    """Read a number of up to eight bytes at once, by pushing their low bits together."""
    word = read_word(data, at)
    stops = ~word & HIGH_BITS
    if stops == 0:
        return _long_varint(data, at)
    size = (_lowest(stops) >> 3) + 1
    word &= (stops ^ (stops - 1)) & _LOW_BITS
    word = (word & 0x007F007F007F007F) | ((word & 0x7F007F007F007F00) >> 1)
    word = (word & 0x00003FFF00003FFF) | ((word & 0x3FFF00003FFF0000) >> 2)
    word = (word & 0x0FFFFFFF) | ((word & 0x0FFFFFFF00000000) >> 4)
    return (word >> 1) ^ -(word & 1), at + size


@inline
def varint(data, at):  # type: ignore[no-untyped-def]
    """Read a number; return it and the next position."""
    if at < data.shape[0]:
        byte = np.int64(data[at])
        if byte < 128:
            return (byte >> 1) ^ -(byte & 1), at + 1
        if at + 8 <= data.shape[0]:
            return _word_varint(data, at)
    return _long_varint(data, at)


@called
def is_text(data, at, end):  # type: ignore[no-untyped-def]
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


@inline
def read_some(data, at, size):  # type: ignore[no-untyped-def]
    """Read `size` < 8 bytes as a word."""
    if at + 8 <= data.shape[0]:
        return read_word(data, at) & _LOW[size]
    word = np.int64(0)
    for place in range(size):
        word |= np.int64(data[at + place]) << (8 * place)
    return word
