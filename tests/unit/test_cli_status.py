"""What ``pgb status`` tells, and its exit code."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.apps.cli import cli
from broker.connectors.kafka.health import Health, PartitionHealth, write_health
from broker.ports import OffsetGap

NO_PROCESS = 2**22 + 1


def status(home: Path, health: Health | None, *flags: str) -> tuple[int, str]:
    """Run the command on a home with one worker; return exit code and output."""
    if health is not None:
        write_health(home / "health" / "worker-w0.json", health)
    done = CliRunner().invoke(cli, ["status", "--home", str(home), *flags])
    return done.exit_code, done.output


@pytest.fixture
def well() -> Health:
    """Return the state of a worker that reads."""
    now = time.time()
    partitions = [PartitionHealth("t", 0, 8, 5, 10)]
    gaps = [OffsetGap("t", 0, 2, 3, "retention")]
    return Health(
        "consuming",
        now,
        group="g",
        topics=["t"],
        partitions=partitions,
        gaps=gaps,
        last_message=now - 100,
        last_commit=now,
        pid=os.getpid(),
    )


def test_well(tmp_path: Path, well: Health) -> None:
    """A worker at work is well, and its numbers are told."""
    code, output = status(tmp_path, well, "--json")
    (told,) = json.loads(output)

    assert (code, told["state"], told["faults"]) == (0, "consuming", [])
    assert told["metrics"]["lag"] == 2
    assert told["gaps"][0]["reason"] == "retention"


def test_table(tmp_path: Path, well: Health) -> None:
    """For people it is a table, with the gaps below it."""
    assert "offsets 2–3 are gone (retention)" in status(tmp_path, well)[1]


@pytest.mark.parametrize(
    ("change", "flags", "expected"),
    [
        ({"state": "disconnected", "reason": "refused"}, (), "the connection is lost: refused"),
        ({"pid": NO_PROCESS}, (), "has died"),
        ({"time": 1.0}, (), "died or hangs"),
        ({}, ("--max-lag", "1"), "2 messages behind"),
        ({}, ("--max-age", "50"), "100 s old"),
        ({"last_message": None}, ("--max-age", "50"), "no message yet"),
    ],
)
def test_not_well(
    tmp_path: Path, well: Health, change: dict[str, object], flags: tuple[str, ...], expected: str
) -> None:
    """What is wrong is told, and the exit code is 1."""
    code, output = status(tmp_path, replace(well, **change), "--json", *flags)

    assert code == 1
    assert expected in json.loads(output)[0]["faults"][0]


@pytest.mark.parametrize("text", ["", "[]", '{"state": "consuming"}', '{"mood": "fine"}'])
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, well: Health, text: str) -> None:
    """The other workers are told all the same."""
    (tmp_path / "health").mkdir()
    (tmp_path / "health" / "worker-w1.json").write_text(text)

    code, said = status(tmp_path, well, "--json")

    assert code == 1
    first, second = json.loads(said)
    assert (first["state"], first["faults"]) == ("consuming", [])
    assert second["faults"] == [f"{tmp_path}/health/worker-w1.json cannot be read"]


def test_ended_is_well(tmp_path: Path, well: Health) -> None:
    """A worker that has read all needs no process."""
    assert status(tmp_path, replace(well, state="ended", pid=NO_PROCESS))[0] == 0


def test_no_worker(tmp_path: Path) -> None:
    """A home without workers is told as such."""
    code, output = status(tmp_path, None)

    assert (code, "no worker" in output) == (0, True)
