"""The surveys that the broker knows: the folders here that hold a schema map."""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from broker.errors import UsageError
from broker.surveys.survey import Survey

DEFAULT_SURVEY = "ztf"


def _walk() -> dict[str, Survey]:
    maps = sorted(Path(__file__).parent.glob("*/schema_map.yaml"))
    packages = (importlib.import_module(f"broker.surveys.{file.parent.name}") for file in maps)
    return {package.SURVEY.name: package.SURVEY for package in packages}


_KNOWN = _walk()

SURVEYS: Mapping[str, Survey] = MappingProxyType(_KNOWN)


def get_survey(name: str) -> Survey:
    """Return a survey by its keyword.

    Raises
    ------
    UsageError
        If there is none of that name; lists the known ones.
    """
    if name not in SURVEYS:
        raise UsageError(f"unknown survey {name!r}; known are: {', '.join(sorted(SURVEYS))}")
    return SURVEYS[name]


def adopt_texts(name: str, texts: Mapping[str, str]) -> Survey:
    """Let a survey use other maps than it ships with, from here on in this process.

    Parameters
    ----------
    name : str
        Keyword of the survey.
    texts : mapping of str to str
        Contents by name of the file they replace (``schema_map.yaml``); none restores all.

    Raises
    ------
    UsageError
        If there is no such survey.
    ConfigError
        If a map cannot be read; the survey stays as it was.
    """
    changed = replace(get_survey(name), texts=dict(texts))
    # A map that cannot be read is told at the start, not with the first alert.
    _ = changed.schema_map, changed.photometry
    _KNOWN[name] = changed
    return changed
