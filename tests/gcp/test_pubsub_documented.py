"""What Google documents and its emulator does not do, asked of our server."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("google.cloud.pubsub_v1")

import requests
from google.api_core import exceptions
from google.protobuf import duration_pb2, field_mask_pb2

from gcp.pubsub_bus import data, take

MESSAGES = {
    b"1": {"name": "com", "domain": "astro"},
    b"2": {"name": "org"},
    b"3": {"iana.org/language_tag": "en", "name": "com"},
    b"4": {},
    b"5": {"name": "comet", "domain": "AND"},
}


class TestFilters:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "12345"),
            ("attributes:name", "1235"),
            ("NOT attributes:name", "4"),
            ("-attributes:name", "4"),
            ('attributes.name = "com"', "13"),
            ('attributes.name="com"', "13"),
            ('attributes.name != "com"', "245"),
            ('NOT attributes.name = "com"', "245"),
            ('attributes."iana.org/language_tag" = "en"', "3"),
            ('attributes:"iana.org/language_tag"', "3"),
            ('hasPrefix(attributes.name, "com")', "135"),
            ('NOT hasPrefix(attributes.name, "com")', "24"),
            ('attributes.name = "com" AND attributes:domain', "1"),
            ('attributes.name = "org" OR attributes:domain', "125"),
            ('attributes:domain AND NOT (attributes.name = "com" OR attributes.name = "x")', "5"),
            ('(attributes.name = "com" OR attributes.name = "org") AND -attributes:domain', "23"),
            ('attributes.domain = "AND"', "5"),
            (r'attributes.name = "\x63\u006fm"', "13"),
        ],
    )
    def test_grammar(self, ours: Any, text: str, expected: str) -> None:
        """Messages that do not match are never delivered."""
        topic, subscription = ours.pair(filter=text)
        for payload, attributes in MESSAGES.items():
            ours.publish(topic, payload, **attributes)

        found = ours.pull(subscription, len(expected))
        assert b"".join(sorted(data(found))).decode() == expected
        assert ours.nothing_comes(subscription, 0)

    @pytest.mark.parametrize(
        "text",
        [
            "bogus ((",
            "name = com",
            "attributes.name == 'com'",
            'attributes.name = "a" and attributes.name = "b"',
            "attributes:a AND attributes:b OR attributes:c",
            'hasPrefix(attributes.name "com")',
            'attributes.name > "com"',
            'attributes.name = "' + "x" * 256 + '"',
        ],
    )
    def test_wrong_grammar(self, ours: Any, text: str) -> None:
        """A filter that cannot be read is an invalid argument."""
        with pytest.raises(exceptions.InvalidArgument):
            ours.pair(filter=text)

    def test_cannot_be_changed(self, ours: Any) -> None:
        """A filter is fixed when the subscription is made."""
        _, subscription = ours.pair(filter="attributes:a")
        with pytest.raises(exceptions.InvalidArgument):
            ours.subscriber.update_subscription(
                subscription={"name": subscription, "filter": "attributes:b"},
                update_mask=field_mask_pb2.FieldMask(paths=["filter"]),
            )

    def test_dead_letters_of_a_filtered_subscription(self, ours: Any) -> None:
        """Only what matches can become a dead letter."""
        dead, letters = ours.pair()
        policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
        topic, subscription = ours.pair(filter="attributes:a", dead_letter_policy=policy)
        ours.publish(topic, b"without")
        ours.publish(topic, b"with", a="b")
        for _ in range(5):
            ours.set_deadline(subscription, ours.pull(subscription, 1), 0)

        assert data(ours.pull(letters, 1)) == [b"with"]
        assert ours.nothing_comes(letters)


class TestLimits:
    @pytest.mark.parametrize("seconds", [9, 601])
    def test_ack_deadline(self, ours: Any, seconds: int) -> None:
        """A subscription's deadline is 10 to 600 s."""
        with pytest.raises(exceptions.InvalidArgument):
            ours.pair(ack_deadline_seconds=seconds)

    @pytest.mark.parametrize("attempts", [4, 101])
    def test_delivery_attempts(self, ours: Any, attempts: int) -> None:
        """A dead-letter policy allows 5 to 100 attempts."""
        policy = {"dead_letter_topic": ours.topic(), "max_delivery_attempts": attempts}
        with pytest.raises(exceptions.InvalidArgument):
            ours.pair(dead_letter_policy=policy)

    def test_modified_deadline(self, ours: Any) -> None:
        """A lease lasts at most 600 s."""
        topic, subscription = ours.pair()
        ours.publish(topic, b"x")
        found = ours.pull(subscription, 1)
        with pytest.raises(exceptions.InvalidArgument):
            ours.set_deadline(subscription, found, 601)

    @pytest.mark.parametrize(
        "attributes", [{"": "x"}, {"googlish": "x"}, {"k" * 257: "x"}, {"k": "v" * 1025}], ids=len
    )
    def test_attributes(self, ours: Any, attributes: dict[str, str]) -> None:
        """Keys and values have Google's limits."""
        topic = ours.topic()
        with pytest.raises(exceptions.InvalidArgument):
            ours.publisher.publish(topic, b"x", **attributes).result(timeout=20)

    @pytest.mark.parametrize(
        "settings",
        [
            {"push_config": {"push_endpoint": "https://example.org"}},
            {"bigquery_config": {"table": "a.b.c"}},
            {"message_transforms": [{"javascript_udf": {"function_name": "f", "code": "f"}}]},
        ],
        ids=lambda settings: next(iter(settings)),
    )
    def test_what_is_not_there_is_refused(self, ours: Any, settings: dict[str, Any]) -> None:
        """What the server would not do is not accepted in silence."""
        with pytest.raises(exceptions.MethodNotImplemented):
            ours.pair(**settings)

    def test_backlog_larger_than_a_response(self, ours: Any) -> None:
        """The unmodified client streams a backlog of more than its 4 MB."""
        topic, subscription = ours.pair()
        futures = [ours.publisher.publish(topic, bytes(60_000), n=str(i)) for i in range(150)]
        for future in futures:
            future.result(timeout=30)
        with ours.streaming(subscription) as queue:
            found = take(queue, 150, 30)
            for message in found:
                message.ack()

        assert sorted(int(message.attributes["n"]) for message in found) == list(range(150))

    def test_too_large_for_the_client(self, ours: Any) -> None:
        """A message that the unmodified client cannot take does not hold back the others."""
        topic, subscription = ours.pair()
        ours.publish(topic, bytes(5_000_000))
        for i in range(5):
            ours.publish(topic, str(i).encode())
        with ours.streaming(subscription) as queue:
            found = take(queue, 5)
            for message in found:
                message.ack()

        assert [message.data for message in found] == [b"0", b"1", b"2", b"3", b"4"]

    def test_pull_of_more_than_a_response(self, ours: Any) -> None:
        """A pull gives as many as fit, and the rest on their first attempt later."""
        policy = {"dead_letter_topic": ours.topic(), "max_delivery_attempts": 5}
        topic, subscription = ours.pair(dead_letter_policy=policy)
        for _ in range(2):
            ours.publish(topic, *[bytes(60_000)] * 60)
        found = ours.pull(subscription, 120)

        assert [message.delivery_attempt for message in found] == [1] * 120


