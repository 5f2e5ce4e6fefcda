"""A dashboard of an instance, made from the list of its resources."""

from collections.abc import Iterator, Sequence
from typing import Any

from broker.apps.cloud.registry import Resource

_WIDE, _HIGH, _COLUMNS = 16, 12, 48
_PERIOD = "60s"


def mosaic(resources: Sequence[Resource]) -> dict[str, Any]:
    """Return the layout of a Cloud Monitoring dashboard.

    Rates and night's totals of all topics together, the backlog of each subscription, the
    sizes of buckets, rows that came, and each machine.
    """
    tiles = []
    for number, widget in enumerate(_widgets(resources)):
        x, y = number * _WIDE % _COLUMNS, number * _WIDE // _COLUMNS * _HIGH
        tiles.append({"xPos": x, "yPos": y, "width": _WIDE, "height": _HIGH, "widget": widget})
    return {"columns": _COLUMNS, "tiles": tiles}


def _widgets(resources: Sequence[Resource]) -> Iterator[dict[str, Any]]:
    topics = _of(resources, "topic")
    subscriptions = _of(resources, "subscription")
    sent = "pubsub.googleapis.com/topic/send_message_operation_count"
    yield _chart("Messages published, 1/s", [_topic(it, sent, "ALIGN_RATE") for it in topics])
    yield _chart(
        "Bytes published, 1/s",
        [_topic(it, "pubsub.googleapis.com/topic/byte_cost", "ALIGN_RATE") for it in topics],
    )
    waiting = "pubsub.googleapis.com/subscription/num_undelivered_messages"
    for chosen, title in (("-counter", "Messages of the night"), ("-reservoir", "Reservoir")):
        names = [it for it in subscriptions if chosen in it]
        yield _chart(title, [_subscription(it, waiting) for it in names])
    yield _chart("Objects stored", [_bucket(it) for it in _of(resources, "bucket")])
    yield _chart("Rows in tables", [_dataset(it) for it in _of(resources, "dataset")])
    for name in _of(resources, "vm"):
        yield _chart(f"{name}: processor", [_machine(name, "cpu/utilization", "ALIGN_MEAN")])
        network = "network/received_bytes_count"
        yield _chart(f"{name}: bytes received, 1/s", [_machine(name, network, "ALIGN_RATE")])


def _of(resources: Sequence[Resource], kind: str) -> list[str]:
    return [it.name for it in resources if it.kind == kind]


def _chart(title: str, sets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "xyChart": {"dataSets": list(sets)}}


def _set(legend: str, metric: str, resource: str, aligner: str) -> dict[str, Any]:
    return {
        "legendTemplate": legend,
        "plotType": "LINE",
        "timeSeriesQuery": {
            "timeSeriesFilter": {
                "filter": f'metric.type="{metric}" {resource}',
                "aggregation": {
                    "alignmentPeriod": _PERIOD,
                    "perSeriesAligner": aligner,
                    "crossSeriesReducer": "REDUCE_SUM",
                },
            }
        },
    }


def _topic(name: str, metric: str, aligner: str) -> dict[str, Any]:
    where = f'resource.type="pubsub_topic" resource.label."topic_id"="{name}"'
    return _set(name, metric, where, aligner)


def _subscription(name: str, metric: str) -> dict[str, Any]:
    where = f'resource.type="pubsub_subscription" resource.label."subscription_id"="{name}"'
    return _set(name, metric, where, "ALIGN_MEAN")


def _bucket(name: str) -> dict[str, Any]:
    where = f'resource.type="gcs_bucket" resource.label."bucket_name"="{name}"'
    return _set(name, "storage.googleapis.com/storage/object_count", where, "ALIGN_MEAN")


def _dataset(name: str) -> dict[str, Any]:
    where = f'resource.type="bigquery_dataset" resource.label."dataset_id"="{name}"'
    return _set(name, "bigquery.googleapis.com/storage/uploaded_row_count", where, "ALIGN_DELTA")


def _machine(name: str, metric: str, aligner: str) -> dict[str, Any]:
    where = f'resource.type="gce_instance" metric.label."instance_name"="{name}"'
    return _set(name, f"compute.googleapis.com/instance/{metric}", where, aligner)
