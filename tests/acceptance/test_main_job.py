"""The main job, from packets in files to everything that can be read back."""

import gzip
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import fastavro
import pytest

from broker.connectors.sources.files import FileSource
from broker.surveys import get_survey
from broker.surveys.example import encode_as_sent, example_packet

TABLES = ("alerts", "DIASource", "verdicts")


def contents(pgb, table: str) -> list[str]:
    """Return all rows of a table in a fixed order."""
    return sorted(
        pgb(*f"query|SELECT * FROM ztf_alerts.{table}|--format|json".split("|")).splitlines()
    )


def packet(path: Path) -> dict:
    """Read a packet with another reader than ours."""
    with path.open("rb") as file:
        (found,) = fastavro.reader(file)
    return found


def test_the_demo_adds_up(pgb):
    """One command, and the ledger agrees."""
    report = pgb.json("demo", "--alerts", "500", "--home", str(pgb.home))

    assert report["received"] == 500
    assert report["received"] == sum(report[k] for k in ("stored", "duplicates", "dead_lettered"))
    assert report["passed"]["purity"] > 0
    assert pgb.json("ledger")["reconciled"] is True


def test_the_demo_teaches(pgb):
    """It ends with what to try next, and that works."""
    shown = pgb("demo", "--alerts", "100", "--home", str(pgb.home))

    for word in ("received", "duplicates", "dead-lettered", "purity", "pgb query", "pgb explain"):
        assert word in shown


def test_a_second_run_adds_only_duplicates(pgb, folder: Path):
    """No row, file or message more."""
    first = pgb.json("run", str(folder), "--survey", "ztf")
    before = {table: contents(pgb, table) for table in TABLES}, pgb.json("topics")

    second = pgb.json("run", str(folder), "--survey", "ztf")

    assert (first["stored"], second["stored"]) == (300, 0)
    assert second["duplicates"] == 300
    assert ({table: contents(pgb, table) for table in TABLES}, pgb.json("topics")) == before
    assert pgb.json("ledger")["reconciled"] is True


def test_bad_packets_are_kept_and_the_others_unharmed(pgb, folder: Path, night: list[bytes]):
    """Truncated, garbage, empty, large, and Avro that is no alert."""
    bad = {
        "truncated": night[0][:-100],
        "garbage": random.Random(1).randbytes(5000),
        "empty": b"",
        "large": bytes(10_000_000),
        "no alert": _avro(
            {"type": "record", "name": "x", "fields": [{"name": "a", "type": "int"}]}
        ),
    }
    for name, payload in bad.items():
        (folder / name).write_bytes(payload)

    report = pgb.json("run", str(folder))
    letters = pgb.json("deadletters", "list")

    assert (report["stored"], report["dead_lettered"]) == (300, len(bad))
    assert {Path(letter["place"]).name for letter in letters} == set(bad)
    assert all(letter["reason"] for letter in letters)
    assert pgb.json("ledger")["reconciled"] is True


def _avro(schema: dict) -> bytes:
    import io

    out = io.BytesIO()
    fastavro.writer(out, fastavro.parse_schema(schema), [{"a": 1}])
    return out.getvalue()


def test_a_dead_letter_shows_its_bytes(pgb, tmp_path: Path):
    """As they came."""
    (tmp_path / "bad.avro").write_bytes(b"no alert at all")
    pgb("run", str(tmp_path / "bad.avro"))

    pgb("deadletters", "show", "1", "--output", str(tmp_path / "out"))

    assert (tmp_path / "out").read_bytes() == b"no alert at all"


def test_a_retry_leaves_what_still_cannot_be_read(pgb, tmp_path: Path):
    """And counts nothing twice."""
    (tmp_path / "bad.avro").write_bytes(b"no alert at all")
    pgb("run", str(tmp_path / "bad.avro"))

    assert "1 still cannot" in pgb("deadletters", "retry")
    assert pgb.json("ledger")["received"] == 1


def test_every_alert_can_be_had_as_avro(pgb, folder: Path, tmp_path: Path, night: list[bytes]):
    """A valid container with the same data."""
    pgb("run", str(folder))
    sent = packet(folder / "00007.avro")

    pgb("alert", str(sent["candid"]), "--avro", str(tmp_path / "out.avro"))

    assert packet(tmp_path / "out.avro") == sent


def test_the_packet_in_the_topic_is_byte_identical(pgb, folder: Path, night: list[bytes]):
    """What was sent is what is kept."""
    from broker.connectors.streams.local import LocalStream

    pgb("run", str(folder))
    stream = LocalStream(pgb.home / "streams", "reader")
    stream.subscribe("ztf-alerts", "test")

    kept = {delivery.payload for delivery in stream.pull("test", 1000)}

    assert kept == set(night)


