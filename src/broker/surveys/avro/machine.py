"""Runs the kernel over units, with room that grows as needed."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.surveys.avro.frame import Buffers, Framer, Layout, blobs_of
from broker.surveys.avro.plan import compile_plan
from broker.surveys.avro.shape import Shape
from broker.surveys.avro.units import Part, Units
from broker.surveys.payloads import Payloads

_FIRST_ITEMS = 16.0
"""Items that a packet's lists are expected to have, before there is experience."""

_FIRST_TEXT = 1024.0
"""Bytes of long strings that a packet is expected to have, before there is experience."""

_SPARE = 1.25
"""Room beyond what the batches so far have needed."""

_FORGET = 0.95
"""What is left, after each batch, of the memory of batches that needed more."""


@dataclass(frozen=True)
class _Filled:
    """A batch's buffers after the kernel; `why` is its reason to stop early, 0 if none."""

    buffers: Buffers
    rows: NDArray[np.int64]
    text: int
    why: int
    outcome: NDArray[np.int32]
    owners: NDArray[np.int64]


class Machine:
    """One compiled schema.

    Parameters
    ----------
    shape : Shape
        A record that `plan.is_compilable`.
    columns : collection of str, optional
        Dotted paths to keep; None is all.
    """

    def __init__(self, shape: Shape, columns: Collection[str] | None) -> None:
        self._plan = compile_plan(shape, columns)
        self._layout = Layout(self._plan)
        self._framer = Framer(self._plan)
        self._smallest = np.maximum(np.asarray(self._plan.tables, np.int64), 1)
        self._items = np.full(len(self._smallest), _FIRST_ITEMS)
        self._text = _FIRST_TEXT

    def run(self, units: Units) -> Part:
        """Decode units into a part of the batch's frame."""
        from broker.surveys.avro.words import REASONS, SLOW

        filled = self._fill(units)
        rows = int(filled.rows[0])
        owners = units.owners[filled.owners[:rows]]
        bad = np.flatnonzero(filled.outcome)
        codes = filled.outcome[bad].tolist()
        names = units.owners[bad].tolist()
        return Part(
            self._framer.frame(filled.buffers, filled.rows),
            owners,
            blobs_of(self._plan, filled.buffers, rows),
            {name: REASONS[code] for name, code in zip(names, codes, strict=True) if code != SLOW},
            tuple(name for name, code in zip(names, codes, strict=True) if code == SLOW),
        )

    def _fill(self, units: Units) -> _Filled:
        places, keep = _places(units)
        size = int(units.ends.sum())
        most = size // self._smallest + 1
        most[0] = _root_rows(units)
        room = np.minimum(np.ceil(self._items * len(places) * _SPARE) + 64, most).astype(np.int64)
        room[0] = most[0]
        text = min(self._text * len(places) * _SPARE + 1024, 2 * size + 64)
        while True:
            filled = self._attempt(places, room, int(text))
            if not filled.why:
                self._learn(filled, len(places))
                del keep
                return filled
            room = np.minimum(2 * room, most)
            text = min(2 * text, 2 * size + 64)

    def _attempt(self, places: NDArray[np.int64], room: NDArray[np.int64], text: int) -> _Filled:
        from broker.surveys.avro.kernel import run

        buffers = self._layout.allocate(room, text)
        tables = np.zeros((3, len(room)), np.int64)
        tables[1] = room
        used = np.zeros(2, np.int64)
        outcome = np.zeros(len(places), np.int32)
        owners = np.empty(int(room[0]), np.int64)
        stack = np.zeros((len(room) + 1, 3), np.int64)
        memory = buffers.memory
        run(
            places, buffers.ops, memory, memory.view(np.int32), memory.view(np.int64),
            buffers.text, tables, used, buffers.bit_columns, outcome, owners, stack,
        )  # fmt: skip
        return _Filled(buffers, tables[0], int(used[0]), int(used[1]), outcome, owners)

    def _learn(self, filled: _Filled, units: int) -> None:
        if units:
            self._items = np.maximum(self._items * _FORGET, filled.rows / units)
            self._text = max(self._text * _FORGET, filled.text / units)


def _root_rows(units: Units) -> int:
    """Bound the records by what the units promise and what their bytes could hold."""
    promised = np.where(units.counts < 0, 1, units.counts)
    return int(np.minimum(promised, units.ends - units.starts + 1).clip(0).sum()) + 1


def _places(units: Units) -> tuple[NDArray[np.int64], Payloads]:
    """Return address, size, start and count of each unit, and what keeps the addresses valid."""
    data = Payloads.of(units.data)
    return np.column_stack((data.addresses, units.ends, units.starts, units.counts)), data
