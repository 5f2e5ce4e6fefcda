"""Load: simulated alerts at the rate of a survey, and how the broker kept up with them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from math import ceil
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from broker.apps.simulator.cadence import Profile
from broker.apps.simulator.models import SimulationBroker
from broker.connectors.sources.files import ORIGIN_SCHEMA
from broker.connectors.streams.local import LocalStream
from broker.connectors.tables.parquet import ParquetTables
from broker.errors import UsageError
from broker.pipeline import fitting
from broker.ports import BatchKey, Messages, SourceBatch
from broker.wiring import SORT_COLUMNS

Floats = NDArray[np.float64]

MOST_AHEAD = 4096
"""Packets that are made before they are due."""

_SHORTEST_GRACE_S = 10.0
_MOST_SLEEP_S = 0.02


def due_times(profile: Profile, seconds: float) -> Floats:
    """Return when each alert of a run arrives, in seconds after its start."""
    visits = max(ceil(seconds / profile.every_s), 1)
    within = np.arange(profile.alerts) * (profile.within_s / profile.alerts)
    return (np.arange(visits)[:, None] * profile.every_s + within).ravel()


class Prefetch:
    """Makes packets in a thread of its own, some ahead of their time.

    Parameters
    ----------
    packets : iterator of bytes
        The generator.
    most : int
        How many may wait.
    """

    def __init__(self, packets: Iterator[bytes], most: int = MOST_AHEAD) -> None:
        self._packets = packets
        self._most = most
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="simulator", daemon=True)
        self._thread.start()

    def take(self, count: int) -> list[bytes]:
        """Return exactly `count` packets, waiting for the generator if need be."""
        taken: list[bytes] = []
        with self._changed:
            while len(taken) < count:
                self._changed.wait_for(lambda: self._waiting or self._failure)
                if self._failure is not None and not self._waiting:
                    raise UsageError(f"no more packets: {self._failure}") from self._failure
                while self._waiting and len(taken) < count:
                    taken.append(self._waiting.popleft())
                self._changed.notify_all()
        return taken

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            while chunk := list(islice(self._packets, 64)):
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or len(self._waiting) < self._most)
                    if self._stopped:
                        return
                    self._waiting.extend(chunk)
                    self._changed.notify_all()
            raise StopIteration("the night has ended")
        except (Exception, StopIteration) as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()


@dataclass
class Record:
    """What happened when, in seconds after the start.

    Attributes
    ----------
    due : list of ndarray
        When the alerts of each batch arrived.
    closed : list of float
        When each batch was committed.
    written : dict
        Sink to batch number to the time when it was written.
    """

    now: Callable[[], float] = time.perf_counter
    started: float = 0.0
    due: list[Floats] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    written: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.now() - self.started

    def note(self, sink: str, key: BatchKey) -> None:
        """Note that a batch is now in a sink."""
        self.written.setdefault(sink, {})[key.number] = self.elapsed


class LoadSource:
    """A `Source` that hands out packets when they are due, however late it is asked."""

    def __init__(
        self,
        packets: Prefetch,
        due: Floats,
        record: Record,
        topic: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._packets = packets
        self._due = due
        self._record = record
        self._topic = topic
        self._sleep = sleep

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield what is due until all is handed out; waits to fill a batch as a stream does."""
        record, sent = self._record, 0
        record.started = record.now()
        asked = 0.0
        while sent < self._due.size:
            ready = min(
                int(np.searchsorted(self._due, record.elapsed, "right")) - sent, max_payloads
            )
            is_late = record.elapsed - asked >= max_wait_s
            if ready == max_payloads or sent + ready == self._due.size or (ready and is_late):
                payloads = self._packets.take(ready)
                record.due.append(self._due[sent : sent + ready])
                yield SourceBatch(payloads, self._origins(sent, ready))
                sent, asked = sent + ready, record.elapsed
            elif is_late:
                yield SourceBatch([], self._origins(sent, 0))
                asked = record.elapsed
            else:
                self._sleep(min(_MOST_SLEEP_S, max_wait_s))

    def commit(self, batch: SourceBatch) -> None:
        """Note that the next batch is closed."""
        if len(batch.payloads):
            self._record.closed.append(self._record.elapsed)

    def close(self) -> None:
        """Stop making packets."""
        self._packets.stop()

    def _origins(self, first: int, size: int) -> pl.DataFrame:
        stamp = int(time.time() * 1000)
        return pl.DataFrame(
            {
                "topic": [self._topic] * size,
                "partition": [0] * size,
                "offset": range(first, first + size),
                "timestamp_ms": [stamp] * size,
                "place": [f"simulated alert {n}" for n in range(first, first + size)],
            },
            schema=ORIGIN_SCHEMA,
        )


