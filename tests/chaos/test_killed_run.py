"""A broker that is killed at random moments, and then runs again."""

import random
import signal
import subprocess
import time
from datetime import date
from pathlib import Path

import pytest

from broker.config import Settings
from broker.surveys import DEFAULT_SURVEY, get_survey
from broker.wiring import Broker
from tests_support import Pgb, write_packets

KILLS, ALERTS = 8, 1500
TABLES = ("alerts", "DIASource", "verdicts")


def everything(pgb: Pgb) -> dict[str, list[str]]:
    """Return the rows of all tables in a fixed order."""
    tables = Broker(Settings(home=str(pgb.home))).tables
    return {
        table: sorted(map(repr, tables.query(f"SELECT * FROM ztf_alerts.{table}").rows()))
        for table in TABLES
    }


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path):
    """However often: the ledger adds up, the tables equal those of a run in peace."""
    generate = get_survey(DEFAULT_SURVEY).generate
    assert generate is not None
    packets = list(generate(ALERTS, 11, date(2026, 1, 2)))
    folder = write_packets(tmp_path / "packets", [*packets, b"bad", *packets[:100]])
    killed, whole = Pgb(tmp_path / "killed"), Pgb(tmp_path / "whole")
    command = ("run", str(folder), "--json")
    small_batches = {"PGB_BATCH_ALERTS": "50"}
    dice = random.Random(5)

    deaths = 0
    for _ in range(KILLS):
        process = killed.start(*command, environment=small_batches)
        try:
            process.wait(timeout=dice.uniform(1.0, 2.4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            deaths += 1
        process.communicate()
        time.sleep(0.01)
    killed.json("run", str(folder))
    whole.json("run", str(folder))

    assert deaths > 0
    assert killed.json("ledger")["reconciled"] is True
    assert everything(killed) == everything(whole)
    assert {t["topic"]: t["messages"] for t in killed.json("topics")} == {
        t["topic"]: t["messages"] for t in whole.json("topics")
    }
