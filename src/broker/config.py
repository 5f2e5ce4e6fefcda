"""Every setting of the broker: file < environment < flag, read once in an app."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import platformdirs

from broker.errors import ConfigError

_PREFIX = "PGB_"

_ALSO_COUNTS = {
    "SNCOSMO_DATA_DIR": "model_dir",
    "GOOGLE_CLOUD_PROJECT": "project",
    "PUBSUB_EMULATOR_HOST": "pubsub_emulator",
    "STORAGE_EMULATOR_HOST": "storage_emulator",
    "BIGQUERY_EMULATOR_HOST": "bigquery_emulator",
    "BIGQUERY_STORAGE_EMULATOR_HOST": "bigquery_storage_emulator",
}
"""Variables of others that our settings take their values from."""


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


class Secret:
    """A text that no repr, log or listing of settings shows.

    Examples
    --------
    >>> Secret("hunter2")
    Secret(…)
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = str(text)

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({'…' if self._text else ''})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; each field's ``doc`` is its documentation."""

    home: str = _setting("", "Folder of everything the embedded broker keeps (flag --home).")
    survey: str = _setting("", "Survey whose alerts are read when --survey is not given.")
    testid: str = _setting("", "Suffix of all resource names; empty is the production instance.")
    worker: str = _setting("w0", "Name of this worker; two workers of one home need two names.")
    batch_alerts: int = _setting(2560, "Most alerts that travel together.")
    batch_wait_s: float = _setting(0.25, "Longest wait for a batch to fill, in seconds.")
    max_packet_mb: float = _setting(16.0, "Larger packets become dead letters, in MB.")
    schema_registry: str = _setting("", "Base URL of a Confluent-compatible schema registry.")
    bus: str = _setting("", "Where messages are published, if not in the home: a URL.")
    files: str = _setting(
        "", "Where objects (pictures, packets) are stored, if not in the home: a URL."
    )
    tables: str = _setting("", "Where rows are written, if not in the home: a URL.")
    broker_files: str = _setting(
        "", "Where schema maps and settings are loaded from at the start: home or a URL."
    )
    alert_files: str = _setting(
        "auto",
        "Whether each alert gets an Avro file of its own: always, never, or auto (in a cloud).",
    )
    alert_file_name: str = _setting(
        "", "How an alert's own file is named, like {topic}/{object_id}/{source_id}.avro."
    )
    patience_s: float = _setting(
        600.0, "How long a cloud service that does not answer is waited for before giving up, s."
    )
    project: str = _setting("", "Google Cloud project, as GOOGLE_CLOUD_PROJECT, which also counts.")
    region: str = _setting("us-central1", "Google Cloud region of buckets, datasets and jobs.")
    pubsub_emulator: str = _setting("", "host:port, as PUBSUB_EMULATOR_HOST, which also counts.")
    pubsub_token_file: str = _setting("", "File with the token that pgb pubsub serve asks for.")
    storage_emulator: str = _setting("", "URL, as STORAGE_EMULATOR_HOST, which also counts.")
    bigquery_emulator: str = _setting("", "URL, as BIGQUERY_EMULATOR_HOST, which also counts.")
    bigquery_storage_emulator: str = _setting(
        "", "host:port, as BIGQUERY_STORAGE_EMULATOR_HOST, which also counts."
    )
    archive_url: str = _setting(
        "", "Where the public archive's nights are, if not at the survey's own address: a URL."
    )
    archive_dir: str = _setting(
        "", "Folder that keeps fetched nights of the archive, by default in the user's cache."
    )
    kafka_profile: str = _setting("", "How Kafka is reached: a profile of the survey.")
    kafka_group: str = _setting("", "Consumer group; by default the instance's consumer.")
    kafka_user: str = _setting("", "Kafka user name, Kerberos principal or OAuth client id.")
    kafka_password: Secret = _setting(Secret(), "Kafka password or OAuth client secret.")
    kafka_password_file: str = _setting("", "File that holds the Kafka password.")
    kafka_keytab: str = _setting("", "Kerberos keytab file for Kafka.")
    kafka_topic_wait_s: float = _setting(
        600.0, "How long to wait for a Kafka topic that does not exist yet, s; inf is for ever."
    )
    salt2_model: str = _setting("salt2-2.4", "Model that supernova light curves are fitted with.")
    salt2_preset: str = _setting("default", "Bounds of the fits: default or original.")
    plots: str = _setting("always", "When fits in the stream are drawn: always or never.")
    fetch_models: str = _setting("once", "Whether missing model data is fetched: once or never.")
    model_dir: str = _setting("", "Model data of your own, as SNCOSMO_DATA_DIR, which also counts.")
    filters: tuple[str, ...] = _setting(
        (), "Files with user filters (Python or SQL), separated by the path separator."
    )

    @property
    def home_path(self) -> Path:
        """The home as a path, by default in the user's data folder."""
        return Path(self.home or platformdirs.user_data_dir("pgb")).expanduser()

    @property
    def cache_path(self) -> Path:
        """Where fetched schemas and models are kept."""
        return Path(platformdirs.user_cache_dir("pgb"))

    @property
    def archive_path(self) -> Path:
        """Where fetched nights of an archive are kept."""
        named = self.archive_dir
        return Path(named).expanduser() if named else self.cache_path / "archive"


def load_settings(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    base: Mapping[str, Any] | None = None,
    **flags: Any,
) -> Settings:
    """Read the settings.

    Parameters
    ----------
    file : Path, optional
        TOML file; by default the one that ``PGB_CONFIG`` names, if any.
    environ : mapping, optional
        The environment; a variable is ``PGB_`` and the setting's name in capitals.
    base : mapping, optional
        Values in place of the defaults, which all others overrule.
    **flags
        Values from the command line; None means not given.

    Raises
    ------
    ConfigError
        If a name is unknown or a value has the wrong type.
    """
    environ = os.environ if environ is None else environ
    if file is None and environ.get("PGB_CONFIG"):
        file = Path(environ["PGB_CONFIG"])
    known = {f.name: f for f in fields(Settings)}
    found: dict[str, Any] = dict(base or {})
    if file is not None:
        found |= _from_file(file, known)
    for variable, name in _ALSO_COUNTS.items():
        if value := environ.get(variable):
            found[name] = value
    for name in known:
        if value := environ.get(_PREFIX + name.upper()):
            found[name] = value
    found |= {name: value for name, value in flags.items() if value is not None}
    return replace(Settings(), **{name: _convert(name, value) for name, value in found.items()})


def _from_file(file: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"settings file {file} cannot be read: {error}") from error
    if unknown := sorted(set(content) - set(known)):
        raise ConfigError(f"settings file {file} has unknown settings: {', '.join(unknown)}")
    return content


def _convert(name: str, value: Any) -> Any:
    default = getattr(Settings(), name)
    try:
        if isinstance(default, tuple):
            parts = value.split(os.pathsep) if isinstance(value, str) else value
            return tuple(str(part) for part in parts if str(part))
        return type(default)(value)
    except (TypeError, ValueError) as error:
        kind = type(default).__name__
        raise ConfigError(f"setting {name!r} must be of type {kind}, not {value!r}") from error
