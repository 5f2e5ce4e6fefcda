"""Every table store of ours keeps the contract."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from broker.connectors.tables.parquet import ParquetTables
from broker.connectors.tables.parts import list_parts, split_covered
from broker.errors import TransientError, UsageError
from broker.ports import BatchKey
from broker.testing.full_disk import file_size_limit
from broker.testing.tables_contract import TablesContract
from broker.testing.tables_queries import OLDER

COUNT = "SELECT COUNT(*) FROM d.t"


class TestParquetTables(TablesContract):
    @pytest.fixture
    def tables(self, tmp_path: Path) -> ParquetTables:
        """Return the tables under test."""
        return ParquetTables(tmp_path / "tables", ["objectId"])


def rows(number: int, count: int = 4) -> pl.DataFrame:
    """Return rows of a flat table, a third of a batch for each object."""
    return pl.DataFrame(
        {
            "objectId": [f"o{i % 3}" for i in range(count)],
            "n": [number * 1000 + i for i in range(count)],
        }
    )


@pytest.fixture
def tables(tmp_path: Path) -> ParquetTables:
    """Return tables with 20 batches of 4 rows in ``d.t``."""
    found = ParquetTables(tmp_path / "tables", ["objectId"])
    for number in range(20):
        found.append("d", "t", rows(number), BatchKey("w0", number))
    return found


@pytest.fixture
def folder(tables: ParquetTables, tmp_path: Path) -> Path:
    """Return the folder of the files of ``d.t``."""
    (found,) = (tmp_path / "tables/d/t").iterdir()
    return found


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM `/etc/passwd`",
        "SELECT * FROM `/etc/x.parquet`",
        "SELECT * FROM glob('/etc/*')",
        "SELECT getenv('HOME')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM `../../x`.y",
    ],
)
def test_query_reads_tables_only(tables: ParquetTables, sql: str) -> None:
    """A query cannot reach files, the environment or the engine."""
    with pytest.raises(UsageError):
        tables.query(sql)


def test_compact_merges(tables: ParquetTables, folder: Path) -> None:
    """Twenty small files become one, named by its first and last batch, sorted by object."""
    assert tables.compact() == 19

    (part,) = list_parts(folder)
    assert part.path.name == "w0-0000000000-0000000019.parquet"
    assert part.batches() == frozenset(range(20))
    merged = pl.read_parquet(part.path)
    assert merged["objectId"].is_sorted()
    assert merged.height == 80


def test_compact_leaves_few_files(tables: ParquetTables, folder: Path) -> None:
    """A merge that would gain little waits."""
    tables.compact()
    tables.append("d", "t", rows(20), BatchKey("w0", 20))

    assert tables.compact() == 0
    assert len(list_parts(folder)) == 2


def test_compact_again_and_again(tables: ParquetTables, folder: Path) -> None:
    """However often it is done, no row is lost or doubled, and files stay few."""
    for number in range(20, 300):
        tables.append("d", "t", rows(number), BatchKey("w0", number))
        if number % 10 == 0:
            tables.compact()

    assert tables.query(COUNT).item() == 1200
    assert tables.query("SELECT COUNT(DISTINCT n) FROM d.t").item() == 1200
    assert len(list_parts(folder)) < 40


def test_gaps_are_no_batches(tmp_path: Path) -> None:
    """A batch that lies in a merged range but was not there can still be appended."""
    tables = ParquetTables(tmp_path)
    for number in range(0, 40, 2):
        tables.append("d", "t", rows(number), BatchKey("w0", number))
    tables.compact()
    fresh = ParquetTables(tmp_path)
    fresh.append("d", "t", rows(11), BatchKey("w0", 11))
    fresh.append("d", "t", rows(12), BatchKey("w0", 12))

    assert fresh.query(COUNT).item() == 84


def test_late_batches_wait(tmp_path: Path) -> None:
    """Batches that fill the gaps of a merged range are merged with the next one only."""
    tables = ParquetTables(tmp_path)
    for number in range(0, 400, 20):
        tables.append("d", "t", rows(number), BatchKey("w0", number))
    tables.compact()
    for number in range(1, 380, 2):
        tables.append("d", "t", rows(number), BatchKey("w0", number))

    assert tables.compact() == 0
    assert tables.query(COUNT).item() == 210 * 4
    tables.append("d", "t", rows(400), BatchKey("w0", 400))
    assert tables.compact() == 191
    assert tables.query(COUNT).item() == 211 * 4


def test_sum_too_large(tables: ParquetTables) -> None:
    """A sum that no 64-bit integer holds is an error, not another number."""
    with pytest.raises(UsageError, match="failed"):
        tables.query("SELECT SUM(9223372036854775807) FROM d.t")


def test_column_that_changed_its_kind(tmp_path: Path) -> None:
    """Where versions disagree, the kind that most have wins, at any depth."""
    tables = ParquetTables(tmp_path)
    old = {"id": [1], "x": [{"s": 1.0}], "past": [[{"x": {"s": 1.0}, "t": 5}]], "at": [2.5]}
    at = pl.Series([datetime(2026, 1, 1, tzinfo=UTC)])
    new = {"id": [2], "x": [0.25], "past": [[{"x": 0.5, "t": 6}]], "at": at}
    tables.append("d", "t", pl.DataFrame(old), BatchKey("w0", 0))
    tables.append("d", "t", pl.DataFrame(new), BatchKey("w0", 1))
    tables.append("d", "t", pl.DataFrame({**new, "id": [3], "y": [1]}), BatchKey("w0", 2))

    found = tables.query("SELECT t.id, t.x, p.x AS px, p.t, t.at FROM d.t, t.past AS p ORDER BY 1")

    assert found.rows() == [
        (1, None, None, 5, None),
        (2, 0.25, 0.5, 6, at[0]),
        (3, 0.25, 0.5, 6, at[0]),
    ]
    assert tables.tables()["d.t"] == {
        "id": "INT64",
        "x": "FLOAT64",
        "past": "ARRAY<STRUCT<x FLOAT64, t INT64>>",
        "at": "TIMESTAMP",
        "y": "INT64",
    }


def test_workers_are_merged_apart(tables: ParquetTables, folder: Path) -> None:
    """The files of two workers never meet."""
    for number in range(20):
        tables.append("d", "t", rows(number), BatchKey("w0-b", number))
    tables.compact()

    assert [part.worker for part in list_parts(folder)] == ["w0", "w0-b"]
    assert tables.query(COUNT).item() == 160


def test_crash_after_the_merge(tables: ParquetTables, folder: Path, tmp_path: Path) -> None:
    """Files that were taken in but not yet deleted do not count, and go at the next merge."""
    shutil.copytree(folder, tmp_path / "copy")
    tables.compact()
    for path in (tmp_path / "copy").glob("w0-00000000*.parquet"):
        shutil.copy(path, folder)

    counting, covered = split_covered(list_parts(folder))
    assert (len(counting), len(covered)) == (1, 20)
    assert tables.query(COUNT).item() == 80
    assert tables.compact() == 20
    assert tables.query(COUNT).item() == 80


def test_unfinished_files_do_not_count(tables: ParquetTables, folder: Path) -> None:
    """What a crash left half written is not read."""
    (folder / ".w0-0000000099.parquet.tmp").write_bytes(b"PAR1")

    assert tables.query(COUNT).item() == 80


def test_folder_without_files(tables: ParquetTables, tmp_path: Path) -> None:
    """A schema whose first file never came harms nothing."""
    (tmp_path / "tables/d/t/0123").mkdir()
    (tmp_path / "tables/d/empty/0123").mkdir(parents=True)

    assert tables.query(COUNT).item() == 80
    assert tables.tables()["d.empty"] == {}
    with pytest.raises(UsageError, match="no table"):
        tables.query("SELECT 1 FROM d.empty")


def test_queries_while_another_process_writes(tmp_path: Path) -> None:
    """A reader sees whole batches only, while files appear, merge and go away."""
    program = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from broker.connectors.tables.parquet import ParquetTables
from broker.ports import BatchKey
import polars as pl

tables = ParquetTables(Path(sys.argv[1]), ["objectId"])
for number in range(150):
    rows = pl.DataFrame({"objectId": ["o1"] * 4, "n": [number] * 4})
    tables.append("d", "t", rows, BatchKey("w0", number))
    if number % 9 == 0:
        tables.compact()
"""
    reader = ParquetTables(tmp_path)
    reader.append("d", "t", rows(0), BatchKey("w1", 0))
    counts = [4]
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as writer:
        while writer.poll() is None:
            counts.append(reader.query(COUNT).item())

    assert writer.returncode == 0
    assert all(count % 4 == 0 for count in counts)
    assert counts == sorted(counts)
    assert reader.query(COUNT).item() == 604


def test_full_disk(tables: ParquetTables, folder: Path) -> None:
    """Rows that find no room are not there, and can be appended later."""
    with file_size_limit(200), pytest.raises(TransientError, match="disk full"):
        tables.append("d", "t", rows(20), BatchKey("w0", 20))
    assert tables.query(COUNT).item() == 80

    tables.append("d", "t", rows(20), BatchKey("w0", 20))
    assert tables.query(COUNT).item() == 84


def test_place_that_is_a_file(tmp_path: Path) -> None:
    """A root that cannot be written to is refused in words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be used"):
        ParquetTables(tmp_path / "file").append("d", "t", OLDER, BatchKey("w0", 0))


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "1a"])
def test_name_not_allowed(tables: ParquetTables, name: str) -> None:
    """A table's name cannot point out of its folder."""
    with pytest.raises(UsageError, match="cannot name"):
        tables.append("d", name, OLDER, BatchKey("w0", 0))
