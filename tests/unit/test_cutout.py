"""Cutouts from FITS bytes."""

import gzip
import io

import numpy as np
import pytest
from astropy.io import fits

from broker.alerts.cutout import open_cutout
from broker.errors import DecodeError

IMAGE = np.arange(12, dtype=">f4").reshape(3, 4)


def as_fits(*units):
    """Return FITS bytes."""
    out = io.BytesIO()
    fits.HDUList(list(units)).writeto(out)
    return out.getvalue()


@pytest.mark.parametrize("wrap", [gzip.compress, bytes])
def test_gzipped_and_plain_images_are_read(wrap):
    """Both forms give the image, in the machine's byte order."""
    cutout = open_cutout("science", wrap(as_fits(fits.PrimaryHDU(IMAGE))))
    assert cutout.data.dtype == np.float32
    np.testing.assert_array_equal(cutout.data, IMAGE)


def test_extensions_are_variance_and_psf():
    """A second and a third unit are the variance and the PSF."""
    psf = np.ones((5, 5))
    raw = as_fits(fits.PrimaryHDU(IMAGE), fits.ImageHDU(IMAGE * 2), fits.ImageHDU(psf))
    cutout = open_cutout("difference", raw)
    np.testing.assert_array_equal(cutout.variance, IMAGE * 2)
    np.testing.assert_array_equal(cutout.psf, psf)


def test_header_words_are_kept():
    """The unit of the image is in the header."""
    unit = fits.PrimaryHDU(IMAGE)
    unit.header["BUNIT"] = "nJy"
    assert open_cutout("science", as_fits(unit)).header["BUNIT"] == "nJy"


def test_cards_that_break_the_standard_are_read_in_silence():
    """Some surveys write cards that astropy warns of."""
    raw = as_fits(fits.PrimaryHDU(IMAGE)).replace(
        b"SIMPLE  =                    T", b"SIMPLE  =  T                  "
    )
    assert open_cutout("science", raw).data.shape == (3, 4)


@pytest.mark.parametrize(
    "raw",
    [
        b"no image",
        gzip.compress(b"no image", mtime=0),
        as_fits(fits.PrimaryHDU(IMAGE))[:2880],
        as_fits(fits.PrimaryHDU()),
        gzip.compress(as_fits(fits.PrimaryHDU(IMAGE)), mtime=0)[:-20],
        as_fits(fits.PrimaryHDU(np.zeros(4, np.float32))),
    ],
)
def test_what_is_no_image_is_refused(raw):
    """Garbage, empty and cut files are decode errors that name the cutout."""
    with pytest.raises(DecodeError, match=r"gzip|template"):
        open_cutout("template", raw)


def test_a_bomb_is_refused():
    """A cutout that unzips to more than 8 MB is no cutout."""
    with pytest.raises(DecodeError, match="more than 8 MB"):
        open_cutout("science", gzip.compress(bytes(9_000_000), 1))