class _TimedStream(LocalStream):
    record: Record

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        super().publish(topic, messages, key)
        self.record.note(f"topic {topic}", key)


class _TimedTables(ParquetTables):
    record: Record

    def append(self, dataset: str, table: str, rows: pl.DataFrame, key: BatchKey) -> None:
        super().append(dataset, table, rows, key)
        self.record.note(f"table {table}", key)


@dataclass(frozen=True)
class TimedBroker(SimulationBroker):
    """A broker whose sinks note when each batch was written."""

    record: Record = field(default_factory=Record)

    @cached_property
    def stream(self) -> LocalStream:
        """Topics and subscriptions."""
        stream = _TimedStream(self.home / "streams", self.settings.worker)
        stream.record = self.record
        return stream

    @cached_property
    def tables(self) -> ParquetTables:
        """Rows to query."""
        tables = _TimedTables(self.home / "tables", sort_columns=SORT_COLUMNS)
        tables.record = self.record
        return tables


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How the broker kept up.

    Attributes
    ----------
    profile : str
        The load.
    alerts : int
        How many arrived.
    arrival_s, elapsed_s : float
        When the last one arrived, and when the last one was closed.
    backlog : list of (float, int)
        Alerts that had arrived and were not closed, second by second.
    latency_s : mapping
        Sink to p50, p99 and maximum of the time from arrival to being written there.
    kept_up : bool
        Whether each visit was dealt with before the next one would have come.
    """

    profile: str
    alerts: int
    arrival_s: float
    elapsed_s: float
    backlog: Sequence[tuple[float, int]]
    latency_s: Mapping[str, Mapping[str, float]]
    kept_up: bool

    @property
    def most_behind(self) -> int:
        """The greatest backlog."""
        return max((count for _, count in self.backlog), default=0)

    @property
    def not_measured(self) -> Mapping[str, str]:
        """Places to which nothing came, with the reason."""
        place = f"table {fitting.NAME}"
        return {} if place in self.latency_s else {place: "no light curve of this load was fitted"}

    def summary(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        names = ("profile", "alerts", "arrival_s", "elapsed_s", "backlog", "latency_s", "kept_up")
        more = ("not_measured", "most_behind")
        return {name: getattr(self, name) for name in (*names, *more)}


def report_on(profile: Profile, record: Record) -> LoadReport:
    """Sum up a run.

    Parameters
    ----------
    profile : Profile
        The load.
    record : Record
        What happened.
    """
    due = np.concatenate(record.due)
    sizes = [len(part) for part in record.due]
    closed = np.repeat(record.closed, sizes)
    end = float(closed[-1])
    grid = np.arange(0.0, ceil(end) + 1.0)
    backlog = np.searchsorted(due, grid, "right") - np.searchsorted(closed, grid, "right")
    latency = {"commit": _quantiles(closed - due)}
    first = min((min(times) for times in record.written.values()), default=0)
    for sink, times in sorted(record.written.items()):
        latency[sink] = _quantiles(_latencies(record.due, times, first))
    visit = np.floor(due / profile.every_s)
    grace = max(profile.every_s, _SHORTEST_GRACE_S)
    return LoadReport(
        profile=profile.name,
        alerts=due.size,
        arrival_s=float(due[-1]),
        elapsed_s=end,
        backlog=list(zip(grid.tolist(), backlog.tolist(), strict=True)),
        latency_s=latency,
        kept_up=bool(np.all(closed <= visit * profile.every_s + grace)),
    )


def _latencies(due: Sequence[Floats], times: Mapping[int, float], first: int) -> Floats:
    """Return the time from arrival to a sink of each alert of the batches that came there.

    Batches have numbers that grow as they are handed out, one each.
    """
    parts = [at - due[number - first] for number, at in times.items() if number - first < len(due)]
    return np.concatenate(parts)


def _quantiles(values: Floats) -> dict[str, float]:
    p50, p99 = np.quantile(values, [0.5, 0.99])
    return {"p50": float(p50), "p99": float(p99), "max": float(values.max())}
