"""How long alerts took: from arrival to row, to each topic, and to fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from broker.connectors.streams.segment import SegmentLog
from broker.pipeline import fitting
from broker.wiring import Broker

ROWS = "rows"
"""Name of the time when all rows of an alert's batch are written and flushed."""

SENT = "when its sender stamped it"
TAKEN = "when the broker took up its batch, where the source tells no times (as files do)"

_STAMP = "kafka.timestamp"
_ELSEWHERE = "its messages are on {}, which this page does not read"
_NOTHING = "nothing was published there for these alerts"
_NO_FITS = "no light curve of these alerts was fitted"

_EVENTS = {
    "worker": pl.String,
    "number": pl.Int64,
    "source": pl.String,
    "stamp": pl.Float64,
    "published": pl.Float64,
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the arrival of alerts to each place.

    Attributes
    ----------
    seconds : mapping
        Place to ``alerts`` (how many), and ``p50``, ``p99`` and ``max`` in seconds.
    not_measured : mapping
        Place to the reason why there is no time.
    since : str
        What counts as arrival.
    """

    seconds: Mapping[str, Mapping[str, float]]
    not_measured: Mapping[str, str]
    since: str

    def summary(self) -> dict[str, Any]:
        """Return it as parts of one JSON object."""
        return {
            "latency_s": self.seconds,
            "latency_since": self.since,
            "latency_not_measured": self.not_measured,
        }


def measure(broker: Broker, source_ids: pl.Series) -> Latency:
    """Measure how long some alerts took.

    Parameters
    ----------
    broker : Broker
        The instance.
    source_ids : polars.Series of int64
        Ids of the alerts.
    """
    own, batches = broker.instance, _batches(broker)
    alerts, fits = own.name("alerts"), own.name(fitting.NAME)
    topics = dict.fromkeys(own.name(chosen.topic) for chosen in broker.filters)
    events = {topic: _events(broker, topic, source_ids) for topic in (alerts, *topics, fits)}
    timed = {topic: _timed(found, batches) for topic, found in events.items()}
    delays = {ROWS: timed[alerts]["closed"] - timed[alerts]["arrival"]}
    delays |= {
        f"topic {topic}": found["published"] - found["arrival"] for topic, found in timed.items()
    }
    known = {place: delay.drop_nulls() for place, delay in delays.items()}
    return Latency(
        {place: _quantiles(delay) for place, delay in known.items() if len(delay)},
        {place: _reason(broker, place) for place, delay in known.items() if not len(delay)},
        TAKEN if events[alerts]["stamp"].has_nulls() else SENT,
    )


def _batches(broker: Broker) -> pl.DataFrame:
    """Return when each batch was taken up and closed, in seconds since 1970."""
    schema = {"worker": pl.String, "number": pl.Int64, "opened": pl.String, "closed": pl.String}
    return _in_seconds(pl.DataFrame(broker.ledger.times(), schema=schema, orient="row"))


def _in_seconds(batches: pl.DataFrame) -> pl.DataFrame:
    times = pl.col("opened", "closed").str.to_datetime(time_unit="us", time_zone="UTC")
    return batches.with_columns(times.dt.epoch("us") / 1e6)


def _events(broker: Broker, topic: str, source_ids: pl.Series) -> pl.DataFrame:
    """Return when messages of some alerts were published on a topic of the home."""
    name = broker.survey.id_attributes[1]
    found = [pl.DataFrame(schema=_EVENTS), *_messages(broker.stream.log(topic), name)]
    wanted = source_ids.cast(pl.String).implode()
    return pl.concat(found).filter(pl.col("source").is_in(wanted)).unique("source", keep="first")


def _messages(log: SegmentLog, name: str) -> list[pl.DataFrame]:
    return [
        partition.attributes(frame).select(
            pl.lit(worker).alias("worker"),
            pl.lit(frame.number, pl.Int64).alias("number"),
            pl.col(name).cast(pl.String).alias("source"),
            (pl.col(_STAMP).cast(pl.Float64) / 1e3).alias("stamp"),
            pl.lit(frame.published_us / 1e6).alias("published"),
        )
        for worker, partition in log.partitions().items()
        for frame in partition.frames()
        if frame.count
    ]


def _timed(events: pl.DataFrame, batches: pl.DataFrame) -> pl.DataFrame:
    joined = events.join(batches, on=("worker", "number"), how="left")
    return joined.with_columns(arrival=pl.coalesce("stamp", "opened"))


def _quantiles(delay: pl.Series) -> dict[str, float]:
    values = {"p50": delay.quantile(0.5), "p99": delay.quantile(0.99), "max": delay.max()}
    return {"alerts": len(delay), **{name: float(value) for name, value in values.items()}}  # type: ignore[arg-type]


def _reason(broker: Broker, place: str) -> str:
    if broker.settings.bus and place != ROWS:
        return _ELSEWHERE.format(broker.settings.bus)
    return _NO_FITS if place.endswith(broker.instance.name(fitting.NAME)) else _NOTHING