class TestOrdering:
    def test_redelivery_brings_the_followers(self, ours: Any) -> None:
        """A message that comes again brings those of its key that came after it."""
        topic, subscription = ours.pair(enable_message_ordering=True, ack_deadline_seconds=600)
        ours.publish(topic, b"1", b"2", b"3", key="k")
        ours.publish(topic, b"x", key="other")
        first = ours.pull(subscription, 4)
        ours.acknowledge(subscription, first[1:2])
        ours.set_deadline(subscription, first[:1], 0)

        again = ours.pull(subscription, 3)
        assert data(first) == [b"1", b"2", b"3", b"x"]
        assert data(again) == [b"1", b"2", b"3"]
        assert ours.nothing_comes(subscription)

    def test_one_line_at_a_time(self, ours: Any) -> None:
        """What follows in a key waits until all before it is acknowledged."""
        topic, subscription = ours.pair(enable_message_ordering=True, ack_deadline_seconds=600)
        ours.publish(topic, b"1", key="k")
        first = ours.pull(subscription, 1)
        ours.publish(topic, b"2", key="k")
        ours.publish(topic, b"x", key="other")
        others = ours.pull(subscription, 1)
        ours.acknowledge(subscription, first)

        assert data(others) == [b"x"]
        assert data(ours.pull(subscription, 1)) == [b"2"]


