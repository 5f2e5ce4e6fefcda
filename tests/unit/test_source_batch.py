"""Batches whose packets were let go."""

import polars as pl
import pytest

from broker.ports import SourceBatch


@pytest.fixture
def batch() -> SourceBatch:
    """Return a batch of two packets that were let go."""
    made = SourceBatch([b"one", b"two"], pl.DataFrame({"place": ["here", "there"]}))
    made.let_go()
    return made


def test_how_many_there_were_stays_known(batch: SourceBatch) -> None:
    """A source that commits the batch can still count it."""
    assert (len(batch.payloads), bool(batch.payloads), len(batch.origins)) == (2, True, 2)


def test_packets_are_not_silently_missed(batch: SourceBatch) -> None:
    """Whoever wants the packets after all is told, rather than given none."""
    with pytest.raises(RuntimeError, match="let go"):
        list(batch.payloads)
