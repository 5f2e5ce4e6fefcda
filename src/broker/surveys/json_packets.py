"""JSON alerts as Avro: the schema of the nearest shipped version, all of it nullable."""

import base64
import io
import json
import operator
import struct
from collections.abc import Callable, Mapping
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
    except json.JSONDecodeError as error:
        raise DecodeError(f"not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise DecodeError("not JSON: it is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DecodeError("not JSON: nested too deeply, or a number of too many digits") from error
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
    shaper, out = _Shaper(schema.definition), io.BytesIO()
    try:
        shaped = shaper.shape(packet)
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(
            f"the JSON does not fit schema {schema.name}: {shaper.place} is no {shaper.wanted}"
        ) from error
    fastavro.schemaless_writer(out, schema.fastavro, shaped)
    return out.getvalue()


def _number(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = operator.index(value)
        if not low <= number < high:
            raise OverflowError
        return number

    return read


def _of(*kinds: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise TypeError
        return value

    return read


def _text(value: Any) -> str:
    text: str = _of(str)(value)
    text.encode()  # half a surrogate pair is no text
    return text


def _float(value: Any) -> float:
    number = float(_of(int, float)(value))
    struct.pack("<f", number)
    return number


_READ: Mapping[str, Callable[[Any], Any]] = {
    "null": _of(type(None)),
    "boolean": _of(bool),
    "int": _number(-(2**31), 2**31),
    "long": _number(-(2**63), 2**63),
    "float": _float,
    "double": lambda value: float(_of(int, float)(value)),
    "string": _text,
    "bytes": lambda value: base64.b64decode(_of(str)(value)),
}
"""How JSON's values are read, by Avro's types; what does not fit is one of Python's errors."""


class _Shaper:
    """Fits JSON values to Avro types: base64 text to bytes, known fields only.

    Where a value does not fit, `place` and `wanted` tell where it is and what it should be.
    """

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self._definition = definition
        self._named: dict[str, Any] = {}
        self._path: list[str] = []
        self.wanted = ""

    @property
    def place(self) -> str:
        """The dotted path of the value at hand."""
        return ".".join(self._path) or "it"

    def shape(self, packet: Mapping[str, Any]) -> Any:
        return self._value(packet, self._definition)

    def _value(self, value: Any, type_: Any) -> Any:
        type_ = self._named.get(type_, type_) if isinstance(type_, str) else type_
        if isinstance(type_, list):
            self._remember(type_[1])
            return None if value is None else self._value(value, type_[1])
        self.wanted = type_["type"] if isinstance(type_, Mapping) else type_
        if not isinstance(type_, Mapping):
            return _READ[type_](value)
        return self._complex(value, type_)

    def _complex(self, value: Any, type_: Mapping[str, Any]) -> Any:
        self._remember(type_)
        if type_["type"] == "record":
            fields = _of(dict)(value)
            return {
                one["name"]: self._field(fields.get(one["name"]), one["name"], one["type"])
                for one in type_["fields"]
            }
        return [self._value(item, type_["items"]) for item in _of(list)(value)]

    def _field(self, value: Any, name: str, type_: Any) -> Any:
        self._path.append(name)
        shaped = self._value(value, type_)
        self._path.pop()
        return shaped

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
