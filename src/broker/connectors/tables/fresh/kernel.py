"""The kernel that lays out pages: levels and values of every column of a batch.

A column of values belongs to *entries*, one for each value that there could be: the rows of
the frame, or the items of its lists. An entry has a level of definition, as far as the lists and
records around the value go, a level of repetition, and a *slot*, the value's place in its array,
-1 where something around it is missing. The columns of a list share their entries.

References: Apache Parquet format, *Encodings* (PLAIN; RLE and bit-packing hybrid), *Data pages*;
Apache Arrow, *C data interface* (what an array at an address is).
"""

from typing import Any

import numpy as np
from numba import njit

from broker.surveys.avro.words import bytes_at
from broker.surveys.payloads.kernel import copy_bytes

GROUP, CHILD, KIND, MOST_DEFINED = range(4)
"""Of each column: the group that it is in, its place there, how its values lie, its level."""

DEFINED, SLOTS, COUNT, FIRST, PRESENT, REPEATS, REPEATS_SIZE, LEVELS, LEVELS_SIZE = range(9)
"""Of the entries of each group: addresses of levels and slots; how many; the first slot, -1 if
the slots do not follow one another; how many have one; the encoded levels of repetition, and of
definition for a column without nulls, with their sizes."""

START, END, ENTRIES = range(3)
"""What is told back: where a column's page starts and ends; its entries."""

BITS, WORDS4, WORDS8, VIEWS, INT8, UINT8, INT16, UINT16 = range(8)
"""How values lie."""

HEADER_ROOM = 48
"""Bytes before a page's body; its header takes at most 40 of them."""

_NULLS, _OFFSET, _BUFFERS, _CHILDREN = 1, 2, 5, 6
"""Words of an Arrow array's structure."""

_ANYWHERE = 1 << 62
"""Size of an array whose own size is not told."""

_INLINE = 12
"""Longest string that lies in its view."""

_FULL = 255

compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def _words(address: int) -> Any:
    return bytes_at(address, _ANYWHERE).view(np.int64)


@compiled
def child_of(array: int, place: int) -> Any:
    """Return the address of a child of the Arrow array at an address."""
    return _words(_words(array)[_CHILDREN])[place]


@compiled
def _buffer(array: int, place: int) -> Any:
    return _words(_words(array)[_BUFFERS])[place]


@compiled
def _validity(array: int) -> Any:
    """Return the address of an array's validity, 0 if nothing is null."""
    return 0 if _words(array)[_NULLS] == 0 else _buffer(array, 0)


@compiled
def has_nulls(array: int) -> Any:
    """Tell whether something of an array is null."""
    return _validity(array) != 0


@compiled
def _is_set(bits: Any, at: int) -> Any:
    return (bits[at >> 3] >> (at & 7)) & 1 == 1


@compiled
def _eight(bits: Any, at: int, count: int) -> Any:
    """Return up to eight bits from `at` on, reading no byte beyond the last of them."""
    shift = at & 7
    word = np.int64(bits[at >> 3]) >> shift
    if shift + count > 8:
        word |= np.int64(bits[(at >> 3) + 1]) << (8 - shift)
    return word & (_FULL >> (8 - min(count, 8)))


@compiled
def _put_varint(out: Any, at: int, value: int) -> Any:
    """Write a number that is not negative; return where it ends."""
    while value > 127:
        out[at] = value & 127 | 128
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@compiled
def _varint_size(value: int) -> Any:
    size = 1
    while value > 127:
        value >>= 7
        size += 1
    return size


@compiled
def _put_length(out: Any, at: int, length: int) -> None:
    for i in range(4):
        out[at + i] = length >> (8 * i) & 255


@compiled
def _put_bytes(out: Any, at: int, word: int, count: int) -> Any:
    """Write the low bytes of a word."""
    for i in range(count):
        out[at + i] = word >> (8 * i) & 255
    return at + count


@compiled
def _width(most: int) -> Any:
    width = 1
    while most >> width:
        width += 1
    return width


