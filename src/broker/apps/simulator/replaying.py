"""Where a replayed night comes from: a home, an archive, or a folder."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from broker.apps.simulator.replay import PacketLog, ReplaySource, spool, stored_night
from broker.errors import UsageError
from broker.wiring import Broker, open_source

_HOME, _ARCHIVE = "home", "archive"


@contextmanager
def replayed(
    original: Broker, origin: str, night: date | None, speed: float
) -> Iterator[tuple[ReplaySource, int]]:
    """Yield the source of a stored night, and how many alerts it has.

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

    Raises
    ------
    UsageError
        If there are no such packets.
    """
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        log = _log(original, origin, night, Path(scratch))
        stored = stored_night(log, original.survey, night, original.resolver)
        first = stored.index["mjd"][0]
        topic = original.survey.topic(night or date.fromordinal(int(first) + 678576))
        yield ReplaySource(stored, topic, speed), len(stored)


def _log(original: Broker, origin: str, night: date | None, scratch: Path) -> PacketLog:
    if origin == _HOME:
        return original.stream.log(original.instance.name("alerts"))
    if origin == _ARCHIVE:
        if night is None:
            raise UsageError("a night of the archive needs --night")
        origin = f"{_ARCHIVE}://{night:%Y%m%d}"
    return spool(open_source([origin], original.settings), scratch)
