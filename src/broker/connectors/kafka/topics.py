"""Which topics to read tonight, and how long to wait until they exist.

Everything here is told the time; nothing asks a clock.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from broker.errors import NotFoundError, UsageError

_DATE = "yyyymmdd"
# What Kafka allows; a leading ^ would make librdkafka read a regular expression.
_LEGAL = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_SLOWER = 1.5


def topic_of_night(syntax: str, night: date) -> str:
    """Put the UTC date of a night into a topic's syntax.

    Examples
    --------
    >>> topic_of_night("decat_yyyymmdd_2021A-0113", date(2021, 1, 2))
    'decat_20210102_2021A-0113'
    """
    return syntax.replace(_DATE, f"{night:%Y%m%d}")


def check_syntax(syntax: str) -> str:
    """Return the syntax if it names one topic exactly.

    Raises
    ------
    UsageError
        If Kafka allows no topic of such a name.
    """
    if not _LEGAL.match(syntax) or syntax in (".", ".."):
        raise UsageError(f"{syntax!r} is not the name of a Kafka topic")
    return syntax


@dataclass(slots=True)
class TopicWatch:
    """Know which topics to read, when to look for them, and when to give up.

    The topics of `night`, or of the date at the first look, are *awaited*: the watch is
    complete when all exist. As a night can straddle midnight, those of the day before are
    read as well where they exist; without a fixed night both move on with the date.

    Parameters
    ----------
    syntaxes : sequence of str
        Topic names, ``yyyymmdd`` standing for the UTC date.
    deadline_s : float
        How long to wait for the awaited topics; infinity is for ever.
    night : date, optional
        The night, if not today's.
    partial : bool
        Read those of the awaited topics that exist although others do not yet.
    first_wait_s, longest_wait_s : float
        Time between two looks, at first and at most.
    """

    syntaxes: Sequence[str]
    deadline_s: float
    night: date | None = None
    partial: bool = False
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    missing: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    complete: bool = False
    _started_s: float | None = None
    _next_s: float = float("-inf")
    _wait_s: float = 0.0
    _awaited: list[str] = field(default_factory=list)

    def due(self, now_s: float) -> bool:
        """Tell whether it is time to look which topics exist."""
        return now_s >= self._next_s

    def look(self, existing: Collection[str] | None, today: date, now_s: float) -> list[str]:
        """Return the topics to read, given those that exist; names match exactly.

        Parameters
        ----------
        existing : collection of str or None
            Names of all topics; None if no server answered.
        today : date
            UTC date.
        now_s : float
            Time on a clock that only runs forward, s.

        Raises
        ------
        NotFoundError
            If awaited topics do not exist and the deadline has passed.
        """
        if self._started_s is None:
            self._started_s, self._wait_s = now_s, self.first_wait_s
            self._awaited = self._names(self.night or today)
        if existing is not None:
            self.missing = [name for name in self._awaited if name not in existing]
            self.complete = self.complete or not self.missing
            self.found = [name for name in self._wanted(today) if name in existing]
        if not self.complete and now_s >= self._started_s + self.deadline_s:
            raise NotFoundError(self._why(existing is not None))
        self._next_s = now_s + self._wait_s
        self._wait_s = min(self._wait_s * _SLOWER, self.longest_wait_s)
        if self.complete and not any(_DATE in syntax for syntax in self.syntaxes):
            self._next_s = float("inf")
        return self.found

    def _names(self, night: date) -> list[str]:
        return list(dict.fromkeys(topic_of_night(syntax, night) for syntax in self.syntaxes))

    def _wanted(self, today: date) -> list[str]:
        night = self.night or today
        names = [*self._names(night - timedelta(days=1)), *self._names(night)]
        if self.complete or self.partial:
            return list(dict.fromkeys(names))
        return [name for name in dict.fromkeys(names) if name not in self._awaited]

    def _why(self, answered: bool) -> str:
        waited = f"after {self.deadline_s:,.0f} s"
        if not answered:
            return f"no Kafka server answered {waited}; is the address right?"
        return f"{_listed(self.missing or self._awaited)} still not there {waited}"


def _listed(names: Sequence[str]) -> str:
    kind = "topic" if len(names) == 1 else "topics"
    return f"{kind} {', '.join(names)}"
