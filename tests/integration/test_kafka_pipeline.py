"""The whole broker on a real Apache Kafka: bad input, and everything that can die, dies.

``PGB_TEST_KAFKA_ALERTS`` sets how many alerts the group of workers shares (default 600), and
``PGB_TEST_KAFKA_FROM`` a folder of real packets that are repeated under new ids.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from broker.apps.benchmarks._packets import packets as real_packets
from broker.apps.benchmarks._packets import renumbered
from broker.config import Secret, Settings
from broker.connectors.sources.kafka import KafkaSource
from broker.errors import ForbiddenError
from broker.pipeline.reconcile import gaps, reconcile, reconcile_sinks
from broker.pipeline.runner import Report
from broker.ports import OffsetGap
from broker.surveys import get_survey
from broker.wiring import Broker
from tests_support import Pgb

pytestmark = pytest.mark.slow

_ALERTS = int(os.environ.get("PGB_TEST_KAFKA_ALERTS", "600"))
_QUICK = "session.timeout.ms=2000&heartbeat.interval.ms=300"
_PATIENCE_S = 60.0 + _ALERTS / 20
Produce = Callable[..., None]


@pytest.fixture(scope="session")
def packets() -> list[bytes]:
    """Return generated packets, all of different alerts."""
    if folder := os.environ.get("PGB_TEST_KAFKA_FROM"):
        return list(renumbered(real_packets(Path(folder)), _ALERTS))
    generate = get_survey("ztf").generate
    assert generate is not None
    return list(generate(_ALERTS, 7, date(2026, 1, 2)))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a fresh home."""
    return Settings(home=str(tmp_path / "home"), survey="ztf", batch_alerts=64)


def take_in(settings: Settings, url: str) -> tuple[Report, Broker, KafkaSource]:
    """Run the whole pipeline until the topic's end."""
    broker = Broker(settings)
    source = KafkaSource.from_url(url, settings)
    return broker.pipeline().run(source), broker, source


def rows_of(broker: Broker) -> tuple[int, int]:
    """Return the rows and the distinct alerts in the table of alerts."""
    dataset = broker.instance.dataset
    found = broker.tables.query(
        f"SELECT COUNT(*) AS n, COUNT(DISTINCT candid) AS d FROM {dataset}.alerts"
    )
    return found["n"].item(), found["d"].item()


def assert_adds_up(broker: Broker) -> None:
    """Check that ledger, tables and topics agree."""
    checks = reconcile(broker.ledger)
    checks += reconcile_sinks(broker.ledger, broker.instance, broker.bus, broker.tables)
    assert [check for check in checks if not check.ok] == []


def test_duplicates(
    kafka: Any, topic: str, produce: Produce, packets: list[bytes], settings: Settings
) -> None:
    """An alert that comes several times makes one row; the others are counted."""
    produce(kafka.plain, topic, packets[:100] * 2 + packets[50:150])

    report, broker, _ = take_in(settings, f"kafka://{kafka.plain}/{topic}")

    assert (report.received, report.stored, report.duplicates) == (300, 150, 150)
    assert rows_of(broker) == (150, 150)
    assert_adds_up(broker)


def test_out_of_order_partitions(
    kafka: Any, topic: str, produce: Produce, packets: list[bytes], settings: Settings
) -> None:
    """Partitions that hold the night in any order give gap-free offsets and all rows."""
    for partition, part in enumerate((packets[120:160], packets[:7], [], packets[159:60:-1])):
        produce(kafka.plain, topic, part, partition=partition)

    _, broker, _ = take_in(settings, f"kafka://{kafka.plain}/{topic}")

    ranges = {part: found for (_, part), found in broker.ledger.offset_ranges().items()}
    assert ranges == {0: [(0, 39)], 1: [(0, 6)], 3: [(0, 98)]}
    assert rows_of(broker) == (106, 106)


