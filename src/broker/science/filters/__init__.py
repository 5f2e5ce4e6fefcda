"""Filters: predicates on alerts, made of named cuts that explain themselves.

Each module of this package whose name has no leading underscore holds one ``FILTER``; it is
found by walking the package.
"""

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
from broker.science.filters._registry import FILTERS

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
