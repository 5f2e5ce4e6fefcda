"""The consumer simulator: rates, counts, attributes, acknowledgement, an empty reservoir."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from broker.apps.simulator.rates import make_schedule, resolve_rate
from broker.apps.simulator.stream import Clockwork
from broker.apps.subscriptions import make_subscriptions
from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.memory import MemoryStream
from broker.errors import TransientError
from broker.instance import Instance
from broker.ports import BatchKey, Messages

RESERVOIR, TOPIC = "ztf-alerts-reservoir", "ztf-alerts-mytest"
FIRST_KEY = BatchKey("simulator", 1)
publish_stream = pytest.importorskip("broker_utils.consumer_simulator").publish_stream


@dataclass
class FakeTime:
    """A clock that only sleeping and slow publications move."""

    seconds: float = 0.0

    def now(self) -> float:
        """Return the time."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds

    @property
    def clockwork(self) -> Clockwork:
        """Return clock and sleep."""
        return Clockwork(self.now, self.sleep)


def filled(stream, count: int, topic: str = "ztf-alerts"):
    """Put messages into the production topic, and make its reservoir."""
    attributes = pl.DataFrame({"candid": [str(i) for i in range(count)], "kafka.topic": "night"})
    stream.publish(topic, Messages([b"%d" % i for i in range(count)], attributes), FIRST_KEY)
    stream.subscribe(topic, RESERVOIR)
    return stream


def delivered(stream, topic: str = TOPIC):
    """Return everything on a topic."""
    stream.subscribe(topic, f"{topic}-check")
    return stream.pull(f"{topic}-check", 100_000)


def run(stream, rate, runtime=None, time=None, **options):
    """Run without waiting."""
    options.setdefault("instance", ("ztf", "mytest"))
    clockwork = (time or FakeTime()).clockwork
    return publish_stream(
        rate, runtime=runtime, auto_confirm=True, stream=stream, clockwork=clockwork, **options
    )


@pytest.mark.parametrize(
    ("rate", "per_s"),
    [
        ((4, "perSec"), 4.0),
        ((30, "perMin"), 0.5),
        ((900, "perHr"), 0.25),
        ((36000, "perNight"), 1.0),
        ("ztf-active-avg", 300_000 / 36_000),
        ("ztf-live-max", 200.0),
    ],
)
def test_every_form_of_a_rate(rate, per_s):
    """Numbers with a unit, and named rates; a night has ten hours."""
    assert make_schedule(rate, (1, "hr"), (5, "sec")).per_s == pytest.approx(per_s)


def test_named_rates_are_the_documented_ones():
    """The names mean these numbers and units."""
    assert resolve_rate("ztf-active-avg") == (300_000, "perNight")
    assert resolve_rate("ztf-live-max") == (200, "perSec")


@pytest.mark.parametrize(
    ("runtime", "seconds"),
    [((30, "sec"), 30), ((2, "min"), 120), ((1.5, "hr"), 5400), ((1, "night"), 36_000)],
)
def test_every_form_of_a_run_time(runtime, seconds):
    """Seconds, minutes, hours, nights of ten hours."""
    assert make_schedule((1, "perSec"), runtime, (5, "sec")).runtime_s == seconds


@pytest.mark.parametrize(
    "wrong",
    [
        {"alert_rate": (1, "perWeek")},
        {"alert_rate": "no-such-rate"},
        {"alert_rate": (0, "perSec")},
        {"alert_rate": (float("inf"), "perSec")},
        {"alert_rate": ("1", "perSec")},
        {"alert_rate": (2.5, "once")},
        {"alert_rate": 5},
        {"runtime": 60},
        {"publish_batch_every": 5},
        {"instance": "ztf"},
        {"runtime": (1, "week")},
        {"runtime": None},
        {"runtime": (0, "sec")},
        {"publish_batch_every": (1, "min")},
        {"publish_batch_every": (0, "sec")},
        {"instance": None},
        {"instance": None, "sub_id": "only-one-end"},
        {"on_empty": "explode"},
    ],
    ids=str,
)
def test_wrong_arguments_are_named_before_anything_is_published(wrong):
    """A ValueError, and the topic does not exist."""
    stream = filled(MemoryStream(), 3)
    given = {"alert_rate": (1, "perSec"), "runtime": (1, "min"), "instance": ("ztf", "mytest")}

    with pytest.raises(ValueError):  # noqa: PT011 - one class for all
        publish_stream(**(given | wrong), stream=stream, auto_confirm=True)

    assert TOPIC not in [topic.name for topic in stream.topics()]


