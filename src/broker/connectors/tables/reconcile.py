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
    return [
        {name: _engine_type(it) for name, it in after.items() if it != before[name]}
        for before, after in zip(schemas, _agreeing(schemas), strict=True)
    ]


def united(schemas: Sequence[pl.Schema]) -> dict[str, pl.DataType]:
    """Return the columns that a query over all schemas sees, in order of appearance.

    Examples
    --------
    >>> united([pl.Schema({"x": pl.Int32()}), pl.Schema({"x": pl.Float32(), "y": pl.String()})])
    {'x': Float64, 'y': String}
    """
    found: dict[str, pl.DataType] = {}
    for schema in _agreeing(schemas):
        for name, dtype in schema.items():
            found[name] = _wider(found[name], dtype) if name in found else dtype
    return found


def _agreeing(schemas: Sequence[pl.Schema]) -> list[dict[str, pl.DataType]]:
    """Return the schemas with one kind for each column and field."""
    found: dict[_Path, list[pl.DataType]] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            for path, inner in _walk((name.lower(),), dtype):
                found.setdefault(path, []).append(inner)
    winners = {path: _winner(dtypes) for path, dtypes in found.items() if _differ(dtypes)}
    return [
        {name: _adjusted((name.lower(),), it, winners) for name, it in schema.items()}
        for schema in schemas
    ]


def _wider(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    if one == other:
        return one
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        fields = {it.name: instance(it.dtype) for it in one.fields}
        for it in other.fields:
            dtype = instance(it.dtype)
            fields[it.name] = _wider(fields[it.name], dtype) if it.name in fields else dtype
        return pl.Struct(fields)
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        return pl.List(_wider(instance(one.inner), instance(other.inner)))
    if one.is_numeric() and other.is_numeric():
        return pl.Float64() if one.is_float() or other.is_float() else pl.Int64()
    return one if one.is_temporal() and other.is_temporal() else pl.String()


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
