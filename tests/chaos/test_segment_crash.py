"""The durable log survives kill -9 at any moment."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.connectors.streams.segment import SegmentLog
from broker.ports import BatchKey
from broker.testing.stream_contract import batch

_APPEND_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
from broker.connectors.streams.segment import SegmentLog
from broker.ports import BatchKey
from broker.testing.stream_contract import batch

log = SegmentLog(Path(sys.argv[1]), "w0", sync=False, segment_bytes=500 * int(sys.argv[2]))
last = log.last()
for number in count(last.number + 1 if last else 0):
    log.append(BatchKey("w0", number), batch(number, int(sys.argv[2])))
    print(number, flush=True)
"""


def _append_until_killed(folder: Path, messages: int, after_s: float) -> int:
    """Append in another process, kill it, and return the last number that it told."""
    with subprocess.Popen(
        [sys.executable, "-c", _APPEND_FOR_EVER, str(folder), str(messages)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        told = [first, *process.stdout]
    return max(int(line) for line in told if line.endswith("\n"))


@pytest.mark.parametrize("messages", [20, 12_000], ids=["small batches", "large batches"])
def test_killed_writer_loses_nothing(tmp_path: Path, messages: int) -> None:
    """All that was appended before each of ten kills reads back byte for byte, in a row."""
    moments = random.Random(1)
    told = -1
    for _ in range(10):
        last = _append_until_killed(tmp_path, messages, moments.uniform(0.001, 0.05))
        assert last > told
        told = last

    log = SegmentLog(tmp_path, "w0")
    keys = list(log.keys())
    assert [BatchKey("w0", number) for number in range(len(keys))] == keys
    assert len(keys) >= told + 1
    for key in keys:
        found = log.read(key)
        assert found is not None
        assert list(batch(key.number, messages).payloads) == list(found.payloads)
