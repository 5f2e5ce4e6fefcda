"""The whole pipeline against decoding alone with fastavro, and its cost as the store grows."""

import io
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import fastavro
import polars as pl

from broker.apps.benchmarks._packets import packets, renumbered
from broker.apps.process import taking_in
from broker.config import Settings
from broker.connectors.sources.generated import GeneratedSource
from broker.pipeline import intake, products
from broker.pipeline.copies import file_names
from broker.pipeline.ledger import utc_now
from broker.ports import SourceBatch
from broker.science.filters import FILTERS, Cut, Filter, Variant
from broker.surveys import Survey, decode_batch
from broker.wiring import Broker

USER_FILTERS = 20
_FASTAVRO_SAMPLE = 200


def run(place: Path | None = None, rounds: int = 5, alerts: int = 5120) -> dict[str, Any]:
    """Measure; every time is CPU time of the process, all threads, per alert.

    Parameters
    ----------
    place : Path, optional
        Folder of real packets; generated ones by default.
    rounds : int
        Rounds in which pipeline and rival take turns; medians are reported.
    alerts : int
        Alerts per round.
    """
    sample = packets(place)
    with taking_in(), _broker() as broker:
        _pipeline_us(broker, sample, 512, -1)
        ours, theirs = [], []
        for number in range(rounds):
            ours.append(_pipeline_us(broker, sample, alerts, number))
            theirs.append(_fastavro_us(sample))
        stages = _stages_us(broker, sample)
    growth = _growth(sample)
    pipeline_us, fastavro_us = median(ours), median(theirs)
    return {
        "ratios": {
            "pipeline_vs_fastavro_decode": median(t / o for t, o in zip(theirs, ours, strict=True)),
            "cost_growth_10x": growth,
        },
        "figures": {
            "pipeline_us_per_alert": pipeline_us,
            "alerts_per_s_per_core": 1e6 / pipeline_us,
            "fastavro_decode_us_per_alert": fastavro_us,
            "packet_bytes_mean": sum(map(len, sample)) / len(sample),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "filters": len(FILTERS) + USER_FILTERS,
        },
        "stages_us_per_alert": stages,
    }


@contextmanager
def _broker() -> Iterator[Broker]:
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Settings(home=folder))
        yield _with_user_filters(broker)


def _with_user_filters(broker: Broker) -> Broker:
    broker.__dict__["filters"] = (*FILTERS.values(), *user_filters(broker.survey))
    return broker


def user_filters(survey: Survey) -> list[Filter]:
    """Make filters of three cuts each, such as users write; few alerts pass them."""
    words = survey.schema_map
    source, magnitude = words.get_key("source"), words.get_key("mag")
    mag, ra = pl.col(f"{source}.{magnitude}"), pl.col(f"{source}.ra")
    return [
        Filter(
            f"user{i}",
            f"user{i}",
            "in a stripe of the sky, and bright",
            (
                Variant(
                    (),
                    (
                        Cut("bright", mag, mag < 18 + i / 20, 18 + i / 20, "<", "mag"),
                        Cut("west", ra, ra >= 18 * i, 18 * i, ">=", "deg"),
                        Cut("east", ra, ra < 18 * i + 1, 18 * i + 1, "<", "deg"),
                    ),
                ),
            ),
        )
        for i in range(USER_FILTERS)
    ]


def _pipeline_us(broker: Broker, sample: Sequence[bytes], alerts: int, number: int) -> float:
    payloads = list(renumbered(sample, alerts, start=(number + 1) * 10**7))
    pipeline = broker.pipeline()
    started = time.process_time()
    report = pipeline.run(GeneratedSource(payloads))
    spent = time.process_time() - started
    if report.stored != alerts:
        raise RuntimeError(f"{report.stored} of {alerts} alerts were stored")
    return 1e6 * spent / alerts


def _fastavro_us(sample: Sequence[bytes]) -> float:
    started = time.process_time()
    for payload in islice(cycle(sample), _FASTAVRO_SAMPLE):
        for _ in fastavro.reader(io.BytesIO(payload)):
            pass
    return 1e6 * (time.process_time() - started) / _FASTAVRO_SAMPLE


def _growth(sample: Sequence[bytes], step: int = 2560, rounds: int = 5) -> float:
    """Return the cost of an alert with ten times as many stored, over that with few.

    Each cost is taken in units of fastavro's beside it, as machines change their pace.
    """
    with _broker() as broker:
        numbers = iter(range(100))

        def cost() -> float:
            return _pipeline_us(broker, sample, step, next(numbers)) / _fastavro_us(sample)

        cost()
        few = [cost() for _ in range(rounds)]
        for _ in range(9 * rounds // 2):
            _pipeline_us(broker, sample, 2 * step, next(numbers))
        return median(cost() for _ in range(rounds)) / median(few)


def _stages_us(broker: Broker, sample: Sequence[bytes], size: int = 2560) -> dict[str, float]:
    """Time each stage by itself on one batch; they overlap in a run."""
    payloads = list(renumbered(sample, size, start=9 * 10**8))
    batch = next(GeneratedSource(payloads).batches(size, 0))
    survey, filters = broker.survey, broker.filters
    arrival = intake.arrive(SourceBatch(payloads, batch.origins), survey, 1 << 24)
    now = utc_now()
    claim = broker.ledger.claim(arrival.intake, now.date(), now)
    made = [products.make(new, filters) for new in intake.new_alerts(arrival, claim)]
    rows = {name: rows for part in made for name, rows in products.tables(part)}
    keys = iter(range(1 << 20, 1 << 30))

    def key() -> Any:
        return replace(claim.key, number=next(keys))

    stages: dict[str, Callable[[], Any]] = {
        "decode": lambda: decode_batch(payloads, survey),
        "attributes and filters": lambda: [products.make(part.alerts, filters) for part in made],
        "journal": lambda: broker.stream.log("bench").append(
            key(), products.join([products.packets(part) for part in made])
        ),
        **{
            f"rows of {name}": lambda name=name: broker.tables.append("b", name, rows[name], key())
            for name in rows
        },
        "announcements": lambda: broker.stream.publish(
            "bench-avros", products.announcements(made[0], "bench", file_names(made[0]), now), key()
        ),
        "messages of passed alerts": lambda: [
            list(products.passed(part, filters, [b""] * size)) for part in made
        ],
        "the same as JSON, as sent to a cloud": lambda: [
            list(messages.payloads)
            for part in made
            for _, messages in products.passed(part, filters, [b""] * size)
        ],
        "ledger": lambda: broker.ledger.close(claim.key, {}, now),
    }
    return {name: _median_us(stage, size) for name, stage in stages.items()}


def _median_us(stage: Callable[[], Any], size: int, repeats: int = 7) -> float:
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        stage()
        spent.append(time.process_time() - started)
    return 1e6 * median(spent) / size