def test_once_publishes_all_in_one_batch_without_a_run_time():
    """``once`` needs no run time."""
    stream = filled(MemoryStream(), 50)

    summary = run(stream, (20, "once"))

    assert (summary.published, summary.batches, summary.ended) == (20, 1, "finished")
    assert len(delivered(stream)) == 20


def test_one_a_minute_publishes_one_a_minute():
    """Fractions of a batch are carried: 10 alerts in 10 minutes of batches every 5 s."""
    stream = filled(MemoryStream(), 50)

    summary = run(stream, (1, "perMin"), (10, "min"))

    assert summary.published == 10


@pytest.mark.parametrize(
    ("rate", "runtime", "expected"),
    [
        ((7, "perMin"), (3, "min"), 21),
        ((0.3, "perSec"), (1, "min"), 18),
        ("ztf-active-avg", (1, "min"), 500),
    ],
)
def test_the_count_is_rate_times_run_time(rate, runtime, expected):
    """Whatever the batches are."""
    stream = filled(MemoryStream(), 600)

    assert run(stream, rate, runtime).published == expected


def test_slow_batches_do_not_delay_the_later_ones():
    """The schedule is fixed from the start: a publication of 3 s costs the sleep, not the rate."""
    time = FakeTime()

    class SlowStream(MemoryStream):
        def publish(self, topic, messages, key):
            time.seconds += 3.0
            super().publish(topic, messages, key)

    stream = SlowStream()
    filled(stream, 500)
    started = time.seconds

    summary = run(stream, (2, "perSec"), (60, "sec"), time)

    assert summary.published == 120
    assert time.seconds - started == pytest.approx(55 + 3)


def test_more_than_a_pull_can_lease_is_moved_all_the_same():
    """2,500 in one batch."""
    stream = filled(MemoryStream(), 3000)

    assert run(stream, (2500, "once")).published == 2500


def test_short_pulls_are_made_up_for():
    """A service may return fewer messages than it was asked for."""

    class ShortPulls(MemoryStream):
        def pull(self, subscription, max_messages):
            return super().pull(subscription, min(max_messages, 3))

    stream = ShortPulls()
    filled(stream, 100)

    assert run(stream, (20, "once")).published == 20


def test_attributes_and_payloads_pass_through():
    """A message arrives as it was in the reservoir."""
    stream = filled(MemoryStream(), 5)

    run(stream, (5, "once"))

    found = {one.payload: dict(one.attributes) for one in delivered(stream)}
    assert found[b"3"] == {"candid": "3", "kafka.topic": "night"}


def test_attributes_of_the_service_stay_behind():
    """A topic with a schema adds some, which no publisher may send."""
    stream = MemoryStream()
    told = pl.DataFrame({"candid": ["1"], "googclient_schemaname": ["projects/p/schemas/s"]})
    stream.publish("ztf-alerts", Messages([b"a"], told), FIRST_KEY)

    run(stream, (1, "once"))

    assert [dict(one.attributes) for one in delivered(stream)] == [{"candid": "1"}]


def test_messages_without_attributes_pass_through():
    """They arrive without attributes."""
    stream = MemoryStream()
    bare = pl.DataFrame({"x": [None, None]}, schema={"x": pl.String})
    stream.publish("ztf-alerts", Messages([b"a", b"b"], bare), FIRST_KEY)

    run(stream, (2, "once"))

    assert [dict(one.attributes) for one in delivered(stream)] == [{}, {}]


def test_nothing_is_acknowledged_when_publishing_fails():
    """The alerts are still in the reservoir."""
    stream = MemoryStream()
    filled(stream, 5)
    stream._failures.append(TransientError("no answer"))

    with pytest.raises(TransientError):
        run(stream, (5, "once"))

    backlog = next(topic for topic in stream.topics() if topic.name == "ztf-alerts").backlog
    assert backlog[RESERVOIR] == 5


def test_nack_leaves_the_alerts_in_the_reservoir():
    """They were published, and are there again."""
    stream = filled(MemoryStream(), 5)

    summary = run(stream, (5, "once"), nack=True)

    assert (summary.published, summary.returned) == (5, 5)
    assert sorted(one.payload for one in stream.pull(RESERVOIR, 10)) == [
        b"%d" % i for i in range(5)
    ]


def test_nack_repeats_no_alert_within_a_batch():
    """A batch larger than the reservoir has each alert once."""
    stream = filled(MemoryStream(), 5)

    run(stream, (8, "once"), nack=True)

    payloads = sorted(one.payload for one in delivered(stream))
    assert payloads == [b"%d" % i for i in range(5)]


def test_an_empty_reservoir_stops_the_run_with_a_warning(caplog):
    """The default."""
    stream = filled(MemoryStream(), 7)

    summary = run(stream, (1, "perSec"), (1, "min"))

    assert (summary.published, summary.ended) == (7, "empty")
    assert "ztf-alerts-reservoir is empty after 7 alerts" in caplog.text


