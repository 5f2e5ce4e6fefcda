"""The consumer simulator on Pub/Sub: on Google's emulator, and on our own server."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from broker.connectors.gcp.clients import Cloud
from broker.connectors.streams.pubsub import PubSubStream
from broker.ports import Stream
from consumer_simulator_contract import ConsumerSimulatorContract


class TestPubSub(ConsumerSimulatorContract):
    @pytest.fixture(params=["google_address", "our_address"])
    def stream(self, request: pytest.FixtureRequest) -> Iterator[Stream]:
        """Return a stream on a server, under names that no other test uses."""
        cloud = Cloud("test-project", pubsub=request.getfixturevalue(request.param))
        made = PubSubStream(cloud, prefix=f"p{uuid4().hex[:8]}-", pull_wait_s=0.5)
        yield made
        made.close()
