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
from broker.apps.simulator.models import light_for
from broker.apps.simulator.night import Night, topic_of
from broker.config import load_settings
from broker.errors import ConfigError
from broker.pipeline.fitting import Salt2Stage
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
    broker = _broker(profile, home)
    simulated = Night(survey, night, seed, _MIX, light_for("auto", broker))
    packets = chain.from_iterable(part.payloads for part in simulated.fields())
    _warm_up(profile, packets, home / "warm-up")
    source = LoadSource(
        Prefetch(packets), due_times(profile, seconds), broker.record, topic_of(survey, night)
    )
    with broker.working():
        try:
            broker.pipeline(_stage(broker)).run(source)
        finally:
            source.close()
    return report_on(profile, broker.record)


def _broker(profile: Profile, home: Path) -> TimedBroker:
    settings = load_settings(home=str(home), survey=profile.survey, bus="", files="", tables="")
    return TimedBroker(settings, Record())


def _stage(broker: TimedBroker) -> Salt2Stage | None:
    """Return the stage of fits, where the survey has light curves and the model is at hand."""
    if broker.survey.photometry is None:
        return None
    try:
        return broker.salt2_stage()
    except ConfigError:
        return None


def _warm_up(profile: Profile, packets: Iterator[bytes], home: Path) -> None:
    """Let kernels and caches be made before the clock runs, as in a broker that is running."""
    broker = _broker(profile, home)
    few = Prefetch(packets, _WARM_UP)
    now = due_times(Profile(profile.name, profile.survey, _WARM_UP, 1.0, 0.0, ""), 1.0)
    source = LoadSource(few, now, broker.record, "warm-up")
    with broker.working():
        broker.pipeline(_stage(broker)).run(source)
    source.close()
