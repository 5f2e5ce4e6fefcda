"""Read a filter from SQL: each condition joined by AND becomes a named cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import polars as pl
import sqlglot
from sqlglot import exp

from broker.errors import UsageError
from broker.science.filters._base import MAX_CUTS, Cut, Filter, Variant, column

_COMMENT = re.compile(r"^\s*--\s*(name|topic|summary)\s*:\s*(.+?)\s*$", re.MULTILINE)
_WHERE = re.compile(r"\A(?:\s|--[^\n]*\n)*WHERE\b", re.IGNORECASE)
_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.GTE: ">=",
    exp.GT: ">",
    exp.LTE: "<=",
    exp.LT: "<",
    exp.EQ: "==",
}
_ALLOWED = {"expressions", "from_", "from", "where", "kind"}


def sql_filter(text: str, place: Path) -> Filter:
    """Make a filter from SQL text.

    The text is a condition, or a SELECT whose WHERE clause is the condition, in BigQuery's
    dialect. Comments ``-- name: …``, ``-- topic: …`` and ``-- summary: …`` are honoured; the
    name is otherwise that of the file.

    Parameters
    ----------
    text : str
        The SQL.
    place : pathlib.Path
        Its file, for messages and the default name.

    Raises
    ------
    UsageError
        If the text is not a condition that can be evaluated alert by alert; it names the
        file and the line.
    """
    said: dict[str, str] = dict(_COMMENT.findall(text))
    condition = _condition(text, place)
    conjuncts = list(condition.flatten()) if isinstance(condition, exp.And) else [condition]
    if len(conjuncts) > MAX_CUTS:
        raise UsageError(f"{place}: {len(conjuncts)} conditions; a filter has at most {MAX_CUTS}")
    requires = tuple(dict.fromkeys(path for one in conjuncts for path in _paths(one)))
    names = _names(conjuncts)
    cuts = tuple(_cut(name, one, place) for name, one in zip(names, conjuncts, strict=True))
    name = said.get("name", place.stem)
    summary = said.get("summary", f"User filter from {place.name}.")
    return Filter(name, said.get("topic", name), summary, (Variant(requires, cuts),))


def _condition(text: str, place: Path) -> exp.Expr:
    try:
        tree = sqlglot.parse_one(_WHERE.sub(_blank, text), read="bigquery")
    except sqlglot.errors.ParseError as error:
        line = error.errors[0].get("line", 1) if error.errors else 1
        raise UsageError(f"{place}, line {line}: {error.errors[0]['description']}") from error
    except sqlglot.errors.SqlglotError as error:
        raise UsageError(f"{place}, line 1: {error}") from error
    if isinstance(tree, exp.Select):
        return _where(tree, place)
    if not isinstance(tree, exp.Condition):
        raise UsageError(f"{place}, line 1: a filter is a condition or SELECT … WHERE …")
    return cast("exp.Expr", tree)


def _blank(match: re.Match[str]) -> str:
    # Line numbers in messages must stay true.
    return "\n" * match.group().count("\n")


def _where(tree: exp.Select, place: Path) -> exp.Expr:
    used = {name for name, value in tree.args.items() if value}
    if extra := sorted(used - _ALLOWED):
        clauses = ", ".join(extra)
        raise UsageError(
            f"{place}, line 1: a filter has SELECT, FROM and WHERE only, not {clauses}"
        )
    where = tree.args.get("where")
    if where is None:
        raise UsageError(f"{place}, line 1: the SELECT has no WHERE, so nothing to filter on")
    if any(True for _ in where.find_all(exp.Subquery, exp.Unnest)):
        raise UsageError(f"{place}, line {_line(where)}: a filter cannot have a subquery")
    tables = {table.alias_or_name for table in tree.find_all(exp.Table)}
    for one in where.find_all(exp.Column):
        _drop_table(one, tables)
    return cast("exp.Expr", where.this)


def _drop_table(one: exp.Column, tables: set[str]) -> None:
    for part in ("catalog", "db", "table"):
        identifier = one.args.get(part)
        if identifier is not None:
            if identifier.name in tables:
                one.set(part, None)
            return


def _path(one: exp.Column) -> str:
    return ".".join(part.name for part in one.parts)


def _paths(condition: exp.Expr) -> Iterator[str]:
    return (_path(one) for one in condition.find_all(exp.Column))


def _names(conjuncts: list[exp.Expr]) -> list[str]:
    names: list[str] = []
    for number, one in enumerate(conjuncts, 1):
        fields = dict.fromkeys(path.rpartition(".")[2] for path in _paths(one))
        name = "_".join(fields) or f"cut{number}"
        names.append(name if name not in names else f"{name}_{number}")
    return names


def _line(one: exp.Expr) -> int:
    lines = [part.meta.get("line") for part in one.find_all(exp.Identifier)]
    return min((line for line in lines if line), default=1)


def _cut(name: str, condition: exp.Expr, place: Path) -> Cut:
    shown = condition.unnest()
    text = shown.sql()
    try:
        passes = pl.sql_expr(shown.transform(_one_name).sql())
    except (pl.exceptions.PolarsError, pl.exceptions.SQLInterfaceError) as error:
        raise UsageError(f"{place}, line {_line(shown)}: {text}: {error}") from error
    comparison = _COMPARISONS.get(type(shown), "")
    threshold = _number(shown.args.get("expression"))
    if comparison and threshold is not None and isinstance(shown.this, exp.Column):
        return Cut(name, column(_path(shown.this)), passes, threshold, comparison, "", place.name)
    paths = dict.fromkeys(_paths(shown))
    value = pl.struct([column(path).alias(path) for path in paths]) if paths else pl.lit(None)
    return Cut(name, value, passes, text, "", "", place.name)


def _number(node: Any) -> float | None:
    sign = -1.0 if isinstance(node, exp.Neg) else 1.0
    node = node.this if isinstance(node, exp.Neg) else node
    if isinstance(node, exp.Literal) and not node.is_string:
        return sign * float(node.this)
    return None


def _one_name(node: exp.Expr) -> exp.Expr:
    return exp.column(_path(node), quoted=True) if isinstance(node, exp.Column) else node
