"""Add schema definitions of a survey in canonical form, from a folder or a registry.

Canonical means: names, types and logical types in one nested definition with full names; no
documentation and no defaults, which a reader of alerts does not need.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from broker.errors import UsageError
from broker.surveys.avro import AvroSchema
from broker.surveys.registry import SchemaRegistry
from broker.surveys.survey import Survey

Definition = Mapping[str, Any]

_ONE_SCHEMA = re.compile(r"(?P<base>.+)/schemas/ids/(?P<id>\d+)")
_NAMED = ("record", "enum", "fixed")
_KEPT = ("type", "name", "symbols", "size", "logicalType", "precision", "scale")


def add_schemas(
    source: str | Path,
    survey: Survey,
    target: Path | None = None,
    *,
    ids: Sequence[int] = (),
    also: Sequence[str] = (),
) -> list[Path]:
    """Write the alert schemas found in a folder or registry.

    Parameters
    ----------
    source : str or Path
        A folder of ``.avsc`` or ``.json`` files, searched through; a registry's address, or
        that of one schema in it, ``.../schemas/ids/<id>``.
    survey : Survey
        Whose record names tell which definitions are alerts.
    target : Path, optional
        Folder to write to, by default the survey's own.
    ids : sequence of int
        Ids to ask a registry for.
    also : sequence of str
        Last part of the names of other records to write as ``<version>.<record>.json``.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UsageError
        If no alert schema of the survey is found.
    """
    target = target or survey.folder / "schemas"
    found = list(_from_registry(str(source), ids) if _is_url(source) else _from_folder(source))
    written = [
        _write(definition, stem, target)
        for definition in found
        if (stem := _stem(definition, survey, also))
    ]
    if not written:
        raise UsageError(f"no alert schema of survey {survey.name!r} was found in {source}")
    return written


def canonical(definition: Any, known: Mapping[str, Definition] | None = None) -> Any:
    """Return a definition in canonical form, names that `known` defines put in place."""
    return _Canonical(known or {}).form(definition, "")


class _Canonical:
    """One walk through a definition; a named type is written out where it is first met."""

    def __init__(self, known: Mapping[str, Definition]) -> None:
        self._known = known
        self._met: set[str] = set()

    def form(self, type_: Any, namespace: str) -> Any:
        if isinstance(type_, list):
            return [self.form(one, namespace) for one in type_]
        if isinstance(type_, str):
            return self._name(type_, namespace)
        if type_["type"] in _NAMED:
            return self._named(type_, namespace)
        kept = {key: type_[key] for key in _KEPT if key in type_}
        if set(kept) == {"type"} and "items" not in type_ and "values" not in type_:
            return self.form(type_["type"], namespace)
        inner = {
            key: self.form(type_[key], namespace) for key in ("items", "values") if key in type_
        }
        return kept | inner

    def _name(self, name: str, namespace: str) -> Any:
        full = name if name in self._known or "." in name else f"{namespace}.{name}".lstrip(".")
        if full in self._met or full not in self._known:
            return full if full in self._met else name
        return self._named(self._known[full], namespace)

    def _named(self, type_: Definition, namespace: str) -> Any:
        full = full_name(type_, namespace)
        if full in self._met:
            return full
        self._met.add(full)
        inside = full.rpartition(".")[0]
        kept = {key: type_[key] for key in _KEPT if key in type_} | {"name": full}
        if "version" in type_ and len(self._met) == 1:
            kept["version"] = type_["version"]
        if type_["type"] == "record":
            kept["fields"] = [
                {"name": one["name"], "type": self.form(one["type"], inside)}
                for one in type_["fields"]
            ]
        return kept


def full_name(definition: Definition, namespace: str = "") -> str:
    """Return the full name of a named type, `namespace` being the one around it."""
    name = str(definition["name"])
    if "." in name:
        return name
    return f"{definition.get('namespace', namespace)}.{name}".lstrip(".")


def _from_folder(folder: str | Path) -> Iterator[Any]:
    files = sorted(file for kind in ("*.avsc", "*.json") for file in Path(folder).rglob(kind))
    groups: dict[Path, dict[str, Definition]] = {}
    for file in files:
        content = json.loads(file.read_text())
        if isinstance(content, dict) and content.get("type") == "record":
            groups.setdefault(file.parent, {})[full_name(content)] = content
    for known in groups.values():
        for definition in known.values():
            yield canonical(definition, known)


def _from_registry(url: str, ids: Sequence[int]) -> Iterator[Any]:
    one = _ONE_SCHEMA.fullmatch(url.rstrip("/"))
    registry = SchemaRegistry(one["base"] if one else url)
    for id_ in [int(one["id"])] if one else ids:
        yield canonical(registry.definition(id_))


def _is_url(source: str | Path) -> bool:
    return str(source).startswith(("http://", "https://"))


def _stem(definition: Definition, survey: Survey, also: Sequence[str]) -> str | None:
    name, _, last = definition["name"].rpartition(".")
    if last in also:
        return f"{name.rpartition('.')[2]}.{last}"
    try:
        schema = AvroSchema.parse(definition)
    except Exception as error:
        raise UsageError(f"schema {definition['name']} cannot be parsed: {error}") from error
    return survey.version_of(schema) if survey.recognises(schema) else None


def _write(definition: Definition, stem: str, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    file = target / f"{stem}.json"
    file.write_text(json.dumps(definition, separators=(",", ":")) + "\n")
    return file
