"""Evaluate many filters over a batch of alerts in one pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from broker.science.filters._base import (
    FAIL,
    PASS,
    UNKNOWN,
    Cut,
    Filter,
    Variant,
    flatten,
    paths_of,
)
from broker.science.filters._compare import Comparison, compare


@dataclass(frozen=True)
class _Outcome:
    """What one filter said: per cut of its variant and alert 0 fail, 1 pass, 2 unknown."""

    filter: Filter
    cuts: tuple[str, ...]
    codes: NDArray[np.uint8]
    reason: str = ""

    @cached_property
    def bits_passed(self) -> NDArray[np.uint32]:
        """A bit per cut that an alert passed, the lowest for the first."""
        return _bits(self.codes == PASS)

    @cached_property
    def bits_unknown(self) -> NDArray[np.uint32]:
        """A bit per cut of which an alert cannot tell."""
        return _bits(self.codes == UNKNOWN)

    @cached_property
    def passed(self) -> NDArray[np.bool_]:
        """Whether all cuts passed; never where there are none."""
        passed: NDArray[np.bool_] = self.bits_passed == self._all_bits
        return passed if self.cuts else np.zeros_like(passed)

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """Whether a cut failed, which decides, whatever is unknown of the others."""
        failed: NDArray[np.bool_] = (self.bits_passed | self.bits_unknown) != self._all_bits
        return failed

    @property
    def _all_bits(self) -> np.uint32:
        return np.uint32((1 << len(self.cuts)) - 1)


class Verdicts:
    """What filters said about each alert of a batch."""

    def __init__(self, outcomes: Sequence[_Outcome], height: int) -> None:
        self._outcomes = {outcome.filter.name: outcome for outcome in outcomes}
        self._height = height

    @property
    def not_applicable(self) -> Mapping[str, str]:
        """Filters that said nothing about this batch, with the reason."""
        return {name: o.reason for name, o in self._outcomes.items() if not o.cuts}

    def cuts(self, filter_name: str) -> tuple[str, ...]:
        """Name the cuts behind the bits, the lowest bit first."""
        return self._outcomes[filter_name].cuts

    def passed(self, filter_name: str) -> NDArray[np.bool_]:
        """Tell for each alert whether all cuts of the filter passed."""
        return self._outcomes[filter_name].passed

    def counts(self, filter_name: str) -> dict[str, int]:
        """Count the alerts that pass, fail, cannot be told, and are none of the filter's.

        A failed cut decides, whatever is unknown of the others.
        """
        outcome = self._outcomes[filter_name]
        if not outcome.cuts:
            return {"not applicable": self._height}
        passed, failed = int(outcome.passed.sum()), int(outcome.failed.sum())
        return {"pass": passed, "fail": failed, "unknown": self._height - passed - failed}

    @cached_property
    def frame(self) -> pl.DataFrame:
        """Verdicts as columns, one row an alert.

        For each filter: ``<name>`` (bool; null where the filter does not apply),
        ``<name>.cuts`` and ``<name>.unknown`` (uint32, a bit per cut that passed or could
        not be told; the lowest bit is the first of :meth:`cuts`).
        """
        columns: list[pl.Series] = []
        for name, outcome in self._outcomes.items():
            columns += [
                pl.Series(name, outcome.passed) if outcome.cuts else self._nulls(name),
                pl.Series(f"{name}.cuts", outcome.bits_passed),
                pl.Series(f"{name}.unknown", outcome.bits_unknown),
            ]
        return pl.DataFrame(columns)

    def _nulls(self, name: str) -> pl.Series:
        return pl.repeat(None, self._height, dtype=pl.Boolean, eager=True).alias(name)

    def attributes(self) -> pl.DataFrame:
        """Return message attributes, 1 for passed and 0 for not.

        There is one for each filter, and one for each cut of the filters that publish
        their cuts; a filter that does not apply has none.
        """
        columns: dict[str, NDArray[np.bool_]] = {}
        for outcome in self._outcomes.values():
            if not outcome.cuts:
                continue
            columns[outcome.filter.attribute] = outcome.passed
            if outcome.filter.publish_cuts:
                columns |= dict(zip(outcome.cuts, outcome.codes == PASS, strict=True))
        return pl.DataFrame(
            [pl.Series(name, passed.view(np.uint8)) for name, passed in columns.items()]
        )


def _bits(flags: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Put flags of shape (cuts, alerts) into one number an alert."""
    bits = np.zeros(flags.shape[1], dtype=np.uint32)
    for place, row in enumerate(flags):
        if row.any():
            bits |= row.astype(np.uint32) << np.uint32(place)
    return bits


