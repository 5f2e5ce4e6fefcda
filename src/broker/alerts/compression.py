"""Unzip without trusting the sender."""

import zlib

from broker.errors import DecodeError

_GZIP_WINDOW = 31


def gunzip(data: bytes, most_bytes: int) -> bytes:
    """Return what one gzip member holds.

    Parameters
    ----------
    data : bytes
        A gzip file; bytes after its end are ignored.
    most_bytes : int
        Largest size that is accepted.

    Raises
    ------
    DecodeError
        If the data are damaged, cut short or too large.
    """
    unzipper = zlib.decompressobj(_GZIP_WINDOW)
    try:
        inner = unzipper.decompress(data, most_bytes)
    except zlib.error as error:
        raise DecodeError(f"gzip data are damaged: {error}") from error
    if unzipper.eof:
        return inner
    if len(inner) >= most_bytes:
        raise DecodeError(f"gzip data hold more than {most_bytes / 1e6:.0f} MB")
    raise DecodeError("gzip data end too early")
