"""Deliveries as messages of the protocol."""

from collections.abc import Sequence

from broker.apps.pubsub.protocol import Message
from broker.connectors.streams.desk import ORDERING_KEY
from broker.ports import Delivery

MOST_BYTES = 3_500_000
"""A response stays well under the 4 MB that Google's client takes; a larger message is alone."""


def fill(response: Message, deliveries: Sequence[Delivery], *, attempts: bool) -> None:
    """Add messages to a response, with their attempts where the client may know them."""
    for delivery in deliveries:
        received = response.received_messages.add()
        received.ack_id = delivery.ack_id
        if attempts:
            received.delivery_attempt = delivery.attempt
        message = received.message
        message.data = delivery.payload
        message.message_id = delivery.message_id
        message.publish_time.FromDatetime(delivery.published)
        message.attributes.update(delivery.attributes)
        if ORDERING_KEY in delivery.attributes:
            message.ordering_key = delivery.attributes[ORDERING_KEY]
            del message.attributes[ORDERING_KEY]
