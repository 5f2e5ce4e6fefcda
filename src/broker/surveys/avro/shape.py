"""The tree of values that a schema describes, with names resolved and limits checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from broker.errors import DecodeError

_MOST_VALUES = 20_000
"""Schemas with more fields are hostile: names resolved in full may double at every level."""

_WIDTHS = {
    "boolean": 1,
    "int": 1,
    "long": 1,
    "float": 4,
    "double": 8,
    "string": 1,
    "bytes": 1,
}

_TYPES: dict[str, pl.DataType] = {
    "null": pl.Null(),
    "boolean": pl.Boolean(),
    "int": pl.Int32(),
    "long": pl.Int64(),
    "float": pl.Float32(),
    "double": pl.Float64(),
    "string": pl.String(),
    "enum": pl.String(),
}

LOGICAL: dict[tuple[str, str], pl.DataType] = {
    ("long", "timestamp-millis"): pl.Datetime("ms", "UTC"),
    ("long", "timestamp-micros"): pl.Datetime("us", "UTC"),
    ("long", "local-timestamp-millis"): pl.Datetime("ms"),
    ("long", "local-timestamp-micros"): pl.Datetime("us"),
    ("int", "date"): pl.Date(),
    ("int", "time-millis"): pl.Time(),
    ("long", "time-micros"): pl.Time(),
    ("string", "uuid"): pl.String(),
}

_MOST_FIXED = 1 << 24
"""Bytes of a fixed; no packet of a survey has as many."""

_DECIMAL = "decimal"
_NUMBERS = ("int", "long", "float", "double")


@dataclass(frozen=True)
class Shape:
    """One value: a field, an item, or a branch of a union.

    `null` is the index of the null branch, -1 where the value cannot be null; `kind` is an
    Avro type or "union" (several types); `children` are fields, the item, or the branches. What
    is `hidden` is read and checked only.
    """

    kind: str
    name: str = ""
    null: int = -1
    wrapped: bool = False
    children: tuple["Shape", ...] = ()
    logical: str = ""
    size: int = 0
    symbols: tuple[str, ...] = ()
    hidden: bool = False

    @property
    def is_blob(self) -> bool:
        """Tell whether the value is bytes, which no column holds."""
        plain = self.kind in ("bytes", "fixed") and self.logical != _DECIMAL
        return plain and not self.hidden

    @cached_property
    def smallest(self) -> int:
        """The fewest bytes that encode the value."""
        if self.null >= 0 or self.wrapped or self.kind in ("array", "map", "enum", "union"):
            return 1
        if self.kind == "fixed":
            return self.size
        if self.kind == "record":
            return sum(child.smallest for child in self.children)
        return _WIDTHS.get(self.kind, 0)

    @cached_property
    def dtype(self) -> pl.DataType | None:
        """The type of the value's column; None if it has none."""
        if self.is_blob or self.hidden:
            return None
        if self.logical == _DECIMAL:
            return pl.String()
        if self.kind == "record":
            return _struct_type(self.columns)
        if self.kind == "array":
            item = self.children[0].dtype
            return None if item is None else pl.List(item)
        if self.kind == "map":
            item = self.children[0].dtype
            return None if item is None else pl.List(pl.Struct({"key": pl.String, "value": item}))
        if self.kind == "union":
            return _union_type(self.children)
        return LOGICAL.get((self.kind, self.logical)) or _TYPES[self.kind]

    @cached_property
    def columns(self) -> tuple["Shape", ...]:
        """The fields that have a column."""
        return tuple(child for child in self.children if child.dtype is not None)


def _struct_type(columns: tuple[Shape, ...]) -> pl.DataType | None:
    types = {one.name: one.dtype for one in columns if one.dtype is not None}
    return pl.Struct(types) if types else None


def _union_type(branches: tuple[Shape, ...]) -> pl.DataType | None:
    """Numbers become the widest among them; other mixtures have no column."""
    kinds = {branch.kind for branch in branches}
    if not kinds <= set(_NUMBERS) or any(branch.logical for branch in branches):
        return None
    return pl.Float64() if kinds & {"float", "double"} else pl.Int64()


def shape_of(definition: Any) -> Shape:
    """Resolve a schema that fastavro has accepted.

    Raises
    ------
    DecodeError
        If it holds itself, is too large, is a record or has arrays whose items take no bytes,
        or breaks a rule of Avro that fastavro does not look at.
    """
    shape = _Resolver().value(definition, "", "")
    if shape.kind == "record" and shape.smallest < 1:
        raise DecodeError("the schema's record takes no bytes")
    return shape


