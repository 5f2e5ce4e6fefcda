"""Messages of many requests as one batch on the disk: a flush serves all who wait for it."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from broker.connectors.streams.local import LocalStream
from broker.ports import BatchKey, Messages

# A batch takes no further request once it has this much.
_BATCH_BYTES = 16 * 2**20


@dataclass(eq=False, slots=True)
class _Request:
    payloads: Sequence[bytes]
    attributes: Sequence[Mapping[str, str]]
    size: int
    ids: list[str] = field(default_factory=list)
    error: Exception | None = None
    done: bool = False


class _Line:
    """The requests for one topic."""

    def __init__(self) -> None:
        self.writing = threading.Lock()
        self.guard = threading.Lock()
        self.waiting: list[_Request] = []
        self.number = -1

    def take(self) -> list[_Request]:
        with self.guard:
            count, size = 0, 0
            while count < len(self.waiting) and size < _BATCH_BYTES:
                size += self.waiting[count].size
                count += 1
            taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken


class Appender:
    """Publishes to local topics, from many threads.

    Parameters
    ----------
    stream : LocalStream
        The topics.
    worker : str
        The stream's worker.
    """

    def __init__(self, stream: LocalStream, worker: str) -> None:
        self._stream = stream
        self._worker = worker
        self._lines: dict[str, _Line] = {}
        self._guard = threading.Lock()

    def append(
        self, topic: str, payloads: Sequence[bytes], attributes: Sequence[Mapping[str, str]]
    ) -> list[str]:
        """Publish messages; they are on the disk when their ids are returned.

        Raises
        ------
        TransientError
            If the disk is full; nothing was published.
        """
        request = _Request(payloads, attributes, sum(map(len, payloads)))
        with self._guard:
            line = self._lines.setdefault(topic, _Line())
        with line.guard:
            line.waiting.append(request)
        while not request.done:
            with line.writing:
                if not request.done:
                    self._write(topic, line, line.take())
        if request.error is not None:
            raise request.error
        return request.ids

    def forget(self, topic: str) -> None:
        """Start again with a topic that was removed."""
        with self._guard:
            self._lines.pop(topic, None)

    def _write(self, topic: str, line: _Line, requests: Sequence[_Request]) -> None:
        try:
            if line.number < 0:
                last = self._stream.log(topic).last()
                line.number = last.number if last else -1
            self._stream.publish(topic, _merged(requests), BatchKey(self._worker, line.number + 1))
            line.number += 1
            self._name(line.number, requests)
        except Exception as error:
            for request in requests:
                request.error = error
        for request in requests:
            request.done = True

    def _name(self, number: int, requests: Sequence[_Request]) -> None:
        row = 0
        for request in requests:
            end = row + len(request.payloads)
            request.ids = [f"{self._worker}-{number}-{i}" for i in range(row, end)]
            row = end


def _merged(requests: Sequence[_Request]) -> Messages:
    attributes = [each for request in requests for each in request.attributes]
    payloads = [payload for request in requests for payload in request.payloads]
    names = dict.fromkeys(name for each in attributes for name in each)
    columns = {
        name: pl.Series([each.get(name) for each in attributes], dtype=pl.String) for name in names
    }
    return Messages(payloads, pl.DataFrame(columns))