def test_an_alert_is_shown_as_json_and_picture(pgb, folder: Path, tmp_path: Path):
    """By the id of its object."""
    pgb("run", str(folder))
    sent = packet(folder / "00000.avro")

    shown = pgb.json("alert", sent["objectId"], "--plot", str(tmp_path / "alert.png"))

    assert shown["objectId"] == sent["objectId"]
    assert (tmp_path / "alert.png").read_bytes().startswith(b"\x89PNG")


def test_explain_agrees_with_the_stream(pgb, folder: Path):
    """For alerts that passed and for others."""
    pgb("run", str(folder))
    one_of_each = (
        "SELECT '{0}' AS name, {0} AS passed, min(source_id) AS id "
        "FROM ztf_alerts.verdicts GROUP BY {0}"
    )

    rows = pgb.rows(" UNION ALL ".join(map(one_of_each.format, ("purity", "extragalactic"))))

    assert sorted((row["name"], row["passed"]) for row in rows) == [
        ("extragalactic", False), ("extragalactic", True), ("purity", False), ("purity", True),
    ]  # fmt: skip
    for row in rows:
        explained = pgb.json("explain", row["name"], str(row["id"]))
        assert explained["passed"] == row["passed"]
        assert all(cut["verdict"] for cut in explained["cuts"])


def test_pulled_messages_are_not_delivered_again(pgb, folder: Path):
    """Acknowledged ones; leased ones come back after the deadline."""
    pgb("run", str(folder))
    pull = ("pull", "alerts_pure", "--max", "3", "--json")

    first = [json.loads(line)["message_id"] for line in pgb(*pull).splitlines()]
    second = [json.loads(line)["message_id"] for line in pgb(*pull).splitlines()]

    assert len(first) == len(second) == 3
    assert not set(first) & set(second)


def test_unacknowledged_messages_come_again(pgb, folder: Path):
    """After the deadline, with a higher attempt."""
    pgb("run", str(folder))
    pull = ("pull", "alerts", "--max", "1", "--deadline", "0.2", "--subscription", "s", "--no-ack")

    first = pgb.json(*pull)
    time.sleep(0.3)
    second = pgb.json(*pull)

    assert first["message_id"] == second["message_id"]
    assert (first["attempt"], second["attempt"]) == (1, 2)


def test_a_subscription_filters_on_verdicts(pgb, folder: Path):
    """Attributes carry them."""
    report = pgb.json("run", str(folder))
    expression = 'attributes.is_pure = "1"'

    pulled = pgb("pull", "alerts", "--max", "1000", "--filter", expression, "--json").splitlines()

    assert len(pulled) == report["passed"]["purity"]


def test_an_instance_for_tests_is_separate(pgb, folder: Path):
    """Same home, other names."""
    pgb("run", str(folder))

    report = pgb.json("run", str(folder), "--testid", "mytest")

    assert report["stored"] == 300
    assert report["published"]["ztf-alerts-mytest"] == 300
    assert pgb.rows("SELECT COUNT(*) AS n FROM ztf_alerts_mytest.alerts") == [{"n": 300}]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "/nowhere/at/all"), "/nowhere/at/all"),
        (("run", ".", "--survey", "nosuch"), "nosuch"),
        (("query", "SELEC x"), "SELEC"),
        (("query", "SELECT * FROM ztf_alerts.nosuch"), "nosuch"),
        (("alert", "ZTF00nothere"), "ZTF00nothere"),
        (("explain", "nosuch", "1"), "purity"),
        (("pull", "nosuch"), "nosuch"),
        (("run", "gopher://x/y"), "gopher"),
        (("topics", "--no-such-option"), "no-such-option"),
        (("run", ".", "--testid", "Not-Valid"), "testid"),
    ],
)
def test_a_wrong_command_is_told_what_is_wrong(pgb, words: tuple[str, ...], expected: str):
    """Exit code 2, and the words name it."""
    assert expected in pgb(*words, code=2)


def test_a_home_that_cannot_be_written_is_named(pgb, tmp_path: Path, folder: Path):
    """It is a file."""
    (tmp_path / "home").write_text("in the way")

    assert str(tmp_path / "home") in pgb("run", str(folder), code=2)


def test_a_second_worker_of_the_same_name_is_refused(pgb, folder: Path):
    """In words; another name is welcome."""
    first = pgb.start("run", str(folder), "--follow")
    _wait_for_rows(pgb, first)

    refused = pgb("run", str(folder), code=2)
    other = pgb.json("run", str(folder), "--worker", "w1")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)

    assert "already at work" in refused
    assert "--worker" in refused
    assert other["duplicates"] == 300
    assert pgb.json("ledger")["reconciled"] is True


