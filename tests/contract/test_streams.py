"""Every stream of ours keeps the contract."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from broker.connectors.streams.local import LocalStream
from broker.connectors.streams.memory import MemoryStream
from broker.connectors.streams.segment import SegmentLog
from broker.errors import BrokerError
from broker.ports import BatchKey, Messages, Stream
from broker.testing.full_disk import file_size_limit
from broker.testing.stream_contract import (
    Clock,
    FailingStream,
    JournalContract,
    StreamContract,
    batch,
)


class _FullDisk:
    """A local stream whose first publication meets a limit on the size of files."""

    def __init__(self, stream: LocalStream) -> None:
        self._stream = stream
        self._limits = [500]

    def publish(self, topic: str, messages: Messages, key: BatchKey) -> None:
        with file_size_limit(self._limits.pop()) if self._limits else nullcontext():
            self._stream.publish(topic, messages, key)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class TestLocalStream(StreamContract):
    @pytest.fixture
    def stream(self, tmp_path: Path, clock: Clock) -> Iterator[Stream]:
        """Return the stream under test."""
        stream = LocalStream(tmp_path, "w0", clock)
        yield stream
        stream.close()

    @pytest.fixture
    def failing(self, stream: LocalStream) -> FailingStream:
        """Return the failing under test."""
        return lambda error: _FullDisk(stream)

    def test_another_process_goes_on(
        self, stream: LocalStream, tmp_path: Path, clock: Clock
    ) -> None:
        """Cursors and leases are shared by all who open the folder."""
        stream.publish("t", batch(0), BatchKey("w0", 0))
        stream.subscribe("t", "s")
        stream.pull("s", 2)

        other = LocalStream(tmp_path, "reader", clock)
        assert list(batch(0).payloads)[2:] == [it.payload for it in other.pull("s", 10)]
        other.close()

    def test_workers_share_a_topic(self, stream: LocalStream, tmp_path: Path) -> None:
        """A subscription gets the messages of every worker."""
        other = LocalStream(tmp_path, "w1")
        stream.publish("t", batch(0, 5), BatchKey("w0", 0))
        other.publish("t", batch(0, 5, worker="w1"), BatchKey("w1", 0))
        stream.subscribe("t", "s")

        expected = [*batch(0, 5).payloads, *batch(0, 5, worker="w1").payloads]
        assert sorted(expected) == sorted(it.payload for it in stream.pull("s", 10))
        other.close()

    def test_busy_worker_does_not_starve_others(self, stream: LocalStream, tmp_path: Path) -> None:
        """A pull takes a share from every worker."""
        other = LocalStream(tmp_path, "w1")
        stream.publish("t", batch(0, 50), BatchKey("w0", 0))
        other.publish("t", batch(0, 5, worker="w1"), BatchKey("w1", 0))
        stream.subscribe("t", "s")

        workers = {it.message_id.split("-")[0] for it in stream.pull("s", 4)}
        assert workers == {"w0", "w1"}
        other.close()

    def test_log_is_the_topic(self, stream: LocalStream) -> None:
        """What the journal of a topic got is published."""
        stream.log("t").append(BatchKey("w0", 0), batch(0))
        stream.subscribe("t", "s")

        assert len(stream.pull("s", 10)) == 3


class TestMemoryStream(StreamContract):
    @pytest.fixture
    def stream(self, clock: Clock) -> Stream:
        """Return the stream under test."""
        return MemoryStream(clock)

    @pytest.fixture
    def failing(self, clock: Clock) -> FailingStream:
        """Return the failing under test."""

        def make(error: BrokerError) -> Stream:
            return MemoryStream(clock, failures=[error])

        return make


class TestSegmentLog(JournalContract):
    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[SegmentLog]:
        """Return the journal under test."""
        log = SegmentLog(tmp_path / "topic", "w0")
        yield log
        log.close()


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def journal(self) -> MemoryStream:
        """Return the journal under test."""
        return MemoryStream()
