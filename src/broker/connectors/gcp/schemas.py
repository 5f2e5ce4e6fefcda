"""Schemas at Pub/Sub, and topics that take only messages of one."""

import json
from typing import Any

from google.api_core import exceptions as api
from google.pubsub_v1 import types

from broker.connectors.gcp.clients import Cloud
from broker.connectors.gcp.pubsub import PubSub
from broker.errors import RefusedError


def ensure_schema(cloud: Cloud, name: str, definition: str) -> bool:
    """Make an Avro schema; tell whether anything was changed.

    One that says something else gets a new revision.

    Parameters
    ----------
    cloud : Cloud
        The project.
    name : str
        The schema's name, such as ``elasticc-schema``.
    definition : str
        Avro, as JSON.

    Raises
    ------
    RefusedError
        If Pub/Sub cannot read the definition.
    TransientError
        If Pub/Sub does not answer.
    """
    pubsub = PubSub(cloud)
    path = pubsub.path("schemas", name)
    kind = types.Schema.Type.AVRO

    def call(**more: Any) -> bool:
        schema = types.Schema(type_=kind, definition=definition)
        request = {"parent": f"projects/{cloud.project}", "schema": schema, "schema_id": name}
        try:
            cloud.schemas.create_schema(request=request, **more)
        except api.AlreadyExists:
            return False
        return True

    if pubsub.ask(call):
        return True
    known = pubsub.ask(cloud.schemas.get_schema, request={"name": path, "view": "FULL"})
    if json.loads(known.definition) == json.loads(definition):
        return False
    schema = types.Schema(name=path, type_=kind, definition=definition)
    pubsub.ask(cloud.schemas.commit_schema, request={"name": path, "schema": schema})
    return True


def ensure_topic(cloud: Cloud, name: str, schema: str = "") -> bool:
    """Make a topic; tell whether it was made.

    Parameters
    ----------
    cloud : Cloud
        The project.
    name : str
        The topic's name.
    schema : str
        The schema that its messages must have, bare Avro datums each; none for any bytes.

    Raises
    ------
    NotFoundError
        If there is no such schema.
    RefusedError
        If the topic exists with another schema.
    TransientError
        If Pub/Sub does not answer.
    """
    pubsub = PubSub(cloud)
    path = pubsub.path("topics", name)
    wanted = pubsub.path("schemas", schema) if schema else ""
    request: dict[str, Any] = {"name": path}
    if wanted:
        request["schema_settings"] = {"schema": wanted, "encoding": types.Encoding.BINARY}

    def call(**more: Any) -> bool:
        try:
            cloud.publisher.create_topic(request=request, **more)
        except api.AlreadyExists:
            return False
        return True

    if pubsub.ask(call, f"schema {schema!r}" if schema else ""):
        return True
    known = pubsub.ask(cloud.publisher.get_topic, request={"topic": path})
    if known.schema_settings.schema != wanted:
        there = known.schema_settings.schema or "no schema"
        raise RefusedError(f"topic {name!r} exists already, with {there}")
    return False
