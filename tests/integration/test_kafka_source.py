"""The Kafka source against a real Apache Kafka, or librdkafka's mock cluster."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka.admin import AdminClient, NewTopic

from broker.config import Secret, Settings
from broker.connectors.kafka.client import Clock
from broker.connectors.kafka.health import Health, read_health, write_health
from broker.connectors.kafka.place import KafkaPlace
from broker.connectors.sources.kafka import KafkaSource
from broker.errors import NotFoundError
from broker.ports import OffsetGap, SourceBatch

Produce = Callable[..., None]


def place(address: str, *topics: str, group: str = "g") -> KafkaPlace:
    """Make a place that notices dead members quickly."""
    client = {"session.timeout.ms": 6000}
    return KafkaPlace(address, topics, f"{group}-{topics[0]}", client)


def read(source: KafkaSource, *, commit: bool = True) -> list[SourceBatch]:
    """Take everything that is there, and let go."""
    batches = []
    for batch in source.batches(100, 0.1):
        if batch.payloads:
            batches.append(batch)
    for batch in batches if commit else []:
        source.commit(batch)
    source.close()
    return batches


def payloads_of(batches: list[SourceBatch]) -> list[bytes]:
    """Join the payloads of batches."""
    return [payload for batch in batches for payload in batch.payloads]


def test_reads_to_the_end(cluster: str, topic: str, produce: Produce) -> None:
    """Without follow, the source ends when all that was there is read."""
    sent = [b"%d" % i for i in range(250)]
    produce(cluster, topic, sent)

    found = payloads_of(read(KafkaSource(place(cluster, topic))))

    assert sorted(sent) == sorted(found)


def test_mock_cluster(mock_cluster: str, topic: str, produce: Produce) -> None:
    """A cluster of three servers is read as well as one."""
    sent = [b"%d" % i for i in range(50)]
    produce(mock_cluster, topic, sent)

    assert sorted(sent) == sorted(payloads_of(read(KafkaSource(place(mock_cluster, topic)))))


def test_origins(cluster: str, topic: str, produce: Produce) -> None:
    """Every payload tells its topic, partition, offset, time and place."""
    produce(cluster, topic, [b"a", b"b"], partition=1)

    (batch,) = read(KafkaSource(place(cluster, topic)))

    assert batch.origins.drop("timestamp_ms").rows() == [
        (topic, 1, 0, f"{topic}[1] offset 0"),
        (topic, 1, 1, f"{topic}[1] offset 1"),
    ]
    assert batch.origins["timestamp_ms"].min() > 1_600_000_000_000


def test_goes_on_where_committed(cluster: str, topic: str, produce: Produce) -> None:
    """A restart delivers nothing that was committed, and all that was not."""
    produce(cluster, topic, [b"a", b"b"], partition=0)
    read(KafkaSource(place(cluster, topic)))
    produce(cluster, topic, [b"c"], partition=0)

    assert payloads_of(read(KafkaSource(place(cluster, topic)))) == [b"c"]


def test_nothing_committed_comes_again(cluster: str, topic: str, produce: Produce) -> None:
    """Batches that were handed out but not committed are handed out again."""
    produce(cluster, topic, [b"a", b"b"], partition=0)
    first = read(KafkaSource(place(cluster, topic)), commit=False)

    assert payloads_of(first) == payloads_of(read(KafkaSource(place(cluster, topic))))


def test_several_topics(cluster: str, topic: str, produce: Produce) -> None:
    """One source reads several topics."""
    produce(cluster, topic, [b"a"])
    produce(cluster, f"{topic}-2", [b"b"])

    batches = read(KafkaSource(place(cluster, topic, f"{topic}-2")))

    assert sorted(payloads_of(batches)) == [b"a", b"b"]


def test_two_members_share(cluster: str, topic: str, produce: Produce) -> None:
    """Two members of a group read every message once."""
    sent = [b"%d" % i for i in range(200)]
    produce(cluster, topic, sent)
    one, two = (KafkaSource(place(cluster, topic), follow=True) for _ in range(2))
    found: list[bytes] = []
    for first, second in zip(one.batches(50, 0.1), two.batches(50, 0.1), strict=False):
        for source, batch in ((one, first), (two, second)):
            found += batch.payloads
            source.commit(batch)
        shares = [len(source.health().partitions) for source in (one, two)]
        if set(found) >= set(sent) and all(shares):
            break

    assert sum(shares) == 4
    assert set(sent) == set(found)
    one.close()
    two.close()


def test_absent_topic(cluster: str, topic: str, produce: Produce) -> None:
    """A longer name that contains the wanted one is not the wanted one."""
    produce(cluster, f"x{topic}_2", [b"a"])
    source = KafkaSource(place(cluster, topic), topic_wait_s=1.5)

    with pytest.raises(NotFoundError, match=f"topic {topic} still not there after 2 s"):
        list(source.batches(10, 0.1))
    source.close()


def test_late_topic(cluster: str, topic: str, produce: Produce) -> None:
    """A topic that appears while we wait is read."""
    source = KafkaSource(place(cluster, topic), topic_wait_s=60)
    found = []
    for number, batch in enumerate(source.batches(10, 0.1)):
        if number == 3:
            assert source.health().state == "waiting for topics"
            produce(cluster, topic, [b"late"])
        found += batch.payloads
    source.close()

    assert found == [b"late"]


def test_empty_topic(kafka: Any, topic: str, caplog: pytest.LogCaptureFixture) -> None:
    """A topic that is there and empty is told as such, and is no reason to wait."""
    admin = AdminClient({"bootstrap.servers": kafka.plain})
    admin.create_topics([NewTopic(topic, 2)])[topic].result()
    following = KafkaSource(place(kafka.plain, topic), follow=True)
    states = [
        following.health().state
        for _, _ in zip(following.batches(10, 0.2), range(20), strict=False)
    ]
    following.close()

    assert states[-1] == "empty"
    assert f"{topic}: there, but empty so far" in caplog.text
    assert read(KafkaSource(place(kafka.plain, topic))) == []


def test_gaps_are_remembered(cluster: str, topic: str, tmp_path: Path) -> None:
    """The gaps that an earlier run saw stay in the snapshot."""
    gap = OffsetGap(topic, 0, 1, 2, "retention")
    write_health(tmp_path / "w0.json", Health("ended", 1.0, gaps=[gap]))
    source = KafkaSource(place(cluster, topic), health_file=tmp_path / "w0.json")
    source.close()

    assert list(read_health(tmp_path / "w0.json").gaps) == [gap]


def test_no_server() -> None:
    """Where nobody answers, the deadline tells why nothing came."""
    source = KafkaSource(place("127.0.0.1:9", "t"), topic_wait_s=0.5)

    with pytest.raises(NotFoundError, match="no Kafka server answered"):
        list(source.batches(10, 0.1))
    source.close()


def test_health(cluster: str, topic: str, produce: Produce, tmp_path: Path) -> None:
    """A snapshot tells partitions, lag, ages and state."""
    produce(cluster, topic, [b"a"] * 5, partition=2)
    file = tmp_path / "health" / "w0.json"
    source = KafkaSource(place(cluster, topic), health_file=file)
    for batch in source.batches(10, 0.1):
        source.commit(batch)
    source.close()

    health = read_health(file)
    read_partition = next(it for it in health.partitions if it.partition == 2)

    assert (health.state, len(health.partitions), health.lag) == ("ended", 4, 0)
    assert (read_partition.position, read_partition.committed, read_partition.end) == (5, 5, 5)
    assert {"lag", "reconnects", "last_message_age_s", "last_commit_age_s"} <= set(health.metrics())


def test_secret_stays_secret(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A password is in no log, repr or snapshot."""
    caplog.set_level(logging.DEBUG)
    settings = Settings(
        home=str(tmp_path),
        survey="lsst",
        kafka_user="me",
        kafka_password=Secret("hunter2"),
        kafka_topic_wait_s=0.2,
    )
    source = KafkaSource.from_url("kafka://127.0.0.1:9/t?profile=production", settings, follow=True)
    with pytest.raises(NotFoundError):
        list(source.batches(10, 0.1))
    source.close()

    texts = [caplog.text, repr(settings), json.dumps([str(p) for p in tmp_path.rglob("*")])]
    texts += [path.read_text() for path in tmp_path.rglob("*.json")]
    assert not [text for text in texts if "hunter2" in text]


def test_topic_of_the_next_day(cluster: str, topic: str, produce: Produce) -> None:
    """After midnight UTC the new date's topic is read beside the old one's."""
    before_midnight = 1_609_631_999.0
    time = [before_midnight, 0.0]
    clock = Clock(now=lambda: time[0], monotonic=lambda: time[1])
    produce(cluster, f"{topic}_20210102", [b"old"])
    source = KafkaSource(place(cluster, f"{topic}_yyyymmdd"), follow=True, clock=clock)
    found: list[bytes] = []
    for batch in source.batches(10, 0.1):
        found += batch.payloads
        time[1] += 0.2
        if found == [b"old"] and time[0] == before_midnight:
            time[0] += 2
            produce(cluster, f"{topic}_20210103", [b"new"])
        if len(found) == 2:
            break
    source.close()

    assert found == [b"old", b"new"]
