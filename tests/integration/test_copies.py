"""Packets also go to a file each and to a bus, where these are asked for."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from broker.config import Settings
from broker.connectors.files.folder import FolderFiles
from broker.connectors.files.memory import MemoryFiles
from broker.connectors.sources.generated import GeneratedSource
from broker.connectors.streams.local import LocalStream
from broker.errors import ConfigError, TransientError
from broker.pipeline.copies import STAGE, Copies, check_layout
from broker.ports import SourceBatch
from broker.surveys import DEFAULT_SURVEY, get_survey
from broker.wiring import Broker
from crashing import CrashError, Fused, run

ALERTS = 30
BUCKET, TOPIC, LETTERS = "proj-x-ztf-alert_avros", "ztf-alerts", "ztf-deadletters"


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    """Return packets, one of them bad."""
    generate = get_survey(DEFAULT_SURVEY).generate
    assert generate is not None
    return [*generate(ALERTS, 3, date(2026, 1, 2)), b"not an alert"]


def delivered(bus: LocalStream, topic: str) -> list[bytes]:
    """Return what a new subscription gets."""
    bus.subscribe(topic, f"{topic}-all")
    return sorted(each.payload for each in bus.pull(f"{topic}-all", 1000))


def test_each_alert_gets_a_file_with_its_ids(tmp_path: Path, packets: list[bytes]) -> None:
    """File and metadata are those that the first broker wrote."""
    files = FolderFiles(tmp_path / "files")

    run(tmp_path / "home", packets, Copies(files))

    found = list(files.list(BUCKET))
    assert len(found) == ALERTS
    assert sorted(files.read(BUCKET, info.name) for info in found) == sorted(packets[:-1])
    for info in found:
        folder, object_id, file = info.name.split("/")
        assert folder == "no_topic"
        assert info.metadata["objectId"] == object_id
        assert f"{info.metadata['candid']}.avro" == file
        assert {"ra", "dec", "contentType"} <= set(info.metadata)


class Messages(GeneratedSource):
    """Packets as a service's messages: with ids, offsets of no partition and an empty topic."""

    def batches(self, max_payloads: int, max_wait_s: float) -> Iterator[SourceBatch]:
        """Say so in each batch's origins."""
        for batch in super().batches(max_payloads, max_wait_s):
            told = batch.origins.with_columns(
                pl.lit("").alias("topic"),
                pl.int_range(pl.len()).alias("offset"),
                pl.format("m{}", pl.int_range(pl.len())).alias("message_id"),
            )
            yield replace(batch, origins=told)


def test_a_file_tells_the_message_that_it_came_in(tmp_path: Path, packets: list[bytes]) -> None:
    """The bare id, as the first broker wrote it; what is not told of Kafka does no harm."""
    files = FolderFiles(tmp_path / "files")

    run(tmp_path / "home", Messages(packets[:3]), Copies(files))

    found = list(files.list(BUCKET))
    assert {info.metadata["file_origin_message_id"] for info in found} == {"m0", "m1", "m2"}
    assert {info.name.split("/")[0] for info in found} == {"no_topic"}


def test_announcements_name_file_and_alert(tmp_path: Path, packets: list[bytes]) -> None:
    """The alert's object id is not overwritten by the bucket's."""
    files = FolderFiles(tmp_path / "files")
    run(tmp_path / "home", packets, Copies(files))
    stream = LocalStream(tmp_path / "home" / "streams", "reader")
    stream.subscribe("ztf-alert_avros", "all")

    told = [each.attributes for each in stream.pull("all", 1000)]

    assert {each["filename"] for each in told} == {info.name for info in files.list(BUCKET)}
    assert {each["bucketId"] for each in told} == {BUCKET}
    assert all(each["filename"].split("/")[1] == each["objectId"] for each in told)


