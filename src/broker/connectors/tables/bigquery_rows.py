"""Rows as the Parquet file that BigQuery loads: all columns of the table, in its types."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from broker.connectors.tables.bigquery_schema import (
    Fields,
    arrow_fields,
    arrow_type,
    is_list,
    unite,
)
from broker.errors import RefusedError


def parquet_of(rows: pl.DataFrame, fields: Fields) -> bytes:
    """Write rows with a table's columns; those that they lack are null, or empty arrays.

    Nulls within arrays, which BigQuery refuses, are left out.

    Raises
    ------
    RefusedError
        If a value does not fit its column, such as an integer that no FLOAT64 holds.
    """
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    arrays = [_whole(column) for column in table.columns]
    added = arrow_fields(pa.struct(list(table.schema)))
    filled = _filled(arrays, added, fields, rows.height)
    types = [pa.field(it.name, arrow_type(it)) for it in fields]
    buffer = BytesIO()
    made = pa.Table.from_arrays(filled, schema=pa.schema(types))
    pq.write_table(made, buffer, compression="zstd", compression_level=1, store_schema=False)
    return buffer.getvalue()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _filled(
    arrays: Sequence[pa.Array], added: Fields, fields: Fields, height: int
) -> list[pa.Array]:
    """Return one array for each of `fields`."""
    _, names = unite(fields, added)
    given = dict(zip(names, arrays, strict=True))
    return [
        _cast(given[it.name], it) if it.name in given else _nothing(arrow_type(it), height)
        for it in fields
    ]


def _nothing(dtype: pa.DataType, height: int) -> pa.Array:
    if not is_list(dtype):
        return pa.nulls(height, dtype)
    offsets = pa.array(np.zeros(height + 1, dtype=np.int64))
    return pa.LargeListArray.from_arrays(offsets, pa.array([], dtype.value_type))


def _cast(array: pa.Array, field: Any) -> pa.Array:
    if field.mode == "REPEATED":
        return _list(array, arrow_type(field).value_type, field)
    if pa.types.is_struct(array.type):
        return _struct(array, field)
    target = arrow_type(field)
    # Times lose what is finer than microseconds; a number that would change is refused.
    exact = not pa.types.is_temporal(target)
    try:
        return pc.cast(array, target, safe=exact)
    except pa.ArrowException as error:
        raise RefusedError(f"column {field.name!r} cannot take a value: {error}") from error


def _struct(array: pa.Array, field: Any) -> pa.Array:
    added = arrow_fields(array.type)
    children = _filled(array.flatten(), added, field.fields, len(array))
    types = list(arrow_type(field) if field.mode != "REPEATED" else arrow_type(field).value_type)
    return pa.StructArray.from_arrays(children, fields=types, mask=array.is_null())


def _list(array: pa.Array, inner: pa.DataType, field: Any) -> pa.Array:
    """Return lists without nulls, themselves or within."""
    values, parents = array.flatten(), pc.list_parent_indices(array)
    if values.null_count:
        valid = values.is_valid()
        values, parents = values.filter(valid), parents.filter(valid)
    if is_list(values.type):
        values = pa.StructArray.from_arrays([values], names=["element"])
    counts = np.bincount(parents.to_numpy(zero_copy_only=False), minlength=len(array))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    if pa.types.is_struct(inner):
        return pa.LargeListArray.from_arrays(offsets, _struct(values, field))
    item = type(field)(field.name, field.field_type, "NULLABLE")
    return pa.LargeListArray.from_arrays(offsets, _cast(values, item))
