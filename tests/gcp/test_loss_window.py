"""A crash between the upload of a packet and its message loses neither, on the real clients."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

pytest.importorskip("google.cloud.pubsub_v1")
pytest.importorskip("google.cloud.storage")

import storage_emulator

from broker.connectors.files.gcs import GcsFiles
from broker.connectors.gcp.clients import Cloud
from broker.connectors.streams.pubsub import PubSubStream
from broker.pipeline.copies import Copies
from broker.surveys import DEFAULT_SURVEY, get_survey
from crashing import CrashError, Fused, run

ALERTS = 20
BUCKET, TOPIC = "proj-x-ztf-alert_avros", "ztf-alerts"


@pytest.fixture
def cloud(google_address: str) -> Iterator[Cloud]:
    """Return a project of its own on the emulators."""
    if reason := storage_emulator.what_is_missing():
        pytest.skip(reason)
    with storage_emulator.running() as url:
        yield Cloud("proj-loss-window", pubsub=google_address, storage=url)


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    """Return packets."""
    generate = get_survey(DEFAULT_SURVEY).generate
    assert generate is not None
    return list(generate(ALERTS, 3, date(2026, 1, 2)))


def test_crash_between_upload_and_message(
    cloud: Cloud, packets: list[bytes], tmp_path: Path
) -> None:
    """What was uploaded before the crash is published after it; nothing is uploaded again."""
    files, bus = GcsFiles(cloud), PubSubStream(cloud)
    with pytest.raises(CrashError):
        run(tmp_path / "home", packets, Copies(files, Fused(bus, "publish", 0)))  # type: ignore[arg-type]
    uploaded = {blob.name: blob.generation for blob in cloud.store.list_blobs(BUCKET)}

    run(tmp_path / "home", packets, Copies(files, bus))

    bus.subscribe(TOPIC, "all")
    found: list[bytes] = []
    while deliveries := bus.pull("all", 100):
        found += [each.payload for each in deliveries]
        bus.acknowledge("all", [each.ack_id for each in deliveries])
    now = {blob.name: blob.generation for blob in cloud.store.list_blobs(BUCKET)}
    assert uploaded
    assert uploaded.items() <= now.items()
    assert len(now) == ALERTS
    assert sorted(found) == sorted(packets)
