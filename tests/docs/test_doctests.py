"""The examples in docstrings are true."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

PACKAGES = ("broker.alerts", "broker.science.filters", "broker.instance")


def modules() -> list[str]:
    """Name every module of the packages whose examples are run."""
    names = list(PACKAGES)
    for package in map(import_module, PACKAGES):
        paths = getattr(package, "__path__", [])
        names += [found.name for found in walk_packages(paths, f"{package.__name__}.")]
    return names


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    """Every example of the module gives what it says."""
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(import_module(name), optionflags=flags).failed == 0
