"""Schema definitions that ship with a survey: one canonical JSON file a version."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from broker.surveys.avro import AvroSchema

# Fraction of its fields that a schema must share with a shipped one to count as a version of it.
_SHARED = 0.6


class ShippedSchemas:
    """The alert schemas of one survey, read when first asked for.

    Files are named ``<version>.json``; ``<version>.<record>.json`` is another kind of message.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parsed: dict[str, AvroSchema] = {}

    @cached_property
    def versions(self) -> tuple[str, ...]:
        """Versions of the alert, newest first."""
        names = [file.name.removesuffix(".json") for file in self._folder.glob("*.json")]
        alerts = [name for name in names if version_key(name)]
        return tuple(sorted(alerts, key=version_key, reverse=True))

    def get(self, version: str) -> AvroSchema | None:
        """Return the schema of a version, or of ``version.record``; None if it is not shipped."""
        file = self._folder / f"{version}.json"
        if version not in self._parsed:
            if not file.is_file():
                return None
            self._parsed[version] = AvroSchema.parse(json.loads(file.read_text()))
        return self._parsed[version]

    @cached_property
    def top_level_fields(self) -> frozenset[str]:
        """Names of all fields that an alert of any version has."""
        found = [self.get(version) for version in self.versions]
        return frozenset(
            one["name"] for schema in found if schema for one in schema.definition["fields"]
        )

    def most_alike(self, paths: set[str]) -> str | None:
        """Return the version whose dotted field names are most like `paths`, if any is alike."""
        fields = {version: self._paths(version) for version in self.versions}
        best = max(fields, key=lambda version: _likeness(fields[version], paths), default=None)
        if best is None or len(fields[best] & paths) < _SHARED * len(paths):
            return None
        return best

    def _paths(self, version: str) -> set[str]:
        schema = self.get(version)
        return field_paths(schema.definition, depth=2) if schema else set()


def version_key(version: str) -> tuple[int, ...]:
    """Return a version as numbers, so that versions sort; empty if it is none."""
    parts = version.removeprefix("v").replace(".", "_").split("_")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def field_paths(definition: Mapping[str, Any], depth: int, prefix: str = "") -> set[str]:
    """Return the dotted names of a record's fields, `depth` records deep."""
    paths: set[str] = set()
    for one in definition["fields"]:
        paths.add(prefix + one["name"])
        inner = _record(one["type"])
        if depth > 1 and inner is not None:
            paths |= field_paths(inner, depth - 1, f"{prefix}{one['name']}.")
    return paths


def _record(type_: Any) -> Mapping[str, Any] | None:
    if isinstance(type_, list):
        return next((found for one in type_ if (found := _record(one)) is not None), None)
    if not isinstance(type_, Mapping):
        return None
    if type_["type"] == "record":
        return type_
    return _record(type_["type"]) if isinstance(type_["type"], Mapping | list) else None


def _likeness(fields: set[str], paths: set[str]) -> tuple[int, int]:
    """Most shared fields first, then fewest others."""
    return len(fields & paths), -len(fields)
