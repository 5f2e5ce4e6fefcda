"""The messages of Google's protocol, and every call with what it takes and gives."""

from dataclasses import dataclass
from typing import Any

from google.protobuf import empty_pb2
from google.pubsub_v1 import types as _types

Topic = _types.Topic.pb()
Subscription = _types.Subscription.pb()
Snapshot = _types.Snapshot.pb()
Schema = _types.Schema.pb()
PubsubMessage = _types.PubsubMessage.pb()
PublishResponse = _types.PublishResponse.pb()
PullResponse = _types.PullResponse.pb()
StreamingPullRequest = _types.StreamingPullRequest.pb()
StreamingPullResponse = _types.StreamingPullResponse.pb()
Empty = empty_pb2.Empty
Message = Any
"""A message of the protocol; its classes are made at run time."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a service that takes one message and gives one."""

    service: str
    name: str
    request: Any
    response: Any

    @property
    def method(self) -> str:
        """The name of the method that serves it."""
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in self.name).lstrip("_")


def response_of(call: str) -> Any:
    """Return the class of a call's response."""
    return next(found.response for found in CALLS if found.name == call)


_GIVES = {
    "Publisher": {
        "CreateTopic:Topic": Topic,
        "UpdateTopic": Topic,
        "Publish": PublishResponse,
        "GetTopic": Topic,
        "ListTopics": None,
        "ListTopicSubscriptions": None,
        "ListTopicSnapshots": None,
        "DeleteTopic": Empty,
        "DetachSubscription": None,
    },
    "Subscriber": {
        "CreateSubscription:Subscription": Subscription,
        "GetSubscription": Subscription,
        "UpdateSubscription": Subscription,
        "ListSubscriptions": None,
        "DeleteSubscription": Empty,
        "ModifyAckDeadline": Empty,
        "Acknowledge": Empty,
        "Pull": PullResponse,
        "ModifyPushConfig": Empty,
        "GetSnapshot": Snapshot,
        "ListSnapshots": None,
        "CreateSnapshot": Snapshot,
        "UpdateSnapshot": Snapshot,
        "DeleteSnapshot": Empty,
        "Seek": None,
    },
    "SchemaService": {
        "CreateSchema": Schema,
        "GetSchema": Schema,
        "ListSchemas": None,
        "ListSchemaRevisions": None,
        "CommitSchema": Schema,
        "RollbackSchema": Schema,
        "DeleteSchemaRevision": Schema,
        "DeleteSchema": Empty,
        "ValidateSchema": None,
        "ValidateMessage": None,
    },
}


def _class(name: str) -> Any:
    return getattr(_types, name).pb()


CALLS = tuple(
    Call(
        f"google.pubsub.v1.{service}",
        name.split(":")[0],
        _class(name.split(":")[1] if ":" in name else f"{name}Request"),
        _class(f"{name}Response") if gives is None else gives,
    )
    for service, calls in _GIVES.items()
    for name, gives in calls.items()
)
"""Every call but the streaming pull."""

STREAMING_PULL = ("google.pubsub.v1.Subscriber", "StreamingPull")
