"""The calls over HTTP: JSON with bytes in base64, as Google's documents write them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
from google.protobuf import json_format

from broker.apps.pubsub.grpc_service import is_same
from broker.apps.pubsub.protocol import CALLS, Call, Message
from broker.apps.pubsub.refusals import Code, Refusal, invalid
from broker.apps.pubsub.services import Services
from broker.config import Secret

# Base64 of the largest request, with room for its attributes.
_MOST_BYTES = 24 * 2**20
_PATH = re.compile(r"/v1/(projects/[^/:]+)/(\w+)(?:/([^/:]+))?(?:/(\w+)|:(\w+))?")
# Of Google's REST client: answer with numbers for names of enumerations.
_INTEGERS = "$alt", "json;enum-encoding=int"

# Verb, kind of resource, whether one is named, what follows -> call, and where its path goes.
_ROUTES: Mapping[tuple[str, str, bool, str], tuple[str, str]] = {
    ("PUT", "topics", True, ""): ("CreateTopic", "name"),
    ("PATCH", "topics", True, ""): ("UpdateTopic", "topic.name"),
    ("POST", "topics", True, "publish"): ("Publish", "topic"),
    ("GET", "topics", True, ""): ("GetTopic", "topic"),
    ("GET", "topics", False, ""): ("ListTopics", "project"),
    ("GET", "topics", True, "subscriptions"): ("ListTopicSubscriptions", "topic"),
    ("GET", "topics", True, "snapshots"): ("ListTopicSnapshots", "topic"),
    ("DELETE", "topics", True, ""): ("DeleteTopic", "topic"),
    ("PUT", "subscriptions", True, ""): ("CreateSubscription", "name"),
    ("GET", "subscriptions", True, ""): ("GetSubscription", "subscription"),
    ("PATCH", "subscriptions", True, ""): ("UpdateSubscription", "subscription.name"),
    ("GET", "subscriptions", False, ""): ("ListSubscriptions", "project"),
    ("DELETE", "subscriptions", True, ""): ("DeleteSubscription", "subscription"),
    ("POST", "subscriptions", True, "modifyAckDeadline"): ("ModifyAckDeadline", "subscription"),
    ("POST", "subscriptions", True, "acknowledge"): ("Acknowledge", "subscription"),
    ("POST", "subscriptions", True, "pull"): ("Pull", "subscription"),
    ("POST", "subscriptions", True, "modifyPushConfig"): ("ModifyPushConfig", "subscription"),
    ("POST", "subscriptions", True, "seek"): ("Seek", "subscription"),
    ("POST", "subscriptions", True, "detach"): ("DetachSubscription", "subscription"),
    ("PUT", "snapshots", True, ""): ("CreateSnapshot", "name"),
    ("GET", "snapshots", True, ""): ("GetSnapshot", "snapshot"),
    ("PATCH", "snapshots", True, ""): ("UpdateSnapshot", "snapshot.name"),
    ("GET", "snapshots", False, ""): ("ListSnapshots", "project"),
    ("DELETE", "snapshots", True, ""): ("DeleteSnapshot", "snapshot"),
    ("POST", "schemas", False, ""): ("CreateSchema", "parent"),
    ("GET", "schemas", True, ""): ("GetSchema", "name"),
    ("GET", "schemas", False, ""): ("ListSchemas", "parent"),
    ("GET", "schemas", True, "listRevisions"): ("ListSchemaRevisions", "name"),
    ("POST", "schemas", True, "commit"): ("CommitSchema", "name"),
    ("POST", "schemas", True, "rollback"): ("RollbackSchema", "name"),
    ("DELETE", "schemas", True, "deleteRevision"): ("DeleteSchemaRevision", "name"),
    ("DELETE", "schemas", True, ""): ("DeleteSchema", "name"),
    ("POST", "schemas", False, "validate"): ("ValidateSchema", "parent"),
    ("POST", "schemas", False, "validateMessage"): ("ValidateMessage", "parent"),
}
_BODIES = {"CreateSchema": "schema"}
"""Calls whose body is one field of the request."""

_CALLS = {call.name: call for call in CALLS}

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_FORM = "application/x-www-form-urlencoded"
_OF_GOOGLE = frozenset({"alt", "key", "prettyPrint"})
_TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class _Request:
    """A call as it was found in an HTTP request."""

    call: Call
    message: Message
    integers: bool


class _Asking:
    """An HTTP client, which is taken to wait for its answer."""

    def is_active(self) -> bool:
        return True


class HttpServer(ThreadingUnixStreamServer):
    """Serves HTTP on a local socket.

    Parameters
    ----------
    address : str
        The socket's path.
    services : Services
        Who answers.
    token : Secret
        What callers must know, if it is not empty.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, services: Services, token: Secret) -> None:
        self.services = services
        self.expected = f"Bearer {token.reveal()}" if token.reveal() else ""
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: HttpServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a request."""
        self._answer()

    do_PUT = do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: headers may hold a token."""

    def _answer(self) -> None:
        try:
            body = self._body()
            self._check_caller()
            if self.path == "/":
                self._send(200, {"pubsub": "ok"})
                return
            form = self.headers.get_content_type() == _FORM
            found = parse(self.command, self.path, body, form=form)
            answer = self.server.services.handler(found.call)(found.message, _Asking())
            self._send(
                200,
                json_format.MessageToDict(answer, use_integers_for_enums=found.integers),
            )
        except Refusal as refusal:
            self._send(refusal.code.http, {"error": _as_json(refusal)})

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.close_connection = True
            raise invalid("chunked requests are not read: send Content-Length")
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            self.close_connection = True
            raise invalid(f"a request has at most {_MOST_BYTES} bytes, not {length}")
        return self.rfile.read(int(length))

    def _check_caller(self) -> None:
        # A page in a browser could otherwise reach a server that only listens here.
        if self.headers.get("Origin"):
            raise Refusal(Code.PERMISSION_DENIED, "requests of web pages are not answered")
        expected = self.server.expected
        if expected and not is_same(self.headers.get("Authorization", ""), expected):
            raise Refusal(Code.UNAUTHENTICATED, "a valid token is needed: Authorization: Bearer")

    def _send(self, status: int, answer: Mapping[str, Any]) -> None:
        body = orjson.dumps(answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def parse(verb: str, target: str, body: bytes, *, form: bool = False) -> _Request:
    """Find the call of an HTTP request.

    Parameters
    ----------
    verb, target : str
        The verb, and the path with its query.
    body : bytes
        JSON.
    form : bool
        Whether the body may also be a form, as simple clients send what they get as fields.

    Raises
    ------
    Refusal
        If there is none, or its body is not what the call takes.
    """
    url = urlsplit(target)
    found = _PATH.fullmatch(unquote(url.path))
    parts = found.groups() if found else ("", "", None, None, None)
    parent, kind, name, *ends = parts
    route = _ROUTES.get((verb, kind, name is not None, next(filter(None, ends), "")))
    if route is None:
        raise Refusal(Code.NOT_FOUND, f"there is nothing at {verb} {url.path}")
    call = _CALLS[route[0]]
    path = f"{parent}/{kind}/{name}" if name is not None else parent
    query = parse_qsl(url.query)
    content = _content(call, body, form=form) | _fields(call, query)
    message = _message(call, _placed(content, route[1].split("."), path))
    return _Request(call, message, _INTEGERS in query)


def _content(call: Call, body: bytes, *, form: bool) -> dict[str, Any]:
    # Of a body that is JSON curl says that it is a form, unless it is told otherwise.
    if form and not body.lstrip().startswith(b"{"):
        return _fields(call, parse_qsl(body.decode(errors="replace")))
    try:
        content = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise invalid(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise invalid("the body is not a JSON object")
    return {_BODIES[call.name]: content} if call.name in _BODIES else content


def _fields(call: Call, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields of a query or form; those with a dollar or of Google's own are not ours."""
    found: dict[str, Any] = {}
    empty = call.request()
    known = empty.DESCRIPTOR
    for key, text in given:
        if key.startswith("$") or key in _OF_GOOGLE:
            continue
        field = known.fields_by_camelcase_name.get(key) or known.fields_by_name.get(key)
        is_truth = field is not None and field.type == field.TYPE_BOOL
        value = _TRUTHS.get(text, text) if is_truth else text
        if field is not None and hasattr(getattr(empty, field.name), "append"):
            found.setdefault(key, []).append(value)
        else:
            found[key] = value
    return found


def _placed(content: dict[str, Any], place: Sequence[str], path: str) -> dict[str, Any]:
    """Put the path where the call wants it."""
    first, *rest = place
    if not rest:
        return content | {first: path}
    inner = content.get(first)
    return content | {first: (inner if isinstance(inner, dict) else {}) | {rest[0]: path}}


def _message(call: Call, content: Mapping[str, Any]) -> Message:
    for text in _bytes_in(call, content):
        # The parser leaves out what is not base64, and takes the rest.
        if isinstance(text, str) and not _BASE64.fullmatch(text):
            raise invalid("the request cannot be read: Base64 decoding failed")
    try:
        return json_format.ParseDict(content, call.request())
    except json_format.ParseError as error:
        raise invalid(f"the request cannot be read: {error}") from error


def _bytes_in(call: Call, content: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what a body holds in base64."""
    if call.name == "ValidateMessage":
        yield content.get("message")
    messages = content.get("messages") if call.name == "Publish" else None
    if isinstance(messages, list):
        yield from (it.get("data") for it in messages if isinstance(it, dict))


def _as_json(refusal: Refusal) -> dict[str, Any]:
    found: dict[str, Any] = {
        "code": refusal.code.http,
        "message": refusal.words,
        "status": refusal.code.name,
    }
    if refusal.reason:
        found["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": refusal.reason,
                "domain": "pubsub.googleapis.com",
                "metadata": dict(refusal.metadata),
            }
        ]
    return found
