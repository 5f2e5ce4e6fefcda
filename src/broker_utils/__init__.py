"""Tools for those who work with the broker's streams.

Same as `broker.apps.simulator`, under the names that the broker's documents promise.
"""

from broker_utils import consumer_sim, consumer_simulator

__all__ = ["consumer_sim", "consumer_simulator"]
