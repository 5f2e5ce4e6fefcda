"""Topics and subscriptions on Google Cloud Pub/Sub, or on an emulator of it.

What differs from the local stream:

* Pub/Sub knows no batches: a key is remembered as long as the process lives, so that a batch
  that is told again after a crash is there twice (at least once, never lost); readers tell
  doubles by the alert's ids among the attributes;
* messages come in no order, and now and then twice;
* how many messages a topic or a backlog holds is not known: the numbers are -1;
* which attempt a delivery is, is known for subscriptions with a dead-letter topic only;
* a subscription starts at the oldest message that its topic retains.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api_core import exceptions as api
from google.pubsub_v1 import types

from broker.config import Settings
from broker.connectors.gcp.clients import Cloud, project_of
from broker.connectors.gcp.pubsub import (
    ACK_IDS,
    REQUEST_BYTES,
    REQUEST_MESSAGES,
    PubSub,
    parts,
    sizes,
)
from broker.connectors.streams.attribute_filter import AttributeFilter
from broker.connectors.streams.texts import attribute_texts
from broker.errors import ForbiddenError, NotFoundError, RefusedError, UsageError
from broker.ports import BatchKey, Delivery, Messages, TopicInfo

_IN_FLIGHT = 4
"""Requests to publish that are under way at a time, 9 MB each at most."""

_PULL_BYTES = 64 << 20
_PULL_MESSAGES = 500

_LONGEST_RETENTION = timedelta(days=31)
_UNKNOWN = -1

_Request = Any


class PubSubStream:
    """A `Stream` on Pub/Sub.

    Parameters
    ----------
    cloud : Cloud
        The project.
    prefix : str
        What the names of our topics and subscriptions start with, where others share it.
    retention : timedelta
        How long a topic that is made here keeps messages for later subscriptions.
    patience_s : float
        How long Pub/Sub may be away before a call fails, s.
    pull_wait_s : float
        How long `pull` waits for the first message, s.
    now : callable
        The clock.
    """

    def __init__(
        self,
        cloud: Cloud,
        *,
        prefix: str = "",
        retention: timedelta = timedelta(days=7),
        patience_s: float = 60.0,
        pull_wait_s: float = 2.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cloud = cloud
        self._pubsub = PubSub(cloud, patience_s)
        self._prefix = prefix
        self._retention = retention
        self._pull_wait_s = pull_wait_s
        self._now = now
        self._senders = ThreadPoolExecutor(_IN_FLIGHT, "publish")
        self._last: dict[tuple[str, str], int] = {}
        self._sent: dict[tuple[str, BatchKey], set[int]] = {}

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, owner: str = "") -> "PubSubStream":  # noqa: ARG003
        """Make the stream of ``pubsub://[project]/[prefix]``.

        Raises
        ------
        ConfigError
            If no project is named, in the place or in the settings, or there are no credentials.
        NotFoundError, ForbiddenError, TransientError
            If Pub/Sub cannot be used.
        """
        cloud, prefix = project_of(url, settings)
        stream = cls(cloud, prefix=prefix)
        stream.check()
        return stream

    def check(self) -> None:
        """See whether Pub/Sub answers; who may only publish need not be let in here.

        Raises
        ------
        ConfigError
            If there are no credentials.
        NotFoundError
            If there is no such project.
        ForbiddenError
            If the API is disabled.
        TransientError
            If Pub/Sub does not answer.
        """
        request = {"project": f"projects/{self._cloud.project}", "page_size": 1}
        try:
            self._pubsub.ask(self._cloud.publisher.list_topics, request=request)
        except ForbiddenError as error:
            if "permission denied" not in str(error):
                raise

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Append to `topic`, creating it; on return Pub/Sub has every message.

        A key at or below the last that this process published for its worker does nothing;
        a batch that failed half-way goes on where it stopped.

        Raises
        ------
        RefusedError
            If a message is beyond Pub/Sub's limits (nothing is sent then), or not wanted.
        TransientError
            If Pub/Sub does not answer.
        """
        if key.number <= self._last.get((topic, key.worker), -1):
            return
        if not len(messages.payloads):
            self._create(topic)
            return
        path = self._topic(topic)
        done = self._sent.setdefault((topic, key), set())
        requests = enumerate(_requests(path, messages, sizes(messages, topic, key)))
        missing = [(place, request) for place, request in requests if place not in done]
        if missing:  # the first alone, as it makes the topic
            self._send(topic, missing[0], done)
        list(self._senders.map(lambda each: self._send(topic, each, done), missing[1:]))
        del self._sent[topic, key]
        self._last[topic, key.worker] = key.number

    def topics(self) -> list[TopicInfo]:
        """List our topics, in order of name, with their subscriptions; no number is known."""
        request = {"project": f"projects/{self._cloud.project}"}
        found = self._pubsub.every(self._cloud.publisher.list_topics, request=request)
        names = [topic.name.rsplit("/", 1)[-1] for topic in found]
        return [self._info(name) for name in sorted(names) if name.startswith(self._prefix)]

    def subscribe(
        self,
        topic: str,
        name: str,
        *,
        attribute_filter: str = "",
        ack_deadline_s: float = 60,
        dead_letter_topic: str = "",
        max_attempts: int = 5,
    ) -> None:
        """Make a subscription, from the oldest message on; the same call again does nothing.

        Parameters
        ----------
        topic, name : str
            What to read, and as whom.
        attribute_filter : str
            Pub/Sub's own grammar; it cannot be changed later.
        ack_deadline_s : float
            Time for an acknowledgement, 10 to 600 s.
        dead_letter_topic : str
            Where a message goes after `max_attempts`; made if absent.
        max_attempts : int
            5 to 100 deliveries.

        Raises
        ------
        NotFoundError
            If there is no such topic.
        RefusedError
            If the name is taken by another topic or filter.
        UsageError
            If the filter cannot be read, or the deadline cannot be kept.
        """
        AttributeFilter(attribute_filter)
        if not 10 <= ack_deadline_s <= 600:
            raise UsageError(f"the deadline must be 10 to 600 s on Pub/Sub, not {ack_deadline_s:g}")
        request: dict[str, Any] = {
            "name": self._subscription(name),
            "topic": self._topic(topic),
            "filter": attribute_filter,
            "ack_deadline_seconds": math.ceil(ack_deadline_s),
        }
        if dead_letter_topic:
            self._create(dead_letter_topic)
            path = self._topic(dead_letter_topic)
            request["dead_letter_policy"] = types.DeadLetterPolicy(
                dead_letter_topic=path, max_delivery_attempts=max_attempts
            )
        if self._made(self._cloud.subscriber.create_subscription, request, f"topic {topic!r}"):
            oldest = {"subscription": request["name"], "time": self._now() - _LONGEST_RETENTION}
            self._pubsub.ask(self._cloud.subscriber.seek, request=oldest)
        else:
            self._check_same(name, request)

    def pull(self, subscription: str, max_messages: int) -> list[Delivery]:
        """Lease up to `max_messages`, and 64 MB; waits a little if there are none.

        Pub/Sub often gives fewer than there are: that nothing is left, only an empty answer
        tells.

        Raises
        ------
        NotFoundError
            If there is no such subscription.
        """
        found: list[Delivery] = []
        size = 0
        while len(found) < max_messages and size < _PULL_BYTES:
            most = min(max_messages - len(found), _PULL_MESSAGES)
            leased = self._pull_once(subscription, most)
            found += leased
            size += sum(len(delivery.payload) for delivery in leased)
            if len(leased) < most:  # asking again might wait for nothing
                break
        return found

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Never deliver these again; Pub/Sub does so anyway once in a long while."""
        for some in parts(ack_ids, ACK_IDS):
            request = {"subscription": self._subscription(subscription), "ack_ids": some}
            self._ask(self._cloud.subscriber.acknowledge, request, subscription)

    def release(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Deliver these again now."""
        for some in parts(ack_ids, ACK_IDS):
            request = {
                "subscription": self._subscription(subscription),
                "ack_ids": some,
                "ack_deadline_seconds": 0,
            }
            self._ask(self._cloud.subscriber.modify_ack_deadline, request, subscription)

    def close(self) -> None:
        """Wait for what is under way; Google's clients stay for others."""
        self._senders.shutdown()

    def _send(self, topic: str, numbered: tuple[int, _Request], done: set[int]) -> None:
        place, request = numbered
        try:
            self._pubsub.ask(self._cloud.publish, request=request)
        except NotFoundError:
            self._create(topic)
            self._pubsub.ask(self._cloud.publish, what=f"topic {topic!r}", request=request)
        done.add(place)

    def _create(self, topic: str) -> None:
        request = {"name": self._topic(topic), "message_retention_duration": self._retention}
        self._made(self._cloud.publisher.create_topic, request)

    def _made(self, make: Callable[..., Any], request: dict[str, Any], what: str = "") -> bool:
        """Make something; tell whether it was not there before."""

        def call(**more: Any) -> bool:
            try:
                make(request=request, **more)
            except api.AlreadyExists:
                return False
            return True

        return bool(self._pubsub.ask(call, what))

    def _check_same(self, name: str, wanted: dict[str, Any]) -> None:
        request = {"subscription": wanted["name"]}
        known = self._ask(self._cloud.subscriber.get_subscription, request, name)
        if (known.topic, known.filter) != (wanted["topic"], wanted["filter"]):
            topic = known.topic.rsplit("/", 1)[-1].removeprefix(self._prefix)
            raise RefusedError(f"subscription {name!r} exists already, on topic {topic!r}")

    def _pull_once(self, name: str, most: int) -> list[Delivery]:
        """Lease what a single request gives."""
        request = {"subscription": self._subscription(name), "max_messages": most}

        def call(**more: Any) -> Any:
            try:
                return self._cloud.subscriber.pull(request=request, **more).received_messages
            except api.DeadlineExceeded:
                return []

        what = f"subscription {name!r}"
        leased = self._pubsub.ask(call, what, again=False, timeout=self._pull_wait_s)
        return [_delivery(each) for each in leased]

    def _ask(self, call: Callable[..., Any], request: dict[str, Any], subscription: str) -> Any:
        return self._pubsub.ask(call, f"subscription {subscription!r}", request=request)

    def _info(self, full_name: str) -> TopicInfo:
        request = {"topic": self._pubsub.path("topics", full_name)}
        found = self._pubsub.every(self._cloud.publisher.list_topic_subscriptions, request=request)
        here = self._subscription("")
        names = [path.removeprefix(here) for path in found if path.startswith(here)]
        backlog = dict.fromkeys(sorted(names), _UNKNOWN)
        return TopicInfo(full_name.removeprefix(self._prefix), _UNKNOWN, backlog)

    def _topic(self, name: str) -> str:
        return self._pubsub.path("topics", self._prefix + name)

    def _subscription(self, name: str) -> str:
        return self._pubsub.path("subscriptions", self._prefix + name)


def _requests(path: str, messages: Messages, weights: Sequence[int]) -> Iterator[_Request]:
    """Divide a batch into requests, in order."""
    kind, request_kind = types.PubsubMessage.pb(), types.PublishRequest.pb()
    texts = attribute_texts(messages.attributes, range(len(messages.payloads)))
    part: list[Any] = []
    size = 0
    for payload, attributes, weight in zip(messages.payloads, texts, weights, strict=True):
        if part and (size + weight > REQUEST_BYTES or len(part) == REQUEST_MESSAGES):
            yield types.PublishRequest.wrap(request_kind(topic=path, messages=part))
            part, size = [], 0
        part.append(kind(data=payload, attributes=attributes))
        size += weight
    yield types.PublishRequest.wrap(request_kind(topic=path, messages=part))


def _delivery(received: Any) -> Delivery:
    raw = types.ReceivedMessage.pb(received)
    return Delivery(
        raw.message.message_id,
        raw.ack_id,
        raw.message.data,
        dict(raw.message.attributes),
        raw.message.publish_time.ToDatetime(UTC),
        max(raw.delivery_attempt, 1),
    )
