"""``sim://`` as a source of alerts."""

from dataclasses import dataclass
from datetime import date

import polars as pl
import pytest

from broker.apps.simulator.source import SimulatedSource, Wishes, read_url
from broker.apps.simulator.truth import read_truth
from broker.config import Settings
from broker.errors import UsageError
from broker.surveys import SURVEYS

SETTINGS = Settings()


@dataclass
class FakeTime:
    """A clock that only sleeping moves."""

    seconds: float = 1_000_000.0

    def now(self) -> float:
        """Return the time."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


def source(time: FakeTime | None = None, **wishes) -> SimulatedSource:
    """Make a source without tables of supernovae."""
    time = time or FakeTime()
    wanted = Wishes(**({"alerts": 30, "model": "parametric"} | wishes))
    return SimulatedSource(SURVEYS["ztf"], wanted, SETTINGS, time.now, time.sleep)


def test_a_url_tells_everything():
    """Survey, number, rate, seed, night, mix, model."""
    url = "sim://lsst?alerts=10&rate=2.5&seed=3&night=2026-02-03&nights=2&mix=survey&model=toy"

    assert read_url(url) == (
        "lsst",
        Wishes(10, 2.5, 3, date(2026, 2, 3), 2, "survey", "toy"),
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sim://ztf?colour=red", "no parameter 'colour'"),
        ("sim://ztf?alerts=many", "alerts=many"),
        ("sim://ztf?night=yesterday", "night=yesterday"),
        ("sim://ztf?alerts=0", "must be above 0"),
        ("sim://ztf?rate=-1", "must be above 0"),
        ("sim://no-such-survey", "unknown survey"),
        ("sim://lvk", "cannot be simulated"),
    ],
)
def test_a_wrong_url_is_named(url, words):
    """Before anything is made, or with the first batch."""
    with pytest.raises(UsageError, match=words):
        next(SimulatedSource.from_url(url, SETTINGS).batches(10, 1.0))


def test_as_many_alerts_as_wanted_come_with_origins():
    """Numbered as a partition of the night's topic."""
    batches = list(source().batches(8, 1.0))
    origins = pl.concat([batch.origins for batch in batches])

    assert sum(len(batch.payloads) for batch in batches) == 30
    assert origins["offset"].to_list() == list(range(30))
    assert set(origins["topic"]) == {"ztf_20260101_programid1"}


def test_a_restart_gives_the_same_alerts():
    """So nothing needs to be committed."""
    first, second = ([b.payloads for b in source().batches(8, 1.0)] for _ in range(2))

    assert first == second


def test_alerts_come_at_the_rate_wanted():
    """Ten a second: thirty take three seconds, and gaps are empty batches."""
    time = FakeTime()
    began = time.seconds

    batches = list(source(time, rate=10.0).batches(100, 0.25))

    assert sum(len(batch.payloads) for batch in batches) == 30
    assert time.seconds - began == pytest.approx(3.0, abs=0.4)
    assert max(len(batch.payloads) for batch in batches) <= 5


def test_nights_follow_one_another():
    """Each with its own topic."""
    batches = list(source(nights=2).batches(100, 1.0))

    assert [batch.origins["topic"][0] for batch in batches] == [
        "ztf_20260101_programid1",
        "ztf_20260102_programid1",
    ]


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"night": date(9999, 12, 31), "nights": 2}, "no night is 1 nights after 9999-12-31"),
        ({"seed": 1 << 63}, "64 bits"),
    ],
)
def test_what_is_beyond_numbers_is_named(wishes, words):
    """Instead of an error of arithmetic."""
    with pytest.raises(UsageError, match=words):
        list(source(**wishes).batches(100, 1.0))


def test_the_truth_is_written_when_the_source_is_closed(tmp_path):
    """If a folder is named."""
    simulated = source(truth=str(tmp_path))
    list(simulated.batches(100, 1.0))

    simulated.close()

    assert len(read_truth(tmp_path)) == 30


def test_missing_truth_is_missed(tmp_path):
    """With the command that makes it."""
    with pytest.raises(UsageError, match="pgb simulate night"):
        read_truth(tmp_path)
