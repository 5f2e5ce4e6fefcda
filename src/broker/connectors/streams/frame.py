"""One batch as it lies in a segment file.

::

    header | attributes (Arrow IPC) | new prefixes | index | tails | xxh3 of all before

A payload is the prefix that the index names and its tail. A prefix is stored in the first
frame of the file that uses it, and numbered in order of appearance within the file.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from broker.errors import UsageError
from broker.ports import Messages
from broker.surveys.payloads import Tails

_MAGIC = b"PGSG"
_VERSION = 1
# In the order of Frame's fields, after the magic, the version and flags (none yet).
_FIELDS = struct.Struct("<4sHHqqqIIQQ")
_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
HEADER_SIZE = _FIELDS.size + _CRC.size
TRAILER = struct.Struct("<Q")
_INDEX_ITEM = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """Where one batch lies.

    `first` is how many messages of this worker came before; sizes and `offset` are bytes.
    """

    path: Path
    offset: int
    number: int
    first: int
    published_us: int
    count: int
    attributes_size: int
    prefixes_size: int
    tails_size: int

    @property
    def attributes_at(self) -> int:
        """Position of the attribute columns in the file."""
        return self.offset + HEADER_SIZE

    @property
    def prefixes_at(self) -> int:
        """Position of the prefixes that are new in this frame."""
        return self.attributes_at + self.attributes_size

    @property
    def index_at(self) -> int:
        """Position of the prefix numbers and tail lengths."""
        return self.prefixes_at + self.prefixes_size

    @property
    def tails_at(self) -> int:
        """Position of the first payload's tail."""
        return self.index_at + self.count * _INDEX_ITEM

    @property
    def end(self) -> int:
        """Position after the last byte."""
        return self.tails_at + self.tails_size + TRAILER.size

    def header(self) -> bytes:
        """Encode the header with its checksum."""
        fields = _FIELDS.pack(
            *(_MAGIC, _VERSION, 0, self.number, self.first, self.published_us, self.count),
            *(self.attributes_size, self.prefixes_size, self.tails_size),
        )
        return fields + _CRC.pack(zlib.crc32(fields))


@dataclass(frozen=True, slots=True)
class Body:
    """A batch made ready to write, payload bytes not copied."""

    attributes: bytes
    prefixes: bytes
    index: bytes
    tails: Tails
    new_prefixes: list[bytes]

    @property
    def before_tails(self) -> bytes:
        """All that comes between the frame's header and the tails."""
        return b"".join((self.attributes, self.prefixes, self.index))


def encode(messages: Messages, known: dict[bytes, int]) -> Body:
    """Split payloads into prefixes and tails; `known` numbers the file's prefixes so far.

    Raises
    ------
    UsageError
        If a payload does not start with its prefix, or columns and payloads differ in number.
    """
    count = len(messages.payloads)
    if messages.attributes.width and messages.attributes.height != count:
        raise UsageError(f"{count} payloads have {messages.attributes.height} rows of attributes")
    numbers, new = _number_prefixes(messages, known)
    tails = _tails(messages)
    index = numbers.astype("<i4").tobytes() + tails.sizes.astype("<u4").tobytes()
    prefixes = b"".join(_LENGTH.pack(len(prefix)) + prefix for prefix in new)
    return Body(_columns_to_bytes(messages.attributes), prefixes, index, tails, new)


def _number_prefixes(
    messages: Messages, known: dict[bytes, int]
) -> tuple[NDArray[np.int32], list[bytes]]:
    if messages.prefix_index is None:
        return np.full(len(messages.payloads), -1, dtype=np.int32), []
    used = np.unique(messages.prefix_index)
    new: list[bytes] = []
    table = np.full(len(messages.prefixes) + 1, -1, dtype=np.int32)
    for i in used[used >= 0]:
        prefix = bytes(messages.prefixes[i])
        if prefix not in known and prefix not in new:
            new.append(prefix)
        table[i] = known[prefix] if prefix in known else len(known) + new.index(prefix)
    return table[messages.prefix_index], new


def _tails(messages: Messages) -> Tails:
    """Take the prefixes off; the last of them is none."""
    count, prefixes = len(messages.payloads), [*messages.prefixes, b""]
    which = np.full(count, -1) if messages.prefix_index is None else messages.prefix_index
    return Tails(messages.payloads, prefixes, which.astype(np.int64) % len(prefixes))


def _columns_to_bytes(attributes: pl.DataFrame) -> bytes:
    if not attributes.width:
        return b""
    buffer = io.BytesIO()
    attributes.write_ipc_stream(buffer, compression="lz4")
    return buffer.getvalue()


def columns_from_bytes(blob: bytes) -> pl.DataFrame:
    """Read attribute columns back."""
    return pl.read_ipc_stream(io.BytesIO(blob)) if blob else pl.DataFrame()


def prefixes_from_bytes(blob: bytes) -> list[bytes]:
    """Read the prefixes of one frame back."""
    found, at = [], 0
    while at < len(blob):
        (size,) = _LENGTH.unpack_from(blob, at)
        found.append(blob[at + _LENGTH.size : at + _LENGTH.size + size])
        at += _LENGTH.size + size
    return found


def index_from_bytes(blob: bytes) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return each message's prefix number and the bounds of its tail.

    Returns
    -------
    tuple
        Prefix numbers, shape (n,), and positions relative to the first tail, shape (n + 1,).
    """
    count = len(blob) // _INDEX_ITEM
    numbers = np.frombuffer(blob, dtype="<i4", count=count)
    sizes = np.frombuffer(blob, dtype="<u4", offset=4 * count)
    bounds = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(sizes, out=bounds[1:])
    return numbers, bounds


def scan(path: Path, offset: int = 0) -> Iterator[Frame]:
    """Iterate over the whole frames from `offset`; a torn one looks like the end."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(descriptor).st_size
        while frame := _parse(path, offset, os.pread(descriptor, HEADER_SIZE, offset)):
            if frame.end > size:
                return
            yield frame
            offset = frame.end
    finally:
        os.close(descriptor)


def _parse(path: Path, offset: int, header: bytes) -> Frame | None:
    if len(header) < HEADER_SIZE or not header.startswith(_MAGIC):
        return None
    if _CRC.unpack_from(header, _FIELDS.size)[0] != zlib.crc32(header[: _FIELDS.size]):
        return None
    _, version, _, *values = _FIELDS.unpack_from(header)
    if version != _VERSION:
        raise UsageError(f"{path} was written by a newer version of the broker (format {version})")
    return Frame(path, offset, *values)
