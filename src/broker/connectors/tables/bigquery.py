"""Tables in Google BigQuery.

Rows come by load jobs (:mod:`broker.connectors.tables.bigquery_loads`), not by streaming: a
job has a name, so that a batch is there once whatever crashes; streaming has no such names,
only ids that are remembered for a minute. Loads cost nothing, but a table takes 1,500 a day:
batches that go to the service should span 30 s or more. Rows can be queried when `append`
returns.

What differs from tables on disk:

* an array is never null: a null one is empty, and nulls within arrays are left out;
* characters that BigQuery does not allow in names of columns become ``_``;
* a column whose kind changed between versions of a schema is not converted: the other kind
  has a column beside it (``x``, ``x_float64``);
* text that is asked for as ``@name`` must have the type of its column, null included;
* there is nothing to compact.

Two brokers that took the same alert, each into batches of its own, give two rows; this query
has one of each::

    SELECT * FROM dataset.table WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY objectId, candid) = 1
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import polars as pl
from google.api_core.exceptions import BadRequest, Conflict, NotFound, PreconditionFailed
from google.cloud import bigquery

from broker.config import Settings
from broker.connectors.gcp import Cloud, project_of
from broker.connectors.tables.bigquery_loads import Loader, Service, batch_name
from broker.connectors.tables.bigquery_queries import read_query
from broker.connectors.tables.bigquery_rows import parquet_of
from broker.connectors.tables.bigquery_schema import Fields, fields_of, same, unite, word_of
from broker.errors import ConfigError, UsageError
from broker.ports import BatchKey

PARTITION_COLUMNS = ("kafkaPublishTimestamp",)
"""Columns by whose day a table is partitioned: the first that it has; else when rows came."""

CLUSTER_COLUMNS = ("objectId", "objectid", "diaObjectId", "object_id")
"""Columns that cluster a table without pixels: the first that it has."""

_PIXELS = re.compile(r"healpix\d+")
_MOST_CLUSTERED = 4
_CLUSTERABLE = {"INTEGER", "STRING", "TIMESTAMP", "DATE", "BOOLEAN", "NUMERIC"}
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
# How often a table may change under a batch: others add columns or make it anew.
_CHANGES = 5
_LIMIT = "maximum_bytes_billed"


class BigQueryTables:
    """`Tables` in BigQuery.

    Parameters
    ----------
    cloud : Cloud
        The project.
    default_dataset : str
        Where queries look for a table that is named without a dataset.
    maximum_bytes_billed : int or None
        A query that would read more is refused; no limit if None.
    patience_s : float
        How long a load or query may take, in seconds.
    owner : str
        Mark of the home whose batches these are; those of another home are others, though
        their keys be the same.
    """

    def __init__(
        self,
        cloud: Cloud,
        default_dataset: str = "",
        *,
        maximum_bytes_billed: int | None = None,
        patience_s: float = 600.0,
        owner: str = "",
    ) -> None:
        self._service = Service(cloud, patience_s)
        self._owner = owner
        self._default_dataset = default_dataset
        self._limit = maximum_bytes_billed
        self._loader = Loader(self._service)
        self._known: dict[tuple[str, str], Any] = {}
        self._changing = Lock()

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, owner: str = "") -> Self:
        """Open ``bigquery://[project][/dataset][?maximum_bytes_billed=N]``.

        Raises
        ------
        ConfigError
            If no project is named or an option is not known.
        """
        cloud, dataset = project_of(url, settings)
        if dataset and not _NAME.fullmatch(dataset):
            raise ConfigError(f"{url}: {dataset!r} cannot name a dataset: use letters, digits, _")
        return cls(
            cloud,
            dataset,
            maximum_bytes_billed=_limit_of(url),
            patience_s=settings.patience_s,
            owner=owner,
        )

    def append(self, dataset: str, table: str, rows: pl.DataFrame, key: BatchKey) -> None:
        """Append rows; the same key and columns again do nothing.

        The table, and its dataset, are made when first needed; columns that it lacks are added.

        Raises
        ------
        TransientError
            If the service does not answer; the rows may have been stored.
        ForbiddenError, RefusedError
            If it says no, in its words; no row was stored.
        UsageError
            If a name is not allowed.
        """
        _check(dataset, table)
        columns = fields_of(rows)
        with self._service.words():
            for _ in range(_CHANGES):
                found = self._table(dataset, table, columns)
                if rows.is_empty() or self._loaded(found, rows, key):
                    return
            raise UsageError(f"table {dataset}.{table} was changed again and again meanwhile")

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """Run one SELECT; ``@name`` takes its value from `parameters`.

        Raises
        ------
        UsageError
            If the SQL is wrong, names a table that does not exist or would read too much.
        TransientError
            If the service does not answer in time.
        ForbiddenError
            If it does not let us.
        """
        text, values = read_query(sql, parameters or {})
        config = self._config(values)
        with self._service.words():
            try:
                found = self._service.client.query_and_wait(
                    text,
                    job_config=config,
                    retry=self._service.options["retry"],
                    job_retry=None,
                    api_timeout=self._service.options["timeout"],
                    wait_timeout=self._service.patience_s,
                )
                table = found.to_arrow(
                    bqstorage_client=self._reader, create_bqstorage_client=self._is_real
                )
            except (BadRequest, NotFound) as error:
                raise self._usage_error(error) from error
        return pl.DataFrame(table)

    def estimate(self, sql: str, parameters: Mapping[str, Any] | None = None) -> int:
        """Return how many bytes a query would read; nothing is run or billed.

        Raises
        ------
        UsageError, TransientError, ForbiddenError
            As `query`.
        """
        text, values = read_query(sql, parameters or {})
        config = self._config(values)
        config.dry_run, config.use_query_cache = True, False
        with self._service.words():
            try:
                job = self._service.client.query(
                    text, job_config=config, job_retry=None, **self._service.options
                )
            except (BadRequest, NotFound) as error:
                raise self._usage_error(error) from error
        return int(job.total_bytes_processed or 0)

    def tables(self) -> dict[str, dict[str, str]]:
        """Return ``{"dataset.table": {column: type}}``, the types in BigQuery's words.

        Raises
        ------
        TransientError, ForbiddenError
            If the service does not answer, or does not let us.
        """
        with self._service.words():
            found = [
                self._service.client.get_table(item.reference, **self._service.options)
                for item in self._listed()
            ]
        return {
            f"{it.dataset_id}.{it.table_id}": {each.name: word_of(each) for each in it.schema}
            for it in found
        }

    def compact(self) -> int:
        """Do nothing and return 0: the service keeps its own storage in order."""
        return 0

    @property
    def _is_real(self) -> bool:
        return not self._service.cloud.bigquery

    @cached_property
    def _reader(self) -> Any:
        """Return the client that reads rows of an emulator; Google's makes its own otherwise."""
        address = self._service.cloud.bigquery_storage
        if not address:
            return None
        import grpc
        from google.cloud.bigquery_storage_v1 import BigQueryReadClient
        from google.cloud.bigquery_storage_v1.services.big_query_read import transports

        channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        return BigQueryReadClient(transport=transports.BigQueryReadGrpcTransport(channel=channel))

    def _config(self, values: Sequence[Any]) -> Any:
        config = bigquery.QueryJobConfig(query_parameters=values)
        if self._limit is not None:
            config.maximum_bytes_billed = self._limit
        if self._default_dataset:
            project = self._service.cloud.project
            config.default_dataset = bigquery.DatasetReference(project, self._default_dataset)
        return config

    def _usage_error(self, error: Any) -> UsageError:
        words = str(error.errors[0]["message"] if error.errors else error.message)
        if isinstance(error, NotFound):
            known = ", ".join(sorted(f"{it.dataset_id}.{it.table_id}" for it in self._listed()))
            return UsageError(f"{words}; the tables are: {known or 'none yet'}")
        return UsageError(f"the query failed: {words}")

    def _listed(self) -> list[Any]:
        """Return the tables of all datasets, by name."""
        client, options = self._service.client, self._service.options
        datasets = client.list_datasets(**options)
        found = [it for each in datasets for it in client.list_tables(each.reference, **options)]
        return sorted(found, key=lambda it: (it.dataset_id, it.table_id))

    def _loaded(self, table: Any, rows: pl.DataFrame, key: BatchKey) -> bool:
        """Load rows; false if the table is no longer what it was."""
        name = batch_name(table, key, rows.schema, self._owner)
        try:
            self._loader.load(table, name, parquet_of(rows, table.schema))
        except (BadRequest, NotFound):
            now = self._fetched(table.dataset_id, table.table_id)
            if now and now.created == table.created and same(now.schema, table.schema):
                raise
            return False
        return True

    def _table(self, dataset: str, table: str, columns: Fields) -> Any:
        """Return a table that has `columns`; asks the service only if it may lack some."""
        with self._changing:
            found = self._known.get((dataset, table)) or self._fetched(dataset, table)
            for _ in range(_CHANGES):
                if found is None:
                    found = self._made(dataset, table, columns)
                fields, _names = unite(found.schema, columns)
                if same(fields, found.schema):
                    return found
                found = self._widened(found, fields)
            raise UsageError(f"columns could not be added to {dataset}.{table}")

    def _fetched(self, dataset: str, table: str) -> Any:
        """Ask for a table and remember it; None if there is none."""
        reference = bigquery.DatasetReference(self._service.cloud.project, dataset).table(table)
        self._known.pop((dataset, table), None)
        try:
            found = self._service.client.get_table(reference, **self._service.options)
        except NotFound:
            return None
        return self._remembered(found)

    def _remembered(self, table: Any) -> Any:
        self._known[table.dataset_id, table.table_id] = table
        return table

    def _made(self, dataset: str, table: str, columns: Fields) -> Any:
        """Make a table, and its dataset, unless somebody else was first."""
        client, options = self._service.client, self._service.options
        wanted = _layout(self._service.cloud.project, dataset, table, columns)
        try:
            return self._remembered(client.create_table(wanted, exists_ok=True, **options))
        except NotFound:
            client.create_dataset(self._dataset(dataset), exists_ok=True, **options)
            return self._remembered(client.create_table(wanted, exists_ok=True, **options))

    def _dataset(self, dataset: str) -> Any:
        made = bigquery.Dataset(f"{self._service.cloud.project}.{dataset}")
        made.location = self._service.cloud.region
        return made

    def _widened(self, table: Any, fields: Fields) -> Any:
        """Add columns, unless the table was changed by others; return it as it now is."""
        self._known.pop((table.dataset_id, table.table_id), None)
        table.schema = fields
        client, options = self._service.client, self._service.options
        try:
            return self._remembered(client.update_table(table, ["schema"], **options))
        except (Conflict, PreconditionFailed, NotFound):
            return self._fetched(table.dataset_id, table.table_id)


