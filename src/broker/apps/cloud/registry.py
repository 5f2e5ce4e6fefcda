"""The one list of what an instance is made of: names, settings, purpose, use."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from broker.errors import ConfigError
from broker.instance import Instance
from broker.science.filters import Filter

KINDS = (
    *("topic", "subscription", "bucket", "dataset", "table", "ledger"),
    *("vm", "service", "schedule", "alert_policy", "dashboard"),
)
"""Every kind of resource, in the order in which they are made."""

LABEL = "pgb-instance"
"""Label that tells whose a resource is; a description takes its place where there are none."""

_REFERENCE = re.compile(r"\$\{([a-z_]+)(?::([^{}]+))?\}")


@dataclass(frozen=True, slots=True)
class Context:
    """Whose resources: an instance in a project (none on a laptop).

    Parameters
    ----------
    instance : Instance
        Makes the names.
    project, region : str
        Google Cloud project and region; without a project the names are those of a home.
    image : str
        Container image that machines and services run.
    """

    instance: Instance
    project: str = ""
    region: str = "us-central1"
    image: str = ""

    def name(self, kind: str, stub: str) -> str:
        """Name a resource."""
        instance = self.instance
        match kind:
            case "bucket":
                return instance.bucket(stub, self.project or None)
            case "dataset":
                return instance.dataset
            case "table":
                return f"{instance.dataset}.{stub}"
            case "service" | "service_name":
                return instance.service(stub)
            case "dashboard":
                return f"{stub}-{instance.label}"
        return instance.name(stub)

    @property
    def words(self) -> dict[str, str]:
        """What placeholders without a kind stand for."""
        return {
            "project": self.project,
            "region": self.region,
            "zone": f"{self.region}-a",
            "survey": self.instance.survey,
            "testid": str(self.instance.testid or ""),
            "label": self.instance.label,
            "image": self.image,
        }


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that an instance is made of.

    Parameters
    ----------
    kind, stub : str
        What it is and the part of its name that all instances share.
    name : str
        Its full name.
    purpose : str
        What it is for, one line.
    settings : mapping
        How it is made.
    needs : tuple of str
        ``kind:name`` of what must be there before.
    usage : sequence of mapping
        What it consumes, in the words of the price list.
    """

    kind: str
    stub: str
    name: str
    purpose: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    usage: Sequence[Mapping[str, Any]] = ()

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.name}"


def registry(context: Context, filters: Sequence[Filter] = ()) -> tuple[Resource, ...]:
    """List what an instance is made of, everything after what it needs.

    Parameters
    ----------
    context : Context
        Whose.
    filters : sequence of Filter
        Each has a topic.

    Raises
    ------
    ConfigError
        If two resources would have one name, as when two filters share a topic.
    """
    found = [_resource(entry, context) for entry in _entries(filters)]
    keys = [(it.kind, it.name) for it in found]
    if twice := sorted({str(it) for it in found if keys.count((it.kind, it.name)) > 1}):
        raise ConfigError(f"two resources would have one name: {', '.join(twice)}")
    return tuple(sorted(found, key=lambda it: KINDS.index(it.kind)))


def _entries(filters: Sequence[Filter]) -> Iterator[dict[str, Any]]:
    """Yield the entries of the list, groups repeated."""
    for entry in _data():
        if entry.get("each") != "filter":
            yield entry
            continue
        for chosen in filters:
            words = {"${filter.topic}": chosen.topic, "${filter.name}": chosen.name}
            yield _replaced(entry, words)


@cache
def _data() -> list[dict[str, Any]]:
    text = files("broker.apps.cloud").joinpath("resources.yaml").read_text()
    found: list[dict[str, Any]] = yaml.safe_load(text)
    return found


def _replaced(value: Any, words: Mapping[str, str]) -> Any:
    """Replace texts within texts, wherever they are."""
    if isinstance(value, str):
        for old, new in words.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, Mapping):
        return {key: _replaced(it, words) for key, it in value.items()}
    return [_replaced(it, words) for it in value] if isinstance(value, list) else value


def _resource(entry: Mapping[str, Any], context: Context) -> Resource:
    kind, stub = entry["kind"], entry["stub"]
    needs: dict[str, None] = {}
    settings = fill(entry.get("settings", {}), context, needs)
    return Resource(
        kind,
        stub,
        context.name(kind, stub),
        entry["for"],
        settings,
        tuple(needs),
        tuple(entry.get("usage", ())),
    )


def fill(value: Any, context: Context, needs: dict[str, None] | None = None) -> Any:
    """Fill the placeholders of settings.

    Parameters
    ----------
    value : Any
        Texts, lists and mappings of them.
    context : Context
        What they stand for.
    needs : dict, optional
        Gets ``kind:name`` of each resource that is named.

    Raises
    ------
    ConfigError
        If a placeholder stands for nothing.
    """
    if isinstance(value, Mapping):
        return {key: fill(it, context, needs) for key, it in value.items()}
    if isinstance(value, list):
        return [fill(it, context, needs) for it in value]
    if not isinstance(value, str):
        return value

    def name(match: re.Match[str]) -> str:
        word, stub = match[1], match[2]
        if stub is None:
            if word not in context.words:
                raise ConfigError(f"nothing is called ${{{word}}} in the list of resources")
            return context.words[word]
        made = context.name(word, stub)
        if needs is not None and word in KINDS:
            needs[f"{word}:{made}"] = None
        return made

    return _REFERENCE.sub(name, value)
