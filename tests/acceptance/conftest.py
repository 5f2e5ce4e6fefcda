"""A broker on a home of its own, driven through the command line."""

from datetime import date
from pathlib import Path

import pytest

from broker.surveys import DEFAULT_SURVEY, get_survey
from tests_support import Pgb, write_packets


@pytest.fixture
def pgb(tmp_path: Path) -> Pgb:
    """Return the command on an empty home."""
    return Pgb(tmp_path / "home")


@pytest.fixture(scope="session")
def night() -> list[bytes]:
    """Return the packets of a small night."""
    generate = get_survey(DEFAULT_SURVEY).generate
    assert generate is not None
    return list(generate(300, 7, date(2026, 1, 2)))


@pytest.fixture
def folder(tmp_path: Path, night: list[bytes]) -> Path:
    """Return a folder of the night's packets, one file each."""
    return write_packets(tmp_path / "packets", night)