def test_poison_in_the_middle(
    kafka: Any, topic: str, produce: Produce, packets: list[bytes], settings: Settings
) -> None:
    """Messages that are no alerts are dead letters; all others go on, and so do offsets."""
    poison = [b"Obj\x01 not an alert", packets[3][: len(packets[3]) // 2]]
    produce(kafka.plain, topic, packets[:70] + poison + packets[70:140], partition=0)

    report, broker, source = take_in(settings, f"kafka://{kafka.plain}/{topic}")

    assert (report.stored, report.dead_lettered) == (140, 2)
    assert [it.committed for it in source.health().partitions if it.partition == 0] == [142]
    assert_adds_up(broker)


def test_messages_on_a_bus(
    kafka: Any, topic: str, produce: Produce, packets: list[bytes], settings: Settings
) -> None:
    """With a bus, what passed is published on Kafka; packets stay in the home."""
    produce(kafka.plain, topic, packets[:200])
    settings = replace(settings, bus=f"kafka://{kafka.plain}/{topic}.")

    report, broker, _ = take_in(settings, f"kafka://{kafka.plain}/{topic}")
    broker.bus.subscribe("ztf-alerts_pure", "reader")
    found = broker.bus.pull("reader", 1000)
    broker.bus.close()

    assert len(found) == report.passed["purity"] > 0
    assert "candid" in found[0].attributes
    assert_adds_up(Broker(settings))


def test_retention_is_named(
    kafka: Any, topic: str, produce: Produce, packets: list[bytes], settings: Settings
) -> None:
    """Offsets that the server dropped while nobody read are a named gap."""
    url = f"kafka://{kafka.plain}/{topic}"
    produce(kafka.plain, topic, packets[:10], partition=0)
    take_in(settings, url)[1].stream.close()
    produce(kafka.plain, topic, packets[10:40], partition=0)
    admin = AdminClient({"bootstrap.servers": kafka.plain})
    for done in admin.delete_records([TopicPartition(topic, 0, 25)]).values():
        done.result()

    _, broker, source = take_in(settings, url)

    gap = OffsetGap(topic, 0, 10, 24, "retention")
    assert (gaps(broker.ledger), list(source.health().gaps)) == ([gap], [gap])
    told = Pgb(broker.home)("ledger", "--json")
    assert json.loads(told)["gaps"] == [asdict(gap)]
    shown = Pgb(broker.home)("ledger")
    assert "10–24 never came (retention)" in shown


def test_login_with_scram(
    kafka: Any, kafka_module: Any, topic: str, produce: Produce, packets: list[bytes]
) -> None:
    """SCRAM-SHA-512 lets in with the right password."""
    produce(kafka.plain, topic, packets[:5])
    source = KafkaSource.from_url(_scram(kafka, topic), _login(kafka_module.PASSWORD))

    assert sum(len(batch.payloads) for batch in source.batches(100, 0.1)) == 5
    source.close()


def test_wrong_password(kafka: Any, topic: str) -> None:
    """A wrong password ends the run with the server's words, not with a wait."""
    source = KafkaSource.from_url(_scram(kafka, topic), _login("wrong"), follow=True)

    with pytest.raises(ForbiddenError, match=r"[Aa]uthentication"):
        for _ in source.batches(100, 0.1):
            pass
    source.close()


def _scram(kafka: Any, topic: str) -> str:
    how = "security.protocol=SASL_PLAINTEXT&sasl.mechanisms=SCRAM-SHA-512"
    return f"kafka://{kafka.scram}/{topic}?{how}"


def _login(password: str) -> Settings:
    return Settings(
        survey="lsst",
        kafka_user="pgb-reader",
        kafka_password=Secret(password),
        kafka_topic_wait_s=9,
    )


class Workers:
    """Processes of the broker that read one topic into one home."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._url = url
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, worker: str, *, dies_after: int = -1, follow: bool = False) -> None:
        """Start a worker; it dies between store and commit of its batch `dies_after`."""
        log = self.log(worker)
        log.parent.mkdir(parents=True, exist_ok=True)
        home = self._settings.home
        script = Path(__file__).with_name("kafka_worker.py")
        batch = 16 if _ALERTS < 2000 else 512
        arguments = [self._url, home, worker, str(dies_after), str(int(follow)), str(batch)]
        with log.open("ab") as file:
            self._running[worker] = subprocess.Popen(
                [sys.executable, str(script), *arguments], stdout=file, stderr=file
            )

    def log(self, worker: str) -> Path:
        """Return where a worker writes what it says."""
        return Path(self._settings.home).parent / f"{worker}.log"

    def wait(self, worker: str) -> int:
        """Wait until a worker ends."""
        return self._running[worker].wait(_PATIENCE_S)

    def stop(self, worker: str, number: int = signal.SIGINT) -> int:
        """End a worker."""
        self._running[worker].send_signal(number)
        return self.wait(worker)

    def stop_all(self) -> None:
        """End what still runs."""
        for process in self._running.values():
            process.kill()
            process.wait()


@pytest.fixture
def make_workers(settings: Settings) -> Iterator[Callable[[str], Workers]]:
    """Return a function that makes workers; those left are ended."""
    made: list[Workers] = []

    def make(url: str) -> Workers:
        made.append(Workers(settings, url))
        return made[-1]

    yield make
    for workers in made:
        workers.stop_all()


def test_kill_between_store_and_commit(
    kafka: Any,
    topic: str,
    produce: Produce,
    packets: Sequence[bytes],
    settings: Settings,
    make_workers: Callable[[str], Workers],
) -> None:
    """Ten kills after a batch is durable and before its commit lose and double nothing."""
    produce(kafka.plain, topic, packets)
    workers = make_workers(f"kafka://{kafka.plain}/{topic}?{_QUICK}")
    points = random.Random(20260102)
    for _ in range(10):
        workers.start("w0", dies_after=points.randrange(4))
        assert workers.wait("w0") == -signal.SIGKILL
    workers.start("w0")
    assert workers.wait("w0") == 0

    broker = Broker(settings)
    assert rows_of(broker) == (len(packets), len(packets))
    assert gaps(broker.ledger) == []
    assert_adds_up(broker)


def test_server_dies_and_returns(
    kafka_module: Any,
    topic: str,
    produce: Produce,
    packets: Sequence[bytes],
    settings: Settings,
    make_workers: Callable[[str], Workers],
) -> None:
    """A server that is killed and restarted costs nothing, and one line."""
    server = kafka_module.KafkaServer().start()
    try:
        produce(server.plain, topic, packets[:200])
        workers = make_workers(f"kafka://{server.plain}/{topic}?{_QUICK}")
        workers.start("w0", follow=True)
        wait_for(lambda: _stored(settings) >= 50)
        server.kill()
        time.sleep(5)
        server.start()
        produce(server.plain, topic, packets[200:300])
        wait_for(lambda: _stored(settings) == 300)
        workers.stop("w0")
    finally:
        server.remove()

    said = workers.log("w0").read_text()
    assert (said.count("lost the connection"), said.count("again after")) == (1, 1)
    assert rows_of(Broker(settings)) == (300, 300)
    assert gaps(Broker(settings).ledger) == []


def test_group_with_a_visitor(
    kafka: Any,
    topic: str,
    produce: Produce,
    packets: Sequence[bytes],
    settings: Settings,
    make_workers: Callable[[str], Workers],
) -> None:
    """Two workers share a topic, a third joins and is killed: rows equal distinct alerts."""
    produce(kafka.plain, topic, packets[: len(packets) // 2])
    workers = make_workers(f"kafka://{kafka.plain}/{topic}?{_QUICK}")
    for worker in ("w0", "w1"):
        workers.start(worker, follow=True)
    wait_for(lambda: _stored(settings) > 0)
    workers.start("w2", follow=True)
    produce(kafka.plain, topic, packets[len(packets) // 2 :])
    wait_for(lambda: _stored(settings) > len(packets) * 0.6)
    workers.stop("w2", signal.SIGKILL)
    wait_for(lambda: _stored(settings) == len(packets))
    assert [workers.stop(worker) for worker in ("w0", "w1")] == [0, 0]
    workers.start("w2")
    assert workers.wait("w2") == 0

    broker = Broker(settings)
    assert rows_of(broker) == (len(packets), len(packets))
    assert gaps(broker.ledger) == []
    assert_adds_up(broker)


def test_machines_share_a_topic(
    kafka: Any, topic: str, produce: Produce, packets: Sequence[bytes], tmp_path: Path
) -> None:
    """Workers with a home each, as on two machines, have all alerts between them, and end."""
    produce(kafka.plain, topic, packets)
    url = f"kafka://{kafka.plain}/{topic}?{_QUICK}"
    homes = [Settings(home=str(tmp_path / name / "home"), survey="ztf") for name in ("a", "b")]
    machines = [Workers(settings, url) for settings in homes]
    for machine in machines:
        machine.start("w0")
    try:
        assert [machine.wait("w0") for machine in machines] == [0, 0]
    finally:
        for machine in machines:
            machine.stop_all()

    brokers = [Broker(settings) for settings in homes]
    shares = [set(_offsets_of(broker)) for broker in brokers]
    assert len(shares[0] | shares[1]) == len(packets)
    for broker in brokers:
        assert_adds_up(broker)


def _offsets_of(broker: Broker) -> Iterator[tuple[int, int]]:
    for (_, partition), ranges in broker.ledger.offset_ranges().items():
        for first, last in ranges:
            yield from ((partition, offset) for offset in range(first, last + 1))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, and fail if it takes too long."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def _stored(settings: Settings) -> int:
    broker = Broker(settings)
    with broker.ledger as ledger:
        return ledger.sums().stored
