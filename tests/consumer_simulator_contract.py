"""What the consumer simulator does on every stream: rates, counts, attributes, an empty end."""

from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest

from broker.apps.simulator.stream import Clockwork
from broker.errors import TransientError
from broker.ports import BatchKey, Delivery, Messages, Stream
from broker_utils.consumer_simulator import Summary, publish_stream

RESERVOIR, SOURCE, TOPIC = "ztf-alerts-reservoir", "ztf-alerts", "ztf-alerts-mytest"
INSTANCE = ("ztf", "mytest")
WORKER = "simulator"


@dataclass
class FakeTime:
    """A clock that only sleeping moves, whatever the stream takes."""

    seconds: float = 0.0
    arriving: dict[float, Any] | None = None

    def now(self) -> float:
        """Return the time."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass, and what comes meanwhile come."""
        self.seconds += seconds
        for when in sorted(self.arriving or {}):
            if when <= self.seconds:
                self.arriving.pop(when)()


class FailsOnce:
    """A stream whose first publication on the topic fails."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._is_up = False

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Fail, and later publish."""
        if not self._is_up:
            self._is_up = True
            raise TransientError("no answer")
        self._stream.publish(topic, messages, key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class ConsumerSimulatorContract:
    """Subclasses have a fixture ``stream``: an empty stream."""

    def fill(self, stream: Stream, count: int, number: int = 1) -> None:
        """Put alerts into the production topic, and make its reservoir."""
        names = [f"{number}-{i}" for i in range(count)]
        attributes = pl.DataFrame({"candid": names, "kafka.topic": "night"})
        payloads = [b"\x00\xff" + name.encode() for name in names]
        stream.publish(SOURCE, Messages(payloads, attributes), BatchKey(WORKER, number))
        stream.subscribe(SOURCE, RESERVOIR)

    def run(self, stream: Stream, rate: Any, runtime: Any = None, **options: Any) -> Summary:
        """Run without waiting."""
        time = options.pop("time", FakeTime())
        options = {"instance": INSTANCE, "clockwork": Clockwork(time.now, time.sleep)} | options
        return publish_stream(rate, runtime=runtime, stream=stream, worker=WORKER, **options)

    def delivered(self, stream: Stream, topic: str = TOPIC) -> list[Delivery]:
        """Return everything on a topic."""
        stream.subscribe(topic, f"{topic}-check")
        return self.drained(stream, f"{topic}-check")

    def drained(self, stream: Stream, subscription: str) -> list[Delivery]:
        """Pull and acknowledge until nothing comes."""
        found: list[Delivery] = []
        while some := stream.pull(subscription, 1000):
            stream.acknowledge(subscription, [one.ack_id for one in some])
            found += some
        return found

    @pytest.mark.parametrize(
        ("rate", "runtime", "expected"),
        [
            ((20, "once"), None, 20),
            ((4, "perSec"), (10, "sec"), 40),
            ((7, "perMin"), (3, "min"), 21),
            ((900, "perHr"), (2, "min"), 30),
            ((36_000, "perNight"), (0.01, "hr"), 36),
            ("ztf-active-avg", (6, "sec"), 50),
            ("ztf-live-max", (2, "sec"), 400),
        ],
        ids=str,
    )
    def test_every_form_of_a_rate(self, stream: Stream, rate, runtime, expected) -> None:
        """Publishes rate times run time, no more and no less."""
        self.fill(stream, 500)

        summary = self.run(stream, rate, runtime)

        assert (summary.published, summary.ended) == (expected, "finished")
        assert len({one.payload for one in self.delivered(stream)}) == expected

    def test_one_a_minute_is_one_a_minute(self, stream: Stream) -> None:
        """Ten in ten minutes of batches every 5 s: fractions are carried."""
        self.fill(stream, 20)

        summary = self.run(stream, (1, "perMin"), (10, "min"), publish_batch_every=(5, "sec"))

        assert summary.published == 10
        assert len(self.delivered(stream)) == 10

    def test_names_win_over_the_instance(self, stream: Stream) -> None:
        """Without them it is the production reservoir and the instance's own alerts."""
        self.fill(stream, 4)
        stream.subscribe(SOURCE, "my-own-reservoir")

        by_default = self.run(stream, (4, "once"))
        named = self.run(stream, (4, "once"), sub_id="my-own-reservoir", topic_id="my-own-topic")

        assert (by_default.subscription, by_default.topic) == (RESERVOIR, TOPIC)
        assert (named.subscription, named.topic) == ("my-own-reservoir", "my-own-topic")
        assert len(self.delivered(stream, "my-own-topic")) == 4

    def test_wrong_arguments_publish_nothing(self, stream: Stream) -> None:
        """A batch in minutes, or neither instance nor names."""
        self.fill(stream, 2)

        for wrong in ({"publish_batch_every": (1, "min")}, {"instance": None}):
            with pytest.raises(ValueError):  # noqa: PT011 - one class for all
                self.run(stream, (1, "perSec"), (2, "sec"), **wrong)

        assert TOPIC not in [topic.name for topic in stream.topics()]

    def test_messages_pass_as_they_were(self, stream: Stream) -> None:
        """Payload and attributes."""
        self.fill(stream, 5)

        self.run(stream, (5, "once"))

        found = {one.payload: dict(one.attributes) for one in self.delivered(stream)}
        assert found[b"\x00\xff1-3"] == {"candid": "1-3", "kafka.topic": "night"}

    def test_what_was_published_is_gone_from_the_reservoir(self, stream: Stream) -> None:
        """And the rest is still there."""
        self.fill(stream, 5)

        self.run(stream, (3, "once"))

        rest = {one.payload for one in self.drained(stream, RESERVOIR)}
        published = {one.payload for one in self.delivered(stream)}
        assert (len(published), len(rest)) == (3, 2)
        assert not published & rest

    def test_nack_leaves_the_reservoir_full(self, stream: Stream) -> None:
        """All are published, and all are there again."""
        self.fill(stream, 5)

        summary = self.run(stream, (5, "once"), nack=True)

        assert (summary.published, summary.returned) == (5, 5)
        assert len({one.payload for one in self.delivered(stream)}) == 5
        assert len({one.payload for one in self.drained(stream, RESERVOIR)}) == 5

    def test_a_failure_loses_nothing(self, stream: Stream) -> None:
        """What was not published is not acknowledged: it comes when its lease is over."""
        self.fill(stream, 5)
        leased: list[str] = []
        failing = FailsOnce(stream)
        failing.pull = lambda name, most: _noted(stream.pull(name, most), leased)

        with pytest.raises(TransientError):
            self.run(failing, (5, "once"))

        stream.release(RESERVOIR, leased)
        assert self.run(stream, (5, "once")).published == 5
        assert len(self.delivered(stream)) == 5

    def test_an_empty_reservoir_ends_the_run(self, stream: Stream, caplog) -> None:
        """With a warning."""
        self.fill(stream, 3)

        summary = self.run(stream, (1, "perSec"), (1, "min"))

        assert (summary.published, summary.ended) == (3, "empty")
        assert f"{RESERVOIR} is empty after 3 alerts" in caplog.text

    def test_an_empty_reservoir_can_be_waited_for(self, stream: Stream) -> None:
        """What comes later makes up for what was missed."""
        self.fill(stream, 3)
        time = FakeTime(arriving={15.0: lambda: self.fill(stream, 20, number=2)})

        summary = self.run(stream, (0.5, "perSec"), (20, "sec"), on_empty="wait", time=time)

        assert (summary.published, summary.ended) == (10, "finished")

    def test_nothing_is_asked_off_a_terminal(self, stream: Stream, monkeypatch) -> None:
        """The standard input of a test is no terminal."""
        self.fill(stream, 2)
        monkeypatch.setattr("builtins.input", lambda words: pytest.fail(f"asked: {words}"))

        assert self.run(stream, (2, "once")).published == 2


def _noted(deliveries: list[Delivery], ids: list[str]) -> list[Delivery]:
    ids += [one.ack_id for one in deliveries]
    return deliveries
