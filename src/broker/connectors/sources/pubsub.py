"""Alerts from a Pub/Sub subscription."""

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import polars as pl
from google.cloud.pubsub_v1.subscriber.scheduler import Scheduler
from google.cloud.pubsub_v1.types import FlowControl

from broker.config import Settings
from broker.connectors.gcp.clients import Cloud, project_of
from broker.connectors.gcp.errors import plain_words
from broker.connectors.gcp.pubsub import ACK_IDS, PubSub, parts
from broker.connectors.sources.files import ORIGIN_SCHEMA
from broker.connectors.streams.pubsub import PubSubStream
from broker.errors import BrokerError, ConfigError, TransientError
from broker.ports import SourceBatch

_LOG = logging.getLogger(__name__)

_MAX_BATCH_BYTES = 64 << 20
"""A batch ends early at this size, so that memory stays flat whatever the packets weigh."""

_LEASE_S = 15
"""So long after a reader's death others get what it held; until then leases are extended."""

_FLOW = FlowControl(
    max_messages=8192,
    max_bytes=4 * _MAX_BATCH_BYTES,
    max_lease_duration=24 * 3600,
    min_duration_per_lease_extension=_LEASE_S,
    max_duration_per_lease_extension=_LEASE_S,
)

_ASK_EVERY_S = 5.0
_CLOSE_S = 15.0
_OPTIONS = ("quiet", "topic")


