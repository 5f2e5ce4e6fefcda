"""What an instance's parts load at their start: schema maps, settings, jobs."""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import yaml

from broker.alerts.lightcurve import load_photometry_map
from broker.apps.cloud.registry import Context, registry
from broker.apps.cloud.versions import ReplacingFiles, Version, VersionedFiles
from broker.config import Secret, Settings, load_settings
from broker.connectors.kafka.profiles import parse_profiles
from broker.errors import ConfigError, NotFoundError, UsageError
from broker.surveys import SURVEYS, SchemaMap, adopt_texts
from broker.wiring import Broker

STUB = "broker_files"
HOME = "home"
"""The place that is the home's own folder of objects."""

SETTINGS, JOBS = "settings.toml", "jobs.yaml"
SURVEY_FILES = {
    "schema_maps": "schema_map.yaml",
    "photometry": "photometry.yaml",
    "kafka": "kafka.yaml",
}
"""Folder of the bucket -> the file of a survey that is there under the survey's name."""

OF_A_MACHINE = frozenset(
    {
        *("home", "survey", "testid", "worker", STUB, "project", "filters", "model_dir"),
        *("pubsub_emulator", "storage_emulator", "bigquery_emulator", "pubsub_token_file"),
        *("bigquery_storage_emulator", "archive_dir", "kafka_password_file", "kafka_keytab"),
    }
)
"""Settings that say which instance this is or name what lies on one machine."""

_JOB_KINDS = ("vm", "service", "schedule")


def place_of(settings: Settings) -> str:
    """Return where the broker files are: as set, or where other objects are."""
    return settings.broker_files or settings.files or HOME


def open_broker_files(settings: Settings) -> VersionedFiles:
    """Open the versions of an instance's bucket ``broker_files``.

    Raises
    ------
    ConfigError
        If the place cannot be opened, or its objects cannot be replaced.
    """
    place = place_of(settings)
    broker = Broker(replace(settings, files="" if place == HOME else place))
    if not hasattr(broker.files, "replace"):
        raise ConfigError(f"setting '{STUB}': {place} cannot replace an object")
    bucket = broker.instance.bucket(STUB, broker.bucket_project or None)
    return VersionedFiles(cast(ReplacingFiles, broker.files), bucket)


def default_content(settings: Settings) -> dict[str, bytes]:
    """Return what is pushed unless files are named: the shipped maps, the settings, the jobs."""
    found = {
        f"{folder}/{name}.yaml": (survey.folder / file).read_bytes()
        for name, survey in SURVEYS.items()
        for folder, file in SURVEY_FILES.items()
        if (survey.folder / file).is_file()
    }
    return found | {SETTINGS: _settings_text(settings), JOBS: _jobs_text(settings)}


def _settings_text(settings: Settings) -> bytes:
    """Write what differs from the defaults as TOML, secrets apart."""
    default = Settings()
    values = {
        one.name: value
        for one in fields(Settings)
        if (value := getattr(settings, one.name)) != getattr(default, one.name)
        if one.name not in OF_A_MACHINE and not isinstance(value, Secret)
    }
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items()).encode()