class _Resolver:
    """Walks a definition with the names known so far, and counts what it makes."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[Mapping[str, Any], str]] = {}
        self._open: list[str] = []
        self._count = 0

    def value(self, definition: Any, name: str, namespace: str) -> Shape:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise DecodeError("the schema has too many fields")
        if isinstance(definition, list):
            return self._union(definition, name, namespace)
        if isinstance(definition, str):
            return self._named_or_primitive(definition, name, namespace)
        return self._complex(definition, name, namespace)

    def _named_or_primitive(self, kind: str, name: str, namespace: str) -> Shape:
        if kind in _TYPES or kind == "bytes":
            return Shape(kind, name)
        known = self._named.get(f"{namespace}.{kind}" if "." not in kind and namespace else kind)
        known = known or self._named.get(kind)
        if known is None:
            raise DecodeError(f"the schema names an unknown type {kind!r}")
        return self._complex(known[0], name, known[1])

    def _complex(self, definition: Mapping[str, Any], name: str, namespace: str) -> Shape:
        kind = definition["type"]
        logical = str(definition.get("logicalType", ""))
        if kind == "array":
            return self._array(definition, name, namespace)
        if kind == "map":
            return Shape(kind, name, children=(self.value(definition["values"], "", namespace),))
        if kind in ("record", "error", "enum", "fixed"):
            return self._definition(definition, kind, name, namespace)
        if kind in _TYPES or kind == "bytes":
            return Shape(kind, name, logical=logical if _is_known(kind, logical) else "")
        return self.value(kind, name, namespace)

    def _array(self, definition: Mapping[str, Any], name: str, namespace: str) -> Shape:
        item = self.value(definition["items"], "", namespace)
        if item.smallest < 1:
            raise DecodeError("the schema has an array whose items take no bytes")
        return Shape("array", name, children=(item,))

    def _definition(
        self, definition: Mapping[str, Any], kind: str, name: str, namespace: str
    ) -> Shape:
        full = full_name(definition, namespace)
        self._named[full] = (definition, namespace)
        logical = str(definition.get("logicalType", ""))
        if kind == "fixed":
            logical = logical if _is_known(kind, logical) else ""
            return Shape(kind, name, size=_fixed_size(definition["size"]), logical=logical)
        if kind == "enum":
            return Shape(kind, name, symbols=_symbols(definition["symbols"]))
        if full in self._open:
            raise DecodeError(f"the schema's type {full} holds itself")
        self._open.append(full)
        inner = full.rpartition(".")[0]
        fields = [
            self.value(one["type"], _checked_name(one["name"]), inner)
            for one in definition["fields"]
        ]
        self._open.pop()
        return Shape("record", name, children=tuple(_without_repeats(fields)))

    def _union(self, branches: list[Any], name: str, namespace: str) -> Shape:
        shapes = [self.value(branch, name, namespace) for branch in branches]
        _check_branches(shapes)
        real = [shape for shape in shapes if shape.kind != "null"]
        null = next((i for i, shape in enumerate(shapes) if shape.kind == "null"), -1)
        if len(real) == 1 and len(shapes) <= 2:
            one = real[0]
            return Shape(
                one.kind,
                name,
                null,
                null < 0,
                one.children,
                one.logical,
                one.size,
                one.symbols,
            )
        if not real:
            return Shape("null", name, wrapped=True)
        return Shape("union", name, null, children=tuple(real))


def _fixed_size(size: Any) -> int:
    if type(size) is not int or not 0 <= size <= _MOST_FIXED:
        raise DecodeError(f"the schema has a fixed of {size!r} bytes")
    return size


def _symbols(symbols: Any) -> tuple[str, ...]:
    if not isinstance(symbols, list):
        raise DecodeError("the schema has an enum without a list of symbols")
    return tuple(symbols)


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name or "." in name:
        raise DecodeError(f"the schema has a field with the name {name!r}")
    return name


def _without_repeats(fields: list[Shape]) -> Iterator[Shape]:
    """Hide fields whose name comes again, as WINTER's do: the last one counts."""
    last = {one.name: place for place, one in enumerate(fields)}
    for place, one in enumerate(fields):
        yield one if last[one.name] == place else replace(one, name="", hidden=True)


def _check_branches(shapes: list[Shape]) -> None:
    """Refuse what no reader could tell apart: unions in unions, and a plain type twice."""
    if not shapes:
        raise DecodeError("the schema has a union of no types")
    if any(one.null >= 0 or one.wrapped or one.kind == "union" for one in shapes):
        raise DecodeError("the schema has a union within a union")
    plain = [one.kind for one in shapes if one.kind not in ("record", "enum", "fixed")]
    if len(set(plain)) < len(plain):
        raise DecodeError("the schema has a union with one type twice")


def full_name(definition: Mapping[str, Any], namespace: str) -> str:
    """Return a named type's full name."""
    name = str(definition["name"])
    space = definition.get("namespace", namespace)
    return f"{space}.{name}" if space and "." not in name else name


def _is_known(kind: str, logical: str) -> bool:
    """Tell whether fastavro reads this logical type as something else than the plain type."""
    return (kind, logical) in LOGICAL or (logical == _DECIMAL and kind in ("bytes", "fixed"))


def walk(shape: Shape, path: str = "") -> Iterator[tuple[str, Shape]]:
    """Iterate over the values outside of arrays and maps, with dotted paths."""
    for child in shape.children if shape.kind == "record" else ():
        inner = f"{path}.{child.name}" if path else child.name
        yield inner, child
        yield from walk(child, inner)
