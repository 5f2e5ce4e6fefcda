"""Topics with an Avro schema, on Google's emulator and on our server."""

import io
import json
from typing import Any

import fastavro
import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from google.api_core import exceptions
from google.cloud.pubsub import SchemaServiceClient
from google.pubsub_v1.types import Encoding, Schema

from gcp.pubsub_bus import PROJECT, Bus

PARENT = f"projects/{PROJECT}"
RECORD = {
    "type": "record",
    "name": "classified",
    "fields": [{"name": "alertId", "type": "long"}, {"name": "classifier", "type": "string"}],
}
WIDER = RECORD | {
    "fields": [*RECORD["fields"], {"name": "extra", "type": ["null", "string"], "default": None}]
}
ALERT = {"alertId": 123456789, "classifier": "SuperNNova_v1.3"}


def binary(alert: dict[str, Any], schema: Any = RECORD) -> bytes:
    """Encode without a header."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, alert)
    return out.getvalue()


def avro(definition: Any = RECORD, name: str = "") -> Schema:
    """Return a schema as the client wants it."""
    return Schema(name=name, type_=Schema.Type.AVRO, definition=json.dumps(definition))


@pytest.fixture
def client(bus: Bus) -> SchemaServiceClient:
    """Return Google's client for schemas on the same server."""
    import grpc
    from google.pubsub_v1.services.schema_service.transports import SchemaServiceGrpcTransport

    channel = grpc.insecure_channel(bus.address)
    with SchemaServiceClient(transport=SchemaServiceGrpcTransport(channel=channel)) as client:
        yield client


@pytest.fixture
def schema(bus: Bus, client: SchemaServiceClient) -> Schema:
    """Return a schema that was made."""
    name = bus.name("schemas").rsplit("/", 1)[1]
    return client.create_schema(parent=PARENT, schema=avro(), schema_id=name)


def test_comes_back(client: SchemaServiceClient, schema: Schema) -> None:
    """A schema has a definition and a revision."""
    found = client.get_schema(request={"name": schema.name})
    bare = client.get_schema(request={"name": schema.name, "view": "BASIC"})

    assert json.loads(found.definition) == RECORD
    assert bare.definition == ""
    assert found.revision_id == bare.revision_id == schema.revision_id
    assert schema.name in {it.name for it in client.list_schemas(parent=PARENT)}


def test_made_twice(client: SchemaServiceClient, schema: Schema) -> None:
    """A name is given once."""
    with pytest.raises(exceptions.AlreadyExists):
        client.create_schema(parent=PARENT, schema=avro(), schema_id=schema.name.rsplit("/", 1)[1])


def test_wrong_definition(bus: Bus, client: SchemaServiceClient) -> None:
    """A definition that is not Avro is refused."""
    wrong = Schema(type_=Schema.Type.AVRO, definition='{"type": "nonsense"}')
    name = bus.name("schemas").rsplit("/", 1)[1]
    with pytest.raises(exceptions.InvalidArgument):
        client.create_schema(parent=PARENT, schema=wrong, schema_id=name)


def test_deleted(client: SchemaServiceClient, schema: Schema) -> None:
    """A deleted schema is gone."""
    client.delete_schema(name=schema.name)
    with pytest.raises(exceptions.NotFound):
        client.get_schema(name=schema.name)


def test_revisions(client: SchemaServiceClient, schema: Schema) -> None:
    """A committed schema is the newest of its revisions."""
    newer = client.commit_schema(name=schema.name, schema=avro(WIDER, schema.name))
    listed = client.list_schema_revisions(name=schema.name)

    assert [it.revision_id for it in listed] == [schema.revision_id, newer.revision_id]
    assert client.get_schema(name=schema.name).revision_id == newer.revision_id


def test_validate_message(client: SchemaServiceClient, schema: Schema) -> None:
    """A message can be checked without publishing it."""
    wanted = {"parent": PARENT, "name": schema.name, "encoding": Encoding.BINARY}
    client.validate_message(request=wanted | {"message": binary(ALERT)})
    with pytest.raises(exceptions.InvalidArgument):
        client.validate_message(request=wanted | {"message": b"\xff\xff\xff"})


def test_binary_messages(bus: Bus, schema: Schema) -> None:
    """A message of the schema arrives with the schema's name in its attributes."""
    settings = {"schema": schema.name, "encoding": Encoding.BINARY}
    topic = bus.topic(schema_settings=settings)
    subscription = bus.subscription(topic)
    bus.publisher.publish(topic, binary(ALERT), a="b").result(timeout=20)

    [found] = bus.pull(subscription, 1)
    body = io.BytesIO(found.message.data)
    assert fastavro.schemaless_reader(body, RECORD, None) == ALERT
    assert dict(found.message.attributes) == {
        "a": "b",
        "googclient_schemaname": schema.name,
        "googclient_schemaencoding": "BINARY",
        "googclient_schemarevisionid": schema.revision_id,
    }


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"x"])
def test_bad_message(bus: Bus, schema: Schema, payload: bytes) -> None:
    """A message that is not of the schema is refused."""
    topic = bus.topic(schema_settings={"schema": schema.name, "encoding": Encoding.BINARY})
    with pytest.raises(exceptions.InvalidArgument):
        bus.publisher.publish(topic, payload).result(timeout=20)


def test_json_messages(bus: Bus, schema: Schema) -> None:
    """A topic may want JSON instead."""
    topic = bus.topic(schema_settings={"schema": schema.name, "encoding": Encoding.JSON})
    subscription = bus.subscription(topic)
    bus.publisher.publish(topic, json.dumps(ALERT).encode()).result(timeout=20)

    assert json.loads(bus.pull(subscription, 1)[0].message.data) == ALERT


def test_bad_json_message(bus: Bus, schema: Schema) -> None:
    """JSON that lacks a field is refused."""
    topic = bus.topic(schema_settings={"schema": schema.name, "encoding": Encoding.JSON})
    with pytest.raises(exceptions.InvalidArgument):
        bus.publisher.publish(topic, b'{"alertId": 1}').result(timeout=20)


def test_topic_with_unknown_schema(bus: Bus) -> None:
    """A topic's schema must be there."""
    settings = {"schema": bus.name("schemas"), "encoding": Encoding.BINARY}
    with pytest.raises(exceptions.NotFound):
        bus.topic(schema_settings=settings)
