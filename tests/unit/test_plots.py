"""The picture of an alert: always a picture, whatever is missing."""

import io

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from broker.alerts.lightcurve import LightCurve
from broker.alerts.plots import plot_alert, points_of, stretch

KINDS = {"science": None, "template": None, "difference": None}
SCHEMA = {
    "mjd": pl.Float64,
    "band": pl.String,
    "mag": pl.Float64,
    "err": pl.Float64,
    "limit": pl.Float64,
    "kind": pl.String,
}
ROWS = [
    (59000.0, "g", None, None, 20.1, "limit"),
    (59003.0, "r", 19.4, 0.1, None, "detection"),
    (59004.0, "r", 19.9, 0.3, None, "forced"),
    (59006.0, "g", 18.7, 0.05, None, "trigger"),
]
POINTS = pl.DataFrame(ROWS, SCHEMA, orient="row")


def image() -> NDArray[np.float64]:
    """Make an image of one source on noise, with a corner that was not measured."""
    y, x = np.mgrid[:63, :60]
    noise = np.random.default_rng(1).normal(size=x.shape)
    pixels = noise + 200 * np.exp(-((x - 30) ** 2 + (y - 31) ** 2) / 8)
    pixels[:5, :9] = np.nan
    return pixels


def pixels_of(png: bytes) -> NDArray[np.float64]:
    """Read a picture back."""
    return matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]


def test_picture_has_the_promised_size() -> None:
    """The picture is a PNG of 1500 by 750 pixels."""
    assert pixels_of(plot_alert(POINTS, dict.fromkeys(KINDS, image()), "A")).shape == (750, 1500, 3)


def test_each_kind_of_point_shows() -> None:
    """Leaving out any one kind of point changes the picture."""
    whole = plot_alert(POINTS, KINDS, "A")
    for kind in ("limit", "detection", "forced", "trigger"):
        assert plot_alert(POINTS.filter(pl.col("kind") != kind), KINDS, "A") != whole


def test_negative_differences_are_drawn_open() -> None:
    """A magnitude of a negative difference looks different."""
    signed = POINTS.with_columns(negative=pl.Series([False, True, False, False]))
    assert plot_alert(signed, KINDS, "A") != plot_alert(POINTS, KINDS, "A")


@pytest.mark.parametrize("brightness", [300.0, 3e5, -4e8])
def test_fluxes(brightness: float) -> None:
    """Fluxes of any size and sign can be drawn."""
    fluxes = POINTS.rename({"mag": "flux"}).with_columns(
        flux=pl.Series([None, brightness, -brightness / 2, 1.0]), limit=pl.lit(None)
    )
    assert pixels_of(plot_alert(fluxes, KINDS, "A")).min() < 0.2


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_little_photometry(rows: int) -> None:
    """No points, or limits alone, still give a picture."""
    assert pixels_of(plot_alert(POINTS.head(rows), {}, "A")).shape == (750, 1500, 3)


def test_unknown_band() -> None:
    """A band without a colour of its own gets one."""
    points = POINTS.with_columns(band=pl.lit("F062"))
    assert pixels_of(plot_alert(points, KINDS, "A")).shape == (750, 1500, 3)


def test_no_global_state() -> None:
    """Drawing opens no figure of pyplot, so none can leak."""
    plot_alert(POINTS, KINDS, "A")
    assert plt.get_fignums() == []


def test_stretch_keeps_order_and_range() -> None:
    """Brighter pixels stay brighter, from 0 to 1, and unmeasured ones stay NaN."""
    pixels = image()
    shown = stretch(pixels)
    assert (np.nanmin(shown), np.nanmax(shown)) == (0.0, 1.0)
    assert np.isnan(shown[:5, :9]).all()
    assert shown[31, 30] >= shown[31, 34] > shown[60, 2]


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_flat_image(value: float) -> None:
    """An image without structure is drawn without a warning."""
    assert np.isfinite(stretch(np.full((5, 5), value))).all()


CURVE = LightCurve(
    object_id="A",
    source_id=1,
    mjd=np.array([59000.0, 59001.0, 59002.0, 59003.0, 59004.0]),
    band=np.array(["g", "r", "g", "r", "g"]),
    flux=np.array([0.0, -100.0, 2.0, 50.0, 100.0]),
    fluxerr=np.array([2.0, 5.0, 1.0, 1.0, 4.0]),
    zp=np.full(5, 25.0),
    zpsys=np.full(5, "ab"),
    kind=np.array(["limit", "detection", "forced", "forced", "detection"]),
)


def test_magnitudes_of_a_light_curve() -> None:
    """Fluxes become magnitudes; a limit is 5 sigma, and faint forced photometry is left out."""
    points = points_of(CURVE, 59004.0, as_magnitudes=True)
    assert points["kind"].to_list() == ["limit", "detection", "forced", "trigger"]
    assert points["mag"].to_list()[1::2] == pytest.approx([20.0, 20.0])
    assert points["limit"][0] == pytest.approx(25 - 2.5)
    assert points["negative"].to_list() == [False, True, False, False]


def test_fluxes_of_a_light_curve() -> None:
    """Fluxes are brought to nJy, with their sign."""
    points = points_of(CURVE, 59004.0, as_magnitudes=False)
    njy = 10 ** (6.4 / 2.5)
    assert points["flux"].to_list() == pytest.approx(
        [0.0, -100 * njy, 2 * njy, 50 * njy, 100 * njy]
    )
    assert points["limit"][0] == pytest.approx(10 * njy)


@pytest.mark.parametrize("as_magnitudes", [True, False])
def test_light_curve_can_be_drawn(as_magnitudes: bool) -> None:
    """A light curve goes into a picture without further ado."""
    points = points_of(CURVE, 59004.0, as_magnitudes=as_magnitudes)
    assert pixels_of(plot_alert(points, KINDS, "A")).shape == (750, 1500, 3)
