"""Filters that would take each other's place are refused before a run begins."""

from pathlib import Path

import pytest

from broker.config import Settings
from broker.errors import ConfigError
from broker.wiring import Broker


@pytest.mark.parametrize("topic", ["alerts_pure", "alerts", "salt2"])
def test_a_topic_has_one_publisher(topic: str, tmp_path: Path) -> None:
    """A user's filter may not publish where another filter or the broker does."""
    file = tmp_path / "mine.sql"
    file.write_text(
        f"-- name: mine\n-- topic: {topic}\nSELECT * FROM alerts WHERE candidate.rb > 0.7\n"
    )

    with pytest.raises(ConfigError, match=f"one publisher; there are two for {topic}"):
        _ = Broker(Settings(home=str(tmp_path), filters=(str(file),))).filters
