"""Schemas by number: shipped, kept, asked for, or the nearest."""

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from broker.errors import ConfigError, NotFoundError, TransientError, UnknownSchemaError
from broker.surveys import SchemaRegistry, SchemaResolver, get_survey
from broker.surveys.add_schema import add_schemas

LSST = get_survey("lsst")


@pytest.fixture
def served():
    """A registry on this machine: (address, {id: body}, list of requested paths)."""
    bodies: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = bodies.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/base", bodies, asked
    server.shutdown()
    thread.join()
    server.server_close()


def put(bodies, id_, definition):
    """Let the registry answer for an id, doubly encoded as registries do."""
    answer = {"schema": json.dumps(definition)}
    bodies[f"/base/schemas/ids/{id_}"] = json.dumps(answer).encode()


def lsst_like(version):
    """Return the definition of an LSST schema version that does not ship."""
    text = json.dumps(LSST.schemas.get("v11_1").definition)
    return json.loads(text.replace("v11_1", version))


@pytest.mark.parametrize("version", LSST.schemas.versions)
def test_shipped_ids_resolve(version):
    """Every shipped version has the id 100 * major + minor."""
    major, minor = (int(part) for part in version[1:].split("_"))
    schema = SchemaResolver().by_id(LSST, 100 * major + minor)
    assert LSST.version_of(schema) == version


def test_an_unknown_minor_version_warns_once_and_takes_the_nearest(caplog):
    """A newer minor version is read with the nearest one, with one warning for the id."""
    resolver = SchemaResolver()
    with caplog.at_level(logging.WARNING):
        found = [LSST.version_of(resolver.by_id(LSST, 1110)) for _ in range(3)]
    assert found == ["v11_1"] * 3
    assert [record.getMessage()[:13] for record in caplog.records] == ["schema 11.10 "]


def test_an_unknown_major_version_says_what_to_do():
    """Without a schema of that major version the error names the setting and the command."""
    with pytest.raises(UnknownSchemaError, match=r"12\.0.*schema_registry.*pgb schemas add"):
        SchemaResolver().by_id(LSST, 1200)


def test_the_registry_is_asked_for_what_does_not_ship(served):
    """An id that does not ship comes from the registry."""
    url, bodies, _ = served
    put(bodies, 1203, lsst_like("v12_3"))
    schema = SchemaResolver(SchemaRegistry(url)).by_id(LSST, 1203)
    assert LSST.version_of(schema) == "v12_3"


def test_answers_are_kept_on_disk(served, tmp_path):
    """A second resolver does not ask again."""
    url, bodies, asked = served
    put(bodies, 1203, lsst_like("v12_3"))
    for _ in range(2):
        SchemaResolver(SchemaRegistry(url, tmp_path)).by_id(LSST, 1203)
    assert asked == ["/base/schemas/ids/1203"]


def test_kept_answers_work_without_the_registry(served, tmp_path):
    """What was fetched once is there when the registry has forgotten it."""
    url, bodies, _ = served
    put(bodies, 1203, lsst_like("v12_3"))
    SchemaRegistry(url, tmp_path).definition(1203)
    bodies.clear()
    assert SchemaRegistry(url, tmp_path).definition(1203)["name"] == "lsst.v12_3.alert"


def test_a_registry_that_was_away_is_asked_again(served):
    """After a minute, not with every packet."""
    url, bodies, asked = served
    bodies["/base/schemas/ids/1203"] = b"<html>"
    time = [0.0]
    resolver = SchemaResolver(SchemaRegistry(url), lambda: time[0])
    for time[0] in (0.0, 1.0, 59.0):
        with pytest.raises(UnknownSchemaError, match="1203"):
            resolver.by_id(LSST, 1203)
    put(bodies, 1203, lsst_like("v12_3"))
    time[0] = 61.0
    assert LSST.version_of(resolver.by_id(LSST, 1203)) == "v12_3"
    assert len(asked) == 2


def test_without_asking_only_kept_answers_are_used(served, tmp_path):
    """The registry of a profile that is not in use hears nothing."""
    url, bodies, asked = served
    put(bodies, 1203, lsst_like("v12_3"))
    SchemaRegistry(url, tmp_path).definition(1203)
    silent = SchemaRegistry(url, tmp_path, ask=False)
    assert silent.definition(1203)["name"] == "lsst.v12_3.alert"
    with pytest.raises(NotFoundError, match="no schema registry is set"):
        silent.definition(1204)
    assert len(asked) == 1


