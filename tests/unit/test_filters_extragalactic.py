"""The extragalactic filter: truth tables, order of the history, encodings of the sign."""

from typing import Any

import polars as pl
import pytest

from broker.science.filters import FILTERS, evaluate, explain

EXTRAGALACTIC = FILTERS["extragalactic"]
MINUTE = 1 / 1440
JD = 2459000.7
EPOCH = pl.Struct({"jd": pl.Float64, "isdiffpos": pl.String})
CANDIDATE = pl.Struct(
    {
        "jd": pl.Float64,
        "isdiffpos": pl.String,
        "distpsnr1": pl.Float32,
        "sgscore1": pl.Float32,
        "ssdistnr": pl.Float32,
    }
)
GOOD = {"jd": JD, "isdiffpos": "t", "distpsnr1": 9.0, "sgscore1": 1.0, "ssdistnr": -999.0}
LONG_AGO = {"jd": JD - 3, "isdiffpos": "t"}


def alert(history: list[dict[str, Any]] | None, **changes: Any) -> pl.DataFrame:
    """Make one alert with a history."""
    return pl.DataFrame(
        {"candidate": [GOOD | changes], "prv_candidates": [history]},
        schema={"candidate": CANDIDATE, "prv_candidates": pl.List(EPOCH)},
    )


def epochs(*minutes: float, sign: str | None = "t") -> list[dict[str, Any]]:
    """Make detections so many minutes before the alert."""
    return [{"jd": JD - ago * MINUTE, "isdiffpos": sign} for ago in minutes]


def verdict(rows: pl.DataFrame, cut: str) -> str:
    """Return the verdict of one cut."""
    found = explain(EXTRAGALACTIC, rows).cuts
    return next(one.verdict for one in found if one.name == cut)


def test_all_four_pass() -> None:
    """An alert that meets all four conditions passes."""
    assert evaluate([EXTRAGALACTIC], alert([LONG_AGO])).passed("extragalactic").tolist() == [True]


@pytest.mark.parametrize(
    ("changes", "cut"),
    [
        ({"isdiffpos": "f"}, "is_positive_sub"),
        ({"distpsnr1": 0.5}, "no_pointsource_counterpart"),
        ({"ssdistnr": 1.0}, "no_ssobject"),
    ],
)
def test_one_condition_fails(changes: dict[str, Any], cut: str) -> None:
    """One failing condition is enough to be rejected, and is named."""
    found = explain(EXTRAGALACTIC, alert([LONG_AGO, {"jd": JD - 5, "isdiffpos": "t"}], **changes))
    assert (found.passed, [one.name for one in found.cuts if one.verdict == "fail"]) == (
        False,
        [cut],
    )


@pytest.mark.parametrize(
    ("distance", "score", "expected"),
    [
        (1.5, 0.5, "fail"),
        (1.5, 0.49, "pass"),
        (1.5001, 1.0, "pass"),
        (None, 1.0, "pass"),
        (-999.0, 1.0, "pass"),
        (float("nan"), 1.0, "pass"),
        (0.3, None, "unknown"),
        (None, None, "pass"),
    ],
)
def test_no_pointsource_counterpart(
    distance: float | None, score: float | None, expected: str
) -> None:
    """A near source counts only if it looks like a star."""
    rows = alert([LONG_AGO], distpsnr1=distance, sgscore1=score)
    assert verdict(rows, "no_pointsource_counterpart") == expected


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(-999.0, "pass"), (None, "pass"), (5.0001, "pass"), (5.0, "fail"), (0.0, "fail")],
)
def test_no_ssobject(distance: float | None, expected: str) -> None:
    """A known solar-system object within 5 arcsec rejects the alert."""
    assert verdict(alert([LONG_AGO], ssdistnr=distance), "no_ssobject") == expected


@pytest.mark.parametrize(
    ("sign", "expected"),
    [("t", "pass"), ("1", "pass"), ("f", "fail"), ("0", "fail"), (None, "unknown")],
)
def test_sign_of_the_subtraction(sign: str | None, expected: str) -> None:
    """Both encodings of the sign are understood."""
    assert verdict(alert([LONG_AGO], isdiffpos=sign), "is_positive_sub") == expected


@pytest.mark.parametrize(("sign", "expected"), [(True, "pass"), (False, "fail")])
def test_boolean_sign(sign: bool, expected: str) -> None:
    """A sign sent as a boolean is understood."""
    kinds = pl.Struct({f.name: f.dtype for f in CANDIDATE.fields} | {"isdiffpos": pl.Boolean})
    rows = alert([LONG_AGO]).with_columns(candidate=pl.lit(GOOD | {"isdiffpos": sign}, dtype=kinds))
    assert verdict(rows, "is_positive_sub") == expected


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (epochs(31), "pass"),
        (epochs(30), "pass"),
        (epochs(29), "fail"),
        (epochs(31, sign="1"), "pass"),
        (epochs(31, sign="f"), "fail"),
        (epochs(31, sign=None), "fail"),
        ([], "fail"),
        (None, "fail"),
        (epochs(10, 20, 35), "fail"),
        (epochs(10, 20, 51), "pass"),
        (epochs(31, -0.0), "pass"),
    ],
)
def test_not_moving(history: list[dict[str, Any]] | None, expected: str) -> None:
    """Two consecutive positive detections must lie at least 30 min apart."""
    assert verdict(alert(history), "not_moving") == expected


