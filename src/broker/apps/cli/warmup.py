"""``pgb warmup``: compile the fast kernels ahead."""

import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
import polars as pl

from broker.connectors.tables.parquet import ParquetTables
from broker.ports import BatchKey
from broker.science.fitters.salt2.fitter import Salt2Fitter
from broker.science.fitters.salt2.simulate import Sampling, simulate
from broker.science.fitters.salt2.tables import build_tables
from broker.science.fitters.salt2.toy import toy_bandpasses, toy_source
from broker.surveys import SURVEYS, decode_batch


@click.command()
def command() -> None:
    """Compile decoder, writer and fitter once, so that the first run does not wait for them.

    Compiled code is cached on disk; a second call takes a moment.
    """
    started = time.perf_counter()
    for survey in SURVEYS.values():
        if survey.generate is not None:
            packets = list(survey.generate(2, 1, datetime.now(UTC).date()))
            frames, _ = decode_batch(packets, survey)
            _write([frame.rows for frame in frames])
    _fit_nothing()
    click.echo(f"ready after {time.perf_counter() - started:.1f} s")


def _write(tables: Sequence[pl.DataFrame]) -> None:
    """Compile the writer of tables."""
    with tempfile.TemporaryDirectory() as folder:
        for number, rows in enumerate(tables):
            ParquetTables(Path(folder)).append("warm", "up", rows, BatchKey("w", number))


def _fit_nothing() -> None:
    """Compile the fitter on a synthetic model, which needs no model data."""
    with tempfile.TemporaryDirectory() as folder:
        bands = {"blue": (4000.0, 5500.0), "red": (5500.0, 7000.0)}
        tables = build_tables(toy_source(Path(folder)), toy_bandpasses(bands))
        sampling = Sampling(tuple(bands))
        supernova = simulate(tables, sampling, 1, np.random.default_rng(1))[0]
        Salt2Fitter(tables).fit([supernova.lightcurve])
