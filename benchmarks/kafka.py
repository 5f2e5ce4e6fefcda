"""The whole broker from Kafka against polling Kafka and decoding with fastavro, no more."""

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import fastavro

from broker.apps.benchmarks._packets import packets, renumbered
from broker.config import Settings
from broker.wiring import Broker, open_source

_TOPICS = 16
"""Topics of a round: the mock cluster keeps 5 MB of each of their four partitions."""

_RIVAL_ALERTS = 512

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
    place: Path | None = None, rounds: int = 3, alerts: int = 3072, server: str = ""
) -> dict[str, Any]:
    """Measure; every time is CPU time of the process, all threads, per alert.

    Parameters
    ----------
    place : Path, optional
        Folder of real packets; generated ones by default.
    rounds : int
        Rounds in which broker and rival take turns; medians are reported.
    alerts : int
        Alerts of the broker per round.
    server : str
        Address of a Kafka server; by default librdkafka's mock cluster is started.
    """
    sample = packets(place)
    mark = f"bench{time.time_ns()}"
    ours, theirs, walls = [], [], []
    with _cluster(server) as address, tempfile.TemporaryDirectory() as home:
        broker = Broker(Settings(home=home, batch_alerts=512))
        _pipeline(broker, _sent(address, f"{mark}-warm", sample, 256, -1), 256)
        for number in range(rounds):
            url = _sent(address, f"{mark}-{number}", sample, alerts, number)
            spent, wall = _pipeline(broker, url, alerts)
            ours.append(spent)
            walls.append(wall)
            rival = _sent(address, f"{mark}-rival{number}", sample, _RIVAL_ALERTS, 0)
            theirs.append(_rival(rival, _RIVAL_ALERTS))
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


@contextmanager
def _cluster(server: str) -> Iterator[str]:
    if server:
        yield server
        return
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the mock cluster's pipes are missing")
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def _sent(address: str, mark: str, sample: Sequence[bytes], count: int, number: int) -> str:
    """Send alerts with ids of their own, and return the place where they are."""
    from confluent_kafka import Producer

    names = [f"{mark}-{i}" for i in range(_TOPICS)]
    producer = Producer({"bootstrap.servers": address, "log_level": 0})
    payloads = renumbered(sample, count, start=(number + 1) * 10**7)
    for i, payload in enumerate(payloads):
        while True:
            with suppress(BufferError):
                producer.produce(names[i % _TOPICS], payload, partition=i // _TOPICS % 4)
                break
            producer.poll(0.05)
        producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("the cluster did not take all alerts")
    return f"kafka://{address}/{','.join(names)}"


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

    address, _, names = url.removeprefix("kafka://").partition("/")
    consumer = Consumer({"bootstrap.servers": address, "group.id": "rival", "log_level": 0})
    started = time.process_time()
    consumer.assign(
        [TopicPartition(name, i, OFFSET_BEGINNING) for name in names.split(",") for i in range(4)]
    )
    read = 0
    while read < alerts:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            for _ in fastavro.reader(io.BytesIO(message.value())):
                read += 1
    spent = time.process_time() - started
    consumer.close()
    return 1e6 * spent / alerts
