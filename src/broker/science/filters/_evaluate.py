"""Evaluate many filters over a batch of alerts in one pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from broker.science.filters._base import (
    FAIL,
    PASS,
    UNKNOWN,
    Cut,
    Fields,
    Filter,
    Variant,
    paths_of,
)
from broker.science.filters._compare import compare


@dataclass(frozen=True)
class _Outcome:
    """What one filter said.

    `codes` tell per cut of its variant and alert 0 fail, 1 pass, 2 unknown; `bits_passed` and
    `bits_unknown` have a bit per cut, the lowest for the first. Without cuts it does not apply.
    """

    filter: Filter
    cuts: tuple[str, ...]
    codes: NDArray[np.uint8]
    bits_passed: NDArray[np.uint32]
    bits_unknown: NDArray[np.uint32]
    passed: NDArray[np.bool_]
    reason: str = ""

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Whether a cut failed, which decides, whatever is unknown of the others."""
        failed: NDArray[np.bool_] = (self.bits_passed | self.bits_unknown) != all_bits(self.cuts)
        return failed


def all_bits(cuts: Sequence[object]) -> np.uint32:
    """Return the number that has a bit for each cut."""
    return np.uint32((1 << len(cuts)) - 1)


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
        columns: dict[str, pa.Array] = {}
        for name, outcome in self._outcomes.items():
            applies = bool(outcome.cuts)
            columns[name] = _booleans(outcome.passed) if applies else self._nulls()
            columns[f"{name}.cuts"] = _wrapped(pa.uint32(), outcome.bits_passed)
            columns[f"{name}.unknown"] = _wrapped(pa.uint32(), outcome.bits_unknown)
        return _framed(columns)

    def _nulls(self) -> pa.Array:
        return pa.nulls(self._height, pa.bool_())

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
        return _framed({name: _wrapped(pa.uint8(), passed) for name, passed in columns.items()})


# To hand a column to Polars by way of Arrow takes a fifth of what it takes from NumPy.
def _framed(columns: Mapping[str, pa.Array]) -> pl.DataFrame:
    if not columns:
        return pl.DataFrame()
    return pl.DataFrame(pa.RecordBatch.from_arrays([*columns.values()], names=[*columns]))


def _wrapped(kind: pa.DataType, values: NDArray[Any]) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _booleans(flags: NDArray[np.bool_]) -> pa.Array:
    bits = np.packbits(flags, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, pa.py_buffer(bits)])


def evaluate(
    filters: Sequence[Filter], rows: pl.DataFrame, schema: pl.Schema | None = None
) -> Verdicts:
    """Evaluate filters over a batch, all together.

    A filter whose expressions cannot be evaluated at all (a user's mistake) has every cut
    unknown and leaves the others unharmed; one whose columns are missing does not apply.

    Parameters
    ----------
    filters : sequence of Filter
        Filters with different names.
    rows : polars.DataFrame
        One row an alert, nested, in the survey's own words.
    schema : polars.Schema, optional
        That of the rows, if it is at hand; the choice of variants is remembered for it.
    """
    choice = _choose(filters, rows.schema) if schema is None else _remembered(filters, schema)
    codes = _codes_of_all(choice.cuts, rows)
    bits_passed, bits_unknown = _bits(codes, PASS, choice), _bits(codes, UNKNOWN, choice)
    passed = bits_passed == choice.all_bits[:, None]
    outcomes, place = [], 0
    for one, variant in choice.variants:
        if variant is None:
            outcomes.append(_silent(one, rows))
            continue
        start, names = choice.starts[place], tuple(cut.name for cut in variant.cuts)
        own = codes[start : start + len(names)]
        bits = (bits_passed[place], bits_unknown[place], passed[place])
        outcomes.append(_Outcome(one, names, own, *bits))
        place += 1
    return Verdicts(outcomes, rows.height)


@dataclass(frozen=True)
class _Choice:
    """The variant of each filter, and the cuts of all in a row.

    `starts` says where each filter's cuts start, `weights` which bit is each cut's.
    """

    variants: Sequence[tuple[Filter, Variant | None]]
    cuts: Sequence[Cut]
    starts: NDArray[np.int64]
    weights: NDArray[np.uint32]
    all_bits: NDArray[np.uint32]


_MOST_CHOICES = 64
_CHOICES: dict[tuple[int, int], tuple[_Choice, object, object]] = {}
"""Choices by the identities of filters and schema, both kept so that no other gets them."""


