"""The consumer simulator: alerts of a reservoir, published again at a chosen rate.

A *reservoir* is a subscription in which alerts wait. They are pulled, published with their
attributes, and acknowledged only once the publication has succeeded: a failure loses nothing.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import polars as pl

from broker.apps.simulator.rates import Amount, Schedule, make_schedule
from broker.apps.subscriptions import make_subscriptions
from broker.config import load_settings
from broker.instance import Instance
from broker.ports import BatchKey, Delivery, Messages, Stream
from broker.wiring import Broker

_LOG = logging.getLogger(__name__)

MOST_A_PULL = 1000
"""Services lease no more at once."""

# A service may answer a pull with nothing while messages are on their way.
_EMPTY_PULLS = 3

# Pub/Sub adds such attributes to messages of a topic with a schema, and takes them from nobody.
_OF_SCHEMAS = "googclient_schema"

_FINISHED, _EMPTY = "finished", "empty"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where alerts come from and go to: names of a subscription and of a topic."""

    subscription: str
    topic: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of the consumer simulator did.

    Attributes
    ----------
    published, returned : int
        Alerts published, and of these given back to the reservoir (nack).
    batches : int
        Batches in which there were alerts.
    wanted : int
        Alerts that the rate and run time ask for.
    elapsed_s : float
        Duration.
    ended : str
        ``finished``, ``empty`` (the reservoir) or ``declined`` (at the prompt).
    subscription, topic : str
        From where to where.
    """

    published: int
    returned: int
    batches: int
    wanted: int
    elapsed_s: float
    ended: str
    subscription: str
    topic: str


def endpoints(
    instance: tuple[str, str | bool | None] | None, sub_id: str | None, topic_id: str | None
) -> Endpoints:
    """Name the reservoir and the topic; explicit ids win.

    The default reservoir is that of the survey's production instance, the default topic that
    of `instance`.

    Raises
    ------
    ValueError
        If there is neither an instance nor both ids.
    """
    if instance is None and not (sub_id and topic_id):
        raise ValueError("give an instance (survey, testid), or both sub_id and topic_id")
    if isinstance(instance, str) or (instance is not None and len(instance) != 2):
        raise ValueError(f"instance must be (survey, testid), not {instance!r}")
    survey, testid = instance if instance is not None else ("", None)
    reservoir = Instance(survey).subscription("alerts", "reservoir")
    own = Instance(survey, testid if isinstance(testid, str) and testid else None)
    return Endpoints(sub_id or reservoir, topic_id or own.name("alerts"))


@dataclass(slots=True)
class _Pump:
    """Moves alerts from a subscription to a topic."""

    stream: Stream
    ends: Endpoints
    key: BatchKey
    nack: bool
    now: Callable[[], float]
    published: int = 0
    batches: int = 0
    to_return: list[str] = field(default_factory=list)

    def move(self, count: int, until: float) -> bool:
        """Publish up to `count` alerts; tell whether the reservoir was empty before.

        No more is waited for at `until`, when the next batch is due.
        """
        empty_pulls, left = 0, count
        while left > 0 and empty_pulls < _EMPTY_PULLS:
            deliveries = self.stream.pull(self.ends.subscription, min(left, MOST_A_PULL))
            if deliveries:
                self._publish(deliveries)
                left -= len(deliveries)
                empty_pulls = 0
            else:
                empty_pulls = _EMPTY_PULLS if self.now() >= until else empty_pulls + 1
        self.batches += left < count
        self.give_back()
        return left > 0

    def _publish(self, deliveries: Sequence[Delivery]) -> None:
        payloads = [delivery.payload for delivery in deliveries]
        self.stream.publish(self.ends.topic, Messages(payloads, _attributes(deliveries)), self.key)
        self.key = replace(self.key, number=self.key.number + 1)
        self.published += len(deliveries)
        ids = [delivery.ack_id for delivery in deliveries]
        if self.nack:
            # Given back after the batch, so that no alert comes twice in one.
            self.to_return += ids
        else:
            self.stream.acknowledge(self.ends.subscription, ids)

    def give_back(self) -> None:
        if self.to_return:
            self.stream.release(self.ends.subscription, self.to_return)
            self.to_return = []


def _attributes(deliveries: Sequence[Delivery]) -> pl.DataFrame:
    """Return attributes as columns; a null where a message lacks one."""
    given = dict.fromkeys(name for one in deliveries for name in one.attributes)
    names = [name for name in given if not name.startswith(_OF_SCHEMAS)]
    columns = {name: [one.attributes.get(name) for one in deliveries] for name in names}
    if not columns:
        return pl.DataFrame({"_": [None] * len(deliveries)}, schema={"_": pl.String})
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))


@dataclass(frozen=True, slots=True)
class Clockwork:
    """The clock and the sleep that a run goes by; tests have their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def run_schedule(
    stream: Stream,
    ends: Endpoints,
    schedule: Schedule,
    key: BatchKey,
    *,
    nack: bool = False,
    on_empty: str = "stop",
    clockwork: Clockwork = Clockwork(),
) -> Summary:
    """Publish by a schedule whose times are fixed from the start, so that no delay adds up.

    Parameters
    ----------
    stream : Stream
        Where both ends are.
    ends : Endpoints
        The reservoir and the topic.
    schedule : Schedule
        When how many alerts are due; what an earlier batch lacked is made up for.
    key : BatchKey
        Of the first batch published.
    nack : bool
        Give the alerts back to the reservoir instead of acknowledging them.
    on_empty : str
        ``stop`` at an empty reservoir, or ``wait`` for more until the run time is over.
    clockwork : Clockwork
        Clock and sleep.

    Raises
    ------
    ValueError
        If `on_empty` is neither.
    """
    if on_empty not in ("stop", "wait"):
        raise ValueError(f"on_empty is 'stop' or 'wait', not {on_empty!r}")
    started = clockwork.now()
    pump, ended = _Pump(stream, ends, key, nack, clockwork.now), _FINISHED
    for batch in range(schedule.batches):
        begin = started + batch * schedule.interval_s
        clockwork.sleep(max(begin - clockwork.now(), 0.0))
        count = schedule.due(batch) - pump.published
        was, ended = ended, _FINISHED
        if pump.move(count, begin + schedule.interval_s):
            ended = _EMPTY
        if ended != was == _FINISHED:
            _LOG.warning("%s is empty after %d alerts", ends.subscription, pump.published)
        if ended == _EMPTY and on_empty == "stop":
            break
    return Summary(
        published=pump.published,
        returned=pump.published if nack else 0,
        batches=pump.batches,
        wanted=schedule.total,
        elapsed_s=clockwork.now() - started,
        ended=ended,
        subscription=ends.subscription,
        topic=ends.topic,
    )


