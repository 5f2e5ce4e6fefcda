"""What an instance's parts load at their start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from broker.apps.cloud.broker_files import (
    SETTINGS,
    check,
    default_content,
    open_broker_files,
    parse_assignments,
    start,
    starts,
)
from broker.apps.cloud.versions import Note
from broker.config import Secret, Settings, load_settings
from broker.errors import ConfigError, UsageError
from broker.surveys import DEFAULT_SURVEY, SURVEYS, adopt_texts, get_survey
from broker_utils.schema_maps import get_key, get_value, load_schema_map, load_yaml

NOTE = Note("me@here", "2026-01-02T03:04:05+00:00")
MAP = f"schema_maps/{DEFAULT_SURVEY}.yaml"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore what the surveys ship with."""
    yield
    for name in SURVEYS:
        adopt_texts(name, {})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings of a home whose workers load the broker files."""
    for name in ("GOOGLE_CLOUD_PROJECT", "PGB_PROJECT", "PGB_FILES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGB_HOME", str(tmp_path))
    monkeypatch.setenv("PGB_BROKER_FILES", "home")
    return load_settings()


def _push(settings: Settings, name: str, data: bytes) -> None:
    open_broker_files(settings).push({name: data}, NOTE)


def _start(settings: Settings, **flags: str) -> Settings:
    return start(settings, flags, lambda: "2026-01-02T03:04:05+00:00")


def _own_map(**words: str) -> bytes:
    text = (get_survey(DEFAULT_SURVEY).folder / "schema_map.yaml").read_text()
    return yaml.safe_dump(yaml.safe_load(text) | words).encode()


def _magnitude() -> str | None:
    return get_survey(DEFAULT_SURVEY).schema_map.get_key("mag")


def test_shipped_maps_settings_and_jobs_are_the_default(settings):
    """What belongs to an instance is every survey's maps, the settings and the jobs."""
    names = set(default_content(settings))

    assert {f"schema_maps/{name}.yaml" for name in SURVEYS} < names
    assert {SETTINGS, "jobs.yaml", f"kafka/{DEFAULT_SURVEY}.yaml"} < names


def test_default_can_be_started_with(settings):
    """Everything that is pushed by default is fit to be loaded."""
    for name, data in default_content(settings).items():
        check(name, data)


def test_neither_secrets_nor_matters_of_a_machine_are_pushed(tmp_path):
    """Settings are what all workers share."""
    settings = Settings(
        home=str(tmp_path),
        kafka_password=Secret("hunter2"),
        kafka_keytab="/etc/x.keytab",
        storage_emulator="http://127.0.0.1:1",
        batch_alerts=7,
        kafka_topic_wait_s=float("inf"),
        kafka_user='a "quoted" ☄',
    )
    text = default_content(settings)[SETTINGS].decode()

    assert text == ('batch_alerts = 7\nkafka_user = "a \\"quoted\\" ☄"\nkafka_topic_wait_s = inf\n')


def test_nothing_is_loaded_unless_asked_for(tmp_path):
    """Without the setting a start changes and writes nothing."""
    settings = Settings(home=str(tmp_path))

    assert _start(settings) is settings
    assert list(tmp_path.iterdir()) == []


def test_start_before_the_first_push(settings):
    """A worker that is to load what is not there does not start, and says what to do."""
    with pytest.raises(ConfigError, match="pgb broker-files push"):
        _start(settings)


def test_map_is_picked_up_at_the_next_start(settings):
    """A pushed map is in force from the next start on."""
    _push(settings, MAP, _own_map(mag="magap"))
    before = _magnitude()
    _start(settings)

    assert (before, _magnitude()) == ("magpsf", "magap")


def test_rolled_back_map_is_in_force_again(settings):
    """A start after a rollback has the maps of old."""
    _push(settings, MAP, _own_map(mag="magap"))
    _push(settings, MAP, _own_map())
    _start(settings)
    before = _magnitude()
    open_broker_files(settings).restore(1, NOTE)
    _start(settings)

    assert (before, _magnitude()) == ("magpsf", "magap")


