"""One SELECT and its parameters, as BigQuery takes them."""

from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, count
from typing import Any

import numpy as np
import polars as pl
from google.cloud import bigquery
from sqlglot import exp

from broker.connectors.tables.dialect import parse_select
from broker.errors import UsageError

# In this order: a bool is an int, and a datetime is a date.
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "BOOL"),
    (int, "INT64"),
    (float, "FLOAT64"),
    (str, "STRING"),
    (bytes, "BYTES"),
    (datetime, "TIMESTAMP"),
    (date, "DATE"),
    (time, "TIME"),
    (Decimal, "NUMERIC"),
)


def read_query(sql: str, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return the SQL that is run and its parameters.

    A second column of one name, which BigQuery refuses, is numbered.

    Raises
    ------
    UsageError
        If it is not one SELECT, or a parameter has no value or none of a type that we know.
    """
    tree = parse_select(sql)
    names = sorted({it.name for it in tree.find_all(exp.Parameter)})
    if missing := [name for name in names if name not in values]:
        raise UsageError(f"the query needs a value for @{missing[0]}")
    parameters = [_parameter(name, values[name]) for name in names]
    return (tree.sql("bigquery") if _number_repeats(tree) else sql), parameters


def _number_repeats(tree: exp.Query) -> bool:
    """Number the repeats of a column's name: ``jd``, ``jd_1``; tell whether there were any."""
    if not isinstance(tree, exp.Select):
        return False
    found: set[str] = set()
    repeats = False
    for column in list(tree.expressions):
        name = column.output_name
        if not name or column.is_star:
            continue
        options = chain([name], (f"{name}_{i}" for i in count(1)))
        new = next(it for it in options if it.lower() not in found)
        found.add(new.lower())
        if new != name:
            column.replace(exp.alias_(column.unalias().copy(), new))
            repeats = True
    return repeats


def _parameter(name: str, value: Any) -> Any:
    if isinstance(value, pl.Series | np.ndarray):
        value = value.tolist() if isinstance(value, np.ndarray) else value.to_list()
    if isinstance(value, list | tuple | set | frozenset):
        values = [_plain(each) for each in value]
        first = next((each for each in values if each is not None), None)
        return bigquery.ArrayQueryParameter(name, _type(name, first), values)
    value = _plain(value)
    return bigquery.ScalarQueryParameter(name, _type(name, value), value)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _type(name: str, value: Any) -> str:
    """Name a value's type; a null is text, for want of anything better."""
    if value is None:
        return "STRING"
    for kind, word in _TYPES:
        if isinstance(value, kind):
            return word
    raise UsageError(f"the value of @{name} is of a type that no query takes: {type(value)}")
