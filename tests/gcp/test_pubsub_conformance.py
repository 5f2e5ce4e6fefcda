"""What Pub/Sub does, asked through Google's client: of Google's emulator and of ours."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from google.api_core import exceptions
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2

from gcp import pubsub_bus
from gcp.pubsub_bus import data, take

PARENT = f"projects/{pubsub_bus.PROJECT}"


def minutes(count: float) -> duration_pb2.Duration:
    """Return a protobuf duration."""
    return duration_pb2.Duration(seconds=int(count * 60))


class TestTopics:
    def test_create_and_get(self, bus: Any) -> None:
        """A topic comes back with what it was made with."""
        topic = bus.topic(labels={"a": "b"}, message_retention_duration=minutes(20))

        found = bus.publisher.get_topic(topic=topic)

        assert (found.name, dict(found.labels)) == (topic, {"a": "b"})
        assert found.message_retention_duration == timedelta(minutes=20)

    def test_create_twice(self, bus: Any) -> None:
        """A name is given once."""
        topic = bus.topic()
        with pytest.raises(exceptions.AlreadyExists):
            bus.publisher.create_topic(name=topic)

    def test_get_unknown(self, bus: Any) -> None:
        """A topic that is not there is not found."""
        with pytest.raises(exceptions.NotFound):
            bus.publisher.get_topic(topic=bus.name("topics"))

    @pytest.mark.parametrize("name", ["ab", "1topic", "googtopic", "with space", "x" * 256])
    def test_wrong_name(self, bus: Any, name: str) -> None:
        """Names have 3 to 255 of certain characters, a letter first, and not goog."""
        with pytest.raises(exceptions.InvalidArgument):
            bus.publisher.create_topic(name=f"{PARENT}/topics/{name}")

    def test_wrong_path(self, bus: Any) -> None:
        """A name without its project is no topic's."""
        with pytest.raises(exceptions.InvalidArgument):
            bus.publisher.create_topic(name="topics/some-topic")

    def test_list(self, bus: Any) -> None:
        """Every topic of the project is listed."""
        made = {bus.topic(), bus.topic()}

        assert made <= {topic.name for topic in bus.publisher.list_topics(project=PARENT)}

    def test_list_in_pages(self, bus: Any) -> None:
        """A long list comes in pages."""
        made = {bus.topic() for _ in range(3)}
        pages = list(bus.publisher.list_topics({"project": PARENT, "page_size": 2}).pages)

        assert len(pages) > 1
        assert all(len(page.topics) <= 2 for page in pages)
        assert made <= {topic.name for page in pages for topic in page.topics}

    def test_update(self, bus: Any) -> None:
        """Only the fields of the mask change."""
        topic = bus.topic(labels={"a": "b"}, message_retention_duration=minutes(20))
        found = bus.publisher.update_topic(
            topic={"name": topic, "labels": {"c": "d"}, "message_retention_duration": minutes(30)},
            update_mask=field_mask_pb2.FieldMask(paths=["message_retention_duration"]),
        )

        assert dict(found.labels) == {"a": "b"}
        assert found.message_retention_duration == timedelta(minutes=30)
        assert bus.publisher.get_topic(topic=topic) == found

    def test_list_subscriptions(self, bus: Any) -> None:
        """A topic tells its subscriptions."""
        topic, subscription = bus.pair()

        assert list(bus.publisher.list_topic_subscriptions(topic=topic)) == [subscription]

    def test_delete(self, bus: Any) -> None:
        """A deleted topic is gone, and its subscriptions say so."""
        topic, subscription = bus.pair()
        bus.publisher.delete_topic(topic=topic)

        with pytest.raises(exceptions.NotFound):
            bus.publisher.get_topic(topic=topic)
        found = bus.subscriber.get_subscription(subscription=subscription)
        assert found.topic == "_deleted-topic_"

    def test_delete_unknown(self, bus: Any) -> None:
        """What is not there cannot be deleted."""
        with pytest.raises(exceptions.NotFound):
            bus.publisher.delete_topic(topic=bus.name("topics"))

    def test_again_after_delete(self, bus: Any) -> None:
        """A name can be used again, and starts empty."""
        topic, _ = bus.pair()
        bus.publish(topic, b"old")
        bus.publisher.delete_topic(topic=topic)
        bus.publisher.create_topic(name=topic)
        subscription = bus.subscription(topic)
        bus.publish(topic, b"new")

        assert data(bus.pull(subscription, 1)) == [b"new"]


