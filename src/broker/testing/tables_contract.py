"""What every `Tables` does, as tests to inherit."""

from typing import Any

import polars as pl
import pytest

from broker.errors import UsageError
from broker.ports import BatchKey, Tables
from broker.testing.tables_queries import NEWER, OLDER, QUERIES


class TablesContract:
    """Inherit, and give the fixture `tables`, empty."""

    @pytest.fixture
    def filled(self, tables: Tables) -> Tables:
        """Return tables of two schemas: ``d.alerts`` and ``d.other``."""
        tables.append("d", "alerts", OLDER, BatchKey("w0", 0))
        tables.append("d", "alerts", NEWER, BatchKey("w0", 1))
        other = pl.DataFrame({"objectId": ["B"], "kind": ["SN"]})
        tables.append("d", "other", other, BatchKey("w0", 0))
        return tables

    @pytest.mark.parametrize(("sql", "expected"), QUERIES, ids=[sql for sql, _ in QUERIES])
    def test_query(self, filled: Tables, sql: str, expected: list[tuple[Any, ...]]) -> None:
        """BigQuery's dialect gives BigQuery's rows."""
        assert filled.query(sql).rows() == expected

    def test_rows_come_back(self, tables: Tables) -> None:
        """Columns keep their values and kinds, nested ones and 64-bit integers included."""
        tables.append("d", "alerts", OLDER, BatchKey("w0", 0))

        found = tables.query("SELECT * FROM d.alerts ORDER BY candid")

        assert found.to_dicts() == OLDER.to_dicts()
        assert found.schema["candid"] == pl.Int64

    def test_schemas_unite(self, filled: Tables) -> None:
        """A column that a row's schema lacks is null; a number takes the wider type."""
        found = filled.query(
            "SELECT candid, nbad, rb, drb, candidate FROM d.alerts ORDER BY candid"
        )

        assert found["nbad"].to_list() == [0, 1, 2, 2**40]
        assert found["drb"].to_list() == [None, None, None, 0.99]
        assert found["candidate"].struct.field("drb").to_list() == [None, None, None, 0.99]
        assert found["candidate"].struct.field("jd").to_list() == [1.0, 2.0, 1.5, 3.0]
        assert found.schema["rb"] == pl.Float64
        assert found.schema["nbad"] == pl.Int64

    def test_same_key_does_nothing(self, filled: Tables) -> None:
        """A batch that is appended again is there once."""
        filled.append("d", "alerts", OLDER, BatchKey("w0", 0))

        assert filled.query("SELECT COUNT(*) FROM d.alerts").item() == 4

    def test_keys_of_workers_differ(self, filled: Tables) -> None:
        """The same number of another worker is another batch."""
        filled.append("d", "alerts", OLDER, BatchKey("w1", 0))

        assert filled.query("SELECT COUNT(*) FROM d.alerts").item() == 7

    def test_empty_rows_make_the_table(self, tables: Tables) -> None:
        """A table without rows can be queried."""
        tables.append("d", "alerts", OLDER.clear(), BatchKey("w0", 0))

        assert tables.query("SELECT candid FROM d.alerts").height == 0

    def test_parameters(self, filled: Tables) -> None:
        """Values are bound, whatever they contain."""
        sql = "SELECT COUNT(*) FROM d.alerts WHERE objectId = @id AND jd > @jd"

        assert filled.query(sql, {"id": "A", "jd": 1.0}).item() == 1
        assert filled.query(sql, {"id": "' OR TRUE --", "jd": 0}).item() == 0

    def test_array_parameter(self, filled: Tables) -> None:
        """A list can be searched."""
        sql = "SELECT COUNT(*) FROM d.alerts WHERE objectId IN UNNEST(@ids)"

        assert filled.query(sql, {"ids": ["B", "C"]}).item() == 2

    def test_integer_parameter_is_exact(self, filled: Tables) -> None:
        """An id of 64 bits finds its row."""
        sql = "SELECT objectId FROM d.alerts WHERE candid = @candid"

        assert filled.query(sql, {"candid": 2**62 + 3}).item() == "B"

    def test_missing_parameter(self, filled: Tables) -> None:
        """A parameter without a value is named."""
        with pytest.raises(UsageError, match="@id"):
            filled.query("SELECT 1 FROM d.alerts WHERE objectId = @id")

    def test_unnamed_columns(self, filled: Tables) -> None:
        """Columns without a name are called f0_, f1_."""
        found = filled.query("SELECT COUNT(*), MAX(jd) AS last, MIN(jd) FROM d.alerts")

        assert found.columns == ["f0_", "last", "f1_"]

    def test_same_name_twice(self, filled: Tables) -> None:
        """A second column of one name is numbered."""
        found = filled.query("SELECT a.jd, b.jd FROM d.alerts a JOIN d.alerts b USING (candid)")

        assert found.columns == ["jd", "jd_1"]

    def test_unknown_table(self, filled: Tables) -> None:
        """An unknown table is told with those that there are."""
        with pytest.raises(UsageError, match=r"d\.nothing.*d\.alerts, d\.other"):
            filled.query("SELECT 1 FROM d.nothing")

    def test_unknown_column(self, filled: Tables) -> None:
        """The engine's words say which column is wrong."""
        with pytest.raises(UsageError, match="nonsense"):
            filled.query("SELECT nonsense FROM d.alerts")

    @pytest.mark.parametrize(
        "sql",
        [
            "",
            "SELECT",
            "SELECT FROM WHERE",
            "DROP TABLE d.alerts",
            "DELETE FROM d.alerts WHERE TRUE",
            "INSERT INTO d.alerts SELECT * FROM d.alerts",
            "CREATE TABLE d.x AS SELECT * FROM d.alerts",
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP TABLE d.alerts",
            "SET x = 1",
            "EXPORT DATA OPTIONS (uri='x') AS SELECT 1",
            "CALL x()",
        ],
    )
    def test_only_one_select(self, filled: Tables, sql: str) -> None:
        """Nothing but one SELECT is run."""
        with pytest.raises(UsageError):
            filled.query(sql)
        assert filled.query("SELECT COUNT(*) FROM d.alerts").item() == 4

    def test_tables_tells_columns(self, filled: Tables) -> None:
        """Tables and the types of their columns are listed, schemas united."""
        found = filled.tables()

        assert list(found) == ["d.alerts", "d.other"]
        assert found["d.other"] == {"objectId": "STRING", "kind": "STRING"}
        assert found["d.alerts"]["candid"] == "INT64"
        assert found["d.alerts"]["rb"] == found["d.alerts"]["drb"] == "FLOAT64"
        assert found["d.alerts"]["prv_candidates"].startswith("ARRAY<STRUCT<")

    def test_compact_changes_no_row(self, filled: Tables) -> None:
        """Rows and keys are the same after many small batches were merged."""
        for number in range(2, 40):
            filled.append("d", "alerts", OLDER, BatchKey("w0", number))
        query = "SELECT objectId, candid, jd, prv_candidates FROM d.alerts ORDER BY candid, jd"
        before = filled.query(query)

        filled.compact()
        filled.append("d", "alerts", OLDER, BatchKey("w0", 7))

        assert filled.query(query).to_dicts() == before.to_dicts()
