"""Simulated cutouts: images with a source where the detection is, as FITS bytes."""

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.surveys.synthetic.columns import LOOKS

Image = NDArray[np.float64]
Triplet = tuple[bytes, bytes, bytes]

SIGNIFICANCES = (6.0, 12.0, 30.0, 100.0)
"""Cutouts are drawn at these ratios of peak signal to noise; a packet gets the nearest."""

_BLOCK = 2880
_NOISE = 8.0
_SKY = 100.0
_FASTEST = 1  # the noise cannot be compressed much; sizes are those of real cutouts


@dataclass(frozen=True, slots=True)
class StampStyle:
    """How a survey's cutouts are made.

    Parameters
    ----------
    size : int, pixels
        Side of the square.
    fwhm : float, pixels
        Width of a point source.
    variants : int
        Different images of each kind.
    pack : callable
        Image to the bytes of a file.
    """

    size: int
    fwhm: float
    variants: int
    pack: Callable[[Image], bytes]


class StampPool:
    """Cutouts made when first asked for, then used again and again."""

    def __init__(self, style: StampStyle) -> None:
        self._style = style
        self._made: dict[int, Triplet] = {}

    def keys(
        self, look: NDArray[np.int64], snr: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> list[int]:
        """Return the number of the cutouts for each detection.

        Parameters
        ----------
        look : ndarray of int64
            Index into `LOOKS`.
        snr : ndarray
            Signed ratio of signal to noise.
        noise : ndarray
            Uniform random numbers, which choose among the variants.
        """
        edges = np.sqrt(np.multiply(SIGNIFICANCES[1:], SIGNIFICANCES[:-1]))
        bright = np.searchsorted(edges, np.abs(snr))
        variant = (noise * self._style.variants).astype(np.int64)
        kind = (look * 2 + (snr < 0)) * len(SIGNIFICANCES) + bright
        chosen: list[int] = (kind * self._style.variants + variant).tolist()
        return chosen

    def triplet(self, key: int) -> Triplet:
        """Return science, template and difference cutouts."""
        if key not in self._made:
            self._made[key] = self._make(key)
        return self._made[key]

    def _make(self, key: int) -> Triplet:
        kind, variant = divmod(key, self._style.variants)
        kind, bright = divmod(kind, len(SIGNIFICANCES))
        look, negative = divmod(kind, 2)
        rng = np.random.default_rng(key)
        sign = -1.0 if negative else 1.0
        science, template, difference = draw(
            LOOKS[look], sign * SIGNIFICANCES[bright], self._style, rng
        )
        if variant == 0:  # a tenth of real cutouts lies on the edge of a detector
            for image in (science, template, difference):
                image[:, : self._style.size // 6] = np.nan
        pack = self._style.pack
        return pack(science), pack(template), pack(difference)


def draw(
    look: str, snr: float, style: StampStyle, rng: np.random.Generator
) -> tuple[Image, Image, Image]:
    """Draw science, template and difference images of one detection.

    Parameters
    ----------
    look : str
        One of `LOOKS`.
    snr : float
        Peak of the difference over its noise; negative where light is missing.
    style : StampStyle
        Size and width of a point source.
    rng : numpy.random.Generator
        Source of the noise.
    """
    shape = (style.size, style.size)
    change = snr * _NOISE * _profile(look, style, rng)
    constant = _host(look, abs(snr) * _NOISE, style, rng)
    template = _SKY + constant + rng.normal(0, _NOISE / 3, shape)
    difference = change + rng.normal(0, _NOISE, shape)
    return template + difference, template, difference


def _profile(look: str, style: StampStyle, rng: np.random.Generator) -> Image:
    dx, dy = rng.uniform(-0.5, 0.5, 2)
    point = _gaussian(style, style.fwhm, dx, dy)
    if look == "dipole":
        apart = style.fwhm / 2
        return point - 0.95 * _gaussian(style, style.fwhm, dx + apart, dy + apart / 2)
    if look == "spot":
        return _gaussian(style, 0.9, dx, dy)
    return point


def _host(look: str, level: float, style: StampStyle, rng: np.random.Generator) -> Image:
    """Return what the template shows."""
    if look == "transient":
        return level * _gaussian(style, 3 * style.fwhm, *rng.uniform(-4, 4, 2))
    if look in ("star", "nucleus", "dipole"):
        return (2 * level + 300) * _gaussian(style, style.fwhm)
    return np.zeros((style.size, style.size))


def _gaussian(style: StampStyle, fwhm: float, dx: float = 0.0, dy: float = 0.0) -> Image:
    y, x = np.mgrid[: style.size, : style.size] - style.size // 2
    sigma = fwhm / 2.3548
    return np.asarray(np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * sigma**2)))


def fits_unit(image: Image, kind: str, cards: Sequence[str], *, primary: bool) -> bytes:
    """Return one header and data unit.

    Parameters
    ----------
    image : ndarray
        Two-dimensional.
    kind : str
        Numpy type of the pixels: ``f4`` or ``f8``.
    cards : sequence of str
        Further cards.
    primary : bool
        The first unit of a file; others are image extensions.
    """
    first = "SIMPLE  =                    T" if primary else "XTENSION= 'IMAGE   '"
    height, width = image.shape
    fixed = (
        first,
        f"BITPIX  = {-8 * int(kind[1]):>20}",
        f"NAXIS   = {2:>20}",
        f"NAXIS1  = {width:>20}",
        f"NAXIS2  = {height:>20}",
    )
    extension = () if primary else (f"PCOUNT  = {0:>20}", f"GCOUNT  = {1:>20}")
    header = "".join(f"{card:<80}" for card in (*fixed, *extension, *cards, "END"))
    return _padded(header.encode(), b" ") + _padded(image.astype(f">{kind}").tobytes(), b"\0")


def _padded(data: bytes, fill: bytes) -> bytes:
    return data.ljust(-(-len(data) // _BLOCK) * _BLOCK, fill)


def gzipped(data: bytes) -> bytes:
    """Compress a file; the same bytes each time."""
    return gzip.compress(data, _FASTEST, mtime=0)
