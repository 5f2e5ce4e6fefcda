"""Packets into columns, against readers that make a dict of each packet."""

import importlib.util
import io
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import fastavro
import fastavro.utils
import numpy as np

from broker.apps.benchmarks._packets import packets
from broker.surveys import DEFAULT_SURVEY, SURVEYS, SchemaResolver
from broker.surveys.avro import AvroSchema, ColumnDecoder, decode_record, read_header
from broker.surveys.envelope import FRAME_BYTES, schema_id
from broker.surveys.routing import numbered_schema

BATCH = 500
"""Packets of a batch, each in memory of its own."""

_RIVAL_PACKETS = 60
"""Packets that a rival reads in a round: slow as it is, they are measured well."""


@dataclass(frozen=True)
class _Case:
    """What we do with a batch of one kind of packets, and a rival with one of them."""

    payloads: Sequence[bytes]
    ours: Callable[[], Any]
    rivals: dict[str, Callable[[bytes], Any]]


def run(place: Path | None = None, rounds: int = 15) -> dict[str, Any]:
    """Measure; times are CPU time of the process, all threads, per packet.

    Parameters
    ----------
    place : Path, optional
        Folder of real packets; generated ones by default.
    rounds : int
        Rounds in which we and the rivals take turns; medians are reported.
    """
    containers = _containers(packets(place))
    figures: dict[str, float] = {}
    ratios = _measure("columns", containers, rounds, figures)
    found = _real_framed(place) if place else _made_framed()
    if found:
        name = f"columns_{Counter(one[0] for one in found).most_common(1)[0][0]}"
        ratios |= _measure(name, _framed(found), rounds, figures)
    figures["columns_per_s_per_core"] = 1e6 / figures["columns_us"]
    return {"ratios": ratios, "figures": figures}


def _measure(name: str, case: _Case, rounds: int, figures: dict[str, float]) -> dict[str, float]:
    """Take turns; return ratios, and note the medians of the times."""
    case.ours()
    case.ours()
    ours: list[float] = []
    rivals: dict[str, list[float]] = {rival: [] for rival in case.rivals}
    sample = case.payloads[:_RIVAL_PACKETS]
    for _ in range(rounds):
        ours.append(_cpu_us(case.ours, len(case.payloads)))
        for rival, read in case.rivals.items():
            rivals[rival].append(_cpu_us(lambda read=read: [read(p) for p in sample], len(sample)))
    figures[f"{name}_us"] = median(ours)
    figures |= {f"{name}_{rival}_us": median(times) for rival, times in rivals.items()}
    return {
        f"{name}_vs_{rival}": median(t / o for t, o in zip(times, ours, strict=True))
        for rival, times in rivals.items()
    }


def _cpu_us(work: Callable[[], Any], count: int) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) / count * 1e6


def _copies(payloads: Sequence[bytes]) -> list[bytes]:
    """Repeat packets up to a batch; no two share memory, as none do that come from outside."""
    return [bytes(bytearray(payload)) for payload in islice(cycle(payloads), BATCH)]


def _containers(payloads: Sequence[bytes]) -> _Case:
    """Containers of the commonest header; recognising it is part of our work."""
    prefix = Counter(read_header(one).prefix for one in payloads).most_common(1)[0][0]
    batch = _copies([one for one in payloads if one.startswith(prefix)])
    decoder = ColumnDecoder(read_header(batch[0]).schema)
    starts = np.full(BATCH, len(prefix))

    def ours() -> Any:
        if not all(payload.startswith(prefix) for payload in batch):
            raise RuntimeError("the headers differ")
        return decoder.decode(batch, starts, "container").frame

    return _Case(batch, ours, {"fastavro": _read_container} | _pittgoogle())


def _read_container(payload: bytes) -> Any:
    return next(fastavro.reader(io.BytesIO(payload)))


def _pittgoogle() -> dict[str, Callable[[bytes], Any]]:
    """Return the client's way to a dict, where the client is installed."""
    if importlib.util.find_spec("pittgoogle") is None:
        return {}
    import pittgoogle
    from google.cloud import pubsub_v1

    def read(payload: bytes) -> Any:
        message = pubsub_v1.types.PubsubMessage(data=payload)
        return pittgoogle.Alert.from_msg(message, schema_name=DEFAULT_SURVEY).dict

    return {"pittgoogle_dict": read}


def _framed(found: Sequence[tuple[str, AvroSchema, bytes]]) -> _Case:
    """Packets behind a frame that numbers their schema, the commonest one."""
    schema = Counter(schema for _, schema, _ in found).most_common(1)[0][0]
    batch = _copies([payload for _, one, payload in found if one == schema])
    decoder, starts = ColumnDecoder(schema), np.full(BATCH, FRAME_BYTES)

    def read(payload: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(payload[FRAME_BYTES:]), schema.fastavro)

    return _Case(batch, lambda: decoder.decode(batch, starts).frame, {"fastavro_schemaless": read})


def _real_framed(place: Path) -> list[tuple[str, AvroSchema, bytes]]:
    """Find packets with histories."""
    found, resolver = [], SchemaResolver()
    for path in sorted(place.rglob("*.bin")):
        payload = path.read_bytes()
        try:
            survey, schema = numbered_schema(schema_id(payload), None, resolver)
            record = decode_record(schema, payload[FRAME_BYTES:])
        except Exception:  # noqa: S112 - files of other kinds lie beside them
            continue
        if any(isinstance(value, list) and value for value in record.values()):
            found.append((survey.name, schema, payload))
    return found


def _made_framed() -> list[tuple[str, AvroSchema, bytes]]:
    """Fill a schema at random, with some items in every list."""
    framed = (one for one in SURVEYS.values() if one.wire == "confluent")
    survey = max(framed, key=lambda one: len(one.schemas.versions))
    schema = survey.schemas.get(survey.schemas.versions[-1])
    if schema is None:
        return []
    found = []
    for _ in range(20):
        out = io.BytesIO(bytes(FRAME_BYTES))
        out.seek(FRAME_BYTES)
        fastavro.schemaless_writer(
            out, schema.fastavro, fastavro.utils.generate_one(schema.fastavro)
        )
        found.append((survey.name, schema, out.getvalue()))
    good = (
        ColumnDecoder(schema)
        .decode([payload for *_, payload in found], np.full(20, FRAME_BYTES))
        .rows
    )
    return [found[place] for place in good.tolist()]
