"""The service that makes topics and publishes to them."""

from collections.abc import Sequence

from broker.apps.pubsub import protocol
from broker.apps.pubsub.catalogue import page, update
from broker.apps.pubsub.names import DELETED_TOPIC, Path, parse, parse_new, project_of
from broker.apps.pubsub.parts import Parts
from broker.apps.pubsub.protocol import Message, response_of
from broker.apps.pubsub.refusals import already_exists, invalid, not_found, unimplemented
from broker.apps.pubsub.schemas import Schemas
from broker.apps.pubsub.waking import of_topic
from broker.connectors.streams.desk import ORDERING_KEY

_CHANGEABLE = frozenset({"labels", "message_retention_duration", "schema_settings", "kms_key_name"})
_UNSUPPORTED = ("ingestion_data_source_settings", "message_transforms")
_MOST_MESSAGES, _MOST_BYTES, _MOST_ATTRIBUTES = 1000, 10_000_000, 100
_KEY_BYTES, _VALUE_BYTES = 256, 1024
_RESERVED = "goog"


class Publishing:
    """Topics of a home under Google's protocol.

    Parameters
    ----------
    parts : Parts
        What the services share.
    schemas : Schemas
        Checks messages of topics that have one.
    """

    def __init__(self, parts: Parts, schemas: Schemas) -> None:
        self._stream = parts.stream
        self._catalogue = parts.catalogue
        self._desk = parts.desk
        self._seeker = parts.seeker
        self._appender = parts.appender
        self._bell = parts.bell
        self._schemas = schemas

    def create_topic(self, request: Message) -> Message:
        """Make a topic."""
        path = parse_new("topics", request.name)
        for name in _UNSUPPORTED:
            if request.HasField(name) if name.endswith("settings") else getattr(request, name):
                raise unimplemented(name.replace("_", " "))
        if self._stream.has_topic(path.name):
            raise already_exists("Topic", str(path))
        if request.HasField("schema_settings"):
            self._schemas.check_settings(request.schema_settings)
        self._stream.create_topic(path.name)
        self._catalogue.put("topic", path.name, request)
        return self._described(path)

    def get_topic(self, request: Message) -> Message:
        """Describe a topic."""
        return self._described(self._existing(request.topic))

    def update_topic(self, request: Message) -> Message:
        """Change what can be changed of a topic."""
        path = self._existing(request.topic.name)
        paths = request.update_mask.paths
        changed = update(self._described(path), request.topic, paths, _CHANGEABLE)
        if "schema_settings" in paths and changed.HasField("schema_settings"):
            self._schemas.check_settings(changed.schema_settings)
        self._catalogue.put("topic", path.name, changed)
        return self._described(path)

    def list_topics(self, request: Message) -> Message:
        """List the topics of the home."""
        project = project_of(request.project)
        names, token = page(self._stream.topic_names(), request.page_size, request.page_token)
        found = [self._described(Path(project, "topics", name)) for name in names]
        return response_of("ListTopics")(topics=found, next_page_token=token)

    def list_topic_subscriptions(self, request: Message) -> Message:
        """Name the subscriptions of a topic."""
        path = self._existing(request.topic)
        names = [it.name for it in self._stream.subscriptions.all() if it.topic == path.name]
        found, token = page(names, request.page_size, request.page_token)
        paths = [str(Path(path.project, "subscriptions", name)) for name in found]
        return response_of("ListTopicSubscriptions")(subscriptions=paths, next_page_token=token)

    def list_topic_snapshots(self, request: Message) -> Message:
        """Name the snapshots of a topic's subscriptions."""
        path = self._existing(request.topic)
        names = [it.name for it in self._seeker.snapshots() if it.topic == path.name]
        found, token = page(names, request.page_size, request.page_token)
        paths = [str(Path(path.project, "snapshots", name)) for name in found]
        return response_of("ListTopicSnapshots")(snapshots=paths, next_page_token=token)

    def delete_topic(self, request: Message) -> Message:
        """Remove a topic; its subscriptions stay, without one."""
        path = self._existing(request.topic)
        self._stream.delete_topic(path.name)
        self._appender.forget(path.name)
        self._catalogue.drop("topic", path.name)
        for name in self._desk.detach(path.name):
            kept = self._catalogue.get("subscription", name, protocol.Subscription)
            if kept is not None:
                kept.topic = DELETED_TOPIC
                self._catalogue.put("subscription", name, kept)
        return protocol.Empty()

    def detach_subscription(self, request: Message) -> Message:
        """Refuse: a subscription is deleted instead."""
        parse("subscriptions", request.subscription)
        raise unimplemented("detaching; delete the subscription")

    def publish(self, request: Message) -> Message:
        """Publish messages; they are on the disk when their ids are returned."""
        path = self._existing(request.topic)
        messages = request.messages
        _check(messages)
        stamps = self._stamps(path.name, [message.data for message in messages])
        ids = self._appender.append(
            path.name,
            [message.data for message in messages],
            [_attributes(message, stamp) for message, stamp in zip(messages, stamps, strict=True)],
        )
        self._bell.ring(of_topic(path.name))
        return protocol.PublishResponse(message_ids=ids)

    def _stamps(self, topic: str, payloads: Sequence[bytes]) -> Sequence[dict[str, str]]:
        """Check payloads against the topic's schema, and tell which one it was."""
        kept = self._catalogue.get("topic", topic, protocol.Topic)
        if kept is None or not kept.HasField("schema_settings"):
            return [{}] * len(payloads)
        return self._schemas.check(kept.schema_settings, payloads)

    def _existing(self, text: str) -> Path:
        path = parse("topics", text)
        if not self._stream.has_topic(path.name):
            raise not_found("Topic", text)
        return path

    def _described(self, path: Path) -> Message:
        found = self._catalogue.get("topic", path.name, protocol.Topic) or protocol.Topic()
        found.name = str(path)
        found.state = protocol.Topic.State.ACTIVE
        return found


def _attributes(message: Message, stamp: dict[str, str]) -> dict[str, str]:
    found = dict(message.attributes) | stamp
    if message.ordering_key:
        found[ORDERING_KEY] = message.ordering_key
    return found


def _check(messages: Sequence[Message]) -> None:
    if not 0 < len(messages) <= _MOST_MESSAGES:
        raise invalid(f"a request has 1 to {_MOST_MESSAGES} messages, not {len(messages)}")
    if sum(len(message.data) for message in messages) > _MOST_BYTES:
        raise invalid(f"a request has at most {_MOST_BYTES} bytes")
    for message in messages:
        if not message.data and not message.attributes:
            raise invalid("a message has data or attributes")
        if message.attributes:
            _check_attributes(message.attributes)
        if len(message.ordering_key.encode()) > _VALUE_BYTES:
            raise invalid(f"an ordering key has at most {_VALUE_BYTES} bytes")


def _check_attributes(attributes: Message) -> None:
    if len(attributes) > _MOST_ATTRIBUTES:
        raise invalid(f"a message has at most {_MOST_ATTRIBUTES} attributes")
    for key, value in attributes.items():
        if not 0 < len(key.encode()) <= _KEY_BYTES or key.startswith(_RESERVED):
            raise invalid(
                f"invalid attribute {key!r}: it has 1 to {_KEY_BYTES} bytes and does not start"
                f" with {_RESERVED}"
            )
        if len(value.encode()) > _VALUE_BYTES:
            raise invalid(f"the value of attribute {key!r} has more than {_VALUE_BYTES} bytes")