def _wait_for_rows(pgb, process) -> None:
    """Wait until a running broker has stored something."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        topics = {topic["topic"]: topic["messages"] for topic in pgb.json("topics")}
        if topics.get("ztf-alerts_pure"):
            return
        time.sleep(0.2)
    raise AssertionError("nothing was stored in time")


def test_query_and_pull_answer_during_a_run(pgb, folder: Path):
    """From another process."""
    running = pgb.start("run", str(folder), "--follow")
    _wait_for_rows(pgb, running)

    counted = pgb.rows("SELECT COUNT(*) AS n FROM ztf_alerts.DIASource")
    pulled = pgb.json("pull", "alerts_pure", "--max", "1")
    still_running = running.poll() is None
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)

    assert still_running
    assert counted[0]["n"] > 0
    assert pulled["payload"]["objectId"].startswith("ZTF")


def test_ctrl_c_leaves_nothing_half_done(pgb, folder: Path):
    """Exit code 130, and the ledger agrees."""
    running = pgb.start("run", str(folder), "--follow")
    _wait_for_rows(pgb, running)
    running.send_signal(signal.SIGINT)

    out, err = running.communicate(timeout=60)

    assert running.returncode == 130, out + err
    assert pgb.json("ledger")["reconciled"] is True


def test_a_gzipped_packet_is_read(pgb, tmp_path: Path, night: list[bytes]):
    """Formats are found from the first bytes, not the name."""
    (tmp_path / "alert.bin").write_bytes(gzip.compress(night[0]))

    assert pgb.json("run", str(tmp_path / "alert.bin"))["stored"] == 1


def test_the_night_comes_in_order(folder: Path, night: list[bytes]):
    """The folder gives the packets as they were written."""
    assert next(FileSource([folder]).batches(1000, 0)).payloads == night


def test_a_stopped_run_still_tells_what_it_did(pgb, folder: Path):
    """With --json, as one object."""
    running = pgb.start("run", str(folder), "--follow", "--json")
    _wait_for_rows(pgb, running)
    running.send_signal(signal.SIGINT)

    out, _ = running.communicate(timeout=60)

    assert json.loads(out.strip().splitlines()[-1])["received"] > 0


def test_bytes_can_be_printed(pgb, folder: Path):
    """In base64."""
    assert pgb.rows("SELECT CAST('a' AS BYTES) AS b, 0.1 + 0.2 AS f") == [
        {"b": "YQ==", "f": 0.30000000000000004}
    ]


def test_a_place_without_anything_readable_is_an_error(pgb, tmp_path: Path):
    """The summary is printed all the same."""
    (tmp_path / "night.tar.gz").write_bytes(b"no archive")

    assert "nothing could be read" in pgb("run", str(tmp_path / "night.tar.gz"), code=2)


def test_an_output_that_cannot_be_written_is_named(pgb):
    """Exit code 2."""
    words = ("query", "SELECT 1", "--format", "csv", "--output", "/nowhere/at/all.csv")

    assert "/nowhere/at/all.csv" in pgb(*words, code=2)


def test_the_ledger_looks_at_every_survey_of_a_home(pgb, folder: Path, tmp_path: Path):
    """Unless one is named."""
    (tmp_path / "bad").write_bytes(b"no alert")
    pgb("run", str(folder))
    pgb("run", str(tmp_path / "bad"), "--survey", "lsst")

    both = pgb.json("ledger")

    assert [account["received"] for account in both] == [1, 300]
    assert pgb.json("ledger", "--survey", "lsst")["received"] == 1


def test_alerts_of_a_registry_are_read_back(pgb, tmp_path: Path):
    """With the schema from the registry's cache."""
    registry = _Registry()
    schema = get_survey("lsst").schemas.get("v11_0")
    assert schema is not None
    definition = json.loads(json.dumps(schema.definition).replace("v11_0", "v12_0"))
    body = encode_as_sent(get_survey("lsst"), schema, example_packet(schema))
    (tmp_path / "alert").write_bytes(b"\x00" + (1200).to_bytes(4) + body[5:])
    with registry.serving({"1200": definition}) as url:
        environment = {"PGB_SCHEMA_REGISTRY": url, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        pgb("run", str(tmp_path / "alert"), "--survey", "lsst", environment=environment)
    (row,) = pgb.rows("SELECT source_id FROM lsst_alerts.verdicts")

    out = pgb(
        "alert", str(row["source_id"]), "--avro", str(tmp_path / "out"), environment=environment
    )

    assert "v12_0" in out
    assert packet(tmp_path / "out")["diaSourceId"] == row["source_id"]


class _Registry:
    """A schema registry on the loopback."""

    @contextmanager
    def serving(self, schemas: dict[str, dict]) -> Iterator[str]:
        """Serve schemas by id; yield the address."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                definition = schemas.get(self.path.rsplit("/", 1)[-1])
                self.send_response(200 if definition else 404)
                self.end_headers()
                self.wfile.write(json.dumps({"schema": json.dumps(definition)}).encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