class PubSubSource:
    """Read packets from a subscription, in no order, now and then twice.

    A message is acknowledged when its batch is committed, so that it comes again if the
    process ends before; until then its lease is extended. What was not committed goes back
    when the source is closed. Lost connections come back by themselves.

    Pub/Sub does not tell how much is left: without `follow` the source ends when nothing has
    come for `quiet_s`, by default a little longer than a reader that died keeps messages.

    Parameters
    ----------
    cloud : Cloud
        The project.
    subscription : str
        Its name, or a full path.
    follow : bool
        Go on when nothing comes.
    quiet_s : float
        Silence that means the end, s.
    topic : str
        If the subscription does not exist, make it on this topic (a name, or a full path).
    patience_s : float
        How long Pub/Sub may be away, s.
    monotonic : callable
        The clock, s.
    """

    def __init__(
        self,
        cloud: Cloud,
        subscription: str,
        *,
        follow: bool = False,
        quiet_s: float = _LEASE_S + 5.0,
        topic: str = "",
        patience_s: float = 600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cloud = cloud
        self._name = subscription
        self._follow = follow
        self._quiet_s = quiet_s
        self._topic = topic
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._pubsub = PubSub(cloud, patience_s=4.0)
        self._path = self._pubsub.path("subscriptions", subscription)
        self._inbox = _Inbox()
        self._pulling: Any = None
        self._open: deque[tuple[SourceBatch, Sequence[Any]]] = deque()
        self._last_message_s = self._last_answer_s = self._last_question_s = 0.0

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, follow: bool = False) -> "PubSubSource":
        """Make the source of ``pubsub://[project]/subscription[?quiet=S][&topic=NAME]``.

        Raises
        ------
        ConfigError
            If no project or subscription is named, or an option is not known.
        NotFoundError, ForbiddenError, TransientError
            If there is nothing to read.
        """
        cloud, name = project_of(url, settings)
        options = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        if not name:
            raise ConfigError(f"{url} names no subscription: pubsub://[project]/subscription")
        if unknown := sorted(options.keys() - set(_OPTIONS)):
            known = ", ".join(_OPTIONS)
            raise ConfigError(f"{url}: unknown option {', '.join(unknown)}; known: {known}")
        more: dict[str, Any] = {"quiet_s": _seconds(options["quiet"])} if "quiet" in options else {}
        more |= {"topic": options.get("topic", ""), "patience_s": settings.patience_s}
        source = cls(cloud, name, follow=follow, **more)
        source.check()
        return source

    def check(self) -> None:
        """Make sure that there is something to read.

        Raises
        ------
        NotFoundError
            If there is no such subscription.
        ForbiddenError
            If Pub/Sub does not let us in.
        TransientError
            If Pub/Sub does not answer.
        """
        if self._topic:
            PubSubStream(self._cloud).subscribe(self._topic, self._name)
        self._ask()

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield batches; an empty one means that nothing came within `max_wait_s`.

        Raises
        ------
        NotFoundError
            If there is no such subscription, or no more.
        ForbiddenError
            If Pub/Sub does not let us in.
        TransientError
            If Pub/Sub never answered, or is away for longer than `patience_s`.
        """
        self._start()
        while True:
            batch = self._gather(max_payloads, max_wait_s)
            if not batch.payloads:
                self._look_after()
                if self._is_drained():
                    return
            yield batch

    def commit(self, batch: SourceBatch) -> None:
        """Acknowledge the messages of `batch` and of all before it."""
        if not any(batch is known for known, _ in self._open):
            return
        while self._open:
            known, messages = self._open.popleft()
            for message in messages:
                message.ack()
            if known is batch:
                return

    def close(self) -> None:
        """Give back what was not committed, and let go; again, it does nothing."""
        pulling, self._pulling = self._pulling, None
        if pulling is None:
            return
        pulling.cancel()
        with suppress(BrokerError):
            with plain_words("Pub/Sub", self._cloud.project, self._cloud.pubsub):
                pulling.result(_CLOSE_S)
            self._give_back()

    def _give_back(self) -> None:
        """Release what was not committed, now that it cannot come to this stream again."""
        held = [message for _, messages in self._open for message in messages]
        self._open.clear()
        release = self._cloud.subscriber.modify_ack_deadline
        ack_ids = [message.ack_id for message in [*held, *self._inbox.left]]
        for some in parts(ack_ids, ACK_IDS):
            request = {"subscription": self._path, "ack_ids": some, "ack_deadline_seconds": 0}
            self._pubsub.ask(release, request=request)

    def _start(self) -> None:
        """Begin to pull what is there."""
        self.check()
        with plain_words("Pub/Sub", self._cloud.project, self._cloud.pubsub):
            self._pulling = self._cloud.subscriber.subscribe(
                self._path, callback=_Inbox.unused, flow_control=_FLOW, scheduler=self._inbox
            )
        self._last_message_s = self._last_answer_s = self._last_question_s = self._monotonic()

    def _ask(self) -> None:
        request = {"subscription": self._path}
        what = f"subscription {self._name!r}"
        call = self._cloud.subscriber.get_subscription
        self._pubsub.ask(call, what, request=request, timeout=10.0)

    def _gather(self, max_payloads: int, max_wait_s: float) -> SourceBatch:
        """Take messages until a batch is full by count, bytes or time."""
        messages: list[Any] = []
        size = 0
        deadline = self._monotonic() + max_wait_s
        while len(messages) < max_payloads and size < _MAX_BATCH_BYTES:
            message = self._inbox.take(max(deadline - self._monotonic(), 0))
            if message is None:
                break
            messages.append(message)
            size += message.size
        batch = SourceBatch([it.data for it in messages], _origins(messages, self._name))
        if messages:
            self._open.append((batch, messages))
            self._last_message_s = self._last_answer_s = self._monotonic()
        return batch

    def _look_after(self) -> None:
        """See in times of silence whether Pub/Sub is there at all."""
        if self._pulling.done():
            with plain_words("Pub/Sub", self._cloud.project, self._cloud.pubsub):
                self._pulling.result()
        if not self._is_question_due():
            return
        self._last_question_s = self._monotonic()
        try:
            self._ask()
        except TransientError as error:
            self._on_no_answer(error)
        else:
            self._last_answer_s = self._monotonic()

    def _is_question_due(self) -> bool:
        now_s = self._monotonic()
        silent_s = now_s - max(self._last_question_s, self._last_message_s)
        return silent_s >= (_ASK_EVERY_S if self._follow else min(_ASK_EVERY_S, self._quiet_s))

    def _on_no_answer(self, error: TransientError) -> None:
        away_s = self._monotonic() - self._last_answer_s
        if away_s > self._patience_s:
            raise error
        _LOG.warning("%s; waiting since %.0f s", error, away_s)

    def _is_drained(self) -> bool:
        """Tell whether nothing has come for long before Pub/Sub answered for the last time."""
        answered_s = self._last_answer_s - self._last_message_s
        return not self._follow and answered_s >= self._quiet_s


class _Inbox(Scheduler):  # type: ignore[misc]
    """Takes the messages of a streaming pull as they come, without a thread for each."""

    def __init__(self) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self._messages: queue.Queue[Any] = queue.Queue()
        self.left: list[Any] = []

    @staticmethod
    def unused(message: Any) -> None:
        """Stand where the client wants a callback; messages are taken, not sent."""

    @property
    def queue(self) -> "queue.Queue[Any]":
        """The way of acknowledgements back to the client."""
        return self._requests

    def schedule(self, callback: Callable[..., Any], *args: Any, **_: Any) -> None:  # noqa: ARG002
        """Take a message."""
        self._messages.put(args[0])

    def take(self, wait_s: float) -> Any:
        """Return the next message, None if there is none in time."""
        try:
            return self._messages.get(timeout=wait_s) if wait_s else self._messages.get_nowait()
        except queue.Empty:
            return None

    def shutdown(self, await_msg_callbacks: bool = False) -> list[Any]:  # noqa: ARG002
        """Keep the messages that nobody took; the client is left none to give back."""
        self.left += iter(lambda: self.take(0), None)
        return []


def _origins(messages: Sequence[Any], subscription: str) -> pl.DataFrame:
    """Return where messages were in Kafka, if anywhere, and their ids."""
    attributes = [it.attributes for it in messages]
    columns = {
        "topic": [_attribute(each, "topic") for each in attributes],
        "partition": [_attribute(each, "partition") for each in attributes],
        "offset": [_attribute(each, "offset") for each in attributes],
        "timestamp_ms": [_attribute(each, "timestamp") for each in attributes],
        "place": [f"{subscription} message {it.message_id}" for it in messages],
    }
    texts = pl.DataFrame(columns, schema=dict.fromkeys(ORIGIN_SCHEMA, pl.String))
    ids = pl.Series("message_id", [it.message_id for it in messages], pl.String)
    return texts.cast(pl.Schema(ORIGIN_SCHEMA), strict=False).with_columns(ids)


def _attribute(attributes: Mapping[str, str], name: str) -> str | None:
    """Return an attribute of Kafka's, by either of the names in use."""
    value: str | None = attributes.get(f"kafka.{name}", attributes.get(f"kafka_{name}"))
    return value


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"option quiet must be a number of seconds, not {text!r}") from error
