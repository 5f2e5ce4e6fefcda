"""An account that may only publish still takes in a night."""

from datetime import date
from pathlib import Path

import pytest

from broker.apps.cli.run import take_in
from broker.config import Settings
from broker.connectors.sources.generated import GeneratedSource
from broker.connectors.streams.memory import MemoryStream
from broker.errors import ForbiddenError
from broker.surveys import DEFAULT_SURVEY, get_survey
from broker.wiring import Broker


class PublishOnly(MemoryStream):
    """A bus on which nobody may make subscriptions."""

    def subscribe(self, *args: object, **named: object) -> None:
        """Refuse."""
        raise ForbiddenError("permission denied")


def test_missing_rights_are_told_after_a_good_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The alerts are stored; one line says what was not made."""
    generate = get_survey(DEFAULT_SURVEY).generate
    assert generate is not None
    broker = Broker(Settings(home=str(tmp_path), fetch_models="never"))
    broker.__dict__["bus"] = PublishOnly()

    report = take_in(broker, GeneratedSource(list(generate(5, 1, date(2026, 1, 2)))))

    assert report.stored == 5
    assert (
        "subscriptions were not made (pgb setup makes them): permission" in capsys.readouterr().err
    )