def test_file_environment_and_flags_overrule(settings, tmp_path, monkeypatch):
    """Settings of a version come before the file, the environment and the flags."""
    _push(settings, SETTINGS, b'batch_alerts=1\nbatch_wait_s=1\nplots="never"\nregion="r1"')
    (tmp_path / "own.toml").write_text('batch_wait_s = 2\nplots = "always"\nregion = "r2"\n')
    monkeypatch.setenv("PGB_CONFIG", str(tmp_path / "own.toml"))
    monkeypatch.setenv("PGB_PLOTS", "always")
    monkeypatch.setenv("PGB_REGION", "r3")
    found = _start(load_settings(region="r4"), region="r4")

    assert (found.batch_alerts, found.batch_wait_s) == (1, 2.0)
    assert (found.plots, found.region) == ("always", "r4")


def test_start_is_written_down(settings):
    """The home tells which version each start used."""
    _push(settings, MAP, _own_map())
    _start(settings)
    _push(settings, MAP, _own_map(mag="magap"))
    _start(load_settings(worker="w7"), worker="w7")

    told = [(it["instance"], it["version"]) for it in starts(settings)]
    assert told == [(f"{DEFAULT_SURVEY}-w0", 1), (f"{DEFAULT_SURVEY}-w7", 2)]


@pytest.mark.parametrize(
    "text", [b"home = '/x'", b"nonsense = 1", b"kafka_password = 'x'", b"= 1", b"\xff"]
)
def test_settings_that_no_worker_may_take(settings, text):
    """Settings that are unknown, secret or a machine's are refused when pushed and loaded."""
    with pytest.raises(ConfigError, match=r"settings\.toml"):
        check(SETTINGS, text)
    _push(settings, SETTINGS, text)
    with pytest.raises(ConfigError, match="of version 1"):
        _start(settings)


@pytest.mark.parametrize("folder", ["schema_maps", "photometry", "kafka"])
def test_maps_that_cannot_be_read(folder):
    """A map that no survey could use is refused when it is pushed."""
    for data in (b"- a list", b"a: [", b"\xff"):
        with pytest.raises(ConfigError):
            check(f"{folder}/x.yaml", data)


@pytest.mark.parametrize("argument", ["x.yaml", "=x", "x=", "x.yaml=/no/such/file"])
def test_arguments_that_name_no_file(argument):
    """A file is given as its name and its path."""
    with pytest.raises(UsageError):
        parse_assignments((argument,))


class TestSchemaMaps:
    """The promised module."""

    def test_map_of_the_survey(self, settings):
        """Without a name it is the map of the survey, as last pushed."""
        _push(settings, MAP, _own_map(mag="magap"))

        assert load_schema_map(DEFAULT_SURVEY, False)["mag"] == "magap"

    def test_bucket_of_a_test(self, settings):
        """Each instance has its bucket."""
        _push(load_settings(testid="abc"), MAP, _own_map(mag="magap"))

        assert load_schema_map(DEFAULT_SURVEY, "abc")["mag"] == "magap"
        assert load_schema_map(DEFAULT_SURVEY, "False")["mag"] == "magpsf"

    def test_shipped_where_nothing_was_pushed(self, settings):
        """A home without broker files has the maps that are shipped."""
        shipped = get_survey(DEFAULT_SURVEY).schema_map

        assert load_schema_map(DEFAULT_SURVEY, None) == dict(shipped)

    def test_map_that_is_not_there(self, settings):
        """A map that the bucket lacks is told with both names."""
        _push(settings, MAP, _own_map())
        words = rf"Bucket {DEFAULT_SURVEY}-broker_files exists but the object "
        with pytest.raises(ValueError, match=words + r"schema_maps/nosuch\.yaml does not\."):
            load_schema_map(DEFAULT_SURVEY, False, "nosuch")

    def test_file_of_ones_own(self, tmp_path):
        """A path is read as it is, and no bucket is asked."""
        file = tmp_path / "x.yaml"
        file.write_text("objectId: [diaObject, diaObjectId]\nmag: null\n")
        found = load_schema_map("any", False, file)

        assert load_yaml(file) == found
        assert get_key("objectId", found) == "diaObjectId"
        assert get_key("mag", found) is None
        assert get_value("objectId", {"diaObject": {"diaObjectId": 7}}, found) == 7
        assert get_value("nosuch", {}, found) is None