class TestRetention:
    def test_seek_before_the_subscription_was_made(self, ours: Any) -> None:
        """A topic keeps its messages: a new subscription can go back to them."""
        topic = ours.topic()
        ours.publish(topic, b"1", b"2")
        subscription = ours.subscription(topic)
        moment = datetime.fromtimestamp(1, UTC)
        ours.subscriber.seek({"subscription": subscription, "time": moment})

        assert data(ours.pull(subscription, 2)) == [b"1", b"2"]

    def test_snapshot_for_another_subscription(self, ours: Any) -> None:
        """A snapshot serves every subscription of its topic."""
        topic, subscription = ours.pair()
        snapshot = ours.name("snapshots")
        ours.subscriber.create_snapshot({"name": snapshot, "subscription": subscription})
        ours.publish(topic, b"x")
        other = ours.subscription(topic)
        ours.subscriber.seek({"subscription": other, "snapshot": snapshot})

        assert data(ours.pull(other, 1)) == [b"x"]

    def test_snapshot_of_another_topic(self, ours: Any) -> None:
        """A snapshot serves no other topic."""
        _, subscription = ours.pair()
        _, other = ours.pair()
        snapshot = ours.name("snapshots")
        ours.subscriber.create_snapshot({"name": snapshot, "subscription": subscription})
        with pytest.raises(exceptions.FailedPrecondition):
            ours.subscriber.seek({"subscription": other, "snapshot": snapshot})


def test_retry_policy(ours: Any) -> None:
    """A message that was given back rests before it comes again."""
    policy = {
        "minimum_backoff": duration_pb2.Duration(seconds=2),
        "maximum_backoff": duration_pb2.Duration(seconds=60),
    }
    topic, subscription = ours.pair(retry_policy=policy)
    ours.publish(topic, b"x")
    ours.set_deadline(subscription, ours.pull(subscription, 1), 0)
    started = time.monotonic()
    again = ours.pull(subscription, 1)

    assert data(again) == [b"x"]
    assert time.monotonic() - started > 1.5


def test_projects_share_the_home(ours: Any) -> None:
    """A name is the same topic in every project."""
    topic = ours.topic()
    elsewhere = topic.replace("projects/conformance", "projects/other")

    assert ours.publisher.get_topic(topic=elsewhere).name == elsewhere


def test_forms(ours: Any) -> None:
    """The REST client of the first broker's TOM sends fields, not JSON; Google takes them."""
    topic, subscription = ours.pair()
    ours.publish(topic, b"1", b"2")
    root = f"http://{ours.address}/v1/{subscription}"
    pulled = requests.post(f"{root}:pull", data={"maxMessages": 10}, timeout=30).json()
    ids = [received["ackId"] for received in pulled["receivedMessages"]]
    answered = requests.post(f"{root}:acknowledge", data={"ackIds": ids}, timeout=30)

    assert len(ids) == 2
    assert (answered.status_code, answered.json()) == (200, {})
    assert ours.nothing_comes(subscription)
