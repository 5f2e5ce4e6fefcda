"""The purity filter: boundaries, nulls, and the surveys that have fewer fields."""

import numpy as np
import polars as pl
import pytest

from broker.science.filters import FILTERS, evaluate, explain

PURITY = FILTERS["purity"]
GOOD = {"rb": 0.9, "nbad": 0, "fwhm": 2.0, "elong": 1.1, "magdiff": 0.01}
SINGLE = pl.Struct(dict.fromkeys(GOOD, pl.Float32) | {"nbad": pl.Int32})
FLAGS = (
    *(f"pixelFlags_{name}" for name in ("bad", "cr", "edge", "offimage")),
    *(f"pixelFlags_{name}Center" for name in ("interpolated", "saturated", "suspect", "streak")),
    *("centroid_flag", "psfFlux_flag", "shape_flag"),
    *("pixelFlags_injected", "pixelFlags_injected_template"),
)


def candidate(**changes: float | None) -> pl.DataFrame:
    """Make one alert that passes but for the changes."""
    return pl.DataFrame({"candidate": [GOOD | changes]}, schema={"candidate": SINGLE})


def dia_source(**changes: object) -> pl.DataFrame:
    """Make one alert of a difference-image source."""
    record = {"reliability": 0.9, **dict.fromkeys(FLAGS, False), "isDipole": False} | changes
    return pl.DataFrame({"diaSource": [record]})


def passed(rows: pl.DataFrame) -> bool:
    """Tell whether the alert passes."""
    return bool(evaluate([PURITY], rows).passed("purity")[0])


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("rb", 0.65, True),
        ("rb", 0.6499, False),
        ("nbad", 0, True),
        ("nbad", 1, False),
        ("fwhm", 5.0, True),
        ("fwhm", 5.0001, False),
        ("elong", 1.2, True),
        ("elong", 1.2001, False),
        ("magdiff", 0.1, True),
        ("magdiff", -0.1, True),
        ("magdiff", 0.1001, False),
        ("magdiff", -0.1001, False),
    ],
)
def test_boundary(field: str, value: float, expected: bool) -> None:
    """A value at the threshold passes, also in single precision; one just beyond fails."""
    assert passed(candidate(**{field: value})) is expected


@pytest.mark.parametrize("field", GOOD)
def test_null_is_unknown(field: str) -> None:
    """A missing value gives a verdict with a reason, not an exception."""
    found = explain(PURITY, candidate(**{field: None}))
    cut = next(one for one in found.cuts if one.name == field)
    assert (found.passed, cut.verdict, cut.reason) == (
        False,
        "unknown",
        "the alert has no value for it",
    )


def test_nan_is_unknown() -> None:
    """NaN is a missing value too."""
    verdicts = evaluate([PURITY], candidate(rb=float("nan")))
    assert verdicts.frame.row(0, named=True) == {
        "purity": False,
        "purity.cuts": 0b11110,
        "purity.unknown": 0b00001,
    }


@pytest.mark.parametrize(("score", "expected"), [(0.65, True), (0.64, False), (None, False)])
def test_score_alone(score: float | None, expected: bool) -> None:
    """Packets with nothing but a score are judged by it."""
    rows = pl.DataFrame({"triggersource": [{"rb": score, "fwhm": 99.0}]})
    assert passed(rows) is expected


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, set()),
        ({"reliability": 0.5}, set()),
        ({"reliability": 0.49}, {"reliability"}),
        ({"pixelFlags_cr": True}, {"good_pixels"}),
        ({"shape_flag": True}, {"good_fits"}),
        ({"pixelFlags_injected": True}, {"not_injected"}),
        ({"isDipole": True}, {"not_dipole"}),
    ],
)
def test_dia_source(changes: dict[str, object], failing: set[str]) -> None:
    """Difference-image sources are judged by their reliability and their flags."""
    found = explain(PURITY, dia_source(**changes))
    assert {cut.name for cut in found.cuts if cut.verdict == "fail"} == failing


def test_raised_flags_are_named() -> None:
    """The value of a flag cut is the list of flags that are set."""
    found = explain(PURITY, dia_source(pixelFlags_cr=True, pixelFlags_edge=True))
    assert found.cuts[1].value == "pixelFlags_cr, pixelFlags_edge"


def test_missing_flag_is_unknown_unless_another_is_set() -> None:
    """A missing flag decides nothing, and a set flag decides alone."""
    unknown = explain(PURITY, dia_source(pixelFlags_cr=None)).cuts[1].verdict
    failed = explain(PURITY, dia_source(pixelFlags_cr=None, pixelFlags_bad=True)).cuts[1].verdict
    assert (unknown, failed) == ("unknown", "fail")


def test_schema_without_dipole_flag() -> None:
    """An older schema is judged by the flags that it has."""
    rows = pl.DataFrame({"diaSource": [{"reliability": 0.9, **dict.fromkeys(FLAGS, False)}]})
    assert [cut.name for cut in explain(PURITY, rows).cuts][-1] == "not_injected"


def test_few_flags() -> None:
    """A packet with four pixel flags is judged by those."""
    flags = dict.fromkeys(("bad", "cr", "edge", "saturated"), False)
    record = {f"pixelFlags_{name}": value for name, value in flags.items()}
    rows = pl.DataFrame({"diaSource": [record | {"reliability": 0.7, "isdiffpos": True}]})
    assert passed(rows)


def test_signal_to_noise() -> None:
    """Simulated packets without scores are judged by their significance."""
    rows = pl.DataFrame({"diaSource": [{"snr": 5.0, "psFlux": 1.0}, {"snr": 4.9, "psFlux": 1.0}]})
    assert evaluate([PURITY], rows).passed("purity").tolist() == [True, False]


def test_attributes() -> None:
    """The verdict and each cut are message attributes, 0 or 1."""
    found = evaluate([PURITY], candidate(nbad=3)).attributes().row(0, named=True)
    ones = {"rb": 1, "fwhm": 1, "elong": 1, "magdiff": 1}
    assert found == {"is_pure": 0, "nbad": 0, **ones}


def test_margin_is_positive_on_the_passing_side() -> None:
    """The margin says how far the value is from the threshold."""
    found = {cut.name: cut.margin for cut in explain(PURITY, candidate(magdiff=-0.3)).cuts}
    expected = {"rb": 0.25, "nbad": 0.0, "fwhm": 3.0, "elong": 0.1, "magdiff": -0.2}
    assert found == pytest.approx(expected, abs=1e-6)


def test_batch() -> None:
    """Each alert of a batch has its own verdict."""
    rows = pl.concat([candidate(rb=score) for score in (0.7, 0.1, 0.65)])
    np.testing.assert_array_equal(evaluate([PURITY], rows).passed("purity"), [True, False, True])
