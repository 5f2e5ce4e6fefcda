"""The surveys that the broker knows: the folders here that hold a schema map."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from broker.errors import UsageError
from broker.surveys.survey import Survey

DEFAULT_SURVEY = "ztf"


def _walk() -> dict[str, Survey]:
    maps = sorted(Path(__file__).parent.glob("*/schema_map.yaml"))
    packages = (importlib.import_module(f"broker.surveys.{file.parent.name}") for file in maps)
    return {package.SURVEY.name: package.SURVEY for package in packages}


SURVEYS: Mapping[str, Survey] = MappingProxyType(_walk())


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
