"""The run of a worker: batches from a source to every sink, nothing lost on the way.

For each batch, in this order:

1. decode, and *claim* in the ledger which alerts are new;
2. append their packets to the journal, flushed to disk;
3. write dead letters, rows and messages, each idempotent by the batch's key;
4. *close* the batch in the ledger;
5. commit the position at the source.

A crash before 2 releases the claim, as the source sends the packets again; a crash after it
is mended by doing 3 and 4 once more from the journal, when the worker starts again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any

import polars as pl

from broker.instance import Instance
from broker.pipeline import fitting, intake, products
from broker.pipeline.copies import Copies, file_names
from broker.pipeline.fitting import Salt2Stage
from broker.pipeline.hands import Hands
from broker.pipeline.ledger import Claim, Intake, Ledger, UndecidedError, utc_now
from broker.pipeline.patience import patiently
from broker.pipeline.references import references
from broker.ports import BatchKey, Files, Journal, Messages, Source, SourceBatch, Stream, Tables
from broker.science.filters import Filter
from broker.surveys import SchemaResolver, Survey, decode_batch

_ASK_EVERY_S = 0.05
"""Pause between two looks at what another worker is about."""

_MERGE_EVERY = 64
"""Batches between two merges of small table parts."""

_MOST_KINDS = 256
"""Schemas of rows that are remembered."""

_PNG = {"contentType": "image/png"}

_MOST_AT_ONCE = 32
"""Requests to cloud services under way at a time."""

_IN_FLIGHT = 1
"""Batches between decode and close: one that is written while the next is decoded."""

Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where everything goes: packets as sent, rejects, messages, rows, pictures.

    `copies` says where packets go besides the journal; `project` is the cloud project whose id
    the names of buckets start with; `clustered` tables have columns to be clustered by.
    """

    journal: Journal
    dead_letters: Journal
    stream: Stream
    tables: Tables
    files: Files
    copies: Copies = field(default_factory=Copies)
    project: str = ""
    file_layout: str = ""
    clustered: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much travels together, what is too much, and for how long a service is waited for.

    The packets of a batch of more than `large_batch_bytes` are durable, and let go, before the
    next is asked for, which keeps the memory of a run flat.
    """

    batch_alerts: int = 2560
    batch_wait_s: float = 0.25
    max_packet_bytes: int = 16 << 20
    patience_s: float = 0.0
    large_batch_bytes: int = 96 << 20


@dataclass(slots=True)
class Report:
    """What a run has done so far."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    fitted: int = 0
    recovered_batches: int = 0
    passed: dict[str, int] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def alerts_per_s(self) -> float:
        """Alerts received per second of the run."""
        return self.received / self.elapsed_s if self.elapsed_s else 0.0


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch on its way through the sinks."""

    batch: SourceBatch
    key: BatchKey
    received: int
    payload_bytes: int
    made: list[products.Made]
    rejects: Sequence[intake.Reject]

    @property
    def stored(self) -> int:
        return sum(len(part.alerts.payloads) for part in self.made)

    def let_go(self) -> None:
        """Free the memory of the packets, which are in the journal."""
        self.batch.let_go()
        self.made[:] = [part.without_payloads() for part in self.made]


class Pipeline:
    """Everything that one worker of an instance does with alerts.

    Parameters
    ----------
    instance : Instance
        Whose names the topics and tables bear.
    survey : Survey
        How the packets are written.
    filters : sequence of Filter
        What is published to which topic.
    sinks : Sinks
        Journal, streams, tables and files.
    ledger : Ledger
        The instance's ledger, opened for this worker.
    salt2 : Salt2Stage, optional
        Fits supernova light curves; without model data there is none.
    at_work : callable
        Tells whether another worker of the home, given by name, is running.
    """

    def __init__(
        self,
        instance: Instance,
        survey: Survey,
        filters: Sequence[Filter],
        sinks: Sinks,
        ledger: Ledger,
        *,
        salt2: Salt2Stage | None = None,
        limits: Limits = Limits(),
        resolver: SchemaResolver | None = None,
        clock: Callable[[], datetime] = utc_now,
        at_work: Callable[[str], bool] = lambda _worker: False,
    ) -> None:
        self._instance = instance
        self._survey = survey
        self._filters = filters
        self._sinks = sinks
        self._ledger = ledger
        self._salt2 = salt2
        self._limits = limits
        self._resolver = resolver
        self._clock = clock
        self._at_work = at_work
        self._stopped = Event()
        self._kinds: dict[tuple[str, str], str] = {}
        self.report = Report()

    def run(
        self,
        source: Source,
        on_progress: Callable[[Report], None] | None = None,
        report: Report | None = None,
    ) -> Report:
        """Take in everything that the source has; return what became of it.

        `report`, where given, is filled as the run goes.

        An exception or Ctrl-C leaves no batch half done that the next start would not finish.
        """
        self.report = report or self.report
        self.report.passed = {chosen.name: 0 for chosen in self._filters}
        started = time.perf_counter()
        self.recover()
        hands: Hands[_Work, Messages | None] = Hands(self._keep, self._tell_once_kept)
        try:
            self._take_in(source, hands, lambda: self._show(started, on_progress))
        except KeyboardInterrupt:
            while hands.flying and hands.flying[0].exception() is None:
                self._land(hands, source)
            raise
        finally:
            self._show(started, on_progress)
        return self.report

    def _take_in(
        self, source: Source, hands: Hands[_Work, Messages | None], show: Callable[[], None]
    ) -> None:
        """Take batch after batch; on return no thread is at work."""
        with (
            hands,
            ThreadPoolExecutor(1, "merge") as merger,
            self._stop_waiting_on_error(),
        ):
            for batch in source.batches(self._limits.batch_alerts, self._limits.batch_wait_s):
                if batch.gaps:
                    self._ledger.note_gaps(batch.gaps, self._clock())
                if len(batch.payloads):
                    work = self._take(batch, hands.tell_held)
                    is_large = work.payload_bytes > self._limits.large_batch_bytes
                    hands.take(work, is_large=is_large)
                    if work.key.number % _MERGE_EVERY == 0:
                        merger.submit(self._sinks.tables.compact)
                else:
                    hands.tell_held()
                while hands.flying and (len(hands.flying) > _IN_FLIGHT or not len(batch.payloads)):
                    self._land(hands, source)
                show()
            hands.tell_held()
            while hands.flying:
                self._land(hands, source)
                show()

    @contextmanager
    def _stop_waiting_on_error(self) -> Iterator[None]:
        """Let no thread wait for a service when the run is stopped."""
        try:
            yield
        except BaseException:
            self._stopped.set()
            raise

    def recover(self) -> None:
        """Finish or release the batches that a crash left open."""
        for key in self._ledger.open_batches():
            kept, rejected = self._release(key)
            made = self._remake(kept) if kept is not None else []
            self._ledger.close(key, self._tell(key, made, rejected), self._clock())
            self.report.recovered_batches += 1

    def _release(self, key: BatchKey) -> tuple[Messages | None, Messages | None]:
        """Take back what a batch claimed and never kept; return what it did keep."""
        kept = self._sinks.journal.read(key)
        rejected = self._sinks.dead_letters.read(key)
        self._ledger.release(key, alerts=kept is None, rejects=rejected is None)
        return kept, rejected

    def _claim(self, ids: Intake, now: datetime) -> Claim:
        """Claim what is new; what another worker holds is no repeat until it is durable."""
        settled: set[BatchKey] = set()
        while True:
            try:
                return self._ledger.claim(ids, now.date(), now, settled)
            except UndecidedError as error:
                settled |= {key for key in error.keys if self._settle(key)}

    def _settle(self, key: BatchKey) -> bool:
        """Wait until another worker's batch is closed; tell if the worker is dead instead.

        Of a dead worker's batch only those claims are left whose packets are durable: the rest
        is for whom the source sends it to next.
        """
        while self._ledger.is_open(key):
            if not self._at_work(key.worker):
                if self._release(key) == (None, None):
                    self._ledger.close(key, {}, self._clock())
                return True
            time.sleep(_ASK_EVERY_S)
        return False

    def _take(self, batch: SourceBatch, before_claim: Callable[[], None]) -> _Work:
        """Decode a batch, claim what is new, and make everything of it.

        `before_claim` lets go of batches that are held back: another worker may wait for their
        end, as this one may wait for that worker's to claim its own.
        """
        limit = self._limits.max_packet_bytes
        arrival = intake.arrive(batch, self._survey, limit, self._resolver)
        before_claim()
        now = self._clock()
        ids = arrival.intake
        claim = self._claim(ids, now)
        made = [products.make(new, self._filters) for new in intake.new_alerts(arrival, claim)]
        rejects = intake.new_rejects(arrival, claim)
        received = len(ids.source_ids) + len(ids.reject_digests)
        return _Work(batch, claim.key, received, arrival.payload_bytes, made, rejects)

    def _remake(self, kept: Messages) -> list[products.Made]:
        """Make everything anew from packets in the journal."""
        frames, _ = decode_batch(kept.payloads, self._survey, resolver=self._resolver)
        origins = _origins(kept.attributes)
        return [
            products.make(
                intake.NewAlerts(
                    frame, [kept.payloads[i] for i in frame.index.tolist()], origins[frame.index]
                ),
                self._filters,
            )
            for frame in frames
        ]

    def _keep(self, work: _Work) -> Messages | None:
        """Append packets and dead letters to their logs; return the letters."""
        if work.made:
            messages = products.join([products.packets(part) for part in work.made])
            self._sinks.journal.append(work.key, messages)
        if not self._sinks.copies:
            work.let_go()
        if not work.rejects:
            return None
        letters = products.dead_letters(work.rejects, self._clock())
        self._sinks.dead_letters.append(work.key, letters)
        return letters

    def _tell_once_kept(self, work: _Work, kept: "Future[Messages | None]") -> _Work:
        fates = self._tell(work.key, work.made, kept.result())
        self._ledger.close(work.key, fates, self._clock())
        self._count(work, fates)
        return work

    def _tell(
        self, key: BatchKey, made: Sequence[products.Made], letters: Messages | None
    ) -> Counts:
        """Write rows and messages; each sink knows the key, so that a repeat adds nothing.

        A service that does not answer is waited for, as everything here can be done again.
        """
        attempts = patiently(self._limits.patience_s, self._stopped)
        return attempts(self._tell_once, key, made, letters)

    def _tell_once(
        self, key: BatchKey, made: Sequence[products.Made], letters: Messages | None
    ) -> Counts:
        copies, name = self._sinks.copies, self._instance.name
        bucket, layout = self._bucket("alert_avros"), self._sinks.file_layout
        stored, rows, sent, fitted, *_ = self._at_once(
            partial(copies.store, bucket, made, layout),
            partial(self._append_rows, key, made),
            partial(self._publish, key, made),
            partial(self._fit, key, made),
            partial(copies.send, name("alerts"), made, key),
            partial(copies.send_letters, name("deadletters"), letters, key),
        )
        verdicts = products.count_verdicts(made, self._filters)
        return products.merge_fates(verdicts, stored, rows, sent, fitted)

    def _at_once(self, *jobs: Callable[[], Any]) -> list[Any]:
        """Do jobs one by one in a home, where all wait for one disk; together elsewhere."""
        if not self._limits.patience_s:
            return [job() for job in jobs]
        with ThreadPoolExecutor(_MOST_AT_ONCE, "job") as pool:
            started = [pool.submit(job) for job in jobs]
        return [job.result() for job in started]

    def _fit(self, key: BatchKey, made: Sequence[products.Made]) -> Counts:
        """Fit, and write rows, messages and pictures of the fits."""
        if self._salt2 is None:
            return {}
        results = [fitted for part in made for fitted in self._salt2.apply(part)]
        rows = [result.rows for result in results if len(result.rows)]
        if rows:
            table = pl.concat(rows, how="vertical_relaxed")
            self._sinks.tables.append(self._instance.dataset, fitting.NAME, table, key)
        bucket = self._bucket(fitting.BUCKET)
        pictures = [item for result in results for item in result.pictures.items()]
        create = partial(self._sinks.files.create, bucket, metadata=_PNG)
        self._at_once(*(partial(create, name, picture) for name, picture in pictures))
        sent = self._send(fitting.NAME, [result.messages for result in results], key)
        fates = [{fitting.NAME: result.fates} for result in results]
        written = {fitting.NAME: sum(map(len, rows))}
        return products.merge_fates({"products": written, "published": sent}, *fates)

    def _append_rows(self, key: BatchKey, made: Sequence[products.Made]) -> Counts:
        counts: dict[str, int] = {}
        parts: dict[str, dict[str, list[pl.DataFrame]]] = {}
        for part in made:
            for table, rows in products.tables(part, clustered=self._sinks.clustered):
                kind = "" if len(made) == 1 else self._kind(table, part, rows)
                parts.setdefault(table, {}).setdefault(kind, []).append(rows)
                counts[table] = counts.get(table, 0) + len(rows)
        self._at_once(*(partial(self._append, table, parts[table], key) for table in parts))
        return {"rows": counts}

    def _kind(self, table: str, part: products.Made, rows: pl.DataFrame) -> str:
        """Spell the schema of a table's rows; what is made of one schema always has the same."""
        name = (table, part.alerts.frame.kind)
        if name not in self._kinds:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            self._kinds[name] = str(rows.schema)
        return self._kinds[name]

    def _append(
        self, table: str, kinds: Mapping[str, Sequence[pl.DataFrame]], key: BatchKey
    ) -> None:
        """Append the rows of each schema, one after the other, as each may widen the table."""
        for frames in kinds.values():
            rows = pl.concat(frames, rechunk=False)
            self._sinks.tables.append(self._instance.dataset, table, rows, key)

    def _publish(self, key: BatchKey, made: Sequence[products.Made]) -> Counts:
        now = self._clock()
        bucket, layout = self._bucket("alert_avros"), self._sinks.file_layout
        announced = [
            products.announcements(part, bucket, file_names(part, layout), now) for part in made
        ]
        kept = {self._instance.name("alerts"): sum(len(m.payloads) for m in announced)}
        fates: list[Counts] = [
            {"published": kept},
            {"published": self._send("alert_avros", announced, key)},
        ]
        by_filter: dict[str, list[Messages]] = {}
        first, topic = 0, self._instance.name("alerts")
        for part in made:
            rows = range(first, first + len(part.alerts.payloads))
            first = rows.stop
            places = references(self._survey.name, topic, key, rows)
            for chosen, messages in products.passed(part, self._filters, places):
                by_filter.setdefault(chosen.name, []).append(messages)
        for chosen in self._filters:
            sent = self._send(chosen.topic, by_filter.get(chosen.name, []), key)
            fates.append({"published": sent, f"published by filter {chosen.name}": sent})
        return products.merge_fates(*fates)

    def _bucket(self, stub: str) -> str:
        return self._instance.bucket(stub, self._sinks.project or None)

    def _send(self, stub: str, parts: Sequence[Messages], key: BatchKey) -> Mapping[str, int]:
        topic = self._instance.name(stub)
        messages = [part for part in parts if len(part.payloads)]
        if messages:
            self._sinks.stream.publish(topic, products.join(messages), key)
        return {topic: sum(len(part.payloads) for part in messages)}

    def _count(self, work: _Work, fates: Counts) -> None:
        report = self.report
        report.received += work.received
        report.stored += work.stored
        report.dead_lettered += len(work.rejects)
        report.duplicates += work.received - work.stored - len(work.rejects)
        for chosen in self._filters:
            before = report.passed.get(chosen.name, 0)
            counts = fates.get(f"filter {chosen.name}", {})
            report.passed[chosen.name] = before + counts.get("pass", 0)
        report.fitted += fates.get(fitting.NAME, {}).get("fitted", 0)
        for topic, count in fates["published"].items():
            report.published[topic] = report.published.get(topic, 0) + count

    def _land(self, hands: Hands[_Work, Messages | None], source: Source) -> None:
        """Wait until the first batch under way is closed, then let the source forget it."""
        source.commit(hands.flying[0].result().batch)
        hands.flying.popleft()

    def _show(self, started: float, on_progress: Callable[[Report], None] | None) -> None:
        self.report.elapsed_s = time.perf_counter() - started
        if on_progress is not None:
            on_progress(self.report)


def _origins(attributes: pl.DataFrame) -> pl.DataFrame:
    """Read the origins back from the attributes of messages in the journal."""
    kinds: Iterable[tuple[str, str, pl.DataType | type[pl.DataType]]] = (
        ("kafka.topic", "topic", pl.String),
        ("kafka.partition", "partition", pl.Int32),
        ("kafka.offset", "offset", pl.Int64),
        ("kafka.timestamp", "timestamp_ms", pl.Int64),
    )
    return attributes.select(
        (pl.col(name) if name in attributes.columns else pl.lit(None)).cast(kind).alias(column)
        for name, column, kind in kinds
    ).with_columns(place=pl.lit(None, dtype=pl.String))
