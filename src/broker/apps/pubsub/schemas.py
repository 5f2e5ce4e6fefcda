"""The service of Avro schemas: kept in revisions, and messages checked against them."""

import io
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import fastavro

from broker.apps.pubsub import protocol
from broker.apps.pubsub.catalogue import Catalogue, page
from broker.apps.pubsub.names import DELETED_SCHEMA, Path, parse, parse_new, project_of
from broker.apps.pubsub.protocol import Message, response_of
from broker.apps.pubsub.refusals import Code, Refusal, already_exists, invalid, not_found

_KIND = "schema"
_BASIC, _FULL = 1, 2
_JSON, _BINARY = 1, 2
_AT = "@"


class Schemas:
    """Schemas of a home under Google's protocol.

    Parameters
    ----------
    catalogue : Catalogue
        Where they are kept, one entry a revision.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def create_schema(self, request: Message) -> Message:
        """Keep a schema's first revision."""
        project = project_of(request.parent)
        path = parse_new("schemas", str(Path(project, "schemas", request.schema_id)))
        if self._revisions(path.name):
            raise already_exists("Schema", str(path))
        return self._add(path, request.schema)

    def commit_schema(self, request: Message) -> Message:
        """Keep a further revision of a schema."""
        path = parse("schemas", request.name)
        self._newest(path)
        return self._add(path, request.schema)

    def rollback_schema(self, request: Message) -> Message:
        """Make an older revision the newest again."""
        path = parse("schemas", request.name)
        return self._add(path, self._revision(path, request.revision_id))

    def get_schema(self, request: Message) -> Message:
        """Return a schema's newest revision, or the one that is named."""
        path = parse("schemas", request.name)
        name, _, revision = path.name.partition(_AT)
        plain = Path(path.project, path.kind, name)
        found = self._revision(plain, revision) if revision else self._newest(plain)
        return _shown(found, request.view or _FULL)

    def list_schemas(self, request: Message) -> Message:
        """List the newest revisions."""
        project = project_of(request.parent)
        names = sorted({name.split(_AT)[0] for name in self._catalogue.names(_KIND)})
        chosen, token = page(names, request.page_size, request.page_token)
        found = [self._newest(Path(project, "schemas", name)) for name in chosen]
        shown = [_shown(schema, request.view or _BASIC) for schema in found]
        return response_of("ListSchemas")(schemas=shown, next_page_token=token)

    def list_schema_revisions(self, request: Message) -> Message:
        """List a schema's revisions, the oldest first."""
        path = parse("schemas", request.name)
        self._newest(path)
        oldest_first = self._revisions(path.name)[::-1]
        found, token = page(oldest_first, request.page_size, request.page_token)
        shown = [_shown(_named(schema, path), request.view or _BASIC) for schema in found]
        return response_of("ListSchemaRevisions")(schemas=shown, next_page_token=token)

    def delete_schema_revision(self, request: Message) -> Message:
        """Forget one revision, which is not the only one."""
        path = parse("schemas", request.name)
        name, _, revision = path.name.partition(_AT)
        plain = Path(path.project, path.kind, name)
        self._revision(plain, revision or request.revision_id)
        if len(self._revisions(name)) == 1:
            raise Refusal(Code.FAILED_PRECONDITION, "a schema's only revision cannot be deleted")
        self._catalogue.drop(_KIND, f"{name}{_AT}{revision or request.revision_id}")
        return self._newest(plain)

    def delete_schema(self, request: Message) -> Message:
        """Forget a schema; topics that have it take no messages any more."""
        path = parse("schemas", request.name)
        self._newest(path)
        for found in self._revisions(path.name):
            self._catalogue.drop(_KIND, f"{path.name}{_AT}{found.revision_id}")
        return protocol.Empty()

    def validate_schema(self, request: Message) -> Message:
        """Check a definition."""
        project_of(request.parent)
        _check_definition(request.schema)
        return response_of("ValidateSchema")()

    def validate_message(self, request: Message) -> Message:
        """Check one message against a schema that is named or given."""
        if request.HasField("schema"):
            schema = request.schema
            _check_definition(schema)
        else:
            schema = self._newest(parse("schemas", request.name))
        _check_payload(schema, request.encoding, request.message)
        return response_of("ValidateMessage")()

    def check_settings(self, settings: Message) -> None:
        """Check the settings of a topic.

        Raises
        ------
        Refusal
            If there is no such schema, or no encoding is given.
        """
        self._newest(parse("schemas", settings.schema))
        if settings.encoding not in (_JSON, _BINARY):
            raise invalid("schema settings need an encoding, JSON or BINARY")

    def check(self, settings: Message, payloads: Sequence[bytes]) -> list[dict[str, str]]:
        """Check messages of a topic, and return the attributes that name the revision used.

        Raises
        ------
        Refusal
            If a message is not of the topic's schema.
        """
        path = parse("schemas", settings.schema)
        allowed = self._revisions(path.name)
        if not allowed:
            raise Refusal(Code.FAILED_PRECONDITION, f"the topic's schema is {DELETED_SCHEMA}")
        names = [schema.revision_id for schema in allowed]
        if settings.last_revision_id in names:
            allowed = allowed[names.index(settings.last_revision_id) :]
        if settings.first_revision_id in names:
            oldest = [schema.revision_id for schema in allowed].index(settings.first_revision_id)
            allowed = allowed[: oldest + 1]
        encoding = "JSON" if settings.encoding == _JSON else "BINARY"
        return [
            {
                "googclient_schemaname": settings.schema,
                "googclient_schemaencoding": encoding,
                "googclient_schemarevisionid": _fitting(allowed, settings.encoding, payload),
            }
            for payload in payloads
        ]

    def _add(self, path: Path, wanted: Message) -> Message:
        _check_definition(wanted)
        made = protocol.Schema(type_=wanted.type_, definition=wanted.definition)
        made.revision_id = secrets.token_hex(4)
        made.revision_create_time.FromDatetime(datetime.now(UTC))
        self._catalogue.put(_KIND, f"{path.name}{_AT}{made.revision_id}", made)
        return _named(made, path)

    def _revisions(self, name: str) -> list[Message]:
        keys = [key for key in self._catalogue.names(_KIND) if key.split(_AT)[0] == name]
        found = [self._catalogue.get(_KIND, key, protocol.Schema) for key in keys]
        return sorted(
            (schema for schema in found if schema),
            key=lambda schema: schema.revision_create_time.ToNanoseconds(),
            reverse=True,
        )

    def _newest(self, path: Path) -> Message:
        for found in self._revisions(path.name):
            return _named(found, path)
        raise not_found("Schema", str(path))

    def _revision(self, path: Path, revision: str) -> Message:
        for found in self._revisions(path.name):
            if found.revision_id == revision:
                return _named(found, path)
        raise not_found("Schema revision", f"{path}{_AT}{revision}")


