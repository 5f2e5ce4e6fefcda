"""Tables of BigQuery keep the contract, through Google's own client.

What the emulator lacks, and so is not shown here: names for the fields of ``STRUCT(x, y)``
and for those of ``UNNEST`` without an alias; partitions, clusters and costs, which it notes
but does not have; quotas; loads that take longer than a moment.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("google.cloud.bigquery")

from bigquery_emulator import Emulator, running, what_is_missing
from google.cloud import bigquery

from broker.config import Settings
from broker.connectors.gcp import Cloud
from broker.connectors.tables.bigquery import BigQueryTables
from broker.connectors.tables.parquet import ParquetTables
from broker.errors import ConfigError, NotFoundError, RefusedError, TransientError, UsageError
from broker.ports import BatchKey
from broker.surveys import decode_batch
from broker.testing.tables_contract import TablesContract
from broker.testing.tables_queries import NEWER, OLDER, QUERIES

_needs_emulator = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())
KEY = BatchKey("w0", 0)
COUNT = "SELECT COUNT(*) FROM d.t"
ROWS = pl.DataFrame({"objectId": ["A", "B"], "n": [1, 2]})
# What BigQuery does and the emulator does not.
_NOT_IN_EMULATOR = ("AS curve", "CROSS JOIN UNNEST(prv_candidates) WHERE", "LEFT JOIN UNNEST(prv")
_THAT_CHANGE = ("same_key", "keys_of_workers", "compact")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Return an emulator that all tests of this module share."""
    with running(tmp_path_factory.mktemp("bigquery")) as found:
        yield found


@pytest.fixture
def cloud(emulator: Emulator) -> Cloud:
    """Return an empty project; many would make the emulator slow."""
    found = project(emulator, 2)
    for dataset in found.warehouse.list_datasets():
        found.warehouse.delete_dataset(dataset.reference, delete_contents=True)
    return found


@pytest.fixture
def tables(cloud: Cloud) -> BigQueryTables:
    """Return tables of an empty project."""
    return BigQueryTables(cloud)


@pytest.fixture(scope="module")
def shared(emulator: Emulator) -> BigQueryTables:
    """Return filled tables for the tests that only read."""
    return fill(BigQueryTables(project(emulator, 1)))


def project(emulator: Emulator, number: int) -> Cloud:
    """Return a project of an emulator."""
    return Cloud(f"project-{number}", bigquery=emulator.url, bigquery_storage=emulator.grpc)


def fill(tables: BigQueryTables) -> BigQueryTables:
    """Append what the contract suite queries."""
    tables.append("d", "alerts", OLDER, BatchKey("w0", 0))
    tables.append("d", "alerts", NEWER, BatchKey("w0", 1))
    tables.append("d", "other", pl.DataFrame({"objectId": ["B"], "kind": ["SN"]}), KEY)
    return tables


def marked(sql: str, expected: list[tuple[Any, ...]]) -> Any:
    """Return a case of the suite, marked where the emulator falls short."""
    lacking = any(words in sql for words in _NOT_IN_EMULATOR)
    reason = "the emulator cannot name these fields"
    marks = [pytest.mark.xfail(strict=True, reason=reason)] if lacking else []
    return pytest.param(sql, expected, marks=marks, id=sql)


@_needs_emulator
class TestBigQueryTables(TablesContract):
    @pytest.fixture
    def filled(self, request: pytest.FixtureRequest) -> BigQueryTables:
        """Return filled tables, fresh ones for a test that changes them."""
        if any(words in request.node.name for words in _THAT_CHANGE):
            return fill(request.getfixturevalue("tables"))
        return request.getfixturevalue("shared")

    @pytest.mark.parametrize(("sql", "expected"), [marked(*each) for each in QUERIES])
    def test_query(self, filled: BigQueryTables, sql: str, expected: list[tuple[Any, ...]]) -> None:
        """BigQuery's dialect gives BigQuery's rows."""
        assert filled.query(sql).rows() == expected

    def test_rows_come_back(self, tables: BigQueryTables) -> None:
        """As from every store, but that an array is never null."""
        tables.append("d", "alerts", OLDER, KEY)

        found = tables.query("SELECT * FROM d.alerts ORDER BY candid")

        expected = OLDER.with_columns(pl.col("prv_candidates").fill_null([]))
        assert found.to_dicts() == expected.to_dicts()
        assert found.schema["candid"] == pl.Int64


