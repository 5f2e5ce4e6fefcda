"""From a batch of payloads to alerts with their origins; what cannot be used is a reject."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import xxhash

from broker.errors import DecodeError, PacketError
from broker.pipeline.ledger import Claim, Intake
from broker.ports import Gone, SourceBatch
from broker.surveys import AlertFrame, SchemaResolver, Survey, decode_batch, split_container
from broker.surveys.payloads import Payloads

MAX_REJECT_BYTES = 1 << 20
"""Of a rejected payload so much is kept; nothing this large was ever an alert packet."""

_NO_RANGES = pl.DataFrame(schema=dict.fromkeys(("topic", "partition", "first", "last", "count")))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A decoded batch: its alerts, grouped by schema, and what could not be read."""

    batch: SourceBatch
    frames: Sequence[AlertFrame]
    rejects: Mapping[int, PacketError]

    @property
    def payload_bytes(self) -> int:
        """Bytes of all payloads."""
        return int(Payloads.of(self.batch.payloads).sizes.sum())

    @property
    def intake(self) -> Intake:
        """What the ledger must know of it."""
        ids = [frame.keys["source_id"].to_numpy() for frame in self.frames]
        objects = [it for frame in self.frames for it in frame.keys["object_id"].to_list()]
        digests = [payload_digest(self.batch.payloads[i]) for i in self.rejects]
        return Intake(
            np.concatenate([*ids, np.zeros(0, dtype=np.int64)]),
            objects,
            np.array(digests, dtype=np.int64),
            _offset_ranges(self.batch.origins),
        )


@dataclass(frozen=True, slots=True)
class NewAlerts:
    """The alerts of one schema that were never seen before, with payloads and origins."""

    frame: AlertFrame
    payloads: Sequence[bytes]
    origins: pl.DataFrame

    def without_payloads(self) -> "NewAlerts":
        """Return all but the payloads."""
        return replace(self, payloads=Gone(len(self.payloads)))


@dataclass(frozen=True, slots=True)
class Reject:
    """A payload that cannot be used, and why."""

    payload: bytes
    error: PacketError
    digest: int
    place: str


def payload_digest(payload: bytes) -> int:
    """Return the signed 64-bit number by which a rejected payload is known."""
    digest = xxhash.xxh3_64_intdigest(payload)
    return digest - (1 << 64) if digest >> 63 else digest


def arrive(
    batch: SourceBatch,
    survey: Survey,
    max_bytes: int,
    resolver: SchemaResolver | None = None,
) -> Arrival:
    """Decode a batch; every payload gives alerts or a reject."""
    batch = replace(batch, payloads=Payloads.of(batch.payloads))
    frames, rejects = decode_batch(batch.payloads, survey, resolver=resolver)
    if several := _several(batch, frames, rejects):
        batch = _split(batch, several)
        frames, rejects = decode_batch(batch.payloads, survey, resolver=resolver)
    sizes = Payloads.of(batch.payloads).sizes
    too_large = {
        i: DecodeError(f"the packet has {sizes[i]:,} bytes, more than the {max_bytes:,} allowed")
        for i in np.flatnonzero(sizes > max_bytes).tolist()
    }
    if too_large:
        frames = [_without(frame, too_large) for frame in frames]
    return Arrival(batch, frames, dict(sorted((rejects | too_large).items())))


def new_alerts(arrival: Arrival, claim: Claim) -> list[NewAlerts]:
    """Keep the alerts that the claim found to be new."""
    kept, start = [], 0
    for frame in arrival.frames:
        new = claim.new[start : start + len(frame.index)]
        start += len(frame.index)
        if new.any():
            kept.append(_with_origins(frame.select(new), arrival.batch))
    return kept


def _with_origins(frame: AlertFrame, batch: SourceBatch) -> NewAlerts:
    if np.array_equal(frame.index, np.arange(len(batch.payloads))):
        return NewAlerts(frame, batch.payloads, batch.origins)
    payloads = [batch.payloads[i] for i in frame.index.tolist()]
    return NewAlerts(frame, payloads, batch.origins[frame.index])


def new_rejects(arrival: Arrival, claim: Claim) -> list[Reject]:
    """Keep the rejects that the claim found to be new."""
    places = arrival.batch.origins["place"]
    payloads = arrival.batch.payloads
    return [
        Reject(payloads[i], error, payload_digest(payloads[i]), places[i] or "")
        for (i, error), new in zip(arrival.rejects.items(), claim.new_rejects, strict=True)
        if new
    ]


def _without(frame: AlertFrame, payloads: Mapping[int, object]) -> AlertFrame:
    return frame.select(~np.isin(frame.index, list(payloads)))


def _several(
    batch: SourceBatch, frames: Sequence[AlertFrame], rejects: Mapping[int, PacketError]
) -> dict[int, list[bytes]]:
    """Return the parts of each payload that holds several records, good or bad."""
    suspects = {int(i) for frame in frames for i in frame.index[1:][np.diff(frame.index) == 0]}
    parts = {i: _parts(batch.payloads[i]) for i in sorted(suspects | set(rejects))}
    return {i: split for i, split in parts.items() if len(split) > 1}


def _parts(payload: bytes) -> list[bytes]:
    try:
        return split_container(payload)
    except PacketError:
        return []


def _split(batch: SourceBatch, several: Mapping[int, list[bytes]]) -> SourceBatch:
    """Give each alert of a payload that holds several a payload of its own."""
    parts = [several.get(i, [payload]) for i, payload in enumerate(batch.payloads)]
    rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return replace(
        batch, payloads=[it for part in parts for it in part], origins=batch.origins[rows]
    )


def _offset_ranges(origins: pl.DataFrame) -> pl.DataFrame:
    """Return first, last and count of the offsets of each unbroken range."""
    if origins["offset"].null_count() == len(origins):
        return _NO_RANGES
    known = origins.drop_nulls(["topic", "partition", "offset"])
    order = known.sort("topic", "partition", "offset")
    partition = ["topic", "partition"]
    broken = (pl.col("offset").diff().over(partition) > 1).fill_null(False)
    return (
        order.with_columns(broken.cum_sum().over(partition).alias("stretch"))
        .group_by(*partition, "stretch", maintain_order=True)
        .agg(first=pl.col("offset").min(), last=pl.col("offset").max(), count=pl.len())
        .drop("stretch")
    )
