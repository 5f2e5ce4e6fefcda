"""The durable log: prefixes, rolling, torn tails, damage, full disks."""

import os
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.connectors.streams.segment import Partition, SegmentLog, SegmentWriter
from broker.errors import NotFoundError, ServiceError, TransientError, UsageError
from broker.ports import BatchKey, Messages
from broker.testing.full_disk import file_size_limit
from broker.testing.stream_contract import batch


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a worker's folder with batches 0, 1 and 2 in one segment."""
    writer = SegmentWriter(tmp_path / "w0")
    for number in range(3):
        writer.append(number, batch(number))
    writer.close()
    return tmp_path / "w0"


def numbers(folder: Path) -> list[int]:
    """Return the numbers of the batches in a worker's folder."""
    return [frame.number for frame in Partition(folder).frames()]


def segment(folder: Path) -> Path:
    """Return the only segment."""
    (path,) = folder.glob("*.seg")
    return path


def test_prefix_is_stored_once(tmp_path: Path) -> None:
    """A header that all payloads share costs its bytes once a file."""
    header = bytes(range(256)) * 90
    messages = Messages(
        [header + b"body"] * 50, pl.DataFrame(), [header], np.zeros(50, dtype=np.int32)
    )
    writer = SegmentWriter(tmp_path / "w0")
    for number in range(5):
        writer.append(number, messages)
    writer.close()

    assert len(header) < segment(tmp_path / "w0").stat().st_size < 1.4 * len(header)


def test_prefixes_after_reopening(tmp_path: Path) -> None:
    """A writer that goes on with a file knows the prefixes in it."""
    sizes = []
    for number in range(3):
        writer = SegmentWriter(tmp_path / "w0")
        writer.append(number, batch(number))
        writer.close()
        sizes.append(segment(tmp_path / "w0").stat().st_size)

    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] < sizes[0] - 500
    found = SegmentLog(tmp_path, "r").read(BatchKey("w0", 2))
    assert found is not None
    assert list(batch(2).payloads) == list(found.payloads)