def test_files_may_be_named_as_in_earlier_years(tmp_path: Path, packets: list[bytes]) -> None:
    """The layout is a setting."""
    files = FolderFiles(tmp_path / "files")
    layout = "{object_id}.{source_id}.{topic}.avro"

    run(tmp_path / "home", packets, Copies(files), layout)

    names = [info.name.split(".") for info in files.list(BUCKET)]
    assert {tuple(name[2:]) for name in names} == {("no_topic", "avro")}


@pytest.mark.parametrize("layout", ["{nonsense}/{source_id}", "{object_id}.avro"])
def test_a_layout_that_cannot_work_is_refused(layout: str) -> None:
    """Unknown placeholders and names shared by two alerts are errors of the setting."""
    with pytest.raises(ConfigError, match="alert_file_name"):
        check_layout(layout)


def test_bus_gets_packets_and_dead_letters(tmp_path: Path, packets: list[bytes]) -> None:
    """Byte for byte, once each, also when the night is sent again."""
    bus = LocalStream(tmp_path / "bus", "w0")

    run(tmp_path / "home", packets, Copies(bus=bus))
    run(tmp_path / "home", packets, Copies(bus=bus))

    assert delivered(bus, TOPIC) == sorted(packets[:-1])
    assert delivered(bus, LETTERS) == packets[-1:]


@pytest.mark.parametrize("times", [0, 4, 10, 17, 29])
def test_crash_between_file_and_message_loses_nothing(
    times: int, tmp_path: Path, packets: list[bytes]
) -> None:
    """A packet whose file is stored is published all the same, once."""
    files, bus = FolderFiles(tmp_path / "files"), LocalStream(tmp_path / "bus", "w0")
    with pytest.raises(CrashError):
        run(tmp_path / "home", packets, Copies(Fused(files, "create", times), bus))  # type: ignore[arg-type]

    run(tmp_path / "home", packets, Copies(files, bus))

    assert len(list(files.list(BUCKET))) == ALERTS
    assert delivered(bus, TOPIC) == sorted(packets[:-1])


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_lost_home_loses_no_message(times: int, tmp_path: Path, packets: list[bytes]) -> None:
    """Another machine that gets the packets again finds their files and still publishes."""
    files, bus = FolderFiles(tmp_path / "files"), LocalStream(tmp_path / "bus", "w0")
    with pytest.raises(CrashError):
        run(tmp_path / "lost", packets, Copies(files, Fused(bus, "publish", times)))  # type: ignore[arg-type]

    again = LocalStream(tmp_path / "bus", "w1")
    run(tmp_path / "other", packets, Copies(files, again))

    assert set(delivered(again, TOPIC)) == set(packets[:-1])


def test_a_service_that_comes_back_is_waited_for(
    tmp_path: Path, packets: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Within the patience nothing fails, and it is said once a batch."""
    files = MemoryFiles([TransientError("the store is away")])

    with caplog.at_level(logging.WARNING):
        report = run(tmp_path / "home", packets, Copies(files), patience_s=60)

    assert report.stored == ALERTS
    assert [it.message for it in caplog.records] == ["waiting for a service: the store is away"]


def test_a_service_that_stays_away_ends_the_run(tmp_path: Path, packets: list[bytes]) -> None:
    """What was not told is told when the run starts again."""
    with pytest.raises(TransientError, match="away"):
        run(tmp_path / "home", packets, Copies(MemoryFiles([TransientError("away")] * 40)))
    files = MemoryFiles()

    run(tmp_path / "home", packets, Copies(files))

    assert len(list(files.list(BUCKET))) == ALERTS


def test_the_ledger_counts_files(tmp_path: Path, packets: list[bytes]) -> None:
    """Stored now and there already are told apart."""
    files = FolderFiles(tmp_path / "files")
    run(tmp_path / "one", packets, Copies(files))
    run(tmp_path / "two", packets, Copies(files))

    fates = Broker(Settings(home=str(tmp_path / "two"))).ledger.sums().fates[STAGE]

    assert fates == {"stored": 0, "there already": ALERTS}
