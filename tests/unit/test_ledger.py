"""The ledger and its index."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.pipeline import index
from broker.pipeline.ledger import Intake, Ledger, Location
from broker.pipeline.reconcile import gaps, reconcile
from broker.ports import BatchKey, OffsetGap

NIGHT = date(2026, 1, 2)
NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)
OFFSETS = {"topic": pl.String, "partition": pl.Int32, "first": pl.Int64, "last": pl.Int64}
OFFSETS["count"] = pl.Int32


def intake(
    ids: list[int],
    rejects: Sequence[int] = (),
    objects: list[str] | None = None,
    offsets: Sequence[tuple[str, int, int, int, int]] = (),
) -> Intake:
    """Make what one batch brought."""
    return Intake(
        np.array(ids, dtype=np.int64),
        objects or [f"object{i}" for i in ids],
        np.array(rejects, dtype=np.int64),
        pl.DataFrame(list(offsets), schema=OFFSETS, orient="row"),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return an empty ledger."""
    with Ledger(tmp_path / "ledger.sqlite", "w0") as ledger:
        yield ledger


def take(ledger: Ledger, *ids: int, **more: list) -> list[bool]:
    """Claim and close a batch; return what was new."""
    claim = ledger.claim(intake(list(ids), **more), NIGHT, NOW)
    ledger.close(claim.key, {}, NOW)
    return claim.new.tolist()


def test_an_id_is_new_once(ledger: Ledger):
    """Within a batch and between batches."""
    assert take(ledger, 5, 6, 5) == [True, True, False]
    assert take(ledger, 6, 7) == [False, True]


def test_large_ids_are_exact(ledger: Ledger):
    """Ids beyond 2**53 differ in their last digit."""
    take(ledger, 3516505565058564097)

    assert take(ledger, 3516505565058564096, 3516505565058564097) == [True, False]


def test_an_alert_is_located_by_batch_and_row(ledger: Ledger):
    """The row counts only what was new."""
    take(ledger, 5)
    take(ledger, 5, 6, 7)

    assert ledger.locate([7, 99]) == {7: Location(BatchKey("w0", 2), 1)}


def test_alerts_of_an_object_come_in_order(ledger: Ledger):
    """Whatever the order of arrival."""
    take(ledger, 9, 3, objects=["a", "b"])
    take(ledger, 4, objects=["a"])

    assert ledger.alerts_of("a") == [4, 9]


def test_workers_share_what_is_seen(tmp_path: Path, ledger: Ledger):
    """The second worker's copy is a duplicate."""
    take(ledger, 5)

    with Ledger(tmp_path / "ledger.sqlite", "w1") as other:
        assert take(other, 5, 6) == [False, True]
    assert ledger.locate([6])[6].key == BatchKey("w1", 1)


def test_released_alerts_are_new_again(ledger: Ledger):
    """A crash before the journal costs nothing."""
    claim = ledger.claim(intake([5, 6], rejects=[1]), NIGHT, NOW)

    ledger.release(claim.key, alerts=True, rejects=False)

    assert take(ledger, 5, rejects=[1]) == [True]
    assert ledger.alerts_of("object6") == []


def test_the_sums_follow_a_release(ledger: Ledger):
    """Received shrinks by what was taken back."""
    claim = ledger.claim(intake([5, 6], rejects=[1]), NIGHT, NOW)
    ledger.release(claim.key, alerts=True, rejects=False)
    ledger.close(claim.key, {}, NOW)

    sums = ledger.sums()

    assert (sums.received, sums.stored, sums.dead_lettered) == (1, 0, 1)


def test_batch_numbers_are_never_used_twice(ledger: Ledger):
    """Not even after a release."""
    first = ledger.claim(intake([5]), NIGHT, NOW)
    ledger.release(first.key, alerts=True, rejects=True)

    assert ledger.claim(intake([5]), NIGHT, NOW).key.number == first.key.number + 1


def test_open_batches_are_those_of_this_worker(tmp_path: Path, ledger: Ledger):
    """Another worker may be alive."""
    with Ledger(tmp_path / "ledger.sqlite", "w1") as other:
        other.claim(intake([5]), NIGHT, NOW)
        assert ledger.open_batches() == []
        assert other.open_batches() == [BatchKey("w1", 1)]


def test_a_rejected_payload_counts_once(ledger: Ledger):
    """A repeat of it is a duplicate."""
    take(ledger, rejects=[1, 1])
    take(ledger, rejects=[1])

    sums = ledger.sums()

    assert (sums.received, sums.duplicates, sums.dead_lettered) == (3, 2, 1)


def test_what_does_not_add_up_is_found(ledger: Ledger):
    """A filter without a verdict for every stored alert."""
    claim = ledger.claim(intake([5, 6]), NIGHT, NOW)
    ledger.close(claim.key, {"filter x": {"pass": 1, "fail": 0}}, NOW)

    wrong = [check.what for check in reconcile(ledger) if not check.ok]

    assert wrong == ["stored = verdicts of filter x", "passed filter x = published"]


