"""What is made of new alerts: attributes, verdicts, rows, messages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial

import numpy as np
import polars as pl

from broker.alerts.convert import to_json_bytes
from broker.alerts.sky import healpix_ids
from broker.pipeline.intake import MAX_REJECT_BYTES, NewAlerts, Reject
from broker.pipeline.references import Bodies
from broker.ports import Messages
from broker.science.filters import Filter, Verdicts, evaluate

_EMPTY = b""

_ORIGINS = {
    "kafka.topic": "topic",
    "kafka.partition": "partition",
    "kafka.offset": "offset",
    "kafka.timestamp": "timestamp_ms",
}
"""Attribute of a message and the column of its origin."""

MAX_ATTRIBUTE_BYTES = 1000
"""Longest text of an attribute; Pub/Sub refuses more than 1024 bytes."""


@dataclass(frozen=True, slots=True)
class Made:
    """New alerts of one schema with their message attributes and verdicts."""

    alerts: NewAlerts
    attributes: pl.DataFrame
    verdicts: Verdicts

    def without_payloads(self) -> "Made":
        """Return all but the packets as sent."""
        return replace(self, alerts=self.alerts.without_payloads())


def make(alerts: NewAlerts, filters: Sequence[Filter]) -> Made:
    """Evaluate the filters and name the attributes of each alert's messages."""
    verdicts = evaluate(filters, alerts.frame.rows, alerts.frame.columns)
    return Made(alerts, _attributes(alerts, verdicts), verdicts)


def _attributes(alerts: NewAlerts, verdicts: Verdicts) -> pl.DataFrame:
    """Name where each alert came from, what it is, where it lies and what the filters say."""
    origins, keys = alerts.origins, alerts.frame.keys
    found = pl.DataFrame([origins[name].alias(attribute) for attribute, name in _ORIGINS.items()])
    parts = (alerts.frame.attributes, healpix_ids(keys["ra"], keys["dec"]), verdicts.attributes())
    for part in parts:
        found = found.hstack(part)
    return found


def packets(made: Made) -> Messages:
    """Return the packets as sent, for the topic ``alerts``."""
    frame = made.alerts.frame
    return Messages(made.alerts.payloads, made.attributes, frame.prefixes, frame.prefix_index)


def join(parts: Sequence[Messages]) -> Messages:
    """Put messages of several schemas into one batch."""
    if len(parts) == 1:
        return parts[0]
    prefixes = [prefix for part in parts for prefix in part.prefixes]
    indexes, shift = [], 0
    for part in parts:
        none = np.full(len(part.payloads), -1, dtype=np.int32)
        index = none if part.prefix_index is None else part.prefix_index
        indexes.append(np.where(index < 0, index, index + shift).astype(np.int32))
        shift += len(part.prefixes)
    attributes = pl.concat([part.attributes for part in parts], how="diagonal_relaxed")
    places = [reference for part in parts for reference in part.references]
    size = sum(len(part.payloads) for part in parts)
    payloads = Bodies(size, lambda: [payload for part in parts for payload in part.payloads])
    return Messages(payloads, attributes, prefixes, np.concatenate(indexes), places)


