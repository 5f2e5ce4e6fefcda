"""Open one alert, whatever it comes in."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from broker.alerts.alert import Alert, Id
from broker.errors import DecodeError, PacketError, UsageError
from broker.surveys.avro import (
    AvroSchema,
    container_from_body,
    correct_container,
    decode_container,
    decode_record,
    read_header,
)
from broker.surveys.envelope import FRAME_BYTES, Format, format_of, schema_id, unzip
from broker.surveys.json_packets import encode_json, json_schema, load_json, survey_of
from broker.surveys.known import SURVEYS, get_survey
from broker.surveys.registry import SchemaResolver
from broker.surveys.routing import bare_schemas, numbered_schema, one_reason, survey_of_schema
from broker.surveys.shipped import field_paths
from broker.surveys.survey import Survey

_UNKNOWN_VERSION = "unknown"


@dataclass(frozen=True)
class Opened:
    """One payload taken apart: its survey, schema and packet, and how to contain it."""

    survey: Survey
    schema: AvroSchema
    packet: Mapping[str, Any]
    contain: Callable[[], bytes]
    version: str = ""

    @property
    def schema_version(self) -> str:
        """Version from the schema, or else from what the packet says, or its likeness."""
        survey = self.survey
        if found := self.version or survey.version_of(self.schema):
            return found
        if stated := survey.schema_map.get_value("schema_version", self.packet):
            return survey.version_label(str(stated))
        alike = survey.schemas.most_alike(field_paths(self.schema.definition, depth=2))
        return alike or _UNKNOWN_VERSION


@dataclass(frozen=True)
class SurveyReader:
    """Reads one opened payload in the words of its survey."""

    opened: Opened

    def packet(self) -> Mapping[str, Any]:
        """Return the whole alert."""
        return self.opened.packet

    def value(self, key: str, packet: Mapping[str, Any]) -> Any:
        """Return the value of a generic word; JSON's cutouts are base64."""
        value = self.opened.survey.schema_map.get_value(key, packet)
        if key.startswith("cutout_") and isinstance(value, str):
            return _from_base64(value)
        return value

    def band(self, packet: Mapping[str, Any]) -> str | None:
        """Return the band of the detection."""
        return self.opened.survey.band(packet)

    def id_attributes(self, packet: Mapping[str, Any]) -> dict[str, Id]:
        """Return the ids under the names that message attributes give them."""
        words = self.opened.survey.schema_map
        found = {}
        for key in ("objectid", "sourceid"):
            spot, value = words.location_used(key, packet), words.get_value(key, packet)
            if spot is not None and value is not None:
                found[spot.attribute] = value
        return found

    def n_previous(self, packet: Mapping[str, Any]) -> int:
        """Count the earlier detections; neither limits nor the triggering one count."""
        words = self.opened.survey.schema_map
        name, trigger = words.get_key("sourceid"), words.get_value("sourceid", packet)
        listed = words.get_value("prv_sources", packet) or ()
        return sum(one.get(name) not in (None, trigger) for one in listed)

    def container(self) -> bytes:
        """Return the alert as a valid Avro container."""
        return self.opened.contain()


def open_alert(
    source: str | Path | bytes | BinaryIO,
    *,
    survey: str | None = None,
    schema: str | None = None,
    resolver: SchemaResolver | None = None,
) -> Alert:
    """Open one alert from a path, bytes, base64 or a file object.

    Ids and position may be missing here (None), unlike in the stream.

    Parameters
    ----------
    source : str, Path, bytes or binary file
        Where the alert is; text is the name of a file or base64.
    survey : str, optional
        Keyword of the survey; needed for bare datums only.
    schema : str, optional
        Version of the shipped schema that a bare datum was written with.
    resolver : SchemaResolver, optional
        Finds the schemas of numbered packets; by default the shipped ones only.

    Raises
    ------
    DecodeError
        If it is not exactly one alert; lists what was tried.
    UsageError
        If the file cannot be read, or survey or schema are unknown.
    """
    known = get_survey(survey) if survey else None
    named = _named_schema(known, schema) if schema else None
    tried = []
    for what, payload in _payloads(source):
        try:
            opened = take_apart(payload, known, schema=named, resolver=resolver)
        except PacketError as error:
            tried.append((what, error))
        else:
            scale = opened.survey.time_scale
            return Alert(
                opened.survey.name, opened.schema_version, payload, SurveyReader(opened), scale
            )
    if len(tried) == 1 and not isinstance(tried[0][1], DecodeError):
        raise tried[0][1]
    raise DecodeError("not an alert; " + "; ".join(f"as {what}: {why}" for what, why in tried))