def publish_stream(
    alert_rate: Amount | str,
    instance: tuple[str, str | bool | None] | None = None,
    runtime: Amount | None = None,
    publish_batch_every: Amount = (5, "sec"),
    sub_id: str | None = None,
    topic_id: str | None = None,
    nack: bool = False,
    auto_confirm: bool = False,
    *,
    stream: Stream | None = None,
    on_empty: str = "stop",
    clockwork: Clockwork = Clockwork(),
    ask: Callable[[str], str] | None = None,
    worker: str = "",
) -> Summary:
    """Publish the alerts of a reservoir to a topic at a chosen rate.

    Parameters
    ----------
    alert_rate : tuple or str
        ``(n, unit)``, unit one of ``once, perSec, perMin, perHr, perNight`` (ten hours), or a name.
    instance : (survey, testid), optional
        Gives the default reservoir (the survey's production one) and topic (its own).
    runtime : tuple, optional
        ``(n, unit)``, unit one of ``sec, min, hr, night``; required unless ``once``.
    publish_batch_every : tuple
        ``(n, "sec")``: time between batches.
    sub_id, topic_id : str, optional
        Names that are used instead of the defaults.
    nack : bool
        Leave the alerts in the reservoir.
    auto_confirm : bool
        Do not ask; nothing is ever asked where the input is no terminal.
    on_empty : str
        ``stop`` at an empty reservoir, or ``wait``.
    stream, worker, clockwork, ask
        Where both are and the name to publish under, by default the broker's own; clock and
        sleep; and what puts the question, by default on the terminal.

    Raises
    ------
    ValueError
        If an argument is wrong; nothing was published.
    """
    schedule = make_schedule(alert_rate, runtime, publish_batch_every)
    ends = endpoints(instance, sub_id, topic_id)
    if not (auto_confirm or _confirmed(schedule, ends, ask or _terminal())):
        return Summary(0, 0, 0, schedule.total, 0.0, "declined", ends.subscription, ends.topic)
    worker = worker or f"simulator-{os.getpid()}"
    with _opened(stream, worker) as chosen:
        if instance is not None:
            make_subscriptions(chosen, Instance(instance[0]))
        move = partial(run_schedule, chosen, ends, schedule, BatchKey(worker, time.time_ns()))
        return move(nack=nack, on_empty=on_empty, clockwork=clockwork)


@contextmanager
def _opened(stream: Stream | None, worker: str) -> Iterator[Stream]:
    """Yield the stream, or the broker's own, which is closed at the end."""
    if stream is not None:
        yield stream
        return
    own = Broker(load_settings(worker=worker, testid="")).bus
    try:
        yield own
    finally:
        own.close()


def _terminal() -> Callable[[str], str] | None:
    return input if sys.stdin is not None and sys.stdin.isatty() else None


def _confirmed(schedule: Schedule, ends: Endpoints, ask: Callable[[str], str] | None) -> bool:
    if ask is None:
        return True
    pace = f"{schedule.per_s:.4g} a second, {schedule.batches:,} batches"
    words = (
        f"{schedule.total:,} alerts, {pace if schedule.runtime_s else 'all at once'}\n"
        f"from {ends.subscription}\nto   {ends.topic}\nContinue? [Y/n] "
    )
    return ask(words).strip().lower() in ("", "y", "yes")
