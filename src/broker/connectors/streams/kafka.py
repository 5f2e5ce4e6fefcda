"""Topics and subscriptions on a Kafka cluster: the broker's bus between machines.

What differs from the local stream:

* a subscription is a consumer group; Kafka records one offset a partition and no single
  acknowledgement, so leases live in the process that pulled, and what was acknowledged
  behind a message that was not comes again when that process ends;
* messages are in order within a partition only, and readers may see a batch some
  milliseconds after its publication returned, when the cluster has ended the transaction;
* the backlog counts offsets: before the subscription's filter, and with the few that Kafka
  uses for itself, it is at most so many messages;
* how many messages a topic holds is what the workers of this home have published to it,
  also if its retention has dropped some.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from broker.config import Settings
from broker.connectors.kafka.client import ask, error_of, make_client, service_error
from broker.connectors.kafka.place import read_place
from broker.connectors.kafka.publisher import MakeProducer, Publisher, make_producer, read_mark
from broker.connectors.kafka.reader import Definition, Reader
from broker.connectors.streams.attribute_filter import AttributeFilter
from broker.errors import NotFoundError, RefusedError
from broker.ports import BatchKey, Delivery, Messages, TopicInfo
from broker.surveys import DEFAULT_SURVEY, get_survey

_ANSWER_S = 15.0
_ASKED_AT_ONCE = 16
_BOOKS = "published-by-"


class KafkaStream:
    """A `Stream` on Kafka.

    Parameters
    ----------
    properties : mapping
        Client properties, the addresses and the login among them.
    prefix : str
        What the names of our topics and groups start with, where others use the cluster.
    owner : str
        Mark of the home whose workers publish: another home's of the same name are others.
    partitions : int
        Partitions of a topic that is made here: at most so many readers share it.
    now : callable
        The clock.
    make : callable
        Makes producers.
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        *,
        prefix: str = "",
        owner: str = "home",
        partitions: int = 8,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        make: MakeProducer = make_producer,
    ) -> None:
        self._properties = properties
        self._prefix = prefix
        self._books = f"{prefix}{_BOOKS}{owner}-"
        self._partitions = partitions
        self._now = now
        self._make = make
        self._admin: Any = make_client(AdminClient, properties)
        self._known: set[str] = set()
        self._publishers: dict[str, Publisher] = {}
        self._readers: dict[str, Reader] = {}
        self._publishing = threading.Lock()

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, owner: str) -> "KafkaStream":
        """Make the stream of ``kafka://bootstrap[,…]/[prefix]``, with the settings' login."""
        survey = get_survey(settings.survey or DEFAULT_SURVEY)
        place, _, options = url.partition("?")
        address, _, prefix = place.removeprefix("kafka://").partition("/")
        found = read_place(f"kafka://{address}?{options}", settings, survey)
        return cls(found.properties, prefix=prefix, owner=owner)

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Append to `topic`, creating it; the whole batch or nothing, durable on return.

        A key at or below the last of its worker on that topic does nothing.

        Raises
        ------
        TransientError
            If the cluster does not answer.
        RefusedError
            If it does not want the messages.
        """
        with self._publishing:  # a producer has one transaction at a time
            self._create(self._prefix + topic)
            self._publisher(key.worker).publish(self._prefix + topic, messages, key)

    def topics(self) -> list[TopicInfo]:
        """List our topics, in order of name; see the module for what the numbers mean."""
        places, groups = self._places(), self._groups()
        with ThreadPoolExecutor(_ASKED_AT_ONCE, "groups") as pool:
            marks = pool.map(lambda group: self._marks(group, places), groups)
            known = dict(zip(groups, marks, strict=True))
        return [self._info(name, known) for name in sorted({place.topic for place in places})]

    def subscribe(
        self, topic: str, name: str, *, attribute_filter: str = "", ack_deadline_s: float = 60
    ) -> None:
        """Make a subscription, from the oldest message on; the same call again does nothing.

        Raises
        ------
        NotFoundError
            If there is no such topic.
        RefusedError
            If the name is taken by another topic or filter.
        """
        AttributeFilter(attribute_filter)
        wanted = Definition(self._prefix + topic, attribute_filter, ack_deadline_s)
        places = self._places()
        starts = [place for place in places if place.topic == wanted.topic]
        if not starts:
            raise NotFoundError(f"there is no topic {topic!r}")
        marks = self._marks(self._prefix + name, places)
        if not marks:
            return self._mark_start(self._prefix + name, wanted, starts)
        known = Definition.read(marks[0])
        if (known.topic, known.attribute_filter) != (wanted.topic, wanted.attribute_filter):
            raise RefusedError(f"subscription {name!r} exists already, on topic {known.topic!r}")
        return None

    def pull(self, subscription: str, max_messages: int) -> list[Delivery]:
        """Lease up to `max_messages`, those whose lease expired first."""
        return self._reader(subscription).pull(max_messages)

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Never deliver these again, as far as one offset a partition can say so."""
        self._reader(subscription).acknowledge(ack_ids)

    def release(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Deliver these again now."""
        self._reader(subscription).release(ack_ids)

    def close(self) -> None:
        """Record how far all is done, and let go."""
        parts: list[Reader | Publisher] = [*self._readers.values(), *self._publishers.values()]
        for part in parts:
            part.close()
        self._readers.clear()
        self._publishers.clear()

    def _publisher(self, worker: str) -> Publisher:
        if worker not in self._publishers:
            group = self._books + worker
            self._publishers[worker] = Publisher(self._properties, group, self._now, self._make)
        return self._publishers[worker]

    def _reader(self, name: str) -> Reader:
        if name not in self._readers:
            group = self._prefix + name
            marks = self._marks(group, self._places())
            if not marks:
                raise NotFoundError(f"there is no subscription {name!r}")
            properties = {**self._properties, "group.id": group}
            self._readers[name] = Reader(Definition.read(marks[0]), properties, self._now)
        return self._readers[name]

    def _create(self, topic: str) -> None:
        if topic in self._known:
            return
        wanted = NewTopic(topic, num_partitions=self._partitions)
        try:
            self._admin.create_topics([wanted])[topic].result(_ANSWER_S)
        except KafkaException as error:
            if error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise service_error(error_of(error), f"making topic {topic}") from error
        self._known.add(topic)

    def _topics(self) -> dict[str, Any]:
        return ask(
            lambda: dict(self._admin.list_topics(timeout=_ANSWER_S).topics), "listing the topics"
        )

    def _groups(self) -> list[str]:
        found = ask(
            lambda: self._admin.list_consumer_groups(request_timeout=_ANSWER_S).result().valid,
            "listing the groups",
        )
        return sorted(it.group_id for it in found if it.group_id.startswith(self._prefix))

    def _places(self) -> list[TopicPartition]:
        """Return every partition of our topics; those of Kafka itself are none."""
        return [
            TopicPartition(name, number)
            for name, topic in self._topics().items()
            if name.startswith(self._prefix) and not name.startswith("__")
            for number in topic.partitions
        ]

    def _marks(self, group: str, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Return the offsets that a group has recorded at some of the places.

        A member of the group asks, as librdkafka's administrator, which could ask for all groups,
        crashes where the group has no coordinator yet (its issue 5040).
        """
        if not places:
            return []
        with self._consumer(group) as consumer:
            found: list[TopicPartition] = ask(
                lambda: consumer.committed(list(places), _ANSWER_S), f"asking for group {group}"
            )
        return [mark for mark in found if mark.offset >= 0]

    def _mark_start(self, group: str, wanted: Definition, places: Sequence[TopicPartition]) -> None:
        """Make a group by recording the oldest offset of each partition."""
        with self._consumer(group) as consumer:
            starts = [
                TopicPartition(
                    *(place.topic, place.partition),
                    _watermarks(consumer, place)[0],
                    wanted.note(),
                )
                for place in places
            ]
            ask(
                lambda: consumer.commit(offsets=starts, asynchronous=False),
                f"making subscription {group}",
            )

    def _info(self, topic: str, groups: Mapping[str, Sequence[TopicPartition]]) -> TopicInfo:
        count, backlog = 0, {}
        ends: dict[int, int] = {}
        for group, marks in groups.items():
            ours = [mark for mark in marks if mark.topic == topic]
            if group.startswith(self._books):
                count += sum(read_mark(mark).count for mark in ours)
            elif ours and not group.startswith(self._prefix + _BOOKS):
                ends = ends or self._end_offsets(ours)
                waiting = sum(ends[mark.partition] - mark.offset for mark in ours)
                backlog[group.removeprefix(self._prefix)] = max(waiting, 0)
        return TopicInfo(topic.removeprefix(self._prefix), count, backlog)

    def _end_offsets(self, marks: Sequence[TopicPartition]) -> dict[int, int]:
        with self._consumer(f"{self._prefix}ends") as consumer:
            return {mark.partition: _watermarks(consumer, mark)[1] for mark in marks}

    @contextmanager
    def _consumer(self, group: str) -> Iterator[Any]:
        consumer = make_client(Consumer, {**self._properties, "group.id": group})
        try:
            yield consumer
        finally:
            consumer.close()


def _watermarks(consumer: Any, place: TopicPartition) -> tuple[int, int]:
    """Return the oldest and the next offset of a partition."""
    marks: tuple[int, int] = ask(
        lambda: consumer.get_watermark_offsets(place, timeout=_ANSWER_S),
        f"asking for the offsets of {place.topic}",
    )
    return marks
