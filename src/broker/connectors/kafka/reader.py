"""Reading a subscription: one member of a consumer group, messages on loan."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from broker.connectors.kafka.client import (
    ask,
    error_of,
    make_client,
    next_message,
    service_error,
)
from broker.connectors.kafka.leases import Leases
from broker.connectors.kafka.offsets import Partition
from broker.connectors.streams.attribute_filter import AttributeFilter
from broker.ports import Delivery

_ANSWER_S = 10.0
_JOIN_S = 20.0
_PROPERTIES: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "session.timeout.ms": 10_000,
    "fetch.wait.max.ms": 50,
}
_REBALANCING = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNKNOWN_MEMBER_ID,
}


@dataclass(frozen=True, slots=True)
class Definition:
    """A subscription as it was made, kept as the note of its group's offsets."""

    topic: str
    attribute_filter: str
    ack_deadline_s: float

    def note(self) -> str:
        """Write what the group's offsets carry."""
        return json.dumps({"filter": self.attribute_filter, "deadline_s": self.ack_deadline_s})

    @classmethod
    def read(cls, mark: TopicPartition) -> "Definition":
        """Read it from an offset of the group."""
        words = json.loads(mark.metadata or "{}")
        return cls(mark.topic, words.get("filter", ""), float(words.get("deadline_s", 60)))


class Reader:
    """One member of a subscription's group.

    Parameters
    ----------
    definition : Definition
        The subscription.
    properties : mapping
        Client properties, the addresses and the group among them.
    now : callable
        The clock of leases.
    """

    def __init__(
        self, definition: Definition, properties: Mapping[str, Any], now: Callable[[], datetime]
    ) -> None:
        self._definition = definition
        self._filter = AttributeFilter(definition.attribute_filter)
        self._now = now
        self._leases = Leases()
        self._ends: dict[Partition, int] = {}
        self._assigned: set[Partition] = set()
        self._joined = False
        self._consumer: Any = make_client(Consumer, {**_PROPERTIES, **properties})
        self._consumer.subscribe(
            [definition.topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def pull(self, max_messages: int) -> list[Delivery]:
        """Lease up to `max_messages`, expired ones first; none if nothing is there."""
        deadline_s = self._definition.ack_deadline_s
        now_s = self._now().timestamp()
        found = self._leases.renew(now_s, max_messages, deadline_s)
        while len(found) < max_messages:
            messages = self._poll(max_messages - len(found))
            if not messages:
                break
            found += self._lend(messages, now_s + deadline_s)
        return found

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Never deliver these again; what is done up to is recorded at once."""
        self._leases.acknowledge(ack_ids)
        self._commit()

    def release(self, ack_ids: Sequence[str]) -> None:
        """Deliver these again now."""
        self._leases.release(ack_ids)

    def close(self) -> None:
        """Record how far all is done, and leave the group."""
        with suppress(KafkaException):
            self._commit()
        self._consumer.close()

    def _poll(self, count: int) -> list[Message]:
        """Take messages until there are enough or the partitions end."""
        messages: list[Message] = []
        patience = time.monotonic() + _JOIN_S
        wanted: dict[Partition, int] | None = None
        while len(messages) < count and time.monotonic() < patience:
            message = next_message(self._consumer, 0.05, f"reading {self._definition.topic}")
            if message is not None and self._is_alert(message):
                messages.append(message)
                continue
            if self._joined and message is None:
                wanted = self._watermarks() if wanted is None else wanted
                if all(self._ends.get(it, -1) >= end for it, end in wanted.items()):
                    break
        return messages

    def _is_alert(self, message: Message) -> bool:
        """Tell messages from the library's events."""
        partition = (message.topic() or "", message.partition() or 0)
        if (error := message.error()) is None:
            self._ends[partition] = (message.offset() or 0) + 1
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends[partition] = message.offset() or 0
        elif not error.retriable():
            raise service_error(error, f"reading {self._definition.topic}")
        return False

    def _watermarks(self) -> dict[Partition, int]:
        return ask(
            lambda: {
                partition: self._consumer.get_watermark_offsets(
                    TopicPartition(*partition), timeout=_ANSWER_S
                )[1]
                for partition in self._assigned
            },
            f"reading {self._definition.topic}",
        )

    def _lend(self, messages: Sequence[Message], deadline_s: float) -> list[Delivery]:
        headers = [dict(_texts(message)) for message in messages]
        wanted = set(self._filter.rows(pl.DataFrame(headers, infer_schema_length=None)).tolist())
        if not self._filter.text.strip():
            wanted = set(range(len(messages)))
        lent: list[Delivery] = []
        for row, message in enumerate(messages):
            partition, offset = (message.topic() or "", message.partition() or 0), message.offset()
            if row in wanted:
                delivery = _delivery(message, headers[row])
                lent.append(self._leases.add(partition, offset or 0, delivery, deadline_s))
            else:
                self._leases.skip(partition, offset or 0)
        return lent

    def _commit(self) -> None:
        note = self._definition.note()
        offsets = [
            TopicPartition(*partition, offset, note)
            for partition, offset in self._leases.positions().items()
            if partition in self._assigned
        ]
        if offsets:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                if error_of(error).code() in _REBALANCING:
                    return  # positions stay, and are recorded with the next acknowledgement
                words = f"acknowledging on {self._definition.topic}"
                raise service_error(error_of(error), words) from error

    def _on_assign(self, consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        del consumer
        self._joined = True
        self._assigned |= {(it.topic, it.partition) for it in partitions}

    def _on_revoke(self, consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        with suppress(Exception):
            self._commit()
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        del consumer
        gone = {(it.topic, it.partition) for it in partitions}
        self._assigned -= gone
        self._leases.forget(gone)
        self._ends = {it: end for it, end in self._ends.items() if it not in gone}


def _texts(message: Message) -> list[tuple[str, str]]:
    headers: Any = message.headers() or []
    return [(name, value.decode() if value is not None else "") for name, value in headers]


def _delivery(message: Message, attributes: Mapping[str, str]) -> Delivery:
    message_id = f"{message.partition()}-{message.offset()}"
    published = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    payload: Any = message.value()
    return Delivery(message_id, f"{message_id}/1", payload or b"", attributes, published, 1)
