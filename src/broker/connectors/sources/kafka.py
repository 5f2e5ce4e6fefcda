"""Alerts from Kafka: a consumer that can be left alone."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import polars as pl
from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from broker.config import Settings
from broker.connectors.kafka.client import (
    SYSTEM_CLOCK,
    Clock,
    Connection,
    error_of,
    make_client,
    next_message,
    service_error,
)
from broker.connectors.kafka.gaps import RETENTION, TRANSACTIONS, GapNames
from broker.connectors.kafka.health import (
    Health,
    PartitionHealth,
    health_file,
    read_health,
    write_health,
)
from broker.connectors.kafka.offsets import Jump, Offsets, Partition
from broker.connectors.kafka.place import KafkaPlace, read_place
from broker.connectors.kafka.topics import TopicWatch
from broker.connectors.sources.files import MAX_BATCH_BYTES, ORIGIN_SCHEMA
from broker.errors import TransientError, UsageError
from broker.instance import Instance
from broker.ports import OffsetGap, SourceBatch
from broker.surveys import DEFAULT_SURVEY, get_survey

_LOG = logging.getLogger(__name__)

CONSUMER: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "enable.partition.eof": True,
    # A dead worker's partitions go to the others after this time.
    "session.timeout.ms": 10_000,
    "max.poll.interval.ms": 600_000,
    # What is fetched ahead stays small enough for the processor's cache, and fetching goes on
    # as soon as there is room; the library's own pause is a second.
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 100,
}
"""How we read; see librdkafka's CONFIGURATION."""

_ANSWER_S = 5.0
"""How long one question to the server may take."""

_LAST_COMMIT_TRIES = 5
_GAPS_SHOWN = 100


