"""SALT2 in the stream: light curves, fits, rows, messages and pictures of new alerts."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from broker.alerts.convert import to_json_bytes
from broker.alerts.lightcurve import (
    LightCurve,
    PhotometryMap,
    Record,
    build_lightcurves,
    epochs_of,
    narrow_packets,
)
from broker.errors import BrokerError, NotFoundError
from broker.pipeline.archive import AlertArchive
from broker.pipeline.products import Made
from broker.ports import Messages
from broker.science.fitters.salt2.fitter import Painter, Salt2Fitter, passes_quality
from broker.science.fitters.salt2.result import Salt2Fit
from broker.surveys import AlertFrame, decode_batch

NAME = "salt2"
"""Name of the stage, of its table and of its topic."""

BUCKET = "sncosmo"
"""Stub of the bucket of its pictures."""

MOST_STORED_ALERTS = 30
"""Of an object so many stored alerts are merged; each brings a month of history."""

MOST_AT_ONCE = 128
"""Alerts that are fitted together: the stored epochs of each take some 400 kB of memory."""

_FAILURES = (BrokerError, ArithmeticError, LookupError, TypeError, ValueError)
"""What bad numbers in a packet can cause; the alerts of its batch go on without fits."""

_LOG = logging.getLogger(__name__)

History = Callable[[Sequence[Any], Sequence[float]], Sequence[Sequence[Record]]]
"""Takes ids of objects and times [MJD]; returns the epochs stored for each before its time."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of the alerts of one batch that were tried."""

    rows: pl.DataFrame
    messages: Messages
    pictures: Mapping[str, bytes]
    fates: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Salt2Stage:
    """Fits the alerts that pass a filter and are good enough.

    Parameters
    ----------
    fitter : Salt2Fitter
        Model, preset and engine.
    photometry : PhotometryMap
        How the survey writes light curves.
    after : str
        Name of the filter whose alerts are fitted.
    history : callable
        Finds earlier epochs of an object in the store.
    painter : Painter, optional
        Draws every fit; without it pictures are made when asked for.
    """

    fitter: Salt2Fitter
    photometry: PhotometryMap
    after: str
    history: History
    painter: Painter | None = None

    def apply(self, made: Made) -> list[Fitted]:
        """Fit what can be fitted, so many at a time; a failure is a fate, never an exception."""
        rows = np.flatnonzero(made.verdicts.passed(self.after))
        starts = range(0, len(rows), MOST_AT_ONCE)
        return [self._try(made, rows[start : start + MOST_AT_ONCE]) for start in starts]

    def _try(self, made: Made, rows: NDArray[np.int64]) -> Fitted:
        try:
            return self._apply(made, rows)
        except _FAILURES as error:
            _LOG.warning("fits of a batch failed", exc_info=True)
            return _nothing({f"failed: {type(error).__name__}: {error}": len(rows)})

    def _apply(self, made: Made, chosen_rows: NDArray[np.int64]) -> Fitted:
        frame = made.alerts.frame
        frame = frame.select(np.isin(np.arange(len(frame.index)), chosen_rows))
        curves = self._curves(frame)
        good = np.array([passes_quality(curve) for curve in curves], dtype=bool)
        chosen = [curve for curve, is_good in zip(curves, good, strict=True) if is_good]
        fits = self.fitter.fit(chosen) if chosen else []
        fates = {"not enough data": int((~good).sum())} | _count(fits)
        if not fits:
            return _nothing(fates)
        frame, attributes = frame.select(good), made.attributes[chosen_rows].filter(good)
        rows = fit_rows(fits, frame)
        done = np.array([fit.error is None for fit in fits])
        messages = _messages(frame.select(done), rows.filter(done), attributes.filter(done))
        return Fitted(rows, messages, self._pictures(fits, chosen), fates)

    def _curves(self, frame: AlertFrame) -> list[LightCurve]:
        stored = self.history(frame.keys["object_id"].to_list(), frame.keys["mjd"].to_list())
        return build_lightcurves(frame.rows, self.photometry, stored)

    def _pictures(self, fits: Sequence[Salt2Fit], curves: Sequence[LightCurve]) -> dict[str, bytes]:
        if self.painter is None:
            return {}
        return {
            picture_name(fit.object_id, fit.source_id): self.painter.draw(fit, curve)
            for fit, curve in zip(fits, curves, strict=True)
            if fit.error is None
        }


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """The epochs that stored alerts of an object have brought.

    Parameters
    ----------
    archive : AlertArchive
        The stored packets.
    """

    archive: AlertArchive

    def __call__(
        self, object_ids: Sequence[Any], mjds: Sequence[float]
    ) -> Sequence[Sequence[Record]]:
        """Return the epochs of each object from alerts before its time [MJD]."""
        found = {object_id: self._alerts(object_id) for object_id in set(object_ids)}
        return [
            [epoch for time, epochs in found[object_id] if time < mjd for epoch in epochs]
            for object_id, mjd in zip(object_ids, mjds, strict=True)
        ]

    def _alerts(self, object_id: Any) -> list[tuple[float, list[Record]]]:
        """Return time and epochs of the object's stored alerts."""
        photometry, archive = self.archive.survey.photometry, self.archive
        ids = archive.ledger.alerts_of(object_id)[-MOST_STORED_ALERTS:]
        if photometry is None or len(ids) < 2:
            return []
        payloads = list(filter(None, (_packet(archive, source_id) for source_id in ids)))
        frames, _ = decode_batch(payloads, archive.survey, resolver=archive.resolver)
        return [
            (mjd, list(epochs_of(packet, (), photometry)))
            for frame in frames
            for mjd, packet in zip(
                frame.keys["mjd"].to_list(), narrow_packets(frame.rows, photometry), strict=True
            )
        ]


