"""The picture of a fit."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from broker.errors import ScienceError
from broker.science.fitters.salt2.fitter import Painter, Salt2Fitter
from broker.science.fitters.salt2.raster import Box, Canvas, disc, ticks
from broker.science.fitters.salt2.simulate import Sampling, simulate
from broker.science.fitters.salt2.tables import build_tables
from broker.science.fitters.salt2.toy import toy_bandpasses, toy_source

EDGES = {"ztfg": (3900.0, 5500.0), "ztfr": (5600.0, 7200.0)}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A painter, a fit and its light curve."""
    tables = build_tables(toy_source(tmp_path_factory.mktemp("toy")), toy_bandpasses(EDGES))
    sampling = Sampling(tuple(EDGES), z=(0.03, 0.05))
    curve = simulate(tables, sampling, 1, np.random.default_rng(3))[0].lightcurve
    return Painter(tables), Salt2Fitter(tables).fit([curve])[0], curve


def pixels(png: bytes) -> np.ndarray:
    """Return RGB pixels of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_one_panel_a_band(drawn):
    """Two bands are wider than one, and both colours are there."""
    painter, fit, curve = drawn
    only = curve.band == "ztfg"

    both = pixels(painter.draw(fit, curve))
    one = pixels(painter.draw(replace(fit, used=fit.used[only]), curve.select(only)))

    assert both.shape[1] > one.shape[1]
    assert (both == (27, 138, 90)).all(axis=2).sum() > 200
    assert (both == (208, 69, 32)).all(axis=2).sum() > 200
    assert not (one == (208, 69, 32)).all(axis=2).any()


def test_model_line(drawn):
    """Without a fit the same points are drawn, and the model is not."""
    painter, fit, curve = drawn
    failed = replace(fit, error=ScienceError("for a test"))

    with_model = (pixels(painter.draw(fit, curve)) == (27, 138, 90)).all(axis=2).sum()
    without = (pixels(painter.draw(failed, curve)) == (27, 138, 90)).all(axis=2).sum()

    assert with_model > without + 200


def test_limits_are_drawn(drawn):
    """A limit changes the picture."""
    painter, fit, curve = drawn
    kind = curve.kind.astype("<U9")
    kind[2] = "limit"

    assert painter.draw(fit, replace(curve, kind=kind)) != painter.draw(fit, curve)


def test_empty_light_curve(drawn):
    """A light curve without points still gives a picture."""
    painter, fit, curve = drawn
    empty = curve.select(np.zeros(curve.mjd.size, bool))
    failed = replace(fit, error=ScienceError("nothing"), used=np.zeros(0, bool))

    assert pixels(painter.draw(failed, empty)).min() < 100


def test_stamp_outside_is_ignored():
    """A marker that does not fit on the canvas is left out."""
    canvas = Canvas(20, 20, [(0, 0, 0)])

    canvas.stamp(disc(3.0), 18, 18, 0)

    assert pixels(canvas.png()).min() == 255


def test_box_maps_edges():
    """The ends of the data range are the outermost pixels."""
    box = Box((10, 20, 110, 220), (0.0, 1.0), (-1.0, 1.0))

    assert (box.x(0.0), box.x(1.0)) == (10, 109)
    assert (box.y(-1.0), box.y(1.0)) == (219, 20)


def test_ticks_are_round():
    """Ticks are round numbers within the range."""
    assert ticks(0.3, 9.7, 4).tolist() == [2.5, 5.0, 7.5]
