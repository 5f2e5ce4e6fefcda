"""A stream in memory, for tests: the same contract, failures scripted as data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from broker.connectors.streams.attribute_filter import AttributeFilter
from broker.connectors.streams.texts import attribute_texts
from broker.errors import BrokerError, NotFoundError, RefusedError
from broker.ports import BatchKey, Delivery, Messages, TopicInfo


@dataclass(slots=True)
class _Batch:
    key: BatchKey
    messages: Messages
    published: datetime


@dataclass(slots=True)
class _Lease:
    delivery: Delivery
    deadline_s: float


@dataclass(slots=True)
class _Subscription:
    topic: str
    attribute_filter: AttributeFilter
    ack_deadline_s: float
    waiting: list[Delivery] = field(default_factory=list)
    leases: dict[str, _Lease] = field(default_factory=dict)


class MemoryStream:
    """A `Stream` and `Journal` that lives as long as the object.

    Parameters
    ----------
    now : callable
        The clock.
    failures : sequence of BrokerError
        The next calls of `publish` and `append` raise these, one each, and then succeed.
    """

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        failures: Sequence[BrokerError] = (),
    ) -> None:
        self._now = now
        self._failures = list(failures)
        self._topics: dict[str, list[_Batch]] = {}
        self._subscriptions: dict[str, _Subscription] = {}

    def create_topic(self, topic: str) -> None:
        """Make a topic; the same call again does nothing."""
        self._topics.setdefault(topic, [])

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Append to `topic`, creating it; a key at or below its worker's last does nothing."""
        if self._failures:
            raise self._failures.pop(0)
        batches = self._topics.setdefault(topic, [])
        last = max((it.key.number for it in batches if it.key.worker == key.worker), default=-1)
        if key.number <= last or not messages.payloads:
            return
        batches.append(_Batch(key, messages, self._now()))
        for subscription in self._subscriptions.values():
            if subscription.topic == topic:
                subscription.waiting += _matching(batches[-1], subscription)

    def append(self, key: BatchKey, messages: Messages) -> None:
        """Append to the journal; the same key again does nothing."""
        self.publish("journal", messages, key)

    def read(self, key: BatchKey) -> Messages | None:
        """Return a batch of the journal; None if it is not there."""
        found = (it.messages for it in self._topics.get("journal", []) if it.key == key)
        return next(found, None)

    def topics(self) -> list[TopicInfo]:
        """List the topics, in order of name."""
        return [
            TopicInfo(
                name,
                sum(len(batch.messages.payloads) for batch in batches),
                {
                    key: len(it.waiting) + len(it.leases)
                    for key, it in self._subscriptions.items()
                    if it.topic == name
                },
            )
            for name, batches in sorted(self._topics.items())
        ]

    def subscribe(
        self, topic: str, name: str, *, attribute_filter: str = "", ack_deadline_s: float = 60
    ) -> None:
        """Make a subscription, from the oldest message on; the same call again does nothing.

        Raises
        ------
        NotFoundError
            If there is no such topic.
        RefusedError
            If the name is taken by another topic or filter.
        """
        if topic not in self._topics:
            raise NotFoundError(f"there is no topic {topic!r}")
        wanted = _Subscription(topic, AttributeFilter(attribute_filter), ack_deadline_s)
        found = self._subscriptions.get(name)
        if found is None:
            for batch in self._topics[topic]:
                wanted.waiting += _matching(batch, wanted)
            self._subscriptions[name] = wanted
        elif (found.topic, found.attribute_filter) != (topic, wanted.attribute_filter):
            raise RefusedError(f"subscription {name!r} exists already, on topic {found.topic!r}")

    def pull(self, subscription: str, max_messages: int) -> list[Delivery]:
        """Lease up to `max_messages`, those whose lease expired first."""
        found = self._get(subscription)
        now_s = self._now().timestamp()
        expired = [it.delivery for it in found.leases.values() if it.deadline_s <= now_s]
        chosen = expired[:max_messages]
        for delivery in chosen:
            del found.leases[delivery.message_id]
        new = found.waiting[: max_messages - len(chosen)]
        del found.waiting[: len(new)]
        leased = [_next_attempt(delivery) for delivery in [*chosen, *new]]
        for delivery in leased:
            lease = _Lease(delivery, now_s + found.ack_deadline_s)
            found.leases[delivery.message_id] = lease
        return leased

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Never deliver these again."""
        for ack_id in ack_ids:
            self._get(subscription).leases.pop(ack_id.rsplit("/", 1)[0], None)

    def release(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Deliver these again now."""
        for lease in self._get(subscription).leases.values():
            if lease.delivery.ack_id in ack_ids:
                lease.deadline_s = 0

    def close(self) -> None:
        """Do nothing; what was published stays."""

    def _get(self, name: str) -> _Subscription:
        if name not in self._subscriptions:
            raise NotFoundError(f"there is no subscription {name!r}")
        return self._subscriptions[name]


def _matching(batch: _Batch, subscription: _Subscription) -> list[Delivery]:
    messages = batch.messages
    rows = range(len(messages.payloads))
    if subscription.attribute_filter.text.strip():
        rows = subscription.attribute_filter.rows(messages.attributes).tolist()
    texts = attribute_texts(messages.attributes, rows)
    return [
        Delivery(f"{batch.key}-{row}", "", messages.payloads[row], text, batch.published, 0)
        for row, text in zip(rows, texts, strict=True)
    ]


def _next_attempt(delivery: Delivery) -> Delivery:
    attempt = delivery.attempt + 1
    ack_id = f"{delivery.message_id}/{attempt}"
    return Delivery(
        *(delivery.message_id, ack_id, delivery.payload, delivery.attributes),
        *(delivery.published, attempt),
    )
