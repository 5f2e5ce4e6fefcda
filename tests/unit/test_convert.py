"""JSON bodies: nulls, exact integers, times, bytes."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from broker.alerts.convert import clean, to_json_bytes, without_bytes

NAN, INF = float("nan"), float("inf")
MOMENT = datetime(2021, 9, 27, 3, 0, 0, 500_000, tzinfo=UTC)


def only(column: pl.Series) -> object:
    """Write one value and read it back."""
    (body,) = to_json_bytes(column.rename("x").to_frame())
    return json.loads(body)["x"]


@pytest.mark.parametrize("value", [NAN, INF, -INF, None])
def test_no_number_is_null(value: float | None) -> None:
    """What is not a finite number is null, also deep inside."""
    rows = pl.DataFrame({"x": [{"y": [{"z": value}]}]}, schema_overrides={})
    nested = pl.Struct({"y": pl.List(pl.Struct({"z": pl.Float32}))})
    assert json.loads(to_json_bytes(rows.cast({"x": nested}))[0]) == {"x": {"y": [{"z": None}]}}


def test_integers_are_exact() -> None:
    """Ids beyond the precision of a double keep every digit."""
    assert only(pl.Series([3044341005815015012])) == 3044341005815015012


def test_single_precision_is_short() -> None:
    """A number in single precision is written as the survey meant it."""
    assert to_json_bytes(pl.DataFrame({"rb": pl.Series([0.65], dtype=pl.Float32)})) == [
        b'{"rb":0.65}'
    ]


def test_one_object_a_row() -> None:
    """Text with line breaks and quotes does not break the rows apart."""
    rows = pl.DataFrame({"name": ['a\n"b"', "é", None]})
    assert [json.loads(body)["name"] for body in to_json_bytes(rows)] == ['a\n"b"', "é", None]


def test_times_are_seconds() -> None:
    """Times are seconds since 1970, also inside records and lists."""
    rows = pl.DataFrame({"t": [MOMENT], "s": [{"t": MOMENT}], "l": [[MOMENT]]})
    seconds = 1632711600.5
    assert json.loads(to_json_bytes(rows)[0]) == {
        "t": seconds,
        "s": {"t": seconds},
        "l": [seconds],
    }


def test_cutouts_are_left_out() -> None:
    """Bytes are left out: as a column, as a record of bytes and name, and inside a record."""
    rows = pl.DataFrame(
        {
            "candid": [1],
            "cutoutScience": [{"fileName": "a.fits", "stampData": b"x"}],
            "refcutout": [b"x"],
            "source": [{"mag": 1.0, "cutout": b"x"}],
            "sources": [[{"mag": 2.0, "cutout": b"x"}]],
        }
    )
    assert json.loads(to_json_bytes(rows)[0]) == {
        "candid": 1,
        "source": {"mag": 1.0},
        "sources": [{"mag": 2.0}],
    }


def test_missing_record_stays_null() -> None:
    """A record that is null stays null when bytes are taken out of it."""
    kind = pl.Struct({"mag": pl.Float64, "cutout": pl.Binary})
    assert only(pl.Series([None], dtype=kind)) is None


def test_empty_frame() -> None:
    """No rows give no bodies."""
    assert to_json_bytes(pl.DataFrame({"x": [1]}).clear()) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(NAN), None),
        (np.int64(3044341005815015012), 3044341005815015012),
        (np.bool_(True), True),
        (Decimal("1.5"), 1.5),
        (Decimal("NaN"), None),
        (b"abc", "YWJj"),
        (MOMENT, 1632711600.5),
        (MOMENT.replace(tzinfo=None), 1632711600.5),
        (date(1970, 1, 2), 86400.0),
        (np.datetime64("1970-01-01T00:00:01.5"), 1.5),
        (np.datetime64("NaT"), None),
        (np.array([1.0, NAN]), [1.0, None]),
        ((1, {"a": [INF]}), [1, {"a": [None]}]),
        (None, None),
        (True, True),
    ],
)
def test_clean(value: object, expected: object) -> None:
    """Every kind of value has its JSON form."""
    cleaned = clean(value)
    assert cleaned == expected
    assert type(cleaned) is type(expected)


def test_clean_refuses_the_rest() -> None:
    """A value without a JSON form is refused by the name of its type."""
    with pytest.raises(TypeError, match="complex"):
        clean({"x": [1j]})


def test_without_bytes() -> None:
    """A packet keeps everything but its images."""
    packet = {
        "source": {"mag": 1.0, "cutout": b"x"},
        "sources": [{"mag": 2.0, "cutout": b"x"}],
        "cutoutScience": {"fileName": "a.fits", "stampData": b"x"},
        "cutoutTemplate": b"x",
        "note": None,
    }
    kept = {"source": {"mag": 1.0}, "sources": [{"mag": 2.0}], "note": None}
    assert without_bytes(packet) == kept
