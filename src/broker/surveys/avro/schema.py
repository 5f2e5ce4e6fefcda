"""Avro schemas: parsing, identity, and the correction of nullable fields."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import fastavro
import orjson
from fastavro.schema import SchemaParseException, UnknownType

from broker.errors import DecodeError
from broker.surveys.avro.shape import Shape, full_name, shape_of

_MOST_NESTED = 64
"""Deeper JSON is hostile: the deepest survey schema has a dozen levels."""

_IDENTITY = (
    "type",
    "name",
    "namespace",
    "fields",
    "symbols",
    "items",
    "values",
    "size",
    "logicalType",
    "precision",
    "scale",
)


@dataclass(frozen=True)
class AvroSchema:
    """A writer's schema; two are equal if they read and name the same.

    Parameters
    ----------
    definition : dict
        The JSON as a Python object; do not change it.
    name : str
        Full name of the top-level record.
    fingerprint : str
        Hash of the canonical form, logical types included.
    """

    definition: Any = field(compare=False, repr=False)
    name: str = field(compare=False)
    fingerprint: str

    @classmethod
    def parse(cls, definition: str | bytes | Mapping[str, Any] | list[Any]) -> "AvroSchema":
        """Parse a schema as JSON or as a Python object.

        A union's default may belong to any of its branches, as some surveys write it.

        Raises
        ------
        DecodeError
            If it is not a schema that can be used, by the rules of fastavro and of this package.
        """
        plain = _load(definition)
        try:
            if _depth(plain) > _MOST_NESTED:
                raise DecodeError("the schema is nested too deeply")
            parsed = fastavro.parse_schema(copy.deepcopy(plain))
            canonical = orjson.dumps(_identity(plain, ""))
            shape = shape_of(plain)
        except (
            SchemaParseException,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
        ) as error:
            raise DecodeError(f"the schema cannot be used: {_reason(error)}") from error
        name = parsed.get("name", "") if isinstance(parsed, dict) else ""
        schema = cls(plain, name, hashlib.sha256(canonical).hexdigest()[:32])
        schema.__dict__["fastavro"] = parsed
        schema.__dict__["shape"] = shape
        return schema

    @cached_property
    def fastavro(self) -> Any:
        """The schema as fastavro's functions take it, parsed once."""
        return fastavro.parse_schema(copy.deepcopy(self.definition))

    @cached_property
    def shape(self) -> Shape:
        """The tree of values, with names resolved."""
        return shape_of(self.definition)


def _load(definition: str | bytes | Mapping[str, Any] | list[Any]) -> Any:
    if not isinstance(definition, str | bytes):
        return dict(definition) if isinstance(definition, Mapping) else definition
    try:
        return orjson.loads(definition)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(definition)  # accepts NaN defaults, which some headers hold
    except json.JSONDecodeError as error:
        raise DecodeError(f"the schema is not JSON: {error}"[:200]) from error
    except UnicodeDecodeError as error:
        raise DecodeError("the schema is not JSON: it is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DecodeError("the schema is no JSON that can be used") from error


def _reason(error: Exception) -> str:
    """Say what is wrong: fastavro's words where it has some, ours where Python speaks."""
    if isinstance(error, UnknownType):
        return f"it names an unknown type {error.name!r}"[:200]
    if isinstance(error, SchemaParseException):
        return f"{error}"[:200]
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, KeyError):
        return f"{error} is missing"[:200]
    return "a part of it is not what Avro asks for there"


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level and depth <= _MOST_NESTED:
        nested = [one.values() if isinstance(one, dict) else one for one in level]
        level = [x for group in nested for x in group if isinstance(x, dict | list)]
        depth += 1
    return depth


def _identity(value: Any, namespace: str) -> Any:
    """Keep what decides the bytes and the names, with names spelled in full."""
    if isinstance(value, list):
        return [_identity(one, namespace) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: value[key] for key in _IDENTITY if key in value and key != "namespace"}
    if value.get("type") in ("record", "error", "enum", "fixed"):
        kept["name"] = full_name(value, namespace)
        namespace = kept["name"].rpartition(".")[0]
    if "fields" in kept:
        kept["fields"] = [
            {"name": one["name"], "type": _identity(one["type"], namespace)}
            for one in kept["fields"]
        ]
    for key in ("type", "items", "values"):
        if key in kept:
            kept[key] = _identity(kept[key], namespace)
    return kept["type"] if set(kept) == {"type"} else kept


def correct_header(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Put "null" first in unions whose default is null.

    Some surveys write ``[T, "null"]`` with a null default, which strict readers refuse, as a
    default must match the first branch. Fields with another default stay as they are.

    Parameters
    ----------
    definition : mapping
        A schema as a Python object; it is not changed.

    Returns
    -------
    dict
        The corrected schema; correcting that again changes nothing.
    """
    corrected: dict[str, Any] = _corrected(definition)
    return corrected


def _corrected(value: Any) -> Any:
    if isinstance(value, list):
        return [_corrected(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    kept = dict(value)
    for key in ("type", "items", "values"):
        if key in kept:
            kept[key] = _corrected(kept[key])
    if isinstance(kept.get("fields"), list):
        kept["fields"] = [_null_first(_corrected(one)) for one in kept["fields"]]
    return kept


def _null_first(entry: dict[str, Any]) -> dict[str, Any]:
    union = entry["type"]
    wrong = isinstance(union, list) and union[-1:] == ["null"] and entry.get("default") is None
    return {**entry, "type": union[::-1]} if wrong else entry
