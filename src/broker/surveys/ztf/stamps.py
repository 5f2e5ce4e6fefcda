"""Made cutouts: a star or a galaxy with noise, as gzipped FITS of 63 x 63 pixels."""

import gzip

import numpy as np
from numpy.typing import NDArray

SIZE = 63

_CARDS = ("SIMPLE  =                    T", "BITPIX  =                  -32",
          "NAXIS   =                    2", f"NAXIS1  = {SIZE:>20}",
          f"NAXIS2  = {SIZE:>20}", "BUNIT   = 'DN      '", "END")  # fmt: skip
_BLOCK = 2880
_HEADER = "".join(f"{card:<80}" for card in _CARDS).ljust(_BLOCK).encode()
# Fastest level: the noise cannot be compressed much, and the sizes are those of real cutouts.
_GZIP_LEVEL = 1

Image = NDArray[np.float32]


def make_triplet(rng: np.random.Generator, kind: str) -> tuple[bytes, bytes, bytes]:
    """Return science, template and difference cutouts of a made detection.

    Parameters
    ----------
    rng : numpy Generator
    kind : str
        ``star`` (in all three), ``transient`` (on a galaxy, not in the template), ``moving``
        (not in the template) or ``artifact`` (one bad column).
    """
    sky = 100 + 5 * rng.standard_normal()
    noise = rng.normal(0, 8, (2, SIZE, SIZE))
    template = sky + _background(rng, kind) + noise[0]
    difference = noise[1] + _new_light(rng, kind)
    if rng.random() < 0.1:  # a tenth of real cutouts lie on the edge of a detector
        difference[:, : rng.integers(1, 20)] = np.nan
    science = template + difference
    return fits_gz(science), fits_gz(template), fits_gz(difference)


def fits_gz(image: NDArray[np.float64]) -> bytes:
    """Return an image as gzipped FITS with 32-bit floats."""
    data = image.astype(">f4").tobytes()
    padded = data.ljust(-(-len(data) // _BLOCK) * _BLOCK, b"\0")
    return gzip.compress(_HEADER + padded, _GZIP_LEVEL, mtime=0)


def _background(rng: np.random.Generator, kind: str) -> NDArray[np.float64]:
    if kind == "star":
        return _blob(4000 * rng.random() + 300, 2.0)
    if kind == "transient":
        return _blob(300 * rng.random() + 30, 5.0, *rng.uniform(-4, 4, 2))
    return np.zeros((SIZE, SIZE))


def _new_light(rng: np.random.Generator, kind: str) -> NDArray[np.float64]:
    if kind == "artifact":
        column = np.zeros((SIZE, SIZE))
        column[:, SIZE // 2 + rng.integers(-2, 3)] = 400 * rng.random() + 100
        return column
    return _blob(800 * rng.random() + 100, 2.0)


def _blob(peak: float, width: float, dx: float = 0.0, dy: float = 0.0) -> NDArray[np.float64]:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    blob: NDArray[np.float64] = peak * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * width**2))
    return blob
