"""Columns that changed their kind between versions of a schema, made one for a query.

Fields that come and go, and numbers that grow wider, the engine unites by itself. What it
cannot unite is, say, a number that was a structure once. There the kind that most versions
have wins, and values of the others are converted, or null where no conversion exists; the
files keep them as they came.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import polars as pl

from broker.connectors.tables.types import instance

_Path = tuple[str, ...]
# Kinds in order of preference among those that equally many versions have. Text and numbers
# are united by the engine, as text.
_KINDS = ("time", "plain", "array", "struct")

_ENGINE_TYPES: dict[type[pl.DataType], str] = {
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt8: "UTINYINT",
    pl.UInt16: "USMALLINT",
    pl.UInt32: "UINTEGER",
    pl.UInt64: "UBIGINT",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
    pl.Boolean: "BOOLEAN",
    pl.Binary: "BLOB",
    pl.Date: "DATE",
    pl.Time: "TIME",
}


def casts(schemas: Sequence[pl.Schema]) -> list[dict[str, str]]:
    """Return, for each schema, the columns to convert and the engine's type for each.

    Examples
    --------
    >>> old, new = pl.Schema({"x": pl.Struct({"y": pl.Int32()})}), pl.Schema({"x": pl.Float32()})
    >>> casts([old, new, new])
    [{'x': 'FLOAT'}, {}, {}]
    """
    found: dict[_Path, list[pl.DataType]] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            for path, inner in _walk((name.lower(),), dtype):
                found.setdefault(path, []).append(inner)
    winners = {path: _winner(dtypes) for path, dtypes in found.items() if _differ(dtypes)}
    if not winners:
        return [{} for _ in schemas]
    return [_of_schema(schema, winners) for schema in schemas]


def _of_schema(schema: pl.Schema, winners: dict[_Path, pl.DataType]) -> dict[str, str]:
    changed = {name: _adjusted((name.lower(),), it, winners) for name, it in schema.items()}
    return {name: _engine_type(it) for name, it in changed.items() if it != schema[name]}


def _walk(path: _Path, dtype: pl.DataType) -> Iterator[tuple[_Path, pl.DataType]]:
    yield path, dtype
    if isinstance(dtype, pl.List):
        yield from _walk((*path, "[]"), instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield from _walk((*path, field.name.lower()), instance(field.dtype))


def _kind(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Struct):
        return "struct"
    if isinstance(dtype, pl.List | pl.Array):
        return "array"
    return "time" if dtype.is_temporal() else "plain"


def _differ(dtypes: Sequence[pl.DataType]) -> bool:
    return len({_kind(dtype) for dtype in dtypes}) > 1


def _winner(dtypes: Sequence[pl.DataType]) -> pl.DataType:
    counts = Counter(map(_kind, dtypes))
    kind = max(counts, key=lambda it: (counts[it], -_KINDS.index(it)))
    return next(dtype for dtype in dtypes if _kind(dtype) == kind)


def _adjusted(path: _Path, dtype: pl.DataType, winners: dict[_Path, pl.DataType]) -> pl.DataType:
    if path in winners and _kind(winners[path]) != _kind(dtype):
        return winners[path]
    if isinstance(dtype, pl.List):
        return pl.List(_adjusted((*path, "[]"), instance(dtype.inner), winners))
    if isinstance(dtype, pl.Struct):
        return pl.Struct(
            {
                it.name: _adjusted((*path, it.name.lower()), instance(it.dtype), winners)
                for it in dtype.fields
            }
        )
    return dtype


def _engine_type(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Struct):
        fields = (f'"{it.name}" {_engine_type(instance(it.dtype))}' for it in dtype.fields)
        return f"STRUCT({', '.join(fields)})"
    if isinstance(dtype, pl.List | pl.Array):
        return f"{_engine_type(instance(dtype.inner))}[]"
    if isinstance(dtype, pl.Datetime):
        return "TIMESTAMPTZ" if dtype.time_zone else "TIMESTAMP"
    return _ENGINE_TYPES.get(type(dtype), "VARCHAR")
