"""Loads: when alerts arrive, and how a record is summed up."""

import numpy as np
import pytest

from broker.apps.simulator.cadence import Profile
from broker.apps.simulator.load import LoadSource, Prefetch, Record, due_times, report_on
from broker.errors import UsageError
from broker.ports import BatchKey

VISITS = Profile("visits", "", alerts=100, every_s=10.0, within_s=2.0, about="")


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


def record_of(delay_s: float) -> Record:
    """Return a record of two visits in batches of 50, each closed `delay_s` after its end."""
    record = Record()
    due = due_times(VISITS, 20.0)
    for number, part in enumerate(np.split(due, 4)):
        record.due.append(part)
        record.closed.append(part[-1] + delay_s)
        record.written.setdefault("table rows", {})[7 + number] = part[-1] + delay_s / 2
    record.written["topic late"] = {9: due[149] + delay_s}
    return record


def test_visits_arrive_within_their_time():
    """And none before the next begins."""
    due = due_times(VISITS, 25.0)

    assert len(due) == 300
    assert due[99] < 2.0
    assert due[100] == 10.0


def test_what_is_dealt_with_before_the_next_visit_has_kept_up():
    """The backlog is what has come and is not closed, second by second."""
    report = report_on(VISITS, record_of(1.0))

    assert report.kept_up
    assert report.alerts == 200
    assert report.backlog[1] == (1.0, 51)
    assert report.backlog[3] == (3.0, 0)
    assert report.most_behind == 51


def test_what_is_not_has_not():
    """Even if it comes to an end at last."""
    assert not report_on(VISITS, record_of(11.0)).kept_up


def test_latencies_are_counted_from_arrival():
    """An alert that waited for its batch has waited; sinks are matched by number of batch."""
    latency = report_on(VISITS, record_of(1.0)).latency_s

    assert latency["commit"]["max"] == pytest.approx(1.98)
    assert latency["table rows"]["max"] == pytest.approx(1.48)
    assert latency["topic late"]["max"] == pytest.approx(1.98)
    assert latency["commit"]["p50"] == pytest.approx(1.49, abs=0.02)


def test_what_was_not_measured_is_named():
    """A load without fits has no time to them."""
    report = report_on(VISITS, record_of(1.0))

    assert report.not_measured == {"table salt2": "no light curve of this load was fitted"}
    assert report.summary()["not_measured"] == report.not_measured


def test_the_source_hands_out_what_is_due_and_no_more():
    """By its own clock."""
    time = FakeTime()
    record = Record(time.now)
    packets = Prefetch(iter([b"%d" % i for i in range(200)]))
    source = LoadSource(packets, due_times(VISITS, 20.0), record, "night", time.sleep)

    sizes = []
    for batch in source.batches(64, 0.25):
        sizes.append((round(time.seconds, 2), len(batch.payloads)))
        source.commit(batch)
    source.close()

    assert sum(size for _, size in sizes) == 200
    assert all(size <= 64 for _, size in sizes)
    assert sum(size for when, size in sizes if when < 9.9) == 100
    assert len(record.closed) == len(record.due)


def test_a_generator_that_ends_is_named():
    """Instead of waiting for ever."""
    packets = Prefetch(iter([b"one"]))

    with pytest.raises(UsageError, match="no more packets"):
        packets.take(2)


def test_sinks_are_noted_with_the_number_of_the_batch():
    """In seconds after the start."""
    time = FakeTime()
    record = Record(time.now)
    time.seconds = 2.5

    record.note("table rows", BatchKey("w0", 3))

    assert record.written == {"table rows": {3: 2.5}}
