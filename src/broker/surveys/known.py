"""The surveys that the broker knows, found by walking this package's folders."""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from broker.errors import UsageError
from broker.surveys.survey import Survey

DEFAULT_SURVEY = "ztf"


def _walk() -> dict[str, Survey]:
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.ispkg:
            package = importlib.import_module(f"broker.surveys.{module.name}")
            if isinstance(survey := getattr(package, "SURVEY", None), Survey):
                found[survey.name] = survey
    return found


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
