"""Alerts from a Pub/Sub subscription: nothing is lost, and nothing is kept from others."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from broker.config import Settings
from broker.connectors.gcp.clients import Cloud
from broker.connectors.sources.pubsub import PubSubSource
from broker.connectors.streams.pubsub import PubSubStream
from broker.errors import ConfigError, NotFoundError, TransientError
from broker.ports import BatchKey, Messages, SourceBatch
from gcp import pubsub_emulator, pubsub_ours

_PROJECT = "test-project"

_READS_AND_DIES = """
import os, sys
from broker.connectors.gcp.clients import Cloud
from broker.connectors.sources.pubsub import PubSubSource
source = PubSubSource(Cloud("test-project", pubsub=sys.argv[1]), sys.argv[2])
batches = (batch for batch in source.batches(5, 2.0) if batch.payloads)
source.commit(next(batches))
print(len(next(batches).payloads), flush=True)
import time
time.sleep(2)
os._exit(9)
"""


class Place:
    """A topic with one subscription, and sources of it."""

    def __init__(self, address: str) -> None:
        self.cloud = Cloud(_PROJECT, pubsub=address)
        self.address = address
        self.name = f"s{uuid4().hex[:8]}"
        self._stream = PubSubStream(self.cloud)
        self._numbers = iter(range(1000))
        self._stream.publish(self.name, Messages([], pl.DataFrame()), BatchKey("w0", 0))
        self._stream.subscribe(self.name, self.name, ack_deadline_s=10)

    def publish(self, payloads: list[bytes], attributes: pl.DataFrame | None = None) -> None:
        """Publish a batch."""
        table = pl.DataFrame() if attributes is None else attributes
        key = BatchKey("w0", next(self._numbers) + 1)
        self._stream.publish(self.name, Messages(payloads, table), key)

    def source(self, **more: Any) -> PubSubSource:
        """Make a source."""
        return PubSubSource(self.cloud, self.name, **{"quiet_s": 1.5, **more})


@pytest.fixture(params=["google_address", "our_address"])
def place(request: pytest.FixtureRequest) -> Place:
    """Return a place that no other test uses, on each server in turn."""
    return Place(request.getfixturevalue(request.param))


@pytest.fixture
def our_place(our_address: str) -> Place:
    """Return a place on our server, which knows at once when a stream has ended."""
    return Place(our_address)


def read(source: PubSubSource, commit: bool = True) -> list[bytes]:
    """Read a source to its end and close it."""
    found: list[bytes] = []
    with closing(source):
        for batch in source.batches(100, 0.1):
            found += batch.payloads
            if commit:
                source.commit(batch)
    return sorted(found)


def numbered(count: int) -> list[bytes]:
    """Return payloads in order."""
    return [b"alert %04d" % number for number in range(count)]


def filled(batches: Iterator[SourceBatch]) -> SourceBatch:
    """Return the next batch that is not empty."""
    return next(batch for batch in batches if batch.payloads)


def test_reads_all_and_ends(place: Place) -> None:
    """Everything comes once, and silence is the end."""
    place.publish(numbered(300))

    assert numbered(300) == read(place.source())
    assert read(place.source()) == []


def test_more_than_an_answer_may_have(place: Place) -> None:
    """A backlog of more than gRPC's 4 MB arrives."""
    payloads = [bytes([number]) * 100_000 for number in range(80)]
    place.publish(payloads)

    assert payloads == read(place.source())


def test_uncommitted_comes_again_at_once(our_place: Place) -> None:
    """What was not committed goes back when a source is closed, and only that."""
    our_place.publish(numbered(30))
    with closing(our_place.source()) as source:
        batches = source.batches(10, 2.0)
        first = filled(batches)
        filled(batches)
        source.commit(first)

    rest = read(our_place.source())
    assert sorted([*first.payloads, *rest]) == numbered(30)


def test_commit_takes_the_batches_before(our_place: Place) -> None:
    """A commit is for all batches up to its own; again, it does nothing."""
    our_place.publish(numbered(20))
    with closing(our_place.source()) as source:
        batches = source.batches(5, 2.0)
        filled(batches)
        second = filled(batches)
        source.commit(second)
        source.commit(second)

    assert len(read(our_place.source())) == 20 - 5 - len(second.payloads)


def test_committed_after_the_end(place: Place) -> None:
    """The last batches may be committed when the source has said that it is done."""
    place.publish(numbered(5))
    with closing(place.source()) as source:
        for batch in list(source.batches(100, 0.1)):
            source.commit(batch)

    assert read(place.source()) == []


@pytest.mark.slow
def test_killed_reader(place: Place) -> None:
    """What a killed process had not committed comes again; what it had, does not."""
    place.publish(numbered(20))
    command = [sys.executable, "-c", _READS_AND_DIES, place.address, place.name]
    dead = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (dead.returncode, dead.stdout) == (9, "5\n"), dead.stderr

    found: set[bytes] = set()
    with closing(place.source(quiet_s=60.0)) as source:
        batches = source.batches(100, 0.1)
        while len(found) < 15:
            found |= set(next(batches).payloads)
        time.sleep(1)
        found |= set(next(batches).payloads)
    assert len(found) == 15