class TestSubscriptions:
    def test_defaults(self, bus: Any) -> None:
        """What was not asked for has Google's defaults."""
        topic, subscription = bus.pair()

        found = bus.subscriber.get_subscription(subscription=subscription)

        assert (found.name, found.topic) == (subscription, topic)
        assert found.ack_deadline_seconds == 10
        assert found.message_retention_duration == timedelta(days=7)
        assert found.enable_message_ordering is False

    def test_settings_come_back(self, bus: Any) -> None:
        """What was asked for is told."""
        dead = bus.topic()
        _, subscription = bus.pair(
            ack_deadline_seconds=77,
            filter='attributes.band = "g"',
            enable_message_ordering=True,
            labels={"a": "b"},
            dead_letter_policy={"dead_letter_topic": dead, "max_delivery_attempts": 7},
            retry_policy={"minimum_backoff": duration_pb2.Duration(seconds=11)},
        )

        found = bus.subscriber.get_subscription(subscription=subscription)

        assert (found.ack_deadline_seconds, found.filter) == (77, 'attributes.band = "g"')
        assert found.enable_message_ordering
        assert found.dead_letter_policy.dead_letter_topic == dead
        assert found.dead_letter_policy.max_delivery_attempts == 7
        assert found.retry_policy.minimum_backoff == timedelta(seconds=11)

    def test_create_twice(self, bus: Any) -> None:
        """A name is given once, the same settings or not."""
        topic, subscription = bus.pair()
        with pytest.raises(exceptions.AlreadyExists):
            bus.subscriber.create_subscription(name=subscription, topic=topic)

    def test_unknown_topic(self, bus: Any) -> None:
        """A subscription needs its topic."""
        with pytest.raises(exceptions.NotFound):
            bus.subscription(bus.name("topics"))

    def test_get_unknown(self, bus: Any) -> None:
        """A subscription that is not there is not found."""
        with pytest.raises(exceptions.NotFound):
            bus.subscriber.get_subscription(subscription=bus.name("subscriptions"))

    def test_pull_unknown(self, bus: Any) -> None:
        """Nothing can be pulled from a subscription that is not there."""
        with pytest.raises(exceptions.NotFound):
            bus.subscriber.pull(subscription=bus.name("subscriptions"), max_messages=1)

    @pytest.mark.parametrize(
        "settings",
        [
            {"ack_deadline_seconds": 601},
            {"message_retention_duration": minutes(9)},
        ],
        ids=str,
    )
    def test_wrong_settings(self, bus: Any, settings: dict[str, Any]) -> None:
        """Values outside Google's limits are refused."""
        with pytest.raises(exceptions.InvalidArgument):
            bus.pair(**settings)

    def test_wrong_name(self, bus: Any) -> None:
        """The rules of names hold."""
        with pytest.raises(exceptions.InvalidArgument):
            bus.subscriber.create_subscription(name=f"{PARENT}/subscriptions/ab", topic=bus.topic())

    def test_list(self, bus: Any) -> None:
        """Every subscription of the project is listed."""
        made = {bus.pair()[1], bus.pair()[1]}
        listed = bus.subscriber.list_subscriptions(project=PARENT)

        assert made <= {subscription.name for subscription in listed}

    def test_update(self, bus: Any) -> None:
        """The acknowledgement deadline can be changed."""
        _, subscription = bus.pair(labels={"a": "b"})
        bus.subscriber.update_subscription(
            subscription={"name": subscription, "ack_deadline_seconds": 33},
            update_mask=field_mask_pb2.FieldMask(paths=["ack_deadline_seconds"]),
        )

        found = bus.subscriber.get_subscription(subscription=subscription)
        assert (found.ack_deadline_seconds, dict(found.labels)) == (33, {"a": "b"})

    @pytest.mark.parametrize("path", ["topic", "enable_message_ordering", "nonsense"])
    def test_update_of_what_is_fixed(self, bus: Any, path: str) -> None:
        """Some fields are fixed when the subscription is made."""
        topic, subscription = bus.pair()
        with pytest.raises(exceptions.InvalidArgument):
            bus.subscriber.update_subscription(
                subscription={
                    "name": subscription,
                    "topic": topic,
                    "enable_message_ordering": True,
                },
                update_mask=field_mask_pb2.FieldMask(paths=[path]),
            )

    def test_delete(self, bus: Any) -> None:
        """A deleted subscription is gone; a new one of its name starts afresh."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"old")
        bus.subscriber.delete_subscription(subscription=subscription)
        with pytest.raises(exceptions.NotFound):
            bus.subscriber.get_subscription(subscription=subscription)
        bus.subscriber.create_subscription(name=subscription, topic=topic)
        bus.publish(topic, b"new")

        assert data(bus.pull(subscription, 1)) == [b"new"]

    def test_delete_unknown(self, bus: Any) -> None:
        """What is not there cannot be deleted."""
        with pytest.raises(exceptions.NotFound):
            bus.subscriber.delete_subscription(subscription=bus.name("subscriptions"))


class TestPublish:
    def test_arrives_as_published(self, bus: Any) -> None:
        """Payload, attributes, id and time arrive."""
        topic, subscription = bus.pair()
        started = datetime.now(UTC) - timedelta(seconds=5)
        payload = bytes(range(256))
        [message_id] = bus.publish(topic, payload, band="g", empty="", Ünïcode="→")

        [found] = bus.pull(subscription, 1)

        assert found.message.data == payload
        assert dict(found.message.attributes) == {"band": "g", "empty": "", "Ünïcode": "→"}
        assert found.message.message_id == message_id
        assert started < found.message.publish_time < datetime.now(UTC) + timedelta(seconds=5)

    def test_attributes_only(self, bus: Any) -> None:
        """A message may be attributes alone."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"", a="b")

        [found] = bus.pull(subscription, 1)
        assert (found.message.data, dict(found.message.attributes)) == (b"", {"a": "b"})

    def test_through_the_batching_client(self, bus: Any) -> None:
        """Futures of the high-level publisher give the ids, in the order of the calls."""
        topic, subscription = bus.pair()
        futures = [bus.publisher.publish(topic, str(i).encode(), n=str(i)) for i in range(250)]
        ids = [future.result(timeout=20) for future in futures]

        found = {it.message.message_id: it.message.data for it in bus.pull(subscription, 250)}
        assert [found[each] for each in ids] == [str(i).encode() for i in range(250)]

    def test_ids_differ(self, bus: Any) -> None:
        """Every message has its own id."""
        topic = bus.topic()
        ids = bus.publish(topic, b"a", b"b") + bus.publish(topic, b"a")

        assert len(set(ids)) == 3

    def test_unknown_topic(self, bus: Any) -> None:
        """Nothing can be published to a topic that is not there."""
        with pytest.raises(exceptions.NotFound):
            bus.publisher.publish(bus.name("topics"), b"x").result(timeout=20)

    def test_empty_message(self, bus: Any) -> None:
        """A message has data or attributes."""
        with pytest.raises(exceptions.InvalidArgument):
            bus.publisher.publish(bus.topic(), b"").result(timeout=20)

    def test_no_messages(self, bus: Any) -> None:
        """A request has messages."""
        topic = bus.topic()
        with pytest.raises(exceptions.InvalidArgument):
            bus.publisher.transport._wrapped_methods[bus.publisher.transport.publish](
                pubsub_bus.pubsub_v1.types.PublishRequest(topic=topic)
            )

    def test_every_subscription_gets_it(self, bus: Any) -> None:
        """Subscriptions are independent."""
        topic, first = bus.pair()
        second = bus.subscription(topic)
        bus.publish(topic, b"x")

        assert [data(bus.pull(it, 1)) for it in (first, second)] == [[b"x"], [b"x"]]

    def test_what_came_before_is_not_delivered(self, bus: Any) -> None:
        """A subscription gets what is published after it was made."""
        topic = bus.topic()
        bus.publish(topic, b"before")
        subscription = bus.subscription(topic)
        bus.publish(topic, b"after")

        assert data(bus.pull(subscription, 1)) == [b"after"]
        assert bus.nothing_comes(subscription)


