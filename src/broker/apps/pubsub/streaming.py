"""The streaming pull: messages as they come, as many as the client can hold."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import grpc

from broker.apps.pubsub import protocol
from broker.apps.pubsub.deliveries import MOST_BYTES, fill
from broker.apps.pubsub.holders import Holder, Holders
from broker.apps.pubsub.parts import Parts
from broker.apps.pubsub.protocol import Message
from broker.apps.pubsub.refusals import Refusal, invalid, refusing
from broker.apps.pubsub.subscribing import Subscribing
from broker.apps.pubsub.waking import of_subscription, of_topic
from broker.connectors.streams.desk import Ask
from broker.ports import Delivery

_LEAST_DEADLINE_S, _MOST_DEADLINE_S = 10, 600
# Leases that run out are found this soon.
_LOOK_S = 1.0
# How long a stream waits to hear of a message that its client may not be able to take.
_ARRIVAL_S = 2.0

_log = logging.getLogger(__name__)


class Caller(Protocol):
    """The client at the other end of a stream."""

    def is_active(self) -> bool:
        """Tell whether the stream is open."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call something when the stream ends."""
        ...


class StreamingPull:
    """Serves streaming pulls.

    Parameters
    ----------
    parts : Parts
        What the services share.
    subscribing : Subscribing
        Takes acknowledgements.
    holders : Holders
        Where streams are known.
    """

    def __init__(self, parts: Parts, subscribing: Subscribing, holders: Holders) -> None:
        self._parts = parts
        self._subscribing = subscribing
        self._holders = holders
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End all streams; clients come again."""
        self._stopped.set()
        self._parts.bell.ring_all()

    def serve(self, requests: Iterator[Message], caller: Caller) -> Iterator[Message]:
        """Yield responses until the client goes or the server stops.

        Raises
        ------
        Refusal
            If the first request is wrong, or the subscription goes away.
        """
        first = next(requests, None)
        if first is None:
            return
        name = self._subscribing.existing(first.subscription).name
        holder = Holder(
            name,
            _deadline(first.stream_ack_deadline_seconds),
            first.max_outstanding_messages,
            first.max_outstanding_bytes,
        )
        self._take(holder, first)
        self._holders.add(holder)
        bell = of_subscription(name)
        caller.add_callback(lambda: self._parts.bell.ring(bell))
        reader = threading.Thread(target=self._read, args=(holder, requests), daemon=True)
        reader.start()
        try:
            yield from self._responses(holder, caller)
        finally:
            self._holders.remove(holder)

    def _responses(self, holder: Holder, caller: Caller) -> Iterator[Message]:
        name = holder.subscription
        settings = self._subscribing.settings_of(name)
        attempts = settings.HasField("dead_letter_policy")
        with refusing():
            while caller.is_active() and not self._stopped.is_set():
                deliveries = self._pull(holder, caller)
                if not deliveries:
                    continue
                response = protocol.StreamingPullResponse()
                fill(response, deliveries, attempts=attempts)
                properties = response.subscription_properties
                properties.exactly_once_delivery_enabled = settings.enable_exactly_once_delivery
                properties.message_ordering_enabled = settings.enable_message_ordering
                holder.sent(deliveries)
                large = response.ByteSize() > MOST_BYTES
                try:
                    yield response
                except GeneratorExit:
                    # A client that ends at a large message would end at it again at once.
                    if not large:
                        self._parts.desk.take_back(name, deliveries)
                    raise
                if large:
                    self._see_it_arrive(holder, deliveries[0].message_id, caller)

    def _see_it_arrive(self, holder: Holder, message_id: str, caller: Caller) -> None:
        """Wait for a word about a large message, whose stream may break at it.

        Google's client tells that it has a message; with its limit of 4 MB it ends the stream
        instead, and what was sent after the message would be out for nothing.
        """
        bell, lease = of_subscription(holder.subscription), holder.lease_of(message_id)
        until = time.monotonic() + _ARRIVAL_S
        while (
            caller.is_active() and holder.lease_of(message_id) == lease and time.monotonic() < until
        ):
            self._parts.bell.wait(self._parts.bell.heard(bell), _ARRIVAL_S / 20, bell)

    def _pull(self, holder: Holder, caller: Caller) -> list[Delivery]:
        """Lease what there is room for, or wait a moment."""
        name, bell = holder.subscription, self._parts.bell
        bells = of_topic(self._parts.stream.subscriptions.get(name).topic), of_subscription(name)
        heard = bell.heard(*bells)
        count, size = holder.room()
        found: list[Delivery] = []
        if count and size:
            ask = Ask(count, min(size, MOST_BYTES), holder.deadline_s)
            found = self._parts.desk.pull(name, ask)
        if found and not caller.is_active():
            self._parts.desk.take_back(name, found)
            return []
        if not found:
            bell.wait(heard, _LOOK_S, *bells)
        return found

    def _read(self, holder: Holder, requests: Iterator[Message]) -> None:
        """Take what the client sends while it receives."""
        try:
            for request in requests:
                with refusing():
                    self._take(holder, request)
        except Refusal as refusal:
            _log.info("A streaming pull sent a wrong request", extra={"reason": refusal.words})
        except grpc.RpcError:  # the client has gone
            _log.debug("A streaming pull ended")

    def _take(self, holder: Holder, request: Message) -> None:
        if request.stream_ack_deadline_seconds:
            holder.deadline_s = _deadline(request.stream_ack_deadline_seconds)
        if request.ack_ids:
            self._parts.desk.acknowledge(holder.subscription, request.ack_ids)
            self._holders.settle(holder.subscription, request.ack_ids)
        if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
            raise invalid("modify_deadline_ack_ids and modify_deadline_seconds differ in number")
        changes: dict[int, list[str]] = {}
        pairs = zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=True)
        for ack_id, seconds in pairs:
            changes.setdefault(seconds, []).append(ack_id)
        for seconds, ack_ids in changes.items():
            self._subscribing.move(holder.subscription, ack_ids, seconds)


def _deadline(seconds: int) -> int:
    if not _LEAST_DEADLINE_S <= seconds <= _MOST_DEADLINE_S:
        raise invalid(f"stream_ack_deadline_seconds must be 10 to 600, not {seconds}")
    return seconds
