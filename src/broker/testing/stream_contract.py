"""What every `Stream` and `Journal` does, as tests to inherit."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np
import polars as pl
import pytest

from broker.errors import NotFoundError, RefusedError, TransientError, UsageError
from broker.ports import BatchKey, Journal, Messages, Stream

_PREFIX = b"schema header " * 40


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


class FailingStream(Protocol):
    """Makes a stream whose next publication fails with the error."""

    def __call__(self, error: Exception) -> Stream:
        """Return the stream."""
        ...


def batch(number: int, count: int = 3, *, worker: str = "w0", start: int = 0) -> Messages:
    """Make messages whose payloads and attributes tell where they came from.

    Half of the payloads share a prefix.
    """
    rows = range(start, start + count)
    shared = [row % 2 == 0 for row in rows]
    texts = [f"{worker} {number} {row}".encode() for row in rows]
    return Messages(
        payloads=[_PREFIX + text if it else text for it, text in zip(shared, texts, strict=True)],
        attributes=pl.DataFrame(
            {
                "objectId": [f"object{row}" for row in rows],
                "candid": pl.Series([2**60 + row for row in rows], dtype=pl.Int64),
                "band": [("g", "r", None)[row % 3] for row in rows],
            }
        ),
        prefixes=[_PREFIX],
        prefix_index=np.array([0 if it else -1 for it in shared], dtype=np.int32),
    )


class StreamContract:
    """Inherit, and give the fixtures `clock` (or use this one) and `stream`."""

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock that the stream reads."""
        return Clock()

    @pytest.fixture
    def subscribed(self, stream: Stream) -> Stream:
        """Return the stream with topic ``t`` of three messages and subscription ``s`` on it."""
        stream.publish("t", batch(0), BatchKey("w0", 0))
        stream.subscribe("t", "s", ack_deadline_s=10)
        return stream

    def test_delivers_payloads_as_published(self, subscribed: Stream) -> None:
        """Payloads arrive byte for byte, in order."""
        assert list(batch(0).payloads) == [it.payload for it in subscribed.pull("s", 10)]

    def test_delivers_attributes_as_text(self, subscribed: Stream) -> None:
        """Every value is text, and a null attribute is not there."""
        first, _, third = subscribed.pull("s", 10)

        assert {"objectId": "object0", "candid": str(2**60), "band": "g"} == first.attributes
        assert {"objectId": "object2", "candid": str(2**60 + 2)} == third.attributes

    def test_delivers_time_of_publication(self, subscribed: Stream, clock: Clock) -> None:
        """A delivery tells when its message was published."""
        published = clock()
        clock.advance(5)

        assert published == subscribed.pull("s", 1)[0].published

    def test_messages_without_attributes(self, stream: Stream) -> None:
        """A message may have no attributes at all."""
        stream.publish("t", Messages([b"x"], pl.DataFrame()), BatchKey("w0", 0))
        stream.subscribe("t", "s")

        assert [(it.payload, it.attributes) for it in stream.pull("s", 5)] == [(b"x", {})]

    def test_message_ids_differ(self, subscribed: Stream) -> None:
        """Every message of a topic has its own id."""
        subscribed.publish("t", batch(1), BatchKey("w0", 1))
        subscribed.publish("t", batch(0, worker="w1"), BatchKey("w0", 2))

        assert len({it.message_id for it in subscribed.pull("s", 20)}) == 9

    def test_same_key_does_nothing(self, subscribed: Stream) -> None:
        """A batch that is published again is there once."""
        subscribed.publish("t", batch(0), BatchKey("w0", 0))

        assert len(subscribed.pull("s", 10)) == 3

    def test_threads_publish_at_once(self, stream: Stream) -> None:
        """A batch goes to several topics, by as many threads, all of them at the first time."""
        topics = [f"t{i}" for i in range(6)]
        with ThreadPoolExecutor(len(topics)) as pool:
            done = [pool.submit(stream.publish, t, batch(0), BatchKey("w0", 0)) for t in topics]
        for one in done:
            one.result()
        for topic in topics:
            stream.subscribe(topic, f"s-{topic}")

        assert [len(stream.pull(f"s-{topic}", 10)) for topic in topics] == [3] * len(topics)

    def test_lower_key_does_nothing(self, stream: Stream) -> None:
        """Numbers only grow within a worker."""
        stream.publish("t", batch(5), BatchKey("w0", 5))
        stream.publish("t", batch(4), BatchKey("w0", 4))

        assert [topic.messages for topic in stream.topics()] == [3]

    def test_empty_batch_makes_the_topic(self, stream: Stream) -> None:
        """Publishing nothing makes the topic and no message."""
        stream.publish("t", Messages([], pl.DataFrame()), BatchKey("w0", 0))

        assert [(topic.name, topic.messages) for topic in stream.topics()] == [("t", 0)]

    def test_later_messages_arrive(self, subscribed: Stream) -> None:
        """A subscription goes on where it stopped."""
        subscribed.pull("s", 10)
        subscribed.publish("t", batch(1), BatchKey("w0", 1))

        assert list(batch(1).payloads) == [it.payload for it in subscribed.pull("s", 10)]

    def test_pull_gives_at_most_what_was_asked(self, subscribed: Stream) -> None:
        """Three messages come in pulls of two and one."""
        assert [len(subscribed.pull("s", 2)) for _ in range(3)] == [2, 1, 0]

    def test_lease_expires(self, subscribed: Stream, clock: Clock) -> None:
        """A message that is not acknowledged in time comes again."""
        subscribed.pull("s", 10)
        clock.advance(9)
        assert subscribed.pull("s", 10) == []
        clock.advance(2)

        assert [it.attempt for it in subscribed.pull("s", 10)] == [2, 2, 2]

    def test_expired_come_first(self, subscribed: Stream, clock: Clock) -> None:
        """Messages whose lease expired come before new ones."""
        first = subscribed.pull("s", 1)
        clock.advance(11)

        assert first[0].message_id == subscribed.pull("s", 2)[0].message_id

    def test_acknowledged_never_comes_again(self, subscribed: Stream, clock: Clock) -> None:
        """Only what was acknowledged stays away."""
        first, *rest = subscribed.pull("s", 10)
        subscribed.acknowledge("s", [first.ack_id])
        clock.advance(100)

        assert {it.message_id for it in rest} == {it.message_id for it in subscribed.pull("s", 10)}

    def test_released_comes_again_at_once(self, subscribed: Stream) -> None:
        """A released message is delivered again without waiting."""
        first = subscribed.pull("s", 10)[0]
        subscribed.release("s", [first.ack_id])

        assert [(first.message_id, 2)] == [
            (it.message_id, it.attempt) for it in subscribed.pull("s", 10)
        ]

    def test_old_lease_cannot_release(self, subscribed: Stream, clock: Clock) -> None:
        """An expired lease does not take the message from who has it now."""
        first = subscribed.pull("s", 1)[0]
        clock.advance(11)
        subscribed.pull("s", 1)
        subscribed.release("s", [first.ack_id])

        assert first.message_id not in {it.message_id for it in subscribed.pull("s", 10)}

    def test_subscriptions_are_independent(self, subscribed: Stream) -> None:
        """Each subscription gets every message."""
        subscribed.subscribe("t", "other")

        assert [len(subscribed.pull(name, 10)) for name in ("s", "other")] == [3, 3]

    def test_filter_selects(self, stream: Stream) -> None:
        """Only messages that match the filter are delivered."""
        stream.publish("t", batch(0, 9), BatchKey("w0", 0))
        stream.subscribe("t", "s", attribute_filter='attributes.band = "r"')

        assert [it.attributes["objectId"] for it in stream.pull("s", 10)] == [
            "object1",
            "object4",
            "object7",
        ]

    def test_filter_compares_text(self, stream: Stream) -> None:
        """A number is compared as the text that is delivered."""
        stream.publish("t", batch(0, 9), BatchKey("w0", 0))
        stream.subscribe("t", "s", attribute_filter=f'attributes.candid = "{2**60 + 3}"')

        assert [it.attributes["objectId"] for it in stream.pull("s", 10)] == ["object3"]

    def test_filter_in_small_pulls(self, stream: Stream) -> None:
        """A filtered subscription goes on within a batch."""
        stream.publish("t", batch(0, 9), BatchKey("w0", 0))
        stream.publish("t", batch(1, 9), BatchKey("w0", 1))
        stream.subscribe("t", "s", attribute_filter='attributes.band = "r"')

        assert [len(stream.pull("s", 2)) for _ in range(4)] == [2, 2, 2, 0]

    def test_wrong_filter(self, subscribed: Stream) -> None:
        """A filter that cannot be read is refused when the subscription is made."""
        with pytest.raises(UsageError, match="position"):
            subscribed.subscribe("t", "x", attribute_filter="band = g")

    def test_subscribe_again(self, subscribed: Stream) -> None:
        """The same subscription again keeps what was read."""
        subscribed.pull("s", 10)
        subscribed.subscribe("t", "s", ack_deadline_s=10)

        assert subscribed.pull("s", 10) == []

    def test_name_taken(self, subscribed: Stream) -> None:
        """A name cannot be used for another filter."""
        with pytest.raises(RefusedError, match="exists"):
            subscribed.subscribe("t", "s", attribute_filter="attributes:band")

    def test_unknown_topic(self, stream: Stream) -> None:
        """A subscription needs its topic."""
        with pytest.raises(NotFoundError, match="nothing"):
            stream.subscribe("nothing", "s")

    def test_unknown_subscription(self, stream: Stream) -> None:
        """Pulling needs a subscription."""
        with pytest.raises(NotFoundError, match="nothing"):
            stream.pull("nothing", 1)

    def test_topics_tell_counts(self, subscribed: Stream) -> None:
        """A topic tells its messages and what each subscription has before it."""
        subscribed.publish("empty", Messages([], pl.DataFrame()), BatchKey("w0", 0))
        subscribed.subscribe("t", "fresh", attribute_filter='attributes.band = "g"')
        leased = subscribed.pull("s", 2)
        subscribed.acknowledge("s", [leased[0].ack_id])

        empty, topic = subscribed.topics()

        assert (empty.name, empty.messages, dict(empty.backlog)) == ("empty", 0, {})
        assert (topic.name, topic.messages, dict(topic.backlog)) == ("t", 3, {"s": 2, "fresh": 1})

    def test_failed_publication_leaves_nothing(self, failing: FailingStream) -> None:
        """After a failure the same batch can be published."""
        stream = failing(TransientError("disk full"))
        with pytest.raises(TransientError, match="disk full"):
            stream.publish("t", batch(0), BatchKey("w0", 0))
        stream.publish("t", batch(0), BatchKey("w0", 0))
        stream.subscribe("t", "s")

        assert list(batch(0).payloads) == [it.payload for it in stream.pull("s", 10)]


