"""``pgb resources --name``: what a name stands for."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from broker.apps.cli import cli


def _explained(name: str) -> tuple[int, list[dict[str, Any]]]:
    """Ask for a name; the exit code and what was found."""
    result = CliRunner().invoke(cli, ["resources", "--survey", "ztf", "--json", "--name", name])
    return result.exit_code, json.loads(result.output)


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("ztf_alert_data", "ztf-alerts"),
        ("decat_alert_data", "decat-alerts"),
        ("ztf_alerts_mytest", "ztf_alerts_mytest"),
        ("ztf-alerts", "ztf-alerts"),
    ],
)
def test_a_name_keeps_its_instance(name: str, today: str) -> None:
    """Today's name is that of the survey and test id in the old one."""
    code, found = _explained(name)

    assert (code, found[0]["name"]) == (0, today)


@pytest.mark.parametrize("name", ["nonsense", "nonsense_alerts", "ztf-nonsense"])
def test_a_name_of_nothing(name: str) -> None:
    """A word that is no survey's name is nothing's, and the exit code says so."""
    assert _explained(name) == (1, [])


@pytest.mark.parametrize("alerts", ["0", "-5"])
def test_the_cost_of_nothing_is_refused(alerts: str) -> None:
    """A number of alerts is 1 at least."""
    result = CliRunner().invoke(cli, ["resources", "--survey", "ztf", "--cost", alerts])

    assert result.exit_code == 2
    assert "'--cost'" in result.output