def _packet(archive: AlertArchive, source_id: int) -> bytes | None:
    """Return a stored packet; None for one of a later batch, claimed but not yet written."""
    try:
        return archive.payload(source_id)
    except NotFoundError:
        return None


def _nothing(fates: Mapping[str, int]) -> Fitted:
    return Fitted(pl.DataFrame(), Messages([], pl.DataFrame()), {}, fates)


def picture_name(object_id: Any, source_id: int) -> str:
    """Name the picture of a fit within its bucket."""
    return f"salt2/plot_lc/{object_id}.{source_id}.png"


def fit_rows(fits: Sequence[Salt2Fit], frame: AlertFrame) -> pl.DataFrame:
    """Return the rows of table ``salt2``, with the ids under the survey's names."""
    words = frame.survey.schema_map
    ids = frame.keys.select(
        pl.col("object_id").alias(words.get_key("objectid") or "object_id"),
        pl.col("source_id").alias(words.get_key("sourceid") or "source_id"),
    )
    rows = [fit.row("_object", "_source") for fit in fits]
    return pl.concat([ids, as_frame(rows).drop("_object", "_source")], how="horizontal")


def as_frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Make a table of rows whose columns have one type, also where all are null."""
    return pl.DataFrame(rows, schema_overrides={name: _kind(name, rows) for name in rows[0]})


_TEXTS = ("model", "version", "preset", "engine", "redshift", "at_bound", "bands", "reason")
_COUNTS = ("success", "ncall", "ndof", "starts", "npoints")


def _kind(name: str, rows: Sequence[Mapping[str, Any]]) -> pl.DataType:
    if name in _TEXTS:
        return pl.String()
    if name in _COUNTS:
        return pl.Int64()
    if name == "plot_lc_bytes":
        return pl.Binary()
    first = next((row[name] for row in rows if row[name] is not None), 0.0)
    kinds: dict[type, pl.DataType] = {str: pl.String(), int: pl.Int64()}
    return kinds.get(type(first), pl.Float64())


def _messages(frame: AlertFrame, rows: pl.DataFrame, attributes: pl.DataFrame) -> Messages:
    """Return ``{"alert": …, "salt2Fit": …}`` for each fit."""
    alerts = to_json_bytes(frame.survey.alerts_rows(frame))
    fits = [orjson.dumps(row) for row in rows.drop("plot_lc_bytes").iter_rows(named=True)]
    bodies = [
        b'{"alert":' + alert + b',"salt2Fit":' + fit + b"}"
        for alert, fit in zip(alerts, fits, strict=True)
    ]
    return Messages(bodies, attributes)


def _count(fits: Sequence[Salt2Fit]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for fit in fits:
        fate = "fitted" if fit.error is None else f"failed: {fit.error}"
        counts[fate] = counts.get(fate, 0) + 1
    return counts
