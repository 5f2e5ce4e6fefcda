"""All services of one home, ready to be called by name."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from broker.apps.pubsub.appending import Appender
from broker.apps.pubsub.catalogue import Catalogue
from broker.apps.pubsub.holders import Holders
from broker.apps.pubsub.names import parse
from broker.apps.pubsub.parts import Parts
from broker.apps.pubsub.protocol import Call, Message, Subscription
from broker.apps.pubsub.publishing import Publishing
from broker.apps.pubsub.refusals import Code, Refusal, refusing
from broker.apps.pubsub.schemas import Schemas
from broker.apps.pubsub.streaming import StreamingPull
from broker.apps.pubsub.subscribing import Subscribing
from broker.apps.pubsub.waking import Bell, Watcher, of_topic
from broker.connectors.streams.desk import Desk
from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.seeking import Seeker
from broker.connectors.streams.subscriptions import Subscription as Known
from broker.errors import NotFoundError
from broker.ports import Delivery

_STORY = "CloudPubSubDeadLetterSource"

_log = logging.getLogger(__name__)


class Services:
    """Topics, subscriptions and schemas of a home under Google's protocol.

    Parameters
    ----------
    stream : LocalStream
        The topics of the home.
    worker : str
        The stream's worker.
    from_start : bool
        Whether new subscriptions get the messages that are there already.
    """

    def __init__(self, stream: LocalStream, worker: str, *, from_start: bool = False) -> None:
        self._stream = stream
        self._bell = Bell()
        self._catalogue = Catalogue(stream.subscriptions)
        self._appender = Appender(stream, worker)
        self._desk = Desk(stream, self._bury)
        parts = Parts(
            stream,
            self._desk,
            Seeker(stream),
            self._catalogue,
            self._appender,
            self._bell,
        )
        holders = Holders(self._bell)
        schemas = Schemas(self._catalogue)
        subscribing = Subscribing(parts, holders, from_start=from_start)
        self.streaming = StreamingPull(parts, subscribing, holders)
        self._waits = {"Pull": subscribing.pull}
        self._served = (Publishing(parts, schemas), subscribing, schemas)
        self._watcher = Watcher(stream, self._bell, self._bury_dead)

    def start(self) -> None:
        """Begin to look for messages of other processes."""
        self._watcher.start()

    def stop(self) -> None:
        """End the streaming pulls and let go of the home."""
        self.streaming.stop()
        self._watcher.stop()

    def handler(self, call: Call) -> Callable[[Message, Any], Message]:
        """Return what serves a call, given the request and who asks.

        It raises `Refusal` alone.
        """
        owner = next(each for each in self._served if hasattr(each, call.method))
        method = getattr(owner, call.method)
        waits = call.name in self._waits

        def serve(request: Message, caller: Any) -> Message:
            try:
                with refusing():
                    return method(request, caller) if waits else method(request)
            except Refusal:
                raise
            except Exception as error:
                _log.exception("A call failed", extra={"call": call.name})
                raise Refusal(Code.INTERNAL, f"{call.name} failed: {error!r}") from error

        return serve

    def _bury_dead(self) -> None:
        for name in self._desk.rules.with_dead_letters():
            self._desk.bury_dead(name)

    def _bury(self, topic: str, found: Known, deliveries: Sequence[Delivery]) -> None:
        """Publish dead letters with their story."""
        if not self._stream.has_topic(topic):
            raise NotFoundError(f"there is no dead-letter topic {topic!r}")
        made = self._catalogue.get("subscription", found.name, Subscription)
        project = parse("subscriptions", made.name).project if made and made.name else ""
        self._appender.append(
            topic,
            [delivery.payload for delivery in deliveries],
            [_with_story(delivery, found.name, project) for delivery in deliveries],
        )
        self._bell.ring(of_topic(topic))


def _with_story(delivery: Delivery, subscription: str, project: str) -> dict[str, str]:
    published = delivery.published.astimezone(UTC)
    return dict(delivery.attributes) | {
        f"{_STORY}DeliveryCount": str(delivery.attempt),
        f"{_STORY}Subscription": subscription,
        f"{_STORY}SubscriptionProject": project,
        f"{_STORY}TopicPublishTime": _rfc3339(published),
    }


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
