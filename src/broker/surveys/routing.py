"""Sort payloads into groups that one decoder call can take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from broker.errors import DecodeError, PacketError, UnknownSchemaError
from broker.surveys.avro import AvroSchema, ColumnDecoder, Decoded, read_header
from broker.surveys.envelope import FRAME_BYTES, Format, format_of, schema_id, unzip
from broker.surveys.json_packets import encode_json, json_schema, load_json, survey_of
from broker.surveys.known import SURVEYS
from broker.surveys.payloads import Payloads
from broker.surveys.registry import SchemaResolver
from broker.surveys.survey import Survey

Framing = Literal["bare", "container", "compressed container"]


@dataclass
class Group:
    """Payloads that are decoded together.

    `schemas` are tried in order; `numbers` are the payloads' places in the batch, `whole` the
    batch itself where it is this group.
    """

    survey: Survey
    schemas: tuple[AvroSchema, ...]
    framing: Framing
    version: str = ""
    numbers: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    prefix_index: list[int] = field(default_factory=list)
    whole: Payloads | None = None

    def add(self, number: int, payload: bytes, offset: int, prefix: int = -1) -> None:
        """Append a payload; its datum, or the sync marker of its header, is at `offset`."""
        self.numbers.append(number)
        self.payloads.append(payload)
        self.offsets.append(offset)
        self.prefix_index.append(prefix)

    def extend(self, first: int, payloads: Sequence[bytes], offset: int, prefix: int) -> None:
        """Append payloads that follow one another in the batch and have the same header."""
        count = len(payloads)
        self.numbers += range(first, first + count)
        self.payloads += payloads
        self.offsets += [offset] * count
        self.prefix_index += [prefix] * count

    def decode(self, decoder: ColumnDecoder) -> Decoded:
        """Decode all payloads with one schema's decoder."""
        if self.framing == "compressed container":
            return decoder.decode(self.payloads, None, "container")
        starts = np.asarray(self.offsets, np.int64)
        return decoder.decode(self.whole or self.payloads, starts, self.framing)

    def subset(self, positions: Sequence[int]) -> "Group":
        """Return the payloads at some positions."""

        def take(values: list[int]) -> list[int]:
            return [values[position] for position in positions]

        return Group(
            self.survey,
            self.schemas,
            self.framing,
            self.version,
            take(self.numbers),
            [self.payloads[position] for position in positions],
            take(self.offsets),
            self.prefixes,
            take(self.prefix_index),
        )


@dataclass
class _Seen:
    """A container header met in this batch, and where its packets go."""

    prefix: bytes
    group: Group
    number: int


class Router:
    """Finds for each payload its format, survey and schema; keeps what cannot be used.

    Payloads with the header of the one before, which is the rule, are compared all at once.
    """

    def __init__(
        self, survey: Survey | None, schema: AvroSchema | None, resolver: SchemaResolver
    ) -> None:
        self.errors: dict[int, PacketError] = {}
        self._survey = survey
        self._schema = schema
        self._resolver = resolver
        self._wire = survey.wire if survey else ""
        self._groups: dict[tuple[str, ...], Group] = {}
        self._seen: dict[bytes, _Seen] = {}
        self._last: _Seen | None = None

    @property
    def groups(self) -> Iterable[Group]:
        """The groups so far."""
        return list(self._groups.values())

    def add_all(self, payloads: Sequence[bytes]) -> None:
        """Put each payload into its group, or its error into `errors`."""
        found, number = Payloads.of(payloads), 0
        while number < len(found):
            number += self._add_alike(number, found) or self._add_one(number, found)

    def _add_alike(self, first: int, found: Payloads) -> int:
        """Put all from `first` on that have the header of the one before; count them."""
        seen = self._last
        if seen is None:
            return 0
        count = found.count_starting(seen.prefix, first)
        alike = found[first : first + count]
        seen.group.extend(first, alike, len(seen.prefix), seen.number)
        if len(seen.group.payloads) == len(found):
            seen.group.whole = found
        return count

    def _add_one(self, number: int, found: Payloads) -> int:
        """Put one payload; return 1."""
        payload = found[number]
        seen = self._last = self._recognise(payload)
        if seen is not None:
            seen.group.add(number, payload, len(seen.prefix), seen.number)
            return 1
        try:
            self._route(number, payload, format_of(payload, self._wire), as_sent=True)
        except PacketError as error:
            self.errors[number] = error
        return 1

    def _recognise(self, payload: bytes) -> _Seen | None:
        """Return the header that a payload starts with, if it is one of those met so far."""
        return next((it for it in self._seen.values() if payload.startswith(it.prefix)), None)

    def _route(self, number: int, payload: bytes, found: Format, as_sent: bool) -> None:
        if not payload:
            raise DecodeError("the payload is empty")
        if found is Format.GZIP:
            inner = unzip(payload)
            self._route(number, inner, format_of(inner, self._wire), as_sent=False)
        elif found is Format.CONTAINER:
            self._container(number, payload, as_sent)
        elif found is Format.CONFLUENT:
            self._confluent(number, payload)
        elif found is Format.JSON:
            self._json(number, payload)
        else:
            self._bare(number, payload)

    def _container(self, number: int, payload: bytes, as_sent: bool) -> None:
        header = read_header(payload)
        survey = survey_of_schema(header.schema, self._survey)
        version = survey.version_of(header.schema)  # equal schemas may name two versions
        if header.codec != "null":
            group = self._group(survey, (header.schema,), "compressed container", version)
            group.add(number, payload, 0)
            return
        seen = self._seen.get(header.prefix)
        if seen is None:
            group = self._group(survey, (header.schema,), "container", version)
            group.prefixes.append(header.prefix)
            seen = _Seen(header.prefix, group, len(group.prefixes) - 1)
            self._seen[header.prefix] = seen
        seen.group.add(number, payload, len(header.prefix), seen.number if as_sent else -1)
        self._last = seen if as_sent else self._last

    def _confluent(self, number: int, payload: bytes) -> None:
        survey, schema = numbered_schema(schema_id(payload), self._survey, self._resolver)
        self._group(survey, (schema,), "bare").add(number, payload, FRAME_BYTES)

    def _json(self, number: int, payload: bytes) -> None:
        packet = load_json(payload)
        survey = survey_of(packet, self._survey)
        schema, version = json_schema(packet, survey)
        group = self._group(survey, (schema,), "bare", version)
        group.add(number, encode_json(packet, schema), 0)

    def _bare(self, number: int, payload: bytes) -> None:
        survey, schemas = bare_schemas(self._survey, self._schema)
        group = self._group(survey, schemas, "bare")
        group.add(number, payload, 0)

    def _group(
        self, survey: Survey, schemas: tuple[AvroSchema, ...], framing: Framing, version: str = ""
    ) -> Group:
        key = (survey.name, framing, version, *(str(schema.fingerprint) for schema in schemas))
        if key not in self._groups:
            self._groups[key] = Group(survey, schemas, framing, version)
        return self._groups[key]


