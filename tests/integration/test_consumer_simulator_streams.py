"""The consumer simulator on the embedded streams, and on a real Apache Kafka."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.memory import MemoryStream
from broker.ports import Stream
from consumer_simulator_contract import WORKER, ConsumerSimulatorContract


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
        from broker.connectors.streams.kafka import KafkaStream

        servers = {"bootstrap.servers": kafka.plain}
        made = KafkaStream(servers, prefix=f"{uuid4().hex[:8]}.", partitions=2)
        yield made
        made.close()
