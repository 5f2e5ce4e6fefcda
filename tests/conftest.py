"""Fixtures for every test."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real packets; the test is skipped where it is absent."""
    if not _SHARED.is_dir():
        pytest.skip("the folder of real packets is absent")
    return _SHARED
