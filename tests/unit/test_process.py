"""How a process that takes in alerts is stopped."""

import os
import signal
import time

import pytest

from broker.apps.process import taking_in
from broker.connectors.sources.generated import GeneratedSource

NUMBERS = [signal.SIGINT, signal.SIGTERM]


def ask(*numbers: signal.Signals) -> None:
    """Ask this process to stop."""
    for number in numbers:
        os.kill(os.getpid(), number)


def take(source: GeneratedSource, number: signal.Signals, done: list[bytes]) -> None:
    """Take batches of one packet, and be asked to stop at each."""
    with taking_in(grace_s=60) as stop:
        for batch in stop.between(source).batches(1, 0.1):
            ask(number)
            done += batch.payloads


@pytest.mark.parametrize("number", NUMBERS)
def test_stops_between_batches(number: signal.Signals) -> None:
    """What is done with a batch is not interrupted, and no further batch is taken."""
    done: list[bytes] = []

    with pytest.raises(KeyboardInterrupt):
        take(GeneratedSource([b"a", b"b", b"c"]), number, done)

    assert done == [b"a"]
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("number", NUMBERS)
def test_stops_at_once_when_asked_again(number: signal.Signals) -> None:
    """Who asks twice does not want to wait."""
    with taking_in(grace_s=60), pytest.raises(KeyboardInterrupt):
        ask(number, number)


def test_stops_when_no_batch_ends() -> None:
    """A run that waits for a service does not wait on when it is to stop."""
    with taking_in(grace_s=0.05):
        ask(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(30)


def test_signals_are_as_before_afterwards() -> None:
    """Outside of a run they mean what they meant."""
    before = [signal.getsignal(number) for number in (*NUMBERS, signal.SIGALRM)]

    with taking_in():
        pass

    assert [signal.getsignal(number) for number in (*NUMBERS, signal.SIGALRM)] == before


def test_who_asks_at_the_very_end_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that outlives the run would end the process."""
    asked: list[int] = []
    set_timer = signal.setitimer

    def and_ask(which: int, seconds: float) -> tuple[float, float]:
        before = set_timer(which, seconds)
        if not seconds:
            ask(signal.SIGTERM)
        return before

    monkeypatch.setattr(signal, "setitimer", and_ask)
    outer = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        with taking_in(grace_s=60):
            pass

        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        assert asked == [signal.SIGTERM]
    finally:
        set_timer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, outer)