@pytest.mark.slow
def test_lease_is_extended(place: Place) -> None:
    """A batch that takes longer than the deadline comes to nobody else meanwhile."""
    place.publish(numbered(3))
    with closing(place.source()) as slow:
        filled(slow.batches(3, 2.0))

        assert read(place.source(quiet_s=18.0)) == []


def test_tells_where_alerts_came_from(place: Place) -> None:
    """Kafka's coordinates are read from attributes; without them there are none."""
    attributes = pl.DataFrame(
        {
            "kafka.topic": ["ztf_20260101_programid1", None],
            "kafka.partition": [3, None],
            "kafka.offset": [2**40, None],
            "kafka.timestamp": [1_700_000_000_000, None],
        }
    )
    place.publish([b"a", b"b"], attributes)
    with closing(place.source()) as source:
        origins = filled(source.batches(2, 2.0)).origins

    rows = sorted(origins.drop("place", "message_id").rows(), key=str)
    assert rows == [
        ("ztf_20260101_programid1", 3, 2**40, 1_700_000_000_000),
        (None, None, None, None),
    ]
    named = [f"{place.name} message {it}" for it in origins["message_id"]]
    assert named == origins["place"].to_list()


def test_attributes_with_underscores(place: Place) -> None:
    """Kafka's coordinates have underscores in the messages of others."""
    attributes = {"kafka_topic": ["t"], "kafka_offset": ["none"]}
    place.publish([b"a"], pl.DataFrame(attributes))
    with closing(place.source()) as source:
        origins = filled(source.batches(1, 2.0)).origins

    assert origins.drop("place", "message_id").row(0) == ("t", None, None, None)


def test_makes_its_subscription(place: Place) -> None:
    """A source that knows its topic makes the subscription."""
    place.publish(numbered(3))
    source = PubSubSource(place.cloud, f"{place.name}-new", topic=place.name, quiet_s=1.0)

    assert numbered(3) == read(source)


def test_unknown_subscription(place: Place) -> None:
    """A subscription that is not there is named."""
    with pytest.raises(NotFoundError, match="no subscription 'nothing' in project test-project"):
        read(PubSubSource(place.cloud, "nothing"))


def test_subscription_that_goes_away(place: Place) -> None:
    """A subscription that is deleted while it is read is an error, not silence."""
    source = place.source(follow=True)
    with closing(source):
        batches = source.batches(10, 0.1)
        next(batches)
        path = f"projects/{_PROJECT}/subscriptions/{place.name}"
        place.cloud.subscriber.delete_subscription(subscription=path)

        with pytest.raises(NotFoundError):
            list(batches)


def test_emulator_that_is_not_there() -> None:
    """An emulator that never answered is given up within seconds."""
    source = PubSubSource(Cloud(_PROJECT, pubsub="127.0.0.1:9"), "any")
    with pytest.raises(TransientError, match=r"no emulator answers at 127\.0\.0\.1:9"):
        next(source.batches(1, 0.1))
    source.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("pubsub://proj-x", "names no subscription"),
        ("pubsub://proj-x/sub?quite=3", "unknown option quite"),
        ("pubsub://proj-x/sub?quiet=long", "'long'"),
        ("pubsub:///sub", "no Google Cloud project is named"),
    ],
)
def test_wrong_places(url: str, says: str) -> None:
    """A place that cannot be read says why."""
    with pytest.raises(ConfigError, match=says):
        PubSubSource.from_url(url, Settings())


@pytest.mark.slow
def test_emulator_that_dies(emulator: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A service that is gone is waited for, and told of; one that stays away is an error."""
    with emulator.running() as address:
        place = Place(address)
        place.publish(numbered(3))
        source = place.source(patience_s=8.0)
        batches = source.batches(3, 2.0)
        assert len(filled(batches).payloads) == 3
    with closing(source), pytest.raises(TransientError, match="no emulator answers"):
        list(batches)

    assert "waiting since" in caplog.text


@pytest.fixture
def emulator() -> Any:
    """Return the module that starts an emulator of one's own."""
    if reason := pubsub_emulator.what_is_missing():
        pytest.skip(reason)
    return pubsub_emulator


@pytest.mark.slow
def test_server_that_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is killed and started again is waited for; nothing is lost."""
    with pubsub_ours.running(tmp_path) as served:
        place = Place(served.address)
        place.publish(numbered(50))
        source = place.source(follow=True)
        batches = source.batches(20, 0.5)
        found = set(filled(batches).payloads)
        served.kill()
    while "waiting since" not in caplog.text:
        found |= set(next(batches).payloads)
    with pubsub_ours.running(tmp_path, "--port", served.address.rsplit(":")[-1]), closing(source):
        place.publish([b"later"])
        while b"later" not in found or len(found) < 51:
            found |= set(next(batches).payloads)

    assert sorted(found) == [*numbered(50), b"later"]
