"""How the machine stores strings: short ones in their Arrow view, long ones in the text.

Texts whose bytes are not all ASCII are checked to be valid UTF-8.
"""

import numpy as np

from broker.surveys.avro.words import (
    BAD_LENGTH,
    BAD_TEXT,
    HIGH_BITS,
    TEXT_FULL,
    called,
    inline,
    is_text,
    put64,
    read_half,
    read_some,
    read_word,
    varint,
)

_INLINE = 12
"""Bytes of a string that an Arrow view holds itself."""


@called
def _short_string(data, at, size, slot, memory):  # type: ignore[no-untyped-def]
    """Store a string that fits its view; return the or of its bytes."""
    if size > 4:
        first = np.int64(read_half(data, at)) & 0xFFFFFFFF
        rest = size - 4
        second = read_word(data, at + 4) if rest == 8 else read_some(data, at + 4, rest)
    else:
        first = read_some(data, at, size)
        second = np.int64(0)
    if slot >= 0:
        put64(memory.words, slot, size | (first << 32))
        put64(memory.words, slot + 1, second)
    return first | second


@called
def _long_string(data, at, size, slot, memory, used):  # type: ignore[no-untyped-def]
    """Copy a string to the text and store its view; return the or of its bytes."""
    place = used[0] >> 3
    last = size >> 3
    seen = np.int64(0)
    for step in range(last):
        word = read_word(data, at + 8 * step)
        seen |= word
        put64(memory.text, place + step, word)
    if size & 7:
        word = read_some(data, at + 8 * last, size & 7)
        seen |= word
        put64(memory.text, place + last, word)
    first = np.int64(read_half(data, at)) & 0xFFFFFFFF
    put64(memory.words, slot, size | (first << 32))
    put64(memory.words, slot + 1, used[0] << 32)
    used[0] += (size + 7) & ~7
    return seen


@called
def _or(data, at, size):  # type: ignore[no-untyped-def]
    seen = np.int64(0)
    for step in range(size >> 3):
        seen |= read_word(data, at + 8 * step)
    return seen | read_some(data, at + (size & ~7), size & 7)


@inline
def store_string(data, at, slot, memory, used):  # type: ignore[no-untyped-def]
    """Read a string and store it where `slot` is not negative; return where it ends."""
    size, at = varint(data, at)
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
    if seen & HIGH_BITS and not is_text(data, at, at + size):
        return np.int64(-BAD_TEXT)
    return at + size