class KafkaSource:
    """Read packets from topics, as one member of a consumer group.

    Offsets are committed for durable batches only. Without `follow` the source ends when the
    group has read what the topics held at the start. Lost connections come back by
    themselves; a rebalance takes nothing away that was not durable.

    Parameters
    ----------
    place : KafkaPlace
        Where to read, and as whom.
    follow : bool
        Go on at the end.
    topic_wait_s : float
        How long to wait for topics that do not exist yet, s.
    health_file : Path, optional
        Where to write a snapshot of the health every few seconds.
    clock : optional
        Time, for tests.
    """

    def __init__(
        self,
        place: KafkaPlace,
        *,
        follow: bool = False,
        topic_wait_s: float = 600.0,
        health_file: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._place = place
        self._follow = follow
        self._health_file = health_file
        self._clock = clock
        self._answer_s = min(_ANSWER_S, max(topic_wait_s, 0.5))
        self._watch = TopicWatch(place.topics, topic_wait_s, place.night, place.partial)
        self._connection = Connection(place.bootstrap, clock.now)
        self._offsets = Offsets()
        self._messages: list[Message] = []
        self._reached: dict[Partition, int] = {}
        self._subscribed: list[str] = []
        self._seen: dict[str, Any] = {}
        self._ends: dict[Partition, int] | None = None
        self._joined = self._ended = False
        self._gaps = _known_gaps(health_file)
        self._last_message: float | None = None
        self._last_commit: float | None = None
        self._told: set[str] = set()
        self._unfinished = 0
        self._last_health: Health | None = None
        self._next_tick_s = float("-inf")
        self._consumer: Any = make_client(
            Consumer,
            {**CONSUMER, **place.properties, "group.id": place.group},
            error_cb=self._connection.on_error,
            stats_cb=self._connection.on_statistics,
            on_commit=self._on_commit,
        )
        self._gap_names = GapNames(self._consumer, place.properties, self._answer_s)

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, follow: bool = False) -> "KafkaSource":
        """Make the source of ``kafka://bootstrap[,…]/topic[,…]``.

        Raises
        ------
        UsageError
            If the URL cannot be read, or names no topic where the survey has none of its own.
        ConfigError
            If a part of the login is missing, or librdkafka does not take a property.
        """
        survey = get_survey(settings.survey or DEFAULT_SURVEY)
        instance = Instance(survey.name, settings.testid or None)
        place = read_place(url, settings, survey)
        if not place.topics:
            raise UsageError(f"name a topic of {survey.name}: kafka://host:port/topic")
        return cls(
            place,
            follow=follow,
            topic_wait_s=settings.kafka_topic_wait_s,
            health_file=health_file(settings, instance),
        )

    @property
    def schema_registry(self) -> str:
        """Address of the schema registry that belongs to the place; empty if there is none."""
        return self._place.schema_registry

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield batches; an empty one means that nothing came within `max_wait_s`.

        Raises
        ------
        NotFoundError
            If a topic does not exist when the deadline has passed.
        ForbiddenError
            If the server does not let us in.
        """
        while not self._is_drained():
            self._tick()
            batch = self._gather(max_payloads, max_wait_s)
            self._unfinished += bool(batch.payloads)
            yield batch
        self._report_never_filled()
        self._ended = True
        self._close_if_done()

    def commit(self, batch: SourceBatch) -> None:
        """Record that `batch` and all before it are durable; only the last one waits.

        Nothing is committed for partitions that another consumer owns by now.
        """
        self._unfinished -= bool(batch.payloads)
        self._offsets.make_durable(batch.origins)
        if self._ended:
            self._close_if_done()
        else:
            self._send_commit()

    def close(self) -> None:
        """Commit what is durable, leave the group and let go; again, it does nothing."""
        if self._last_health is not None:
            return
        self._ended = True
        self._commit_and_wait()
        self._write_health()
        self._last_health = self.health()
        self._consumer.close()

    def health(self) -> Health:
        """Return how the consumer is right now, or was when it was closed."""
        if self._last_health is not None:
            return self._last_health
        return Health(
            self._state(),
            self._clock.now(),
            group=self._place.group,
            topics=tuple(self._subscribed),
            missing=tuple(self._watch.missing),
            partitions=tuple(map(self._partition_health, self._offsets.assigned)),
            gaps=tuple(self._gaps),
            last_message=self._last_message,
            last_commit=self._last_commit,
            reconnects=self._connection.reconnects,
            reason=self._connection.reason if self._connection.lost else "",
        )

    def _gather(self, max_payloads: int, max_wait_s: float) -> SourceBatch:
        """Poll until a batch is full by count, bytes or time."""
        self._messages, size = [], 0
        deadline = self._clock.monotonic() + max_wait_s
        while len(self._messages) < max_payloads and size < MAX_BATCH_BYTES:
            wait_s = max(deadline - self._clock.monotonic(), 0)
            message = next_message(self._consumer, wait_s, "reading from Kafka")
            if message is None:
                break
            if (error := message.error()) is not None:
                self._on_message_error(message, error)
                continue
            self._messages.append(message)
            size += len(message)
        return self._batch()

    def _close_if_done(self) -> None:
        """Leave the group when the last batch is durable, so that others need not wait."""
        if self._unfinished == 0:
            self.close()

    def _batch(self) -> SourceBatch:
        messages, self._messages = self._messages, []
        origins = _origins(messages)
        jumps: list[Jump] = []
        if messages:
            known, time_ms = messages[-1].timestamp()
            self._last_message = time_ms / 1000 if known else self._clock.now()
            jumps = self._offsets.take(origins)
        for partition, offset in self._reached.items():
            jumps += self._offsets.reached_end(partition, offset)
        self._reached = {}
        gaps = self._gap_names.name(jumps)
        self._note_gaps(gaps)
        return SourceBatch([it.value() or b"" for it in messages], origins, gaps)

    def _on_message_error(self, message: Message, error: KafkaError) -> None:
        topic = message.topic() or ""
        if error.code() == KafkaError._PARTITION_EOF:
            self._reached[topic, message.partition() or 0] = message.offset() or 0
        elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            self._say_once(f"topic {topic} has gone; waiting until it is back")
        elif not error.retriable():
            failure = service_error(error, f"reading {topic or 'from Kafka'}")
            if not isinstance(failure, TransientError):
                raise failure

    def _tick(self) -> None:
        """Do what is not due with every message."""
        now_s = self._clock.monotonic()
        self._connection.check()
        if self._watch.due(now_s):
            self._look_for_topics(now_s)
        if now_s < self._next_tick_s:
            return
        self._next_tick_s = now_s + 1.0
        if self._ends is None and self._watch.complete and not self._follow:
            self._ends = self._end_offsets()
        self._send_commit()
        self._report_empty()
        self._write_health()

    def _write_health(self) -> None:
        if self._health_file is None:
            return
        try:
            write_health(self._health_file, self.health())
        except OSError as error:  # a monitor's file is no reason to stop
            self._say_once(f"{self._health_file} cannot be written: {error.strerror}")

    def _look_for_topics(self, now_s: float) -> None:
        existing = self._existing_topics()
        self._seen = self._seen if existing is None else existing
        wanted = sorted(self._watch.look(existing, self._clock.today(), now_s))
        if self._watch.missing and existing is not None:
            names = ", ".join(self._watch.missing)
            self._say_once(f"waiting for {names}: not there yet")
        if wanted and wanted != self._subscribed:
            _LOG.info("reading %s as group %s", ", ".join(wanted), self._place.group)
            self._consumer.subscribe(
                wanted, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            self._subscribed = wanted

    def _existing_topics(self) -> dict[str, Any] | None:
        try:
            topics: dict[str, Any] = self._consumer.list_topics(timeout=self._answer_s).topics
        except KafkaException as error:
            self._connection.on_error(error_of(error))
            self._connection.check()
            return None
        self._connection.up()
        return {name: found for name, found in topics.items() if found.error is None}

    def _on_assign(self, consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        """Take partitions over where their group stands; called within `poll`."""
        found = list(partitions)
        with suppress(KafkaException):  # then it is only not known what was committed before
            found = consumer.committed(list(partitions), timeout=self._answer_s)
        self._offsets.assign({(it.topic, it.partition): it.offset for it in found})
        consumer.incremental_assign(list(partitions))
        self._joined = True

    def _on_revoke(self, consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        """Give partitions up, with what was gathered of them and is on nobody's books."""
        gone = {(it.topic, it.partition) for it in partitions}
        with suppress(KafkaException):
            self._commit_now()
        self._drop(gone)
        consumer.incremental_unassign(list(partitions))

    def _on_lost(self, consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        """Forget partitions that others own already; a commit would be refused."""
        gone = {(it.topic, it.partition) for it in partitions}
        self._drop(gone)
        consumer.incremental_unassign(list(partitions))

    def _drop(self, gone: set[Partition]) -> None:
        """Forget all that is not handed out yet of partitions."""
        self._offsets.revoke(gone)
        self._messages = [it for it in self._messages if (it.topic(), it.partition()) not in gone]
        self._reached = {it: end for it, end in self._reached.items() if it not in gone}

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """Take the server's answer to a commit; what failed is sent again later."""
        done = {(it.topic, it.partition): it.offset for it in partitions if it.error is None}
        if error is None and done:
            self._offsets.confirm(done)
            self._last_commit = self._clock.now()

    def _send_commit(self) -> None:
        if offsets := _positions(self._offsets.to_commit()):
            with suppress(KafkaException):  # what is not confirmed is sent again
                self._consumer.commit(offsets=offsets, asynchronous=True)

    def _commit_now(self) -> None:
        if offsets := _positions(self._offsets.to_commit()):
            self._on_commit(None, self._consumer.commit(offsets=offsets, asynchronous=False))

    def _commit_and_wait(self) -> None:
        """Commit for good; if the server does not answer, a later run skips the repeats."""
        for attempt in range(_LAST_COMMIT_TRIES):
            try:
                return self._commit_now()
            except KafkaException as error:
                reason = error_of(error).str()
                self._clock.sleep(min(2.0**attempt / 4, 2.0))
        _LOG.warning("the last offsets could not be committed: %s", reason)
        return None

    def _is_drained(self) -> bool:
        """Tell whether the group has read all that was there at the start."""
        if self._follow or not (self._watch.complete and self._joined):
            return False
        if self._ends is None:
            return False
        assigned = set(self._offsets.assigned)
        ours = {it: end for it, end in self._ends.items() if it in assigned}
        if any(self._offsets.read.get(it, -1) < end for it, end in ours.items()):
            return False
        return self._others_are_done([it for it in self._ends if it not in assigned])

    def _end_offsets(self) -> dict[Partition, int] | None:
        """Return the end of every partition that ever held a message; None if nobody answers."""
        if not self._subscribed or not self._seen.keys() >= set(self._subscribed):
            return None
        # In the place of a time, this asks for the end.
        asked = [
            TopicPartition(name, number, OFFSET_END)
            for name in self._subscribed
            for number in self._seen[name].partitions
        ]
        try:
            ends = self._consumer.offsets_for_times(asked, timeout=self._answer_s)
        except KafkaException:
            return None
        return {(it.topic, it.partition): it.offset for it in ends if it.offset > 0}

    def _others_are_done(self, partitions: Sequence[Partition]) -> bool:
        """Tell whether the other members have committed their partitions up to the end."""
        if not partitions:
            return True
        try:
            asked = [TopicPartition(*partition) for partition in partitions]
            found = self._consumer.committed(asked, timeout=self._answer_s)
        except KafkaException:
            return False
        ends = self._ends or {}
        return all(it.offset >= ends[it.topic, it.partition] for it in found)

    def _note_gaps(self, gaps: Sequence[OffsetGap]) -> None:
        """Tell of offsets that the server has no more; marks of transactions are none."""
        for gap in gaps:
            if gap.reason == TRANSACTIONS or gap in self._gaps:
                continue
            self._gaps = [*self._gaps[1 - _GAPS_SHOWN :], gap]
            words = "%s[%d]: offsets %d to %d are gone (%s)"
            level = logging.WARNING if self._is_news(gap) else logging.DEBUG
            _LOG.log(level, words, *astuple(gap))

    def _is_news(self, gap: OffsetGap) -> bool:
        """Tell whether a gap is worth a line: of a compacted topic only the first one is."""
        mark = f"{gap.topic} {gap.reason}"
        known = mark in self._told
        self._told.add(mark)
        return gap.reason == RETENTION or not known

    def _report_empty(self) -> None:
        if self._joined and self._state() == "empty":
            self._say_once(f"{', '.join(self._subscribed)}: there, but empty so far")

    def _report_never_filled(self) -> None:
        """Say which topics never held a message, when a run ends that read all there was."""
        filled = {topic for topic, _ in self._ends or {}}
        if never := [name for name in self._subscribed if name not in filled]:
            self._say_once(f"{', '.join(never)}: there, but empty so far")

    def _say_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            _LOG.warning("%s", words)

    def _state(self) -> str:
        if self._ended:
            return "ended"
        if self._connection.lost:
            return "disconnected"
        if not self._subscribed:
            return "waiting for topics"
        if not self._joined:
            return "joining"
        return "empty" if self._is_empty() else "consuming"

    def _is_empty(self) -> bool:
        """Tell whether no assigned partition holds a message, as far as is known."""
        marks = [self._watermarks(partition) for partition in self._offsets.assigned]
        return (
            self._last_message is None
            and bool(marks)
            and all(low == high >= 0 for low, high in marks)
        )

    def _watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return the first and the next offset of a partition as last heard, -1 unknown."""
        with suppress(KafkaException):
            known = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
            if known:
                return max(known[0], -1), max(known[1], -1)
        return -1, -1

    def _partition_health(self, partition: Partition) -> PartitionHealth:
        read = self._offsets.read.get(partition, -1)
        committed = self._offsets.committed.get(partition, -1)
        return PartitionHealth(*partition, read, committed, self._watermarks(partition)[1])


def _known_gaps(file: Path | None) -> list[OffsetGap]:
    """Return the gaps that an earlier run has seen; a file that is no snapshot has none."""
    if file is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return list(read_health(file).gaps)
    return []


def _origins(messages: Sequence[Message]) -> pl.DataFrame:
    """Return where messages came from; a message's place names its offset."""
    times = [it.timestamp() for it in messages]
    columns = {
        "topic": [it.topic() for it in messages],
        "partition": [it.partition() for it in messages],
        "offset": [it.offset() for it in messages],
        "timestamp_ms": [time_ms if kind else None for kind, time_ms in times],
    }
    schema = {name: kind for name, kind in ORIGIN_SCHEMA.items() if name != "place"}
    place = pl.format("{}[{}] offset {}", "topic", "partition", "offset")
    return pl.DataFrame(columns, schema=schema).with_columns(place=place)


def _positions(offsets: dict[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
