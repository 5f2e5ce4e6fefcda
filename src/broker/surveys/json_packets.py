"""JSON alerts as Avro: the schema of the nearest shipped version, all of it nullable."""

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro

from broker.errors import DecodeError, UnknownSchemaError
from broker.surveys.avro import AvroSchema
from broker.surveys.known import SURVEYS
from broker.surveys.survey import Survey

_NULLABLE: dict[tuple[str, str], AvroSchema] = {}


def load_json(payload: bytes) -> dict[str, Any]:
    """Return the packet that JSON text holds; integers stay exact.

    Raises
    ------
    DecodeError
        If it is no JSON object.
    """
    try:
        packet = json.loads(payload)  # not orjson: surveys' samples hold NaN
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {error}") from error
    if not isinstance(packet, dict):
        raise DecodeError("the JSON is not an object")
    return packet


def survey_of(packet: Mapping[str, Any], survey: Survey | None = None) -> Survey:
    """Return the survey that sends packets with these fields.

    Raises
    ------
    DecodeError
        If it is none, or not `survey`.
    """
    paths = _paths(packet)
    for one in [survey] if survey else SURVEYS.values():
        if one.has_fields(paths):
            return one
    whose = f"survey {survey.name!r}" if survey else "a known survey"
    raise DecodeError(f"the JSON object is not an alert of {whose}")


def json_schema(packet: Mapping[str, Any], survey: Survey) -> tuple[AvroSchema, str]:
    """Return an Avro schema for a JSON packet, and its version.

    Raises
    ------
    UnknownSchemaError
        If no shipped schema is like the packet.
    """
    stated = survey.schema_map.get_value("schema_version", packet)
    version = survey.version_label(str(stated)) if stated else None
    if version not in survey.schemas.versions:
        version = survey.schemas.most_alike(_paths(packet))
    schema = survey.schemas.get(version) if version else None
    if schema is None or version is None:
        raise UnknownSchemaError(f"no schema of {survey.name} is like this JSON packet")
    key = (survey.name, version)
    if key not in _NULLABLE:
        _NULLABLE[key] = AvroSchema.parse(_nullable(schema.definition))
    return _NULLABLE[key], version


def encode_json(packet: Mapping[str, Any], schema: AvroSchema) -> bytes:
    """Return a JSON packet as a bare Avro datum; fields that the schema lacks are left out.

    Raises
    ------
    DecodeError
        If a value does not fit its type.
    """
    out = io.BytesIO()
    try:
        fastavro.schemaless_writer(out, schema.fastavro, _Shaper(schema.definition).shape(packet))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise DecodeError(f"the JSON does not fit schema {schema.name}: {error}") from error
    return out.getvalue()


class _Shaper:
    """Fits JSON values to Avro types: base64 text to bytes, known fields only."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self._definition = definition
        self._named: dict[str, Any] = {}

    def shape(self, packet: Mapping[str, Any]) -> Any:
        return self._value(packet, self._definition)

    def _value(self, value: Any, type_: Any) -> Any:
        type_ = self._named.get(type_, type_) if isinstance(type_, str) else type_
        if isinstance(type_, list):
            self._remember(type_[1])
            return None if value is None else self._value(value, type_[1])
        if type_ == "bytes":
            return base64.b64decode(value)
        if not isinstance(type_, Mapping):
            return value
        return self._complex(value, type_)

    def _complex(self, value: Any, type_: Mapping[str, Any]) -> Any:
        self._remember(type_)
        if type_["type"] == "record":
            return {
                one["name"]: self._value(value.get(one["name"]), one["type"])
                for one in type_["fields"]
            }
        if type_["type"] == "array":
            return [self._value(item, type_["items"]) for item in value]
        return value

    def _remember(self, type_: Any) -> None:
        if not isinstance(type_, Mapping):
            return
        if type_["type"] == "record" and type_["name"] not in self._named:
            self._named[type_["name"]] = type_
            for one in type_["fields"]:
                self._remember(one["type"][1])
        self._remember(type_.get("items"))


def _nullable(type_: Any) -> Any:
    if isinstance(type_, list):
        return _nullable(next(one for one in type_ if one != "null"))
    if not isinstance(type_, Mapping):
        return type_
    if type_["type"] == "record":
        fields = [
            {"name": one["name"], "type": ["null", _nullable(one["type"])]}
            for one in type_["fields"]
        ]
        return {**type_, "fields": fields}
    if type_["type"] == "array":
        return {"type": "array", "items": _nullable(type_["items"])}
    return type_["type"]


def _paths(packet: Mapping[str, Any]) -> set[str]:
    paths = set(packet)
    for name, value in packet.items():
        if isinstance(value, Mapping):
            paths |= {f"{name}.{inner}" for inner in value}
    return paths
