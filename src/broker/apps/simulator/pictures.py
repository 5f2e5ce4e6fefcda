"""Pictures of a simulated night: how its alerts are distributed, and what cutouts show."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from broker.alerts.cutout import open_cutout
from broker.apps.simulator.night import FieldPackets
from broker.apps.simulator.page import svg
from broker.errors import UsageError
from broker.surveys import Survey, decode_batch, open_alert

_CLASSES_WITH_CUTOUTS = ("SNIa", "AGN", "EB", "asteroid", "dipole", "cosmic_ray")


def write_pictures(survey: Survey, parts: Iterable[FieldPackets], folder: Path) -> list[Path]:
    """Draw classes, magnitudes, history lengths, light curves and cutouts of a night.

    Parameters
    ----------
    survey : Survey
        Whose packets.
    parts : iterable of FieldPackets
        The night.
    folder : Path
        Where the pictures go; is created.

    Raises
    ------
    UsageError
        If there are no packets.
    """
    kept = list(parts)
    if not kept:
        raise UsageError("a night without alerts cannot be drawn")
    payloads = [payload for part in kept for payload in part.payloads]
    truth = pl.concat([part.truth for part in kept])
    figures = {
        "classes.svg": svg(draw_classes(truth)),
        "magnitudes.svg": svg(draw_magnitudes(truth)),
        "history.svg": svg(draw_history(truth, history_lengths(survey, payloads))),
    }
    if survey.cutouts:
        figures["cutouts.png"] = _png(draw_cutouts(survey, payloads, truth))
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in figures.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in figures]


def history_lengths(survey: Survey, payloads: list[bytes]) -> pl.DataFrame:
    """Return ``source_id`` and the number of earlier detections of each alert."""
    frames, _ = decode_batch(payloads, survey)
    return pl.concat([frame.keys.select("source_id", "n_previous") for frame in frames])


def draw_classes(truth: pl.DataFrame) -> Figure:
    """Draw the share of each class."""
    counts = truth.group_by("class").len().sort("len")
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.barh(counts["class"].to_list(), (counts["len"] / len(truth)).to_numpy())
    axis.set(xlabel="share of the alerts")
    return figure


def draw_magnitudes(truth: pl.DataFrame) -> Figure:
    """Draw magnitudes by group, and the depth."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    mags = {str(key[0]): part["mag_true"].to_numpy() for key, part in truth.group_by("group")}
    low, high = float(truth["mag_true"].min()) - 0.5, float(truth["mag_true"].max()) + 0.5  # type: ignore[arg-type]
    bins = np.arange(np.floor(low), np.ceil(high), 0.5)
    axis.hist([mags[name] for name in sorted(mags)], bins=bins, stacked=True, label=sorted(mags))  # type: ignore[arg-type]
    axis.axvline(float(truth["limit_mag"].median()), color="black", linestyle=":", label="depth")  # type: ignore[arg-type]
    axis.set(xlabel="true magnitude of the difference", ylabel="alerts")
    axis.legend()
    return figure


def draw_history(truth: pl.DataFrame, lengths: pl.DataFrame) -> Figure:
    """Draw the number of earlier detections by group."""
    joined = truth.join(lengths, on="source_id")
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    parts = {str(key[0]): part["n_previous"].to_numpy() for key, part in joined.group_by("group")}
    bins = np.arange(-0.5, float(joined["n_previous"].max()) + 1.5)  # type: ignore[arg-type]
    names = sorted(parts)
    axis.hist([parts[name] for name in names], bins=bins, histtype="step", label=names)  # type: ignore[arg-type]
    axis.set(xlabel="earlier detections in the packet", ylabel="alerts", yscale="log")
    axis.legend()
    return figure


def draw_cutouts(survey: Survey, payloads: list[bytes], truth: pl.DataFrame) -> Figure:
    """Draw the cutouts of one bright alert of some classes."""
    bright = truth.with_row_index().sort((pl.col("flux") / pl.col("flux_error")).abs())
    chosen = [name for name in _CLASSES_WITH_CUTOUTS if name in bright["class"]]
    figure = Figure(figsize=(3.6, 1.2 * max(len(chosen), 1)), layout="constrained")
    axes = figure.subplots(max(len(chosen), 1), 3, squeeze=False)
    for axis, kind in zip(axes[0], survey.cutouts, strict=True):
        axis.set_title(kind)
    for row, name in zip(axes, chosen, strict=False):
        index = int(bright.filter(pl.col("class") == name)["index"][-1])
        raw = open_alert(payloads[index], survey=survey.name)
        for axis, (kind, path) in zip(row, survey.cutouts.items(), strict=True):
            image = open_cutout(kind, _bytes_at(raw.packet, path)).data
            low, high = np.nanpercentile(image, [2, 99.7])
            axis.imshow(image, cmap="gray", vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return figure


def _bytes_at(packet: object, path: tuple[str, ...]) -> bytes:
    for name in path:
        packet = packet[name]  # type: ignore[index]
    return bytes(packet)  # type: ignore[call-overload, no-any-return]


def _png(figure: Figure) -> bytes:

    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=64, metadata={"Software": None})
    return out.getvalue()
