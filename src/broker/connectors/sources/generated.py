"""Alerts from any iterable of packets, such as a generator's."""

from collections.abc import Iterable, Iterator
from itertools import islice

import polars as pl

from broker.connectors.sources.files import ORIGIN_SCHEMA
from broker.ports import SourceBatch


class GeneratedSource:
    """Hand out packets in batches, numbered as if they were one partition of a topic.

    Parameters
    ----------
    packets : iterable of bytes
        The packets, in order.
    topic : str, optional
        Name of the topic that they seem to come from.
    """

    def __init__(self, packets: Iterable[bytes], topic: str | None = None) -> None:
        self._packets = iter(packets)
        self._topic = topic
        self._next = 0

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield batches until the packets end; the wait is not needed."""
        del max_wait_s
        while payloads := list(islice(self._packets, max_payloads)):
            yield SourceBatch(payloads, self._origins(len(payloads)))
            self._next += len(payloads)

    def _origins(self, size: int) -> pl.DataFrame:
        numbers = range(self._next, self._next + size)
        known = self._topic is not None
        return pl.DataFrame(
            {
                "topic": [self._topic] * size,
                "partition": [0 if known else None] * size,
                "offset": numbers if known else [None] * size,
                "timestamp_ms": [None] * size,
                "place": [f"generated packet {number}" for number in numbers],
            },
            schema=ORIGIN_SCHEMA,
        )

    def commit(self, batch: SourceBatch) -> None:
        """Do nothing: what is generated can be generated again."""

    def close(self) -> None:
        """Do nothing: nothing is held."""
