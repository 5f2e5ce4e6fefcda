"""Where a replayed night comes from: a home, an archive, or a folder."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from broker.apps.simulator.night import topic_of
from broker.apps.simulator.replay import (
    PacketLog,
    ReplaySource,
    StoredNight,
    spool,
    stored_night,
)
from broker.connectors.sources.archive import ArchiveSource
from broker.connectors.sources.files import FileSource, Problem
from broker.errors import UsageError
from broker.ports import Source
from broker.wiring import Broker, open_source

_HOME, _ARCHIVE = "home", "archive"


@dataclass(frozen=True, slots=True)
class Replay:
    """A night that can be sent again.

    Attributes
    ----------
    source : ReplaySource
        Its alerts.
    alerts : int
        How many they are.
    problems : sequence of Problem
        What could not be read.
    """

    source: ReplaySource
    alerts: int
    problems: Sequence[Problem] = ()


@contextmanager
def replayed(
    original: Broker,
    origin: str,
    night: date | None,
    speed: float,
    fetch: Callable[[Source], Source] = lambda source: source,
) -> Iterator[Replay]:
    """Find a stored night, to be sent again.

    Parameters
    ----------
    original : Broker
        The instance whose home is read.
    origin : str
        ``home``, ``archive``, or a folder or file of packets.
    night : date, optional
        UTC date of the observations; needed for an archive.
    speed : float
        How many times faster than they were observed.
    fetch : callable
        Fetches what a source reads from afar, before it is read.

    Raises
    ------
    UsageError
        If there are no such packets.
    ServiceError
        If the archive does not have the night, or cannot be reached.
    """
    with _scratch(original, origin) as scratch:
        log, problems = _log(original, origin, night, scratch, fetch)
        stored = _stored(log, original, night, problems)
        first = stored.index["mjd"][0]
        topic = topic_of(original.survey, night or date.fromordinal(int(first) + 678576))
        yield Replay(ReplaySource(stored, topic, speed), len(stored), problems)


@contextmanager
def _scratch(original: Broker, origin: str) -> Iterator[Path]:
    """Yield a folder for packets in order; a large night's lies beside its tarball."""
    beside = original.settings.archive_path if origin == _ARCHIVE else None
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="replay-", dir=beside) as folder:
        yield Path(folder)


def _stored(
    log: PacketLog, original: Broker, night: date | None, problems: Sequence[Problem]
) -> StoredNight:
    try:
        return stored_night(log, original.survey, night, original.resolver)
    except UsageError as error:
        if not problems:
            raise
        raise UsageError(f"{problems[0].place} cannot be read: {problems[0].reason}") from error


def _log(
    original: Broker,
    origin: str,
    night: date | None,
    scratch: Path,
    fetch: Callable[[Source], Source],
) -> tuple[PacketLog, Sequence[Problem]]:
    if origin == _HOME:
        return original.stream.log(original.instance.name("alerts")), ()
    if origin == _ARCHIVE:
        if night is None:
            raise UsageError("a night of the archive needs --night")
        origin = f"{_ARCHIVE}://{night:%Y%m%d}"
    source = fetch(open_source([origin], original.settings))
    log = spool(source, scratch)
    return log, source.problems if isinstance(source, FileSource | ArchiveSource) else ()
