"""Topics and subscriptions in Google Pub/Sub."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from broker.apps.cloud.plan import Found
from broker.apps.cloud.registry import LABEL, Resource
from broker.connectors.gcp import Cloud
from broker.connectors.gcp.pubsub import PubSub
from broker.errors import NotFoundError

_MOST_ATTEMPTS = 5


class TopicAdapter:
    """Topics.

    Parameters
    ----------
    cloud : Cloud
        The project.
    label : str
        The instance's label.
    """

    mutable = frozenset({"retention_s"})

    def __init__(self, cloud: Cloud, label: str) -> None:
        self._cloud = cloud
        self._service = PubSub(cloud)
        self._label = label

    def wanted(self, resource: Resource) -> Mapping[str, Any]:
        """Return how long messages can be gone back to."""
        return {"retention_s": resource.settings.get("retention_s", 0)}

    def find(self, resource: Resource) -> Found | None:
        """Look for a topic; None if it is not there."""
        try:
            found = self._ask(self._cloud.publisher.get_topic, topic=self._path(resource.name))
        except NotFoundError as error:
            if "no Google Cloud project" in str(error):
                raise
            return None
        return Found({"retention_s": _seconds(found.message_retention_duration)}, self._ours(found))

    def create(self, resource: Resource) -> None:
        """Make a topic."""
        self._ask(self._cloud.publisher.create_topic, request=self._body(resource))

    def change(self, resource: Resource, names: Sequence[str]) -> None:  # noqa: ARG002 - there is one
        """Set how long messages are kept."""
        self._update(resource, "message_retention_duration")

    def adopt(self, resource: Resource) -> None:
        """Give a topic the instance's label."""
        self._update(resource, "labels")

    def delete(self, resource: Resource) -> None:
        """Remove a topic with its messages."""
        self._ask(self._cloud.publisher.delete_topic, topic=self._path(resource.name))

    def labelled(self) -> Sequence[str]:
        """Name the topics that bear the label."""
        project = f"projects/{self._cloud.project}"
        found = self._service.every(self._cloud.publisher.list_topics, project=project)
        return [it.name.rsplit("/", 1)[1] for it in found if self._ours(it)]

    def _body(self, resource: Resource) -> dict[str, Any]:
        body = {"name": self._path(resource.name), "labels": {LABEL: self._label}}
        if seconds := self.wanted(resource)["retention_s"]:
            body["message_retention_duration"] = Duration(seconds=seconds)
        return body

    def _update(self, resource: Resource, path: str) -> None:
        request = {"topic": self._body(resource), "update_mask": {"paths": [path]}}
        self._ask(self._cloud.publisher.update_topic, request=request)

    def _ask(self, call: Any, **values: Any) -> Any:
        return self._service.ask(call, **values)

    def _path(self, name: str) -> str:
        return self._service.path("topics", name)

    def _ours(self, found: Any) -> bool:
        return bool(found.labels.get(LABEL) == self._label)


class SubscriptionAdapter:
    """Subscriptions.

    Parameters
    ----------
    cloud : Cloud
        The project.
    label : str
        The instance's label.
    """

    mutable = frozenset({"ack_deadline_s", "retention_s", "expiration", "dead_letter_topic"})

    def __init__(self, cloud: Cloud, label: str) -> None:
        self._cloud = cloud
        self._service = PubSub(cloud)
        self._label = label

    def wanted(self, resource: Resource) -> Mapping[str, Any]:
        """Return topic, filter, deadline, dead letters and how long messages are kept."""
        settings = resource.settings
        return {
            "topic": settings["topic"],
            "filter": settings.get("filter", ""),
            "ack_deadline_s": settings["ack_deadline_s"],
            "retention_s": settings["retention_s"],
            "dead_letter_topic": settings.get("dead_letter_topic", ""),
            "expiration": "never",
        }

    def find(self, resource: Resource) -> Found | None:
        """Look for a subscription; None if it is not there."""
        path = self._path(resource.name)
        try:
            found = self._service.ask(self._cloud.subscriber.get_subscription, subscription=path)
        except NotFoundError as error:
            if "no Google Cloud project" in str(error):
                raise
            return None
        return Found(_settings(found), self._ours(found))

    def create(self, resource: Resource) -> None:
        """Make a subscription that does not expire."""
        self._service.ask(self._cloud.subscriber.create_subscription, request=self._body(resource))

    def change(self, resource: Resource, names: Sequence[str]) -> None:
        """Set what can be set later."""
        paths = {
            "ack_deadline_s": "ack_deadline_seconds",
            "retention_s": "message_retention_duration",
            "expiration": "expiration_policy",
            "dead_letter_topic": "dead_letter_policy",
        }
        self._update(resource, [paths[name] for name in names])

    def adopt(self, resource: Resource) -> None:
        """Give a subscription the instance's label."""
        self._update(resource, ["labels"])

    def delete(self, resource: Resource) -> None:
        """Remove a subscription with what waits in it."""
        path = self._path(resource.name)
        self._service.ask(self._cloud.subscriber.delete_subscription, subscription=path)

    def labelled(self) -> Sequence[str]:
        """Name the subscriptions that bear the label."""
        project = f"projects/{self._cloud.project}"
        found = self._service.every(self._cloud.subscriber.list_subscriptions, project=project)
        return [it.name.rsplit("/", 1)[1] for it in found if self._ours(it)]

    def _body(self, resource: Resource) -> dict[str, Any]:
        wanted = self.wanted(resource)
        body = {
            "name": self._path(resource.name),
            "topic": self._service.path("topics", wanted["topic"]),
            "labels": {LABEL: self._label},
            "ack_deadline_seconds": wanted["ack_deadline_s"],
            "message_retention_duration": Duration(seconds=wanted["retention_s"]),
            "expiration_policy": {},
            "filter": wanted["filter"],
        }
        if topic := wanted["dead_letter_topic"]:
            body["dead_letter_policy"] = {
                "dead_letter_topic": self._service.path("topics", topic),
                "max_delivery_attempts": _MOST_ATTEMPTS,
            }
        return body

    def _update(self, resource: Resource, paths: Sequence[str]) -> None:
        request = {"subscription": self._body(resource), "update_mask": {"paths": list(paths)}}
        self._service.ask(self._cloud.subscriber.update_subscription, request=request)

    def _path(self, name: str) -> str:
        return self._service.path("subscriptions", name)

    def _ours(self, found: Any) -> bool:
        return bool(found.labels.get(LABEL) == self._label)


def _settings(found: Any) -> dict[str, Any]:
    dead = found.dead_letter_policy.dead_letter_topic
    lasts = _seconds(found.expiration_policy.ttl)
    return {
        "topic": found.topic.rsplit("/", 1)[-1],
        "filter": found.filter,
        "ack_deadline_s": found.ack_deadline_seconds,
        "retention_s": _seconds(found.message_retention_duration),
        "dead_letter_topic": dead.rsplit("/", 1)[-1],
        "expiration": f"after {lasts} s" if lasts else "never",
    }


def _seconds(duration: Any) -> int:
    return int(duration.total_seconds()) if duration else 0
