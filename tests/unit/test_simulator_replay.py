"""Replays: order, pace, and nights."""

from datetime import date
from functools import cache
from math import inf

import polars as pl
import pytest

from broker.apps.simulator.night import Night
from broker.apps.simulator.replay import ReplaySource, parse_speed, spool, stored_night
from broker.connectors.sources.generated import GeneratedSource
from broker.errors import UsageError
from broker.surveys import SURVEYS, decode_batch

ZTF = SURVEYS["ztf"]
NIGHT = date(2026, 11, 20)


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        """Return the time."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


@cache
def packets(night: date = NIGHT):
    """Return a small night, newest first."""
    parts = Night(ZTF, night, seed=2).alerts(300)
    return [payload for part in parts for payload in part.payloads][::-1]


@pytest.fixture
def log(tmp_path):
    """Return two nights on disk."""
    return spool(GeneratedSource([*packets(), *packets(date(2026, 11, 22))]), tmp_path / "spool")


def times(payloads):
    """Return when they were observed."""
    (frame,), _ = decode_batch(payloads, ZTF)
    return frame.keys["mjd"]


def test_a_night_comes_in_the_order_of_observation(log):
    """All of it, and nothing of the other night."""
    stored = stored_night(log, ZTF, NIGHT)

    replayed = [p for b in ReplaySource(stored, "night").batches(64, 1.0) for p in b.payloads]

    assert sorted(replayed) == sorted(packets())
    assert times(replayed).is_sorted()


def test_without_a_night_everything_comes(log):
    """Both nights."""
    assert len(stored_night(log, ZTF, None)) == 600


def test_the_pace_is_that_of_the_sky_times_the_speed(log):
    """At 1000x, the first half of the time brings the first half of the night."""
    stored, time = stored_night(log, ZTF, NIGHT), FakeTime()
    source = ReplaySource(stored, "night", 1000.0, time.now, time.sleep)
    mjd = times(packets())
    span_s = (mjd.max() - mjd.min()) * 86.4

    got = [(time.seconds, len(batch.payloads)) for batch in source.batches(512, 0.25)]

    assert time.seconds == pytest.approx(span_s, abs=0.1)
    early = sum(size for when, size in got if when <= span_s / 2)
    assert early == pytest.approx((mjd <= mjd.min() + span_s / 172.8).sum(), abs=3)
    assert 0 in [size for _, size in got]


def test_origins_say_where_the_alerts_seem_to_come_from(log):
    """A topic of their own."""
    source = ReplaySource(stored_night(log, ZTF, NIGHT), "ztf_20261120_programid1")
    origins = pl.concat([batch.origins for batch in source.batches(64, 1.0)])

    assert set(origins["topic"]) == {"ztf_20261120_programid1"}
    assert origins["offset"].to_list() == list(range(300))


def test_a_night_that_is_not_stored_is_missed(log):
    """In words."""
    with pytest.raises(UsageError, match="no stored alerts of 2020-01-01"):
        stored_night(log, ZTF, date(2020, 1, 1))


@pytest.mark.parametrize(
    ("text", "speed"), [("10x", 10.0), ("0.5x", 0.5), ("3", 3.0), ("max", inf)]
)
def test_speeds(text, speed):
    """A factor, or max."""
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["fast", "-1x", "0", ""])
def test_wrong_speeds(text):
    """Are named."""
    with pytest.raises(UsageError, match="neither a factor"):
        parse_speed(text)
