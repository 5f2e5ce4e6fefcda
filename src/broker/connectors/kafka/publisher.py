"""Publishing whole batches to Kafka: one transaction each, once for each key."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from broker.connectors.kafka.client import ask, error_of, make_client, service_error
from broker.connectors.streams.texts import attribute_texts
from broker.ports import BatchKey, Messages

_ANSWER_S = 30.0
_PROPERTIES: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "zstd",
    "linger.ms": 5,
    "message.max.bytes": 16 << 20,
    "queue.buffering.max.kbytes": 262_144,
    "transaction.timeout.ms": 60_000,
}

MakeProducer = Callable[[Mapping[str, Any]], Any]


def make_producer(properties: Mapping[str, Any]) -> Any:
    """Make a producer of librdkafka."""
    return make_client(Producer, properties)


@dataclass(frozen=True, slots=True)
class Published:
    """The last batch of a worker on a topic: its number, and how many messages in all."""

    number: int = -1
    count: int = 0


@dataclass(slots=True)
class Publisher:
    """Publishes the batches of one worker.

    With the messages of a batch its number is recorded as the offset of a consumer group of
    the worker's own, in one transaction: a batch is there whole or not at all, and a key
    that was published before is known after a restart.

    Parameters
    ----------
    properties : mapping
        Client properties, the addresses among them.
    group : str
        The group that records the numbers, also the transactional id.
    """

    properties: Mapping[str, Any]
    group: str
    now: Callable[[], datetime]
    make: MakeProducer = make_producer
    _producer: Any = None
    _books: Any = None
    _last: dict[str, Published] = field(default_factory=dict)
    _failures: list[str] = field(default_factory=list)

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Append a batch; a key at or below the last one does nothing."""
        last = self.last(topic)
        if key.number <= last.number or not len(messages.payloads):
            return
        after = Published(key.number, last.count + len(messages.payloads))
        try:
            self._start()
            self._producer.begin_transaction()
            self._send(topic, messages)
            self._record(topic, after)
            self._producer.commit_transaction(_ANSWER_S)
        except KafkaException as error:
            raise self._abort(topic, error) from error
        self._last[topic] = after

    def last(self, topic: str) -> Published:
        """Return the last batch that was published to a topic."""
        if topic not in self._last:
            self._last[topic] = self._ask(topic)
        return self._last[topic]

    def close(self) -> None:
        """Let go."""
        if self._books is not None:
            self._books.close()
        self._producer = self._books = None

    def _start(self) -> None:
        if self._producer is None:
            properties = {**_PROPERTIES, **self.properties, "transactional.id": self.group}
            producer = self.make(properties)
            producer.init_transactions(_ANSWER_S)
            self._producer = producer

    def _send(self, topic: str, messages: Messages) -> None:
        self._failures.clear()
        time_ms = int(self.now().timestamp() * 1000)
        texts = attribute_texts(messages.attributes, range(len(messages.payloads)))
        for payload, headers in zip(messages.payloads, texts, strict=True):
            self._send_one(topic, payload, headers, time_ms)

    def _send_one(
        self, topic: str, payload: bytes, headers: Mapping[str, str], time_ms: int
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic,
                    payload,
                    headers=list(headers.items()),
                    timestamp=time_ms,
                    on_delivery=self._on_delivery,
                )
                return
            except BufferError:  # the queue is full until the server has taken some
                self._producer.poll(0.1)

    def _on_delivery(self, error: Any, message: Message) -> None:
        if error is not None:
            self._failures.append(f"{message.topic()}: {error.str()}")

    def _record(self, topic: str, last: Published) -> None:
        mark = TopicPartition(topic, 0, last.number, json.dumps({"count": last.count}))
        group = self._bookkeeper().consumer_group_metadata()
        self._producer.send_offsets_to_transaction([mark], group, _ANSWER_S)

    def _ask(self, topic: str) -> Published:
        mark = [TopicPartition(topic, 0)]
        books = self._bookkeeper()
        (found,) = ask(lambda: books.committed(mark, _ANSWER_S), f"asking for {self.group}")
        return read_mark(found)

    def _bookkeeper(self) -> Any:
        if self._books is None:
            self._books = make_client(Consumer, {**self.properties, "group.id": self.group})
        return self._books

    def _abort(self, topic: str, error: KafkaException) -> Exception:
        """Leave nothing of the batch behind; return the error of ours."""
        reason = error_of(error)
        producer, self._producer = self._producer, None
        self._last.pop(topic, None)
        if producer is not None and not reason.fatal():
            try:
                producer.abort_transaction(_ANSWER_S)
                self._producer = producer
            except KafkaException:
                pass  # a new producer of this id aborts it
        words = "; ".join([f"publishing to {topic}", *self._failures[:1]])
        return service_error(reason, words)


def read_mark(mark: TopicPartition) -> Published:
    """Read what a worker recorded with its last batch on a topic."""
    if mark.offset < 0:
        return Published()
    words = json.loads(mark.metadata or "{}")
    return Published(mark.offset, int(words.get("count", 0)))
