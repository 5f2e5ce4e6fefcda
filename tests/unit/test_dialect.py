"""Translation of BigQuery's SQL: which tables are asked for, and what becomes of the text."""

import pytest

from broker.connectors.tables.dialect import Relation, translate
from broker.errors import UsageError


class Tables:
    """Remembers which tables were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, dataset: str, table: str) -> Relation:
        """Stand in for any table."""
        self.asked.append((dataset, table))
        return Relation(f"FROM {dataset}_{table}", frozenset({"history"}))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", []),
        ("SELECT 1 FROM d.t", [("d", "t")]),
        ("SELECT 1 FROM `d.t`", [("d", "t")]),
        ("SELECT 1 FROM `my-project.d.t`", [("d", "t")]),
        ("SELECT 1 FROM `my-project`.`d`.`t`", [("d", "t")]),
        ("SELECT 1 FROM d.t AS a JOIN d.t AS b USING (x)", [("d", "t")]),
        ("SELECT 1 FROM d.t JOIN d.u USING (x)", [("d", "t"), ("d", "u")]),
        ("WITH t AS (SELECT * FROM d.u) SELECT * FROM t", [("d", "u")]),
        ("SELECT (SELECT MAX(x) FROM d.u) FROM d.t", [("d", "t"), ("d", "u")]),
        ("SELECT 1 FROM d.t, UNNEST(history) h", [("d", "t")]),
        ("SELECT 1 FROM d.t AS a, a.history AS h", [("d", "t")]),
        ("SELECT 'FROM d.u' FROM d.t -- FROM d.v", [("d", "t")]),
    ],
)
def test_asks_for_the_tables_it_reads(sql: str, expected: list[tuple[str, str]]) -> None:
    """Each table that is read is asked for, and none else."""
    tables = Tables()
    translate(sql, tables)

    assert set(tables.asked) == set(expected)


def test_table_is_replaced_in_place() -> None:
    """The stand-in takes the table's name, so that columns can be qualified with it."""
    sql = translate("SELECT t.x FROM d.t WHERE d.t.y = 1", Tables()).sql

    assert sql == "SELECT t.x FROM (FROM d_t) AS t WHERE t.y = 1"


def test_text_that_looks_like_a_marker_stays() -> None:
    """Only tables are replaced, never a user's text."""
    sql = translate("SELECT '\"d.t\"' AS x FROM d.t", Tables()).sql

    assert sql == "SELECT '\"d.t\"' AS x FROM (FROM d_t) AS t"


def test_parameters_are_named() -> None:
    """Parameters are left for the engine to bind."""
    found = translate("SELECT @b AS x FROM d.t WHERE y = @a OR z = @a", Tables())

    assert found.parameters == ("a", "b")
    assert "$a" in found.sql


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "DROP TABLE d.t",
        "UPDATE d.t SET x = 1 WHERE TRUE",
        "COPY d.t TO 'x'",
        "ATTACH 'x'",
        "PRAGMA x",
        "SELECT * FROM read_parquet('x')",
        "SELECT 'unfinished FROM d.t",
        "SELECT APPROX_TOP_COUNT(x, 1) FROM d.t",
    ],
)
def test_refused(sql: str) -> None:
    """Whatever is not one SELECT from tables is refused."""
    with pytest.raises(UsageError):
        translate(sql, Tables())
