"""Settings and URLs in, a ready broker out: the only place that knows both sides."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from broker.config import Settings
from broker.connectors.files.folder import FolderFiles
from broker.connectors.kafka.health import health_file
from broker.connectors.kafka.profiles import registry_of
from broker.connectors.sources.files import FileSource
from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.split import SplitStream
from broker.connectors.tables.parquet import ParquetTables
from broker.connectors.worker_lock import WorkerLock
from broker.errors import ConfigError, UsageError
from broker.instance import Instance
from broker.pipeline.archive import AlertArchive, PacketReader
from broker.pipeline.copies import Copies, check_layout
from broker.pipeline.fitting import Salt2Stage, StoredHistory
from broker.pipeline.ledger import Ledger
from broker.pipeline.references import PacketBodies
from broker.pipeline.runner import Limits, Pipeline, Sinks
from broker.ports import Files, Source, Stream, Tables
from broker.science.filters import FILTERS, Filter, load_user_filters, plugin_filters
from broker.science.fitters.salt2.fitter import Painter, Salt2Fitter, make_fitter
from broker.science.fitters.salt2.models import ModelStore
from broker.science.fitters.salt2.presets import PRESETS, Preset, with_original_errors
from broker.science.fitters.salt2.tables import SourceTables, build_tables
from broker.surveys import (
    DEFAULT_SURVEY,
    SchemaRegistry,
    SchemaResolver,
    Survey,
    get_survey,
)

SOURCES: Mapping[str, tuple[str, str]] = {
    "archive": ("broker.connectors.sources.archive:ArchiveSource", ""),
    "kafka": ("broker.connectors.sources.kafka:KafkaSource", "kafka"),
    "pubsub": ("broker.connectors.sources.pubsub:PubSubSource", "gcp"),
    "sim": ("broker.apps.simulator.source:SimulatedSource", ""),
}
"""Scheme of a place -> class path of its source and the extra that installs it."""

STREAMS: Mapping[str, tuple[str, str]] = {
    "kafka": ("broker.connectors.streams.kafka:KafkaStream", "kafka"),
    "pubsub": ("broker.connectors.streams.pubsub:PubSubStream", "gcp"),
}
"""Scheme of a bus -> class path of its stream and the extra that installs it."""

FILES: Mapping[str, tuple[str, str]] = {
    "gs": ("broker.connectors.files.gcs:GcsFiles", "gcp"),
}
"""Scheme of an object store -> class path of its files and the extra that installs it."""

TABLES: Mapping[str, tuple[str, str]] = {
    "bigquery": ("broker.connectors.tables.bigquery:BigQueryTables", "gcp"),
}
"""Scheme of a warehouse -> class path of its tables and the extra that installs it."""

PACKETS_TOO = ("pubsub",)
"""Buses that also get the packets, as their readers cannot reach into a home."""

MAX_BUS_MB = 9.5
"""Larger packets do not fit into a message of such a bus, with their attributes."""

OWN_TOPICS = ("alerts", "alert_avros", "deadletters", "salt2", "cue_night_conductor")
"""Topics that are not a filter's."""

EXTRAGALACTIC = "extragalactic"
"""The filter whose alerts are fitted."""

SORT_COLUMNS = ("objectId", "objectid", "diaObjectId", "object_id")
"""Columns by which merged tables are sorted, so that one object's rows lie together."""


