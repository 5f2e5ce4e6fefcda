"""The whole broker from Kafka against polling Kafka and decoding with fastavro, no more."""

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import fastavro

from broker.apps.benchmarks._packets import packets, renumbered
from broker.apps.process import taking_in
from broker.config import Settings
from broker.wiring import Broker, open_source

_TOPICS = 32
"""Topics of a round on the mock cluster, which keeps 5 MB of each of their four partitions."""

_PARTITIONS = 4
_AT_ONCE = 64
"""Messages that the rival asks for at once; with more in hand it is slower."""

# librdkafka's mock cluster in a process of its own, so that its work is nobody's time.
_CLUSTER = """
import sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
found = producer.list_topics(timeout=10).brokers.values()
print(",".join(f"{it.host}:{it.port}" for it in found), flush=True)
sys.stdin.read()
"""


def run(
    place: Path | None = None, rounds: int = 3, alerts: int = 8192, server: str = ""
) -> dict[str, Any]:
    """Measure; every time is CPU time of this process, all threads, per alert.

    Both sides read the same number of alerts with the same settings of librdkafka, in a
    process that is set up as `pgb run` does. What the server spends is nobody's time.

    Parameters
    ----------
    place : Path, optional
        Folder of real packets; generated ones by default.
    rounds : int
        Rounds in which broker and rival take turns; medians are reported.
    alerts : int
        Alerts of each side per round.
    server : str
        Address of a Kafka server; by default librdkafka's mock cluster is started.
    """
    sample = packets(place)
    ours, theirs, walls = [], [], []
    with _cluster(server) as cluster, tempfile.TemporaryDirectory() as home, taking_in():
        broker = Broker(Settings(home=home))
        _pipeline(broker, cluster.send(sample, 1024, -1), 1024)
        for number in range(rounds):
            spent, wall = _pipeline(broker, cluster.send(sample, alerts, number), alerts)
            ours.append(spent)
            walls.append(wall)
            theirs.append(_rival(cluster.send(sample, alerts, number), alerts))
    return {
        "ratios": {
            "pipeline_vs_kafka_fastavro": median(t / o for t, o in zip(theirs, ours, strict=True))
        },
        "figures": {
            "pipeline_us_per_alert": median(ours),
            "alerts_per_s_per_core": 1e6 / median(ours),
            "alerts_per_s_wall": median(walls),
            "kafka_fastavro_us_per_alert": median(theirs),
            "packet_bytes_mean": sum(map(len, sample)) / len(sample),
        },
    }


@dataclass
class _Cluster:
    """Where packets are sent and read again."""

    address: str
    topics: int
    _made: list[str] = field(default_factory=list)

    def send(self, sample: Sequence[bytes], count: int, number: int) -> str:
        """Send alerts with ids of their own, and return the place where they are."""
        from confluent_kafka import Producer

        names = [f"bench-{time.time_ns()}-{i}" for i in range(self.topics)]
        self._make(names)
        producer = Producer({"bootstrap.servers": self.address, "log_level": 0})
        for i, payload in enumerate(renumbered(sample, count, start=(number + 1) * 10**7)):
            partition = i // self.topics % _PARTITIONS
            while True:
                with suppress(BufferError):
                    producer.produce(names[i % self.topics], payload, partition=partition)
                    break
                producer.poll(0.05)
            producer.poll(0)
        if producer.flush(60):
            raise RuntimeError("the cluster did not take all alerts")
        return f"kafka://{self.address}/{','.join(names)}"

    def _make(self, names: Sequence[str]) -> None:
        if self.topics == _TOPICS:  # the mock makes them when asked for, and in no other way
            return
        from confluent_kafka.admin import NewTopic

        wanted = [NewTopic(name, num_partitions=_PARTITIONS) for name in names]
        admin = self._admin()  # it must live until the answers are there
        for done in admin.create_topics(wanted).values():
            done.result(30)
        self._made += names

    def remove(self) -> None:
        """Delete the topics that were made."""
        admin = self._admin()
        for done in admin.delete_topics(self._made).values() if self._made else ():
            done.result(30)

    def _admin(self) -> Any:
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})


@contextmanager
def _cluster(server: str) -> Iterator[_Cluster]:
    if server:
        cluster = _Cluster(server, 1)
        try:
            yield cluster
        finally:
            cluster.remove()
        return
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the mock cluster's pipes are missing")
        try:
            yield _Cluster(process.stdout.readline().strip(), _TOPICS)
        finally:
            process.stdin.close()


def _pipeline(broker: Broker, url: str, alerts: int) -> tuple[float, float]:
    """Return CPU time per alert, µs, and alerts per second of wall time from the first on."""
    source = open_source([f"{url}?group={time.time_ns()}"], broker.settings)
    pipeline = broker.pipeline()
    first: list[float] = []
    spent = time.process_time()

    def started(report: Any) -> None:
        if report.received and not first:
            first.extend((time.perf_counter(), report.received))

    report = pipeline.run(source, started)
    spent = time.process_time() - spent
    if report.stored != alerts:
        raise RuntimeError(f"{report.stored} of {alerts} alerts were stored")
    wall = time.perf_counter() - first[0]
    return 1e6 * spent / alerts, (alerts - first[1]) / wall


def _rival(url: str, alerts: int) -> float:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    from broker.connectors.sources.kafka import CONSUMER

    address, _, names = url.removeprefix("kafka://").partition("/")
    own = {"bootstrap.servers": address, "group.id": "rival", "log_level": 0}
    consumer = Consumer({**CONSUMER, **own})
    started = time.process_time()
    consumer.assign(
        [
            TopicPartition(name, i, OFFSET_BEGINNING)
            for name in names.split(",")
            for i in range(_PARTITIONS)
        ]
    )
    read = 0
    while read < alerts:
        for message in consumer.consume(_AT_ONCE, 1.0):
            if message.error() is None:
                read += sum(1 for _ in fastavro.reader(io.BytesIO(message.value())))
    spent = time.process_time() - started
    consumer.close()
    return 1e6 * spent / alerts
