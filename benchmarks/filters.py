"""Filters over columns against the same filters over dictionaries."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from broker.apps.benchmarks._packets import packets, renumbered
from broker.apps.benchmarks.pipeline import user_filters
from broker.science.filters import FILTERS, evaluate
from broker.surveys import DEFAULT_SURVEY, decode_batch, get_survey

_BATCH = 1000


def run(place: Path | None = None, rounds: int = 9) -> dict[str, Any]:
    """Measure 2 built-in and 20 user filters on a batch of 1000; CPU time, medians.

    The rival evaluates two cuts of each user filter alone, in plain Python on packets that
    are dictionaries already.

    Parameters
    ----------
    place : Path, optional
        Folder of real packets; generated ones by default.
    rounds : int
        Interleaved rounds.
    """
    survey = get_survey(DEFAULT_SURVEY)
    payloads = list(renumbered(packets(place), _BATCH))
    frames, _ = decode_batch(payloads, survey)
    rows = max((frame.rows for frame in frames), key=len)
    dicts = rows.to_dicts()
    filters = (*FILTERS.values(), *user_filters(survey))
    source = survey.schema_map.get_key("source") or ""
    magnitude = survey.schema_map.get_key("mag") or ""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        ours.append(_microseconds(lambda: evaluate(filters, rows), len(rows)))
        theirs.append(
            _microseconds(lambda: [_plain(one[source], magnitude) for one in dicts], len(rows))
        )
    return {
        "ratios": {
            "filters_vs_python_on_dicts": median(t / o for t, o in zip(theirs, ours, strict=True))
        },
        "figures": {
            "filters": len(filters),
            "us_per_alert": median(ours),
            "us_per_alert_and_filter": median(ours) / len(filters),
            "python_on_dicts_us_per_alert": median(theirs),
        },
    }


def _plain(detection: Mapping[str, Any], magnitude: str) -> list[bool]:
    """Evaluate the user filters as a person would write them for one packet."""
    mag, ra = detection[magnitude], detection["ra"]
    return [
        mag is not None and mag < 18 + i / 20 and ra >= 18 * i and ra < 18 * i + 1
        for i in range(20)
    ]


def _microseconds(work: Callable[[], object], size: int) -> float:
    started = time.process_time()
    work()
    return 1e6 * (time.process_time() - started) / size
