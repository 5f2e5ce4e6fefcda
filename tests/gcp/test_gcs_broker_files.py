"""Broker files in a bucket of Cloud Storage, as plain Google clients and workers see them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("google.cloud.storage")

from broker.apps.cloud.broker_files import start
from broker.apps.cloud.versions import Note, VersionedFiles
from broker.config import Settings, load_settings
from broker.connectors.files.gcs import GcsFiles
from broker.connectors.gcp.clients import Cloud, cloud_of
from broker.surveys import DEFAULT_SURVEY, SURVEYS, adopt_texts, get_survey
from broker_utils.schema_maps import load_schema_map, load_yaml
from gcp.storage_emulator import running, what_is_missing
from tests_support import Pgb

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())

PROJECT = "a-test-project"
BUCKET = f"{PROJECT}-{DEFAULT_SURVEY}-broker_files-abc"
MAP = f"schema_maps/{DEFAULT_SURVEY}.yaml"
NOTE = Note("me@here", "2026-01-02T03:04:05+00:00")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Return settings of an instance whose broker files are on an emulator."""
    with running() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
        monkeypatch.setenv("PGB_BROKER_FILES", "gs://")
        monkeypatch.setenv("PGB_HOME", str(tmp_path / "home"))
        yield load_settings(testid="abc")
    for name in SURVEYS:
        adopt_texts(name, {})


@pytest.fixture
def cloud(settings: Settings) -> Cloud:
    """Return Google's clients."""
    return cloud_of(settings)


@pytest.fixture
def versioned(cloud: Cloud) -> VersionedFiles:
    """Return the versions in the instance's bucket."""
    return VersionedFiles(GcsFiles(cloud), BUCKET)


def test_command_pushes_to_the_instances_bucket(settings: Settings, cloud: Cloud) -> None:
    """The map is where those who know only the bucket look for it."""
    pgb = Pgb(settings.home_path)
    said = pgb("broker-files", "push", "--testid", "abc", "--why", "first")

    assert said.startswith(f"version 1 of {BUCKET} is stored")
    blob = cloud.store.bucket(BUCKET).blob(MAP)
    assert load_yaml(blob) == load_schema_map(DEFAULT_SURVEY, "abc")
    assert load_yaml(blob)["objectId"] == get_survey(DEFAULT_SURVEY).schema_map["objectId"]


def test_start_loads_and_rollback_restores(settings: Settings, versioned: VersionedFiles) -> None:
    """A worker in the cloud picks up what was pushed, and what was rolled back to."""
    text = (get_survey(DEFAULT_SURVEY).folder / "schema_map.yaml").read_bytes()
    found = []
    for data in (text, text.replace(b"magpsf", b"magap")):
        versioned.push({MAP: data}, NOTE)
    for number in (2, 1):
        versioned.restore(number, NOTE)
        start(settings, {"testid": "abc"}, lambda: NOTE.when)
        found.append(get_survey(DEFAULT_SURVEY).schema_map.get_key("mag"))

    assert found == ["magap", "magpsf"]
    assert versioned.plain(MAP) == text


def test_many_at_once(versioned: VersionedFiles) -> None:
    """Of many who push at one time, each is in the last version, and so are the copies."""
    names = [f"file-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: versioned.push({name: name.encode()}, NOTE), names))

    latest = versioned.latest()
    assert latest is not None
    assert set(latest.files) == set(names)
    assert [versioned.plain(name) for name in names] == [name.encode() for name in names]


def test_map_that_is_not_there(settings: Settings, versioned: VersionedFiles) -> None:
    """A map that the bucket lacks is told with both names."""
    versioned.push({MAP: b"SURVEY: x\n"}, NOTE)
    words = rf"Bucket {BUCKET} exists but the object schema_maps/nosuch\.yaml does not\."
    with pytest.raises(ValueError, match=words):
        load_schema_map(DEFAULT_SURVEY, "abc", "nosuch")
