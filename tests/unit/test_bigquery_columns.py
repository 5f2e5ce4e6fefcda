"""Columns and files for BigQuery, without a BigQuery."""

import io
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

pytest.importorskip("google.cloud.bigquery")

from google.cloud.bigquery import SchemaField

from broker.connectors.tables.bigquery_queries import read_query
from broker.connectors.tables.bigquery_rows import parquet_of
from broker.connectors.tables.bigquery_schema import fields_of, same, unite, word_of
from broker.connectors.tables.types import bigquery_type
from broker.errors import RefusedError, UsageError
from broker.testing.tables_queries import NEWER, OLDER


def written(rows: pl.DataFrame, *others: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of the file for a table that has the columns of all frames."""
    fields: list[SchemaField] = []
    for frame in (*others, rows):
        fields, _ = unite(fields, fields_of(frame))
    return pq.read_table(io.BytesIO(parquet_of(rows, fields))).to_pylist()


def test_types_are_those_of_the_other_tables() -> None:
    """Columns are called the same wherever rows are kept."""
    found = {it.name: word_of(it) for it in fields_of(NEWER)}

    assert found == {name: bigquery_type(dtype) for name, dtype in NEWER.schema.items()}


def test_integers_are_never_floats() -> None:
    """Numbers of every width keep their kind."""
    kinds = (pl.Int8, pl.UInt16, pl.Int32, pl.UInt32, pl.Int64)
    rows = pl.DataFrame({f"c{i}": pl.Series([1], dtype=kind) for i, kind in enumerate(kinds)})

    assert {it.field_type for it in fields_of(rows)} == {"INTEGER"}


def test_everything_is_nullable() -> None:
    """No version of a schema can make a column that another lacks mandatory."""
    assert {it.mode for it in fields_of(OLDER)} == {"NULLABLE", "REPEATED"}


def test_file_has_all_columns() -> None:
    """Columns and fields that rows lack are null, or empty arrays, in the table's order."""
    (row,) = written(OLDER.tail(1), NEWER)

    assert list(row) == [*NEWER.columns]
    assert row["drb"] is None
    assert row["candidate"] == {"drb": None, "jd": 1.5, "magpsf": None}
    assert row["prv_candidates"] == []


def test_file_of_part_of_a_frame() -> None:
    """Rows that were cut out of others keep their own values."""
    assert [row["candid"] for row in written(OLDER.slice(1, 2))] == [2**62 + 2, 2**62 + 3]
    assert written(OLDER.slice(1, 1))[0]["prv_candidates"] == [{"jd": 0.3, "magpsf": 19.5}]


def test_null_structures_stay_null() -> None:
    """Also within others."""
    rows = pl.DataFrame({"s": [{"t": {"x": 1}}, {"t": None}, None]})

    assert [row["s"] for row in written(rows)] == rows["s"].to_list()


def test_clocks_are_utc() -> None:
    """Times without a zone are taken for UTC, as the surveys mean them."""
    rows = pl.DataFrame({"t": [datetime(2026, 1, 1)]}, schema={"t": pl.Datetime("ms")})

    assert written(rows)[0]["t"] == datetime(2026, 1, 1, tzinfo=UTC)


def test_value_that_does_not_fit() -> None:
    """A number that no INT64 holds is refused, and its column named."""
    with pytest.raises(RefusedError, match="'id'"):
        written(pl.DataFrame({"id": pl.Series([2**64 - 1], dtype=pl.UInt64)}))


def test_united_columns_are_a_fixed_point() -> None:
    """Columns that came once are not added again, whatever their order or capitals."""
    old, new = fields_of(OLDER), fields_of(NEWER)
    united, _ = unite(old, new)

    for fields in (old, new, list(reversed(new)), united):
        assert same(unite(united, fields)[0], united)
    assert not same(united, old)


def test_descriptions_stay() -> None:
    """What somebody wrote about a column outlives new fields in it."""
    said = SchemaField("s", "RECORD", description="said", fields=[SchemaField("a", "STRING")])
    added = SchemaField("S", "RECORD", fields=[SchemaField("b", "STRING")])

    ((found,), names) = unite([said], [added])

    assert (found.description, [it.name for it in found.fields]) == ("said", ["a", "b"])
    assert names == ["s"]


def test_reserved_names() -> None:
    """Names that BigQuery keeps for itself are changed."""
    found = fields_of(pl.DataFrame({"_PARTITIONTIME": [1], "_TABLE_x": [1], "": [1]}))

    assert [it.name for it in found] == ["f_PARTITIONTIME", "f_TABLE_x", "_"]


def test_query_is_sent_as_written() -> None:
    """Only a query that BigQuery would refuse is spelled anew."""
    sql = "select  a.jd,b.x from d.t a join d.t b using(id)"

    assert read_query(sql, {"unused": object()}) == (sql, [])


def test_repeated_names_are_numbered() -> None:
    """A third ``jd`` avoids what is there already."""
    text, _ = read_query("SELECT a.jd, jd_1, b.JD FROM t", {})

    assert text == "SELECT a.jd, jd_1, b.JD AS JD_2 FROM t"


def test_only_a_select_is_sent() -> None:
    """What could change something never reaches the service."""
    with pytest.raises(UsageError, match="one SELECT"):
        read_query("DELETE FROM d.t WHERE TRUE", {})
