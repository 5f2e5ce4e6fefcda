"""Google's own Pub/Sub clients, with the few calls that tests repeat."""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, Queue
from typing import Any
from uuid import uuid4

from google.cloud import pubsub_v1
from google.pubsub_v1.types import PubsubMessage, ReceivedMessage

PROJECT = "conformance"
_WAIT_S = 15.0


class Bus:
    """A publisher and a subscriber on one server; each test uses names of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        options = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
        self.publisher = pubsub_v1.PublisherClient(publisher_options=options)
        self.subscriber = pubsub_v1.SubscriberClient()
        self._names = itertools.count()
        self._mark = uuid4().hex[:8]

    def __enter__(self) -> "Bus":
        return self

    def __exit__(self, *_: object) -> None:
        self.publisher.transport.close()
        self.subscriber.close()

    def name(self, kind: str) -> str:
        """Return an unused path of a kind such as ``topics``."""
        return f"projects/{PROJECT}/{kind}/test-{self._mark}-{next(self._names)}"

    def topic(self, **settings: Any) -> str:
        """Make a topic."""
        return str(self.publisher.create_topic({"name": self.name("topics"), **settings}).name)

    def subscription(self, topic: str, **settings: Any) -> str:
        """Make a subscription."""
        wanted = {"name": self.name("subscriptions"), "topic": topic, **settings}
        return str(self.subscriber.create_subscription(wanted).name)

    def pair(self, **settings: Any) -> tuple[str, str]:
        """Make a topic and a subscription on it."""
        topic = self.topic()
        return topic, self.subscription(topic, **settings)

    def publish(self, topic: str, *payloads: bytes, key: str = "", **attributes: str) -> list[str]:
        """Publish in one request; return the message ids."""
        messages = [
            PubsubMessage(data=payload, attributes=attributes, ordering_key=key)
            for payload in payloads
        ]
        found = self.publisher.transport.publish(
            pubsub_v1.types.PublishRequest(topic=topic, messages=messages)
        )
        return list(found.message_ids)

    def pull(self, subscription: str, count: int, wait_s: float = _WAIT_S) -> list[ReceivedMessage]:
        """Pull until there are `count` messages or the time is over."""
        found: list[ReceivedMessage] = []
        deadline = time.monotonic() + wait_s
        while len(found) < count and time.monotonic() < deadline:
            wanted = {"subscription": subscription, "max_messages": count - len(found)}
            try:
                found += self.subscriber.pull(wanted, timeout=3).received_messages
            except Exception as error:
                if "DeadlineExceeded" not in type(error).__name__:
                    raise
        return found

    def nothing_comes(self, subscription: str, wait_s: float = 0.5) -> bool:
        """Tell whether a pull finds nothing."""
        time.sleep(wait_s)
        wanted = {"subscription": subscription, "max_messages": 10, "return_immediately": True}
        return not self.subscriber.transport.pull(
            pubsub_v1.types.PullRequest(**wanted)
        ).received_messages

    def acknowledge(self, subscription: str, messages: Sequence[ReceivedMessage]) -> None:
        """Acknowledge what was pulled."""
        ids = [message.ack_id for message in messages]
        self.subscriber.acknowledge(subscription=subscription, ack_ids=ids)

    def set_deadline(
        self, subscription: str, messages: Sequence[ReceivedMessage], seconds: int
    ) -> None:
        """Move the deadline of what was pulled; 0 gives it back."""
        ids = [message.ack_id for message in messages]
        self.subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=ids, ack_deadline_seconds=seconds
        )

    @contextmanager
    def streaming(self, subscription: str, **limits: int) -> Iterator["Queue[Any]"]:
        """Hold a streaming pull whose messages come in a queue."""
        queue: Queue[Any] = Queue()
        control = pubsub_v1.types.FlowControl(**limits)
        future = self.subscriber.subscribe(subscription, queue.put, flow_control=control)
        try:
            yield queue
        finally:
            future.cancel()
            future.result()


def take(queue: "Queue[Any]", count: int, wait_s: float = _WAIT_S) -> list[Any]:
    """Return up to `count` messages of a streaming pull."""
    found = []
    deadline = time.monotonic() + wait_s
    while len(found) < count:
        try:
            found.append(queue.get(timeout=max(deadline - time.monotonic(), 0.01)))
        except Empty:
            break
    return found


def data(messages: Sequence[ReceivedMessage]) -> list[bytes]:
    """Return the payloads of what was pulled."""
    return [message.message.data for message in messages]
