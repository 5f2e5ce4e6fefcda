"""A truth report as one page: tables and plots, no other file needed."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from broker.apps.simulator.latency import Latency
from broker.apps.simulator.report import TruthReport, rows_of

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #ccc;"
    "text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)


def render(report: TruthReport) -> str:
    """Return the page as HTML."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>Truth report</title><style>{_STYLE}</style>",
        "<h1>What was found of what was there</h1>",
        f"<p>{report.alerts:,} simulated alerts are stored, {report.missing:,} are missing.</p>",
        "<h2>Filters</h2>",
        _table(("filter", "passed", "completeness", "purity"), rows_of(report)),
        _image(draw_classes(report), "share of each class that passes each filter"),
        _image(draw_magnitudes(report), "completeness and purity against true magnitude"),
        "<h2>Supernovae</h2>",
        _recovery(report),
        "<h2>Latency</h2>",
        *_latency(report.latency),
    ]
    return "\n".join([*parts, "</html>"])


def _latency(latency: Latency) -> list[str]:
    columns = ("place", "alerts", "p50 [s]", "p99 [s]", "max [s]")
    rows = [
        (place, *map(_short, values.values())) for place, values in sorted(latency.seconds.items())
    ]
    parts = [f"<p>An alert arrives {html.escape(latency.since)}.</p>", _table(columns, rows)]
    return parts + [
        f"<p>{html.escape(place)}: not measured: {html.escape(reason)}.</p>"
        for place, reason in latency.not_measured.items()
    ]


def _recovery(report: TruthReport) -> str:
    if report.fits.is_empty():
        return "<p>This instance has no successful fits of simulated supernovae.</p>"
    columns = ("parameter", "fits", "bias", "scatter", "pull_scatter")
    rows = [
        [_short(row[name]) for name in columns] for row in report.recovery.iter_rows(named=True)
    ]
    picture = _image(draw_recovery(report), "fitted against true parameters")
    words = (
        f"<p>{len(report.fits):,} type Ia supernovae were fitted; {report.beyond:,} of them lie"
        " beyond the redshifts that a fit may find, and are not in the table.</p>"
    )
    return words + _table(columns, rows) + picture


def draw_classes(report: TruthReport) -> Figure:
    """Draw the share of each class that passes each filter."""
    names = report.filters["filter"].to_list()
    figure, axes = _figure(len(names), height=4.2)
    for axis, name in zip(axes, names, strict=True):
        rows = report.classes.filter(filter=name)
        colours = np.where(rows["is_target"].to_numpy(), "tab:blue", "tab:gray")
        axis.barh(rows["class"].to_list(), rows["share"].to_numpy(), color=colours.tolist())
        axis.set(title=f"{name} (blue: wanted)", xlim=(0, 1), xlabel="share that passes")
    return figure


def draw_magnitudes(report: TruthReport) -> Figure:
    """Draw completeness and purity against true magnitude."""
    names = report.filters["filter"].to_list()
    figure, axes = _figure(len(names))
    for axis, name in zip(axes, names, strict=True):
        rows = report.magnitudes.filter(filter=name)
        for column in ("completeness", "purity"):
            values = rows[column].cast(float).to_numpy()
            axis.plot(rows["mag"], values, marker="o", label=column)
        axis.set(title=name, xlabel="true magnitude of the difference", ylim=(-0.05, 1.05))
        axis.legend()
    return figure


def draw_recovery(report: TruthReport) -> Figure:
    """Draw fitted less true against true parameters."""
    names = report.recovery["parameter"].to_list()
    figure, axes = _figure(len(names))
    for axis, name in zip(axes, names, strict=True):
        true = report.fits[f"{name}_true"].to_numpy()
        off = report.fits[name].to_numpy() - true
        error = report.fits[f"{name}_err"].fill_null(0).to_numpy()
        axis.errorbar(true, off, error, fmt=".", alpha=0.6)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=name, xlabel="true", ylabel="fitted − true")
        reach = 4 * np.nanpercentile(np.abs(off), 75) or 1.0
        axis.set_ylim(-reach, reach)
    return figure


def _figure(columns: int, height: float = 3.4) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(3.6 * max(columns, 2), height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes for the same figure."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "simulator"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _image(figure: Figure, words: str) -> str:
    data = base64.b64encode(svg(figure)).decode()
    return f"<p><img alt='{html.escape(words)}' src='data:image/svg+xml;base64,{data}'></p>"


def _table(columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "–" if value is None else str(value)
