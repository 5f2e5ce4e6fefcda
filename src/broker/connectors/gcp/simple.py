"""Single calls to Google Cloud for notebooks and scripts, on the cached clients."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as NotInTime
from datetime import UTC, datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from broker.connectors.gcp.clients import Cloud
from broker.connectors.gcp.errors import plain_words
from broker.connectors.gcp.pubsub import PubSub
from broker.connectors.tables.bigquery_loads import Service
from broker.connectors.tables.bigquery_rows import parquet_of
from broker.connectors.tables.bigquery_schema import fields_of
from broker.errors import UsageError

_PULL_WAIT_S = 5.0
_ROWS = 500
"""Google's advice for the rows of one insert."""

Rows = Sequence[Mapping[str, Any]]


def publish(cloud: Cloud, topic: str, message: bytes | Mapping[str, Any], attrs: Any = None) -> str:
    """Publish one message and wait; return its id.

    Raises
    ------
    TypeError
        If the message is neither bytes nor a dict, which is sent as JSON.
    NotFoundError, ForbiddenError, RefusedError, TransientError
        If Pub/Sub does not take it.
    """
    from google.pubsub_v1 import types

    pubsub = PubSub(cloud)
    made = types.PubsubMessage(data=message_bytes(message), attributes=dict(attrs or {}))
    request = types.PublishRequest(topic=pubsub.path("topics", topic), messages=[made])
    answer = pubsub.ask(cloud.publish, f"topic {topic!r}", request=request)
    return str(answer.message_ids[0])


def message_bytes(message: Any) -> bytes:
    """Return a message as bytes, a dict as JSON.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(message, bytes):
        return message
    if isinstance(message, dict):
        return json.dumps(message).encode()
    raise TypeError("`message` must be bytes or a dict.")


def pull(
    cloud: Cloud,
    subscription: str,
    max_messages: int = 1,
    *,
    msg_only: bool = True,
    callback: Callable[[Any], Any] | None = None,
) -> tuple[list[Any], int]:
    """Pull messages and acknowledge those that `callback` takes.

    Parameters
    ----------
    cloud : Cloud
        The project.
    subscription : str
        Its name, or full path.
    max_messages : int
        The most to pull.
    msg_only : bool
        Whether a message is its bytes, or Google's ``ReceivedMessage``.
    callback : callable, optional
        Called with each message; one for which it is not true comes again.

    Returns
    -------
    messages : list
        All that were pulled.
    count : int
        How many were acknowledged.

    Raises
    ------
    NotFoundError, ForbiddenError, TransientError
        If Pub/Sub does not give them.
    """
    pubsub, what = PubSub(cloud), f"subscription {subscription!r}"
    path = pubsub.path("subscriptions", subscription)
    received = _pulled(pubsub, path, max_messages, what)
    messages = [each.message.data if msg_only else each for each in received]
    ack_ids: list[str] = []
    try:
        for each, message in zip(received, messages, strict=True):
            if callback is None or callback(message):
                ack_ids.append(each.ack_id)
    finally:
        if ack_ids:
            request = {"subscription": path, "ack_ids": ack_ids}
            pubsub.ask(cloud.subscriber.acknowledge, what, request=request)
    return messages, len(ack_ids)


def stream(
    cloud: Cloud,
    subscription: str,
    callback: Callable[[Any], Any],
    timeout: float | None = 10.0,
    *,
    block: bool = True,
    flow_control: Any = None,
) -> Any:
    """Call back with every message as it comes, for `timeout` seconds; return the future.

    Without `block` the future is returned at once, and it is for the caller to cancel it.

    Raises
    ------
    NotFoundError, ForbiddenError, TransientError
        If Pub/Sub does not give them.
    """
    pubsub = PubSub(cloud)
    path, what = pubsub.path("subscriptions", subscription), f"subscription {subscription!r}"
    pubsub.ask(cloud.subscriber.get_subscription, what, request={"subscription": path})
    with plain_words("Pub/Sub", cloud.project, cloud.pubsub):
        future = cloud.subscriber.subscribe(path, callback, flow_control=flow_control or ())
        if block:
            _wait(future, timeout)
    return future


def purge(cloud: Cloud, subscription: str) -> None:
    """Drop everything that a subscription has before it now.

    Raises
    ------
    NotFoundError, ForbiddenError, TransientError
        If Pub/Sub does not do so.
    """
    pubsub = PubSub(cloud)
    path = pubsub.path("subscriptions", subscription)
    request = {"subscription": path, "time": datetime.now(UTC)}
    pubsub.ask(cloud.subscriber.seek, f"subscription {subscription!r}", request=request)


def insert_rows(cloud: Cloud, table_id: str, rows: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Stream rows into ``dataset.table``; return the errors in Google's words.

    Keys that the table lacks are ignored. What columns it has is asked for once for each set
    of keys that comes.

    Raises
    ------
    NotFoundError, ForbiddenError, RefusedError, TransientError
        If BigQuery does not take them.
    """
    given = list(rows)
    keys = frozenset(key for row in given for key in row)
    found: list[Any] = []
    with plain_words("BigQuery", cloud.project, cloud.bigquery):
        table = _table(cloud, table_id, keys)
        for start, part in _row_parts(given):
            options = {"ignore_unknown_values": True, **Service(cloud).options}
            errors = cloud.warehouse.insert_rows(table, part, **options)
            found += [{**each, "index": each["index"] + start} for each in errors]
    return found


