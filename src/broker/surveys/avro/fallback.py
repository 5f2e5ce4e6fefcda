"""Columns by way of fastavro's dicts, for schemas that the kernel cannot read."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl

from broker.errors import DecodeError
from broker.surveys.avro.container import read_records
from broker.surveys.avro.schema import AvroSchema
from broker.surveys.avro.shape import Shape, walk
from broker.surveys.avro.units import Part, Units


def decode_units(schema: AvroSchema, wanted: Collection[str] | None, units: Units) -> Part:
    """Decode with fastavro into the frame that the kernel would make."""
    shape = projected(schema.shape, wanted)
    records: list[tuple[int, Mapping[str, Any]]] = []
    values: list[list[Any]] = []
    errors: dict[int, str] = {}
    for index, owner in enumerate(units.owners.tolist()):
        body = units.data[index][units.starts[index] : units.ends[index]]
        try:
            found = read_records(schema, body, int(units.counts[index]))
            rows = [
                [_value(one, record.get(one.name)) for one in shape.columns] for record in found
            ]
        except DecodeError as error:
            errors[owner] = str(error)
        else:
            records += [(index, record) for record in found]
            values += rows
    owners = units.owners[np.fromiter((index for index, _ in records), np.int64, len(records))]
    types = {one.name: one.dtype for one in shape.columns}
    frame = pl.DataFrame(values, schema=types, orient="row")
    blobs = {path: _places(units, records, path) for path, one in walk(shape) if one.is_blob}
    return Part(frame, owners, blobs, errors)


def projected(shape: Shape, wanted: Collection[str] | None, path: str = "") -> Shape:
    """Return a shape with the wanted fields only."""
    if wanted is None:
        return shape
    kept = []
    for child in shape.children if shape.kind == "record" else ():
        inner = f"{path}.{child.name}" if path else child.name
        if inner in wanted:
            kept.append(child)
        elif any(one.startswith(f"{inner}.") for one in wanted):
            kept.append(_inner(child, wanted, inner))
    return _with_children(shape, tuple(kept))


def _inner(child: Shape, wanted: Collection[str], path: str) -> Shape:
    if child.kind == "array":
        return _with_children(child, (_inner(child.children[0], wanted, path),))
    return projected(child, wanted, path)


def _with_children(shape: Shape, children: tuple[Shape, ...]) -> Shape:
    return Shape(shape.kind, shape.name, shape.null, shape.wrapped, children)


def _value(shape: Shape, value: Any) -> Any:
    """Turn one of fastavro's values into what polars takes for the shape's type."""
    if value is None:
        return None
    if shape.kind == "record":
        return {one.name: _value(one, value[one.name]) for one in shape.columns}
    if shape.kind == "array":
        return [_value(shape.children[0], item) for item in value]
    if shape.kind == "map":
        item = shape.children[0]
        return [{"key": key, "value": _value(item, one)} for key, one in value.items()]
    if shape.kind == "int" and not shape.logical and not -(2**31) <= value < 2**31:
        raise DecodeError("an int has more than 32 bits")
    if shape.kind == "union":
        return float(value) if isinstance(shape.dtype, pl.Float64) else value
    return str(value) if isinstance(value, UUID | Decimal) else value


def _places(
    units: Units, records: list[tuple[int, Mapping[str, Any]]], path: str
) -> tuple[Any, Any]:
    """Find where a field's bytes are: any place that holds the same bytes will do."""
    offsets, lengths = [], []
    for index, record in records:
        value: Any = record
        for name in path.split("."):
            value = None if value is None else value.get(name)
        offsets.append(-1 if value is None else units.data[index].find(value))
        lengths.append(-1 if value is None else len(value))
    return np.asarray(offsets, np.int64), np.asarray(lengths, np.int32)
