"""Parts of the Pub/Sub server: paths, HTTP requests, bells, flow control, grouping."""

import base64
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("google.pubsub_v1")

from broker.apps.pubsub import names, protocol, rest
from broker.apps.pubsub.appending import Appender
from broker.apps.pubsub.catalogue import page, update
from broker.apps.pubsub.holders import Holder
from broker.apps.pubsub.refusals import Code, Refusal
from broker.apps.pubsub.serving import Address
from broker.apps.pubsub.waking import Bell
from broker.config import Secret
from broker.connectors.streams.local import LocalStream
from broker.errors import UsageError
from broker.ports import Delivery

TOPIC = "projects/p/topics/abc"


class TestNames:
    def test_parts(self) -> None:
        """A path has a project and a name."""
        assert names.parse("topics", TOPIC) == names.Path("p", "topics", "abc")

    @pytest.mark.parametrize("text", ["", "abc", "projects/p/topics/", "projects/p/schemas/abc"])
    def test_no_path(self, text: str) -> None:
        """Anything else is an invalid argument."""
        with pytest.raises(Refusal) as caught:
            names.parse("topics", text)
        assert caught.value.code is Code.INVALID_ARGUMENT

    @pytest.mark.parametrize("name", ["ab", "goog-x", "0ab", "a/b", "a b", "x" * 256, "../../etc"])
    def test_not_allowed(self, name: str) -> None:
        """No name leaves the home's folder."""
        with pytest.raises(Refusal):
            names.parse_new("topics", f"projects/p/topics/{name}")


class TestHttp:
    def test_body_and_path(self) -> None:
        """The call's request has both, bytes decoded."""
        body = b'{"messages": [{"data": "%s"}]}' % base64.b64encode(b"\x00\xff")
        found = rest.parse("POST", f"/v1/{TOPIC}:publish", body)

        assert (found.call.name, found.message.topic) == ("Publish", TOPIC)
        assert found.message.messages[0].data == b"\x00\xff"

    def test_query(self) -> None:
        """Fields in the query are the request's, those of Google's own are not."""
        target = "/v1/projects/p/topics?pageSize=7&%24alt=json%3Benum-encoding%3Dint&key=x"
        found = rest.parse("GET", target, b"")

        assert (found.message.project, found.message.page_size) == ("projects/p", 7)
        assert found.integers

    def test_nested_path(self) -> None:
        """An update's path goes into the resource."""
        body = b'{"topic": {"labels": {"a": "b"}}, "updateMask": "labels"}'
        found = rest.parse("PATCH", f"/v1/{TOPIC}", body)

        assert (found.message.topic.name, found.message.topic.labels["a"]) == (TOPIC, "b")
        assert list(found.message.update_mask.paths) == ["labels"]

    def test_the_path_wins(self) -> None:
        """A body cannot name another resource than the path."""
        found = rest.parse("PUT", f"/v1/{TOPIC}", b'{"name": "projects/p/topics/other"}')

        assert found.message.name == TOPIC

    def test_escaped_name(self) -> None:
        """Percent signs are decoded."""
        found = rest.parse("GET", "/v1/projects/p/topics/a%2Bc", b"")

        assert found.message.topic == "projects/p/topics/a+c"

    @pytest.mark.parametrize("body", [b"[]", b"{", b'{"nonsense": 1}'])
    def test_wrong_body(self, body: bytes) -> None:
        """A body that is no request is an invalid argument."""
        with pytest.raises(Refusal) as caught:
            rest.parse("PUT", f"/v1/{TOPIC}", body)
        assert caught.value.code is Code.INVALID_ARGUMENT

    @pytest.mark.parametrize(
        ("call", "body"),
        [
            ("topics/abc:publish", b'{"messages": [{"data": "a!b="}]}'),
            ("schemas:validateMessage", b'{"name": "projects/p/schemas/s", "message": "a!b="}'),
        ],
    )
    def test_bytes_that_are_no_base64(self, call: str, body: bytes) -> None:
        """Bytes that cannot be decoded are an invalid argument, not read in part."""
        with pytest.raises(Refusal) as caught:
            rest.parse("POST", f"/v1/projects/p/{call}", body)
        assert caught.value.code is Code.INVALID_ARGUMENT

    @pytest.mark.parametrize("target", ["/", "/v1/x", f"/v2/{TOPIC}", f"/v1/{TOPIC}:nonsense"])
    def test_nothing_there(self, target: str) -> None:
        """Other paths are not found."""
        with pytest.raises(Refusal) as caught:
            rest.parse("GET", target, b"")
        assert caught.value.code is Code.NOT_FOUND

    def test_every_call_has_a_path(self) -> None:
        """What is served over gRPC is served over HTTP."""
        routed = {name for name, _ in rest._ROUTES.values()}

        assert routed == {call.name for call in protocol.CALLS}