class TestPull:
    def test_at_most(self, bus: Any) -> None:
        """No more come than were asked for."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"a", b"b", b"c")
        found = bus.subscriber.pull(subscription=subscription, max_messages=2).received_messages

        assert 1 <= len(found) <= 2

    def test_wrong_count(self, bus: Any) -> None:
        """At least one message is asked for."""
        _, subscription = bus.pair()
        with pytest.raises(exceptions.InvalidArgument):
            bus.subscriber.pull(subscription=subscription, max_messages=0)

    def test_waits_for_a_message(self, bus: Any) -> None:
        """A pull waits a while for messages that come later."""
        topic, subscription = bus.pair()
        later = threading.Timer(0.5, bus.publish, (topic, b"x"))
        later.start()
        found = bus.subscriber.pull(subscription=subscription, max_messages=1, timeout=10)
        later.join()

        assert data(found.received_messages) == [b"x"]

    def test_leased_messages_do_not_come(self, bus: Any) -> None:
        """What was pulled is not delivered again before its deadline."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"x")
        bus.pull(subscription, 1)

        assert bus.nothing_comes(subscription)

    def test_acknowledged_never_comes_again(self, bus: Any) -> None:
        """An acknowledgement is for ever."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"x", b"y")
        found = bus.pull(subscription, 2)
        bus.acknowledge(subscription, found[:1])
        bus.set_deadline(subscription, found, 0)

        assert data(bus.pull(subscription, 1)) == data(found[1:])
        assert bus.nothing_comes(subscription)

    def test_nack(self, bus: Any) -> None:
        """A deadline of 0 gives the message back at once, under another lease."""
        topic, subscription = bus.pair(ack_deadline_seconds=600)
        bus.publish(topic, b"x")
        first = bus.pull(subscription, 1)
        bus.set_deadline(subscription, first, 0)
        again = bus.pull(subscription, 1)

        assert again[0].message.message_id == first[0].message.message_id
        assert again[0].ack_id != first[0].ack_id

    def test_shorter_deadline(self, bus: Any) -> None:
        """A message comes again when its deadline is over."""
        topic, subscription = bus.pair(ack_deadline_seconds=600)
        bus.publish(topic, b"x")
        bus.set_deadline(subscription, bus.pull(subscription, 1), 1)

        assert data(bus.pull(subscription, 1)) == [b"x"]

    def test_longer_deadline(self, bus: Any) -> None:
        """A deadline can be moved on."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"x")
        found = bus.pull(subscription, 1)
        bus.set_deadline(subscription, found, 1)
        bus.set_deadline(subscription, found, 60)

        assert bus.nothing_comes(subscription, 1.5)

    def test_wrong_deadline(self, bus: Any) -> None:
        """A deadline is not in the past."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"x")
        found = bus.pull(subscription, 1)
        with pytest.raises(exceptions.InvalidArgument):
            bus.set_deadline(subscription, found, -1)

    def test_wrong_ack_id(self, bus: Any) -> None:
        """Nonsense is not an acknowledgement id."""
        _, subscription = bus.pair()
        with pytest.raises(exceptions.InvalidArgument):
            bus.subscriber.acknowledge(subscription=subscription, ack_ids=["nonsense"])

    def test_acknowledge_nothing(self, bus: Any) -> None:
        """An acknowledgement names messages."""
        _, subscription = bus.pair()
        with pytest.raises(exceptions.InvalidArgument):
            bus.subscriber.acknowledge(subscription=subscription, ack_ids=[])

    def test_acknowledge_unknown_subscription(self, bus: Any) -> None:
        """An acknowledgement names a subscription."""
        with pytest.raises(exceptions.NotFound):
            bus.subscriber.acknowledge(subscription=bus.name("subscriptions"), ack_ids=["x"])


class TestStreamingPull:
    def test_messages_arrive(self, bus: Any) -> None:
        """What is published before and during the stream arrives."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"before")
        with bus.streaming(subscription) as queue:
            first = take(queue, 1)
            bus.publish(topic, b"during", a="b")
            second = take(queue, 1)
            for message in first + second:
                message.ack()

        assert [message.data for message in first + second] == [b"before", b"during"]
        assert dict(second[0].attributes) == {"a": "b"}

    def test_acknowledged_on_the_stream(self, bus: Any) -> None:
        """What a callback acknowledged does not come again."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"x")
        with bus.streaming(subscription) as queue:
            take(queue, 1)[0].ack()
        bus.publish(topic, b"y")

        assert data(bus.pull(subscription, 1)) == [b"y"]

    def test_nack_on_the_stream(self, bus: Any) -> None:
        """What a callback gave back comes again at once."""
        topic, subscription = bus.pair(ack_deadline_seconds=600)
        bus.publish(topic, b"x")
        with bus.streaming(subscription) as queue:
            [first] = take(queue, 1)
            first.nack()
            [second] = take(queue, 1)
            second.ack()

        assert second.message_id == first.message_id

    def test_flow_control(self, bus: Any) -> None:
        """No more messages are outstanding than the client allows."""
        topic, subscription = bus.pair()
        bus.publish(topic, *(str(i).encode() for i in range(20)))
        with bus.streaming(subscription, max_messages=5) as queue:
            first = take(queue, 20, wait_s=1.5)
            for message in first:
                message.ack()
            then = take(queue, 5)
            for message in then:
                message.ack()

        assert (len(first), len(then)) == (5, 5)

    def test_two_streams_share(self, bus: Any) -> None:
        """Each message goes to one of the streams of a subscription."""
        topic, subscription = bus.pair()
        with bus.streaming(subscription) as one, bus.streaming(subscription) as other:
            time.sleep(0.3)
            for i in range(40):
                bus.publish(topic, str(i).encode())
            found = []
            deadline = time.monotonic() + 10
            while len(found) < 40 and time.monotonic() < deadline:
                found += take(one, 1, 0.05) + take(other, 1, 0.05)
            for message in found:
                message.ack()

        assert sorted(int(message.data) for message in found) == list(range(40))

    def test_unknown_subscription(self, bus: Any) -> None:
        """The future tells that there is no such subscription."""
        future = bus.subscriber.subscribe(bus.name("subscriptions"), lambda message: None)
        with pytest.raises(exceptions.NotFound):
            future.result(timeout=15)

    @pytest.mark.slow
    def test_deadline_is_kept_by_the_client(self, bus: Any) -> None:
        """The client extends its leases, so that a slow callback gets a message once."""
        topic, subscription = bus.pair(ack_deadline_seconds=10)
        bus.publish(topic, b"x")
        with bus.streaming(subscription) as queue:
            [message] = take(queue, 1)
            again = take(queue, 1, wait_s=12)
            message.ack()

        assert again == []


class TestDeadLetters:
    def test_goes_to_the_dead_letter_topic(self, bus: Any) -> None:
        """After the allowed attempts a message goes to the other topic, with its story."""
        dead, dead_subscription = bus.pair()
        policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
        topic, subscription = bus.pair(dead_letter_policy=policy)
        bus.publish(topic, b"poison", a="b")
        attempts = []
        for _ in range(5):
            found = bus.pull(subscription, 1)
            attempts += [message.delivery_attempt for message in found]
            bus.set_deadline(subscription, found, 0)

        bus.nothing_comes(subscription)
        [letter] = bus.pull(dead_subscription, 1)

        assert attempts == [1, 2, 3, 4, 5]
        assert letter.message.data == b"poison"
        told = dict(letter.message.attributes)
        assert told.pop("CloudPubSubDeadLetterSourceTopicPublishTime")
        assert told == {
            "a": "b",
            "CloudPubSubDeadLetterSourceDeliveryCount": "5",
            "CloudPubSubDeadLetterSourceSubscription": subscription.rsplit("/", 1)[1],
            "CloudPubSubDeadLetterSourceSubscriptionProject": pubsub_bus.PROJECT,
        }

    def test_gone_from_the_subscription(self, bus: Any) -> None:
        """A dead letter is not delivered by its first subscription any more."""
        policy = {"dead_letter_topic": bus.topic(), "max_delivery_attempts": 5}
        topic, subscription = bus.pair(dead_letter_policy=policy)
        bus.publish(topic, b"poison")
        for _ in range(5):
            bus.set_deadline(subscription, bus.pull(subscription, 1), 0)

        assert bus.nothing_comes(subscription)

    def test_no_attempts_without_a_policy(self, bus: Any) -> None:
        """Attempts are told only where there is a policy."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"x")

        assert [it.delivery_attempt for it in bus.pull(subscription, 1)] == [0]


