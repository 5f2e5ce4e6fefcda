"""The stream on a real Apache Kafka keeps the contract, but for what its module names."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException

from broker.connectors.kafka.publisher import make_producer
from broker.connectors.streams.kafka import KafkaStream
from broker.ports import BatchKey, Messages, Stream
from broker.testing.stream_contract import Clock, FailingStream, StreamContract, batch
from kafka_settled import SettledStream

pytestmark = pytest.mark.slow


class FailsOnce:
    """A producer whose first commit of a transaction fails."""

    def __init__(self, properties: Mapping[str, Any], words: str) -> None:
        self._producer = make_producer(properties)
        self._words = [words]

    def commit_transaction(self, timeout: float) -> None:
        """Fail, and later commit."""
        if self._words:
            self._producer.flush(timeout)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, self._words.pop()))
        self._producer.commit_transaction(timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


MakeStream = Callable[..., SettledStream]


class TestKafkaStream(StreamContract):
    @pytest.fixture
    def make(self, kafka: Any, clock: Clock) -> Iterator[MakeStream]:
        """Return a function that makes streams which share a cluster and a prefix."""
        prefix, made = f"{uuid4().hex[:8]}.", []

        def new(**more: Any) -> KafkaStream:
            values = {"prefix": prefix, "partitions": 1, "now": clock, **more}
            made.append(SettledStream({"bootstrap.servers": kafka.plain}, **values))
            return made[-1]

        yield new
        for stream in made:
            stream.close()

    @pytest.fixture
    def stream(self, make: MakeStream) -> Stream:
        """Return the stream under test."""
        return make()

    @pytest.fixture
    def failing(self, make: MakeStream) -> FailingStream:
        """Return a stream whose first publication fails."""
        return lambda error: make(make=lambda properties: FailsOnce(properties, str(error)))

    def test_topics_tell_counts(self, subscribed: Stream) -> None:
        """A topic tells what was published; the backlog is at least what is left."""
        subscribed.publish("empty", Messages([], pl.DataFrame()), BatchKey("w0", 0))
        leased = subscribed.pull("s", 2)
        subscribed.acknowledge("s", [leased[0].ack_id])

        empty, topic = subscribed.topics()

        assert (empty.name, empty.messages, dict(empty.backlog)) == ("empty", 0, {})
        assert (topic.name, topic.messages, set(topic.backlog)) == ("t", 3, {"s"})
        assert 2 <= topic.backlog["s"] <= 3

    def test_key_is_known_after_a_restart(self, make: MakeStream) -> None:
        """Another process knows what was published, and adds only what was not."""
        make().publish("t", batch(3), BatchKey("w0", 3))
        again = make()
        again.publish("t", batch(3), BatchKey("w0", 3))
        again.publish("t", batch(4), BatchKey("w0", 4))
        again.subscribe("t", "s")

        expected = [*batch(3).payloads, *batch(4).payloads]
        assert expected == [it.payload for it in again.pull("s", 20)]

    def test_unacknowledged_comes_again_elsewhere(self, make: MakeStream) -> None:
        """A process that ends leaves to the next what it did not acknowledge, in offsets."""
        first = make()
        first.publish("t", batch(0, 6), BatchKey("w0", 0))
        first.subscribe("t", "s")
        leased = first.pull("s", 6)
        first.acknowledge("s", [leased[row].ack_id for row in (0, 1, 4)])
        first.close()

        assert list(batch(0, 6).payloads)[2:] == [it.payload for it in make().pull("s", 10)]

    def test_two_homes_with_one_worker_name(self, make: MakeStream) -> None:
        """Workers of one name on two homes do not take each other's batches for their own."""
        here, there = make(owner="here"), make(owner="there")
        here.publish("t", batch(5), BatchKey("w0", 5))
        there.publish("t", batch(1), BatchKey("w0", 1))
        there.subscribe("t", "s")

        assert [info.messages for info in there.topics()] == [3]
        assert len(there.pull("s", 20)) == 6

    def test_readers_share_partitions(self, make: MakeStream) -> None:
        """Two readers of a subscription get every message once between them."""
        first, second = make(partitions=4), make(partitions=4)
        for number in range(20):
            first.publish("t", batch(number, 10), BatchKey("w0", number))
        first.subscribe("t", "s")
        found: set[str] = set()
        deadline = time.monotonic() + 60  # partitions change hands in seconds
        while len(found) < 200 and time.monotonic() < deadline:
            for reader in (first, second):
                pulled = reader.pull("s", 30)
                reader.acknowledge("s", [it.ack_id for it in pulled])
                found |= {it.message_id for it in pulled}

        assert len(found) == 200

    def test_counts_are_known_at_once(
        self, make: MakeStream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is published is counted, though its transaction may just be ending."""
        stream = make()
        books = f"{stream._books}w0"
        monkeypatch.setattr(stream, "_groups", lambda: [books])  # the list would give it time
        counted = []
        for number in range(20):
            KafkaStream.publish(stream, "t", batch(number), BatchKey("w0", number))
            counted.append(stream.topics()[0].messages)

        assert counted == [3 * (number + 1) for number in range(20)]
