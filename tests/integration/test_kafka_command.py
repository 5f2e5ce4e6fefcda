"""``pgb run`` on a real Apache Kafka: how it logs in, waits, tells how it is, and ends."""

import base64
import json
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

pytest.importorskip("confluent_kafka")

from broker.config import Settings
from broker.connectors.sources.kafka import KafkaSource
from broker.surveys import get_survey
from broker.surveys.avro import AvroSchema
from broker.surveys.example import encode_as_sent, example_packet
from tests_support import Pgb

pytestmark = pytest.mark.slow

_PATIENCE_S = 60.0
Produce = Callable[..., None]
Answer = Callable[[str, dict[str, str], bytes], bytes | None]


@pytest.fixture
def pgb(tmp_path: Path) -> Pgb:
    """Return the command on a fresh home."""
    return Pgb(tmp_path / "home")


@contextmanager
def http_server(answer: Answer) -> Iterator[str]:
    """Serve what a function makes of path, headers and body; None is "not found"."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = answer(self.path, dict(self.headers), self.rfile.read(size))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body or b"")

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, and fail if it takes too long."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def health_of(pgb: Pgb) -> dict[str, Any]:
    """Read how the only worker is; empty before its first word."""
    for file in (pgb.home / "health").glob("*.json"):
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    return {}


def generated(count: int) -> list[bytes]:
    """Return packets of different alerts."""
    generate = get_survey("ztf").generate
    assert generate is not None
    return list(generate(count, 7, date(2026, 1, 2)))


def test_absent_topic_ends_with_the_reason(kafka: Any, topic: str, pgb: Pgb) -> None:
    """After the deadline, with exit code 2 and the topic's name."""
    place = f"kafka://{kafka.plain}/{topic}"

    said = pgb("run", place, code=2, environment={"PGB_KAFKA_TOPIC_WAIT_S": "2"})

    assert f"topic {topic} still not there after 2 s" in said


def test_empty_topic_of_the_night(kafka: Any, topic: str, pgb: Pgb, produce: Produce) -> None:
    """Today's topic, there and empty after yesterday's messages went, is read without a wait."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": kafka.plain})
    admin.create_topics([NewTopic(f"{topic}_20260102", 2)])[f"{topic}_20260102"].result()
    produce(kafka.plain, f"{topic}_20260101", generated(3))

    told = pgb.json("run", f"kafka://{kafka.plain}/{topic}_yyyymmdd?night=2026-01-02")

    assert told["stored"] == 3
    topics = [f"{topic}_20260101", f"{topic}_20260102"]
    assert (health_of(pgb)["topics"], health_of(pgb)["state"]) == (topics, "ended")


def test_empty_topic_is_told(kafka: Any, topic: str, pgb: Pgb) -> None:
    """A run that finds nothing says so, and ends well."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": kafka.plain})
    admin.create_topics([NewTopic(topic, 2)])[topic].result()

    process = pgb.start("run", f"kafka://{kafka.plain}/{topic}")
    _, said = process.communicate(timeout=_PATIENCE_S)

    assert process.returncode == 0
    assert said.count(f"{topic}: there, but empty so far") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_order(
    kafka: Any, topic: str, pgb: Pgb, produce: Produce, number: signal.Signals
) -> None:
    """A stopped run has committed all that it stored, and its place in the group is free."""
    produce(kafka.plain, topic, generated(200))
    place = f"kafka://{kafka.plain}/{topic}"
    process = pgb.start("run", place, "--follow", environment={"PGB_BATCH_ALERTS": "64"})
    wait_for(lambda: health_of(pgb).get("last_message") is not None)
    process.send_signal(number)
    _, said = process.communicate(timeout=_PATIENCE_S)

    assert (process.returncode, health_of(pgb)["state"]) == (130, "ended")
    assert "Traceback" not in said
    started = time.monotonic()
    told = pgb.json("run", place)
    assert told["duplicates"] == 0
    assert time.monotonic() - started < 30
    ledger = pgb.json("ledger")
    assert (ledger["stored"], ledger["gaps"]) == (200, [])


