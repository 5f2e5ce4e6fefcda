"""What the pipeline needs from outside, as protocols on one page.

Words: a *payload* is one packet as sent; a *batch* is what travels together; a `BatchKey`
names a batch for ever, so that everything done for it can be done again without effect.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class BatchKey:
    """The name of one batch: its worker and a number that only grows within that worker."""

    worker: str
    number: int

    def __str__(self) -> str:
        return f"{self.worker}-{self.number:010d}"


@dataclass(frozen=True, slots=True, order=True)
class OffsetGap:
    """Offsets of a partition that never came, the first and the last of them, and why."""

    topic: str
    partition: int
    first: int
    last: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Payloads as a source hands them out, with where each came from.

    `origins` has one row a payload: ``topic`` (str), ``partition`` (int32), ``offset``
    (int64), ``timestamp_ms`` (int64), each null where the source has none, and ``place``
    (str), which tells a person where to look. A source of messages adds ``message_id`` (str).
    `gaps` are offsets that the source found
    missing while it took the batch; they may come without any payload.
    """

    payloads: Sequence[bytes]
    origins: pl.DataFrame
    gaps: Sequence[OffsetGap] = ()

    def let_go(self) -> None:
        """Free the memory of the payloads; how many there were stays known."""
        object.__setattr__(self, "payloads", Gone(len(self.payloads)))


class Gone(Sequence[bytes]):
    """Payloads of which only the number is left."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        raise RuntimeError("the payloads were let go")


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages of one batch for one topic, column-wise.

    `attributes` has one row a message and one column an attribute; a null means that the
    message lacks it, and every value is delivered as text. `prefixes` are leading bytes that
    many payloads share (a schema header); ``prefix_index[i]`` is the one that payload i
    starts with, -1 for none, so that a store may keep each prefix once. `references`, where
    given, are a few bytes a payload from which one who has the packets can make it again; a
    store next to the packets may keep them instead.
    """

    payloads: Sequence[bytes]
    attributes: pl.DataFrame
    prefixes: Sequence[bytes] = ()
    prefix_index: NDArray[np.int32] | None = None
    references: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message leased from a subscription."""

    message_id: str
    ack_id: str
    payload: bytes
    attributes: Mapping[str, str]
    published: datetime
    attempt: int


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic, how many messages it holds, and the backlog of each subscription.

    A number is -1 where the service does not tell.
    """

    name: str
    messages: int
    backlog: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One stored object."""

    name: str
    size: int
    metadata: Mapping[str, str]


class Source(Protocol):
    """Alerts in.

    A payload that was handed out is handed out again after a restart, unless `commit` was
    called with a batch at or after it. Batches come in order within a partition.
    """

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Yield batches; an empty one means that nothing came within `max_wait_s`."""
        ...

    def commit(self, batch: SourceBatch) -> None:
        """Record that `batch` and all before it are durable here."""
        ...

    def close(self) -> None:
        """Let go of files and connections; nothing is committed by it."""
        ...


class Stream(Protocol):
    """Topics and subscriptions: publish, lease, acknowledge, deliver again."""

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        """Append to `topic`, creating it; durable on return.

        A second call with a key at or below the last of its worker on that topic does
        nothing, where the service allows that (the embedded log does). A batch without
        messages only makes the topic. Threads may publish to different topics at once.
        """
        ...

    def topics(self) -> list[TopicInfo]:
        """List the topics."""
        ...

    def subscribe(
        self, topic: str, name: str, *, attribute_filter: str = "", ack_deadline_s: float = 60
    ) -> None:
        """Make a subscription, from the oldest message on; the same call again does nothing.

        Raises
        ------
        NotFoundError
            If there is no such topic.
        RefusedError
            If the name is taken by another topic or filter.
        """
        ...

    def pull(self, subscription: str, max_messages: int) -> list[Delivery]:
        """Lease up to `max_messages`; those not acknowledged in time are delivered again."""
        ...

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Never deliver these again."""
        ...

    def release(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Deliver these again now (a "nack")."""
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class Journal(Protocol):
    """The durable log of raw packets of one worker; a batch is there whole or not at all."""

    def append(self, key: BatchKey, messages: Messages) -> None:
        """Append and flush to disk; the same key again does nothing."""
        ...

    def read(self, key: BatchKey) -> Messages | None:
        """Return a batch, byte for byte as appended; None if it is not there."""
        ...


class Files(Protocol):
    """Buckets of objects."""

    def create(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> bool:
        """Store an object unless it exists; tell whether it was stored."""
        ...

    def read(self, bucket: str, name: str) -> bytes:
        """Return an object's bytes.

        Raises
        ------
        NotFoundError
            If there is no such object.
        """
        ...

    def list(self, bucket: str, prefix: str = "") -> Iterator[FileInfo]:
        """Iterate over the objects whose names start with `prefix`, in order of name."""
        ...


class Tables(Protocol):
    """Rows that people query with SQL in BigQuery's dialect, as ``dataset.table``."""

    def append(self, dataset: str, table: str, rows: pl.DataFrame, key: BatchKey) -> None:
        """Append rows; the same key and columns again do nothing.

        New columns may appear at any time.
        """
        ...

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """Run one SELECT; ``@name`` in the SQL takes its value from `parameters`.

        Raises
        ------
        UsageError
            If the SQL is wrong or names a table that does not exist.
        """
        ...

    def tables(self) -> dict[str, dict[str, str]]:
        """Return ``{"dataset.table": {column: type}}``."""
        ...

    def compact(self) -> int:
        """Merge small parts; return how many files went away. Safe beside readers."""
        ...


class Catalog(Protocol):
    """Positional cross-match."""

    def nearest(
        self, ra: NDArray[np.float64], dec: NDArray[np.float64], radius_arcsec: float, count: int
    ) -> pl.DataFrame:
        """Return up to `count` neighbours of each position.

        Columns ``row, rank, id, separation_arcsec``, nearest first.
        """
        ...
