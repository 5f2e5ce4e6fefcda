"""Load filters that a user wrote: Python or SQL files, and installed plugins."""

import itertools
import linecache
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from broker.errors import UsageError
from broker.science.filters._base import WHOLE_ALERT, Cut, Filter, Variant
from broker.science.filters._registry import taken_names
from broker.science.filters._sql import sql_filter

_GROUP = "broker.filters"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
Predicate = Callable[[Mapping[str, Any]], bool]


def load_user_filters(paths: Iterable[str | Path]) -> list[Filter]:
    """Load filters from files.

    A ``.py`` file has ``FILTER``, a list ``FILTERS``, or a function ``passes(alert)`` that
    takes the alert as a dict (slower); a ``.sql`` file has a condition or a SELECT … WHERE.

    Parameters
    ----------
    paths : iterable of str or pathlib.Path
        The files.

    Raises
    ------
    UsageError
        If a file cannot be used; it names the file and the line.
    """
    found: dict[str, Filter] = {}
    for path in map(Path, paths):
        for one in _load(path):
            _check_name(one, path, found)
            found[one.name] = one
    return list(found.values())


def _check_name(one: Filter, path: Path, found: Collection[str]) -> None:
    if not _NAME.match(one.name):
        raise UsageError(f"{path}: filter name {one.name!r} must be letters, digits and _")
    if one.name in found:
        raise UsageError(f"{path}: a filter named {one.name!r} was already loaded")
    if {one.name, one.attribute} & taken_names():
        raise UsageError(f"{path}: the name {one.name!r} is used by the broker's own filters")


def plugin_filters() -> list[Filter]:
    """Load the filters that installed packages offer in the group ``broker.filters``."""
    found = (_several(point.load()) for point in entry_points(group=_GROUP))
    return list(itertools.chain.from_iterable(found))


def _several(offered: Any) -> list[Filter]:
    return list(offered) if isinstance(offered, list | tuple) else [offered]


def _load(path: Path) -> list[Filter]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"filter file {path} cannot be read: {error}") from error
    if path.suffix == ".sql":
        return [sql_filter(text, path)]
    if path.suffix == ".py":
        return _python_filters(text, path)
    raise UsageError(f"filter file {path} must end in .py or .sql")


def _python_filters(text: str, path: Path) -> list[Filter]:
    module = _run(text, path)
    if hasattr(module, "FILTERS") or hasattr(module, "FILTER"):
        offered = getattr(module, "FILTERS", None) or module.FILTER
        if all(isinstance(one, Filter) for one in _several(offered)):
            return _several(offered)
        raise UsageError(f"{path}: FILTER must be a broker.science.filters.Filter")
    if callable(passes := getattr(module, "passes", None)):
        return [_from_predicate(passes, module, path)]
    raise UsageError(f"{path}, line 1: no FILTER, FILTERS or function passes(alert) in it")


def _run(text: str, path: Path) -> ModuleType:
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own file
    except SyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        linecache.checkcache(str(path))
        line = _line_in(path, error)
        raise UsageError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    return module


def _line_in(path: Path, error: Exception) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path) and frame.lineno]
    return lines[-1] if lines else 1


def _from_predicate(passes: Predicate, module: ModuleType, path: Path) -> Filter:
    name = getattr(module, "NAME", path.stem)
    summary = (passes.__doc__ or f"User filter from {path.name}.").strip().splitlines()[0]
    outcome = pl.col(WHOLE_ALERT).map_batches(
        lambda alerts: pl.Series([_ask(passes, path, alert) for alert in alerts.to_list()]),
        return_dtype=pl.Struct({"passes": pl.Boolean, "error": pl.String}),
    )
    cut = Cut(
        name,
        outcome.struct.field("passes"),
        outcome.struct.field("passes"),
        "true",
        "is",
        "",
        f"function passes in {path.name}",
        outcome.struct.field("error"),
    )
    topic = getattr(module, "TOPIC", name)
    return Filter(name, topic, summary, (Variant((), (cut,), "A Python function of the alert."),))


def _ask(passes: Predicate, path: Path, alert: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer = passes(alert)
    except Exception as error:
        line = _line_in(path, error)
        return {"passes": None, "error": f"line {line}: {type(error).__name__}: {error}"}
    if answer is None:
        return {"passes": None, "error": "the function returned None"}
    return {"passes": bool(answer), "error": None}
