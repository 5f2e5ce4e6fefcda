"""The picture of an alert: its light curve and its three cutouts."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import AutoMinorLocator
from numpy.typing import NDArray

from broker.alerts.lightcurve import (
    DETECTION,
    FORCED,
    LIMIT,
    LIMIT_SIGMA,
    SAME_EPOCH_DAYS,
    LightCurve,
)
from broker.alerts.photometry import AB_ZERO_POINT_NJY, flux_to_mag

TRIGGER = "trigger"
"""Kind of the detection that caused the alert; the others are those of a light curve."""

_NEGATIVE = "negative"
_FORCED_SIGMA = 3.0

# Okabe & Ito (2008), told apart also by colour-blind readers; blue to red as the bands are.
_COLOURS = {
    "u": "#CC79A7",
    "g": "#009E73",
    "r": "#D55E00",
    "i": "#E69F00",
    "z": "#56B4E9",
    "y": "#0072B2",
}
_SPARE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
_INK, _FAINT = "#222222", "#8a8a8a"
_FLUX_UNITS = (("nJy", 1.0), ("µJy", 1e3), ("mJy", 1e6))
_KINDS = ("science", "template", "difference")


@dataclass(frozen=True)
class _Axis:
    """How the value column is drawn."""

    column: str
    label: str
    inverted: bool
    scale: float
    least_span: float


def points_of(curve: LightCurve, trigger_mjd: float, *, as_magnitudes: bool) -> pl.DataFrame:
    """Turn a light curve into the points of :func:`plot_alert`.

    Parameters
    ----------
    curve : LightCurve
        Signed fluxes.
    trigger_mjd : float
        Time of the detection that caused the alert, on the curve's scale, in days.
    as_magnitudes : bool
        AB magnitudes, with the negative ones marked and forced photometry below 3 sigma
        left out; otherwise fluxes in nJy.
    """
    is_trigger = np.abs(curve.mjd - trigger_mjd) < SAME_EPOCH_DAYS
    kind = np.where(is_trigger & (curve.kind == DETECTION), TRIGGER, curve.kind)
    named = {"mjd": curve.mjd, "band": curve.band.astype(object), "kind": kind.astype(object)}
    if not as_magnitudes:
        to_njy = np.power(10.0, (AB_ZERO_POINT_NJY - curve.zp) / 2.5)
        flux, error = curve.flux * to_njy, curve.fluxerr * to_njy
        return pl.DataFrame({**named, "flux": flux, "err": error, "limit": LIMIT_SIGMA * error})
    mag, error = flux_to_mag(np.abs(curve.flux), curve.zp, curve.fluxerr)
    limit, _ = flux_to_mag(LIMIT_SIGMA * curve.fluxerr, curve.zp, np.nan)
    values = {"mag": mag, "err": error, "limit": limit, "negative": curve.flux < 0}
    is_faint = (kind == FORCED) & ~(np.abs(curve.flux) >= _FORCED_SIGMA * curve.fluxerr)
    return pl.DataFrame({**named, **values}).filter(~is_faint)


def _axis_of(points: pl.DataFrame) -> _Axis:
    if "mag" in points.columns:
        return _Axis("mag", "Magnitude (AB)", inverted=True, scale=1.0, least_span=1.5)
    brightest = points.select(pl.col("flux").cast(pl.Float64).abs().quantile(0.9)).item() or 0.0
    unit, scale = next((u, s) for u, s in _FLUX_UNITS if brightest / s < 1e4 or u == "mJy")
    return _Axis("flux", f"Difference flux ({unit})", False, scale, 0.2 * brightest / scale)


def plot_alert(
    points: pl.DataFrame,
    cutouts: Mapping[str, NDArray[np.floating] | None],
    title: str,
    subtitle: str = "",
) -> bytes:
    """Draw an alert: light curve and cutouts.

    Parameters
    ----------
    points : polars.DataFrame
        One row a point: ``mjd`` (days), ``band``, ``mag`` or ``flux`` (nJy), ``err``,
        ``limit`` (in the unit of the value) and ``kind``, which is ``trigger``,
        ``detection``, ``limit`` or ``forced``. An optional boolean ``negative`` marks
        magnitudes of negative differences, which are drawn open.
    cutouts : mapping
        Images by kind (``science``, ``template``, ``difference``), None where absent.
    title, subtitle : str
        Text above the picture.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure = Figure(figsize=(10.0, 5.0), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    grid = GridSpec(3, 2, figure, width_ratios=(6.3, 1.0), left=0.075, right=0.985)
    grid.update(top=0.82, bottom=0.105, wspace=0.035, hspace=0.06)
    figure.text(0.075, 0.955, title, size=14, weight="bold", color=_INK, va="center")
    figure.text(0.075, 0.905, subtitle, size=9.5, color=_FAINT, va="center")
    _draw_light_curve(figure.add_subplot(grid[:, 0]), points)
    for row, kind in enumerate(_KINDS):
        _draw_cutout(figure.add_subplot(grid[row, 1]), kind, cutouts.get(kind))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_light_curve(axes: Axes, points: pl.DataFrame) -> None:
    axis = _axis_of(points)
    reference = _reference_day(points)
    points = _scaled(points, axis)
    bands = _band_colours(points)
    for band, colour in bands.items():
        _draw_band(axes, points.filter(band=band), reference, colour)
    _frame(axes, axis, reference)
    if points.is_empty():
        axes.text(0.5, 0.5, "no photometry", transform=axes.transAxes, ha="center", color=_FAINT)
        axes.set(xticks=[], yticks=[], xlabel="")
        return
    _limit_days(axes)
    _limit_range(axes, axis, points)
    _draw_legend(axes, bands, points)


def _scaled(points: pl.DataFrame, axis: _Axis) -> pl.DataFrame:
    value = pl.when(kind=LIMIT).then("limit").otherwise(axis.column) / axis.scale
    negative = pl.col("negative") if "negative" in points.columns else pl.lit(value=False)
    return points.select(
        "mjd",
        "band",
        "kind",
        value=value.cast(pl.Float64).fill_null(np.nan),
        err=(pl.col("err") / axis.scale).cast(pl.Float64).fill_null(np.nan),
        negative=negative,
    )


def _limit_days(axes: Axes) -> None:
    first, last = axes.get_xlim()
    axes.set_xlim(min(first, -1.0), max(last, 0.05))


def _limit_range(axes: Axes, axis: _Axis, points: pl.DataFrame) -> None:
    """Frame the detections; of the rest, what is not far from them."""
    values = points["value"].to_numpy()
    found = np.isin(points["kind"].to_numpy(), (TRIGGER, DETECTION)) & np.isfinite(values)
    core = values[found] if found.any() else values[np.isfinite(values)]
    if not core.size:
        return
    reach = max(np.ptp(core), axis.least_span)
    errors = np.nan_to_num(points["err"].to_numpy())[found]
    if found.any():
        core = np.concatenate((core - errors, core + errors))
    near = values[(values >= core.min() - reach) & (values <= core.max() + reach)]
    near = np.concatenate((near, core))
    pad = 0.1 * max(np.ptp(near), axis.least_span)
    low, high = near.min() - pad, near.max() + pad
    axes.set_ylim((high, low) if axis.inverted else (low, high))
    if outside := int(np.sum((values < low) | (values > high))):
        text = f"{outside} point{'s' * (outside > 1)} outside"
        axes.text(0.008, 0.02, text, transform=axes.transAxes, size=8, color=_FAINT)


def _reference_day(points: pl.DataFrame) -> float:
    trigger = points.filter(kind=TRIGGER)["mjd"]
    days = trigger if trigger.len() else points["mjd"]
    return float(days.max()) if days.len() else 0.0  # type: ignore[arg-type]


def _band_colours(points: pl.DataFrame) -> dict[str, str]:
    order = "ugrizy"
    bands = points["band"].drop_nulls().unique().to_list()
    bands.sort(key=lambda band: (order.find(band.lower()[-1:]) % 99, band))
    spare = iter(_SPARE_COLOURS * (1 + len(bands) // len(_SPARE_COLOURS)))
    return {band: _COLOURS.get(band.lower()[-1:]) or next(spare) for band in bands}


def _draw_band(axes: Axes, points: pl.DataFrame, reference: float, colour: str) -> None:
    for (kind, negative), group in points.group_by("kind", "negative"):
        days, values = group["mjd"].to_numpy() - reference, group["value"].to_numpy()
        style = _style(str(kind), bool(negative), colour)
        errors = None if kind == LIMIT else group["err"].to_numpy()
        axes.errorbar(days, values, errors, **style)


def _style(kind: str, negative: bool, colour: str) -> dict[str, Any]:
    style = {"ls": "", "color": colour, "ecolor": colour, "elinewidth": 0.9}
    style |= {"mfc": "white" if negative else colour}
    if kind == LIMIT:
        return style | {"marker": "v", "ms": 5.5, "mfc": "white", "mew": 0.9, "alpha": 0.75}
    if kind == FORCED:
        return style | {"marker": ".", "ms": 4.0, "mew": 0.5, "alpha": 0.35, "zorder": 1}
    if kind == TRIGGER:
        edge = colour if negative else _INK
        return style | {"marker": "*", "ms": 15.0, "mec": edge, "mew": 1.0, "zorder": 5}
    edge = colour if negative else "white"
    return style | {"marker": "o", "ms": 5.5, "mec": edge, "mew": 0.7, "zorder": 3}


def _frame(axes: Axes, axis: _Axis, reference: float) -> None:
    axes.set_xlabel(f"Days since the alert (MJD {reference:.4f})", color=_INK)
    axes.set_ylabel(axis.label, color=_INK)
    axes.margins(x=0.04)
    if not axis.inverted:
        axes.axhline(0.0, color=_FAINT, lw=0.7, zorder=0)
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", direction="in", colors=_INK, labelsize=9)
    axes.xaxis.set_minor_locator(AutoMinorLocator())
    axes.yaxis.set_minor_locator(AutoMinorLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)


_KIND_STYLES: dict[str, dict[str, Any]] = {
    TRIGGER: {"marker": "*", "ms": 11, "mfc": "white", "label": "this alert"},
    DETECTION: {"marker": "o", "ms": 5, "mfc": _INK, "label": "detection"},
    _NEGATIVE: {"marker": "o", "ms": 5, "mfc": "white", "label": "fainter than template"},
    LIMIT: {"marker": "v", "ms": 5, "mfc": "white", "label": "upper limit"},
    FORCED: {"marker": ".", "ms": 4, "mfc": _INK, "alpha": 0.4, "label": "forced"},
}


def _draw_legend(axes: Axes, bands: Mapping[str, str], points: pl.DataFrame) -> None:
    kinds = {*points["kind"], *([_NEGATIVE] if points["negative"].any() else [])}
    squares = [Line2D([], [], ls="", marker="s", ms=6, color=c, label=b) for b, c in bands.items()]
    shown = [style for kind, style in _KIND_STYLES.items() if kind in kinds]
    marks = [Line2D([], [], ls="", color=_INK, **style) for style in shown]
    axes.legend(
        handles=[*squares, *marks],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.005),
        ncols=len(squares) + len(marks),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.1,
        columnspacing=0.9,
        borderaxespad=0.0,
        labelcolor=_INK,
    )


def _draw_cutout(axes: Axes, kind: str, image: NDArray[np.floating] | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#bbbbbb")
    label = axes.text(0.05, 0.94, kind.capitalize(), transform=axes.transAxes, va="top", size=9)
    label.set(
        color="white", weight="bold", path_effects=[withStroke(linewidth=2.0, foreground=_INK)]
    )
    if image is None or not np.isfinite(image).any():
        label.set(color=_FAINT, path_effects=[])
        axes.set_box_aspect(1)
        axes.set_facecolor("#ececec")
        axes.text(0.5, 0.45, "no image", transform=axes.transAxes, ha="center", color=_FAINT)
        return
    axes.imshow(stretch(image), cmap="gray", origin="lower", vmin=0, vmax=1)
    axes.set_facecolor("#7a8ca5")


def stretch(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale an image for the eye: sky near black, faint and bright sources both visible.

    Parameters
    ----------
    image : ndarray (y, x)
        Pixels in any linear unit; NaN where unmeasured.

    Returns
    -------
    ndarray of float64 (y, x)
        Values from 0 to 1, NaN where unmeasured.

    References
    ----------
    Lupton et al. 2004, PASP 116, 133: an inverse hyperbolic sine is linear near the sky's
    noise and logarithmic far above it.
    """
    pixels = np.asarray(image, dtype=np.float64)
    sky = np.nanmedian(pixels)
    noise = 1.4826 * np.nanmedian(np.abs(pixels - sky)) or np.nanstd(pixels) or 1.0
    scaled = np.arcsinh((pixels - sky) / (2.0 * noise))
    low, high = np.nanpercentile(scaled, [1.0, 99.8])
    span = max(high - low, 1e-9)
    result: NDArray[np.float64] = np.clip((scaled - low) / span, 0.0, 1.0)
    return result
