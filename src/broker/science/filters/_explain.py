"""Explain one filter on one alert: every cut, its value and how far it was from passing."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from broker.science.filters._base import Cut, Filter, flatten, paths_of
from broker.science.filters._evaluate import why_not_applicable

_MARGINS = {
    ">=": lambda value, threshold: value - threshold,
    ">": lambda value, threshold: value - threshold,
    "<=": lambda value, threshold: threshold - value,
    "<": lambda value, threshold: threshold - value,
    "==": lambda value, threshold: -abs(value - threshold),
    "abs <=": lambda value, threshold: threshold - abs(value),
    "abs >=": lambda value, threshold: abs(value) - threshold,
}


@dataclass(frozen=True)
class CutVerdict:
    """What one cut said about one alert.

    `margin` is positive or zero where the value is on the passing side of the threshold, in
    the cut's unit, and None where there is no such number.
    """

    name: str
    value: Any
    comparison: str
    threshold: str | float
    unit: str
    verdict: str
    reason: str
    margin: float | None
    reference: str


@dataclass(frozen=True)
class Explanation:
    """What one filter said about one alert, and why."""

    filter: str
    passed: bool
    applicable: bool
    reason: str
    note: str
    cuts: tuple[CutVerdict, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON."""
        return asdict(self) | {"cuts": [asdict(cut) for cut in self.cuts]}


def explain(one: Filter, row: pl.DataFrame) -> Explanation:
    """Explain a filter's verdict on one alert, passing or not.

    Parameters
    ----------
    one : Filter
        The filter.
    row : polars.DataFrame
        One alert, nested, in the survey's own words.

    Raises
    ------
    ValueError
        If `row` does not have exactly one row.
    """
    if row.height != 1:
        raise ValueError(f"one alert can be explained at a time, not {row.height}")
    variant = one.variant(paths_of(row.schema))
    if variant is None:
        return Explanation(one.name, False, False, why_not_applicable(one, row), "", ())
    flat = flatten(row, variant.columns)
    cuts = tuple(_verdict(cut, flat) for cut in variant.cuts)
    failed = [f"{cut.name}: {cut.reason}" for cut in cuts if cut.verdict != "pass"]
    return Explanation(one.name, not failed, True, "; ".join(failed), variant.note, cuts)


def _verdict(cut: Cut, row: pl.DataFrame) -> CutVerdict:
    try:
        value, passes, missing = _evaluated(cut, row)
    except (pl.exceptions.PolarsError, ArithmeticError) as error:
        value, passes, missing = None, None, f"the cut cannot be evaluated: {error}"
    word = {True: "pass", False: "fail", None: "unknown"}[passes]
    value = _plain(value)
    margin = _margin(cut, value)
    reason = _reason(cut, value, word, missing)
    return CutVerdict(
        cut.name,
        value,
        cut.comparison,
        cut.threshold,
        cut.unit,
        word,
        reason,
        margin,
        cut.reference,
    )


def _evaluated(cut: Cut, row: pl.DataFrame) -> tuple[Any, bool | None, str]:
    missing = cut.when_missing
    columns = {
        "value": cut.value,
        "passes": cut.passes.cast(pl.Boolean),
        "missing": missing if isinstance(missing, pl.Expr) else pl.lit(missing),
    }
    found = row.select(**columns).row(0, named=True)
    return found["value"], found["passes"], found["missing"] or ""


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return _shortest(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return value


def _shortest(value: float) -> float:
    """Write a number that came in single precision as the survey did: 0.65, not 0.6499999762."""
    single = np.float32(value)
    return float(str(single)) if float(single) == value else value


def _margin(cut: Cut, value: Any) -> float | None:
    compare = _MARGINS.get(cut.comparison)
    if compare is None or isinstance(cut.threshold, str) or not isinstance(value, int | float):
        return None
    return float(f"{compare(value, cut.threshold):.7g}") + 0.0


def _is_missing(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(inner is None for inner in value.values())
    return value is None


def _reason(cut: Cut, value: Any, word: str, missing: str) -> str:
    if word == "unknown" or _is_missing(value):
        return missing
    if word == "pass":
        return ""
    shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value
    unit = f" {cut.unit}" if cut.unit else ""
    needs = " ".join(f"{cut.comparison} {cut.threshold}{unit}".split())
    return f"{shown}{unit}; needs {needs}"