@dataclass(frozen=True)
class Broker:
    """One instance of the broker on one home, its parts made when first used."""

    settings: Settings

    @cached_property
    def survey(self) -> Survey:
        """The survey of this instance."""
        return get_survey(self.settings.survey or DEFAULT_SURVEY)

    @cached_property
    def instance(self) -> Instance:
        """The names of this instance's resources."""
        return Instance(self.survey.name, self.settings.testid or None)

    @property
    def home(self) -> Path:
        """The folder that holds everything."""
        return self.settings.home_path

    @property
    def health_file(self) -> Path:
        """Where this worker writes how its consumer is."""
        return health_file(self.settings, self.instance)

    @cached_property
    def filters(self) -> Sequence[Filter]:
        """The built-in filters, those of installed plug-ins, and the user's."""
        files = [Path(path) for path in self.settings.filters]
        user = [*plugin_filters(), *load_user_filters(files)]
        every = (*FILTERS.values(), *user)
        topics = [*OWN_TOPICS, *(chosen.topic for chosen in every)]
        _refuse_repeats("two filters are named", [chosen.name for chosen in every])
        _refuse_repeats("a topic has one publisher; there are two for", topics)
        return every

    @cached_property
    def stream(self) -> LocalStream:
        """Topics and subscriptions."""
        resolve = PacketBodies(self._packets_of, self.resolver)
        return LocalStream(self.home / "streams", self.settings.worker, resolve=resolve)

    def _packets_of(self, topic: str) -> PacketReader:
        return self.stream.log(topic)

    @cached_property
    def bus(self) -> Stream:
        """Where messages go: the home's topics, a cluster's (packets stay home) or a cloud's."""
        url = self.settings.bus
        if not url:
            return self.stream
        kind = _load(_scheme(url), STREAMS)
        bus: Stream = kind.from_url(url, self.settings, owner=_mark_of(self.home))
        if self._packets_too:
            return bus
        kept = frozenset(map(self.instance.name, ("alerts", "deadletters")))
        return SplitStream(self.stream, bus, kept)

    @property
    def _packets_too(self) -> bool:
        return _scheme(self.settings.bus) in PACKETS_TOO

    @cached_property
    def tables(self) -> Tables:
        """Rows to query."""
        if url := self.settings.tables:
            kind, owner = _load(_scheme(url), TABLES), _mark_of(self.home)
            tables: Tables = kind.from_url(url, self.settings, owner=owner)
            return tables
        return ParquetTables(self.home / "tables", sort_columns=SORT_COLUMNS, sync=True)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of this instance."""
        path = self.home / "ledger" / f"{self.instance.name('ledger')}.sqlite"
        return Ledger(path, self.settings.worker)

    @cached_property
    def archive(self) -> AlertArchive:
        """The stored packets."""
        packets = self.stream.log(self.instance.name("alerts"))
        return AlertArchive(self.ledger, self.survey, packets, self.resolver)

    @cached_property
    def resolver(self) -> SchemaResolver:
        """Where schemas come from that a packet only names.

        The registry of the survey's default profile is not asked unless that profile is in
        use; what it answered before is.
        """
        profile = self.settings.kafka_profile
        named = self.settings.schema_registry or (profile and registry_of(self.survey, profile))
        url = named or registry_of(self.survey)
        cache = self.settings.cache_path / "schemas"
        return SchemaResolver(SchemaRegistry(url, cache, ask=bool(named)) if url else None)

    @cached_property
    def files(self) -> Files:
        """Pictures and other objects."""
        if url := self.settings.files:
            files: Files = _load(_scheme(url), FILES).from_url(url, self.settings)
            return files
        return FolderFiles(self.home / "files")

    @property
    def bucket_project(self) -> str:
        """Project whose id the names of buckets start with; empty in a home."""
        if not self.settings.files:
            return ""
        return urlsplit(self.settings.files).netloc or self.settings.project

    def copies(self) -> Copies:
        """Say where packets go besides the journal.

        Raises
        ------
        ConfigError
            If setting ``alert_files`` is none of its choices.
        """
        choices = {"always": True, "never": False, "auto": bool(self.settings.files)}
        if self.settings.alert_files not in choices:
            raise ConfigError(f"setting 'alert_files' must be one of {', '.join(choices)}")
        files = self.files if choices[self.settings.alert_files] else None
        return Copies(files, self.bus if self._packets_too else None)

    @cached_property
    def models(self) -> ModelStore:
        """Model data, the user's own first."""
        own = Path(self.settings.model_dir) if self.settings.model_dir else None
        return ModelStore(self.settings.cache_path / "models", own)

    def passbands(self) -> list[str]:
        """Name the passbands in which the survey measures."""
        photometry = self.survey.photometry
        return sorted(set(photometry.bands.values())) if photometry else []

    def source_tables(self, model: str = "") -> SourceTables:
        """Return the band fluxes of a model, built once and kept.

        Raises
        ------
        ConfigError
            If model data is missing; says what to do.
        """
        name = model or self.settings.salt2_model
        bands = self.models.bandpasses(self.passbands())
        return build_tables(
            self.models.source(name), bands, cache=self.settings.cache_path / "tables"
        )

    def preset(self, name: str = "", *, original_errors: bool = False) -> Preset:
        """Return named settings of a fit, with the first broker's flux errors if asked for.

        Raises
        ------
        ConfigError
            If there is none of this name.
        """
        name = name or self.settings.salt2_preset
        if name not in PRESETS:
            raise ConfigError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
        preset = PRESETS[name]
        return with_original_errors(preset) if original_errors else preset

    def fitter(self, preset: Preset, model: str = "", engine: str = "fast") -> Salt2Fitter:
        """Make a fitter for the survey's passbands.

        Raises
        ------
        ConfigError
            If there is no such engine, or model data is missing; says what to do.
        """
        return make_fitter(
            self.models,
            self.passbands(),
            preset,
            model=model or self.settings.salt2_model,
            engine=engine,
            cache=self.settings.cache_path / "tables",
        )

    def salt2_stage(self) -> Salt2Stage:
        """Make the stage that fits supernova light curves.

        Raises
        ------
        ConfigError
            If the survey has no light curves, or model data is missing; says what to do.
        """
        photometry = self.survey.photometry
        if photometry is None:
            raise ConfigError(f"alerts of {self.survey.name} have no light curve to fit")
        preset = self.preset()
        fitter = self.fitter(preset)
        painter = Painter(fitter.tables, preset) if self.settings.plots == "always" else None
        history = StoredHistory(self.archive)
        return Salt2Stage(fitter, photometry, EXTRAGALACTIC, history, painter)

    def pipeline(self, salt2: Salt2Stage | None = None) -> Pipeline:
        """Make the pipeline of this worker, with fits if their stage is given."""
        settings = self.settings
        sinks = Sinks(
            self.stream.log(self.instance.name("alerts")),
            self.stream.log(self.instance.name("deadletters")),
            self.bus,
            self.tables,
            self.files,
            self.copies(),
            self.bucket_project,
            check_layout(settings.alert_file_name),
            bool(settings.tables),
        )
        remote = settings.bus or settings.files or settings.tables
        limits = Limits(
            settings.batch_alerts,
            settings.batch_wait_s,
            int(min(settings.max_packet_mb, MAX_BUS_MB if self._packets_too else 1e6) * 1e6),
            settings.patience_s if remote else 0.0,
        )
        return Pipeline(
            self.instance,
            self.survey,
            self.filters,
            sinks,
            self.ledger,
            salt2=salt2,
            limits=limits,
            resolver=self.resolver,
            at_work=lambda worker: self.lock_of(worker).is_held(),
        )

    def lock_of(self, worker: str) -> WorkerLock:
        """Return the lock by which a worker of this instance has its place on the home."""
        return WorkerLock(self.home / "locks" / f"{self.instance.name('worker')}-{worker}.lock")

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold this worker's place on the home.

        Raises
        ------
        UsageError
            If the worker is already running, or the home cannot be written.
        """
        worker = self.settings.worker
        refusal = (
            f"worker {worker!r} is already at work on {self.home} (process {{process}}):"
            " wait for it, or give this one another name with --worker"
        )
        with self.lock_of(worker).held(self.home, refusal):
            yield


def open_source(places: Sequence[str], settings: Settings, *, follow: bool = False) -> Source:
    """Make the source of one or more places: paths, or one URL.

    Raises
    ------
    UsageError
        If a place does not exist, or URLs and paths are mixed.
    ConfigError
        If the scheme of a URL is not known, or its extra is not installed.
    """
    urls = [place for place in places if "://" in place]
    if not urls:
        limit = int(settings.max_packet_mb * 1e6) + 1
        return FileSource([Path(place) for place in places], follow=follow, max_bytes=limit)
    if len(places) > 1:
        raise UsageError("give one URL, or any number of files and folders")
    source: Source = _load(_scheme(urls[0]), SOURCES).from_url(urls[0], settings, follow=follow)
    return source


def _refuse_repeats(words: str, names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"setting 'filters': {words} {', '.join(twice)}")


def _scheme(url: str) -> str:
    return url.split("://", 1)[0]


def _mark_of(home: Path) -> str:
    """Return the mark by which a home is told from others, made when first asked for."""
    file = home / "mark"
    if not file.exists():
        home.mkdir(parents=True, exist_ok=True)
        mark = uuid4().hex[:12]
        (home / mark).write_text(mark)
        with suppress(FileExistsError):  # another worker was first
            os.link(home / mark, file)
        (home / mark).unlink()
    return file.read_text()


def _load(scheme: str, ours: Mapping[str, tuple[str, str]]) -> Any:
    """Import the class that serves a scheme, ours or a plug-in's."""
    if scheme in ours:
        path, extra = ours[scheme]
        module, name = path.split(":")
        try:
            return getattr(import_module(module), name)
        except ImportError as error:
            raise ConfigError(
                f"{scheme}:// needs an extra: pip install 'pitt-google-broker[{extra}]'"
            ) from error
    plugins = {plugin.name: plugin for plugin in entry_points(group="broker.connectors")}
    if scheme in plugins:
        return plugins[scheme].load()
    known = ", ".join(f"{name}://" for name in sorted({*ours, *plugins}))
    raise ConfigError(f"nothing reads {scheme}:// places; known: files, folders {known}".rstrip())
