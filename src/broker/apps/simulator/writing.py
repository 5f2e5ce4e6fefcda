"""Simulated nights on disk: one file an alert, with the truth beside them."""

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import polars as pl

from broker.apps.simulator.models import light_for
from broker.apps.simulator.night import FieldPackets, Night, night_after
from broker.apps.simulator.truth import write_truth
from broker.errors import UsageError
from broker.surveys import Survey
from broker.wiring import Broker


def simulate_nights(
    broker: Broker, wanted: tuple[date, int, int], *, seed: int, mix: str, model: str
) -> Iterator[tuple[date, Iterator[FieldPackets]]]:
    """Yield nights in a row, in which the same objects come back.

    Parameters
    ----------
    broker : Broker
        Gives the survey, and where model data lies.
    wanted : tuple
        First night, number of nights, and alerts of each.
    seed : int
        The same seed makes the same nights.
    mix, model : str
        Shares of populations, and light curves of type Ia supernovae.
    """
    first, nights, alerts = wanted
    if nights < 1 or alerts < 1:
        raise UsageError("a simulation has at least one night of one alert")
    light = light_for(model, broker)
    for number in range(nights):
        day = night_after(first, number)
        yield day, Night(broker.survey, day, seed, mix, light).alerts(alerts)


def write_night(
    survey: Survey, day: date, parts: Iterable[FieldPackets], out: Path
) -> tuple[int, str]:
    """Write a night to ``alerts/`` and its truth to ``truth/``; return the count and folder.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    name = f"{day:%Y%m%d}"
    folder = out / "alerts" / name
    suffix = ".avro" if survey.wire == "container" else ".bin"
    truth: list[pl.DataFrame] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in parts:
            for source_id, payload in zip(part.truth["source_id"], part.payloads, strict=True):
                (folder / f"{source_id}{suffix}").write_bytes(payload)
            truth.append(part.truth)
        write_truth(truth, out / "truth", name)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from error
    return sum(len(part) for part in truth), str(folder)
