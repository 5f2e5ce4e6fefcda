"""The promised helpers for Google Cloud, against the emulators."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from bigquery_emulator import running as running_bigquery
from bigquery_emulator import what_is_missing as bigquery_missing
from google.cloud import bigquery, pubsub_v1, storage
from storage_emulator import running as running_storage
from storage_emulator import what_is_missing as storage_missing

from broker.connectors.gcp.clients import Cloud
from broker.errors import NotFoundError, RefusedError, TransientError, UsageError
from broker_utils import gcp_utils

_PROJECT = "test-project"


@pytest.fixture(params=["google_address", "our_address"])
def topic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a topic with a subscription of its name, on each server in turn."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", request.getfixturevalue(request.param))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", _PROJECT)
    name = f"topic-{uuid4().hex[:8]}"
    pubsub_v1.PublisherClient().create_topic(name=f"projects/{_PROJECT}/topics/{name}")
    gcp_utils.create_subscription(name)
    return name


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[storage.Bucket]:
    """Return an empty bucket."""
    if reason := storage_missing():
        pytest.skip(reason)
    with running_storage() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", _PROJECT)
        yield Cloud(_PROJECT, storage=url).store.create_bucket("a-bucket")


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Return a project with a table ``d.t``."""
    if reason := bigquery_missing():
        pytest.skip(reason)
    with running_bigquery(tmp_path_factory.mktemp("bigquery")) as emulator:
        cloud = Cloud(_PROJECT, bigquery=emulator.url, bigquery_storage=emulator.grpc)
        cloud.warehouse.create_dataset("d")
        columns = [bigquery.SchemaField("name", "STRING"), bigquery.SchemaField("n", "INTEGER")]
        for name in ("t", "frames"):
            cloud.warehouse.create_table(bigquery.Table(f"{_PROJECT}.d.{name}", columns))
        yield cloud


@pytest.fixture
def rows(warehouse: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the helpers find the tables."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", warehouse.bigquery)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", _PROJECT)


def test_publish_and_pull(topic: str) -> None:
    """Bytes and dicts arrive, each with its own id."""
    ids = [
        gcp_utils.publish_pubsub(topic, b"abc", attrs={"band": "g"}),
        gcp_utils.publish_pubsub(topic, {"candid": 7}),
    ]
    found = gcp_utils.pull_pubsub(topic, max_messages=5)

    assert len(set(ids)) == 2
    assert sorted(found) == [b"abc", json.dumps({"candid": 7}).encode()]
    assert gcp_utils.pull_pubsub(topic, return_count=True) == 0


def test_publish_with_a_client_of_ones_own(topic: str) -> None:
    """A publisher that is given is used."""
    gcp_utils.publish_pubsub(topic, b"x", publisher=pubsub_v1.PublisherClient())

    assert gcp_utils.pull_pubsub(topic) == [b"x"]


def test_attributes_arrive(topic: str) -> None:
    """Whole messages tell their attributes."""
    gcp_utils.publish_pubsub(topic, b"abc", attrs={"topic": "g"})
    (found,) = gcp_utils.pull_pubsub(topic, msg_only=False)

    assert dict(found.message.attributes) == {"topic": "g"}


@pytest.mark.parametrize("message", ["text", 3, None, [b"x"]])
def test_wrong_message(message: object) -> None:
    """Neither bytes nor a dict is a TypeError in the promised words."""
    with pytest.raises(TypeError, match=r"^`message` must be bytes or a dict\.$"):
        gcp_utils.publish_pubsub("any", message, project_id=_PROJECT)


def test_counts_what_was_acknowledged(topic: str) -> None:
    """Only what the callback takes is acknowledged and counted."""
    for payload in (b"keep", b"drop", b"keep too"):
        gcp_utils.publish_pubsub(topic, payload)

    def takes(message: bytes) -> bool:
        return message.startswith(b"keep")

    assert gcp_utils.pull_pubsub(topic, 10, callback=takes, return_count=True) == 2


def test_streams(topic: str) -> None:
    """Messages come to the callback until time is over."""
    gcp_utils.publish_pubsub(topic, b"abc")
    found = []

    def callback(message: pubsub_v1.subscriber.message.Message) -> None:
        found.append(message.data)
        message.ack()

    assert gcp_utils.streamingPull_pubsub(topic, callback, timeout=1.5) is None
    assert found == [b"abc"]


def test_streams_in_the_background(topic: str) -> None:
    """Without block the future is for the caller."""
    future = gcp_utils.streamingPull_pubsub(topic, lambda message: message.ack(), block=False)
    future.cancel()

    assert future.result(20) is True


