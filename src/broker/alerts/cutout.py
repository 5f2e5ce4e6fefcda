"""Cutouts: the small images around a detection."""

import io
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.alerts.compression import gunzip
from broker.errors import DecodeError

KINDS = ("science", "template", "difference")

# A cutout of 500 x 500 pixels with its variance has 3 MB; alerts' own have 0.02 to 0.1 MB.
_MOST_BYTES = 8_000_000
_GZIP = b"\x1f\x8b"
_FITS = b"SIMPLE"


@dataclass(frozen=True, eq=False)
class Cutout:
    """One image, as the survey sent it.

    Attributes
    ----------
    kind : str
        ``science``, ``template`` or ``difference``.
    data : array of float32, shape (y, x)
        The image; unmeasured pixels are NaN. The unit is in ``header["BUNIT"]`` if stated.
    variance : array of float32, shape (y, x), or None
    psf : array, shape (y, x), or None
        Image of a point source.
    header : dict
        FITS keywords of the image.
    """

    kind: str
    data: NDArray[np.float32]
    variance: NDArray[np.float32] | None = None
    psf: NDArray[Any] | None = None
    header: dict[str, Any] = field(default_factory=dict, repr=False)


def open_cutout(kind: str, raw: bytes) -> Cutout:
    """Read a cutout from FITS bytes, gzipped or not.

    Parameters
    ----------
    kind : str
        ``science``, ``template`` or ``difference``.
    raw : bytes
        One image, or an image with extensions for variance and PSF.

    Raises
    ------
    DecodeError
        If the bytes are no readable FITS image.
    """
    plain = gunzip(raw, _MOST_BYTES) if raw.startswith(_GZIP) else raw
    if not plain.startswith(_FITS):
        raise DecodeError(f"the {kind} cutout is not a FITS image")
    try:
        images, header = _read(plain)
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise DecodeError(f"the {kind} cutout cannot be read: {error}") from error
    if not images or images[0].ndim != 2:
        raise DecodeError(f"the {kind} cutout holds no image")
    data, variance, psf, *_ = [*images, None, None]
    return Cutout(kind, np.asarray(data, np.float32), variance, psf, header)


def _read(plain: bytes) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    from astropy.io import fits  # most commands open no picture, and it takes long to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # surveys write cards that the standard does not allow
        with fits.open(io.BytesIO(plain), memmap=False) as units:
            images = [_native(unit.data) for unit in units if unit.data is not None]
            return images, {card.keyword: card.value for card in units[0].header.cards}


def _native(data: NDArray[Any]) -> NDArray[Any]:
    return data.astype(data.dtype.newbyteorder("="))
