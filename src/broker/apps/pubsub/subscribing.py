"""The service that makes subscriptions, leases their messages and takes acknowledgements."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from broker.apps.pubsub import protocol
from broker.apps.pubsub.catalogue import page, update
from broker.apps.pubsub.deliveries import MOST_BYTES, fill
from broker.apps.pubsub.holders import Holders
from broker.apps.pubsub.names import DELETED_TOPIC, Path, parse, parse_new, project_of
from broker.apps.pubsub.parts import Parts
from broker.apps.pubsub.protocol import Message, response_of
from broker.apps.pubsub.refusals import (
    Code,
    Refusal,
    already_exists,
    invalid,
    not_found,
    unimplemented,
)
from broker.apps.pubsub.subscription_settings import CHANGEABLE, checked, rules_of
from broker.apps.pubsub.waking import of_subscription, of_topic
from broker.connectors.streams.desk import Ask
from broker.connectors.streams.subscriptions import Subscription
from broker.errors import NotFoundError, RefusedError

_MOST_DEADLINE_S = 600
_DAY_S = 86_400
# How long a pull waits for a first message.
_PULL_S = 5.0
_CHECK_S = 0.5


class Caller(Protocol):
    """Who asks, as far as a service wants to know."""

    def is_active(self) -> bool:
        """Tell whether an answer is still wanted."""
        ...


class Subscribing:
    """Subscriptions of a home under Google's protocol.

    Parameters
    ----------
    parts : Parts
        What the services share.
    holders : Holders
        The streaming pulls, which learn what was acknowledged.
    from_start : bool
        Whether new subscriptions get the messages that are there already.
    """

    def __init__(self, parts: Parts, holders: Holders, *, from_start: bool = False) -> None:
        self._parts = parts
        self._desk = parts.desk
        self._catalogue = parts.catalogue
        self._seeker = parts.seeker
        self._bell = parts.bell
        self._holders = holders
        self._from_start = from_start

    def create_subscription(self, request: Message) -> Message:
        """Make a subscription."""
        path, topic = parse_new("subscriptions", request.name), parse("topics", request.topic)
        kept = checked(request)
        if not self._parts.stream.has_topic(topic.name):
            raise not_found("Topic", request.topic)
        wanted = Subscription(path.name, topic.name, kept.filter, kept.ack_deadline_seconds)
        try:
            self._desk.create(wanted, rules_of(request), from_start=self._from_start)
        except RefusedError as error:
            raise already_exists("Subscription", str(path)) from error
        self._catalogue.put("subscription", path.name, kept)
        return self._described(path)

    def get_subscription(self, request: Message) -> Message:
        """Describe a subscription."""
        return self._described(self.existing(request.subscription))

    def update_subscription(self, request: Message) -> Message:
        """Change what can be changed of a subscription."""
        path = self.existing(request.subscription.name)
        before = self._described(path)
        if not self.settings_of(path.name).HasField("message_retention_duration"):
            before.ClearField("message_retention_duration")
        paths = request.update_mask.paths
        changed = checked(update(before, request.subscription, paths, CHANGEABLE))
        self._desk.change(path.name, changed.ack_deadline_seconds, rules_of(changed))
        self._catalogue.put("subscription", path.name, changed)
        return self._described(path)

    def list_subscriptions(self, request: Message) -> Message:
        """List the subscriptions of the home."""
        project = project_of(request.project)
        names = [found.name for found in self._parts.stream.subscriptions.all()]
        chosen, token = page(names, request.page_size, request.page_token)
        found = [self._described(Path(project, "subscriptions", name)) for name in chosen]
        return response_of("ListSubscriptions")(subscriptions=found, next_page_token=token)

    def delete_subscription(self, request: Message) -> Message:
        """Forget a subscription."""
        path = self.existing(request.subscription)
        self._desk.drop(path.name)
        self._catalogue.drop("subscription", path.name)
        self._bell.ring(of_subscription(path.name))
        return protocol.Empty()

    def modify_push_config(self, request: Message) -> Message:
        """Allow what is so already: that a subscription is pulled."""
        self.existing(request.subscription)
        if request.push_config.push_endpoint:
            raise unimplemented("push")
        return protocol.Empty()

    def pull(self, request: Message, caller: Caller) -> Message:
        """Lease messages, waiting a little for the first."""
        path = self.existing(request.subscription)
        if request.max_messages <= 0:
            raise invalid(f"max_messages must be positive, not {request.max_messages}")
        patience_s = 0.0 if request.return_immediately else _PULL_S
        found = self.settings_of(path.name)
        ask = Ask(request.max_messages, MOST_BYTES)
        deliveries = self._pull(path.name, ask, time.monotonic() + patience_s, caller)
        response = protocol.PullResponse()
        fill(response, deliveries, attempts=found.HasField("dead_letter_policy"))
        return response

    def acknowledge(self, request: Message) -> Message:
        """Never deliver these messages again."""
        path = self.existing(request.subscription)
        exact = self._is_exact(path.name)
        stale = _answer(
            request.ack_ids, lambda ids: self._desk.acknowledge(path.name, ids, exact=exact)
        )
        self._holders.settle(path.name, request.ack_ids)
        _refuse(stale)
        return protocol.Empty()

    def modify_ack_deadline(self, request: Message) -> Message:
        """Let leases last longer, or give messages back with 0 seconds."""
        path = self.existing(request.subscription)
        self.move(path.name, request.ack_ids, request.ack_deadline_seconds)
        return protocol.Empty()

    def move(self, name: str, ack_ids: Sequence[str], seconds: int) -> None:
        """Let leases end `seconds` from now.

        Raises
        ------
        Refusal
            If the time is not allowed, or the subscription is exact and a lease is over.
        """
        if not 0 <= seconds <= _MOST_DEADLINE_S:
            raise invalid(f"an acknowledgement deadline is 0 to 600 s, not {seconds}")
        exact = self._is_exact(name)
        stale = _answer(ack_ids, lambda ids: self._desk.extend(name, ids, seconds, exact=exact))
        if seconds:
            self._holders.extend(name, ack_ids, seconds)
        else:
            self._holders.settle(name, ack_ids)
            self._bell.ring(of_subscription(name))
        _refuse(stale)

    def create_snapshot(self, request: Message) -> Message:
        """Remember what a subscription has not acknowledged."""
        path = parse_new("snapshots", request.name)
        subscription = self.existing(request.subscription)
        try:
            self._seeker.snapshot(path.name, subscription.name, datetime.now(UTC))
        except NotFoundError:
            raise
        except RefusedError as error:
            raise already_exists("Snapshot", str(path)) from error
        kept = protocol.Snapshot(topic=self._described(subscription).topic, labels=request.labels)
        self._catalogue.put("snapshot", path.name, kept)
        return self._snapshot(path)

    def get_snapshot(self, request: Message) -> Message:
        """Describe a snapshot."""
        return self._snapshot(parse("snapshots", request.snapshot))

    def update_snapshot(self, request: Message) -> Message:
        """Change a snapshot's labels."""
        path = parse("snapshots", request.snapshot.name)
        changeable = frozenset({"labels"})
        changed = update(
            self._snapshot(path), request.snapshot, request.update_mask.paths, changeable
        )
        self._catalogue.put("snapshot", path.name, changed)
        return changed

    def list_snapshots(self, request: Message) -> Message:
        """List the snapshots of the home."""
        project = project_of(request.project)
        names = [found.name for found in self._seeker.snapshots()]
        chosen, token = page(names, request.page_size, request.page_token)
        found = [self._snapshot(Path(project, "snapshots", name)) for name in chosen]
        return response_of("ListSnapshots")(snapshots=found, next_page_token=token)

    def delete_snapshot(self, request: Message) -> Message:
        """Forget a snapshot."""
        path = parse("snapshots", request.snapshot)
        self._snapshot(path)
        self._seeker.drop(path.name)
        self._catalogue.drop("snapshot", path.name)
        return protocol.Empty()

    def seek(self, request: Message) -> Message:
        """Move a subscription to a time or a snapshot."""
        path = self.existing(request.subscription)
        if request.HasField("snapshot"):
            snapshot = parse("snapshots", request.snapshot)
            self._snapshot(snapshot)
            self._seeker.to_snapshot(path.name, snapshot.name)
        elif request.HasField("time"):
            self._seeker.to_time(path.name, request.time.ToDatetime(tzinfo=UTC))
        else:
            raise invalid("seek needs a time or a snapshot")
        self._bell.ring(of_subscription(path.name))
        return response_of("Seek")()

    def _pull(self, name: str, ask: Ask, until: float, caller: Caller) -> list[Message]:
        topic = self._parts.stream.subscriptions.get(name).topic
        bells = of_topic(topic), of_subscription(name)
        while True:
            heard = self._bell.heard(*bells)
            found = self._desk.pull(name, ask)
            left_s = until - time.monotonic()
            if not caller.is_active():
                self._desk.take_back(name, found)
                return []
            if found or left_s <= 0:
                return found
            self._bell.wait(heard, min(left_s, _CHECK_S), *bells)

    def _is_exact(self, name: str) -> bool:
        return bool(self.settings_of(name).enable_exactly_once_delivery)

    def existing(self, text: str) -> Path:
        """Take the path of a subscription apart.

        Raises
        ------
        Refusal
            If there is no such subscription.
        """
        path = parse("subscriptions", text)
        try:
            self._parts.stream.subscriptions.get(path.name)
        except NotFoundError as error:
            raise not_found("Subscription", text) from error
        return path

    def settings_of(self, name: str) -> Message:
        """Return what a subscription was made with."""
        return self._catalogue.get("subscription", name, protocol.Subscription) or (
            protocol.Subscription()
        )

    def _described(self, path: Path) -> Message:
        found, known = self.settings_of(path.name), self._parts.stream.subscriptions.get(path.name)
        if not found.topic:
            topic = Path(path.project, "topics", known.topic)
            found.topic = str(topic) if known.topic else DELETED_TOPIC
        found.name = str(path)
        found.filter = known.attribute_filter
        found.ack_deadline_seconds = int(known.ack_deadline_s)
        if not found.HasField("message_retention_duration"):
            found.message_retention_duration.FromSeconds(7 * _DAY_S)
        found.expiration_policy.SetInParent()
        found.state = protocol.Subscription.State.ACTIVE
        return found

    def _snapshot(self, path: Path) -> Message:
        try:
            known = self._seeker.get(path.name)
        except NotFoundError as error:
            raise not_found("Snapshot", str(path)) from error
        found = self._catalogue.get("snapshot", path.name, protocol.Snapshot)
        found = found or protocol.Snapshot(topic=str(Path(path.project, "topics", known.topic)))
        found.name = str(path)
        found.expire_time.FromNanoseconds(int((known.created_s + 7 * _DAY_S) * 1e9))
        return found


def _answer(ack_ids: Sequence[str], act: Callable[[Sequence[str]], list[str]]) -> list[str]:
    if not ack_ids:
        raise invalid("a request names at least one acknowledgement id")
    try:
        return act(ack_ids)
    except RefusedError as error:
        raise invalid(str(error)) from error


def _refuse(stale: Sequence[str]) -> None:
    """Tell an exact subscription's client which leases were over."""
    if stale:
        raise Refusal(
            Code.FAILED_PRECONDITION,
            "some leases are over",
            "EXACTLY_ONCE_ACKID_FAILURE",
            dict.fromkeys(stale, "PERMANENT_FAILURE_INVALID_ACK_ID"),
        )
