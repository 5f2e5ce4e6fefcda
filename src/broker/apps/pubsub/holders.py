"""What each streaming pull has out, so that none gets more than its client allows."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from broker.apps.pubsub.waking import Bell, of_subscription
from broker.connectors.streams.desk import weight_of
from broker.ports import Delivery


@dataclass(eq=False)
class Holder:
    """A streaming pull: what it may have out (0 is any number), and what it has."""

    subscription: str
    deadline_s: int
    most_messages: int
    most_bytes: int
    _out: dict[str, tuple[int, float]] = field(default_factory=dict)
    _bytes: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def room(self) -> tuple[int, int]:
        """Return how many messages and bytes may be sent now."""
        with self._guard:
            count = self.most_messages - len(self._out) if self.most_messages > 0 else 1000
            size = self.most_bytes - self._bytes if self.most_bytes > 0 else 2**62
            if count <= 0 or size <= 0:
                self._drop([key for key, (_, end) in self._out.items() if end < time.monotonic()])
        return max(count, 0), max(size, 0)

    def sent(self, deliveries: Sequence[Delivery]) -> None:
        """Note what was sent."""
        end = time.monotonic() + self.deadline_s
        with self._guard:
            for delivery in deliveries:
                size = weight_of(delivery)
                self._out[delivery.message_id] = size, end
                self._bytes += size

    def lease_of(self, message_id: str) -> tuple[int, float] | None:
        """Return a message's size and the end of its lease; None once it is settled."""
        with self._guard:
            return self._out.get(message_id)

    def settle(self, message_ids: Iterable[str]) -> None:
        """Note what was acknowledged or given back."""
        with self._guard:
            self._drop(message_ids)

    def extend(self, message_ids: Iterable[str], seconds: int) -> None:
        """Note leases that last longer."""
        end = time.monotonic() + seconds
        with self._guard:
            for message_id in message_ids:
                if found := self._out.get(message_id):
                    self._out[message_id] = found[0], end

    def _drop(self, message_ids: Iterable[str]) -> None:
        for message_id in message_ids:
            size, _ = self._out.pop(message_id, (0, 0.0))
            self._bytes -= size


class Holders:
    """The streaming pulls of a server.

    Parameters
    ----------
    bell : Bell
        Rung when a subscription's clients may take more.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._guard = threading.Lock()
        self._holders: defaultdict[str, list[Holder]] = defaultdict(list)

    def add(self, holder: Holder) -> None:
        """Take in a streaming pull."""
        with self._guard:
            self._holders[holder.subscription].append(holder)

    def remove(self, holder: Holder) -> None:
        """Forget a streaming pull."""
        with self._guard:
            self._holders[holder.subscription].remove(holder)

    def settle(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Tell that messages were acknowledged or given back."""
        message_ids = _message_ids(ack_ids)
        for holder in self._of(subscription):
            holder.settle(message_ids)
        self._bell.ring(of_subscription(subscription))

    def extend(self, subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        """Tell that leases last longer."""
        message_ids = _message_ids(ack_ids)
        for holder in self._of(subscription):
            holder.extend(message_ids, seconds)

    def _of(self, subscription: str) -> list[Holder]:
        with self._guard:
            return list(self._holders.get(subscription, ()))


def _message_ids(ack_ids: Sequence[str]) -> list[str]:
    return [ack_id.rsplit("-", 1)[0] for ack_id in ack_ids]
