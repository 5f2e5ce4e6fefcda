"""Publish the alerts of a reservoir to a topic at a chosen rate.

Same as `broker.apps.simulator.stream`.
"""

from typing import Any

from broker.apps.simulator import stream as _stream
from broker.apps.simulator.rates import Amount
from broker.apps.simulator.stream import Summary

__all__ = ["Summary", "publish_stream"]


def publish_stream(
    alert_rate: Amount | str,
    instance: tuple[str, str | bool | None] | None = None,
    runtime: Amount | None = None,
    publish_batch_every: Amount = (5, "sec"),
    sub_id: str | None = None,
    topic_id: str | None = None,
    nack: bool = False,
    auto_confirm: bool = False,
    **options: Any,
) -> Summary:
    """Publish the alerts of a reservoir to a topic at a chosen rate.

    Same as `broker.apps.simulator.stream.publish_stream`, whose further keywords (``stream``,
    ``on_empty``, ``clockwork``, ``ask``) are taken too.

    Raises
    ------
    ValueError
        If an argument is wrong; nothing was published.
    """
    flags = {"nack": nack, "auto_confirm": auto_confirm, **options}
    timing = (alert_rate, instance, runtime, publish_batch_every)
    return _stream.publish_stream(*timing, sub_id, topic_id, **flags)
