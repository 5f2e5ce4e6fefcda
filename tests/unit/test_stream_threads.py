"""Threads that read the same topic at once."""

import threading
from pathlib import Path

import numpy as np
import polars as pl

from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.segment import Partition, SegmentWriter
from broker.ports import Messages

_THREADS = 8


def _at_once(act) -> None:
    barrier = threading.Barrier(_THREADS)

    def run() -> None:
        barrier.wait()
        act()

    threads = [threading.Thread(target=run) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_prefixes_are_read_once(tmp_path: Path) -> None:
    """Each payload gets the prefix that it was written with."""
    writer = SegmentWriter(tmp_path / "w0", sync=False)
    prefixes = [b"prefix %d " % number for number in range(60)]
    for number, prefix in enumerate(prefixes):
        index = np.zeros(1, dtype=np.int32)
        writer.append(number, Messages([prefix + b"x"], pl.DataFrame(), [prefix], index))
    writer.close()
    wrong: list[bytes] = []

    for _ in range(20):
        reader = Partition(tmp_path / "w0")

        def read(reader: Partition = reader) -> None:
            for frame in reader.frames():
                [payload] = reader.payloads(frame, [0])
                if payload != prefixes[frame.number] + b"x":
                    wrong.append(payload)

        _at_once(read)

    assert wrong == []


def test_a_topic_has_one_log(tmp_path: Path) -> None:
    """However many ask for it first."""
    stream = LocalStream(tmp_path, "w0")
    for number in range(50):
        found: list[object] = []
        _at_once(lambda found=found, number=number: found.append(stream.log(f"t{number}")))
        assert len({id(log) for log in found}) == 1
    stream.close()
