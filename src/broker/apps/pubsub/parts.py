"""What the services of one home share."""

from dataclasses import dataclass

from broker.apps.pubsub.appending import Appender
from broker.apps.pubsub.catalogue import Catalogue
from broker.apps.pubsub.waking import Bell
from broker.connectors.streams.desk import Desk
from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.seeking import Seeker


@dataclass(frozen=True, slots=True)
class Parts:
    """The topics of a home, its subscriptions, and who waits for what."""

    stream: LocalStream
    desk: Desk
    seeker: Seeker
    catalogue: Catalogue
    appender: Appender
    bell: Bell
