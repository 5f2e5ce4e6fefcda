"""Tools for those who work with the broker's streams and files.

Same as `broker.apps`, under the names that the broker's documents promise.
"""

from broker_utils import consumer_sim, consumer_simulator, schema_maps

__all__ = ["consumer_sim", "consumer_simulator", "schema_maps"]
