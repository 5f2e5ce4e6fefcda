"""Simulated nights: packets and their truth, field after field, any number of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import count

import numpy as np
import polars as pl

from broker.apps.simulator.cadence import Cadence, cadence_of, packet_writer
from broker.apps.simulator.catalogue import populations
from broker.apps.simulator.population import Change, parametric_type_ia
from broker.apps.simulator.sky import Seen, Sky, mjd_of
from broker.apps.simulator.truth import truth_rows
from broker.errors import UsageError
from broker.surveys import Survey
from broker.surveys.synthetic.columns import MOST_FIELDS, Epochs, FieldNight, Objects, Visits

DEFAULT_MIX = "teaching"
_MOST_SEED = 1 << 63


@dataclass(frozen=True, slots=True)
class FieldPackets:
    """What one field sends: packets in order of time, and a row of truth for each."""

    payloads: Sequence[bytes]
    truth: pl.DataFrame


@dataclass(frozen=True)
class Night:
    """A night of a survey.

    Parameters
    ----------
    survey : Survey
    date : date
        UTC date.
    seed : int
        The same seed and date give the same packets, byte for byte.
    mix : str
        Name of the shares of populations, from the survey's ``cadence.yaml``.
    type_ia : callable
        Light curves of type Ia supernovae.

    Raises
    ------
    UsageError
        If the survey cannot be simulated, has no such mix, or the seed has more than 64 bits.
    """

    survey: Survey
    date: date
    seed: int = 1
    mix: str = DEFAULT_MIX
    type_ia: Change = parametric_type_ia

    def __post_init__(self) -> None:
        if not -_MOST_SEED <= self.seed < _MOST_SEED:
            raise UsageError(f"seed {self.seed} is too large: it has 64 bits at most")

    @cached_property
    def cadence(self) -> Cadence:
        """How the survey looks at the sky."""
        return cadence_of(self.survey)

    @cached_property
    def sky(self) -> Sky:
        """The sky that it looks at."""
        shares = self.cadence.mix(self.mix)
        known = populations(self.type_ia)
        return Sky(
            self.cadence,
            tuple(known[name] for name in shares),
            tuple(shares.values()),
            self.seed,
        )

    def fields(self) -> Iterator[FieldPackets]:
        """Yield what each field sends that is seen in this night.

        Raises
        ------
        UsageError
            If more packets are taken than there are numbers for.
        """
        night = mjd_of(self.date)
        write = packet_writer(self.survey)
        for field in count():
            if field >= MOST_FIELDS:
                raise UsageError("a simulated night has no more fields than these")
            if self.cadence.is_visited(self.seed, field, night):
                visits, seen = self.sky.field(field, night)
                if seen:
                    columns = self._columns(field, night, visits, [one for _, one in seen])
                    packed = write(columns)
                    truth = truth_rows(self.cadence, columns, packed, seen)
                    order = np.argsort(truth["mjd"].to_numpy(), kind="stable")
                    payloads = [packed.payloads[i] for i in order.tolist()]
                    yield FieldPackets(payloads, truth[order])

    def alerts(self, most: int) -> Iterator[FieldPackets]:
        """Yield exactly `most` packets, field by field."""
        left = most
        for part in self.fields():
            if left <= 0:
                return
            yield FieldPackets(part.payloads[:left], part.truth[:left])
            left -= len(part.payloads)

    def _columns(self, field: int, night: int, visits: Visits, parts: Sequence[Seen]) -> FieldNight:
        bands = tuple(band.name for band in self.cadence.bands)
        objects = _joined(Objects, [part.objects for part in parts])
        begin = np.cumsum([0, *(len(part.objects.slot) for part in parts)])
        epochs = _joined(Epochs, [part.epochs for part in parts])
        shift = np.repeat(begin[:-1], [len(part.epochs.object) for part in parts])
        whole = Epochs(**{**epochs, "object": epochs["object"] + shift})
        return FieldNight(
            field, night, self.cadence.offset_days, bands, visits, Objects(**objects), whole
        )


def _joined(kind: type, parts: Sequence[object]) -> dict[str, np.ndarray]:
    names: Sequence[str] = kind.__slots__  # type: ignore[attr-defined]
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


def topic_of(survey: Survey, night: date) -> str:
    """Name the topic that a night seems to come from; the survey itself where it names none."""
    return survey.topic(night) or survey.name


def night_after(first: date, number: int) -> date:
    """Return the night that is `number` nights after the first.

    Raises
    ------
    UsageError
        If the calendar ends before it.
    """
    try:
        return first + timedelta(days=number)
    except OverflowError as error:
        raise UsageError(f"no night is {number} nights after {first}") from error