def _toml(value: Any) -> str:
    return str(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _jobs_text(settings: Settings) -> bytes:
    broker = Broker(settings)
    project = broker.bucket_project or settings.project
    context = Context(broker.instance, project, settings.region)
    jobs = [it for it in registry(context, broker.filters) if it.kind in _JOB_KINDS]
    content = {job.name: {"kind": job.kind, **job.settings} for job in jobs}
    return yaml.safe_dump(content, sort_keys=True).encode()


def check(name: str, data: bytes) -> None:
    """Refuse a file that no component could start with.

    Raises
    ------
    ConfigError
        If its content is not what its name promises.
    """
    try:
        if name == SETTINGS:
            _settings_in(data, name)
        elif name.startswith("schema_maps/"):
            SchemaMap.parse(data.decode(), name)
        elif name.startswith("photometry/"):
            load_photometry_map(data.decode())
        elif name.startswith("kafka/"):
            parse_profiles(data.decode(), name)
    except UnicodeDecodeError as error:
        raise ConfigError(f"file {name!r} is no text: {error}") from error


def _settings_in(data: bytes, place: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{place} cannot be read: {error}") from error
    known = {one.name for one in fields(Settings)}
    secret = {it.name for it in fields(Settings) if isinstance(it.default, Secret)}
    if wrong := sorted(content.keys() - (known - OF_A_MACHINE - secret)):
        raise ConfigError(
            f"{place} may not have {', '.join(wrong)}: unknown, secret, or a matter of one machine"
        )
    return content


def start(settings: Settings, flags: Mapping[str, Any], now: Callable[[], str]) -> Settings:
    """Take maps and settings from the latest version, and write down which that was.

    Settings of the version come before the file, the environment and the flags, which
    overrule them. Without the setting ``broker_files`` nothing is done.

    Parameters
    ----------
    settings : Settings
        As read without the version.
    flags : mapping
        The flags that they were read with.
    now : callable
        Gives the time, ISO 8601.

    Raises
    ------
    ConfigError
        If nothing was pushed yet, or what was pushed cannot be used.
    TransientError
        If the place does not answer.
    """
    if not settings.broker_files:
        return settings
    versioned = open_broker_files(settings)
    version = versioned.latest()
    if version is None:
        raise ConfigError(
            f"bucket {versioned.bucket!r} has no broker files yet: pgb broker-files push"
        )
    if SETTINGS in version.files:
        where = f"{SETTINGS} of version {version.number}"
        base = _settings_in(versioned.read(version, SETTINGS), where)
        settings = load_settings(base=base, **flags)
    for name in sorted(SURVEYS):
        adopt_texts(name, _texts(versioned, version, name))
    _write_down(settings, versioned.bucket, version, now())
    return settings


def _texts(versioned: VersionedFiles, version: Version, survey: str) -> dict[str, str]:
    """Return a version's files of a survey by the names that they ship under."""
    names = {file: f"{folder}/{survey}.yaml" for folder, file in SURVEY_FILES.items()}
    return {
        file: versioned.read(version, name).decode()
        for file, name in names.items()
        if name in version.files
    }


def _write_down(settings: Settings, bucket: str, version: Version, when: str) -> None:
    line = {
        "time": when,
        "instance": Broker(settings).instance.name(settings.worker),
        "bucket": bucket,
        "version": version.number,
        "files": dict(version.files),
    }
    path = log_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def log_path(settings: Settings) -> Path:
    """Return the file that tells which version each start used."""
    return settings.home_path / f"{STUB}.jsonl"


def starts(settings: Settings) -> Iterator[dict[str, Any]]:
    """Iterate over the starts on a home, oldest first."""
    if log_path(settings).is_file():
        for line in log_path(settings).read_text().splitlines():
            yield json.loads(line)


def read_schema_map(settings: Settings, schema: str) -> dict[str, Any]:
    """Return the current schema map of a survey from the bucket.

    The bucket is the project's where the settings name one and no other place. In a home
    that has no broker files it is the map that is shipped.

    Raises
    ------
    NotFoundError
        If the bucket has no such map.
    """
    if place_of(settings) == HOME and settings.project and not settings.broker_files:
        settings = replace(settings, broker_files="gs://")
    versioned = open_broker_files(settings)
    name = f"schema_maps/{schema}.yaml"
    try:
        return dict(SchemaMap.parse(versioned.plain(name).decode(), name))
    except NotFoundError as error:
        if place_of(settings) == HOME and versioned.latest() is None and schema in SURVEYS:
            return dict(SURVEYS[schema].schema_map)
        raise NotFoundError(
            f"Bucket {versioned.bucket} exists but the object {name} does not."
        ) from error


def parse_assignments(arguments: tuple[str, ...]) -> dict[str, bytes]:
    """Read ``NAME=PATH`` arguments into contents by name, each checked.

    Raises
    ------
    UsageError
        If an argument has no ``=`` or its file cannot be read.
    ConfigError
        If a content is not what its name promises.
    """
    found: dict[str, bytes] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not (name and equals and path):
            raise UsageError(f"{argument!r} is not NAME=PATH, like schema_maps/x.yaml=x.yaml")
        try:
            found[name] = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        check(name, found[name])
    return found
