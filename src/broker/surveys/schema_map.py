"""Where each survey keeps what every alert has: generic words to the survey's own fields.

A schema map is one YAML file. A key is a generic word; its value is one of::

    null                        the survey has no such field
    name                        a field of the packet or, failing that, of its ``source`` record
    [outer, inner]              a field inside records, from the outside in
    {label: value, ...}         alternatives; the first that is not missing counts, and
                                message attributes name it after the label's first field
    {path: value, offset: x}    a number to which x is added

A missing value is null; an integer 0 is missing too where alternatives are given, as surveys
send 0 for "no such object". Keys in capitals describe the survey and are taken as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl
import yaml

from broker.errors import ConfigError

Path_ = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Location:
    """One place of a value.

    `bare` paths may also start at the ``source`` record; `attribute` is the name that message
    attributes give the value.
    """

    path: Path_
    bare: bool = False
    offset: float = 0.0
    attribute: str = ""


@dataclass(frozen=True)
class SchemaMap(Mapping[str, Any]):
    """The schema map of one survey; as a mapping it is the YAML file's content.

    Examples
    --------
    >>> words = SchemaMap({"source": "candidate", "mjd": {"path": "jd", "offset": -2400000.5}})
    >>> words.get_value("mjd", {"candidate": {"jd": 2458000.5}})
    58000.0
    """

    content: Mapping[str, Any]
    _located: dict[str, tuple[Location, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str, place: str) -> "SchemaMap":
        """Read a schema map from YAML that was found at `place`.

        Raises
        ------
        ConfigError
            If the text is not a flat mapping.
        """
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"schema map {place} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"schema map {place} is not a mapping of words to fields")
        return cls(content)

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __iter__(self) -> Any:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def locations(self, key: str) -> tuple[Location, ...]:
        """Return the places of a generic word, best first; none if the survey lacks it."""
        if key not in self._located:
            self._located[key] = tuple(_locations(self.content.get(key)))
        return self._located[key]

    def get_value(self, key: str, packet: Mapping[str, Any], default: Any = None) -> Any:
        """Return the value of a generic word in a packet.

        Anything missing on the way, an intermediate record included, gives `default`.
        """
        found = self.locations(key)
        for location in found:
            value = self._look_up(location, packet)
            if value is not None and not (len(found) > 1 and _is_zero_id(value)):
                return value + location.offset if location.offset else value
        return default

    def get_key(self, key: str, packet: Mapping[str, Any] | None = None) -> str | None:
        """Return the survey's own name of a generic word, the innermost field.

        With a packet and alternatives, it is the one that the packet uses.
        """
        location = self.location_used(key, packet)
        return location.path[-1] if location else None

    def location_used(self, key: str, packet: Mapping[str, Any] | None = None) -> Location | None:
        """Return the alternative that a packet uses, the first without a packet."""
        found = self.locations(key)
        for location in found if packet is not None else ():
            value = self._look_up(location, packet or {})
            if value is not None and not _is_zero_id(value):
                return location
        return found[0] if found else None

    def expression(
        self, key: str, schema: Mapping[str, pl.DataType], *, attribute: str | None = None
    ) -> pl.Expr:
        """Return a polars expression of a generic word over nested rows with `schema`.

        Fields that `schema` lacks count as null. With `attribute`, only the alternatives that
        message attributes call so are looked at.
        """
        spots = self.locations(key)
        alternatives = len(spots) > 1
        parts = [
            part
            for spot in spots
            if attribute in (None, spot.attribute)
            if (part := self._expression(spot, schema, alternatives)) is not None
        ]
        return pl.coalesce(*parts, pl.lit(None)).alias(key)

    def _expression(
        self, spot: Location, schema: Mapping[str, pl.DataType], alternatives: bool
    ) -> pl.Expr | None:
        part = locate(spot.path, schema)
        if part is None and spot.bare and self._source_name:
            part = locate((self._source_name, *spot.path), schema)
        if part is None:
            return None
        expression = part.expression
        if alternatives and part.dtype.is_integer():
            expression = pl.when(expression != 0).then(expression)
        return expression + spot.offset if spot.offset else expression

    def _look_up(self, spot: Location, packet: Mapping[str, Any]) -> Any:
        value = walk(packet, spot.path)
        if value is None and spot.bare and self._source_name:
            value = walk(packet, (self._source_name, *spot.path))
        return value

    @cached_property
    def _source_name(self) -> str | None:
        name = self.content.get("source")
        return name if isinstance(name, str) else None


@dataclass(frozen=True, slots=True)
class _Field:
    expression: pl.Expr
    dtype: pl.DataType


def locate(path: Path_, schema: Mapping[str, pl.DataType]) -> _Field | None:
    """Return the expression and type of a nested field; None if `schema` lacks it."""
    dtype: Any = schema.get(path[0])
    if dtype is None:
        return None
    expression = pl.col(path[0])
    for name in path[1:]:
        inner = dict(dtype) if isinstance(dtype, pl.Struct) else {}
        if name not in inner:
            return None
        expression, dtype = expression.struct.field(name), inner[name]
    return _Field(expression, _instance(dtype))


def walk(packet: Any, path: Path_) -> Any:
    """Return the value at the end of a path through records; None if it breaks off."""
    for name in path:
        if not isinstance(packet, Mapping):
            return None
        packet = packet.get(name)
    return packet


def _instance(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


def _is_zero_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def _locations(value: Any, attribute: str = "") -> list[Location]:
    if value is None:
        return []
    if isinstance(value, str):
        return [Location((value,), bare=True, attribute=attribute or value)]
    if isinstance(value, list):
        return [Location(tuple(value), attribute=attribute or "_".join(value))]
    if set(value) == {"path", "offset"}:
        inner = _locations(value["path"], attribute)
        return [replace(spot, offset=value["offset"]) for spot in inner]
    return [spot for one in value.values() for spot in _locations(one, attribute or _first(one))]


def _first(value: Any) -> str:
    found = _locations(value)
    return found[0].attribute if found else ""
