"""Types of columns: BigQuery's words for them, and integers that stay integers."""

from collections.abc import Iterable, Iterator

import polars as pl
from polars.datatypes import DataType, DataTypeClass

_WORDS: dict[type[DataType] | DataTypeClass, str] = {
    pl.String: "STRING",
    pl.Categorical: "STRING",
    pl.Enum: "STRING",
    pl.Binary: "BYTES",
    pl.Boolean: "BOOL",
    pl.Date: "DATE",
    pl.Datetime: "TIMESTAMP",
    pl.Time: "TIME",
    pl.Decimal: "NUMERIC",
}


def bigquery_type(dtype: pl.DataType) -> str:
    """Name a type as BigQuery does."""
    if isinstance(dtype, pl.Struct):
        inside = ", ".join(f"{it.name} {bigquery_type(instance(it.dtype))}" for it in dtype.fields)
        return f"STRUCT<{inside}>"
    if isinstance(dtype, pl.List | pl.Array):
        return f"ARRAY<{bigquery_type(instance(dtype.inner))}>"
    if dtype.is_integer():
        return "INT64"
    if dtype.is_float():
        return "FLOAT64"
    return _WORDS.get(dtype.base_type(), "STRING")


def struct_arrays(schemas: Iterable[pl.Schema]) -> frozenset[str]:
    """Return the names of all arrays of structs, nested ones too, in lower case."""
    return frozenset(
        name.lower()
        for schema in schemas
        for column, dtype in schema.items()
        for name in _struct_arrays(column, dtype)
    )


def _struct_arrays(name: str, dtype: pl.DataType) -> Iterator[str]:
    is_array = isinstance(dtype, pl.List | pl.Array)
    inner = instance(dtype.inner) if isinstance(dtype, pl.List | pl.Array) else dtype
    if isinstance(inner, pl.Struct):
        if is_array:
            yield name
        for field in inner.fields:
            yield from _struct_arrays(field.name, instance(field.dtype))
    elif is_array:
        yield from _struct_arrays(name, inner)


def exact_integers(frame: pl.DataFrame) -> pl.DataFrame:
    """Turn the engine's wide integers, such as sums, into Int64.

    Raises
    ------
    polars.exceptions.InvalidOperationError
        If a value does not fit.
    """
    schema = frame.schema
    narrow = {name: _narrow(dtype) for name, dtype in schema.items()}
    changed = {name: dtype for name, dtype in narrow.items() if dtype != schema[name]}
    if not changed:
        return frame
    return frame.with_columns(pl.col(name).cast(dtype) for name, dtype in changed.items())


def _narrow(dtype: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.Decimal) and dtype.scale == 0:
        return pl.Int64()
    if isinstance(dtype, pl.List):
        return pl.List(_narrow(instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        return pl.Struct([pl.Field(it.name, _narrow(instance(it.dtype))) for it in dtype.fields])
    return dtype


def instance(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    """Return a type as an instance, which Polars does not always hand out."""
    return dtype if isinstance(dtype, pl.DataType) else dtype()
