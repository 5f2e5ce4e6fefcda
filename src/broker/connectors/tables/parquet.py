"""Tables as folders of Parquet files, queried by DuckDB in BigQuery's dialect.

Layout: ``<dataset>/<table>/<schema fingerprint>/…parquet``. Any process reads at any time;
each worker writes files of its own.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from broker.connectors.tables.compaction import compact_folder
from broker.connectors.tables.dialect import Relation, Translated, translate
from broker.connectors.tables.parts import Part, list_parts, part_name, split_covered, write_part
from broker.connectors.tables.reconcile import casts, united
from broker.connectors.tables.types import bigquery_type, exact_integers, struct_arrays
from broker.errors import TransientError, UsageError
from broker.ports import BatchKey

_NAME = re.compile(r"[A-Za-z_]\w*")
# A reader lists files and opens them a moment later; a merge in between makes it start again.
_ATTEMPTS = 10


class ParquetTables:
    """`Tables` on disk.

    Parameters
    ----------
    root : Path
        The folder of all datasets.
    sort_columns : sequence of str
        Merged files are sorted by the first of these columns that a table has, which makes
        queries for one value of it fast.
    sync : bool
        Whether rows are flushed to the disk before `append` returns.
    """

    def __init__(self, root: Path, sort_columns: Sequence[str] = (), *, sync: bool = False) -> None:
        self._root = root.absolute()
        self._sort_columns = tuple(sort_columns)
        self._sync = sync
        self._written: dict[tuple[Path, str], set[int]] = {}
        self._engine: duckdb.DuckDBPyConnection | None = None

    def append(self, dataset: str, table: str, rows: pl.DataFrame, key: BatchKey) -> None:
        """Append rows; the same key and columns again does nothing.

        Raises
        ------
        TransientError
            If the disk is full; no row was stored.
        UsageError
            If a name is not allowed or the folder cannot be written to.
        """
        from broker.connectors.tables.fresh import Prepared  # readers need no compiler

        prepared = Prepared(rows)
        folder = self._folder(dataset, table) / prepared.fingerprint
        written = self._numbers(folder, key.worker)
        if key.number in written or (rows.is_empty() and written):
            return
        write_part(folder / part_name(key), prepared, key.number, sync=self._sync)
        written.add(key.number)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """Run one SELECT in BigQuery's dialect; ``@name`` takes its value from `parameters`.

        Raises
        ------
        UsageError
            If the SQL is wrong or names a table that does not exist.
        """
        for attempt in range(_ATTEMPTS):
            try:
                translated = translate(sql, self._bind)
                return self._run(translated, dict(parameters or {}))
            except (duckdb.IOException, FileNotFoundError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise TransientError(f"a table could not be read: {error}") from error
        raise AssertionError("unreachable")

    def tables(self) -> dict[str, dict[str, str]]:
        """Return ``{"dataset.table": {column: type}}``, the types in BigQuery's words."""
        return {
            f"{folder.parent.name}.{folder.name}": {
                name: bigquery_type(dtype) for name, dtype in united(_schemas(folder)).items()
            }
            for folder in self._table_folders()
        }

    def compact(self) -> int:
        """Merge small files; return how many went away. Safe beside readers and writers."""
        return sum(
            compact_folder(folder, self._sort_columns)
            for table in self._table_folders()
            for folder in _schema_folders(table)
        )

    def _numbers(self, folder: Path, worker: str) -> set[int]:
        """Return the batches that a worker has written, read once from the disk."""
        if (folder, worker) not in self._written:
            parts = (part for part in list_parts(folder) if part.worker == worker)
            found = {number for part in parts for number in part.batches()}
            self._written[folder, worker] = found
        return self._written[folder, worker]

    def _folder(self, dataset: str, table: str) -> Path:
        for name in (dataset, table):
            if not _NAME.fullmatch(name):
                raise UsageError(f"{name!r} cannot name a dataset or table: use letters, digits, _")
        return self._root / dataset / table

    def _table_folders(self) -> list[Path]:
        return sorted(path for path in self._root.glob("*/*") if path.is_dir())

    def _bind(self, dataset: str, table: str) -> Relation:
        """Let the files of a table stand for it, one footer read for each schema."""
        folder = self._root / dataset / table
        if not (dataset and _NAME.fullmatch(dataset) and _NAME.fullmatch(table)):
            folder = self._root / "-"
        selects = _selects(folder)
        if not selects:
            known = ", ".join(self.tables()) or "none yet"
            name = f"{dataset}.{table}" if dataset else table
            raise UsageError(f"there is no table {name!r}; the tables are: {known}")
        return Relation(" UNION ALL BY NAME ".join(selects), struct_arrays(_schemas(folder)))

    def _run(self, translated: Translated, parameters: dict[str, Any]) -> pl.DataFrame:
        if missing := [name for name in translated.parameters if name not in parameters]:
            raise UsageError(f"the query needs a value for @{missing[0]}")
        values = {name: parameters[name] for name in translated.parameters}
        if self._engine is None:
            self._engine = _engine(self._root)
        with self._engine.cursor() as cursor:
            try:
                found = cursor.sql(translated.sql, params=values or None)
                table = found.to_arrow_table()
                names = _distinct(table.column_names)
                return exact_integers(pl.DataFrame(table.rename_columns(names)))
            except duckdb.IOException:
                raise
            except (duckdb.Error, pl.exceptions.PolarsError) as error:
                raise UsageError(f"the query failed: {error}") from error


