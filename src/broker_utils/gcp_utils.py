"""Single calls to Pub/Sub, BigQuery and Cloud Storage.

Same as `broker.connectors.gcp.simple`.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from broker.config import load_settings
from broker.connectors.gcp import Cloud, cloud_of, plain_words, simple
from broker.connectors.streams.pubsub import PubSubStream

__all__ = [
    "bq_insert_rows",
    "create_subscription",
    "cs_download_file",
    "cs_upload_file",
    "insert_rows_bigquery",
    "load_dataframe_bigquery",
    "publish_pubsub",
    "pull_pubsub",
    "purge_subscription",
    "query_bigquery",
    "streamingPull_pubsub",
]

PUBLIC_PROJECT = "ardent-cycling-243415"
"""The first broker's own project, which its documents take if no other is named."""


def publish_pubsub(
    topic_name: str,
    message: bytes | dict[str, Any],
    project_id: str | None = None,
    attrs: Mapping[str, str] | None = None,
    publisher: Any = None,
) -> str:
    """Publish a message, bytes or a dict as JSON, and wait; return its id.

    Raises
    ------
    TypeError
        If the message is neither.
    """
    cloud = _cloud(project_id)
    if publisher is None:
        return simple.publish(cloud, topic_name, message, attrs)
    path, data = publisher.topic_path(cloud.project, topic_name), simple.message_bytes(message)
    with plain_words("Pub/Sub", cloud.project, cloud.pubsub):
        return str(publisher.publish(path, data, **(attrs or {})).result())


def pull_pubsub(
    subscription_name: str,
    max_messages: int = 1,
    project_id: str | None = None,
    msg_only: bool = True,
    callback: Callable[[Any], Any] | None = None,
    return_count: bool = False,
) -> Any:
    """Pull messages, and acknowledge those for which `callback`, if any, returns true.

    Returns
    -------
    list or int
        All that were pulled, as bytes or as ``ReceivedMessage``; with `return_count` how many
        were acknowledged.
    """
    options = {"msg_only": msg_only, "callback": callback}
    cloud = _cloud(project_id)
    messages, count = simple.pull(cloud, subscription_name, max_messages, **options)  # type: ignore[arg-type]
    return count if return_count else messages


def streamingPull_pubsub(
    subscription_name: str,
    callback: Callable[[Any], Any],
    project_id: str | None = None,
    timeout: float | None = 10,
    block: bool = True,
    flow_control: Any = None,
) -> Any:
    """Call back with each message for `timeout` s, or return the future without `block`."""
    options: dict[str, Any] = {"block": block, "flow_control": flow_control}
    cloud = _cloud(project_id)
    future = simple.stream(cloud, subscription_name, callback, timeout, **options)
    return None if block else future


def purge_subscription(subscription: str) -> None:
    """Drop everything that a subscription has before it now."""
    simple.purge(_cloud(None), subscription)


def create_subscription(
    topic_name: str, project_id: str | None = None, subscription_name: str | None = None
) -> str:
    """Make a subscription, by default of the topic's name; return its path."""
    cloud, name = _cloud(project_id), subscription_name or topic_name
    PubSubStream(cloud).subscribe(topic_name, name)
    return f"projects/{cloud.project}/subscriptions/{name}"


def insert_rows_bigquery(
    table_id: str, rows: Iterable[Mapping[str, Any]], project_id: str | None = None
) -> list[Any]:
    """Insert rows into ``dataset.table``; return the errors. Unknown keys are ignored."""
    return simple.insert_rows(_cloud(project_id), table_id, rows)


bq_insert_rows = insert_rows_bigquery


def load_dataframe_bigquery(
    table_id: str,
    df: Any,
    project_id: str | None = None,
    use_table_schema: bool = True,
    logger: Any = None,
) -> None:
    """Load a pandas data frame into ``dataset.table``, and print or log how it went."""
    tell = print if logger is None else logger.info
    simple.load_dataframe(_cloud(project_id), table_id, df, tell, use_schema=use_table_schema)


def query_bigquery(query: str, project_id: str | None = None, job_config: Any = None) -> Any:
    """Start a query; return its ``QueryJob``."""
    return simple.query(_cloud(project_id), query, job_config)


def cs_download_file(
    localdir: str | Path, bucket_id: str, filename: str | None = None
) -> list[Path]:
    """Download all objects whose names start with `filename`, side by side."""
    return simple.download(_cloud(None), Path(localdir), bucket_id, filename)


def cs_upload_file(
    local_file: str | Path, bucket_id: str, bucket_filename: str | None = None
) -> None:
    """Upload a file, by default under its own name."""
    simple.upload(_cloud(None), Path(local_file), bucket_id, bucket_filename)


def _cloud(project_id: str | None) -> Cloud:
    """Return the cached clients of a project: named, of the environment, or the public one."""
    settings = load_settings()
    project = project_id or os.environ.get("GCP_PROJECT") or settings.project or PUBLIC_PROJECT
    return cloud_of(settings, project)