def load_dataframe(
    cloud: Cloud, table_id: str, frame: Any, tell: Callable[[str], Any], *, use_schema: bool = True
) -> None:
    """Load a pandas data frame into ``dataset.table``, and tell how it went.

    With `use_schema` columns that the frame lacks are null, and those that the table lacks
    are left out.

    Raises
    ------
    NotFoundError, ForbiddenError, RefusedError, TransientError
        If BigQuery does not take it.
    """
    from google.cloud import bigquery

    rows, path = pl.from_pandas(frame.reset_index()), _full(cloud, table_id)
    service = Service(cloud)
    config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_APPEND")
    with plain_words("BigQuery", cloud.project, cloud.bigquery):
        if use_schema:
            config.schema = cloud.warehouse.get_table(path, **service.options).schema
            rows = _fitted(rows, [column.name for column in config.schema], tell)
        data = BytesIO(parquet_of(rows, config.schema or fields_of(rows)))
        job = cloud.warehouse.load_table_from_file(
            data, path, job_config=config, num_retries=service.uploads
        )
        job.result()
    tell(f"Loaded {job.output_rows} rows into table {table_id}. Errors: {job.errors or 'none'}")


def query(cloud: Cloud, text: str, job_config: Any = None) -> Any:
    """Start a query; return Google's ``QueryJob``.

    Raises
    ------
    NotFoundError, ForbiddenError, RefusedError, TransientError
        If BigQuery does not start it.
    """
    # A query that fails for a moment is started again, which an emulator's never is.
    again = {"job_retry": None} if cloud.bigquery else {}
    options = {"job_config": job_config, **Service(cloud).options, **again}
    with plain_words("BigQuery", cloud.project, cloud.bigquery):
        return cloud.warehouse.query(text, **options)


def download(cloud: Cloud, folder: Path, bucket: str, prefix: str | None = None) -> list[Path]:
    """Download the objects whose names start with `prefix`, side by side into `folder`.

    Of an object's name the part behind the last ``/`` is kept.

    Raises
    ------
    UsageError
        If two of them would be one file; none was downloaded.
    NotFoundError, ForbiddenError, TransientError
        If Cloud Storage does not give them.
    """
    with plain_words("Cloud Storage", cloud.project, cloud.storage):
        listed = cloud.store.list_blobs(bucket, prefix=prefix, retry=cloud.store_retry)
        blobs = [it for it in listed if it.name[-1:] != "/"]
        files: dict[str, Any] = {}
        for blob in blobs:
            other = files.setdefault(blob.name.rsplit("/", 1)[-1], blob)
            if other is not blob:
                raise UsageError(f"{other.name} and {blob.name} of {bucket} would be one file")
        folder.mkdir(parents=True, exist_ok=True)
        for name, blob in files.items():
            blob.download_to_filename(folder / name, retry=cloud.store_retry)
    return [folder / name for name in files]


def upload(cloud: Cloud, file: Path, bucket: str, name: str | None = None) -> None:
    """Upload a file, by default under its own name, in place of what is there.

    Raises
    ------
    NotFoundError, ForbiddenError, TransientError
        If Cloud Storage does not take it.
    """
    with plain_words("Cloud Storage", cloud.project, cloud.storage):
        blob = cloud.store.bucket(bucket).blob(name or file.name)
        blob.upload_from_filename(file, retry=cloud.store_retry)


def _pulled(pubsub: PubSub, path: str, most: int, what: str) -> list[Any]:
    """Return what one request gives; nothing if nothing comes in time."""
    from google.api_core.exceptions import DeadlineExceeded

    def call(**more: Any) -> Any:
        request = {"subscription": path, "max_messages": most}
        try:
            return pubsub.cloud.subscriber.pull(request=request, **more).received_messages
        except DeadlineExceeded:
            return []

    return list(pubsub.ask(call, what, again=False, timeout=_PULL_WAIT_S))


def _wait(future: Any, timeout: float | None) -> None:
    try:
        future.result(timeout)
    except NotInTime:
        future.cancel()
        future.result()
    except BaseException:
        future.cancel()
        raise


def _row_parts(rows: Rows) -> Iterator[tuple[int, Rows]]:
    for start in range(0, len(rows), _ROWS):
        yield start, rows[start : start + _ROWS]


def _full(cloud: Cloud, table_id: str) -> str:
    return table_id if table_id.count(".") > 1 else f"{cloud.project}.{table_id}"


@lru_cache(maxsize=256)
def _table(cloud: Cloud, table_id: str, _keys: frozenset[str]) -> Any:
    return cloud.warehouse.get_table(_full(cloud, table_id), **Service(cloud).options)


def _fitted(rows: pl.DataFrame, columns: Sequence[str], tell: Callable[[str], Any]) -> Any:
    """Leave out the columns that a table has not."""
    if extra := [name for name in rows.columns if name not in columns]:
        tell(f"Left out, as the table has no such columns: {', '.join(extra)}")
    return rows.drop(extra)
