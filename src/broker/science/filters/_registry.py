"""The filters that come with the broker, found by walking this package."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType

from broker.science.filters._base import Filter


def _walk() -> dict[str, Filter]:
    package = __name__.rpartition(".")[0]
    names = sorted(module.name for module in iter_modules([str(Path(__file__).parent)]))
    found = (import_module(f"{package}.{name}").FILTER for name in names if name[0] != "_")
    return {one.name: one for one in found}


FILTERS: Mapping[str, Filter] = MappingProxyType(_walk())


def taken_names() -> set[str]:
    """Return the names that a user's filter may not have: ours, and our message attributes."""
    cuts = {cut.name for one in FILTERS.values() for v in one.variants for cut in v.cuts}
    return cuts.union(FILTERS, (one.attribute for one in FILTERS.values()))
