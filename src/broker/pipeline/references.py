"""Messages that are made from packets in the journal when they are read.

A laptop's topics keep, instead of the JSON of every alert that passes a filter, a few bytes
that say where its packet lies. On a cloud or a cluster, where the packets are elsewhere, the
JSON itself is sent.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

from broker.alerts.convert import to_json_bytes
from broker.errors import NotFoundError
from broker.pipeline.archive import PacketReader
from broker.ports import BatchKey
from broker.surveys import SchemaResolver, Survey, decode_batch, get_survey

_SEPARATOR = "/"


class Bodies(Sequence[bytes]):
    """Payloads that are made when one of them is first looked at.

    Parameters
    ----------
    size : int
        How many there are.
    make : callable
        Makes all of them.
    """

    def __init__(self, size: int, make: Callable[[], Sequence[bytes]]) -> None:
        self._size = size
        self._make = make

    @cached_property
    def _made(self) -> Sequence[bytes]:
        return self._make()

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self._made[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._made)


@dataclass(frozen=True, slots=True)
class PacketBodies:
    """Makes JSON bodies from references.

    Parameters
    ----------
    packets_of : callable
        Returns the reader of a topic of packets.
    resolver : SchemaResolver, optional
        Finds the schemas of numbered packets.
    """

    packets_of: Callable[[str], PacketReader]
    resolver: SchemaResolver | None = None

    def __call__(self, references: Sequence[bytes]) -> list[bytes]:
        """Return the JSON body of each reference, in order."""
        bodies = [b""] * len(references)
        payloads: dict[str, dict[int, bytes]] = {}
        for position, reference in enumerate(references):
            survey, topic, worker, number, row = reference.decode().split(_SEPARATOR)
            packet = self.packets_of(topic).message(BatchKey(worker, int(number)), int(row))
            payloads.setdefault(survey, {})[position] = packet
        for name, found in payloads.items():
            for position, body in _bodies(get_survey(name), found, self.resolver):
                bodies[position] = body
        return bodies


def _bodies(
    survey: Survey, packets: dict[int, bytes], resolver: SchemaResolver | None
) -> Iterator[tuple[int, bytes]]:
    positions = list(packets)
    frames, errors = decode_batch(list(packets.values()), survey, resolver=resolver)
    if errors:
        raise NotFoundError(f"a stored packet cannot be read: {next(iter(errors.values()))}")
    for frame in frames:
        rows = to_json_bytes(survey.alerts_rows(frame))
        yield from zip((positions[i] for i in frame.index.tolist()), rows, strict=True)


def references(survey: str, topic: str, key: BatchKey, rows: Sequence[int]) -> list[bytes]:
    """Return references to packets by their rows of a batch."""
    stem = _SEPARATOR.join((survey, topic, key.worker, str(key.number), "")).encode()
    return [stem + str(row).encode() for row in rows]
