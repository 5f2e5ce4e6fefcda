"""Filters: predicates on alerts, made of named cuts that explain themselves.

Each module of this package whose name has no leading underscore holds one ``FILTER``; it is
found by walking the package.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from broker.science.filters._base import (
    Cut,
    Filter,
    Variant,
    at_least,
    at_most,
    column,
    no_flag,
    number,
    within,
)
from broker.science.filters._describe import describe
from broker.science.filters._evaluate import Verdicts, evaluate
from broker.science.filters._explain import CutVerdict, Explanation, explain
from broker.science.filters._load import load_user_filters, plugin_filters

__all__ = [
    "FILTERS",
    "Cut",
    "CutVerdict",
    "Explanation",
    "Filter",
    "Variant",
    "Verdicts",
    "at_least",
    "at_most",
    "column",
    "describe",
    "evaluate",
    "explain",
    "load_user_filters",
    "no_flag",
    "number",
    "plugin_filters",
    "within",
]


def _walk() -> dict[str, Filter]:
    names = sorted(module.name for module in iter_modules(__path__))
    found = (import_module(f"{__name__}.{name}").FILTER for name in names if name[0] != "_")
    return {one.name: one for one in found}


FILTERS: Mapping[str, Filter] = MappingProxyType(_walk())