def test_an_id_that_the_registry_lacks_is_not_found(served):
    """A 404 is an answer."""
    with pytest.raises(NotFoundError, match="1299"):
        SchemaRegistry(served[0]).definition(1299)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"schema": "{"}'])
def test_a_senseless_answer_is_transient(served, body):
    """An answer that is no schema may be better the next time."""
    url, bodies, _ = served
    bodies["/base/schemas/ids/1203"] = body
    with pytest.raises(TransientError, match="1203"):
        SchemaRegistry(url).definition(1203)


def test_a_registry_that_is_away_is_transient():
    """No connection is no verdict on the schema."""
    with pytest.raises(TransientError):
        SchemaRegistry("http://127.0.0.1:9", timeout_s=2).definition(1203)


def test_an_answer_that_breaks_off_is_transient():
    """A server that is no web server, or dies while it answers, is asked again later."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_with, args=(server, b"rubbish\r\n\r\n"))
        thread.start()
        registry = SchemaRegistry(f"http://127.0.0.1:{server.getsockname()[1]}", None, 5.0)

        with pytest.raises(TransientError, match="its answer is none"):
            registry.definition(1203)
        thread.join()


def answer_with(server, data):
    """Give the first who asks some bytes, and hang up."""
    asking, _ = server.accept()
    with asking:
        asking.recv(1000)
        asking.sendall(data)


def test_a_kept_answer_that_is_damaged_is_asked_for_again(served, tmp_path):
    """A disk that was full, or another program, may have left anything there."""
    url, bodies, asked = served
    put(bodies, 1203, lsst_like("v12_3"))
    SchemaRegistry(url, tmp_path).definition(1203)
    (file,) = tmp_path.rglob("1203.json")
    file.write_text('{"type": "rec')

    assert SchemaRegistry(url, tmp_path).definition(1203) == lsst_like("v12_3")
    assert len(asked) == 2


def test_answers_are_used_where_they_cannot_be_kept(served, tmp_path, caplog):
    """A cache that cannot be written is no reason to lose alerts."""
    url, bodies, _ = served
    put(bodies, 1203, lsst_like("v12_3"))
    (tmp_path / "schemas").write_text("in the way")

    assert SchemaRegistry(url, tmp_path).definition(1203) == lsst_like("v12_3")
    assert "cannot be kept" in caplog.text


def test_an_answer_that_is_no_schema_is_asked_for_once(served):
    """It is remembered like an id that is not there, and told in words."""
    url, bodies, asked = served
    put(bodies, 1203, {"type": "record", "name": "lsst.v12_3.alert"})
    resolver = SchemaResolver(SchemaRegistry(url))

    for _ in range(3):
        with pytest.raises(UnknownSchemaError, match="the schema cannot be used"):
            resolver.by_id(LSST, 1203)
    assert len(asked) == 1


def test_a_login_in_the_address_is_refused_and_not_repeated():
    """It would get into messages and logs."""
    with pytest.raises(ConfigError) as caught:
        SchemaRegistry("https://me:hunter2@host/registry")

    assert "hunter2" not in str(caught.value)


def test_an_id_without_schema_is_asked_for_once(served):
    """A stream of such packets does not wait for the registry every time."""
    url, _, asked = served
    resolver = SchemaResolver(SchemaRegistry(url))
    for _ in range(3):
        with pytest.raises(UnknownSchemaError, match="404"):
            resolver.by_id(LSST, 1299)
    assert asked == ["/base/schemas/ids/1299"]


def test_another_survey_s_schema_is_not_taken(served):
    """What the registry says must be an alert schema of the survey."""
    url, bodies, _ = served
    put(bodies, 1203, get_survey("ztf").schemas.get("4.02").definition)
    with pytest.raises(UnknownSchemaError, match=r"ztf\.alert"):
        SchemaResolver(SchemaRegistry(url)).by_id(LSST, 1203)


@pytest.mark.parametrize(("end", "ids"), [("", (1203,)), ("/schemas/ids/1203", ())])
def test_a_version_is_added_from_a_registry(served, tmp_path, end, ids):
    """The tool writes what a registry knows, by its address and ids or by the schema's own."""
    url, bodies, _ = served
    put(bodies, 1203, lsst_like("v12_3"))
    assert add_schemas(url + end, LSST, tmp_path, ids=ids) == [tmp_path / "v12_3.json"]


@pytest.mark.parametrize("url", ["file:///etc", "ftp://host", "host:80"])
def test_other_addresses_are_refused(url):
    """A registry speaks http or https."""
    with pytest.raises(ConfigError, match="schema_registry"):
        SchemaRegistry(url)