@compiled
def put_levels(out: Any, at: int, levels: Any, most: int) -> Any:
    """Write levels of at most `most` and before them their size, as one run."""
    start, count, same = at, len(levels), True
    at += 4
    for i in range(1, count):
        if levels[i] != levels[0]:
            same = False
            break
    if same:
        at = _put_varint(out, at, count << 1)
        out[at] = levels[0] if count else 0
        at += 1
    else:
        width = _width(most)
        at = _put_varint(out, at, (count + 7) // 8 << 1 | 1)
        for first in range(0, count, 8):
            word = np.int64(0)
            for i in range(first, min(first + 8, count)):
                word |= np.int64(levels[i]) << (width * (i & 7))
            at = _put_bytes(out, at, word, width)
    _put_length(out, start, at - start - 4)
    return at


@compiled
def _spread(width: int, low: int) -> Any:
    """Return, for each byte of validity, eight levels: `low` for null and the next for valid."""
    words = np.zeros(_FULL + 1, np.int64)
    for byte in range(_FULL + 1):
        for i in range(8):
            words[byte] |= (low + (byte >> i & 1)) << (width * i)
    return words


@compiled
def _put_validity(out: Any, at: int, bits: Any, first: int, count: int, most: int) -> Any:
    """Write levels of entries that all have a slot; `bits` tell which have a value."""
    width = _width(most)
    words, start = _spread(width, most - 1), at
    at = _put_varint(out, at + 4, (count + 7) // 8 << 1 | 1)
    for i in range(0, count, 8):
        at = _put_bytes(out, at, words[_eight(bits, first + i, count - i)], width)
    _put_length(out, start, at - start - 4)
    return at


@compiled
def _put_some_levels(out: Any, at: int, array: int, entries: Any, most: int) -> Any:
    """Write levels of definition where slots and values may be missing."""
    count, bits = entries[COUNT], bytes_at(_validity(array), _ANYWHERE)
    offset = _words(array)[_OFFSET]
    if entries[PRESENT] == count and entries[FIRST] >= 0:
        return _put_validity(out, at, bits, entries[FIRST] + offset, count, most)
    defined, slots = bytes_at(entries[DEFINED], count), _words(entries[SLOTS])
    levels = np.empty(count, np.uint8)
    for i in range(count):
        levels[i] = defined[i]
        if slots[i] >= 0 and _is_set(bits, slots[i] + offset):
            levels[i] += 1
    return put_levels(out, at, levels, most)


@compiled
def _has_value(bits: Any, nulls: bool, slot: int, offset: int) -> Any:
    return slot >= 0 and (not nulls or _is_set(bits, slot + offset))


@compiled
def _put_booleans(out: Any, at: int, array: int, entries: Any) -> Any:
    """Write booleans, eight a byte."""
    values, bits = bytes_at(_buffer(array, 1), _ANYWHERE), bytes_at(_validity(array), _ANYWHERE)
    offset, nulls = _words(array)[_OFFSET], has_nulls(array)
    slots, word, filled = _words(entries[SLOTS]), np.int64(0), 0
    for i in range(entries[COUNT]):
        if _has_value(bits, nulls, slots[i], offset):
            word |= np.int64(_is_set(values, slots[i] + offset)) << filled
            filled += 1
            if filled == 8:
                at, word, filled = _put_bytes(out, at, word, 1), np.int64(0), 0
    return _put_bytes(out, at, word, 1) if filled else at


@compiled
def _put_narrow(out: Any, at: int, array: int, entries: Any, kind: int) -> Any:
    """Write small integers in four bytes each."""
    values, bits = bytes_at(_buffer(array, 1), _ANYWHERE), bytes_at(_validity(array), _ANYWHERE)
    offset, nulls = _words(array)[_OFFSET], has_nulls(array)
    slots, wide = _words(entries[SLOTS]), kind in (INT16, UINT16)
    for i in range(entries[COUNT]):
        if _has_value(bits, nulls, slots[i], offset):
            slot: Any = slots[i] + offset
            value: Any = 0
            if wide:
                value = np.int64(values[2 * slot]) | np.int64(values[2 * slot + 1]) << 8
            else:
                value = np.int64(values[slot])
            if kind == INT8 and value >> 7:
                value -= 1 << 8
            if kind == INT16 and value >> 15:
                value -= 1 << 16
            at = _put_bytes(out, at, value, 4)
    return at


@compiled
def _put_texts(out: Any, at: Any, array: int, entries: Any) -> Any:
    """Write strings with their lengths; each view has 16 bytes."""
    views, texts = _buffer(array, 1), _words(_words(array)[_BUFFERS])
    halves, bits = bytes_at(views, _ANYWHERE).view(np.int32), bytes_at(_validity(array), _ANYWHERE)
    offset, nulls = _words(array)[_OFFSET], has_nulls(array)
    slots = _words(entries[SLOTS])
    for i in range(entries[COUNT]):
        if _has_value(bits, nulls, slots[i], offset):
            slot = slots[i] + offset
            length: Any = np.int64(halves[4 * slot])
            source: Any = views + 16 * slot + 4
            if length > _INLINE:
                source = texts[2 + halves[4 * slot + 2]] + halves[4 * slot + 3]
            _put_length(out, at, length)
            copy_bytes(out, at + 4, source, length)
            at += 4 + length
    return at


@compiled
def _text_bytes(array: int, entries: Any) -> Any:
    """Return at most how many bytes strings take."""
    halves = bytes_at(_buffer(array, 1), _ANYWHERE).view(np.int32)
    bits, nulls = bytes_at(_validity(array), _ANYWHERE), has_nulls(array)
    offset, slots, total = _words(array)[_OFFSET], _words(entries[SLOTS]), 0
    for i in range(entries[COUNT]):
        if _has_value(bits, nulls, slots[i], offset):
            total += 4 + halves[4 * (slots[i] + offset)]
    return total


# Twice the same, for a width that the compiler knows becomes a single move.
@compiled
def _put_words4(out: Any, at: int, values: Any, bits: Any, first: int, count: int) -> Any:
    for i in range(0, count, 8):
        valid = _eight(bits, first + i, count - i)
        for k in range(8):
            if valid >> k & 1:
                start = 4 * (first + i + k)
                for b in range(4):
                    out[at + b] = values[start + b]
                at += 4
    return at


@compiled
def _put_words8(out: Any, at: int, values: Any, bits: Any, first: int, count: int) -> Any:
    for i in range(0, count, 8):
        valid = _eight(bits, first + i, count - i)
        for k in range(8):
            if valid >> k & 1:
                start = 8 * (first + i + k)
                for b in range(8):
                    out[at + b] = values[start + b]
                at += 8
    return at


@compiled
def _put_run(out: Any, at: int, array: int, width: int, first: int, count: int) -> Any:
    """Write those values of consecutive slots that are there."""
    valid, start = _validity(array), first + _words(array)[_OFFSET]
    if valid == 0:
        copy_bytes(out, at, _buffer(array, 1) + start * width, count * width)
        return at + count * width
    values, bits = bytes_at(_buffer(array, 1), _ANYWHERE), bytes_at(valid, _ANYWHERE)
    if width == 4:
        return _put_words4(out, at, values, bits, start, count)
    return _put_words8(out, at, values, bits, start, count)


@compiled
def _put_runs(out: Any, at: int, array: int, entries: Any, width: int) -> Any:
    """Write numbers, run by run of consecutive slots."""
    if entries[FIRST] >= 0:
        return _put_run(out, at, array, width, entries[FIRST], entries[PRESENT])
    slots, i, count = _words(entries[SLOTS]), 0, entries[COUNT]
    while i < count:
        first = i
        i += 1
        if slots[first] >= 0:
            while i < count and slots[i] == slots[first] + i - first:
                i += 1
            at = _put_run(out, at, array, width, slots[first], i - first)
    return at


@compiled
def _put_values(out: Any, at: int, array: int, entries: Any, kind: int) -> Any:
    if kind == BITS:
        return _put_booleans(out, at, array, entries)
    if kind == VIEWS:
        return _put_texts(out, at, array, entries)
    if kind in (WORDS4, WORDS8):
        return _put_runs(out, at, array, entries, 4 if kind == WORDS4 else 8)
    return _put_narrow(out, at, array, entries, kind)


@compiled
def _put_header(out: Any, body: int, size: int, count: int) -> Any:
    """Write the header of a data page so that it ends at `body`; return where it starts.

    In Thrift's compact protocol: type, sizes, and of the page the count and three encodings.
    """
    start = body - 14 - 2 * _varint_size(2 * size) - _varint_size(2 * count)
    out[start], out[start + 1], at = 0x15, 0, start + 2
    for _ in range(2):
        out[at] = 0x15
        at = _put_varint(out, at + 1, 2 * size)
    out[at], out[at + 1] = 0x2C, 0x15
    at = _put_varint(out, at + 2, 2 * count)
    for coded in (0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x00, 0x00):
        out[at] = coded
        at += 1
    return start


@compiled
def room_for(columns: Any, arrays: Any, table: Any) -> Any:
    """Return at most how many bytes the pages take.

    Parameters
    ----------
    columns : array of int64, shape (columns, 4)
    arrays : array of int64, shape (groups,)
        Addresses of the Arrow arrays whose children the columns are.
    table : array of int64, shape (groups, 9)
        The entries of each group.
    """
    total = 0
    for i in range(len(columns)):
        column, entries = columns[i], table[columns[i, GROUP]]
        total += HEADER_ROOM + entries[REPEATS_SIZE] + 9 * entries[COUNT] + 32
        if column[KIND] == VIEWS:
            total += _text_bytes(child_of(arrays[column[GROUP]], column[CHILD]), entries)
    return total


@compiled
def put_pages(columns: Any, arrays: Any, table: Any, out: Any, at: int, spots: Any) -> Any:
    """Write a page for each column from `at` on; return where the last one ends.

    The arguments are those of `room_for`; `spots` is filled.
    """
    for i in range(len(columns)):
        column, entries = columns[i], table[columns[i, GROUP]]
        array = child_of(arrays[column[GROUP]], column[CHILD])
        body = at + HEADER_ROOM
        out[at:body] = 0
        copy_bytes(out, body, entries[REPEATS], entries[REPEATS_SIZE])
        at = body + entries[REPEATS_SIZE]
        if _validity(array) == 0:
            copy_bytes(out, at, entries[LEVELS], entries[LEVELS_SIZE])
            at += entries[LEVELS_SIZE]
        else:
            at = _put_some_levels(out, at, array, entries, column[MOST_DEFINED])
        at = _put_values(out, at, array, entries, column[KIND])
        spots[i, START] = _put_header(out, body, at - body, entries[COUNT])
        spots[i, END] = at
        spots[i, ENTRIES] = entries[COUNT]
    return at


@compiled
def put_chunks(heads: Any, bounds: Any, spots: Any, out: Any) -> Any:
    """Write what a footer says of each column: a head, and where its page is.

    In Thrift's compact protocol, a column's start, and, after its head, the number of its
    entries, twice its size, and its start.
    """
    at = 0
    for i in range(len(spots)):
        start, size = spots[i, START], spots[i, END] - spots[i, START]
        out[at] = 0x26
        at = _put_varint(out, at + 1, 2 * start)
        out[at] = 0x1C
        at += 1
        for byte in heads[bounds[i] : bounds[i + 1]]:
            out[at] = byte
            at += 1
        for value in (spots[i, ENTRIES], size, size):
            out[at] = 0x16
            at = _put_varint(out, at + 1, 2 * value)
        out[at] = 0x26
        at = _put_varint(out, at + 1, 2 * start)
        out[at], out[at + 1] = 0, 0
        at += 2
    return at


@compiled
def look_at(slots: Any) -> Any:
    """Return the first slot, -1 if they do not follow one another, and how many there are."""
    first, present, in_row = 0, 0, True
    for slot in slots:
        if slot >= 0:
            first = slot if present == 0 else first
            in_row = in_row and slot == first + present
            present += 1
    return first if in_row else -1, present


@compiled
def _is_there(array: int, slot: int) -> Any:
    valid = _validity(array)
    return slot >= 0 and (
        valid == 0 or _is_set(bytes_at(valid, _ANYWHERE), slot + _words(array)[_OFFSET])
    )


@compiled
def _bounds(lists: int, slot: int) -> Any:
    if not _is_there(lists, slot):
        return 0, 0
    offsets, slot = _words(_buffer(lists, 1)), slot + _words(lists)[_OFFSET]
    return offsets[slot], offsets[slot + 1]


@compiled
def count_items(lists: int, slots: Any) -> Any:
    """Count the entries that the lists of `slots` give, one for a list without items."""
    total = 0
    for slot in slots:
        first, last = _bounds(lists, slot)
        total += max(last - first, 1)
    return total


@compiled
def open_lists(lists: int, depth: int, parent: Any, made: Any) -> None:
    """Fill the entries of the items of lists, given those of the lists.

    Entries are definition, repetition and slots; `depth` is how many lists are around an item.
    """
    defined, repeated, slots = parent
    new_defined, new_repeated, new_slots = made
    at = 0
    for i in range(len(slots)):
        first, last = _bounds(lists, slots[i])
        if last == first:
            new_defined[at] = defined[i] + (1 if _is_there(lists, slots[i]) else 0)
            new_repeated[at] = repeated[i]
            new_slots[at] = -1
            at += 1
        for item in range(first, last):
            new_defined[at] = defined[i] + 2
            new_repeated[at] = repeated[i] if item == first else depth
            new_slots[at] = item
            at += 1


@compiled
def open_records(records: int, parent: Any, made: Any) -> None:
    """Fill the entries of the fields of records, given those of the records."""
    defined, _, slots = parent
    new_defined, _, new_slots = made
    for i in range(len(slots)):
        there = _is_there(records, slots[i])
        new_defined[i] = defined[i] + (1 if there else 0)
        new_slots[i] = slots[i] if there else -1