class TestBell:
    def test_rings_before_the_wait(self) -> None:
        """What rang since it was last heard is not missed."""
        bell = Bell()
        heard = bell.heard("a")
        bell.ring("a")
        done = threading.Thread(target=bell.wait, args=(heard, 60, "a", "b"))
        done.start()
        done.join(10)

        assert not done.is_alive()

    def test_rings_during_the_wait(self) -> None:
        """One of several names is enough."""
        bell = Bell()
        done = threading.Thread(target=bell.wait, args=(bell.heard("a", "b"), 60, "a", "b"))
        done.start()
        while not bell.awaited():
            pass
        bell.ring("b")
        done.join(10)

        assert not done.is_alive()
        assert bell.awaited() == []

    def test_other_names(self) -> None:
        """Another name wakes nobody."""
        bell = Bell()
        heard = bell.heard("a")
        bell.ring("b")
        bell.wait(heard, 0.01, "a")

        assert bell.heard("a") == heard


def delivery(number: int, size: int = 100) -> Delivery:
    """Return a message that is delivered."""
    return Delivery(
        f"w-{number}", f"w-{number}-1", bytes(size), {}, datetime(2026, 1, 1, tzinfo=UTC), 1
    )


class TestHolder:
    def test_counts_messages(self) -> None:
        """What is out takes room until it is settled."""
        holder = Holder("s", 60, 3, 0)
        holder.sent([delivery(0), delivery(1), delivery(2)])
        full = holder.room()[0]
        holder.settle(["w-0", "unknown"])

        assert (full, holder.room()[0]) == (0, 1)

    def test_counts_bytes(self) -> None:
        """Bytes are limited as well."""
        holder = Holder("s", 60, 0, 1000)
        holder.sent([delivery(0, 2000)])
        full = holder.room()[1]
        holder.settle(["w-0"])

        assert (full, holder.room()[1]) == (0, 1000)

    def test_expired_leases_give_room(self) -> None:
        """What its client let expire is not out any more."""
        holder = Holder("s", 60, 1, 0)
        holder.sent([delivery(0)])
        holder.extend(["w-0"], -1)
        holder.room()

        assert holder.room()[0] == 1


class TestAppender:
    @pytest.fixture
    def stream(self, tmp_path: Path) -> Iterator[LocalStream]:
        """Return a stream with topic ``t``."""
        stream = LocalStream(tmp_path, "w0")
        stream.create_topic("t")
        yield stream
        stream.close()

    def test_many_threads(self, stream: LocalStream) -> None:
        """Every message is there once, under the id that its thread was told."""
        appender = Appender(stream, "w0")
        told: dict[str, bytes] = {}

        def publish(number: int) -> None:
            payloads = [b"%d %d" % (number, i) for i in range(3)]
            attributes = [{"n": str(number), f"only{number}": "x"}] * 3
            found = appender.append("t", payloads, attributes)
            told.update(zip(found, payloads, strict=True))

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stream.subscribe("t", "s")
        found = stream.pull("s", 100)

        assert {one.message_id: one.payload for one in found} == told
        assert all(set(one.attributes) == {"n", f"only{one.attributes['n']}"} for one in found)

    def test_goes_on_after_a_restart(self, stream: LocalStream, tmp_path: Path) -> None:
        """Ids do not repeat."""
        first = Appender(stream, "w0").append("t", [b"a"], [{}])
        second = Appender(stream, "w0").append("t", [b"b"], [{}])

        assert first != second
        assert [topic.messages for topic in stream.topics()] == [2]


def test_pages() -> None:
    """A list comes in pages, the last without a token."""
    first, token = page("abc", 2, "")
    second, end = page("abc", 2, token)

    assert (first, second, end) == ("ab", "c", "")


@pytest.mark.parametrize(("size", "token"), [(-1, ""), (1, "nonsense")])
def test_wrong_page(size: int, token: str) -> None:
    """A token comes from a page before."""
    with pytest.raises(Refusal):
        page("abc", size, token)


def test_update_of_one_field_within() -> None:
    """A path may name a field of a field."""
    kept = protocol.Subscription()
    kept.dead_letter_policy.dead_letter_topic = TOPIC
    kept.dead_letter_policy.max_delivery_attempts = 5
    wanted = protocol.Subscription()
    wanted.dead_letter_policy.max_delivery_attempts = 9
    path = "dead_letter_policy.max_delivery_attempts"
    found = update(kept, wanted, [path], frozenset({"dead_letter_policy"})).dead_letter_policy

    assert (found.dead_letter_topic, found.max_delivery_attempts) == (TOPIC, 9)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_this_machine_needs_no_token(host: str) -> None:
    """Loopback addresses are our own."""
    Address(host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org"])
def test_the_network_needs_a_token(host: str) -> None:
    """Unless it is said that everybody may come."""
    with pytest.raises(UsageError, match="token"):
        Address(host).check()
    Address(host, token=Secret("x")).check()
    Address(host, open_to_all=True).check()
