"""The stream on Pub/Sub keeps the contract, but for what its module names."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from google.api_core import exceptions as api

from broker.connectors.gcp.clients import Cloud
from broker.connectors.streams.pubsub import PubSubStream
from broker.errors import NotFoundError, RefusedError, TransientError, UsageError
from broker.ports import BatchKey, Messages, Stream
from broker.testing.stream_contract import Clock, FailingStream, StreamContract, batch

_PROJECT = "test-project"
_LONGEST_S = 12.0

MakeStream = Callable[..., PubSubStream]


class RealClock(Clock):
    """The time that really is; to let it pass is to wait, though never for long."""

    def __call__(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    def advance(self, seconds: float) -> None:
        """Wait; a lease of 10 s has run out after 12 s."""
        time.sleep(min(seconds, _LONGEST_S))


class FailsOnce(Cloud):
    """A project whose first requests to publish fail."""

    def fail(self, *words: str) -> "FailsOnce":
        """Say with what words."""
        self.__dict__["words"] = list(words)
        return self

    def publish(self, request: Any, **more: Any) -> Any:
        """Publish, or fail."""
        if self.__dict__["words"]:
            word = self.__dict__["words"].pop(0)
            if word:
                raise api.DataLoss(word)
        return super().publish(request, **more)


def drain(stream: PubSubStream, name: str, count: int) -> list[bytes]:
    """Read so many messages, and what more there is; a pull may be empty before that."""
    found: list[bytes] = []
    deadline = time.monotonic() + 60
    while (leased := stream.pull(name, 5000)) or (
        len(found) < count and time.monotonic() < deadline
    ):
        stream.acknowledge(name, [it.ack_id for it in leased])
        found += [it.payload for it in leased]
    return found


@pytest.fixture
def address(google_address: str) -> str:
    """Return the address of the server that a test is about."""
    return google_address


@pytest.fixture
def make(address: str) -> Iterator[MakeStream]:
    """Return a function that makes streams which share a project and a prefix."""
    made: list[PubSubStream] = []
    prefix = f"p{uuid4().hex[:8]}-"

    def new(cloud: Cloud | None = None, **more: Any) -> PubSubStream:
        values = {"prefix": prefix, "pull_wait_s": 0.5, **more}
        made.append(PubSubStream(cloud or Cloud(_PROJECT, pubsub=address), **values))
        return made[-1]

    yield new
    for stream in made:
        stream.close()


@pytest.fixture
def fails_once(address: str, make: MakeStream) -> Callable[..., PubSubStream]:
    """Return a function that makes streams whose first requests fail."""
    cloud = FailsOnce(_PROJECT, pubsub=address)
    return lambda *words: make(cloud.fail(*words))


class PubSubContract(StreamContract):
    """The contract, but for what the stream's module names."""

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the real time."""
        return RealClock()

    @pytest.fixture
    def stream(self, make: MakeStream) -> Stream:
        """Return the stream under test."""
        return make()

    @pytest.fixture
    def failing(self, fails_once: Callable[..., PubSubStream]) -> FailingStream:
        """Return a stream whose first publication fails."""
        return lambda error: fails_once(str(error))

    def test_delivers_time_of_publication(self, subscribed: Stream, clock: Clock) -> None:
        """A delivery tells when the service got its message."""
        apart = abs(clock() - subscribed.pull("s", 1)[0].published)

        assert apart < timedelta(seconds=30)

    def test_lower_key_does_nothing(self, stream: Stream) -> None:
        """Numbers only grow within a worker, as long as the process lives."""
        stream.publish("t", batch(5), BatchKey("w0", 5))
        stream.publish("t", batch(4), BatchKey("w0", 4))
        stream.subscribe("t", "s")

        assert len(stream.pull("s", 10)) == 3

    def test_empty_batch_makes_the_topic(self, stream: Stream) -> None:
        """Publishing nothing makes the topic; how many messages it has is not known."""
        stream.publish("t", Messages([], pl.DataFrame()), BatchKey("w0", 0))

        assert [(topic.name, topic.messages) for topic in stream.topics()] == [("t", -1)]

    def test_topics_tell_counts(self, subscribed: Stream) -> None:
        """Topics and subscriptions are named; no number is known."""
        subscribed.publish("empty", Messages([], pl.DataFrame()), BatchKey("w0", 0))
        empty, topic = subscribed.topics()

        assert (empty.name, dict(empty.backlog)) == ("empty", {})
        assert (topic.name, topic.messages, dict(topic.backlog)) == ("t", -1, {"s": -1})

    def test_lease_expires(self, subscribed: Stream, clock: Clock) -> None:
        """What is not acknowledged comes again; which attempt it is, is not told."""
        before = subscribed.pull("s", 10)
        clock.advance(11)

        assert {it.message_id for it in before} == {it.message_id for it in subscribed.pull("s", 9)}

    def test_expired_come_first(self, subscribed: Stream, clock: Clock) -> None:
        """A message whose lease expired comes again, in no order."""
        first = subscribed.pull("s", 1)
        clock.advance(11)

        assert first[0].message_id in {it.message_id for it in subscribed.pull("s", 10)}

    def test_released_comes_again_at_once(self, subscribed: Stream) -> None:
        """A released message is delivered again without waiting."""
        first = subscribed.pull("s", 10)[0]
        subscribed.release("s", [first.ack_id])

        assert [first.message_id] == [it.message_id for it in subscribed.pull("s", 10)]


@pytest.mark.slow
class TestOnGoogle(PubSubContract):
    def test_filter_selects(self, make: MakeStream, address: str) -> None:
        """The filter is the subscription's; the emulator keeps it and does not apply it."""
        text = 'attributes.band = "r"'
        other = make(prefix="filtered-")
        other.publish("t", batch(0, 9), BatchKey("w0", 0))
        other.subscribe("t", "s", attribute_filter=text)
        path = f"projects/{_PROJECT}/subscriptions/filtered-s"
        cloud = Cloud(_PROJECT, pubsub=address)

        assert text == cloud.subscriber.get_subscription(subscription=path).filter

    @pytest.mark.skip(reason="Google's emulator applies no filters")
    def test_filter_compares_text(self, stream: Stream) -> None:
        """A number is compared as text."""

    @pytest.mark.skip(reason="Google's emulator applies no filters")
    def test_filter_in_small_pulls(self, stream: Stream) -> None:
        """A filtered subscription goes on within a batch."""


