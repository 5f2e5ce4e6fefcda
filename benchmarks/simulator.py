"""Making packets of simulated nights, against writing the same packets with fastavro."""

import io
import time
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any

import fastavro

from broker.apps.simulator.cadence import can_simulate
from broker.apps.simulator.night import Night
from broker.surveys import SURVEYS, Survey, open_alert
from broker.surveys.avro import AvroSchema

_NIGHT = date(2026, 1, 1)
_SAMPLE = 200


def run(place: Path | None = None, rounds: int = 5, alerts: int = 4096) -> dict[str, Any]:
    """Measure; every time is CPU time of the process, all threads, per packet.

    Parameters
    ----------
    place : Path, optional
        Not used: what is measured is made.
    rounds : int
        Rounds in which generator and rival take turns; medians are reported.
    alerts : int
        Packets per round.
    """
    del place
    ratios, figures = {}, {}
    for name, survey in SURVEYS.items():
        if can_simulate(survey):
            ours, theirs = _rounds(survey, rounds, alerts)
            pairs = zip(theirs, ours, strict=True)
            ratios[f"{name}_vs_fastavro_writing"] = median(their / our for their, our in pairs)
            figures[f"{name}_packets_per_s_per_core"] = 1e6 / median(ours)
            figures[f"{name}_fastavro_packets_per_s_per_core"] = 1e6 / median(theirs)
    return {"ratios": ratios, "figures": figures}


def _rounds(survey: Survey, rounds: int, alerts: int) -> tuple[list[float], list[float]]:
    sample = [open_alert(one, survey=survey.name) for one in islice(_each(survey, 0), _SAMPLE)]
    schema = fastavro.parse_schema(_newest(survey).definition)
    _generating_us(survey, 0, alerts)  # cutouts are made once a process
    ours, theirs = [], []
    for number in range(1, rounds + 1):
        ours.append(_generating_us(survey, number, alerts))
        theirs.append(_writing_us(schema, [one.packet for one in sample]))
    return ours, theirs


def _newest(survey: Survey) -> AvroSchema:
    found = survey.schemas.get(survey.schemas.versions[0])
    assert found is not None
    return found


def _generating_us(survey: Survey, seed: int, count: int) -> float:
    packets = _each(survey, seed)
    next(packets)  # how many objects a field has is found by trial, once a night
    started = time.process_time()
    for _ in islice(packets, count):
        pass
    return (time.process_time() - started) * 1e6 / count


def _each(survey: Survey, seed: int) -> Iterator[bytes]:
    return chain.from_iterable(part.payloads for part in Night(survey, _NIGHT, seed).fields())


def _writing_us(schema: Any, packets: Sequence[Any]) -> float:
    started = time.process_time()
    for packet in packets:
        fastavro.schemaless_writer(io.BytesIO(), schema, packet)
    return (time.process_time() - started) * 1e6 / len(packets)
