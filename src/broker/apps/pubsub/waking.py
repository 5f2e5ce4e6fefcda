"""Who waits for messages, and what wakes them: a publication, an answer, another process."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from broker.connectors.streams.local import LocalStream
from broker.errors import BrokerError

# How often topics that somebody waits for are looked at for messages of other processes.
_LOOK_S = 0.05
_LOOKS_A_ROUND = 20

_log = logging.getLogger(__name__)


class Bell:
    """Rings by name; whoever waits for one of the names wakes up."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung: Counter[str] = Counter()
        self._awaited: Counter[str] = Counter()

    def ring(self, name: str) -> None:
        """Wake those who wait for `name`."""
        with self._changed:
            self._rung[name] += 1
            if self._awaited[name]:
                self._changed.notify_all()

    def ring_all(self) -> None:
        """Wake everybody."""
        with self._changed:
            for name in self._awaited:
                self._rung[name] += 1
            self._changed.notify_all()

    def heard(self, *names: str) -> int:
        """Return how often these have rung; to be asked before looking for messages."""
        with self._changed:
            return sum(self._rung[name] for name in names)

    def wait(self, since: int, timeout_s: float, *names: str) -> None:
        """Wait until one of the names has rung since `heard` said `since`."""
        with self._changed, self._counted(names):
            self._changed.wait_for(
                lambda: sum(self._rung[name] for name in names) != since, timeout_s
            )

    def awaited(self) -> list[str]:
        """Return the names that somebody waits for."""
        with self._changed:
            return [name for name, count in self._awaited.items() if count]

    @contextmanager
    def _counted(self, names: tuple[str, ...]) -> Iterator[None]:
        self._awaited.update(names)
        try:
            yield
        finally:
            self._awaited.subtract(names)


def of_topic(name: str) -> str:
    """Name the bell of a topic."""
    return f"topic {name}"


def of_subscription(name: str) -> str:
    """Name the bell of a subscription."""
    return f"subscription {name}"


class Watcher(threading.Thread):
    """Rings for messages of other processes, and does what is due every second.

    Parameters
    ----------
    stream : LocalStream
        The topics.
    bell : Bell
        Rung for topics that have grown.
    every_second : callable
        Called about once a second.
    """

    def __init__(self, stream: LocalStream, bell: Bell, every_second: Callable[[], None]) -> None:
        super().__init__(name="pubsub-watcher", daemon=True)
        self._stream = stream
        self._bell = bell
        self._every_second = every_second
        self._ends: dict[str, list[int]] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look until `stop`."""
        looks = 0
        while not self._stopped.wait(_LOOK_S):
            looks += 1
            try:
                self._look()
                if looks % _LOOKS_A_ROUND == 0:
                    self._every_second()
            except (BrokerError, OSError) as error:
                _log.warning("The home could not be looked at", extra={"reason": str(error)})

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()

    def _look(self) -> None:
        for name in self._bell.awaited():
            kind, _, topic = name.partition(" ")
            if kind == "topic" and self._stream.has_topic(topic):
                lasts = [it.last() for it in self._stream.log(topic).partitions().values()]
                ends = [frame.number for frame in lasts if frame]
                if self._ends.get(topic) != ends:
                    self._ends[topic] = ends
                    self._bell.ring(name)