def tables(made: Made, *, clustered: bool = False) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each table's name and rows.

    With `clustered` the tables of every survey have the columns by which a warehouse
    partitions and clusters; otherwise only those of surveys that always have them.
    """
    frame = made.alerts.frame
    clustered = clustered or frame.survey.clustered_tables
    extras = _extras(made) if clustered else []
    yield "alerts", _with(frame.survey.alerts_rows(frame), extras)
    if frame.survey.source_table.record:
        yield "DIASource", _with(frame.survey.dia_source_rows(frame), extras)
    yield "verdicts", _verdict_rows(made)


def _with(rows: pl.DataFrame, extras: Sequence[pl.Series]) -> pl.DataFrame:
    """Add columns, or put them in place of those that have their names."""
    if any(extra.name in rows.columns for extra in extras):
        return rows.with_columns(extras)
    return rows.hstack(list(extras))


def _extras(made: Made) -> list[pl.Series]:
    """Return the time of publication and the pixels of each alert."""
    stamp = pl.from_epoch(made.alerts.origins["timestamp_ms"], time_unit="ms")
    published = stamp.dt.replace_time_zone("UTC").alias("kafkaPublishTimestamp")
    return [published, *made.attributes.select(pl.col("^healpix.*$"))]


def _verdict_rows(made: Made) -> pl.DataFrame:
    """Return ids and, per filter, the verdict and a bit per cut passed and per cut unknown."""
    bits = made.verdicts.frame.clone()
    bits.columns = [name.replace(".", "_") for name in bits.columns]
    return made.alerts.frame.keys.select("object_id", "source_id").hstack(bits)


def passed(
    made: Made, filters: Sequence[Filter], places: Sequence[bytes]
) -> Iterator[tuple[Filter, Messages]]:
    """Yield the JSON messages of each filter that any alert passes.

    An alert that passes several is written once.

    `places` are references to the packets of all alerts of this part. The JSON is made only
    if a stream wants it.
    """
    verdicts = {chosen.name: made.verdicts.passed(chosen.name) for chosen in filters}
    wanted = np.logical_or.reduce(list(verdicts.values()))

    @cache
    def bodies() -> list[bytes]:
        frame = made.alerts.frame.select(wanted)
        return to_json_bytes(frame.survey.alerts_rows(frame))

    place = np.cumsum(wanted) - 1
    for chosen in filters:
        rows = np.flatnonzero(verdicts[chosen.name])
        if len(rows):
            body = partial(_chosen, bodies, place[rows].tolist())
            yield (
                chosen,
                Messages(
                    Bodies(len(rows), body),
                    made.attributes[rows],
                    references=[places[row] for row in rows.tolist()],
                ),
            )


def _chosen(bodies: Callable[[], Sequence[bytes]], rows: Sequence[int]) -> list[bytes]:
    made = bodies()
    return [made[i] for i in rows]


def announcements(made: Made, bucket: str, names: pl.Series, now: datetime) -> Messages:
    """Return the empty messages that announce each alert's Avro file."""
    attributes = made.attributes.select(
        pl.lit(bucket).alias("bucketId"),
        names.alias("filename"),
        pl.lit("OBJECT_FINALIZE").alias("eventType"),
        pl.lit(now.astimezone(UTC).isoformat()).alias("eventTime"),
        pl.lit("NONE").alias("payloadFormat"),
        pl.all(),
    )
    return Messages([_EMPTY] * len(attributes), attributes)


def dead_letters(rejects: Sequence[Reject], now: datetime) -> Messages:
    """Return the messages that keep what could not be used, with the reason."""
    attributes = pl.DataFrame(
        [
            {
                "stage": "decode",
                "error": type(reject.error).__name__,
                "reason": _short(str(reject.error)),
                "place": _short(reject.place),
                "bytes": len(reject.payload),
                "digest": reject.digest,
                "received": now.isoformat(),
            }
            for reject in rejects
        ]
    )
    return Messages([reject.payload[:MAX_REJECT_BYTES] for reject in rejects], attributes)


def _short(text: str) -> str:
    return text.encode()[:MAX_ATTRIBUTE_BYTES].decode(errors="ignore")


def count_verdicts(made: Sequence[Made], filters: Sequence[Filter]) -> dict[str, dict[str, int]]:
    """Count, per filter, the alerts that pass, fail, and of which it cannot tell."""
    return merge_fates(
        *(
            {f"filter {chosen.name}": part.verdicts.counts(chosen.name)}
            for chosen in filters
            for part in made
        )
    )


def merge_fates(
    *fates: Mapping[str, Mapping[str, int]],
) -> dict[str, dict[str, int]]:
    """Add up counts, stage by stage and fate by fate."""
    merged: dict[str, dict[str, int]] = {}
    for one in fates:
        for stage, counts in one.items():
            sums = merged.setdefault(stage, {})
            for fate, count in counts.items():
                sums[fate] = sums.get(fate, 0) + count
    return merged