@_needs_emulator
class TestOnce:
    def test_two_clients(self, cloud: Cloud) -> None:
        """A batch that two processes append is there once."""
        BigQueryTables(cloud).append("d", "t", ROWS, KEY)
        BigQueryTables(cloud).append("d", "t", ROWS, KEY)

        assert BigQueryTables(cloud).query(COUNT).item() == 2

    def test_many_clients_at_a_time(self, cloud: Cloud) -> None:
        """Also if they do so at the same moment, and the table is new."""
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda i: append_anew(cloud, i % 2), range(12)))

        assert BigQueryTables(cloud).query(COUNT).item() == 4

    def test_homes_have_batches_of_their_own(self, cloud: Cloud) -> None:
        """The same key of two homes names two batches."""
        for owner in ("one", "other"):
            BigQueryTables(cloud, owner=owner).append("d", "t", ROWS, KEY)

        assert BigQueryTables(cloud).query(COUNT).item() == 2 * len(ROWS)

    def test_crash_after_the_job_began(
        self, tables: BigQueryTables, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that died before it knew leaves a job, which the next one takes for done."""

        def die(*_args: object, **_named: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as crash:
            crash.setattr(bigquery.LoadJob, "result", die)
            with pytest.raises(KeyboardInterrupt):
                tables.append("d", "t", ROWS, KEY)
        BigQueryTables(cloud).append("d", "t", ROWS, KEY)

        assert BigQueryTables(cloud).query(COUNT).item() == 2

    def test_owners_differ(self, cloud: Cloud) -> None:
        """The first batch of a new home is not taken for that of an old one."""
        for owner in ("old", "new", "new"):
            BigQueryTables(cloud, owner=owner).append("d", "t", ROWS, KEY)

        assert BigQueryTables(cloud).query(COUNT).item() == 4

    def test_columns_are_part_of_the_key(self, tables: BigQueryTables) -> None:
        """Rows of two schemas in one batch are both kept, if only the types differ."""
        tables.append("d", "t", ROWS, KEY)
        tables.append("d", "t", ROWS.cast({"n": pl.Int32}), KEY)

        assert tables.query(COUNT).item() == 4

    def test_table_made_anew(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """A table that was deleted and made anew gets a batch that the old one had."""
        tables.append("d", "t", ROWS, KEY)
        cloud.warehouse.delete_dataset("d", delete_contents=True)

        tables.append("d", "t", ROWS, BatchKey("w0", 1))
        tables.append("d", "t", ROWS, KEY)

        assert tables.query(COUNT).item() == 4

    def test_after_a_job_that_failed(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """A batch that was refused is appended once what was wrong is mended."""
        make_table(cloud, bigquery.SchemaField("must", "STRING", "REQUIRED"))
        for _ in range(2):
            with pytest.raises(RefusedError):
                tables.append("d", "t", ROWS, KEY)

        cloud.warehouse.delete_table("d.t")
        make_table(cloud, bigquery.SchemaField("must", "STRING"))
        for each in (tables, BigQueryTables(cloud)):
            each.append("d", "t", ROWS, KEY)

        assert tables.query(COUNT).item() == 2

    def test_same_alert_of_two_brokers(self, tables: BigQueryTables) -> None:
        """The query of the manual has one row of each."""
        tables.append("d", "t", ROWS, KEY)
        tables.append("d", "t", ROWS, BatchKey("elsewhere", 0))

        found = tables.query(
            "SELECT * FROM d.t WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY objectId, n) = 1"
        )

        assert sorted(found.rows()) == ROWS.rows()


def append_anew(cloud: Cloud, number: int) -> None:
    """Append a batch through a client that knows nothing yet."""
    BigQueryTables(cloud).append("d", "t", ROWS, BatchKey("w0", number))


def make_table(cloud: Cloud, *fields: bigquery.SchemaField) -> None:
    """Make ``d.t`` as somebody else would."""
    cloud.warehouse.create_dataset("d", exists_ok=True)
    cloud.warehouse.create_table(bigquery.Table(f"{cloud.project}.d.t", schema=fields))


@_needs_emulator
class TestColumns:
    def test_layout_with_pixels(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """A table is partitioned by the day of publication and clustered by pixel."""
        stamp = pl.Series([datetime(2026, 1, 2, tzinfo=UTC)] * 2)
        pixels = {"healpix9": [1, 2], "healpix19": [3, 4], "healpix29": [5, 6]}
        rows = ROWS.with_columns(kafkaPublishTimestamp=stamp).with_columns(
            pl.Series(name, values) for name, values in pixels.items()
        )

        tables.append("d", "t", rows, KEY)

        made = cloud.warehouse.get_table("d.t")
        assert made.time_partitioning.field == "kafkaPublishTimestamp"
        assert made.time_partitioning.type_ == "DAY"
        assert made.clustering_fields == ["healpix9", "healpix19", "healpix29"]

    def test_layout_without_pixels(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """Else by the day on which rows came, and by object."""
        tables.append("d", "t", ROWS, KEY)

        made = cloud.warehouse.get_table("d.t")
        assert (made.time_partitioning.type_, made.time_partitioning.field) == ("DAY", None)
        assert made.clustering_fields == ["objectId"]

    def test_new_columns_and_fields(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """They are added, wherever they are; rows of before have null there."""
        old = pl.DataFrame({"n": [1], "s": [{"a": 1}], "past": [[{"x": {"y": 1.0}}]]})
        new = pl.DataFrame(
            {
                "n": [2],
                "s": [{"b": "new", "a": 2}],
                "past": [[{"x": {"z": [7], "y": 2.0}, "w": True}]],
                "more": [[1, 2]],
            }
        )
        tables.append("d", "t", old, BatchKey("w0", 0))
        tables.append("d", "t", new, BatchKey("w0", 1))
        tables.append("d", "t", old, BatchKey("w0", 2))

        found = tables.query("SELECT * FROM d.t ORDER BY n").to_dicts()

        first = {
            "n": 1,
            "s": {"a": 1, "b": None},
            "past": [{"x": {"y": 1.0, "z": []}, "w": None}],
            "more": [],
        }
        assert found[:2] == [first, first]
        assert found[2] == {
            "n": 2,
            "s": {"a": 2, "b": "new"},
            "past": [{"x": {"y": 2.0, "z": [7]}, "w": True}],
            "more": [1, 2],
        }

    def test_columns_that_another_added(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """Columns that came meanwhile harm nothing."""
        tables.append("d", "t", ROWS, KEY)
        other = BigQueryTables(cloud)
        other.append("d", "t", ROWS.with_columns(x=pl.lit(1.5)), KEY)

        tables.append("d", "t", ROWS, BatchKey("w0", 1))
        tables.append("d", "t", ROWS.with_columns(y=pl.lit("y")), KEY)

        assert tables.query(COUNT).item() == 8
        assert list(tables.tables()["d.t"]) == ["objectId", "n", "x", "y"]

    def test_column_that_changed_its_kind(self, tables: BigQueryTables) -> None:
        """The other kind has a column beside it."""
        tables.append("d", "t", pl.DataFrame({"x": [1]}), BatchKey("w0", 0))
        tables.append("d", "t", pl.DataFrame({"x": [0.5]}), BatchKey("w0", 1))
        tables.append("d", "t", pl.DataFrame({"x": [{"s": 1}]}), BatchKey("w0", 2))

        assert tables.tables()["d.t"] == {
            "x": "INT64",
            "x_float64": "FLOAT64",
            "x_struct": "STRUCT<s INT64>",
        }
        assert tables.query("SELECT SUM(x), SUM(x_float64) FROM d.t").rows() == [(1, 0.5)]

    def test_names_that_are_not_allowed(self, tables: BigQueryTables) -> None:
        """Other characters become ``_``; names that differ in capitals only are numbered."""
        rows = pl.DataFrame({"kafka.topic": ["t"], "ra": [1.0], "RA": [2.0], "1st": [3]})

        tables.append("d", "t", rows, KEY)

        assert tables.query("SELECT kafka_topic, ra, RA_1, _1st FROM d.t").row(0) == (
            "t", 1.0, 2.0, 3,
        )  # fmt: skip

    def test_every_kind(self, tables: BigQueryTables) -> None:
        """Values of every kind come back, nulls everywhere included."""
        now = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
        full = {
            "text": "ü", "bytes": b"\x00\xff", "yes": True, "whole": -(2**63), "real": 1e-300,
            "time": now, "day": date(2026, 2, 3), "nested": {"deep": {"list": [{"x": 1.5}]}},
            "list": [1, 2], "texts": ["a", ""],
        }  # fmt: skip
        rows = pl.DataFrame([full, dict.fromkeys(full)])

        tables.append("d", "t", rows, KEY)

        found = tables.query("SELECT * FROM d.t ORDER BY text DESC").to_dicts()
        assert found == [full, {**dict.fromkeys(full), "list": [], "texts": []}]

    def test_odd_kinds(self, tables: BigQueryTables) -> None:
        """Narrow numbers, other clocks, nulls in arrays and arrays of arrays are fitted in."""
        naive = datetime(2026, 2, 3)
        rows = pl.DataFrame(
            {
                "small": pl.Series([7], dtype=pl.UInt8),
                "single": pl.Series([0.5], dtype=pl.Float32),
                "naive": pl.Series([naive], dtype=pl.Datetime("ns")),
                "category": pl.Series(["x"], dtype=pl.Categorical),
                "nothing": pl.Series([None], dtype=pl.Null),
                "holes": [[1, None, 2]],
                "records": [[None, {"a": 1}]],
                "matrix": [[[1, 2], [3]]],
            }
        )

        tables.append("d", "t", rows, KEY)

        assert tables.query("SELECT * FROM d.t").row(0, named=True) == {
            "small": 7, "single": 0.5, "naive": naive.replace(tzinfo=UTC), "category": "x",
            "nothing": None, "holes": [1, 2], "records": [{"a": 1}],
            "matrix": [{"element": [1, 2]}, {"element": [3]}],
        }  # fmt: skip

    def test_integer_that_does_not_fit(self, tables: BigQueryTables) -> None:
        """A number that would change is refused, and named."""
        tables.append("d", "t", pl.DataFrame({"x": [0.5]}), BatchKey("w0", 0))

        with pytest.raises(RefusedError, match=r"column 'x'.*9007199254740993"):
            tables.append("d", "t", pl.DataFrame({"x": [2**53 + 1]}), BatchKey("w0", 1))


@_needs_emulator
class TestQueries:
    @pytest.mark.parametrize(
        ("value", "sql"),
        [
            (True, "@x"),
            (np.int64(5), "@x = 5"),
            (0.5, "@x = 0.5"),
            (b"\x00", "@x = b'\\x00'"),
            (datetime(2026, 1, 2, tzinfo=UTC), "@x = TIMESTAMP '2026-01-02 00:00:00+00'"),
            (date(2026, 1, 2), "@x = DATE '2026-01-02'"),
            (np.array([1, 5]), "5 IN UNNEST(@x)"),
            (pl.Series(["a"]), "'a' IN UNNEST(@x)"),
            (None, "@x IS NULL"),
        ],
    )
    def test_parameter_types(self, tables: BigQueryTables, value: Any, sql: str) -> None:
        """A value is bound with the type that it has."""
        assert tables.query(f"SELECT {sql} AS told", {"x": value}).item() is True

    def test_parameter_of_no_type(self, tables: BigQueryTables) -> None:
        """A value of no type that BigQuery has is named."""
        with pytest.raises(UsageError, match="@x"):
            tables.query("SELECT @x", {"x": object()})

    def test_default_dataset(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """A table may be named without the dataset of the place."""
        tables.append("d", "t", ROWS, KEY)

        assert BigQueryTables(cloud, "d").query("SELECT COUNT(*) FROM t").item() == 2

    def test_services_words(self, tables: BigQueryTables) -> None:
        """What is wrong is told without addresses."""
        with pytest.raises(UsageError, match=r"^the query failed: (?!.*http).*nonsense"):
            tables.query("SELECT nonsense FROM (SELECT 1 AS x)")

    def test_rows_by_rest(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """Without the fast way of reading, rows are the same."""
        tables.append("d", "t", NEWER, KEY)
        slow = BigQueryTables(Cloud(cloud.project, bigquery=cloud.bigquery))
        sql = "SELECT * FROM d.t"

        assert slow.query(sql).to_dicts() == tables.query(sql).to_dicts() == NEWER.to_dicts()

    def test_many_rows(self, tables: BigQueryTables) -> None:
        """An answer of many pages is whole."""
        rows = pl.DataFrame({"n": np.arange(30_000), "text": ["x" * 400] * 30_000})
        tables.append("d", "t", rows, KEY)

        assert tables.query("SELECT n, text FROM d.t ORDER BY n").equals(rows)

    def test_estimate_runs_nothing(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """The bytes of a query are told without a job; a wrong query is refused."""
        tables.append("d", "t", ROWS, KEY)
        before = len(list(cloud.warehouse.list_jobs()))

        assert tables.estimate("SELECT n FROM d.t WHERE n = @n", {"n": 1}) >= 0
        with pytest.raises(UsageError, match="nonsense"):
            tables.estimate("SELECT nonsense FROM d.t")
        assert len(list(cloud.warehouse.list_jobs())) == before

    def test_limit_is_sent(self, cloud: Cloud) -> None:
        """The most bytes that a query may read go with it."""
        BigQueryTables(cloud, maximum_bytes_billed=10_000_000).query("SELECT 1")

        (job,) = cloud.warehouse.list_jobs(max_results=1)
        assert job.maximum_bytes_billed == 10_000_000


@_needs_emulator
class TestTrouble:
    def test_emulator_that_ended(self, tmp_path: Path) -> None:
        """Every call says so within seconds, and rows can be appended when it is back."""
        with running(tmp_path) as emulator:
            tables = BigQueryTables(project(emulator, 1))
            tables.append("d", "t", ROWS, KEY)
            emulator.kill()
            began = time.monotonic()
            for call in (
                lambda: tables.append("d", "t", ROWS, BatchKey("w0", 1)),
                lambda: tables.append("d", "new", ROWS, KEY),
                lambda: tables.query(COUNT),
                tables.tables,
            ):
                with pytest.raises(TransientError, match="no emulator answers"):
                    call()
            assert time.monotonic() - began < 20
        with running(tmp_path) as emulator:
            tables = BigQueryTables(project(emulator, 1))
            for number in range(2):
                tables.append("d", "t", ROWS, BatchKey("w0", number))
            assert tables.query(COUNT).item() == 4

    def test_refused_row(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """A row that a table does not take is refused in the service's words."""
        make_table(cloud, bigquery.SchemaField("must", "STRING", "REQUIRED"))

        with pytest.raises(RefusedError, match=r"(?s)^(?!.*must.*must).*must"):
            tables.append("d", "t", ROWS, KEY)

    def test_view_in_place_of_a_table(self, tables: BigQueryTables, cloud: Cloud) -> None:
        """What is no table takes no rows."""
        cloud.warehouse.create_dataset("d")
        view = bigquery.Table(f"{cloud.project}.d.t")
        view.view_query = "SELECT 'A' AS objectId, 1 AS n"
        cloud.warehouse.create_table(view)

        with pytest.raises((RefusedError, NotFoundError)):
            tables.append("d", "t", ROWS, KEY)

    @pytest.mark.parametrize("name", ["", "..", "a-b", "a b", "1a", "ü"])
    def test_name_not_allowed(self, tables: BigQueryTables, name: str) -> None:
        """A name that BigQuery would not take is refused before it is asked."""
        with pytest.raises(UsageError, match="cannot name"):
            tables.append("d", name, ROWS, KEY)


@_needs_emulator
@pytest.mark.parametrize("folder", ["ztf", "lsst/fink", "elasticc", "decat"])
def test_real_rows_are_those_of_the_disk(
    tables: BigQueryTables, tmp_path: Path, shared_data: Path, folder: str
) -> None:
    """Rows of real alerts of many schemas read the same from BigQuery and from the disk."""
    paths = sorted((shared_data / folder).glob("**/*.avro"))[:120]
    frames, _ = decode_batch([path.read_bytes() for path in paths])
    disk = ParquetTables(tmp_path)
    rows = [frame.survey.alerts_rows(frame) for frame in frames]
    # The emulator's engine fails where stored structures lack fields of arrays.
    for each in rows:
        tables.append("d", "alerts", each.clear(), KEY)
    for number, each in enumerate(rows):
        for store in (tables, disk):
            store.append("d", "alerts", each, BatchKey("w0", number))

    ours, theirs = (store.query("SELECT * FROM d.alerts") for store in (disk, tables))

    assert ours.height == sum(map(len, rows)) > 0
    assert plain(theirs.select(ours.columns)) == plain(ours)


def plain(frame: pl.DataFrame) -> list[str]:
    """Return rows in some order, without nulls, in which the two stores differ."""
    return sorted(map(repr, map(pruned, frame.to_dicts())))


def pruned(value: Any) -> Any:
    """Leave out nulls and empty lists below a value."""
    if isinstance(value, dict):
        inside = {name: pruned(each) for name, each in sorted(value.items())}
        return {name: each for name, each in inside.items() if each not in (None, [], {})}
    if isinstance(value, list):
        return [pruned(each) for each in value]
    return value


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("bigquery:///d", "no Google Cloud project"),
        ("bigquery://a-project/d-x", "cannot name a dataset"),
        ("bigquery://a-project/d?speed=1", "'speed' is no option"),
        ("bigquery://a-project?maximum_bytes_billed=much", "whole number"),
    ],
)
def test_place_not_allowed(url: str, words: str) -> None:
    """A place that cannot be says what is wrong."""
    with pytest.raises(ConfigError, match=words):
        BigQueryTables.from_url(url, Settings())
