"""What tests of the whole command share."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PGB = [sys.executable, "-c", "from broker.apps.cli import main; main()"]


@dataclass(frozen=True)
class Pgb:
    """The command ``pgb`` on one home, in a process of its own."""

    home: Path

    def start(
        self, *words: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start a command."""
        own = {"PGB_HOME": str(self.home), "COLUMNS": "200", "PGB_FETCH_MODELS": "never"}
        return subprocess.Popen(
            [*PGB, *words],
            env={**os.environ, **own, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *words: str, code: int = 0, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run a command to its end; return what it prints, with errors if it is to fail."""
        process = self.start(*words, environment=environment)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return out if code == 0 else out + err

    def json(self, *words: str, code: int = 0) -> Any:
        """Run a command with --json; return its last line as a value."""
        return json.loads(self(*words, "--json", code=code).strip().splitlines()[-1])

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Query."""
        return [json.loads(line) for line in self("query", sql, "--format", "json").splitlines()]


def write_packets(folder: Path, packets: list[bytes]) -> Path:
    """Write packets into files."""
    folder.mkdir()
    for number, packet in enumerate(packets):
        (folder / f"{number:05d}.avro").write_bytes(packet)
    return folder
