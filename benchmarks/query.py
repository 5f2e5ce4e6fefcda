"""One object's rows among many stored ones, in process, after and before merging."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from broker.connectors.tables.parquet import ParquetTables
from broker.ports import BatchKey

_BATCH_ROWS = 500
_ROWS_PER_OBJECT = 20
_NUMBERS = 104
_TABLE = "bench.DIASource"


def run(rows: int = 1_000_000, rounds: int = 15) -> dict[str, Any]:
    """Store `rows` rows of 107 columns, and time queries for single objects.

    Parameters
    ----------
    rows : int
        How many rows are stored.
    rounds : int
        Queries of each kind; each asks for another object.

    Returns
    -------
    dict
        ``figures``: medians in milliseconds, the first query of the process apart, and
        microseconds of CPU a row for `append` and `compact`. ``ratios``:
        ``query_merged_vs_unmerged``, how many times faster a query is after the merge.
    """
    with tempfile.TemporaryDirectory() as folder:
        tables = ParquetTables(Path(folder) / "tables", ["objectId"])
        objects = max(1, rows // _ROWS_PER_OBJECT)
        append_s = _fill(tables, rows, objects)
        before_ms = _median_ms(_one_object(tables, objects), min(3, rounds))
        started = time.process_time()
        removed = tables.compact()
        compact_s = time.process_time() - started
        fresh = ParquetTables(Path(folder) / "tables", ["objectId"])
        query = _one_object(fresh, objects)
        first_ms = _median_ms(query, 1)
        one_ms = _median_ms(query, rounds)
        aggregate = f"SELECT band, COUNT(*), AVG(number1) FROM {_TABLE} GROUP BY band"  # noqa: S608
        aggregate_ms = _median_ms(lambda _: fresh.query(aggregate), rounds)
    return {
        "rows": rows,
        "files_removed": removed,
        "ratios": {"query_merged_vs_unmerged": before_ms / one_ms},
        "figures": {
            "query_one_object_ms": one_ms,
            "query_one_object_first_ms": first_ms,
            "query_one_object_unmerged_ms": before_ms,
            "query_aggregate_ms": aggregate_ms,
            "append_us_per_row": append_s / rows * 1e6,
            "compact_us_per_row": compact_s / rows * 1e6,
        },
    }


def _fill(tables: ParquetTables, rows: int, objects: int) -> float:
    """Append batches of random rows and return the CPU seconds of `append` alone."""
    random = np.random.default_rng(1)
    base = pl.DataFrame(
        {f"number{i}": random.normal(size=_BATCH_ROWS).round(3) for i in range(_NUMBERS)}
    )
    spent = 0.0
    for number in range(max(1, rows // _BATCH_ROWS)):
        batch = base.select(
            pl.Series("objectId", [_name(i) for i in random.integers(0, objects, _BATCH_ROWS)]),
            pl.Series("candid", np.arange(_BATCH_ROWS) + number * _BATCH_ROWS + 2**60),
            pl.Series("band", random.choice(["g", "r", "i"], _BATCH_ROWS)),
            pl.all().shuffle(number),
        )
        started = time.process_time()
        tables.append(*_TABLE.split("."), batch, BatchKey("w0", number))
        spent += time.process_time() - started
    return spent


def _one_object(tables: ParquetTables, objects: int) -> Callable[[int], object]:
    sql = f"SELECT * FROM {_TABLE} WHERE objectId = @object"  # noqa: S608
    return lambda i: tables.query(sql, {"object": _name(i * 977 % objects)})


def _name(i: int) -> str:
    return f"object{i:07d}"


def _median_ms(query: Callable[[int], object], rounds: int) -> float:
    times = []
    for i in range(rounds):
        started = time.perf_counter()
        query(i)
        times.append((time.perf_counter() - started) * 1e3)
    return median(times)
