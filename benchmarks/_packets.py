"""Packets to measure with: real ones from a folder, or generated; each with an id of its own."""

import io
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import cycle, islice
from pathlib import Path

import fastavro

from broker.connectors.sources.files import FileSource
from broker.errors import UsageError
from broker.surveys import DEFAULT_SURVEY, get_survey, open_alert

NIGHT = date(2026, 1, 1)
_GENERATED = 256


def packets(place: Path | None, limit: int = 2000) -> list[bytes]:
    """Return distinct packets of the default survey that can be decoded.

    Raises
    ------
    UsageError
        If there is none.
    """
    survey = get_survey(DEFAULT_SURVEY)
    if place is None:
        if survey.generate is None:
            raise RuntimeError(f"{survey.name} has no generator")
        return list(survey.generate(_GENERATED, 1, NIGHT))
    batches = FileSource([place]).batches(500, 0)
    payloads = (payload for batch in batches for payload in batch.payloads)
    found = list(islice(_usable(payloads, survey.name), limit))
    if not found:
        raise UsageError(f"{place} holds no packet of {survey.name} that fastavro can read")
    return found


def _usable(payloads: Iterator[bytes], survey: str) -> Iterator[bytes]:
    for payload in payloads:
        try:
            list(fastavro.reader(io.BytesIO(payload)))
            open_alert(payload, survey=survey)
        except Exception:  # noqa: S112 - whatever the rival cannot read is left out
            continue
        yield payload


def renumbered(sample: Sequence[bytes], count: int, start: int = 0) -> Iterator[bytes]:
    """Repeat packets, each copy with a new id written over the old one in place."""
    survey = get_survey(DEFAULT_SURVEY)
    coded = [_zigzag(_source_id(payload, survey.name)) for payload in sample]
    for number, (payload, old) in enumerate(islice(cycle(zip(sample, coded, strict=True)), count)):
        new = _zigzag((1 << (7 * len(old) - 2)) + start + number)
        yield payload.replace(old, new)


def _source_id(payload: bytes, survey: str) -> int:
    return int(open_alert(payload, survey=survey).source_id or 0)


def _zigzag(value: int) -> bytes:
    """Write a long as Avro does."""
    value, coded = value << 1, bytearray()
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*coded, value])