@pytest.mark.parametrize("minutes", [(51, 20, 10), (10, 51, 20), (20, 10, 51)])
def test_order_of_the_history_does_not_matter(minutes: tuple[float, ...]) -> None:
    """The history is sorted by time before gaps are taken."""
    found = explain(EXTRAGALACTIC, alert(epochs(*minutes))).cuts[2]
    assert (found.verdict, found.value) == ("pass", 31.0)


def test_too_few_detections_have_a_reason() -> None:
    """A single detection fails with words, not with a number."""
    found = explain(EXTRAGALACTIC, alert(None)).cuts[2]
    assert found.reason == "fewer than two detections in positive subtractions"


def test_independent_of_purity() -> None:
    """An alert may pass one of the two filters and not the other."""
    rows = alert([LONG_AGO]).with_columns(
        pl.col("candidate").struct.with_fields(rb=0.1, nbad=0, fwhm=2.0, elong=1.0, magdiff=0.0)
    )
    verdicts = evaluate(list(FILTERS.values()), rows)
    assert [verdicts.passed(name)[0] for name in ("extragalactic", "purity")] == [True, False]


def test_attributes_have_the_published_names() -> None:
    """The verdicts travel under the names that subscribers filter on."""
    found = evaluate([EXTRAGALACTIC], alert([LONG_AGO])).attributes()
    assert found.columns == [
        "is_extragalactic_transient",
        "is_positive_sub",
        "no_pointsource_counterpart",
        "not_moving",
        "no_ssobject",
    ]


def test_accepted_without_a_cut() -> None:
    """Packets on whose cuts nobody agreed always pass, every row of the batch."""
    rows = pl.DataFrame({"triggersource": [{"sourceid": 1}, {"sourceid": 2}], "sources": [[], []]})
    assert evaluate([EXTRAGALACTIC], rows).passed("extragalactic").tolist() == [True, True]


SOURCE = {"psfFlux": 900.0, "midpointMjdTai": 61000.3, "ssObjectId": 0, "ra": 150.1, "dec": 2.2}
EARLIER = {"psfFlux": 500.0, "midpointMjdTai": 60999.2}


def dia_source(history: list[dict[str, float]] | None, **changes: Any) -> pl.DataFrame:
    """Make one alert of a difference-image source."""
    record = SOURCE | {"isNegative": False} | changes
    kinds = pl.List(pl.Struct({"psfFlux": pl.Float32, "midpointMjdTai": pl.Float64}))
    rows = pl.DataFrame({"diaSource": [record]})
    return rows.with_columns(prvDiaSources=pl.Series([history], dtype=kinds))


@pytest.mark.parametrize(
    ("history", "changes", "failing"),
    [
        ([EARLIER], {}, []),
        ([EARLIER], {"ssObjectId": None}, []),
        ([EARLIER], {"ssObjectId": 21164723922809665}, ["no_ssobject"]),
        ([EARLIER], {"isNegative": True}, ["is_positive_sub"]),
        ([EARLIER, EARLIER | {"midpointMjdTai": 1.0}], {"psfFlux": -9.0}, ["is_positive_sub"]),
        ([EARLIER | {"psfFlux": -1.0}], {}, ["not_moving"]),
        (None, {}, ["not_moving"]),
        ([EARLIER], {"ra": 266.4, "dec": -29.0}, ["off_galactic_plane"]),
    ],
)
def test_dia_source(
    history: list[dict[str, float]] | None, changes: dict[str, Any], failing: list[str]
) -> None:
    """Difference-image sources are judged by flux, association, history and latitude."""
    found = explain(EXTRAGALACTIC, dia_source(history, **changes))
    assert [cut.name for cut in found.cuts if cut.verdict == "fail"] == failing


def test_galactic_latitude() -> None:
    """The latitude of the north Galactic pole is 90 degrees."""
    rows = dia_source([EARLIER], ra=192.85948, dec=27.12825)
    assert explain(EXTRAGALACTIC, rows).cuts[3].value == pytest.approx(90.0, abs=1e-4)


def test_simulated_needs_a_host() -> None:
    """A simulated alert without a host galaxy is rejected by that cut."""
    rows = pl.DataFrame(
        {
            "diaSource": [{"psFlux": 9.0, "midPointTai": 59000.0}],
            "prvDiaSources": [[{"psFlux": 8.0, "midPointTai": 58990.0}]],
            "diaObject": [{"hostgal_snsep": -9.0}],
        }
    )
    found = explain(EXTRAGALACTIC, rows)
    assert [cut.name for cut in found.cuts if cut.verdict == "fail"] == ["has_host"]
