"""Classifications on topics: with a schema attached, and with the schema in the message."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from broker.connectors.gcp.clients import Cloud
from broker.connectors.gcp.schemas import ensure_schema, ensure_topic
from broker.connectors.streams.pubsub import PubSubStream
from broker.errors import NotFoundError, RefusedError
from broker.ports import BatchKey, Messages
from broker.surveys.elasticc.classification import from_class_dict, read, schema_text, write

_PROJECT = "test-project"
_SHAPES = {
    "nested": {"classificationDict": [{"10": 0.5}, {"20": 0.25}]},
    "list": [{"10": 0.5}, {"20": 0.25}],
    "dict": {"10": 0.5, "20": 0.25},
}


@pytest.fixture(params=["google_address", "our_address"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Return a project on each server in turn."""
    return Cloud(_PROJECT, pubsub=request.getfixturevalue(request.param))


@pytest.fixture
def names(cloud: Cloud) -> Iterator[dict[str, Any]]:
    """Return a stream with both topics and a subscription on each."""
    mark = uuid4().hex[:8]
    schema, bound, free = f"elasticc-schema-{mark}", f"elasticc-{mark}", f"elasticc-header-{mark}"
    ensure_schema(cloud, schema, schema_text())
    ensure_topic(cloud, bound, schema)
    ensure_topic(cloud, free)
    stream = PubSubStream(cloud)
    for topic in (bound, free):
        stream.subscribe(topic, topic)
    yield {"stream": stream, "schema": schema, "bound": bound, "free": free}
    stream.close()


@pytest.mark.parametrize("shape", list(_SHAPES))
@pytest.mark.parametrize("topic", ["bound", "free"])
def test_round_trip(names: dict[str, Any], topic: str, shape: str) -> None:
    """A classification in any shape arrives on either topic as it was sent."""
    sent = from_class_dict({"alertId": 2**40, "classifications": _SHAPES[shape]}, source_id=9)
    payload = write(sent, header=topic == "free")
    stream = names["stream"]
    stream.publish(names[topic], Messages([payload], pl.DataFrame()), BatchKey("w0", 0))
    (delivery,) = stream.pull(names[topic], 5)

    assert read(delivery.payload) == sent


def test_bad_message_is_refused(names: dict[str, Any]) -> None:
    """The topic with the schema takes nothing else."""
    with pytest.raises(RefusedError, match=r"(?i)schema|avro|message"):
        names["stream"].publish(
            names["bound"], Messages([b"\xff\xff"], pl.DataFrame()), BatchKey("w0", 0)
        )

    assert names["stream"].pull(names["bound"], 5) == []


def test_made_once(cloud: Cloud, names: dict[str, Any]) -> None:
    """The same again changes nothing."""
    again = [
        ensure_schema(cloud, names["schema"], schema_text()),
        ensure_topic(cloud, names["bound"], names["schema"]),
        ensure_topic(cloud, names["free"]),
    ]

    assert again == [False, False, False]


def test_another_definition_is_a_revision(cloud: Cloud, names: dict[str, Any]) -> None:
    """A schema that says something else gets a new revision."""
    changed = schema_text().replace('"name":"brokerName"', '"name":"brokerName","doc":"who"')

    assert ensure_schema(cloud, names["schema"], changed)
    path = f"projects/{_PROJECT}/schemas/{names['schema']}"
    assert (
        '"doc":"who"' in cloud.schemas.get_schema(request={"name": path, "view": "FULL"}).definition
    )


def test_topic_with_another_schema(cloud: Cloud, names: dict[str, Any]) -> None:
    """A topic that is there without the schema is not taken for one with it."""
    with pytest.raises(RefusedError, match="exists already, with no schema"):
        ensure_topic(cloud, names["free"], names["schema"])


def test_unknown_schema(cloud: Cloud) -> None:
    """A topic needs its schema."""
    with pytest.raises(NotFoundError, match="schema 'nothing'"):
        ensure_topic(cloud, f"topic-{uuid4().hex[:8]}", "nothing")


def test_wrong_definition(cloud: Cloud) -> None:
    """What is no Avro schema is refused."""
    with pytest.raises(RefusedError):
        ensure_schema(cloud, f"bad-{uuid4().hex[:8]}", '{"type": "record"}')