class JournalContract:
    """Inherit, and give the fixture `journal`, which appends for worker ``w0``."""

    def test_reads_back(self, journal: Journal) -> None:
        """A batch comes back byte for byte, its columns with their types."""
        for number in range(3):
            journal.append(BatchKey("w0", number), batch(number))

        found = journal.read(BatchKey("w0", 1))

        assert found is not None
        assert list(batch(1).payloads) == list(found.payloads)
        assert batch(1).attributes.equals(found.attributes)

    def test_keeps_prefixes(self, journal: Journal) -> None:
        """Which payload starts with which prefix comes back as well."""
        journal.append(BatchKey("w0", 0), batch(0))
        found = journal.read(BatchKey("w0", 0))

        assert found is not None
        assert found.prefix_index is not None
        assert found.prefix_index.tolist() == [0, -1, 0]
        assert list(found.prefixes) == [_PREFIX]

    def test_same_key_does_nothing(self, journal: Journal) -> None:
        """What was appended first stays."""
        journal.append(BatchKey("w0", 0), batch(0))
        journal.append(BatchKey("w0", 0), batch(0, start=9))

        found = journal.read(BatchKey("w0", 0))

        assert found is not None
        assert list(batch(0).payloads) == list(found.payloads)

    def test_absent(self, journal: Journal) -> None:
        """A batch that is not there is None."""
        journal.append(BatchKey("w0", 3), batch(3))

        assert [journal.read(BatchKey("w0", number)) for number in (2, 4)] == [None, None]
