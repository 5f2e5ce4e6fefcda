"""The consumer simulator under its short name.

Same as `broker_utils.consumer_simulator`.
"""

from broker_utils.consumer_simulator import Summary, publish_stream

__all__ = ["Summary", "publish_stream"]