def test_purge(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there is dropped, whatever the zone of this machine's clock."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    gcp_utils.publish_pubsub(topic, b"old")
    gcp_utils.purge_subscription(topic)
    gcp_utils.publish_pubsub(topic, b"new")

    assert gcp_utils.pull_pubsub(topic, 5) == [b"new"]


def test_errors_have_our_types(topic: str) -> None:
    """What is not there is named."""
    with pytest.raises(NotFoundError, match="topic 'nothing'"):
        gcp_utils.publish_pubsub("nothing", b"x")
    with pytest.raises(NotFoundError, match=f"subscription '{topic}-x'"):
        gcp_utils.pull_pubsub(f"{topic}-x")


def test_emulator_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there is given up within seconds."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:9")
    with pytest.raises(TransientError, match="no emulator answers"):
        gcp_utils.publish_pubsub("any", b"x", project_id=_PROJECT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        lambda file: gcp_utils.cs_upload_file(file, "a-bucket"),
        lambda file: gcp_utils.cs_download_file(file.parent, "a-bucket"),
        lambda _: gcp_utils.insert_rows_bigquery("d.t", [{"n": 1}], project_id=_PROJECT),
        lambda _: gcp_utils.query_bigquery("SELECT 1", project_id=_PROJECT),
    ],
    ids=["upload", "download", "insert", "query"],
)
def test_no_emulator_is_waited_for(
    call: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google's clients would ask one that is not there for minutes."""
    for name in ("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", _PROJECT)
    file = tmp_path / "a.txt"
    file.write_text("content")
    started = time.monotonic()
    with pytest.raises(TransientError, match="no emulator answers"):
        call(file)

    assert time.monotonic() - started < 30


def test_files_up_and_down(bucket: storage.Bucket, tmp_path: Path) -> None:
    """Objects with a prefix come side by side into a folder."""
    file = tmp_path / "a.txt"
    file.write_text("content")
    gcp_utils.cs_upload_file(file, bucket.name)
    gcp_utils.cs_upload_file(file, bucket.name, "deep/er/b.txt")
    gcp_utils.cs_download_file(tmp_path / "all", bucket.name)
    gcp_utils.cs_download_file(tmp_path / "some", bucket.name, "deep/")

    assert sorted(it.name for it in (tmp_path / "all").iterdir()) == ["a.txt", "b.txt"]
    assert [it.read_text() for it in (tmp_path / "some").iterdir()] == ["content"]


def test_two_objects_of_one_name(bucket: storage.Bucket, tmp_path: Path) -> None:
    """Nothing is overwritten: two objects that would be one file are told."""
    for name in ("x/a.txt", "y/a.txt"):
        bucket.blob(name).upload_from_string(name)
    with pytest.raises(UsageError, match=r"x/a\.txt and y/a\.txt"):
        gcp_utils.cs_download_file(tmp_path, bucket.name)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("rows")
def test_rows_are_inserted(warehouse: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows arrive, unknown keys are ignored, and the table is asked for once."""
    asked = []
    get_table = bigquery.Client.get_table

    def counted(*args: object, **more: object) -> bigquery.Table:
        asked.append(args)
        return get_table(*args, **more)

    monkeypatch.setattr(bigquery.Client, "get_table", counted)
    for number in range(5):
        assert gcp_utils.insert_rows_bigquery("d.t", [{"name": "a", "n": number, "x": 1}]) == []
    found = gcp_utils.query_bigquery("SELECT SUM(n) AS n, COUNT(*) AS c FROM d.t WHERE name = 'a'")

    assert [tuple(row) for row in found.result()] == [(10, 5)]
    assert len(asked) == 1


@pytest.mark.usefixtures("rows")
def test_many_rows_tell_their_errors(warehouse: Cloud) -> None:
    """An error tells the place of its row among all."""
    rows = [{"name": "many", "n": number} for number in range(700)]
    rows[600]["n"] = "no number"
    errors = gcp_utils.insert_rows_bigquery("d.t", rows)

    assert 600 in [each["index"] for each in errors]


@pytest.mark.usefixtures("rows")
def test_frames_are_loaded(caplog: pytest.LogCaptureFixture) -> None:
    """A frame gets the columns of its table; what became of it is logged."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"name": ["f", "g"], "extra": [1, 2]})
    caplog.set_level(logging.INFO)
    gcp_utils.load_dataframe_bigquery("d.frames", frame, logger=logging.getLogger("test"))
    found = gcp_utils.query_bigquery("SELECT name, n FROM d.frames ORDER BY name")

    assert [tuple(row) for row in found.result()] == [("f", None), ("g", None)]
    assert "Left out, as the table has no such columns: index, extra" in caplog.text
    assert "Loaded 2 rows into table d.frames" in caplog.text


@pytest.mark.usefixtures("rows")
def test_table_that_is_not_there() -> None:
    """BigQuery's refusals have our types."""
    with pytest.raises(NotFoundError):
        gcp_utils.insert_rows_bigquery("d.nothing", [{"a": 1}])
    with pytest.raises((RefusedError, NotFoundError)):
        gcp_utils.load_dataframe_bigquery("d.nothing", pytest.importorskip("pandas").DataFrame())


def test_first_brokers_project_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project is named, or of the environment, or the public one."""
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    found = [gcp_utils._cloud("a-project").project, gcp_utils._cloud(None).project]
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "an-environment")
    found.append(gcp_utils._cloud(None).project)
    monkeypatch.setenv("GCP_PROJECT", "a-function")
    found.append(gcp_utils._cloud(None).project)

    assert found == ["a-project", "ardent-cycling-243415", "an-environment", "a-function"]
