"""A Kafka stream for tests that read what they have just published."""

import time

from confluent_kafka import IsolationLevel
from confluent_kafka.admin import OffsetSpec

from broker.connectors.streams.kafka import KafkaStream
from broker.ports import BatchKey, Messages

_PATIENCE_S = 30.0


class SettledStream(KafkaStream):
    """A publication returns once readers see it.

    The cluster answers that a transaction is committed, and ends it in each partition a moment
    later, which on a busy machine is time enough for a reader to find nothing.
    """

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Publish, and wait."""
        super().publish(topic, messages, key)
        deadline = time.monotonic() + _PATIENCE_S
        while self._is_ending(self._prefix + topic):
            assert time.monotonic() < deadline, "the transaction does not end"
            time.sleep(0.01)

    def _is_ending(self, topic: str) -> bool:
        places = [place for place in self._places() if place.topic == topic]
        ends = {place: OffsetSpec.latest() for place in places}
        seen, there = (
            self._admin.list_offsets(ends, isolation_level=level)
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        )
        return any(seen[it].result(15).offset < there[it].result(15).offset for it in ends)
