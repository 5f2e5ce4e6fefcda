"""Batches of rows into BigQuery, each by a load job whose name follows from the batch.

A job's name can be used once in a project, so that a batch that is loaded again, by whichever
process and after whatever crash, meets the first job and takes its result. A job that failed
has loaded nothing; the batch is tried again under the next name.
"""

import hashlib
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import polars as pl
from google.api_core.exceptions import Conflict, GoogleAPICallError
from google.cloud import bigquery
from google.cloud.bigquery import enums

from broker.connectors.gcp import Cloud, plain_words
from broker.connectors.tables.types import instance
from broker.errors import RefusedError
from broker.ports import BatchKey

# Most names that a batch has: as many failures as anyone should sit through.
_ATTEMPTS = 100
_TIMEOUT_S = (5.0, 60.0)
# An emulator is there or it is not; the service is given time to get over a bad minute.
_RETRY_S, _EMULATOR_RETRY_S = 60.0, 2.0
_UPLOADS, _EMULATOR_UPLOADS = 6, 1


@dataclass(frozen=True)
class Service:
    """BigQuery of one project, and how patiently it is asked."""

    cloud: Cloud
    patience_s: float = 600.0

    @property
    def client(self) -> Any:
        """Return Google's client."""
        return self.cloud.warehouse

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Return what every request is given."""
        seconds = _EMULATOR_RETRY_S if self.cloud.bigquery else _RETRY_S
        retry = bigquery.DEFAULT_RETRY.with_timeout(seconds).with_delay(0.2, 5.0, 2.0)
        return {"retry": retry, "timeout": _TIMEOUT_S[1]}

    @property
    def uploads(self) -> int:
        """Return how often an upload is tried again."""
        return _EMULATOR_UPLOADS if self.cloud.bigquery else _UPLOADS

    def words(self) -> AbstractContextManager[None]:
        """Translate the errors of Google's client within."""
        return plain_words("BigQuery", self.cloud.project, self.cloud.bigquery)


class Loader:
    """Load batches, each once.

    Parameters
    ----------
    service : Service
        Where to.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._failed: dict[str, int] = {}

    def load(self, table: Any, name: str, parquet: bytes) -> None:
        """Load a file into a table, unless the job of that name has done so.

        Parameters
        ----------
        table : google.cloud.bigquery.Table
            The table as it is.
        name : str
            What the batch is called, from `batch_name`.
        parquet : bytes
            The rows, with all columns of the table.

        Raises
        ------
        google.api_core.exceptions.GoogleAPICallError
            If the service says no; no row was loaded.
        TimeoutError, requests.ConnectionError
            If it does not answer in time; the rows may have been loaded.
        RefusedError
            If too many jobs have failed.
        """
        for attempt in range(self._failed.get(name, 0), _ATTEMPTS):
            job, is_ours = self._job(table, f"{name}-{attempt}", parquet)
            error = self._error(job)
            if error is None:
                self._failed.pop(name, None)
                return
            self._failed[name] = attempt + 1
            if is_ours:
                raise error
        raise RefusedError(
            f"BigQuery: {_ATTEMPTS} jobs have failed to load batch {name} into {table.reference}"
        )

    def _job(self, table: Any, job_id: str, parquet: bytes) -> tuple[Any, bool]:
        """Start a job, or find the one of that name; tell whether it was started here."""
        client = self._service.client
        try:
            started = client.load_table_from_file(
                BytesIO(parquet),
                table.reference,
                size=len(parquet),
                num_retries=self._service.uploads,
                job_id=job_id,
                location=table.location,
                job_config=_config(),
                timeout=_TIMEOUT_S,
            )
        except Conflict:
            return client.get_job(job_id, location=table.location, **self._service.options), False
        return started, True

    def _error(self, job: Any) -> GoogleAPICallError | None:
        """Wait for a job; return what it failed with."""
        retry = self._service.options["retry"]
        try:
            job.result(retry=retry, timeout=self._service.patience_s)
        except GoogleAPICallError as error:
            if job.error_result is None:
                raise
            return _told_once(error, job)
        return None


def _told_once(error: GoogleAPICallError, job: Any) -> GoogleAPICallError:
    """Return the error of a job without the repeats that Google's client puts into it."""
    told = [it.get("message", "") for it in (job.error_result, *(job.errors or ()))]
    words = "; ".join(dict.fromkeys(each for each in told if each))
    return type(error)(words, errors=[job.error_result])


def batch_name(table: Any, key: BatchKey, columns: pl.Schema, owner: str = "") -> str:
    """Name a batch of rows with given columns for one table.

    A table that was deleted and made anew is another table: the time at which it was made is
    part of the name. So is the owner, as two homes have batches of the same key.
    """
    parts = [
        f"{table.dataset_id}.{table.table_id}",
        table.created.isoformat(),
        owner,
        str(key),
        *(f"{name} {_kind(dtype)}" for name, dtype in columns.items()),
    ]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    words = re.sub(r"[^A-Za-z0-9_-]", "-", f"{table.dataset_id}-{table.table_id}-{key}")
    return f"pgb-{words[:300]}-{digest}"


def _kind(dtype: pl.DataType) -> str:
    """Name a type in words that no library's version changes."""
    if isinstance(dtype, pl.Struct):
        inside = ", ".join(f"{it.name} {_kind(instance(it.dtype))}" for it in dtype.fields)
        return f"Struct({inside})"
    if isinstance(dtype, pl.List | pl.Array):
        return f"List({_kind(instance(dtype.inner))})"
    return f"{type(dtype).__name__}{getattr(dtype, 'time_unit', '')}"


def _config() -> Any:
    options = bigquery.ParquetOptions()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(
        source_format=enums.SourceFormat.PARQUET,
        create_disposition=enums.CreateDisposition.CREATE_NEVER,
        write_disposition=enums.WriteDisposition.WRITE_APPEND,
    )
    config.parquet_options = options
    return config
