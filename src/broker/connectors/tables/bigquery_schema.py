"""Columns of rows as BigQuery has them: names, types, and how schemas of one table unite.

Every column is nullable, arrays apart, which BigQuery never has as null. A column or field
whose kind has changed (a number that was a structure once) gets a column of its own beside
the old one, named after its type: ``x``, ``x_float64``.
"""

import re
from collections.abc import Sequence
from itertools import chain, count
from typing import Any

import polars as pl
import pyarrow as pa
from google.cloud.bigquery import SchemaField

_INVALID = re.compile(r"[^A-Za-z0-9_]")
# BigQuery keeps these for itself.
_RESERVED = re.compile(r"_(table_|file_|partition|row_timestamp|__root__|colidentifier)", re.I)
_LONGEST = 300
# Legacy names, which the service answers with, as the types that arrays of them have.
_TYPES: dict[str, pa.DataType] = {
    "STRING": pa.large_string(),
    "BYTES": pa.large_binary(),
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "NUMERIC": pa.decimal128(38, 9),
}
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_LEGACY = {new: old for old, new in _STANDARD.items()}
# A column takes values of these types besides its own.
_ALSO_TAKES = {"FLOAT": ("INTEGER",), "STRING": ("INTEGER", "FLOAT", "BOOLEAN")}

Fields = Sequence[SchemaField]


def fields_of(frame: pl.DataFrame) -> list[SchemaField]:
    """Return the columns that BigQuery has for those of a frame, in their order."""
    return _fields(list(frame.clear().to_arrow().schema))


def unite(fields: Fields, added: Fields) -> tuple[list[SchemaField], list[str]]:
    """Return a table's columns after `added` came, and the column of each of these.

    Examples
    --------
    >>> old, new = SchemaField("x", "INTEGER"), SchemaField("x", "FLOAT")
    >>> united, names = unite([old], [old, SchemaField("y", "STRING")])
    >>> [it.name for it in united], names
    (['x', 'y'], ['x', 'y'])
    >>> unite([old], [new])[1]
    ['x_float64']
    """
    found = {it.name.lower(): it for it in fields}
    names = []
    for each in added:
        name = each.name
        if name.lower() in found and not _takes(found[name.lower()], each):
            name = f"{name}_{_word(each)}"
        before = found.get(name.lower())
        found[name.lower()] = _named(each, name) if before is None else _with(before, each)
        names.append(found[name.lower()].name)
    return list(found.values()), names


def same(one: Fields, other: Fields) -> bool:
    """Tell whether two lists have the same columns and fields, wherever they stand."""
    names = [{it.name.lower(): it for it in fields} for fields in (one, other)]
    return names[0].keys() == names[1].keys() and all(
        same(names[0][name].fields, names[1][name].fields) for name in names[0]
    )


def word_of(field: SchemaField) -> str:
    """Name the type of a column as SQL does: ``ARRAY<STRUCT<jd FLOAT64>>``."""
    word = _STANDARD.get(field.field_type, field.field_type)
    if _is_record(field):
        word = f"STRUCT<{', '.join(f'{it.name} {word_of(it)}' for it in field.fields)}>"
    return f"ARRAY<{word}>" if field.mode == "REPEATED" else word


def arrow_type(field: SchemaField) -> pa.DataType:
    """Return the type of a column's values in memory."""
    if _is_record(field):
        value = pa.struct([(it.name, arrow_type(it)) for it in field.fields])
    else:
        value = _TYPES.get(_legacy(field.field_type), pa.large_string())
    return pa.large_list(value) if field.mode == "REPEATED" else value


def arrow_fields(dtype: pa.DataType) -> list[SchemaField]:
    """Return the columns that BigQuery has for the fields of a structure."""
    return _fields(list(dtype))


def _fields(fields: Sequence[pa.Field]) -> list[SchemaField]:
    names = _distinct([_clean(it.name) for it in fields])
    return [_field(name, it.type) for name, it in zip(names, fields, strict=True)]


def _field(name: str, dtype: pa.DataType) -> SchemaField:
    if is_list(dtype):
        inner = dtype.value_type
        # An array cannot hold an array: a structure with one field comes between them.
        item = pa.struct([("element", inner)]) if is_list(inner) else inner
        field = _field(name, item)
        return SchemaField(name, field.field_type, "REPEATED", fields=field.fields)
    if pa.types.is_struct(dtype):
        return SchemaField(name, "RECORD", "NULLABLE", fields=_fields(list(dtype)))
    return SchemaField(name, _scalar(dtype), "NULLABLE")


def is_list(dtype: pa.DataType) -> bool:
    """Tell whether values are lists, of whatever kind."""
    return bool(
        pa.types.is_list(dtype)
        or pa.types.is_large_list(dtype)
        or pa.types.is_fixed_size_list(dtype)
    )


def _scalar(dtype: pa.DataType) -> str:
    kinds: list[tuple[Any, str]] = [
        (pa.types.is_integer, "INTEGER"),
        (pa.types.is_floating, "FLOAT"),
        (pa.types.is_boolean, "BOOLEAN"),
        (pa.types.is_timestamp, "TIMESTAMP"),
        (pa.types.is_date, "DATE"),
        (pa.types.is_time, "TIME"),
        (pa.types.is_decimal, "NUMERIC"),
        (pa.types.is_large_binary, "BYTES"),
        (pa.types.is_binary, "BYTES"),
        (pa.types.is_binary_view, "BYTES"),
    ]
    return next((word for is_kind, word in kinds if is_kind(dtype)), "STRING")


def _clean(name: str) -> str:
    """Spell a name with what BigQuery allows: letters, digits, ``_``."""
    text = _INVALID.sub("_", name)[:_LONGEST]
    if not text or text[0].isdigit():
        text = f"_{text}"
    return f"f{text}" if _RESERVED.match(text) else text


def _distinct(names: Sequence[str]) -> list[str]:
    """Number the repeats of a name; BigQuery does not tell capitals from small letters."""
    found: dict[str, str] = {}
    for name in names:
        options = chain([name], (f"{name}_{i}" for i in count(1)))
        new = next(it for it in options if it.lower() not in found)
        found[new.lower()] = new
    return list(found.values())


def _legacy(kind: str) -> str:
    return _LEGACY.get(kind, kind)


def _is_record(field: SchemaField) -> bool:
    return _legacy(field.field_type) == "RECORD"


def _takes(column: SchemaField, added: SchemaField) -> bool:
    if (column.mode == "REPEATED") != (added.mode == "REPEATED"):
        return False
    kind, other = _legacy(column.field_type), _legacy(added.field_type)
    return kind == other or other in _ALSO_TAKES.get(kind, ())


def _word(field: SchemaField) -> str:
    kind = _STANDARD.get(field.field_type, field.field_type).lower()
    return "array" if field.mode == "REPEATED" else kind


def _named(field: SchemaField, name: str) -> SchemaField:
    return SchemaField(name, field.field_type, field.mode, fields=field.fields)


def _with(column: SchemaField, added: SchemaField) -> SchemaField:
    """Return a column with the fields of `added` that it lacks."""
    if not _is_record(column):
        return column
    fields, _ = unite(column.fields, added.fields)
    if same(fields, column.fields):
        return column
    resource = {**column.to_api_repr(), "fields": [it.to_api_repr() for it in fields]}
    return SchemaField.from_api_repr(resource)