def _engine(root: Path) -> duckdb.DuckDBPyConnection:
    """Open an engine that reads below `root` and nothing else, whatever a query says."""
    engine = duckdb.connect(":memory:")
    settings = {
        "allowed_directories": [str(root)],
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "parquet_metadata_cache": True,
        "TimeZone": "UTC",
        "enable_external_access": False,
        "lock_configuration": True,
    }
    for name, value in settings.items():
        engine.execute(f"SET GLOBAL {name} = {value!r}")
    return engine


def _distinct(names: Sequence[str]) -> list[str]:
    """Number the repeats of a name, as the service's console does: ``jd``, ``jd_1``."""
    found: list[str] = []
    for name in names:
        options = chain([name], (f"{name}_{i}" for i in count(1)))
        found.append(next(it for it in options if it not in found))
    return found


def _schema_folders(table: Path) -> list[Path]:
    return sorted(path for path in table.glob("*") if path.is_dir())


def _selects(table: Path) -> list[str]:
    """Spell the rows of each schema as SQL."""
    counting = {it: split_covered(list_parts(it))[0] for it in _schema_folders(table)}
    folders = tuple(it for it, parts in counting.items() if parts)
    return [
        _select(counting[it], columns) for it, columns in zip(folders, _casts(folders), strict=True)
    ]


def _select(parts: Sequence[Part], columns: Mapping[str, str]) -> str:
    paths = ", ".join("'" + str(part.path).replace("'", "''") + "'" for part in parts)
    changed = ", ".join(f'TRY_CAST("{it}" AS {columns[it]}) AS "{it}"' for it in columns)
    replace = f"SELECT * REPLACE ({changed}) " if changed else ""
    return f"{replace}FROM read_parquet([{paths}])"


@lru_cache(maxsize=256)
def _casts(folders: tuple[Path, ...]) -> list[dict[str, str]]:
    return casts([_schema(folder) for folder in folders])


def _schemas(table: Path) -> list[pl.Schema]:
    return [_schema(it) for it in _schema_folders(table) if list_parts(it)]


@lru_cache(maxsize=4096)
def _schema(folder: Path) -> pl.Schema:
    """Read one file's footer: all files of a folder have the same columns."""
    return pl.Schema(pl.read_parquet_schema(list_parts(folder)[0].path))
