"""A night of a survey's public archive: ``archive://20181129``.

A survey's folder may hold ``archive.yaml``::

    base: URL of the folder of tarballs
    file: name of a night's tarball, yyyymmdd standing for the UTC date
    digests: name of the file of MD5 digests, if there is one
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import polars as pl
import yaml

from broker.config import Settings
from broker.connectors.sources.download import Download, Step, read_text
from broker.connectors.sources.files import ORIGIN_SCHEMA, FileSource, Problem
from broker.errors import ConfigError, NotFoundError, ServiceError, UsageError
from broker.ports import SourceBatch
from broker.surveys import DEFAULT_SURVEY, Survey, get_survey

_LOG = logging.getLogger(__name__)

_SMALLEST = 100
"""Nights without alerts are there as tarballs of fewer bytes."""


@dataclass(frozen=True, slots=True)
class NightArchive:
    """Where a survey's nights are.

    Parameters
    ----------
    base : str
        URL of the folder.
    file : str
        Name of a night's tarball, ``yyyymmdd`` standing for the UTC date.
    digests : str
        Name of the file of MD5 digests; empty if there is none.
    """

    base: str
    file: str
    digests: str = ""

    def name(self, night: date) -> str:
        """Return the name of a night's tarball."""
        return self.file.replace("yyyymmdd", f"{night:%Y%m%d}")

    def download(self, night: date, folder: Path) -> Download:
        """Return the download of a night into a folder."""
        name = self.name(night)
        return Download(urljoin(self.base, name), folder / name, lambda: self.digest(name))

    def digest(self, name: str) -> str | None:
        """Return the MD5 that a file must have; None, with a warning, if it is not known."""
        try:
            lines = read_text(urljoin(self.base, self.digests)).splitlines() if self.digests else []
        except ServiceError as error:
            _LOG.warning("%s is not verified: %s", name, error)
            return None
        pairs = (line.split() for line in lines if not line.startswith("#"))
        known = {pair[1].lstrip("*").rsplit("/", 1)[-1]: pair[0] for pair in pairs if len(pair) > 1}
        return known.get(name)


def archive_of(survey: Survey, base: str = "") -> NightArchive:
    """Return where the nights of a survey are; another folder of them if `base` is given.

    Raises
    ------
    UsageError
        If the survey has no archive.
    ConfigError
        If `base` is no http or https address.
    """
    file = survey.folder / "archive.yaml"
    if not file.exists():
        raise UsageError(f"there is no public archive of the nights of {survey.name}")
    words = yaml.safe_load(file.read_text())
    found = NightArchive(**(words | {"base": base or words["base"]}))
    if urlsplit(found.base).scheme not in ("http", "https"):
        raise ConfigError(f"setting 'archive_url' is no http or https address: {base!r}")
    return NightArchive(found.base.rstrip("/") + "/", found.file, found.digests)


class ArchiveSource:
    """A `Source` of one night of an archive, fetched once and kept.

    Packets are read out of the tarball as it lies there; nothing is unpacked to disk, so no
    member of it can choose a path.

    Parameters
    ----------
    night : date
        UTC date.
    download : Download
        Its tarball.
    max_bytes : int
        Of a larger packet only so many bytes are handed on.
    now : callable
        Clock in seconds.
    """

    def __init__(
        self,
        night: date,
        download: Download,
        max_bytes: int = 64 << 20,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.night = night
        self.download = download
        self.problems: list[Problem] = []
        self._max_bytes = max_bytes
        self._now = now

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, follow: bool = False) -> "ArchiveSource":
        """Make the source of ``archive://YYYYMMDD``.

        Raises
        ------
        UsageError
            If the date is none, the survey has no archive, or it is to be followed.
        """
        if follow:
            raise UsageError(f"{url} is a night that is over: it cannot be followed")
        archive = archive_of(get_survey(settings.survey or DEFAULT_SURVEY), settings.archive_url)
        night = read_night(urlsplit(url).netloc, url)
        mark = urlsplit(archive.base)
        folder = settings.archive_path / (mark.hostname or "") / mark.path.strip("/")
        limit = int(settings.max_packet_mb * 1e6) + 1
        return cls(night, archive.download(night, folder), limit)

    def fetch(self) -> Iterator[Step]:
        """Fetch the night, unless it is there; yield how far it is.

        Raises
        ------
        NotFoundError
            If the archive does not have it.
        ServiceError
            If the archive does not answer, or what it has is damaged.
        """
        try:
            yield from self.download.steps()
        except NotFoundError as error:
            raise NotFoundError(f"the archive has no night of {self.night}: {error}") from error

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield full batches and what is left at the end; empty ones while it is fetched."""
        told = self._now()
        for _ in self.fetch():
            if self._now() - told >= max_wait_s:
                yield SourceBatch([], pl.DataFrame(schema=ORIGIN_SCHEMA))
                told = self._now()
        if self.download.file.stat().st_size < _SMALLEST:
            _LOG.warning("the archive has no alerts of %s", self.night)
            return
        files = FileSource([self.download.file], max_bytes=self._max_bytes, problems=self.problems)
        yield from files.batches(max_payloads, max_wait_s)
        if self.problems:
            words = "%s is damaged: what could be read is used; delete it to fetch it again"
            _LOG.warning(words, self.download.file)

    def commit(self, batch: SourceBatch) -> None:
        """Do nothing: the tarball stays where it is."""

    def close(self) -> None:
        """Do nothing: no file is held open between batches."""


def read_night(text: str, place: str) -> date:
    """Return the UTC date that a place names.

    Raises
    ------
    UsageError
        If it is none.
    """
    for form in ("%Y%m%d", "%Y-%m-%d"):
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    raise UsageError(f"{place} names no night: write it as YYYYMMDD")
