"""Replay: a stored night sent again, in the order and at the pace of its observation."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from math import inf
from pathlib import Path
from typing import Protocol

import polars as pl

from broker.apps.simulator.sky import mjd_of
from broker.connectors.sources.files import ORIGIN_SCHEMA
from broker.connectors.streams.segment import SegmentLog
from broker.errors import UsageError
from broker.ports import BatchKey, Messages, Source, SourceBatch
from broker.surveys import SchemaResolver, Survey, decode_batch

_SPOOL_BATCH = 512
_MOST_SLEEP_S = 0.05
_DAY_S = 86400.0
_WORKER = "replay"

_INDEX_SCHEMA = {"mjd": pl.Float64, "worker": pl.String, "number": pl.Int64, "row": pl.Int64}


class PacketLog(Protocol):
    """Where stored packets are read from."""

    def keys(self) -> Iterator[BatchKey]:
        """Iterate over the batches."""
        ...

    def read(self, key: BatchKey) -> Messages | None:
        """Return a batch."""
        ...

    def message(self, key: BatchKey, row: int) -> bytes:
        """Return one packet."""
        ...


@dataclass(frozen=True, slots=True)
class StoredNight:
    """Packets of one night in a log, in order of observation.

    Parameters
    ----------
    log : PacketLog
        Where they are; it is only read.
    index : polars.DataFrame
        ``mjd, worker, number, row``, in order of time.
    """

    log: PacketLog
    index: pl.DataFrame

    def __len__(self) -> int:
        return len(self.index)


def parse_speed(text: str) -> float:
    """Return how many times faster than the sky: ``10x``, ``1x`` or ``max``.

    Raises
    ------
    UsageError
        If it is neither.

    Examples
    --------
    >>> parse_speed("10x"), parse_speed("max")
    (10.0, inf)
    """
    if text == "max":
        return inf
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise UsageError(f"speed {text!r} is neither a factor such as 10x nor max")
    return speed


def stored_night(
    log: PacketLog, survey: Survey, night: date | None, resolver: SchemaResolver | None = None
) -> StoredNight:
    """Find the packets of a night in a log.

    Parameters
    ----------
    log : PacketLog
        For instance the topic of an instance's alerts.
    survey : Survey
        Whose packets they are.
    night : date, optional
        UTC date of the observations; None takes all.
    resolver : SchemaResolver, optional
        Finds the schemas of numbered packets.

    Raises
    ------
    UsageError
        If there is none.
    """
    parts = [_index(log, key, survey, resolver) for key in log.keys()]  # noqa: SIM118
    index = pl.concat(parts) if parts else pl.DataFrame(schema=_INDEX_SCHEMA)
    if night is not None:
        first = float(mjd_of(night))
        index = index.filter(pl.col("mjd").is_between(first, first + 1, closed="left"))
    if index.is_empty():
        when = f" of {night}" if night else ""
        raise UsageError(f"there are no stored alerts{when} of {survey.name}")
    return StoredNight(log, index.sort("mjd", "worker", "number", "row"))


def _index(
    log: PacketLog, key: BatchKey, survey: Survey, resolver: SchemaResolver | None
) -> pl.DataFrame:
    messages = log.read(key)
    payloads = messages.payloads if messages else []
    frames, _ = decode_batch(payloads, survey, resolver=resolver)
    parts = [
        frame.keys.select(
            "mjd",
            worker=pl.lit(key.worker),
            number=pl.lit(key.number, pl.Int64),
            row=pl.Series(frame.index, dtype=pl.Int64),
        )
        for frame in frames
    ]
    return pl.concat([pl.DataFrame(schema=_INDEX_SCHEMA), *parts])


def spool(source: Source, folder: Path) -> SegmentLog:
    """Copy what a source has into a log of its own."""
    log = SegmentLog(folder, _WORKER, sync=False)
    for number, batch in enumerate(source.batches(_SPOOL_BATCH, 0.0)):
        if not len(batch.payloads):
            continue
        attributes = pl.DataFrame({"place": batch.origins["place"]})
        log.append(BatchKey(_WORKER, number), Messages(batch.payloads, attributes))
    source.close()
    return log


class ReplaySource:
    """A `Source` of a stored night.

    Parameters
    ----------
    stored : StoredNight
        The packets.
    topic : str
        Name of the topic that they seem to come from.
    speed : float
        How many times faster than they were observed; infinite for as fast as can be.
    now, sleep : callable
        Clock in seconds, and sleep.
    """

    def __init__(
        self,
        stored: StoredNight,
        topic: str,
        speed: float = inf,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stored = stored
        self._topic = topic
        self._speed = speed
        self._now, self._sleep = now, sleep

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield batches when they are due; an empty one when none was for `max_wait_s`."""
        started, sent, index = self._now(), 0, self._stored.index
        due_s = ((index["mjd"] - index["mjd"][0]) * (_DAY_S / self._speed)).to_numpy()
        waited_since = started
        while sent < len(due_s):
            elapsed = self._now() - started
            ready = min(int(due_s.searchsorted(elapsed, "right")) - sent, max_payloads)
            if ready > 0:
                yield self._batch(sent, ready)
                sent, waited_since = sent + ready, self._now()
            elif self._now() - waited_since >= max_wait_s:
                yield self._batch(sent, 0)
                waited_since = self._now()
            else:
                self._sleep(min(_MOST_SLEEP_S, max(due_s[sent] - elapsed, 1e-3)))

    def commit(self, batch: SourceBatch) -> None:
        """Do nothing: the stored night stays as it is."""

    def close(self) -> None:
        """Do nothing: the log is only read."""

    def _batch(self, first: int, size: int) -> SourceBatch:
        rows = self._stored.index[first : first + size]
        payloads = [
            self._stored.log.message(BatchKey(worker, number), row)
            for worker, number, row in rows.select("worker", "number", "row").iter_rows()
        ]
        numbers = range(first, first + size)
        origins = pl.DataFrame(
            {
                "topic": [self._topic] * size,
                "partition": [0] * size,
                "offset": numbers,
                "timestamp_ms": [int(time.time() * 1000)] * size,
                "place": [f"replayed alert {number}" for number in numbers],
            },
            schema=ORIGIN_SCHEMA,
        )
        return SourceBatch(payloads, origins)