def test_stopped_while_the_server_is_away(
    kafka_module: Any, topic: str, pgb: Pgb, produce: Produce
) -> None:
    """It ends soon also then; nothing is told as committed that was not."""
    server = kafka_module.KafkaServer().start()
    try:
        produce(server.plain, topic, generated(20))
        process = pgb.start("run", f"kafka://{server.plain}/{topic}", "--follow")
        wait_for(lambda: health_of(pgb).get("last_commit") is not None)
        server.kill()
        wait_for(lambda: health_of(pgb)["state"] == "disconnected")
        assert "the connection is lost" in pgb("status", code=1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        server.remove()

    assert process.returncode == 130


def test_metrics_of_a_run(kafka: Any, topic: str, pgb: Pgb, produce: Produce) -> None:
    """A monitor reads partitions, lag and counts while the run goes."""
    pytest.importorskip("prometheus_client")
    produce(kafka.plain, topic, generated(30))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = f"kafka://{kafka.plain}/{topic}"
    process = pgb.start("run", place, "--follow", "--metrics", str(port))
    wait_for(lambda: health_of(pgb).get("last_commit") is not None)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    finally:
        process.terminate()
        process.communicate(timeout=_PATIENCE_S)

    assert 'pgb_alerts_total{fate="stored"} 30.0' in lines
    assert "pgb_kafka_partitions_assigned 4.0" in lines
    assert f'pgb_kafka_lag{{partition="0",topic="{topic}"}} 0.0' in lines
    assert any(line.startswith("pgb_kafka_last_commit_age_seconds ") for line in lines)


def new_schema() -> tuple[int, AvroSchema]:
    """Return the id and definition of a schema that does not ship."""
    text = json.dumps(get_survey("lsst").schemas.get("v11_1").definition)  # type: ignore[union-attr]
    return 1203, AvroSchema.parse(json.loads(text.replace("v11_1", "v12_3")))


def test_schema_registry_of_a_profile(
    kafka: Any, kafka_module: Any, topic: str, pgb: Pgb, produce: Produce, tmp_path: Path
) -> None:
    """Framed packets of a new schema are read by SCRAM login and registry, later without it."""
    id_, schema = new_schema()
    asked: list[str] = []

    def answer(path: str, _: dict[str, str], __: bytes) -> bytes | None:
        asked.append(path)
        body = json.dumps({"schema": json.dumps(schema.definition)}).encode()
        return body if path == f"/schema-registry/schemas/ids/{id_}" else None

    survey = get_survey("lsst")
    packets = [encode_as_sent(survey, schema, example_packet(schema, i)) for i in range(6)]
    place = f"kafka://{kafka.scram}/{topic}?profile=production"
    environment = {
        "PGB_SURVEY": "lsst",
        "PGB_KAFKA_USER": kafka_module.USER,
        "PGB_KAFKA_PASSWORD": kafka_module.PASSWORD,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    produce(kafka.plain, topic, packets[:3])
    with http_server(answer) as url:
        environment["PGB_SCHEMA_REGISTRY"] = f"{url}/schema-registry"
        first = json.loads(pgb("run", place, "--json", environment=environment))
    produce(kafka.plain, topic, packets[3:])
    second = json.loads(pgb("run", place, "--json", environment=environment))

    assert (first["stored"], second["stored"]) == (3, 3)
    assert asked == [f"/schema-registry/schemas/ids/{id_}"]
    assert health_of(pgb)["group"] == f"{kafka_module.USER}-lsst-consumer"


def token(path: str, headers: dict[str, str], body: bytes) -> bytes | None:
    """Give an unsigned token to the client that knows the secret, as an OAuth server does."""
    given = base64.b64decode(headers.get("Authorization", "").removeprefix("Basic ")).decode()
    granted = parse_qs(body.decode()).get("grant_type") == ["client_credentials"]
    if (path, given, granted) != ("/oauth2/token", "my-client:my-secret", True):
        return None
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": "my-client", "iat": now, "exp": now + 600})
    coded = [base64.urlsafe_b64encode(json.dumps(it).encode()).rstrip(b"=") for it in parts]
    jws = b".".join([*coded, b""]).decode()
    return json.dumps({"access_token": jws, "token_type": "bearer", "expires_in": 600}).encode()


def oauth_place(kafka: Any, topic: str, url: str) -> str:
    """Return the place of a topic behind TLS and OAuth, with the profile of the notices."""
    endpoint = f"sasl.oauthbearer.token.endpoint.url={url}/oauth2/token"
    trusted = f"ssl.ca.location={kafka.certificate}"
    return f"kafka://{kafka.oauth}/{topic}?profile=gcn&{endpoint}&{trusted}"


def test_notices_by_oauth_and_tls(kafka: Any, topic: str, produce: Produce, tmp_path: Path) -> None:
    """Client credentials give a token and the token lets in; a notice may be large."""
    notices = [b'{"superevent_id": "MS240715a"}', b"x" * 1_500_000]
    produce(kafka.plain, topic, notices, partition=0)
    (tmp_path / "secret").write_text("my-secret\n")
    settings = Settings(
        home=str(tmp_path),
        survey="lvk",
        kafka_user="my-client",
        kafka_password_file=str(tmp_path / "secret"),
        kafka_topic_wait_s=20,
    )
    with http_server(token) as url:
        source = KafkaSource.from_url(oauth_place(kafka, topic, url), settings)
        with closing(source):
            found = [payload for batch in source.batches(10, 0.1) for payload in batch.payloads]

    assert found == notices


def test_wrong_client_secret(kafka: Any, topic: str, pgb: Pgb, tmp_path: Path) -> None:
    """No token ends the run with the reason, and without the secret."""
    (tmp_path / "secret").write_text("wrong-secret\n")
    with http_server(token) as url:
        place = oauth_place(kafka, topic, url)
        environment = {
            "PGB_SURVEY": "lvk",
            "PGB_KAFKA_USER": "my-client",
            "PGB_KAFKA_PASSWORD_FILE": str(tmp_path / "secret"),
            "PGB_KAFKA_TOPIC_WAIT_S": "4",
        }
        said = pgb("run", place, code=2, environment=environment)

    assert "token" in said.lower() or "oauth" in said.lower()
    assert "wrong-secret" not in said
