"""Alerts from any iterable of packets, such as a generator's."""

from collections.abc import Iterable, Iterator
from itertools import islice

import polars as pl

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
        while (batch := self._batch(max_payloads)).payloads:
            yield batch

    def _batch(self, size: int) -> SourceBatch:
        payloads = list(islice(self._packets, size))
        origins = self._origins(len(payloads))
        self._next += len(payloads)
        return SourceBatch(payloads, origins)

    def _origins(self, size: int) -> pl.DataFrame:
        numbers = pl.int_range(self._next, self._next + size, eager=True)
        place = numbers.to_frame("n").select(pl.format("generated packet {}", "n")).to_series()
        known = self._topic is not None
        return pl.DataFrame({"place": place}).select(
            topic=pl.lit(self._topic, pl.String),
            partition=pl.lit(0 if known else None, pl.Int32),
            offset=numbers if known else pl.lit(None, pl.Int64),
            timestamp_ms=pl.lit(None, pl.Int64),
            place="place",
        )

    def commit(self, batch: SourceBatch) -> None:
        """Do nothing: what is generated can be generated again."""

    def close(self) -> None:
        """Do nothing: nothing is held."""
