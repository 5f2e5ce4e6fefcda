"""Plausible packets of any schema, for tests and demonstrations without real data."""

import base64
import io
import re
from collections.abc import Mapping
from itertools import count
from typing import Any

import fastavro
import orjson

from broker.errors import UsageError
from broker.surveys.avro import AvroSchema, container_from_body
from broker.surveys.shipped import version_key
from broker.surveys.survey import Survey

_FIRST_ID = 170_000_000_000_000_000
_LISTED = 2

# First matching rule wins; names are of fields, values of the example with number 0.
_RULES: tuple[tuple[str, Any], ...] = (
    (r"(ra|ranr|psfRa|psRa|raNr)\Z", 150.25),
    (r"(dec|decl|decnr|psfDec|psDecl)\Z", 2.25),
    (r"jd.*", 2460506.5),
    (r"(midpointMjdTai|midPointTai|mjd|.*MjdTai|.*Mjd)\Z", 60506.0),
    (r"(fid|programid)\Z", 1),
    (r"isdiffpos\Z", "t"),
    (r"(band|filterName)\Z", "r"),
    (r"filter\Z", "r DECam SDSS c0002 6415.0 1480.0"),
    (r"(objectId|objectid)\Z", "EX24aaaaaaa"),
    (r"superevent_id\Z", "MS240715a"),
    (r"mag.*", 19.5),
    (r"(psfFlux|psFlux|flux)\Z", 1500.0),
    (r".*(Err|err|unc)\Z", 0.1),
    (r"(ssObjectId|ss_object_id)\Z", 0),
    (r"diaObjectId\Z", _FIRST_ID),
)
_BY_TYPE: dict[str, Any] = {
    "boolean": False,
    "int": 1,
    "long": 1,
    "float": 1.0,
    "double": 1.0,
    "string": "example",
    "bytes": b"",
}
_ID = re.compile(r"(candid|sourceid|alertId|.*SourceId)\Z")


def example_packet(schema: AvroSchema, number: int = 0, **overrides: Any) -> dict[str, Any]:
    """Return a packet that fits a schema, every field filled.

    Parameters
    ----------
    schema : AvroSchema
    number : int
        Packets of different numbers have different detection ids.
    **overrides
        Values of top-level fields; a mapping changes fields of a record.

    Raises
    ------
    UsageError
        If a name is no field.
    """
    packet: dict[str, Any] = _Filler(number).value("", schema.definition)
    if unknown := sorted(set(overrides) - set(packet)):
        raise UsageError(f"schema {schema.name} has no field: {', '.join(unknown)}")
    for name, value in overrides.items():
        merged = isinstance(value, Mapping) and isinstance(packet[name], Mapping)
        packet[name] = packet[name] | dict(value) if merged else value
    return packet


def encode_as_sent(survey: Survey, schema: AvroSchema, packet: Mapping[str, Any]) -> bytes:
    """Return a packet in the form in which the survey's stream sends it."""
    if survey.wire == "json":
        return orjson.dumps(packet, default=lambda data: base64.b64encode(data).decode())
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema.fastavro, packet)
    if survey.wire == "container":
        container: bytes = container_from_body(schema, out.getvalue())
        return container
    if survey.wire == "confluent":
        major, minor = version_key(survey.version_of(schema))[:2]
        return b"\x00" + (100 * major + minor).to_bytes(4, "big") + out.getvalue()
    return out.getvalue()


class _Filler:
    """One walk through a schema; lists get earlier detections with ids of their own."""

    def __init__(self, number: int) -> None:
        self._id = _FIRST_ID + 1000 * number
        self._earlier_ids = count(self._id + 1)
        self._named: dict[str, Any] = {}

    def value(self, name: str, type_: Any) -> Any:
        if isinstance(type_, list):
            return self.value(name, next(one for one in type_ if one != "null"))
        if isinstance(type_, str):
            named = self._named.get(type_)
            return self.value(name, named) if named else self._plain(name, type_)
        if type_["type"] == "record":
            self._named[type_["name"]] = type_
            return {one["name"]: self.value(one["name"], one["type"]) for one in type_["fields"]}
        if type_["type"] == "array":
            return [self._earlier(name, type_["items"]) for _ in range(_LISTED)]
        return self.value(name, type_["type"])

    def _earlier(self, name: str, items: Any) -> Any:
        trigger, self._id = self._id, next(self._earlier_ids)
        found = self.value(name, items)
        self._id = trigger
        return found

    def _plain(self, name: str, type_: str) -> Any:
        if type_ == "long" and _ID.match(name):
            return self._id
        for pattern, value in _RULES:
            if re.match(pattern, name) and _fits(value, type_):
                return value
        return _BY_TYPE[type_]


def _fits(value: Any, type_: str) -> bool:
    kinds = {"int": int, "long": int, "float": float, "double": float, "string": str}
    return isinstance(value, kinds.get(type_, ()))
