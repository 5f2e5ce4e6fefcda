"""A broker on a home of its own, driven through the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from broker.surveys import DEFAULT_SURVEY, get_survey

PGB = [sys.executable, "-c", "from broker.apps.cli import main; main()"]


@dataclass(frozen=True)
class Pgb:
    """The command ``pgb`` on one home, in a process of its own."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the command."""
        return {**os.environ, "PGB_HOME": str(self.home), "COLUMNS": "200"}

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command."""
        return subprocess.Popen(
            [*PGB, *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run a command to its end; return what it prints, with errors if it is to fail."""
        process = self.start(*words)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return out if code == 0 else out + err

    def json(self, *words: str, code: int = 0) -> Any:
        """Run a command with --json; return its last line as a value."""
        return json.loads(self(*words, "--json", code=code).strip().splitlines()[-1])

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Query."""
        return [json.loads(line) for line in self("query", sql, "--format", "json").splitlines()]


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


def write_packets(folder: Path, packets: list[bytes]) -> Path:
    """Write packets into files."""
    folder.mkdir()
    for number, packet in enumerate(packets):
        (folder / f"{number:05d}.avro").write_bytes(packet)
    return folder


@pytest.fixture
def write() -> Callable[[Path, list[bytes]], Path]:
    """Return the function that writes packets into files."""
    return write_packets