def _named(schema: Message, path: Path) -> Message:
    schema.name = str(path)
    return schema


def _shown(schema: Message, view: int) -> Message:
    if view != _FULL:
        schema.definition = ""
    return schema


def _check_definition(schema: Message) -> None:
    if schema.type_ != protocol.Schema.Type.AVRO:
        raise invalid("only Avro schemas are kept here")
    try:
        _parsed(schema.definition)
    except Exception as error:
        raise invalid(f"invalid Avro schema: {error}") from error


@lru_cache(maxsize=64)
def _parsed(definition: str) -> Any:
    return fastavro.parse_schema(json.loads(definition))


def _fitting(allowed: Sequence[Message], encoding: int, payload: bytes) -> str:
    """Return the newest revision that a message is of."""
    first: Refusal | None = None
    for schema in allowed:
        try:
            _check_payload(schema, encoding, payload)
        except Refusal as refusal:
            first = first or refusal
        else:
            return str(schema.revision_id)
    raise first or invalid("the topic allows no revision of its schema")


def _check_payload(schema: Message, encoding: int, payload: bytes) -> None:
    try:
        parsed = _parsed(schema.definition)
        if encoding == _JSON:
            list(fastavro.json_reader(io.StringIO(payload.decode()), parsed))
            return
        body = io.BytesIO(payload)
        fastavro.schemaless_reader(body, parsed, None)
    except Exception as error:
        raise invalid(f"message failed schema validation: {error!r}") from error
    if body.tell() != len(payload):
        raise invalid("message failed schema validation: bytes are left over")
