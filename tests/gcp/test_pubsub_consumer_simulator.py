"""The consumer simulator on Pub/Sub, which Google's emulator stands for."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from broker.connectors.gcp.clients import Cloud
from broker.connectors.streams.pubsub import PubSubStream
from broker.ports import Stream
from consumer_simulator_contract import ConsumerSimulatorContract


class TestPubSub(ConsumerSimulatorContract):
    @pytest.fixture
    def stream(self, google_address: str) -> Iterator[Stream]:
        """Return a stream on the emulator, under names that no other test uses."""
        cloud = Cloud("test-project", pubsub=google_address)
        made = PubSubStream(cloud, prefix=f"p{uuid4().hex[:8]}-", pull_wait_s=0.5)
        yield made
        made.close()
