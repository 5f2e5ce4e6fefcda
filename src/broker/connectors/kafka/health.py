"""How a consumer is: a snapshot, as numbers for a monitor and as a small file for others."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from broker.config import Settings
from broker.instance import Instance
from broker.ports import OffsetGap


@dataclass(frozen=True, slots=True)
class PartitionHealth:
    """How far one assigned partition is read; offsets are of the next message, -1 unknown."""

    topic: str
    partition: int
    position: int
    committed: int
    end: int

    @property
    def lag(self) -> int:
        """Messages that are there and were not read yet; -1 if not known."""
        return -1 if self.end < 0 or self.position < 0 else max(self.end - self.position, 0)


@dataclass(frozen=True, slots=True)
class Health:
    """The state of one consumer at one moment; times are UNIX times in s, null for never.

    `state` is one of ``waiting for topics``, ``joining``, ``empty`` (every topic exists and
    none holds a message), ``consuming``, ``disconnected`` and ``ended``.
    """

    state: str
    time: float
    group: str = ""
    topics: Sequence[str] = ()
    missing: Sequence[str] = ()
    partitions: Sequence[PartitionHealth] = ()
    gaps: Sequence[OffsetGap] = ()
    last_message: float | None = None
    last_commit: float | None = None
    reconnects: int = 0
    reason: str = ""
    pid: int = field(default_factory=os.getpid)

    @property
    def lag(self) -> int:
        """Messages that are there and were not read yet, over all partitions."""
        return sum(max(partition.lag, 0) for partition in self.partitions)

    def metrics(self) -> dict[str, float]:
        """Return the numbers that a monitor wants; ages in s, absent for never."""
        numbers: dict[str, float] = {
            "connected": float(self.state != "disconnected"),
            "partitions_assigned": len(self.partitions),
            "lag": self.lag,
            "reconnects": self.reconnects,
            "gaps": len(self.gaps),
        }
        if self.last_message is not None:
            numbers["last_message_age_s"] = self.time - self.last_message
        if self.last_commit is not None:
            numbers["last_commit_age_s"] = self.time - self.last_commit
        return numbers


def health_file(settings: Settings, instance: Instance) -> Path:
    """Return where a worker writes its snapshots, in the home."""
    name = f"{instance.name('worker')}-{settings.worker}.json"
    return settings.home_path / "health" / name


def write_health(path: Path, health: Health) -> None:
    """Replace the file by a snapshot, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(health)))
    partial.replace(path)


def read_health(path: Path) -> Health:
    """Return the snapshot in a file.

    Raises
    ------
    ValueError
        If the file is not a snapshot.
    """
    content: dict[str, Any] = json.loads(path.read_text())
    content["partitions"] = [PartitionHealth(**each) for each in content["partitions"]]
    content["gaps"] = [OffsetGap(**each) for each in content["gaps"]]
    return Health(**content)
