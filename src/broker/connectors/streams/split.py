"""Two streams as one: raw packets in the home, everything that is told on a bus."""

from collections.abc import Sequence

from broker.errors import NotFoundError
from broker.ports import BatchKey, Delivery, Messages, Stream, TopicInfo


class SplitStream:
    """A `Stream` whose topics lie in two places.

    Parameters
    ----------
    home : Stream
        Holds the topics named by `kept`.
    bus : Stream
        Holds all others.
    kept : frozenset of str
        Names of the topics that stay in the home.
    """

    def __init__(self, home: Stream, bus: Stream, kept: frozenset[str]) -> None:
        self._home = home
        self._bus = bus
        self._kept = kept

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Append to `topic` where it lies."""
        self._of_topic(topic).publish(topic, messages, key)

    def topics(self) -> list[TopicInfo]:
        """List the topics of both, in order of name."""
        here = [info for info in self._home.topics() if info.name in self._kept]
        there = [info for info in self._bus.topics() if info.name not in self._kept]
        return sorted([*here, *there], key=lambda info: info.name)

    def subscribe(
        self, topic: str, name: str, *, attribute_filter: str = "", ack_deadline_s: float = 60
    ) -> None:
        """Make a subscription where its topic lies."""
        self._of_topic(topic).subscribe(
            topic, name, attribute_filter=attribute_filter, ack_deadline_s=ack_deadline_s
        )

    def pull(self, subscription: str, max_messages: int) -> list[Delivery]:
        """Lease up to `max_messages`."""
        try:
            return self._home.pull(subscription, max_messages)
        except NotFoundError:
            return self._bus.pull(subscription, max_messages)

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Never deliver these again."""
        self._of_subscription(subscription).acknowledge(subscription, ack_ids)

    def release(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Deliver these again now."""
        self._of_subscription(subscription).release(subscription, ack_ids)

    def close(self) -> None:
        """Close both."""
        self._bus.close()
        self._home.close()

    def _of_topic(self, topic: str) -> Stream:
        return self._home if topic in self._kept else self._bus

    def _of_subscription(self, name: str) -> Stream:
        names = {known for info in self._home.topics() for known in info.backlog}
        return self._home if name in names else self._bus
