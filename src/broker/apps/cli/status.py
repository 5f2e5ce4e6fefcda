"""``pgb status``: how the workers that read from Kafka are."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.connectors.kafka.health import Health, read_health

_STALE_S = 30.0
"""A worker at work writes its state every second or two."""


_MOST_TOPICS_SHOWN = 4

_UNREADABLE = "unreadable"
"""State of a worker whose file is damaged or of another make."""


@click.command()
@options("home", "json")
@click.option("--max-lag", type=int, help="More unread messages than this are a fault.")
@click.option("--max-age", type=float, help="An older last message than this is a fault, s.")
def command(max_lag: int | None, max_age: float | None, as_json: bool, **flags: Any) -> None:
    """Tell how each worker on this home is; exit 1 if one is not well.

    A worker is not well if it has lost its connection, died in the middle of its work, or
    is behind the limits given.
    """
    folder = settings_of(**flags).home_path / "health"
    found = [(path.stem, _health_in(path)) for path in sorted(folder.glob("*.json"))]
    faults = {name: list(_faults(it, max_lag, max_age)) for name, it in found}
    if as_json:
        print_json([_summary(name, health, faults[name]) for name, health in found])
    elif not found:
        click.echo(f"no worker has read from Kafka on {folder.parent}")
    else:
        _show(found, faults)
    sys.exit(any(faults.values()))


def _health_in(path: Path) -> Health:
    """Return what a worker wrote of itself; it may have been another version of the broker."""
    try:
        return read_health(path)
    except (OSError, ValueError, KeyError, TypeError):
        return Health(_UNREADABLE, 0.0, reason=f"{path} cannot be read")


def _faults(health: Health, max_lag: int | None, max_age: float | None) -> Iterator[str]:
    if health.state == _UNREADABLE:
        yield health.reason
        return
    if health.state == "disconnected":
        yield f"the connection is lost: {health.reason}"
    if health.state != "ended" and not _is_alive(health):
        yield f"process {health.pid} has died or hangs"
    if max_lag is not None and health.lag > max_lag:
        yield f"{health.lag:,} messages behind"
    age = None if health.last_message is None else time.time() - health.last_message
    if max_age is not None and (age is None or age > max_age):
        yield "no message yet" if age is None else f"the last message is {age:,.0f} s old"


def _is_alive(health: Health) -> bool:
    if time.time() - health.time > _STALE_S:
        return False
    try:
        os.kill(health.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and another user's
        return True
    return True


def _summary(name: str, health: Health, faults: list[str]) -> dict[str, Any]:
    return {
        "worker": name,
        "state": health.state,
        "group": health.group,
        "topics": list(health.topics),
        "missing_topics": list(health.missing),
        "metrics": health.metrics(),
        "partitions": [asdict(it) | {"lag": it.lag} for it in health.partitions],
        "gaps": [asdict(it) for it in health.gaps],
        "faults": faults,
    }


def _show(found: list[tuple[str, Health]], faults: dict[str, list[str]]) -> None:
    columns = (
        "worker",
        "state",
        "topics",
        "partitions",
        "lag",
        "last message",
        "last commit",
        "reconnects",
    )
    rows = [
        (
            *(name, it.state, _listed(it.topics or it.missing)),
            *(len(it.partitions), it.lag, _ago(it.last_message), _ago(it.last_commit)),
            it.reconnects,
        )
        for name, it in found
    ]
    print_table("Kafka", columns, rows)
    for name, health in found:
        for gap in health.gaps:
            where = f"{gap.topic}[{gap.partition}]"
            click.secho(f"{where}: offsets {gap.first}–{gap.last} are gone ({gap.reason})")
        for fault in faults[name]:
            click.secho(f"{name}: {fault}", fg="red")


def _listed(topics: Sequence[str]) -> str:
    more = len(topics) - _MOST_TOPICS_SHOWN
    return ", ".join([*topics[:_MOST_TOPICS_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _ago(moment: float | None) -> str:
    return "never" if moment is None else f"{max(time.time() - moment, 0):,.0f} s ago"
