"""Why offsets are missing, as far as the server tells."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from broker.connectors.kafka.client import make_client
from broker.connectors.kafka.offsets import Jump, Partition
from broker.ports import OffsetGap

RETENTION = "retention"
COMPACTION = "compaction"
TRANSACTIONS = "marks of transactions"
UNKNOWN = "compaction or marks of transactions"


class GapNames:
    """Names jumps between offsets.

    Offsets before the oldest that the server has were dropped by *retention*. Missing ones
    after it were taken by *compaction*, if the topic is compacted, or never held a message:
    the *marks of transactions* and what an aborted one left behind.

    Parameters
    ----------
    consumer : Consumer
        Who read.
    properties : mapping
        Client properties, the addresses and the login among them.
    answer_s : float
        How long one question to the server may take, s.
    """

    def __init__(self, consumer: Any, properties: Mapping[str, Any], answer_s: float) -> None:
        self._consumer = consumer
        self._properties = properties
        self._answer_s = answer_s
        self._reasons: dict[str, str] = {}

    def name(self, jumps: Iterable[Jump]) -> list[OffsetGap]:
        """Return jumps with their reasons."""
        oldest: dict[Partition, int] = {}
        gaps = []
        for jump in jumps:
            if jump.partition not in oldest:
                oldest[jump.partition] = self._oldest(jump.partition)
            gone = jump.last < oldest[jump.partition]
            reason = RETENTION if gone else self._reason_within(jump.partition[0])
            gaps.append(OffsetGap(*jump.partition, jump.first, jump.last, reason))
        return gaps

    def _oldest(self, partition: Partition) -> int:
        with suppress(KafkaException):
            asked = TopicPartition(*partition)
            found = self._consumer.get_watermark_offsets(asked, timeout=self._answer_s)
            return int(found[0]) if found else 0
        return 0

    def _reason_within(self, topic: str) -> str:
        """Return why offsets are missing in what a topic holds; asked for once a topic."""
        if topic not in self._reasons:
            self._reasons[topic] = self._ask(topic)
        return self._reasons[topic]

    def _ask(self, topic: str) -> str:
        wanted = ConfigResource(ResourceType.TOPIC, topic)
        admin = make_client(AdminClient, self._properties)
        with suppress(KafkaException):  # not everyone is allowed to ask
            answer = admin.describe_configs([wanted], request_timeout=self._answer_s)
            policy = str(answer[wanted].result(self._answer_s)["cleanup.policy"].value)
            return COMPACTION if "compact" in policy else TRANSACTIONS
        return UNKNOWN