def container_of(
    payload: bytes,
    survey: Survey | None = None,
    *,
    schema: AvroSchema | None = None,
    resolver: SchemaResolver | None = None,
) -> bytes:
    """Return a payload as a valid Avro container with the same data.

    A container keeps its blocks and gets its header corrected; anything else is put into one.

    Raises
    ------
    PacketError
        If it is no alert.
    """
    if format_of(payload, survey.wire if survey else "") is Format.CONTAINER:
        whose = survey_of_schema(read_header(payload).schema, survey)
        return correct_container(payload, whose.schema_doc)
    return take_apart(payload, survey, schema=schema, resolver=resolver).contain()


def take_apart(
    payload: bytes,
    survey: Survey | None = None,
    *,
    schema: AvroSchema | None = None,
    resolver: SchemaResolver | None = None,
) -> Opened:
    """Decode one payload of any format.

    Raises
    ------
    PacketError
        If it is not exactly one alert.
    """
    found = format_of(payload, survey.wire if survey else "")
    if found is Format.GZIP:
        inner = unzip(payload)
        return take_apart(inner, survey, schema=schema, resolver=resolver)
    if found is Format.CONTAINER:
        return _from_container(payload, survey)
    if schema is None and found is Format.CONFLUENT:
        return _from_frame(payload, survey, resolver or SchemaResolver())
    if found is Format.JSON:
        return _from_json(payload, survey)
    return _from_bare(payload, survey, schema)


def _from_container(payload: bytes, survey: Survey | None) -> Opened:
    schema = read_header(payload).schema
    whose = survey_of_schema(schema, survey)
    records = decode_container(payload)
    if len(records) != 1:
        raise DecodeError(f"the container holds {len(records)} records, not one alert")
    return Opened(whose, schema, records[0], lambda: correct_container(payload, whose.schema_doc))


def _from_frame(payload: bytes, survey: Survey | None, resolver: SchemaResolver) -> Opened:
    whose, schema = numbered_schema(schema_id(payload), survey, resolver)
    body = payload[FRAME_BYTES:]
    packet = decode_record(schema, body)
    return Opened(whose, schema, packet, lambda: container_from_body(schema, body))


def _from_json(payload: bytes, survey: Survey | None) -> Opened:
    packet = load_json(payload)
    whose = survey_of(packet, survey)
    schema, version = json_schema(packet, whose)
    body = encode_json(packet, schema)
    return Opened(whose, schema, packet, lambda: container_from_body(schema, body), version)


def _from_bare(payload: bytes, survey: Survey | None, schema: AvroSchema | None) -> Opened:
    whose, schemas = bare_schemas(survey, schema)
    reasons = []
    for one in schemas:
        try:
            packet = decode_record(one, payload)
        except PacketError as error:
            reasons.append(f"{one.name}: {error}")
        else:
            return Opened(whose, one, packet, _contained(one, payload))
    raise DecodeError(one_reason(reasons))


def _contained(schema: AvroSchema, body: bytes) -> Callable[[], bytes]:
    return lambda: container_from_body(schema, body)


def _payloads(source: str | Path | bytes | BinaryIO) -> list[tuple[str, bytes]]:
    """Return what `source` may mean, most likely first."""
    if isinstance(source, Path):
        return [(f"file {source}", _read(source))]
    if isinstance(source, bytes | bytearray | memoryview):
        return [("bytes", bytes(source)), *_base64(bytes(source))]
    if isinstance(source, str):
        if _is_file(source):
            return [(f"file {source}", _read(Path(source)))]
        if not (found := _base64(source.encode("utf-8", "replace"))):
            raise UsageError(f"{source[:80]!r} is neither a file nor base64")
        return found
    content = source.read()
    return [("file object", content), *_base64(content)]


def _is_file(text: str) -> bool:
    """Tell whether text names a file; base64 is often too long for a name."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise DecodeError(f"the cutout is not base64: {error}") from error


def _base64(text: bytes) -> list[tuple[str, bytes]]:
    try:
        found = base64.b64decode(b"".join(text.split()), validate=True)
        return [("base64", found)] if found else []
    except binascii.Error:
        return []


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error


def _named_schema(survey: Survey | None, version: str) -> AvroSchema:
    for one in [survey] if survey else SURVEYS.values():
        label = version.removeprefix(f"{one.name}.").removesuffix(".alert")
        if found := one.schemas.get(label):
            return found
    raise UsageError(f"no schema {version!r} ships with the broker")
