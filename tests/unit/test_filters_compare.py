"""Plain comparisons take a short way that gives what the expression engine gives."""

import operator

import numpy as np
import polars as pl
import pytest

from broker.science.filters import Cut, Filter, Variant, evaluate

SIGNS = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "abs <=": lambda value, threshold: value.abs() <= threshold,
}
SINGLES = np.float32([0.65, 0.64, -1.5, 18.05, 1e30, np.inf, -np.inf, 0.0])
THRESHOLDS = [0.65, -1.5, 18.05, float(SINGLES[0]), 1e39, 0, 1]


def verdicts(cut: Cut, values: pl.Series) -> list[bool | None]:
    """Return what a cut says of each value; None where it cannot tell."""
    one = Filter("one", "one", "", (Variant((), (cut,)),))
    found = evaluate([one], values.to_frame()).frame
    return [
        None if unknown else passed
        for passed, unknown in found.select("one", "one.unknown").iter_rows()
    ]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64], ids=["single", "double"])
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("in_single", [False, True], ids=["as sent", "in single precision"])
def test_as_the_expression_says(
    sign: str, dtype: pl.DataType, threshold: float, in_single: bool
) -> None:
    """At, above and below the threshold, in both precisions, and where there is no value."""
    values = (
        pl.Series("x", SINGLES).cast(dtype).extend(pl.Series([None, float("nan")], dtype=dtype))
    )
    value, constant = pl.col("x"), pl.lit(threshold)
    if in_single:
        value, constant = value.cast(pl.Float32), pl.lit(threshold, dtype=pl.Float32)
    passes = SIGNS[sign](value, constant if in_single else threshold)
    cut = Cut("cut", value, passes, threshold, sign)

    expected = values.to_frame().select(pl.col("x").fill_nan(None)).select(passes).to_series()
    assert cut.plain is not None
    assert expected.to_list() == verdicts(cut, values)


@pytest.mark.parametrize(
    "cut",
    [
        Cut("other constant", pl.col("x"), pl.col("x") > 2.0, 1.0, ">"),
        Cut("other sign", pl.col("x"), pl.col("x") < 1.0, 1.0, ">"),
        Cut("other value", pl.col("x"), pl.col("x") * 2 > 1.0, 1.0, ">"),
        Cut("not a number", pl.col("x"), pl.col("x") > 1.0, "high", ">"),
    ],
    ids=lambda cut: cut.name,
)
def test_not_what_it_says(cut: Cut) -> None:
    """A condition that is another than the one shown is evaluated, not the one shown."""
    values = pl.Series("x", [0.1, 0.6, 1.5, 2.5])

    assert cut.plain is None
    assert values.to_frame().select(cut.passes).to_series().to_list() == verdicts(cut, values)


def test_integers_take_the_long_way() -> None:
    """Large integers are not rounded to compare them."""
    cut = Cut("large", pl.col("x"), pl.col("x") >= 2**53 + 1, 2**53 + 1, ">=")

    assert verdicts(cut, pl.Series("x", [2**53, 2**53 + 1])) == [False, True]