class TestOrdering:
    def test_order_within_a_key(self, bus: Any) -> None:
        """Messages of a key arrive in the order of their publication."""
        topic, subscription = bus.pair(enable_message_ordering=True)
        for i in range(20):
            bus.publish(topic, str(i).encode(), key="ab"[i % 2])
        with bus.streaming(subscription) as queue:
            found = []
            for _ in range(20):
                [message] = take(queue, 1)
                message.ack()
                found.append(message)

        for key, start in (("a", 0), ("b", 1)):
            numbers = [int(it.data) for it in found if it.ordering_key == key]
            assert numbers == list(range(start, 20, 2))

    def test_key_is_told(self, bus: Any) -> None:
        """The key arrives and is no attribute."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"x", key="k", a="b")

        [found] = bus.pull(subscription, 1)
        assert (found.message.ordering_key, dict(found.message.attributes)) == ("k", {"a": "b"})

    def test_given_back_in_order(self, bus: Any) -> None:
        """What is given back comes again in its order."""
        topic, subscription = bus.pair(enable_message_ordering=True, ack_deadline_seconds=600)
        bus.publish(topic, b"1", b"2", b"3", key="k")
        first = bus.pull(subscription, 3)
        bus.set_deadline(subscription, first, 0)

        assert data(bus.pull(subscription, 3)) == data(first) == [b"1", b"2", b"3"]

    def test_withheld_until_acknowledged(self, bus: Any) -> None:
        """What follows a message that was given back does not overtake it."""
        topic, subscription = bus.pair(enable_message_ordering=True, ack_deadline_seconds=600)
        bus.publish(topic, b"1", key="k")
        bus.set_deadline(subscription, bus.pull(subscription, 1), 0)
        bus.publish(topic, b"2", key="k")

        assert data(bus.pull(subscription, 1)) == [b"1"]


class TestSeek:
    def test_back_in_time(self, bus: Any) -> None:
        """Seeking back delivers again what was acknowledged since."""
        topic, subscription = bus.pair(retain_acked_messages=True)
        bus.publish(topic, b"early")
        bus.acknowledge(subscription, bus.pull(subscription, 1))
        time.sleep(0.3)
        moment = datetime.now(UTC)
        time.sleep(0.3)
        bus.publish(topic, b"late")
        bus.acknowledge(subscription, bus.pull(subscription, 1))
        bus.subscriber.seek({"subscription": subscription, "time": moment})

        assert data(bus.pull(subscription, 1)) == [b"late"]
        assert bus.nothing_comes(subscription)

    def test_to_the_future(self, bus: Any) -> None:
        """Seeking to now drops the backlog."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"x", b"y")
        bus.pull(subscription, 1)
        moment = datetime.now(UTC) + timedelta(seconds=1)
        bus.subscriber.seek({"subscription": subscription, "time": moment})
        time.sleep(1.5)
        bus.publish(topic, b"z")

        assert data(bus.pull(subscription, 1)) == [b"z"]
        assert bus.nothing_comes(subscription)

    def test_snapshot(self, bus: Any) -> None:
        """Seeking to a snapshot brings back what was not acknowledged then."""
        topic, subscription = bus.pair()
        bus.publish(topic, b"1", b"2")
        found = bus.pull(subscription, 2)
        bus.acknowledge(subscription, found[:1])
        snapshot = bus.name("snapshots")
        bus.subscriber.create_snapshot({"name": snapshot, "subscription": subscription})
        bus.acknowledge(subscription, found[1:])
        bus.publish(topic, b"3")
        bus.acknowledge(subscription, bus.pull(subscription, 1))
        bus.subscriber.seek({"subscription": subscription, "snapshot": snapshot})

        assert sorted(data(bus.pull(subscription, 2))) == sorted([*data(found[1:]), b"3"])
        assert bus.nothing_comes(subscription)

    def test_snapshots_are_listed(self, bus: Any) -> None:
        """A snapshot can be listed, got and deleted."""
        topic, subscription = bus.pair()
        snapshot = bus.name("snapshots")
        bus.subscriber.create_snapshot({"name": snapshot, "subscription": subscription})

        assert snapshot in {it.name for it in bus.subscriber.list_snapshots(project=PARENT)}
        assert bus.subscriber.get_snapshot(snapshot=snapshot).topic == topic
        bus.subscriber.delete_snapshot(snapshot=snapshot)
        with pytest.raises(exceptions.NotFound):
            bus.subscriber.get_snapshot(snapshot=snapshot)

    def test_snapshot_twice(self, bus: Any) -> None:
        """A name is given once."""
        _, subscription = bus.pair()
        wanted = {"name": bus.name("snapshots"), "subscription": subscription}
        bus.subscriber.create_snapshot(wanted)
        with pytest.raises(exceptions.AlreadyExists):
            bus.subscriber.create_snapshot(wanted)

    def test_unknown_snapshot(self, bus: Any) -> None:
        """A snapshot that is not there cannot be sought."""
        _, subscription = bus.pair()
        with pytest.raises(exceptions.NotFound):
            bus.subscriber.seek({"subscription": subscription, "snapshot": bus.name("snapshots")})

    def test_unknown_subscription(self, bus: Any) -> None:
        """Only a subscription can seek."""
        now = timestamp_pb2.Timestamp(seconds=int(time.time()))
        with pytest.raises(exceptions.NotFound):
            bus.subscriber.seek({"subscription": bus.name("subscriptions"), "time": now})


class TestExactlyOnce:
    def test_acknowledgement_is_confirmed(self, bus: Any) -> None:
        """The client learns that an acknowledgement was taken."""
        topic, subscription = bus.pair(enable_exactly_once_delivery=True)
        bus.publish(topic, b"x")
        with bus.streaming(subscription) as queue:
            [message] = take(queue, 1)
            outcome = message.ack_with_response().result(timeout=15)

        assert outcome.name == "SUCCESS"

    def test_stale_acknowledgement_is_refused(self, bus: Any) -> None:
        """An acknowledgement of a lease that is over is an error."""
        topic, subscription = bus.pair(enable_exactly_once_delivery=True)
        bus.publish(topic, b"x")
        found = bus.pull(subscription, 1)
        bus.set_deadline(subscription, found, 0)
        bus.pull(subscription, 1)

        with pytest.raises(exceptions.GoogleAPICallError) as caught:
            bus.acknowledge(subscription, found)
        assert dict(caught.value.metadata) == {found[0].ack_id: "PERMANENT_FAILURE_INVALID_ACK_ID"}
