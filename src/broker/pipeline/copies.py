"""Copies of packets outside the home: a file of each alert, and messages on a bus."""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import polars as pl

from broker.errors import ConfigError
from broker.pipeline import products
from broker.pipeline.products import Made
from broker.ports import BatchKey, Files, Messages, Stream

STAGE = "alert files"
"""Name in the ledger of the stage that stores a file of each alert."""

_UPLOADS = 32
"""Files stored at the same time; a cloud answers after some 50 ms, whatever the size."""

NO_TOPIC = "no_topic"
"""Folder of the files of alerts that came without the name of a Kafka topic."""

PLACEHOLDERS = (
    *("topic", "timestamp", "date", "version"),
    *("object_key", "object_id", "source_key", "source_id"),
)
"""What the name of an alert's file may be made of."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Copies:
    """Where packets go besides the journal.

    Parameters
    ----------
    files : Files, optional
        Gets one object an alert.
    bus : Stream, optional
        Gets packets and dead letters as messages.
    """

    files: Files | None = None
    bus: Stream | None = None

    def __bool__(self) -> bool:
        return self.files is not None or self.bus is not None

    def store(self, bucket: str, made: Sequence[Made], layout: str) -> dict[str, dict[str, int]]:
        """Store a file of each alert unless it is there; count both.

        A file that is there already stops nothing: that it was stored and that its messages
        were sent are recorded apart, so that a crash between the two loses neither.
        """
        if self.files is None or not made:
            return {}
        jobs = (job for part in made for job in _jobs(part, layout))
        with ThreadPoolExecutor(_UPLOADS, "store") as pool:
            create = self.files.create
            fates = list(pool.map(lambda job: create(bucket, *job), jobs))
        return {STAGE: {"stored": sum(fates), "there already": len(fates) - sum(fates)}}

    def send(self, topic: str, made: Sequence[Made], key: BatchKey) -> None:
        """Publish packets as sent."""
        if self.bus is not None and made:
            self.bus.publish(topic, products.join([products.packets(part) for part in made]), key)

    def send_letters(self, topic: str, letters: Messages | None, key: BatchKey) -> None:
        """Publish dead letters."""
        if self.bus is not None and letters is not None:
            self.bus.publish(topic, letters, key)


def _jobs(made: Made, layout: str) -> Iterator[tuple[str, bytes, Mapping[str, str]]]:
    """Yield name, bytes and metadata of each alert's file."""
    keys, (object_key, source_key) = made.alerts.frame.keys, _id_names(made)
    origins = made.alerts.origins
    told = pl.DataFrame(
        {
            "file_origin_message_id": origins.get_column("message_id", default=origins["place"]),
            object_key: keys["object_id"],
            source_key: keys["source_id"],
            "ra": keys["ra"],
            "dec": keys["dec"],
        }
    )
    names = file_names(made, layout)
    for name, payload, row in zip(
        names, made.alerts.payloads, told.iter_rows(named=True), strict=True
    ):
        yield name, bytes(payload), _texts(row)


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: str(value) for name, value in row.items() if value is not None}
    return texts | {"contentType": "application/avro"}


def _id_names(made: Made) -> tuple[str, str]:
    return made.alerts.frame.survey.id_attributes


def file_names(made: Made, layout: str = "") -> pl.Series:
    """Name each alert's Avro file.

    Parameters
    ----------
    made : Made
        Alerts of one schema.
    layout : str
        Text with placeholders; by default the survey's own layout. There are ``topic``,
        ``timestamp`` [ms since 1970], ``date`` (UTC), ``version``, ``object_key``,
        ``object_id``, ``source_key`` and ``source_id``.
    """
    survey, attributes = made.alerts.frame.survey, made.attributes
    objects = {spot.attribute: None for spot in survey.schema_map.locations("objectid")}
    used = tuple(name for name in objects if name in attributes.columns)
    name = _name_expression(layout or survey.file_layout, survey.id_attributes, used)
    keys = made.alerts.frame.keys
    rows = attributes.hstack([keys["object_id"], keys["source_id"]])
    return rows.select(name.alias("filename")).to_series()


def check_layout(layout: str) -> str:
    """Return a layout of file names whose placeholders all exist.

    Raises
    ------
    ConfigError
        If one is unknown, or names could be the same for two alerts.
    """
    used = set(_PLACEHOLDER.findall(layout))
    if unknown := sorted(used - set(PLACEHOLDERS)):
        raise ConfigError(
            f"setting 'alert_file_name' has no {unknown[0]!r}; there are {', '.join(PLACEHOLDERS)}"
        )
    if layout and not used & {"source_id", "timestamp"}:
        raise ConfigError("setting 'alert_file_name' must hold {source_id} or {timestamp}")
    return layout


@lru_cache(maxsize=64)
def _name_expression(
    layout: str, id_attributes: tuple[str, str], objects: tuple[str, ...]
) -> pl.Expr:
    """Return the name over attributes and keys; `objects` are the attributes with object ids."""
    sent = pl.col("kafka.timestamp").cast(pl.Int64)
    arrived = pl.from_epoch(sent, time_unit="ms").dt.strftime("%Y-%m-%d")
    object_word, source_word = map(_last_word, id_attributes)
    named = [pl.when(pl.col(it).is_not_null()).then(pl.lit(_last_word(it))) for it in objects]
    known = {
        "topic": pl.col("kafka.topic").replace("", None).fill_null(NO_TOPIC),
        "timestamp": sent.cast(pl.String).fill_null("no_timestamp"),
        "date": arrived.fill_null("no_date"),
        "version": pl.col("schema_version"),
        "object_key": pl.coalesce(*named, pl.lit(object_word)),
        "object_id": pl.col("object_id").cast(pl.String),
        "source_key": pl.lit(source_word),
        "source_id": pl.col("source_id").cast(pl.String),
    }
    pieces = _PLACEHOLDER.split(layout)
    return pl.concat_str(
        [known[piece] if at % 2 else pl.lit(piece) for at, piece in enumerate(pieces)]
    )


def _last_word(attribute: str) -> str:
    return attribute.rsplit("_", 1)[-1]