def _remembered(filters: Sequence[Filter], schema: pl.Schema) -> _Choice:
    name = (id(filters), id(schema))
    if name not in _CHOICES:
        if len(_CHOICES) >= _MOST_CHOICES:
            _CHOICES.clear()
        _CHOICES[name] = (_choose(filters, schema), filters, schema)
    return _CHOICES[name][0]


def _choose(filters: Sequence[Filter], schema: pl.Schema) -> _Choice:
    paths = paths_of(schema)
    variants = [(one, one.variant(paths)) for one in filters]
    cuts = [variant.cuts for _, variant in variants if variant]
    sizes = np.array([len(some) for some in cuts], np.int64)
    places = [place for some in cuts for place in range(len(some))]
    return _Choice(
        variants,
        [cut for some in cuts for cut in some],
        np.cumsum(sizes) - sizes,
        np.uint32(1) << np.array(places, np.uint32),
        np.array([all_bits(some) for some in cuts], np.uint32),
    )


def _bits(codes: NDArray[np.uint8], code: int, choice: _Choice) -> NDArray[np.uint32]:
    """Put what the cuts of each filter say of an alert into one number."""
    if not choice.cuts:
        return np.zeros((0, codes.shape[1]), np.uint32)
    bits = (codes == code) * choice.weights[:, None]
    return np.bitwise_or.reduceat(bits, choice.starts, axis=0)


def _silent(one: Filter, rows: pl.DataFrame) -> _Outcome:
    none, no_bits = np.zeros((0, rows.height), np.uint8), np.zeros(rows.height, np.uint32)
    reason = why_not_applicable(one, rows)
    return _Outcome(one, (), none, no_bits, no_bits, no_bits.astype(np.bool_), reason)


def why_not_applicable(one: Filter, rows: pl.DataFrame) -> str:
    """Say which columns a filter would have needed."""
    needs = " or ".join(f"[{', '.join(sorted(v.needs))}]" for v in one.variants)
    have = ", ".join(rows.columns[:6])
    return f"filter {one.name!r} needs the columns {needs}; the alerts have {have}"


def _codes_of_all(cuts: Sequence[Cut], rows: pl.DataFrame) -> NDArray[np.uint8]:
    """Return a row a cut and a column an alert."""
    if not cuts or not rows.height:
        return np.zeros((len(cuts), rows.height), dtype=np.uint8)
    fields = Fields(rows)
    try:
        return _codes(cuts, fields, rows.height)
    except (pl.exceptions.PolarsError, ArithmeticError):
        return np.concatenate([_codes_of_one(cut, fields, rows.height) for cut in cuts])


def _codes_of_one(cut: Cut, fields: Fields, height: int) -> NDArray[np.uint8]:
    try:
        return _codes([cut], fields, height)
    except (pl.exceptions.PolarsError, ArithmeticError):
        return np.full((1, height), UNKNOWN, dtype=np.uint8)


def _codes(cuts: Sequence[Cut], fields: Fields, height: int) -> NDArray[np.uint8]:
    codes = np.empty((len(cuts), height), dtype=np.uint8)
    floats = _floats(cuts, fields)
    plain = {
        i: cut.plain
        for i, cut in enumerate(cuts)
        if cut.plain is not None and cut.plain.column in floats
    }
    if plain:
        holds, known = compare(list(plain.values()), floats, height)
        codes[list(plain)] = np.where(known, holds.view(np.uint8), np.uint8(UNKNOWN))
    others = [i for i in range(len(cuts)) if i not in plain]
    if others:
        codes[others] = _codes_of_expressions([cuts[i] for i in others], fields, height)
    return codes


def _codes_of_expressions(cuts: Sequence[Cut], fields: Fields, height: int) -> NDArray[np.uint8]:
    flat = fields.flat(name for cut in cuts for name in cut.reads)
    # The first column has one value a row, so that a constant expression is repeated too.
    columns = [pl.repeat(FAIL, height, dtype=pl.UInt8).alias("rows")]
    columns += [cut.code.alias(str(i)) for i, cut in enumerate(cuts)]
    return flat.select(columns).to_numpy().T[1:]


def _floats(cuts: Sequence[Cut], fields: Fields) -> dict[str, pl.Series]:
    """Find the columns of floats that cuts compare with a constant, which all do alike."""
    names = {cut.plain.column for cut in cuts if cut.plain is not None}
    found = {name: fields.find(name) for name in names}
    return {name: it for name, it in found.items() if it is not None and it.dtype.is_float()}
