"""Files of one batch: what is written as it lies in memory is what every reader finds."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes

from broker.connectors.direct import ALIGN, LEAST_DIRECT, DirectFile, aligned
from broker.connectors.tables.fresh import Prepared
from broker.connectors.tables.parts import write_part

KINDS = [
    *(pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32),
    *(pl.UInt64, pl.Float32, pl.Float64, pl.String, pl.Binary, pl.Date),
    *(pl.Datetime("us", "UTC"), pl.Datetime("ms"), pl.List, pl.Struct),
]
NESTED = pl.DataFrame(
    {
        "id": [1, None, 3],
        "text": ["x", None, "a text too long to lie in its view"],
        "flag": [True, None, False],
        "list": [[1, 2], None, []],
        "records": [[{"x": 1, "y": "q"}, {"x": None, "y": None}], [], None],
        "record": [{"p": 1, "q": {"r": 7}}, None, {"p": None, "q": None}],
        "lists": [[[1], [], None], [[None, 2]], None],
        "deep": [[{"x": [1, 2], "n": {"z": [{"w": b"ab"}]}}, None], [{"x": [], "n": None}], []],
        "day": [date(2020, 1, 1), None, date(1900, 1, 1)],
        "time": [datetime(2020, 1, 1, tzinfo=UTC), None, None],
    },
    schema_overrides={"id": pl.UInt8},
)


def written(rows: pl.DataFrame, folder: Path) -> Path:
    """Write rows as a part; fail if another writer would be needed."""
    prepared = Prepared(rows)
    assert prepared.is_writable
    path = folder / "w0-0000000001.parquet"
    write_part(path, prepared, 1)
    return path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dataframes(allowed_dtypes=KINDS, max_cols=5, max_size=40, allow_null=True))
def test_any_rows_come_back(tmp_path_factory: pytest.TempPathFactory, rows: pl.DataFrame):
    """Rows of any type that is written here are read by Polars and by Arrow as they were."""
    if not Prepared(rows).is_writable:  # a type within a list that is left to others
        return
    path = written(rows, tmp_path_factory.mktemp("part"))

    assert_frame_equal(rows, pl.read_parquet(path))
    by_arrow = pl.from_arrow(pq.read_table(path))
    assert isinstance(by_arrow, pl.DataFrame)
    assert_frame_equal(rows.cast(by_arrow.schema), by_arrow)


@pytest.mark.parametrize(
    "rows",
    [
        NESTED,
        NESTED.head(0),
        NESTED.slice(1),
        NESTED.filter(pl.Series([True, False, True])),
        pl.concat([NESTED] * 11, rechunk=False),
    ],
)
def test_lists_and_records(rows: pl.DataFrame, tmp_path: Path):
    """Nulls at every depth, empty lists, slices and chunks; the query engine reads them too."""
    path = written(rows, tmp_path)

    assert_frame_equal(rows, pl.read_parquet(path))
    found = duckdb.sql(f"SELECT * FROM '{path}'").pl()
    assert_frame_equal(rows.cast(found.schema), found)


def test_floats_keep_every_bit(tmp_path: Path):
    """NaN, infinities and the sign of zero."""
    rows = pl.DataFrame({"x": [float("nan"), float("inf"), -0.0, None, 1e-310]})

    found = pl.read_parquet(written(rows, tmp_path))

    assert rows["x"].to_arrow().buffers()[1].to_pybytes() == (
        found["x"].to_arrow().buffers()[1].to_pybytes()
    )


def test_a_large_batch_passes_the_page_cache_by(tmp_path: Path):
    """What is written in pages and what is left over make one file."""
    rows = pl.DataFrame({"n": range(LEAST_DIRECT // 4), "t": ["some text"] * (LEAST_DIRECT // 4)})

    assert_frame_equal(rows, pl.read_parquet(written(rows, tmp_path)))


@pytest.mark.parametrize("size", [0, 1, 2**21 - 1, 2**21, 5 * 2**20 + 1])
def test_aligned_memory(size: int):
    """It starts at a page, is large enough, and its last byte can be written."""
    memory = aligned(size)
    memory[-1] = 1

    assert len(memory) >= size
    assert np.frombuffer(memory, np.uint8).ctypes.data % ALIGN == 0


def test_a_file_that_refuses_direct_writes(tmp_path: Path):
    """A file system without them gets everything through the cache."""
    rows = pl.DataFrame({"n": range(LEAST_DIRECT // 4)})
    file = DirectFile(tmp_path / "x.parquet", os.O_CREAT)
    file._past = -1
    Prepared(rows).write(file, {})
    file.close()

    assert not file.is_direct
    assert_frame_equal(rows, pl.read_parquet(tmp_path / "x.parquet"))


@pytest.mark.parametrize("kind", [pl.Null, pl.Categorical, pl.Time, pl.Duration, pl.Array(int, 2)])
def test_other_types_are_left_to_polars(tmp_path: Path, kind: pl.DataType):
    """A type that is not known here is stored all the same."""
    rows = pl.DataFrame({"x": [None, None]}, schema={"x": kind})
    prepared = Prepared(rows)
    write_part(tmp_path / "w0-0000000001.parquet", prepared, 1)

    assert not prepared.is_writable
    assert_frame_equal(rows, pl.read_parquet(tmp_path / "w0-0000000001.parquet"))


def test_the_fingerprint_tells_types_apart():
    """Folders are named after columns and their types."""
    ints, floats = pl.DataFrame({"x": [1]}), pl.DataFrame({"x": [1.0]})

    assert Prepared(ints).fingerprint == Prepared(ints.head(0)).fingerprint
    assert Prepared(ints).fingerprint != Prepared(floats).fingerprint
