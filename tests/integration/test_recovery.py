"""A crash between any two steps of a batch loses nothing and does nothing twice."""

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from broker.config import Settings
from broker.connectors.sources.generated import GeneratedSource
from broker.pipeline.reconcile import reconcile, reconcile_sinks
from broker.pipeline.runner import Limits, Pipeline, Report, Sinks
from broker.surveys import DEFAULT_SURVEY, get_survey
from broker.wiring import Broker

ALERTS, BATCH = 120, 40
LIMITS = Limits(batch_alerts=BATCH)
LARGE = replace(LIMITS, large_batch_bytes=1)
BAD = [b"not an alert", b"nor this"]


class CrashError(Exception):
    """The process ends here."""


@dataclass
class Fuse:
    """Burns through at the n-th step that changes anything."""

    steps_left: int

    def step(self) -> None:
        """Take one step, or crash; after a crash nothing more is done."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise CrashError


class Fused:
    """A sink whose every change may be the last one."""

    def __init__(self, sink: Any, fuse: Fuse, *changing: str) -> None:
        self._sink, self._fuse, self._changing = sink, fuse, changing

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._sink, name)
        if name not in self._changing:
            return method

        def changed(*args: Any, **more: Any) -> Any:
            self._fuse.step()
            return method(*args, **more)

        return changed


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    """Return packets with two bad ones and three repeats among them."""
    generate = get_survey(DEFAULT_SURVEY).generate
    assert generate is not None
    good = list(generate(ALERTS, 3, date(2026, 1, 2)))
    return [*good[:50], BAD[0], *good[40:43], *good[50:], BAD[1]]


def run(
    home: Path, packets: list[bytes], steps: int, models: Path, limits: Limits = LIMITS
) -> tuple[Report | None, int]:
    """Run the pipeline until the fuse burns through; return report and steps left."""
    broker = Broker(Settings(home=str(home), model_dir=str(models), plots="never"))
    fuse = Fuse(steps)
    name = broker.instance.name
    sinks = Sinks(
        Fused(broker.stream.log(name("alerts")), fuse, "append"),
        Fused(broker.stream.log(name("deadletters")), fuse, "append"),
        Fused(broker.stream, fuse, "publish"),
        Fused(broker.tables, fuse, "append"),
        broker.files,
    )
    pipeline = Pipeline(
        broker.instance,
        broker.survey,
        broker.filters,
        sinks,
        Fused(broker.ledger, fuse, "claim", "close", "release"),
        salt2=broker.salt2_stage(),
        limits=limits,
    )
    try:
        with broker.working():
            return pipeline.run(GeneratedSource(packets)), fuse.steps_left
    except CrashError:
        return None, fuse.steps_left
    finally:
        broker.stream.close()
        broker.ledger.close_file()


def contents(home: Path) -> dict[str, Any]:
    """Return everything that a reader can see, in a fixed order."""
    broker = Broker(Settings(home=str(home), worker="reader"))
    tables = {
        name: broker.tables.query(f"SELECT * FROM {name}").sort(pos).to_dicts()
        for name, pos in (
            ("ztf_alerts.alerts", "candid"),
            ("ztf_alerts.DIASource", "candid"),
            ("ztf_alerts.verdicts", "source_id"),
            ("ztf_alerts.salt2", "candid"),
        )
    }
    topics = {topic.name: topic.messages for topic in broker.stream.topics()}
    letters = broker.stream.log(broker.instance.name("deadletters"))
    dead = [payload for key in list(letters.keys()) for payload in letters.read(key).payloads]
    checks = [
        *reconcile(broker.ledger),
        *reconcile_sinks(broker.ledger, broker.instance, broker.stream, broker.tables),
    ]
    return {
        "tables": tables,
        "topics": topics,
        "dead": sorted(dead),
        "wrong": [check for check in checks if not check.ok],
    }


@pytest.fixture(scope="module")
def whole(
    packets: list[bytes], toy_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict, int]:
    """Return what an uninterrupted run leaves, and how many steps it takes."""
    home = tmp_path_factory.mktemp("whole")
    enough = 10_000
    _, left = run(home, packets, enough, toy_models)
    return contents(home), enough - left


def test_an_uninterrupted_run_adds_up(whole: tuple[dict, int]):
    """Otherwise the next test would compare with nonsense."""
    kept, steps = whole

    assert kept["wrong"] == []
    assert kept["dead"] == sorted(BAD)
    assert len(kept["tables"]["ztf_alerts.alerts"]) == ALERTS
    assert len(kept["tables"]["ztf_alerts.salt2"]) > 0
    assert steps > 30


@pytest.mark.parametrize(
    ("third", "limits"),
    [(0, LIMITS), (1, LIMITS), (2, LIMITS), (1, LARGE)],
    ids=["0", "1", "2", "large"],
)
def test_a_crash_at_any_step_is_mended(
    third: int,
    limits: Limits,
    whole: tuple[dict, int],
    packets: list[bytes],
    toy_models: Path,
    tmp_path: Path,
):
    """The same command again ends where an uninterrupted run does."""
    kept, steps = whole
    for step in range(third, steps, 3):
        home = tmp_path / str(step)
        crashed, _ = run(home, packets, step, toy_models, limits)
        assert crashed is None

        finished, _ = run(home, packets, 10_000, toy_models, limits)

        assert finished is not None
        assert contents(home) == kept, f"after a crash at step {step}"