def test_an_empty_reservoir_is_waited_for_on_request():
    """What comes meanwhile is published, and what was missed is made up for."""
    time = FakeTime()
    stream = filled(MemoryStream(), 7)
    late = Messages([b"late"] * 40, pl.DataFrame({"candid": ["1"] * 40}))

    class Sleeper(FakeTime):
        def sleep(self, seconds):
            super().sleep(seconds)
            if self.seconds == 30:
                stream.publish("ztf-alerts", late, BatchKey("simulator", 2))

    time = Sleeper()

    summary = run(stream, (0.5, "perSec"), (1, "min"), time, on_empty="wait")

    assert (summary.published, summary.ended) == (30, "finished")


def test_explicit_names_win_over_the_instance():
    """Subscription and topic as given."""
    stream = filled(MemoryStream(), 4)
    stream.subscribe("ztf-alerts", "my-own-sub")

    summary = run(stream, (4, "once"), sub_id="my-own-sub", topic_id="my-own-topic")

    assert (summary.subscription, summary.topic) == ("my-own-sub", "my-own-topic")
    assert len(delivered(stream, "my-own-topic")) == 4


def test_both_names_need_no_instance():
    """An instance only gives defaults."""
    stream = filled(MemoryStream(), 4)

    assert run(stream, (4, "once"), instance=None, sub_id=RESERVOIR, topic_id="t").published == 4


@pytest.mark.parametrize("testid", [False, None, ""])
def test_the_production_instance_has_no_suffix(testid):
    """Not ``-False``."""
    stream = filled(MemoryStream(), 4)

    assert run(stream, (1, "once"), instance=("ztf", testid)).topic == "ztf-alerts"


def test_nothing_is_asked_off_a_terminal(monkeypatch):
    """The standard input of a test is no terminal."""
    stream = filled(MemoryStream(), 2)
    monkeypatch.setattr("builtins.input", lambda words: pytest.fail(f"asked: {words}"))

    summary = publish_stream((2, "once"), ("ztf", "mytest"), stream=stream)

    assert summary.published == 2


@pytest.mark.parametrize(("answer", "published"), [("y", 2), ("", 2), ("n", 0), ("what", 0)])
def test_the_question_decides(answer, published):
    """Anything but yes publishes nothing, and exits no interpreter."""
    stream = filled(MemoryStream(), 2)

    summary = publish_stream((2, "once"), ("ztf", "mytest"), stream=stream, ask=lambda _: answer)

    assert summary.published == published


def test_the_embedded_streams_work_too(tmp_path: Path):
    """From one topic on disk to another."""
    stream = LocalStream(tmp_path, "simulator")
    filled(stream, 12)

    first = run(stream, (1, "perSec"), (10, "sec"), worker="simulator")
    second = run(stream, (1, "once"), worker="simulator")

    assert (first.published, second.published) == (10, 1)
    assert [one.payload for one in delivered(stream)] == [b"%d" % i for i in range(11)]


def test_every_instance_gets_a_reservoir_and_counters():
    """On the topics that it has, and on no other instance's."""
    stream = MemoryStream()
    for topic in ("ztf-alerts", "ztf-alerts_pure", "ztf-alerts-mytest", "lsst-alerts"):
        stream.create_topic(topic)

    made = make_subscriptions(stream, Instance("ztf"))
    tests = make_subscriptions(stream, Instance("ztf", "mytest"))

    assert made == ["ztf-alerts-counter", "ztf-alerts-reservoir", "ztf-alerts_pure-counter"]
    assert tests == ["ztf-alerts-counter-mytest", "ztf-alerts-reservoir-mytest"]


def test_the_short_name_is_the_same_function():
    """``consumer_sim`` is an alias."""
    from broker_utils import consumer_sim, consumer_simulator

    assert consumer_sim.publish_stream is consumer_simulator.publish_stream


@pytest.mark.parametrize(
    ("rate", "runtime", "pace"),
    [
        ((2, "once"), None, "2 alerts, all at once"),
        ((2, "perSec"), (10, "sec"), "20 alerts, 2 a second, 2 batches"),
    ],
)
def test_the_question_tells_the_pace(rate, runtime, pace):
    """How many, how fast, from where to where."""
    asked = []
    publish_stream(
        rate,
        ("ztf", "mytest"),
        runtime,
        stream=MemoryStream(),
        ask=lambda it: asked.append(it) or "n",
    )

    (question,) = asked
    assert question.startswith(f"{pace}\nfrom {RESERVOIR}\nto   {TOPIC}\n")
