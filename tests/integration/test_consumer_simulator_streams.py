"""The consumer simulator on the embedded streams, and on a real Apache Kafka."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.memory import MemoryStream
from broker.ports import Stream
from consumer_simulator_contract import WORKER, ConsumerSimulatorContract
from tests_support import Pgb


class TestInMemory(ConsumerSimulatorContract):
    @pytest.fixture
    def stream(self) -> Stream:
        """Return a stream in memory."""
        return MemoryStream()


class TestOnDisk(ConsumerSimulatorContract):
    @pytest.fixture
    def stream(self, tmp_path: Path) -> Stream:
        """Return a home's stream."""
        return LocalStream(tmp_path, WORKER)


@pytest.mark.slow
class TestKafka(ConsumerSimulatorContract):
    @pytest.fixture
    def stream(self, kafka: Any) -> Iterator[Stream]:
        """Return a stream on a cluster, under names that no other test uses."""
        from kafka_settled import SettledStream

        servers = {"bootstrap.servers": kafka.plain}
        made = SettledStream(servers, prefix=f"{uuid4().hex[:8]}.", partitions=2)
        yield made
        made.close()


@pytest.mark.slow
def test_the_command_publishes_on_the_bus(kafka: Any, tmp_path: Path):
    """From the reservoir in the home, which a run has made, to a topic on the cluster."""
    bus, pgb = f"kafka://{kafka.plain}/{uuid4().hex[:8]}.", Pgb(tmp_path)
    url = "sim://ztf?alerts=30&model=parametric"
    assert json.loads(pgb("run", url, "--bus", bus, "--json"))["stored"] == 30

    words = ["--rate", ".5perSec", "--runtime", "4sec", "--every", "1", "--testid", "mytest"]
    made = json.loads(pgb("simulate", "stream", *words, "--bus", bus, "--json"))

    assert (made["published"], made["ended"]) == (2, "finished")
    topics = json.loads(pgb("topics", "--bus", bus, "--json"))
    counts = {topic["topic"]: topic for topic in topics}
    assert counts["ztf-alerts-mytest"]["messages"] == 2
    assert counts["ztf-alerts"]["backlog"]["ztf-alerts-reservoir"] == 28
    assert "ztf-alerts_pure-counter" in counts["ztf-alerts_pure"]["backlog"]