def _layout(project: str, dataset: str, table: str, columns: Fields) -> Any:
    """Describe a new table: partitioned by day, clustered by pixel or object."""
    made = bigquery.Table(f"{project}.{dataset}.{table}", schema=list(columns))
    kinds = {it.name: it.field_type for it in columns if it.mode != "REPEATED"}
    day = next((name for name in PARTITION_COLUMNS if kinds.get(name) == "TIMESTAMP"), None)
    made.time_partitioning = bigquery.TimePartitioning(
        type_=bigquery.TimePartitioningType.DAY, field=day
    )
    pixels = [name for name in kinds if _PIXELS.fullmatch(name)]
    objects = [name for name in CLUSTER_COLUMNS if name in kinds][:1]
    clustered = [name for name in pixels or objects if kinds[name] in _CLUSTERABLE]
    if clustered:
        made.clustering_fields = clustered[:_MOST_CLUSTERED]
    return made


def _check(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a dataset or table: use letters, digits, _")


def _limit_of(url: str) -> int | None:
    options = parse_qs(urlsplit(url).query, keep_blank_values=True)
    if unknown := sorted(set(options) - {_LIMIT}):
        raise ConfigError(f"{url}: {unknown[0]!r} is no option of BigQuery: use {_LIMIT}")
    if _LIMIT not in options:
        return None
    text = options[_LIMIT][0]
    if not text.isdigit():
        raise ConfigError(f"{url}: {_LIMIT} must be a whole number of bytes, not {text!r}")
    return int(text)
