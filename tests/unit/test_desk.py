"""Subscriptions with rules on local topics: who gets what, and when again."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from broker.connectors.streams.desk import ORDERING_KEY, Ask, Desk
from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.rules import Rules
from broker.connectors.streams.seeking import Seeker
from broker.connectors.streams.subscriptions import Subscription
from broker.errors import NotFoundError, RefusedError, TransientError
from broker.ports import BatchKey, Delivery, Messages
from broker.testing.stream_contract import Clock

PLAIN = Rules()
MANY = Ask(100, 10**9)
Buried = list[tuple[str, bytes, int]]


class Bench:
    """A topic ``t`` and a desk; `fails` makes burials fail."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.stream = LocalStream(folder, "w0", self.clock)
        self.buried: Buried = []
        self.fails = False
        self.desk = Desk(self.stream, self._bury, self.clock)
        self._number = 0
        self.stream.create_topic("t")

    def _bury(self, topic: str, found: Subscription, letters: Sequence[Delivery]) -> None:
        if self.fails:
            raise NotFoundError("there is no such topic")
        self.buried += [(topic, letter.payload, letter.attempt) for letter in letters]

    def subscribe(self, rules: Rules = PLAIN) -> None:
        """Make subscription ``s``."""
        self.desk.create(Subscription("s", "t", "", 10), rules)

    def publish(self, *payloads: bytes, keys: str = "") -> None:
        """Publish a batch, with a key for each message."""
        columns = {ORDERING_KEY: list(keys)} if keys else {}
        self._number += 1
        messages = Messages(payloads, pl.DataFrame(columns))
        self.stream.publish("t", messages, BatchKey("w0", self._number))

    def pull(self, ask: Ask = MANY) -> list[Delivery]:
        """Pull from ``s``."""
        return self.desk.pull("s", ask)

    def payloads(self, ask: Ask = MANY) -> bytes:
        """Pull from ``s``; payloads are letters."""
        return b"".join(delivery.payload for delivery in self.pull(ask))

    def nack(self, deliveries: Sequence[Delivery]) -> None:
        """Give messages back."""
        self.desk.extend("s", [delivery.ack_id for delivery in deliveries], 0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return a topic and a desk."""
    bench = Bench(tmp_path)
    yield bench
    bench.stream.close()


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    """Return the acknowledgement ids."""
    return [delivery.ack_id for delivery in deliveries]


class TestLeases:
    def test_starts_at_the_end(self, bench: Bench) -> None:
        """What was published before is not delivered."""
        bench.publish(b"a")
        bench.subscribe()
        bench.publish(b"b")

        assert bench.payloads() == b"b"

    def test_deadline_of_the_ask(self, bench: Bench) -> None:
        """Who asks may want another deadline than the subscription's."""
        bench.subscribe()
        bench.publish(b"a")
        bench.pull(Ask(1, 10**9, 100))
        bench.clock.advance(99)
        early = bench.payloads()
        bench.clock.advance(2)

        assert (early, bench.payloads()) == (b"", b"a")

    def test_late_acknowledgement_counts(self, bench: Bench) -> None:
        """A message that did not come again can be acknowledged after its deadline."""
        bench.subscribe()
        bench.publish(b"a")
        found = bench.pull()
        bench.clock.advance(11)

        assert bench.desk.acknowledge("s", ids(found)) == []
        assert bench.payloads() == b""

    def test_stale_acknowledgement(self, bench: Bench) -> None:
        """Where it must be exact, a lease that is over counts for nothing, and that is told."""
        bench.subscribe()
        bench.publish(b"a")
        found = bench.pull()
        bench.clock.advance(11)
        bench.pull()

        assert bench.desk.acknowledge("s", ids(found), exact=True) == ids(found)
        assert bench.desk.extend("s", ids(found), 600, exact=True) == ids(found)
        bench.clock.advance(11)
        assert bench.payloads() == b"a"

    def test_second_lease(self, bench: Bench) -> None:
        """Where it need not be exact, what was acknowledged late does not come again."""
        bench.subscribe()
        bench.publish(b"a")
        found = bench.pull()
        bench.clock.advance(11)
        bench.pull()
        bench.desk.acknowledge("s", ids(found))
        bench.clock.advance(11)

        assert bench.payloads() == b""

    def test_not_more_bytes_than_asked(self, bench: Bench) -> None:
        """What does not fit comes next, as if it had not been leased."""
        bench.subscribe()
        bench.publish(*[bytes(10_000)] * 10)
        found = [bench.pull(Ask(10, 35_000)) for _ in range(4)]

        assert [len(each) for each in found] == [3, 3, 3, 1]
        assert {one.attempt for each in found for one in each} == {1}

    def test_one_that_is_larger(self, bench: Bench) -> None:
        """A message larger than what fits comes alone."""
        bench.subscribe()
        bench.publish(b"a", bytes(10_000), b"b")

        assert [len(bench.pull(Ask(5, 5_000))) for _ in range(3)] == [1, 1, 1]

    def test_name_taken(self, bench: Bench) -> None:
        """Even by the same subscription."""
        bench.subscribe()
        with pytest.raises(RefusedError, match="exists"):
            bench.subscribe()

    def test_dropped(self, bench: Bench) -> None:
        """A new subscription of an old name knows nothing of it."""
        bench.subscribe()
        bench.publish(b"a")
        bench.pull()
        bench.desk.drop("s")
        bench.subscribe()

        assert bench.payloads() == b""


class TestRules:
    def test_dead_letters(self, bench: Bench) -> None:
        """A message is buried once, after its last attempt."""
        bench.subscribe(Rules(max_attempts=2, dead_letter_topic="dead"))
        bench.publish(b"a", b"b")
        for _ in range(2):
            first, _ = bench.pull()
            bench.nack([first])
            bench.clock.advance(11)
        left = bench.pull()

        assert sorted(bench.buried) == [("dead", b"a", 2), ("dead", b"b", 2)]
        assert left == []

    def test_burial_without_a_pull(self, bench: Bench) -> None:
        """Dead letters do not wait for somebody to pull."""
        bench.subscribe(Rules(max_attempts=1, dead_letter_topic="dead"))
        bench.publish(b"a")
        bench.nack(bench.pull())

        assert [bench.desk.bury_dead("s"), bench.desk.bury_dead("s")] == [1, 0]
        assert bench.buried == [("dead", b"a", 1)]

    def test_failed_burial(self, bench: Bench) -> None:
        """What cannot be buried now is tried again, and is not lost."""
        bench.subscribe(Rules(max_attempts=1, dead_letter_topic="dead"))
        bench.publish(b"a")
        bench.nack(bench.pull())
        bench.fails = True
        failed = bench.desk.bury_dead("s")
        bench.fails = False
        bench.clock.advance(61)

        assert (failed, bench.desk.bury_dead("s")) == (0, 1)

    def test_backoff(self, bench: Bench) -> None:
        """Each further attempt is later than the one before, up to a limit."""
        bench.subscribe(Rules(minimum_backoff_s=10, maximum_backoff_s=15))
        bench.publish(b"a")
        waits = []
        for _ in range(3):
            bench.nack(bench.pull())
            waited = 0
            while not (found := bench.pull()):
                bench.clock.advance(1)
                waited += 1
            waits.append(waited)
            bench.nack(found)
            bench.clock.advance(1000)

        assert waits == [10, 15, 15]

    def test_retention(self, bench: Bench) -> None:
        """Messages that are too old are passed over."""
        bench.subscribe(Rules(retention_s=600))
        bench.publish(b"a")
        bench.clock.advance(400)
        bench.publish(b"b")
        bench.clock.advance(400)

        assert bench.payloads() == b"b"

    def test_changed(self, bench: Bench) -> None:
        """Rules and deadline can change later."""
        bench.subscribe()
        bench.publish(b"a")
        bench.nack(bench.pull())
        bench.desk.change("s", 100, Rules(max_attempts=1, dead_letter_topic="dead"))

        assert bench.payloads() == b""
        assert bench.buried == [("dead", b"a", 1)]


class TestOrder:
    ORDERED = Rules(ordered=True)

    def test_a_key_waits_for_its_first(self, bench: Bench) -> None:
        """Nothing overtakes within a key; other keys go on."""
        bench.subscribe(self.ORDERED)
        bench.publish(b"a", b"b", keys="xy")
        first = bench.pull(Ask(1, 10**9))
        bench.publish(b"c", b"d", b"e", keys="xyx")
        others = bench.pull()
        bench.desk.acknowledge("s", ids(first))

        assert b"".join(one.payload for one in others) == b"bd"
        assert bench.payloads() == b"ce"

    def test_expiry_brings_followers(self, bench: Bench) -> None:
        """All that follows a message comes again with it, acknowledged or not."""
        bench.subscribe(self.ORDERED)
        bench.publish(b"a", b"b", b"c", keys="xxx")
        found = bench.pull()
        bench.desk.acknowledge("s", ids(found[1:]))
        bench.clock.advance(11)

        assert bench.payloads() == b"abc"

    def test_acknowledged_from_the_front(self, bench: Bench) -> None:
        """What is acknowledged with all before it never comes again."""
        bench.subscribe(self.ORDERED)
        bench.publish(b"a", b"b", b"c", keys="xxx")
        found = bench.pull()
        bench.desk.acknowledge("s", ids(found[1:2]))
        bench.desk.acknowledge("s", ids(found[:1]))
        bench.nack(found)

        assert bench.payloads() == b"c"

    def test_attempts_of_followers(self, bench: Bench) -> None:
        """Who only follows is not blamed: its attempts stay."""
        bench.subscribe(self.ORDERED)
        bench.publish(b"a", b"b", keys="xx")
        found = bench.pull()
        bench.nack(found[:1])

        assert [one.attempt for one in bench.pull()] == [2, 1]

    def test_dead_letter_frees_the_key(self, bench: Bench) -> None:
        """After a burial the key goes on."""
        rules = Rules(max_attempts=1, dead_letter_topic="dead", ordered=True)
        bench.subscribe(rules)
        bench.publish(b"a", b"b", keys="xx")
        bench.nack(bench.pull(Ask(1, 10**9)))

        assert bench.payloads() == b"b"
        assert bench.buried == [("dead", b"a", 1)]

    def test_without_keys(self, bench: Bench) -> None:
        """Messages without a key wait for nobody."""
        bench.subscribe(self.ORDERED)
        bench.publish(b"a", b"b")
        found = bench.pull(Ask(1, 10**9))
        bench.nack(found)

        assert sorted(bench.payloads()) == sorted(b"ab")

    def test_a_hot_key_is_bounded(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """What waits behind one message is not all read ahead."""
        monkeypatch.setattr("broker.connectors.streams.ordering.MOST_WAITING", 5)
        bench.subscribe(self.ORDERED)
        bench.publish(*[b"a"] * 50, keys="x" * 50)
        first = bench.pull(Ask(1, 10**9))
        bench.pull(Ask(3, 10**9))
        with bench.stream.subscriptions.transaction() as db:
            (waiting,) = db.execute("SELECT count(*) FROM lease").fetchone()
        assert waiting <= 10

        count, found = 0, first
        while found:
            bench.desk.acknowledge("s", ids(found))
            count += len(found)
            found = bench.pull()
        assert count == 50


class TestStream:
    def test_keeps_order(self, bench: Bench) -> None:
        """Who pulls through the stream gets keys in their order, too."""
        bench.subscribe(Rules(ordered=True))
        bench.publish(b"a", b"b", keys="xx")
        [first] = bench.stream.pull("s", 1)
        others = bench.stream.pull("s", 1)
        bench.stream.acknowledge("s", [first.ack_id])

        assert others == []
        assert [one.payload for one in bench.stream.pull("s", 1)] == [b"b"]

    def test_leaves_dead_letters(self, bench: Bench) -> None:
        """Dead letters are not delivered; they wait for one who publishes them."""
        bench.subscribe(Rules(max_attempts=1, dead_letter_topic="dead"))
        bench.publish(b"a")
        bench.stream.release("s", ids(bench.stream.pull("s", 1)))

        assert bench.stream.pull("s", 1) == []
        assert bench.desk.bury_dead("s") == 1


class TestSeek:
    def test_to_a_time(self, bench: Bench) -> None:
        """What was published from then on comes again, leases and all."""
        bench.subscribe()
        bench.publish(b"a")
        bench.clock.advance(10)
        moment = bench.clock()
        bench.publish(b"b")
        bench.desk.acknowledge("s", ids(bench.pull()))
        Seeker(bench.stream).to_time("s", moment)

        assert bench.payloads() == b"b"

    def test_before_everything(self, bench: Bench) -> None:
        """A subscription can go back to before it was made."""
        bench.publish(b"a")
        bench.subscribe()
        Seeker(bench.stream).to_time("s", datetime(1970, 1, 1, tzinfo=UTC))

        assert bench.payloads() == b"a"

    def test_snapshot_keeps_order(self, bench: Bench) -> None:
        """A key's messages come in their order after a seek to a snapshot."""
        bench.subscribe(Rules(ordered=True))
        bench.publish(b"a", b"b", b"c", keys="xxx")
        found = bench.pull()
        bench.desk.acknowledge("s", ids(found[:1]))
        seeker = Seeker(bench.stream)
        seeker.snapshot("then", "s", bench.clock())
        bench.desk.acknowledge("s", ids(found))
        seeker.to_snapshot("s", "then")

        assert bench.payloads() == b"bc"

    def test_unknown(self, bench: Bench) -> None:
        """A snapshot must be there."""
        bench.subscribe()
        with pytest.raises(NotFoundError):
            Seeker(bench.stream).to_snapshot("s", "nothing")


class TestTopics:
    def test_deleted(self, bench: Bench) -> None:
        """A deleted topic starts afresh, and its old subscriptions get nothing more."""
        bench.subscribe()
        bench.publish(b"a")
        bench.stream.delete_topic("t")
        bench.desk.detach("t")
        bench.stream.create_topic("t")
        bench.publish(b"b")

        assert [topic.messages for topic in bench.stream.topics()] == [1]
        assert bench.payloads() == b""

    def test_of_another_worker(self, bench: Bench, tmp_path: Path) -> None:
        """What another worker wrote is not deleted."""
        bench.publish(b"a")
        other = LocalStream(tmp_path, "w1")
        with pytest.raises(RefusedError, match="w0"):
            other.delete_topic("t")
        other.close()

    def test_unknown(self, bench: Bench) -> None:
        """What is not there cannot be deleted."""
        with pytest.raises(NotFoundError):
            bench.stream.delete_topic("nothing")


def test_full_disk_leaves_leases(bench: Bench) -> None:
    """A failure of the service is no loss: what could not be buried stays."""
    bench.subscribe(Rules(max_attempts=1, dead_letter_topic="dead"))
    bench.publish(b"a")
    bench.nack(bench.pull())

    def full(*_: object) -> None:
        raise TransientError("disk full")

    desk = Desk(bench.stream, full, bench.clock)
    assert desk.pull("s", MANY) == []
    bench.clock.advance(61)
    assert bench.desk.bury_dead("s") == 1
