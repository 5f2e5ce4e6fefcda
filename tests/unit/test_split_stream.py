"""A stream whose topics lie in two places keeps the contract."""

import pytest

from broker.connectors.streams.memory import MemoryStream
from broker.connectors.streams.split import SplitStream
from broker.errors import BrokerError
from broker.ports import BatchKey
from broker.testing.stream_contract import Clock, FailingStream, StreamContract, batch


class TestSplitStream(StreamContract):
    @pytest.fixture
    def stream(self, clock: Clock) -> SplitStream:
        """Return a stream that keeps topic ``t`` at home."""
        return SplitStream(MemoryStream(clock), MemoryStream(clock), frozenset({"t"}))

    @pytest.fixture
    def failing(self, clock: Clock) -> FailingStream:
        """Return a stream whose first publication at home fails."""

        def make(error: Exception) -> SplitStream:
            assert isinstance(error, BrokerError)
            return SplitStream(MemoryStream(clock, [error]), MemoryStream(clock), frozenset({"t"}))

        return make


def test_topics_lie_where_they_belong() -> None:
    """What is kept is at home, all else on the bus; subscriptions follow their topics."""
    home, bus = MemoryStream(), MemoryStream()
    split = SplitStream(home, bus, frozenset({"raw"}))
    for topic in ("raw", "told"):
        split.publish(topic, batch(0), BatchKey("w0", 0))
        split.subscribe(topic, f"of-{topic}")
        split.acknowledge(f"of-{topic}", [it.ack_id for it in split.pull(f"of-{topic}", 2)])

    assert [info.name for info in home.topics()] == ["raw"]
    assert [info.name for info in bus.topics()] == ["told"]
    assert [dict(info.backlog) for info in split.topics()] == [{"of-raw": 1}, {"of-told": 1}]
