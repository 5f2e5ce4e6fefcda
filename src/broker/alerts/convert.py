"""JSON bodies: what numbers, times and bytes become when an alert is written as JSON."""

import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from types import NoneType
from typing import Any

import numpy as np
import polars as pl


def to_json_bytes(rows: pl.DataFrame) -> list[bytes]:
    """Write each row as one JSON object.

    Integers stay exact, NaN and infinities become null, times become seconds since 1970
    (UTC), and bytes (cutouts) are left out, at any depth.

    Parameters
    ----------
    rows : polars.DataFrame
        One row an alert, nested.

    Examples
    --------
    >>> to_json_bytes(pl.DataFrame({"candid": [3044341005815015012], "rb": [float("nan")]}))
    [b'{"candid":3044341005815015012,"rb":null}']
    """
    if rows.is_empty():
        return []
    ready = rows.select(list(_columns(rows.schema)))
    if not ready.width:
        return [b"{}"] * rows.height
    buffer = io.BytesIO()
    ready.write_ndjson(buffer)
    return buffer.getvalue().rstrip(b"\n").split(b"\n")


def _columns(schema: pl.Schema) -> Iterator[pl.Expr]:
    for name, kind in schema.items():
        column = _writable(pl.col(name), kind)
        if column is not None:
            yield column.alias(name)


def _writable(value: pl.Expr, kind: Any) -> pl.Expr | None:
    """Turn a column into one that JSON can hold; None if it is left out."""
    if not _needs_change(kind):
        return value
    if isinstance(kind, pl.List):
        inner = _writable(pl.element(), kind.inner)
        return None if inner is None else value.list.eval(inner)
    if isinstance(kind, pl.Struct):
        return _record(value, kind)
    if isinstance(kind, pl.Datetime):
        return value.dt.timestamp("us") / 1e6
    if isinstance(kind, pl.Date):
        return value.cast(pl.Datetime("us")).dt.timestamp("us") / 1e6
    return value.cast(pl.Float64) if isinstance(kind, pl.Decimal) else None


def _record(value: pl.Expr, kind: pl.Struct) -> pl.Expr | None:
    inner = {f.name: _writable(value.struct.field(f.name), f.dtype) for f in kind.fields}
    kept = [field.alias(name) for name, field in inner.items() if field is not None]
    return pl.when(value.is_not_null()).then(pl.struct(kept)) if _has_data(kind) else None


def _has_data(kind: pl.Struct) -> bool:
    """Tell a record of numbers from a cutout, which is bytes and what names them."""
    return any(not isinstance(f.dtype, pl.Binary | pl.String) for f in kind.fields)


def _needs_change(kind: Any) -> bool:
    if isinstance(kind, pl.List):
        return _needs_change(kind.inner)
    if isinstance(kind, pl.Struct):
        return any(_needs_change(field.dtype) for field in kind.fields)
    return isinstance(kind, pl.Binary | pl.Datetime | pl.Date | pl.Decimal)


def without_bytes(value: Any) -> Any:
    """Leave out bytes, and records of nothing but bytes and text, at any depth.

    Examples
    --------
    >>> without_bytes({"candid": 1, "cutoutScience": {"fileName": "a", "stampData": b"x"}})
    {'candid': 1}
    """
    if isinstance(value, Mapping):
        kept = {key: inner for key, inner in value.items() if not _is_image(inner)}
        return {key: without_bytes(inner) for key, inner in kept.items()}
    if isinstance(value, list | tuple):
        return [without_bytes(inner) for inner in value if not _is_image(inner)]
    return value


def _is_image(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return isinstance(value, bytes | bytearray | memoryview)
    has_bytes = any(isinstance(inner, bytes) for inner in value.values())
    return has_bytes and all(isinstance(inner, bytes | str | NoneType) for inner in value.values())


def clean(value: Any) -> Any:
    """Make a value safe for JSON, at any depth.

    NaN and infinities become None, bytes become base64 text, times become seconds since
    1970 (a time without a zone is UTC), and NumPy values and decimals become plain numbers.

    Raises
    ------
    TypeError
        If a value has no JSON form.

    Examples
    --------
    >>> clean({"rb": float("nan"), "stamp": b"abc", "days": np.arange(2)})
    {'rb': None, 'stamp': 'YWJj', 'days': [0, 1]}
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(inner) for inner in value]
    for kinds, convert in _CONVERSIONS:
        if isinstance(value, kinds):
            return convert(value)
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def _float(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")


def _seconds(value: date) -> float:
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _nanoseconds(value: np.datetime64) -> float | None:
    return None if np.isnat(value) else float(value.astype("datetime64[ns]").astype(np.int64)) / 1e9


_CONVERSIONS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (np.bool_, bool),
    (np.datetime64, _nanoseconds),
    ((int, np.integer), int),
    ((float, np.floating, Decimal), _float),
    ((bytes, bytearray, memoryview), _base64),
    (date, _seconds),
    (np.ndarray, lambda array: clean(array.tolist())),
)
