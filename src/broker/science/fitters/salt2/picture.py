"""The picture of a fit: one panel a band with points, limits, model and pulls."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from broker.science.fitters.salt2 import kernel
from broker.science.fitters.salt2.kernel import Model, Points
from broker.science.fitters.salt2.presets import PARAMETERS
from broker.science.fitters.salt2.raster import (
    Box,
    Canvas,
    arrow,
    disc,
    text_width,
    ticks,
)
from broker.science.fitters.salt2.result import Salt2Fit
from broker.science.fitters.salt2.tables import ZERO_POINT

if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve

Array = NDArray[np.float64]

_INK, _GREY = 0, 1
_COLOURS = [
    (33, 37, 41),
    (120, 128, 136),
    (106, 61, 154),
    (27, 138, 90),
    (208, 69, 32),
    (150, 90, 30),
    (160, 30, 90),
    (60, 100, 180),
]
_BY_LETTER = {"u": 2, "g": 3, "r": 4, "i": 5, "z": 6, "y": 7}
_ACROSS = 3
_LEFT, _GAP, _HEAD = 58, 18, 86
_PANEL, _PULLS, _FOOT = 210, 66, 44
_WIDTHS = {1: 620, 2: 380}
_WIDTH = 290
_MAX_PULL = 4.0
_GREEK = {"t0": "t₀", "x0": "x₀", "x1": "x₁"}


@dataclass(frozen=True, slots=True)
class _Band:
    """What one panel shows: points on zero point 25, the model on its columns and at points."""

    name: str
    colour: int
    time: Array
    flux: Array
    error: Array
    kind: NDArray[np.str_]
    used: NDArray[np.bool_]
    model: Array
    columns: Array


def draw(fit: Salt2Fit, lightcurve: "LightCurve", model: Model, bands: tuple[str, ...]) -> bytes:
    """Draw a fit as a PNG.

    Parameters
    ----------
    fit : Salt2Fit
        With an error, the points are drawn without a model.
    lightcurve : LightCurve
        What `fit` was made from; every point is shown.
    model : tuple
        Expanded tables, see `FastEngine.model`.
    bands : tuple of str
        The passbands of `model`, in order.
    """
    shown = [band for band in bands if (lightcurve.band == band).any()] or list(bands[:1])
    across = min(len(shown), _ACROSS)
    width = _WIDTHS.get(across, _WIDTH)
    rows = -(-len(shown) // _ACROSS)
    cell = _PANEL + _PULLS + _FOOT
    canvas = Canvas(across * (width + _LEFT) + _GAP, _HEAD + rows * cell, _COLOURS)
    x_range = _time_range(fit, lightcurve)
    _header(canvas, fit)
    for n, name in enumerate(shown):
        left = _LEFT + (n % _ACROSS) * (width + _LEFT)
        top = _HEAD + (n // _ACROSS) * cell
        points = _band(fit, lightcurve, model, (name, bands.index(name)), x_range, width)
        _panel(canvas, fit, points, (left, top, left + width), x_range)
    return canvas.png()


def _time_range(fit: Salt2Fit, lightcurve: "LightCurve") -> tuple[float, float]:
    """Show the detections, the peak, and a little around."""
    seen = lightcurve.mjd[lightcurve.kind != "limit"]
    seen = lightcurve.mjd if seen.size == 0 else seen
    times = [*seen[[0, -1]].tolist()] if seen.size else [0.0, 1.0]
    if np.isfinite(fit.parameters[1]):
        times.append(float(fit.parameters[1]))
    low, high = min(times), max(times)
    margin = 0.06 * (high - low) + 2.0
    return low - margin, high + margin


def _band(
    fit: Salt2Fit,
    lightcurve: "LightCurve",
    model: Model,
    band: tuple[str, int],
    x_range: tuple[float, float],
    width: int,
) -> _Band:
    """Gather the points and the model of one band."""
    name, index = band
    part = lightcurve.band == name
    time = lightcurve.mjd[part]
    scale = 10 ** (0.4 * (ZERO_POINT - lightcurve.zp[part]))
    used = fit.used[part] if fit.used.size else np.zeros(time.size, np.bool_)
    out = np.zeros((2, time.size + width))
    if fit.error is None:
        covariance = np.nan_to_num(fit.covariance)
        times = np.concatenate([time, np.linspace(*x_range, width)])
        whole = np.ones(times.size, np.bool_)
        points = Points(times, np.full(times.size, index), times, times, whole)
        kernel.model_band(fit.parameters, covariance, points, model, out)
    return _Band(
        name=name,
        colour=_BY_LETTER.get(name[-1], _INK),
        time=time,
        flux=lightcurve.flux[part] * scale,
        error=lightcurve.fluxerr[part] * scale,
        kind=lightcurve.kind[part],
        used=used,
        model=out[0, : time.size],
        columns=out[:, time.size :],
    )


def _header(canvas: Canvas, fit: Salt2Fit) -> None:
    """Write who it is, how it was fitted, and what came out."""
    end = canvas.text(_GAP, 10, fit.object_id, _INK, 18)
    canvas.text(end + 10, 15, str(fit.source_id), _GREY)
    how = f"{fit.model} {fit.version} · {fit.preset} · {fit.engine}"
    edge = canvas.pixels.shape[1] - _GAP
    canvas.text(edge - text_width(how), 15, how, _GREY)
    if fit.error is not None:
        canvas.text(_GAP, 40, f"no fit: {fit.error}"[:90], 4)
        return
    x = _GAP
    for name, value, error in zip(PARAMETERS, fit.parameters, fit.errors, strict=True):
        x = canvas.text(x, 40, f"{_GREEK.get(name, name)} = ", _GREY)
        x = canvas.text(x, 40, _value(name, value, error), _INK) + 16
    _verdict(canvas, fit)


def _verdict(canvas: Canvas, fit: Salt2Fit) -> None:
    """Write the goodness of the fit and its flags."""
    words = f"χ²/ndof = {fit.chisq:.1f}/{fit.ndof}"
    flags = [] if fit.success else ["not converged"]
    flags += [f"{bound.replace('_', ' at ')} bound" for bound in fit.at_bound]
    if np.isfinite(fit.second_minimum) and fit.second_minimum < 9:
        flags.append(f"second minimum Δχ² {fit.second_minimum:.1f}")
    end = canvas.text(_GAP, 58, words, _GREY)
    canvas.text(end + 16, 58, " · ".join(flags), 4)


def _value(name: str, value: float, error: float) -> str:
    """Write a value with two digits of its error."""
    if name == "x0":
        power = int(np.floor(np.log10(abs(value)))) if value else 0
        scaled = f"{value / 10.0**power:.2f}"
        if error > 0:
            scaled = f"({scaled} ± {error / 10.0**power:.2f})"
        return f"{scaled}×10{_superscript(power)}"
    if not error > 0:
        return f"{value:.4g} (fixed)" if error == 0 else f"{value:.6g}"
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 5))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _panel(
    canvas: Canvas,
    fit: Salt2Fit,
    band: _Band,
    place: tuple[int, int, int],
    x_range: tuple[float, float],
) -> None:
    """Draw the flux panel of one band and its pulls."""
    left, top, right = place
    flux = Box((left, top, right, top + _PANEL), x_range, _flux_range(band))
    pulls = Box((left, flux.y1 + 4, right, flux.y1 + 4 + _PULLS), x_range, (-_MAX_PULL, _MAX_PULL))
    for box, count in ((flux, 5), (pulls, 2)):
        _axes(canvas, box, count)
    if fit.error is None:
        _model(canvas, flux, fit, band)
        _draw_pulls(canvas, pulls, band)
    _points(canvas, flux, band)
    canvas.frame(flux, _GREY, 10)
    canvas.frame(pulls, _GREY, 10)
    canvas.text(right - text_width(band.name, 15) - 10, top + 8, band.name, band.colour, 15)
    _labels(canvas, flux, pulls, first=left == _LEFT)


def _flux_range(band: _Band) -> tuple[float, float]:
    """Cover detections with errors and the model, and zero."""
    shown = band.kind != "limit"
    tops = [0.0, *(band.flux + band.error)[shown].tolist(), float(band.columns[0].max(initial=0))]
    lows = [0.0, *(band.flux - band.error)[shown].tolist()]
    if not shown.any():
        tops += (5 * band.error).tolist()
    high, low = max(tops), min(lows)
    height = (high - low) or 1.0
    return low - 0.07 * height, high + 0.12 * height


def _axes(canvas: Canvas, box: Box, count: int) -> None:
    """Draw a faint grid."""
    for value in ticks(*box.x_range, max((box.x1 - box.x0) // 90, 2)):
        x = round(float(box.x(value)))
        canvas.fill(x, box.y0, x + 1, box.y1, _GREY, 2)
    for value in ticks(*box.y_range, count):
        y = round(float(box.y(value)))
        canvas.fill(box.x0, y, box.x1, y + 1, _GREY, 6 if value == 0 else 2)


def _model(canvas: Canvas, box: Box, fit: Salt2Fit, band: _Band) -> None:
    """Draw the model with its one-sigma band, and the time of peak."""
    flux, sigma = band.columns
    canvas.shade(box, box.y(flux - sigma), box.y(flux + sigma), band.colour, 4)
    peak = round(float(box.x(fit.parameters[1])))
    for y in range(box.y0 + 4, box.y1 - 4, 8):
        canvas.fill(peak, y, peak + 1, y + 4, _GREY, 9)
    if flux.any():
        canvas.curve(box, np.where(flux == 0, np.nan, box.y(flux)), band.colour, 1.8)


def _points(canvas: Canvas, box: Box, band: _Band) -> None:
    """Draw detections, forced photometry and limits."""
    x = np.round(box.x(band.time)).astype(int).tolist()
    for n, column in enumerate(x):
        if not box.x0 + 4 <= column < box.x1 - 4:
            continue
        if band.kind[n] == "limit":
            _limit(canvas, box, column, 5 * float(band.error[n]))
            continue
        forced = band.kind[n] == "forced"
        colour = _GREY if forced or not band.used[n] else band.colour
        low, high = box.y(band.flux[n] - band.error[n]), box.y(band.flux[n] + band.error[n])
        canvas.fill(
            column, max(round(float(high)), box.y0), column + 1, round(float(low)) + 1, colour
        )
        mark = disc(2.6 if forced else 3.6, hollow=not band.used[n])
        half = mark.height // 2
        canvas.stamp(mark, column - half, round(float(box.y(band.flux[n]))) - half, colour)


def _limit(canvas: Canvas, box: Box, column: int, value: float) -> None:
    """Mark a limit by an arrow down, at the top edge if it is beyond."""
    row = max(round(float(box.y(value))), box.y0 + 3)
    if row < box.y1 - 10:
        mark = arrow()
        canvas.stamp(mark, column - mark.width // 2, row, _GREY)


def _draw_pulls(canvas: Canvas, box: Box, band: _Band) -> None:
    """Draw pulls of the detections; those beyond the panel sit on its edge, hollow."""
    canvas.fill(box.x0, round(float(box.y(1))), box.x1, round(float(box.y(-1))) + 1, _GREY, 1)
    zero = round(float(box.y(0)))
    canvas.fill(box.x0, zero, box.x1, zero + 1, _GREY, 7)
    pull = (band.flux - band.model) / band.error
    for n in np.flatnonzero(band.used).tolist():
        beyond = abs(pull[n]) > _MAX_PULL - 0.4
        value = float(np.clip(pull[n], 0.4 - _MAX_PULL, _MAX_PULL - 0.4))
        column, row = round(float(box.x(band.time[n]))), round(float(box.y(value)))
        if not beyond:
            top, bottom = float(box.y(pull[n] + 1)), float(box.y(pull[n] - 1))
            first, last = max(round(top), box.y0), min(round(bottom), box.y1 - 1)
            canvas.fill(column, first, column + 1, last, band.colour, 8)
        mark = disc(3.0, hollow=beyond)
        canvas.stamp(mark, column - mark.height // 2, row - mark.height // 2, band.colour)


def _labels(canvas: Canvas, flux: Box, pulls: Box, *, first: bool) -> None:
    """Write the numbers on the axes, and what they are beside the first panel."""
    for value in ticks(*flux.x_range, max((flux.x1 - flux.x0) // 90, 2)):
        words = f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
        x = float(flux.x(value)) - text_width(words, 11) / 2
        canvas.text(x, pulls.y1 + 5, words, _GREY, 11)
    for box, count in ((flux, 5), (pulls, 2)):
        for value in ticks(*box.y_range, count):
            words = _short(float(value))
            x = box.x0 - 6 - text_width(words, 11)
            canvas.text(x, round(float(box.y(value))) - 7, words, _GREY, 11)
    words = "MJD"
    middle = (pulls.x0 + pulls.x1 - text_width(words, 11)) / 2
    canvas.text(middle, pulls.y1 + 20, words, _GREY, 11)
    if first:
        canvas.text(flux.x0 + 8, flux.y0 + 8, "flux (AB zp 25)", _GREY, 11)
        canvas.text(_GAP, pulls.y0 + 2, "pull", _GREY, 11)


def _short(value: float) -> str:
    """Write a tick in at most five letters."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.4g}"