def evaluate(filters: Sequence[Filter], rows: pl.DataFrame) -> Verdicts:
    """Evaluate filters over a batch, all together.

    A filter whose expressions cannot be evaluated at all (a user's mistake) has every cut
    unknown and leaves the others unharmed; one whose columns are missing does not apply.

    Parameters
    ----------
    filters : sequence of Filter
        Filters with different names.
    rows : polars.DataFrame
        One row an alert, nested, in the survey's own words.
    """
    paths = paths_of(rows.schema)
    chosen = [(one, one.variant(paths)) for one in filters]
    cuts = [cut for _, variant in chosen if variant for cut in variant.cuts]
    columns = {name for _, variant in chosen if variant for name in variant.columns}
    codes = _codes_of_all(cuts, flatten(rows, columns), rows.height)
    outcomes, start = [], 0
    for one, variant in chosen:
        if variant is None:
            outcomes.append(_silent(one, rows))
            continue
        stop = start + len(variant.cuts)
        outcomes.append(_outcome(one, variant, codes[start:stop]))
        start = stop
    return Verdicts(outcomes, rows.height)


def _outcome(one: Filter, variant: Variant, codes: NDArray[np.uint8]) -> _Outcome:
    return _Outcome(one, tuple(cut.name for cut in variant.cuts), codes)


def _silent(one: Filter, rows: pl.DataFrame) -> _Outcome:
    return _Outcome(one, (), np.zeros((0, rows.height), np.uint8), why_not_applicable(one, rows))


def why_not_applicable(one: Filter, rows: pl.DataFrame) -> str:
    """Say which columns a filter would have needed."""
    needs = " or ".join(f"[{', '.join(sorted(v.needs))}]" for v in one.variants)
    have = ", ".join(rows.columns[:6])
    return f"filter {one.name!r} needs the columns {needs}; the alerts have {have}"


def _codes_of_all(cuts: Sequence[Cut], flat: pl.DataFrame, height: int) -> NDArray[np.uint8]:
    """Return a row a cut and a column an alert."""
    if not cuts or not height:
        return np.zeros((len(cuts), height), dtype=np.uint8)
    try:
        return _codes(cuts, flat)
    except (pl.exceptions.PolarsError, ArithmeticError):
        return np.concatenate([_codes_of_one(cut, flat) for cut in cuts])


def _codes_of_one(cut: Cut, flat: pl.DataFrame) -> NDArray[np.uint8]:
    try:
        return _codes([cut], flat)
    except (pl.exceptions.PolarsError, ArithmeticError):
        return np.full((1, flat.height), UNKNOWN, dtype=np.uint8)


def _codes(cuts: Sequence[Cut], flat: pl.DataFrame) -> NDArray[np.uint8]:
    codes = np.empty((len(cuts), flat.height), dtype=np.uint8)
    plain = _plain(cuts, flat)
    if plain:
        holds, known = compare(list(plain.values()), flat)
        codes[list(plain)] = np.where(known, holds.view(np.uint8), np.uint8(UNKNOWN))
    others = [i for i in range(len(cuts)) if i not in plain]
    # The first column has one value a row, so that a constant expression is repeated too.
    columns = [pl.repeat(FAIL, pl.len(), dtype=pl.UInt8).alias("rows")]
    columns += [cuts[i].code.alias(str(i)) for i in others]
    codes[others] = flat.select(columns).to_numpy().T[1:]
    return codes


def _plain(cuts: Sequence[Cut], flat: pl.DataFrame) -> dict[int, Comparison]:
    """Choose the cuts that compare a column of floats, which do so alike everywhere."""
    floats = {one.name for one in flat.get_columns() if one.dtype.is_float()}
    plain = ((i, cut.plain) for i, cut in enumerate(cuts))
    return {i: one for i, one in plain if one is not None and one.column in floats}
