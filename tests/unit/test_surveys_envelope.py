"""Formats from first bytes."""

import gzip

import pytest

from broker.errors import DecodeError
from broker.surveys.envelope import MOST_BYTES, Format, format_of, schema_id, unzip


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"Obj\x01rest", Format.CONTAINER),
        (b"\x00\x00\x00\x03\x84rest", Format.CONFLUENT),
        (gzip.compress(b"x", mtime=0), Format.GZIP),
        (b'{"a": 1}', Format.JSON),
        (b' \n\t{"a": 1}', Format.JSON),
        (b"\xd2\xe3rest", Format.BARE),
        (b"\x00\x00", Format.BARE),
        (b"PAR1", Format.BARE),
        (b"", Format.BARE),
    ],
)
def test_first_bytes_tell_the_format(payload, found):
    """Each format is known by its first bytes."""
    assert format_of(payload) is found


@pytest.mark.parametrize("payload", [b"\x00\x00\x00\x03\x84rest", b" {"])
def test_what_is_ambiguous_is_bare_for_a_bare_stream(payload):
    """For a survey whose stream is bare, zero and white space begin a datum."""
    assert format_of(payload, "bare") is Format.BARE


def test_the_id_of_a_frame_is_big_endian():
    """Bytes 1 to 4 are the schema id, the highest first."""
    assert schema_id(b"\x00\x00\x00\x04\x4drest") == 1101


def test_unzip_gives_back_what_was_zipped():
    """A gzipped payload is its content."""
    assert unzip(gzip.compress(b"datum")) == b"datum"


def test_a_bomb_is_refused():
    """A payload that grows beyond the limit is refused before it does."""
    with pytest.raises(DecodeError, match="more than 16 MB"):
        unzip(gzip.compress(bytes(MOST_BYTES + 1), 1))


@pytest.mark.parametrize("cut", [3, 12, -1])
def test_a_cut_gzip_is_refused(cut):
    """A gzip file that ends early is damaged."""
    with pytest.raises(DecodeError, match="end too early"):
        unzip(gzip.compress(b"datum" * 50)[:cut])


def test_damaged_gzip_is_refused():
    """Changed bytes are found by the checksum."""
    data = bytearray(gzip.compress(b"datum" * 50))
    data[-5] ^= 1
    with pytest.raises(DecodeError, match="damaged"):
        unzip(bytes(data))


def test_gzip_in_gzip_is_refused():
    """One level of gzip is enough."""
    with pytest.raises(DecodeError, match="more than once"):
        unzip(gzip.compress(gzip.compress(b"datum")))
