"""Offsets that hold no message, on a real Apache Kafka: named with the reason, never waited for."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from broker.connectors.kafka.place import KafkaPlace
from broker.connectors.sources.kafka import KafkaSource
from broker.ports import OffsetGap, SourceBatch

pytestmark = pytest.mark.slow

_PATIENCE_S = 40.0
Produce = Callable[..., None]


def source_of(kafka: Any, topic: str) -> KafkaSource:
    """Make one member of the group that reads a topic to its end."""
    return KafkaSource(KafkaPlace(kafka.plain, (topic,), f"g-{topic}", {}))


def read(source: KafkaSource) -> list[SourceBatch]:
    """Take what is there, each batch committed at once."""
    batches = []
    for batch in source.batches(100, 0.1):
        batches.append(batch)
        source.commit(batch)
    source.close()
    return batches


def payloads_of(batches: list[SourceBatch]) -> list[bytes]:
    """Join the payloads of batches."""
    return [payload for batch in batches for payload in batch.payloads]


def gaps_of(batches: list[SourceBatch]) -> list[tuple[int, int, int, str]]:
    """Join what batches say is missing: partition, first, last, reason."""
    gaps = sorted(gap for batch in batches for gap in batch.gaps)
    return [(gap.partition, gap.first, gap.last, gap.reason) for gap in gaps]


@pytest.fixture
def transact(kafka: Any, topic: str) -> Callable[..., None]:
    """Return a function that sends payloads to a partition in a transaction of its own."""
    producer = Producer({"bootstrap.servers": kafka.plain, "transactional.id": topic})
    producer.init_transactions(30)

    def send(payloads: list[bytes], partition: int = 0, *, abort: bool = False) -> None:
        producer.begin_transaction()
        for payload in payloads:
            producer.produce(topic, payload, partition=partition)
        producer.flush(30)
        if abort:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)

    return send


def test_transactions_are_named(kafka: Any, topic: str, transact: Callable[..., None]) -> None:
    """Marks of transactions and what an aborted one left are no loss, and are told as such."""
    transact([b"a", b"b"])
    transact([b"x", b"y", b"z"], abort=True)
    transact([b"c"])
    source = source_of(kafka, topic)

    batches = read(source)

    reason = "marks of transactions"
    assert payloads_of(batches) == [b"a", b"b", b"c"]
    assert gaps_of(batches) == [(0, 2, 6, reason), (0, 8, 8, reason)]
    assert list(source.health().gaps) == []
    assert [it.committed for it in source.health().partitions if it.partition == 0] == [9]


def test_no_worker_waits_for_marks(kafka: Any, topic: str, transact: Callable[..., None]) -> None:
    """Two workers end, though every partition ends with offsets that hold no message."""
    for partition in range(4):
        transact([b"%d" % partition] * 3, partition)
    transact([b"never"] * 2, 1, abort=True)
    found: list[bytes] = []
    workers = [
        threading.Thread(target=lambda: found.extend(payloads_of(read(source_of(kafka, topic)))))
        for _ in range(2)
    ]

    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(_PATIENCE_S)

    assert not any(worker.is_alive() for worker in workers)
    assert sorted(found) == sorted(b"%d" % partition for partition in range(4) for _ in range(3))


def test_only_aborted_messages(kafka: Any, topic: str, transact: Callable[..., None]) -> None:
    """A partition that holds nothing but an aborted transaction is done at once."""
    transact([b"never"], abort=True)

    assert payloads_of(read(source_of(kafka, topic))) == []
    assert payloads_of(read(source_of(kafka, topic))) == []


def test_retention_of_all_is_named(kafka: Any, topic: str, produce: Produce) -> None:
    """Messages that were dropped before anyone read them are named although nothing follows."""
    produce(kafka.plain, topic, [b"a"] * 4, partition=0)
    read(source_of(kafka, topic))
    produce(kafka.plain, topic, [b"b"] * 6, partition=0)
    delete_before(kafka, topic, 10)
    source = source_of(kafka, topic)

    assert gaps_of(read(source)) == [(0, 4, 9, "retention")]
    assert list(source.health().gaps) == [OffsetGap(topic, 0, 4, 9, "retention")]


def delete_before(kafka: Any, topic: str, offset: int) -> None:
    """Let the server drop what lies before an offset, as retention does."""
    admin = AdminClient({"bootstrap.servers": kafka.plain})
    for done in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        done.result()


def test_compaction_is_named(kafka: Any, topic: str) -> None:
    """Offsets that compaction took are told as such."""
    config = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    admin = AdminClient({"bootstrap.servers": kafka.plain})
    admin.create_topics([NewTopic(topic, 1, config=config)])[topic].result()
    keep_writing_until_compacted(kafka, topic)

    gaps = gaps_of(read(source_of(kafka, topic)))

    assert {reason for *_, reason in gaps} == {"compaction"}


def keep_writing_until_compacted(kafka: Any, topic: str) -> None:
    """Write one key again and again until the log's cleaner has been there."""
    producer = Producer({"bootstrap.servers": kafka.plain})
    producer.produce(topic, b"first", key=b"another")
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        for _ in range(5):
            producer.produce(topic, b"v", key=b"k")
            producer.flush(10)
            time.sleep(0.12)
        probe = KafkaSource(KafkaPlace(kafka.plain, (topic,), f"probe-{time.time_ns()}", {}))
        if gaps_of(read(probe)):
            return
    pytest.fail("the log was never cleaned")
