"""A broker of its own under a load."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from broker.apps.simulator.cadence import Profile
from broker.apps.simulator.load import (
    LoadReport,
    LoadSource,
    Prefetch,
    Record,
    TimedBroker,
    due_times,
    report_on,
)
from broker.apps.simulator.night import Night
from broker.config import load_settings
from broker.surveys import get_survey

_WARM_UP = 300
_MIX = "survey"


def drive(profile: Profile, seconds: float, home: Path, seed: int = 1) -> LoadReport:
    """Let a load's alerts arrive at a broker, and report how it kept up.

    Parameters
    ----------
    profile : Profile
        The load.
    seconds : float
        How long alerts arrive; whole visits.
    home : Path
        Folder of the broker; nothing else is in it.
    seed : int
        The same seed makes the same alerts.
    """
    survey = get_survey(profile.survey)
    night = datetime.now(UTC).date()
    packets = chain.from_iterable(
        part.payloads for part in Night(survey, night, seed, _MIX).fields()
    )
    _warm_up(profile, packets, home / "warm-up")
    broker = _broker(profile, home)
    source = LoadSource(
        Prefetch(packets), due_times(profile, seconds), broker.record, survey.topic(night)
    )
    with broker.working():
        try:
            broker.pipeline().run(source)
        finally:
            source.close()
    return report_on(profile, broker.record)


def _broker(profile: Profile, home: Path) -> TimedBroker:
    return TimedBroker(load_settings(home=str(home), survey=profile.survey), Record())


def _warm_up(profile: Profile, packets: Iterator[bytes], home: Path) -> None:
    """Let kernels and caches be made before the clock runs, as in a broker that is running."""
    broker = _broker(profile, home)
    few = Prefetch(packets, _WARM_UP)
    now = due_times(Profile(profile.name, profile.survey, _WARM_UP, 1.0, 0.0, ""), 1.0)
    source = LoadSource(few, now, broker.record, "warm-up")
    with broker.working():
        broker.pipeline().run(source)
    source.close()
