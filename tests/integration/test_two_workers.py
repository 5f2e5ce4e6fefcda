"""What one worker claimed and lost is taken by the next, as its source gives it out again."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from broker.config import Settings
from broker.connectors.sources.generated import GeneratedSource
from broker.pipeline.reconcile import reconcile, reconcile_sinks
from broker.pipeline.runner import Limits, Pipeline, Report, Sinks
from broker.surveys import DEFAULT_SURVEY, get_survey
from broker.wiring import Broker
from crashing import CrashError, Fused

ALERTS = 30
LIMITS = Limits(batch_alerts=10)


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    """Return packets, one of them bad."""
    generate = get_survey(DEFAULT_SURVEY).generate
    assert generate is not None
    return [*generate(ALERTS, 3, date(2026, 1, 2)), b"not an alert"]


class Worker:
    """A worker whose journal, dead letters or stream fail after a number of calls."""

    def __init__(self, home: Path, name: str, limits: Limits = LIMITS, **fuses: int) -> None:
        self.broker = Broker(Settings(home=str(home), worker=name))
        self._limits, self._fuses = limits, fuses

    def _sink(self, name: str, sink: Any, method: str) -> Any:
        return Fused(sink, method, self._fuses[name]) if name in self._fuses else sink

    def run(self, packets: list[bytes]) -> Report:
        """Take the packets in."""
        broker, name = self.broker, self.broker.instance.name
        sinks = Sinks(
            self._sink("journal", broker.stream.log(name("alerts")), "append"),
            self._sink("letters", broker.stream.log(name("deadletters")), "append"),
            self._sink("stream", broker.stream, "publish"),
            broker.tables,
            broker.files,
        )
        pipeline = Pipeline(
            broker.instance,
            broker.survey,
            broker.filters,
            sinks,
            broker.ledger,
            limits=self._limits,
            at_work=lambda worker: broker.lock_of(worker).is_held(),
        )
        try:
            with broker.working():
                return pipeline.run(GeneratedSource(packets))
        finally:
            broker.stream.close()
            broker.ledger.close_file()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return a home in which, at the end of the test, everything adds up."""
    yield tmp_path
    broker = Broker(Settings(home=str(tmp_path), worker="reader"))
    checks = reconcile(broker.ledger)
    checks += reconcile_sinks(broker.ledger, broker.instance, broker.stream, broker.tables)
    assert [check for check in checks if not check.ok] == []
    sums = broker.ledger.sums()
    assert (sums.stored, sums.dead_lettered) == (ALERTS, 1)


def crash(home: Path, packets: list[bytes], **fuses: int) -> None:
    """Let worker w2 die at work."""
    with pytest.raises(CrashError):
        Worker(home, "w2", **fuses).run(packets)


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_claims_of_the_dead_are_taken_over(batches: int, home: Path, packets: list[bytes]) -> None:
    """Packets that a dead worker claimed and never kept are new to whom they come next."""
    crash(home, packets, journal=batches)

    report = Worker(home, "w0").run(packets)

    assert report.stored == ALERTS - 10 * batches
    Worker(home, "w2").run([])


def test_dead_letters_of_the_dead_are_taken_over(home: Path, packets: list[bytes]) -> None:
    """Packets that cannot be read are no exception."""
    crash(home, packets, letters=0)

    assert Worker(home, "w0").run(packets).dead_lettered == 1
    Worker(home, "w2").run([])


@pytest.mark.parametrize("messages", [0, 2, 5])
def test_what_the_dead_have_kept_stays_theirs(
    messages: int, home: Path, packets: list[bytes]
) -> None:
    """A batch in a dead worker's log is a repeat to others, and told when it comes back."""
    crash(home, packets, stream=messages)

    Worker(home, "w0").run(packets)
    Worker(home, "w2").run([])


def test_the_living_are_waited_for(home: Path, packets: list[bytes]) -> None:
    """What a worker at work has claimed is no repeat before it has kept it."""
    begun, go_on = threading.Event(), threading.Event()
    slow = Worker(home, "w2")
    append = slow.broker.stream.log("ztf-alerts").append

    def appended_late(*args: Any) -> None:
        begun.set()
        assert go_on.wait(30)
        append(*args)

    slow.broker.stream.log("ztf-alerts").append = appended_late  # type: ignore[method-assign]
    first = threading.Thread(target=slow.run, args=(packets,))
    second = threading.Thread(target=Worker(home, "w0").run, args=(packets,))
    first.start()
    assert begun.wait(30)
    second.start()
    time.sleep(0.3)

    assert second.is_alive()
    go_on.set()
    first.join(30)
    second.join(30)
    assert not first.is_alive()
    assert not second.is_alive()


@pytest.mark.parametrize("large", [96 << 20, 1])
def test_workers_that_meet_each_others_claims(large: int, home: Path, packets: list[bytes]) -> None:
    """Each may have to wait for the other; both get to the end, large batches or small."""
    limits = replace(LIMITS, large_batch_bytes=large)
    orders = {"w1": packets, "w2": packets[::-1]}
    threads = [
        threading.Thread(target=Worker(home, name, limits).run, args=(order * 3,))
        for name, order in orders.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [thread.is_alive() for thread in threads] == [False, False]