@pytest.mark.slow
class TestOnOurs(PubSubContract):
    @pytest.fixture
    def address(self, our_address: str) -> str:
        """Return the address of our own server, which applies filters."""
        return our_address


def test_thousands_arrive_once(make: MakeStream) -> None:
    """A batch of several requests arrives whole."""
    stream = make()
    stream.publish("big", batch(0, 2500), BatchKey("w0", 0))
    stream.subscribe("big", "all")

    assert sorted(batch(0, 2500).payloads) == sorted(drain(stream, "all", 2500))


def test_goes_on_where_it_stopped(fails_once: Callable[..., PubSubStream]) -> None:
    """Of a batch that failed half-way only the rest is sent again."""
    stream = fails_once("", "", "broken")
    with pytest.raises(TransientError, match="broken"):
        stream.publish("big", batch(0, 2500), BatchKey("w0", 0))
    stream.publish("big", batch(0, 2500), BatchKey("w0", 0))
    stream.subscribe("big", "all")

    assert len(drain(stream, "all", 2500)) == 2500


def test_large_messages_are_divided(make: MakeStream) -> None:
    """Messages of megabytes go in requests that the service takes."""
    stream = make()
    payloads = [bytes([row]) * 4_000_000 for row in range(5)]
    stream.publish("large", Messages(payloads, pl.DataFrame()), BatchKey("w0", 0))
    stream.subscribe("large", "all")

    assert payloads == sorted(drain(stream, "all", len(payloads)))


@pytest.mark.parametrize(
    ("payload", "attributes", "says"),
    [
        (bytes(10_000_001), {"objectId": "ZTF1"}, r"message 1 of batch w0-0000000007 for topic"),
        (bytes(10_000_001), {"objectId": "ZTF1"}, r"objectId=ZTF1.*10,000,0\d\d bytes"),
        (b"x", {"objectId": "ZTF1", "why": "é" * 513}, "'why' has 1,026 bytes"),
        (b"x", {"k" * 257: "1"}, "name has 257 bytes"),
        (b"x", {f"a{number}": "1" for number in range(101)}, "101 attributes"),
        (b"", {}, "neither a payload nor attributes"),
    ],
)
def test_refuses_what_is_too_large(
    make: MakeStream, payload: bytes, attributes: dict[str, str], says: str
) -> None:
    """What Pub/Sub would not take is refused by name, and nothing of its batch is sent."""
    stream = make()
    table = pl.DataFrame([dict.fromkeys(attributes), attributes], infer_schema_length=None)
    table = table if attributes else pl.DataFrame()
    with pytest.raises(RefusedError, match=says):
        stream.publish("topic", Messages([b"good", payload], table), BatchKey("w0", 7))

    assert stream.topics() == []


def test_attempts_lead_to_dead_letters(make: MakeStream) -> None:
    """After five deliveries a message goes to the dead-letter topic, and attempts are told."""
    stream = make()
    stream.publish("work", batch(0, 1), BatchKey("w0", 0))
    stream.subscribe("work", "worker", ack_deadline_s=10, dead_letter_topic="dead")
    stream.subscribe("dead", "undertaker")
    attempts = []
    while leased := stream.pull("worker", 1):
        attempts.append(leased[0].attempt)
        stream.release("worker", [leased[0].ack_id])

    assert attempts == [1, 2, 3, 4, 5]
    assert [batch(0, 1).payloads[0]] == [it.payload for it in stream.pull("undertaker", 1)]


def test_deadline_beyond_the_limits(make: MakeStream) -> None:
    """A deadline that Pub/Sub does not know is a wrong argument."""
    stream = make()
    with pytest.raises(UsageError, match="10 to 600 s"):
        stream.subscribe("t", "s", ack_deadline_s=5)


def test_names_what_is_not_there(make: MakeStream) -> None:
    """An unknown topic or subscription is named, with the project."""
    with pytest.raises(NotFoundError, match=f"subscription 'none' in project {_PROJECT}"):
        make().acknowledge("none", ["1"])


def test_emulator_that_is_away() -> None:
    """One that never answered is given up within seconds."""
    stream = PubSubStream(Cloud(_PROJECT, pubsub="127.0.0.1:9"), patience_s=1.0)
    with pytest.raises(TransientError, match=r"no emulator answers at 127\.0\.0\.1:9"):
        stream.publish("t", batch(0), BatchKey("w0", 0))
    stream.close()