def survey_of_schema(schema: AvroSchema, expected: Survey | None = None) -> Survey:
    """Return the survey whose alerts a schema describes.

    Raises
    ------
    DecodeError
        If it is none, or not `expected`.
    """
    if not isinstance(schema.definition, Mapping) or schema.definition.get("type") != "record":
        raise DecodeError("the schema is no record, so it describes no alert")
    if expected is not None and expected.recognises(schema):
        return expected
    found = next((one for one in SURVEYS.values() if one.recognises(schema)), None)
    if found is None:
        raise DecodeError(f"record {schema.name} is valid Avro, but no alert of a known survey")
    if expected is not None:
        raise DecodeError(
            f"record {schema.name} is an alert of {found.name}, not of {expected.name}"
        )
    return found


def numbered_schema(
    id_: int, survey: Survey | None, resolver: SchemaResolver
) -> tuple[Survey, AvroSchema]:
    """Return survey and schema of a Confluent frame.

    Raises
    ------
    UnknownSchemaError
        If no survey has such a schema.
    """
    if survey is not None:
        return survey, resolver.by_id(survey, id_)
    reasons = []
    for one in SURVEYS.values():
        if one.wire == "confluent":
            try:
                return one, resolver.by_id(one, id_)
            except UnknownSchemaError as error:
                reasons.append(str(error))
    raise UnknownSchemaError("; ".join(reasons))


def one_reason(reasons: Sequence[str]) -> str:
    """Return why none of several schemas fits, with the words of the newest."""
    if len(reasons) == 1:
        return reasons[0]
    older = len(reasons) - 1
    return f"no known format; as a bare Avro datum of {reasons[0]} (nor of {older} older schemas)"


def bare_schemas(
    survey: Survey | None, schema: AvroSchema | None
) -> tuple[Survey, tuple[AvroSchema, ...]]:
    """Return survey and the schemas to try on a bare datum, newest first.

    Raises
    ------
    DecodeError
        If there is nothing to go by.
    """
    if schema is not None:
        return survey_of_schema(schema, survey), (schema,)
    if survey is None or survey.wire not in ("bare", "confluent"):
        sends = {"json": "JSON"}.get(survey.wire, "containers") if survey else ""
        whose = f"{survey.name} sends {sends}" if survey else "no survey is given"
        raise DecodeError(
            f"no known format: neither Avro container, Confluent frame, gzip nor JSON; as a bare "
            f"Avro datum it needs a named schema ({whose})"
        )
    found = (survey.schemas.get(version) for version in survey.schemas.versions)
    return survey, tuple(one for one in found if one is not None)