def test_an_open_batch_does_not_reconcile(ledger: Ledger):
    """It may be at work, or a crash left it."""
    ledger.claim(intake([5]), NIGHT, NOW)

    assert [check.what for check in reconcile(ledger) if not check.ok] == ["batches left open"]


def test_gaps_between_offsets_are_named(ledger: Ledger):
    """Ranges merge, also out of order; holes remain."""
    take(ledger, 1, offsets=[("t", 0, 10, 19, 10)])
    take(ledger, 2, offsets=[("t", 0, 0, 4, 5), ("t", 1, 0, 9, 10)])
    take(ledger, 3, offsets=[("t", 0, 20, 25, 6)])

    assert gaps(ledger) == [OffsetGap("t", 0, 5, 9)]


def test_a_gap_has_the_reason_that_the_source_gave(ledger: Ledger):
    """Also at the end of a partition; what came after all is no gap."""
    take(ledger, 1, offsets=[("t", 0, 0, 4, 5), ("t", 0, 12, 14, 3), ("t", 0, 20, 25, 6)])
    for _ in range(2):
        ledger.note_gaps([OffsetGap("t", 0, 5, 13, "retention")], NOW)
    ledger.note_gaps([OffsetGap("t", 0, 26, 30, "compaction")], NOW)
    ledger.note_gaps([OffsetGap("t", 1, 0, 8, "retention")], NOW)

    assert gaps(ledger) == [
        OffsetGap("t", 0, 5, 11, "retention"),
        OffsetGap("t", 0, 15, 19, ""),
        OffsetGap("t", 0, 26, 30, "compaction"),
        OffsetGap("t", 1, 0, 8, "retention"),
    ]


def test_a_gap_that_grew_is_named_once(ledger: Ledger):
    """A source that begins again sees more missing than before."""
    take(ledger, 1, offsets=[("t", 0, 0, 4, 5)])
    ledger.note_gaps([OffsetGap("t", 0, 5, 9, "retention")], NOW)
    ledger.note_gaps([OffsetGap("t", 0, 5, 19, "retention")], NOW)

    assert [(gap.first, gap.last) for gap in gaps(ledger)] == [(5, 9), (10, 19)]


def test_a_ledger_from_before_gaps_were_noted_opens(tmp_path: Path):
    """What it holds is still there."""
    with Ledger(tmp_path / "ledger.sqlite", "w0") as older:
        take(older, 1, offsets=[("t", 0, 0, 4, 5), ("t", 0, 9, 9, 1)])
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as file:
        file.execute("DROP TABLE gaps")

    with Ledger(tmp_path / "ledger.sqlite", "w0") as ledger:
        assert gaps(ledger) == [OffsetGap("t", 0, 5, 8, "")]


def test_sums_of_a_night(ledger: Ledger):
    """Other nights are left out."""
    take(ledger, 1, 2)

    assert ledger.sums(NIGHT).stored == 2
    assert ledger.sums(date(2026, 1, 3)).stored == 0
    assert ledger.nights() == [NIGHT]


@pytest.fixture
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge often, so that a few batches make several tiers."""
    monkeypatch.setattr(index, "MERGE_BATCHES", 2)
    monkeypatch.setattr(index, "MERGE_RUNS", 2)


@pytest.mark.usefixtures("small_merges")
def test_merged_runs_forget_nothing(tmp_path: Path):
    """New ids, places and objects are the same with and without merging."""
    batches = np.random.default_rng(1).integers(0, 300, (40, 10)) * 10**15
    seen: set[int] = set()
    with Ledger(tmp_path / "ledger.sqlite", "w0") as ledger:
        for ids in batches.tolist():
            expected = [i not in seen and i not in ids[:k] for k, i in enumerate(ids)]
            assert take(ledger, *ids, objects=[f"object{i % 7}" for i in ids]) == expected
            seen.update(ids)
        assert set(ledger.locate(sorted(seen))) == seen
        for k in range(7):
            assert ledger.alerts_of(f"object{k}") == sorted(i for i in seen if i % 7 == k)


@pytest.mark.usefixtures("small_merges")
def test_a_reader_follows_the_merges_of_a_writer(tmp_path: Path):
    """Runs that were merged away are not missed."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "w0") as writer, Ledger(path) as reader:
        for number in range(1, 20):
            take(writer, number)
            assert reader.locate([number])[number].key.number == number
        assert len(reader.locate(list(range(1, 20)))) == 19


@settings(max_examples=50)
@given(st.integers(0, 2**15 - 1), st.integers(0, 2**32 - 1), st.integers(0, index.MAX_ROWS - 1))
def test_locations_survive_packing(worker: int, number: int, row: int):
    """Worker, batch and row come back."""
    packed = index.pack(worker, number, np.array([row], dtype=np.int64))

    assert index.unpack(int(packed[0])) == (worker, number, row)
