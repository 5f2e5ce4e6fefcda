"""``sim://``: a simulated survey as a source of alerts."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from math import inf
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import polars as pl

from broker.apps.simulator.models import light_for
from broker.apps.simulator.night import (
    DEFAULT_MIX,
    FieldPackets,
    Night,
    night_after,
    topic_of,
)
from broker.apps.simulator.population import Change
from broker.apps.simulator.truth import write_truth
from broker.config import Settings
from broker.connectors.sources.files import ORIGIN_SCHEMA
from broker.errors import UsageError
from broker.ports import SourceBatch
from broker.surveys import DEFAULT_SURVEY, Survey, get_survey
from broker.wiring import Broker

_MOST_SLEEP_S = 0.05
_FOR_EVER = 10**6


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a ``sim://`` URL asks for.

    Parameters
    ----------
    alerts : int
        Alerts of each night.
    rate : float
        Alerts a second; infinite is as fast as they are taken.
    seed : int
        The same seed gives the same alerts.
    night : date
        First night.
    nights : int
        Nights that follow one another; the same objects come back.
    mix : str
        Shares of populations.
    model : str
        Light curves of type Ia supernovae.
    truth : str
        Folder for the truth; empty for none.
    """

    alerts: int = 1000
    rate: float = inf
    seed: int = 1
    night: date = date(2026, 1, 1)
    nights: int = 1
    mix: str = DEFAULT_MIX
    model: str = "auto"
    truth: str = ""


_READERS: Mapping[str, Callable[[str], object]] = {
    "alerts": int,
    "rate": float,
    "seed": int,
    "night": date.fromisoformat,
    "nights": int,
    "mix": str,
    "model": str,
    "truth": str,
}


def read_url(url: str) -> tuple[str, Wishes]:
    """Return the survey and the wishes of a URL such as ``sim://survey?alerts=100&rate=20``.

    Raises
    ------
    UsageError
        If a parameter is not known or has a wrong value.
    """
    parts = urlsplit(url)
    values: dict[str, object] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _READERS:
            known = ", ".join(_READERS)
            raise UsageError(f"{parts.scheme}:// has no parameter {name!r}; it has: {known}")
        try:
            values[name] = _READERS[name](text)
        except ValueError as error:
            raise UsageError(f"{parts.scheme}://…{name}={text}: {error}") from error
    wishes = Wishes(**values)  # type: ignore[arg-type]
    if wishes.alerts < 1 or wishes.nights < 1 or not wishes.rate > 0:
        raise UsageError(f"{url}: alerts, nights and rate must be above 0")
    return parts.netloc, wishes


class SimulatedSource:
    """A `Source` of simulated alerts, at a chosen rate.

    Parameters
    ----------
    survey : Survey
        Whose alerts.
    wishes : Wishes
        How many, how fast, which.
    settings : Settings
        Where model data lies.
    now, sleep : callable
        Clock (seconds since 1970) and sleep.
    """

    def __init__(
        self,
        survey: Survey,
        wishes: Wishes,
        settings: Settings,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.survey = survey
        self._wishes = wishes
        self._settings = settings
        self._now, self._sleep = now, sleep
        self._truth: list[pl.DataFrame] = []

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, follow: bool = False) -> "SimulatedSource":
        """Make the source of a URL; `follow` goes on with more nights for ever.

        Raises
        ------
        UsageError
            If the URL is wrong or the survey cannot be simulated.
        """
        name, wishes = read_url(url)
        if follow:
            wishes = replace(wishes, nights=_FOR_EVER)
        return cls(get_survey(name or settings.survey or DEFAULT_SURVEY), wishes, settings)

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield batches when they are due; an empty one when none was for `max_wait_s`."""
        started, sent = self._now(), 0
        for topic, offset, payloads in self._chunks(max_payloads):
            waited_since = self._now()
            while payloads:
                due = self._due(started, sent, len(payloads))
                if due >= min(max_payloads, len(payloads)) or (
                    due and self._now() - waited_since >= max_wait_s
                ):
                    yield SourceBatch(_pop(payloads, due), self._origins(topic, offset, due))
                    offset, sent, waited_since = offset + due, sent + due, self._now()
                elif self._now() - waited_since >= max_wait_s:
                    yield SourceBatch([], self._origins(topic, offset, 0))
                    waited_since = self._now()
                else:
                    self._sleep(min(_MOST_SLEEP_S, max_wait_s))

    def commit(self, batch: SourceBatch) -> None:
        """Do nothing: the same seed makes the same alerts again."""

    def close(self) -> None:
        """Write the truth, if it is wanted."""
        if self._wishes.truth and self._truth:
            write_truth(self._truth, Path(self._wishes.truth), f"{self._wishes.night:%Y%m%d}")

    def _due(self, started: float, sent: int, most: int) -> int:
        if self._wishes.rate == inf:
            return most
        return min(int((self._now() - started) * self._wishes.rate) + 1 - sent, most)

    def _chunks(self, size: int) -> Iterator[tuple[str, int, list[bytes]]]:
        """Yield topic, first offset and packets, at most `size` at a time."""
        for number in range(self._wishes.nights):
            night = night_after(self._wishes.night, number)
            offset, waiting = 0, list[bytes]()
            for part in self._night(night):
                self._truth += [part.truth] if self._wishes.truth else []
                waiting += part.payloads
                while len(waiting) >= size:
                    yield topic_of(self.survey, night), offset, _pop(waiting, size)
                    offset += size
            if waiting:
                yield topic_of(self.survey, night), offset, waiting

    def _night(self, night: date) -> Iterator[FieldPackets]:
        wishes = self._wishes
        simulated = Night(self.survey, night, wishes.seed, wishes.mix, self._light)
        return simulated.alerts(wishes.alerts)

    @cached_property
    def _light(self) -> Change:
        settings = replace(self._settings, survey=self.survey.name)
        return light_for(self._wishes.model, Broker(settings))

    def _origins(self, topic: str, offset: int, size: int) -> pl.DataFrame:
        stamp = int(self._now() * 1000)
        return pl.DataFrame(
            {
                "topic": [topic] * size,
                "partition": [0] * size,
                "offset": range(offset, offset + size),
                "timestamp_ms": [stamp] * size,
                "place": [f"simulated alert {topic} {n}" for n in range(offset, offset + size)],
            },
            schema=ORIGIN_SCHEMA,
        )


def _pop(packets: list[bytes], count: int) -> list[bytes]:
    """Take the first packets, of which nothing is kept here: they fill much memory."""
    taken = packets[:count]
    del packets[:count]
    return taken