def test_prefix_that_does_not_fit(tmp_path: Path) -> None:
    """A payload that lacks its prefix is refused rather than changed."""
    messages = Messages([b"abc"], pl.DataFrame(), [b"x"], np.zeros(1, dtype=np.int32))

    with pytest.raises(UsageError, match="payload 0"):
        SegmentWriter(tmp_path / "w0").append(0, messages)


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(-1, 2), st.binary(max_size=40)), max_size=5), max_size=5
    )
)
@settings(max_examples=30, deadline=None)
def test_any_payloads_come_back(
    batches: list[list[tuple[int, bytes]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the payloads and prefixes, the bytes come back."""
    log = SegmentLog(tmp_path_factory.mktemp("log"), "w0", sync=False, segment_bytes=200)
    prefixes = [b"", b"header one", b"header two"]
    sent = [
        [(b"" if which < 0 else prefixes[which]) + tail for which, tail in items]
        for items in batches
    ]
    for number, (items, payloads) in enumerate(zip(batches, sent, strict=True)):
        index = np.array([which for which, _ in items], dtype=np.int32)
        log.append(BatchKey("w0", number), Messages(payloads, pl.DataFrame(), prefixes, index))

    read = list(map(log.read, log.keys()))
    assert sent == [list(found.payloads) for found in read if found]
    log.close()


LARGE = (0, 4095, 4096, 262_143, 262_144, 300_001, 2_097_152, 2_097_153, 5_000_000)
"""Bytes of payloads around those at which the way to the disk changes."""


@pytest.fixture(params=[True, False], ids=["past the cache", "through the cache"])
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with and without a system that can write past its cache."""
    if not request.param:
        monkeypatch.delattr(os, "O_DIRECT", raising=False)


@pytest.mark.usefixtures("direct")
def test_large_batches_come_back(tmp_path: Path) -> None:
    """Large batches at any place of the file are whole, and so are the small ones between."""
    log, random = SegmentLog(tmp_path, "w0"), Random(1)
    sent = [[random.randbytes(size), b"small", random.randbytes(size // 3)] for size in LARGE]
    for number, payloads in enumerate(sent):
        log.append(BatchKey("w0", number), Messages(payloads, pl.DataFrame()))

    assert sent == [list(found.payloads) for found in map(log.read, log.keys()) if found]
    log.close()


@pytest.mark.usefixtures("direct")
def test_full_disk_in_a_large_batch(tmp_path: Path) -> None:
    """A large batch that finds no room leaves the log as it was, and can be appended later."""
    writer, large = SegmentWriter(tmp_path / "w0"), Messages([bytes(5_000_000)], pl.DataFrame())
    writer.append(0, batch(0))
    size = segment(tmp_path / "w0").stat().st_size
    with file_size_limit(size + 3_000_001), pytest.raises(TransientError, match="disk full"):
        writer.append(1, large)
    assert size == segment(tmp_path / "w0").stat().st_size

    writer.append(1, large)
    writer.close()
    assert numbers(tmp_path / "w0") == [0, 1]


def test_one_message(tmp_path: Path) -> None:
    """A single payload can be read by batch and row."""
    log = SegmentLog(tmp_path, "w0", segment_bytes=1)
    for number in range(0, 20, 2):
        log.append(BatchKey("w0", number), batch(number))

    assert batch(8).payloads[2] == log.message(BatchKey("w0", 8), 2)
    for number, row in ((9, 0), (8, 3), (8, -1)):
        with pytest.raises(NotFoundError, match="no message"):
            log.message(BatchKey("w0", number), row)
    log.close()


def test_rolls_to_new_segments(tmp_path: Path) -> None:
    """A file that is large enough gets a successor, named by its first batch."""
    writer = SegmentWriter(tmp_path / "w0", segment_bytes=1500)
    for number in range(10, 16):
        writer.append(number, batch(number))
    writer.close()

    files = sorted(path.name for path in (tmp_path / "w0").glob("*.seg"))
    assert files[0] == "0000000010.seg"
    assert len(files) > 1
    assert list(range(10, 16)) == numbers(tmp_path / "w0")
    assert [it.number for it in Partition(tmp_path / "w0").frames(14)] == [14, 15]


def test_every_torn_tail_is_the_end(written: Path) -> None:
    """Cut anywhere in the last batch, the ones before are there and it is not."""
    path = segment(written)
    whole = path.read_bytes()
    end = list(Partition(written).frames())[1].end
    for size in range(end, len(whole), 7):
        path.write_bytes(whole[:size])
        assert numbers(written) == [0, 1]


def test_writer_cuts_torn_tail(written: Path) -> None:
    """After a crash the writer goes on behind the last whole batch."""
    path = segment(written)
    path.write_bytes(path.read_bytes()[:-5])

    writer = SegmentWriter(written)
    assert writer.last == 1
    writer.append(2, batch(2))
    writer.close()
    assert numbers(written) == [0, 1, 2]


def test_writer_cuts_tail_of_wrong_bytes(written: Path) -> None:
    """A last batch whose length is right but whose bytes never reached the disk is cut off."""
    path = segment(written)
    content = bytearray(path.read_bytes())
    content[-40:] = bytes(40)
    path.write_bytes(content)

    writer = SegmentWriter(written)
    assert writer.last == 1
    writer.close()


def test_foreign_bytes_are_kept_aside(written: Path) -> None:
    """What is no torn batch is not thrown away."""
    path = segment(written)
    path.write_bytes(path.read_bytes() + b"?" * 100)

    SegmentWriter(written).close()
    assert path.with_suffix(".damaged").read_bytes() == b"?" * 100
    assert numbers(written) == [0, 1, 2]


def test_damage_is_told(written: Path) -> None:
    """A batch whose bytes changed is not handed out as if it were whole."""
    path = segment(written)
    content = bytearray(path.read_bytes())
    first = next(Partition(written).frames())
    content[first.tails_at + 3] ^= 1
    path.write_bytes(content)

    with pytest.raises(ServiceError, match="checksum"):
        Partition(written).read(first)


def test_file_that_went_away(written: Path) -> None:
    """A reader of a file that someone deleted says so."""
    reader = Partition(written)
    first = next(reader.frames())
    segment(written).unlink()

    with pytest.raises(ServiceError, match="No such file"):
        reader.read(first)


def test_reader_follows_writer(tmp_path: Path) -> None:
    """A reader sees a batch as soon as it was appended."""
    writer, reader = SegmentWriter(tmp_path / "w0"), Partition(tmp_path / "w0")
    seen = []
    for number in range(3):
        writer.append(number, batch(number))
        seen.append([frame.number for frame in reader.frames()])
    writer.close()

    assert seen == [[0], [0, 1], [0, 1, 2]]


def test_second_writer_is_refused(tmp_path: Path) -> None:
    """Two workers of one name cannot write to one folder."""
    writer = SegmentWriter(tmp_path / "w0")
    with pytest.raises(UsageError, match="already running"):
        SegmentWriter(tmp_path / "w0")
    writer.close()
    SegmentWriter(tmp_path / "w0").close()


def test_full_disk(tmp_path: Path) -> None:
    """A batch that finds no room leaves the log as it was, and can be appended later."""
    writer = SegmentWriter(tmp_path / "w0")
    writer.append(0, batch(0))
    size = segment(tmp_path / "w0").stat().st_size
    with file_size_limit(size + 100), pytest.raises(TransientError, match="disk full"):
        writer.append(1, batch(1, 200))
    assert size == segment(tmp_path / "w0").stat().st_size

    writer.append(1, batch(1))
    writer.close()
    assert numbers(tmp_path / "w0") == [0, 1]


def test_place_that_is_a_file(tmp_path: Path) -> None:
    """A place that cannot be a folder is refused in words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be used"):
        SegmentWriter(tmp_path / "file" / "w0")


def test_key_of_another_worker(tmp_path: Path) -> None:
    """A worker appends its own batches only."""
    with pytest.raises(UsageError, match="another worker"):
        SegmentLog(tmp_path, "w0").append(BatchKey("w1", 0), batch(0))
