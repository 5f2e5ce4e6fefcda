"""What a payload is, from its first bytes.

================  =====================================================================
first bytes       format
================  =====================================================================
``Obj 01``        Avro container, with its schema
``1f 8b``         gzip of one of the others
``00`` + 4 bytes  Confluent frame: schema id, big-endian, ``100 * major + minor``; datum
``{``             JSON, white space before it allowed
anything else     bare Avro datum; its schema has to be known, or is one of the survey's
================  =====================================================================

A bare alert begins with a positive id as a zig-zag number, whose first byte is even; ``O``,
``1f`` and ``{`` are odd, so only the id 0 can be taken for a Confluent frame and only white
space for JSON. For a survey whose stream is bare those two are therefore tried as bare first.
"""

from enum import Enum

from broker.alerts.compression import gunzip
from broker.errors import DecodeError

# Rubin's largest packets have 0.3 MB, LVK's 2 MB; more is not an alert.
MOST_BYTES = 16_000_000
FRAME_BYTES = 5

_CONTAINER = b"Obj\x01"
_GZIP = b"\x1f\x8b"


class Format(Enum):
    """How an alert is wrapped."""

    CONTAINER = "Avro container"
    CONFLUENT = "Confluent frame"
    GZIP = "gzip"
    JSON = "JSON"
    BARE = "bare Avro datum"


def format_of(payload: bytes, wire: str = "") -> Format:
    """Return the format of a payload.

    Parameters
    ----------
    payload : bytes
        As received.
    wire : str
        The form of the survey's stream, if the survey is known; settles what is ambiguous.
    """
    if payload.startswith(_CONTAINER):
        return Format.CONTAINER
    if payload.startswith(_GZIP):
        return Format.GZIP
    if payload.startswith(b"{"):
        return Format.JSON
    if wire == "bare":
        return Format.BARE
    if payload.startswith(b"\x00") and len(payload) > FRAME_BYTES:
        return Format.CONFLUENT
    return Format.JSON if payload[:64].lstrip().startswith(b"{") else Format.BARE


def schema_id(payload: bytes) -> int:
    """Return the schema id of a Confluent frame."""
    return int.from_bytes(payload[1:FRAME_BYTES], "big")


def unzip(payload: bytes) -> bytes:
    """Return what a gzipped payload holds.

    Raises
    ------
    DecodeError
        If it is damaged, larger than `MOST_BYTES`, or gzip again.
    """
    inner = gunzip(payload, MOST_BYTES)
    if inner.startswith(_GZIP):
        raise DecodeError("the packet is gzipped more than once")
    return inner
