"""The numbers of a run as Prometheus reads them."""

import os
import socket
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broker.apps.metrics import RunCollector, health_of, served
from broker.connectors.kafka.health import Health, PartitionHealth, write_health
from broker.errors import UsageError
from broker.pipeline.runner import Report
from broker.ports import OffsetGap

REPORT = Report(received=9, stored=6, duplicates=2, dead_lettered=1, passed={"purity": 4})
HEALTH = Health(
    "consuming",
    100.0,
    partitions=[PartitionHealth("t", 0, 8, 5, 10), PartitionHealth("t", 1, -1, -1, -1)],
    gaps=[OffsetGap("t", 0, 2, 3, "retention")],
    last_message=90.0,
    reconnects=3,
)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Read what is served: a name and its labels' values to a number."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def collected(report: Report, health: Health | None) -> dict[tuple[str, ...], float]:
    """Collect at second 130."""
    registry = CollectorRegistry()
    registry.register(RunCollector(report, lambda: health, lambda: 130.0))
    return samples(generate_latest(registry).decode())


def test_counts() -> None:
    """What became of the alerts."""
    found = collected(REPORT, None)

    assert found["pgb_alerts_received_total",] == 9
    fates = {key[1]: value for key, value in found.items() if key[0] == "pgb_alerts_total"}
    assert fates == {"stored": 6, "duplicate": 2, "dead_lettered": 1}
    assert found["pgb_alerts_passed_total", "purity"] == 4


def test_health() -> None:
    """How the consumer is, with ages as of now; what is not known is left out."""
    found = collected(REPORT, HEALTH)

    assert found["pgb_kafka_connected",] == 1
    assert found["pgb_kafka_partitions_assigned",] == 2
    assert found["pgb_kafka_lag", "0", "t"] == 2
    assert found["pgb_kafka_last_message_age_seconds",] == 40
    assert found["pgb_kafka_reconnects_total",] == 3
    assert found["pgb_kafka_gaps_total", "retention"] == 1
    assert ("pgb_kafka_lag", "1", "t") not in found
    assert ("pgb_kafka_last_commit_age_seconds",) not in found


def test_another_process_is_not_told_of(tmp_path: Path) -> None:
    """A snapshot that an earlier run left says nothing of this one."""
    write_health(tmp_path / "w0.json", Health("ended", 1.0, pid=os.getpid() + 1))
    before = health_of(tmp_path / "w0.json")
    write_health(tmp_path / "w0.json", HEALTH)

    assert (before, health_of(tmp_path / "none.json")) == (None, None)
    assert health_of(tmp_path / "w0.json") is not None


def test_served_here_only_and_until_the_end() -> None:
    """A port alone is one of this machine; after the run nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/metrics"
    with served(str(port), RunCollector(REPORT, lambda: HEALTH)):
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = samples(answer.read().decode())
        with (
            pytest.raises(UsageError, match="cannot be served"),
            served(str(port), RunCollector(REPORT, lambda: None)),
        ):
            pass

    assert found["pgb_kafka_lag", "0", "t"] == 2
    assert "process_resident_memory_bytes" in {name for name, *_ in found}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=10)


@pytest.mark.parametrize("address", ["here", "host:", "127.0.0.1:http", "1:99999999"])
def test_wrong_address(address: str) -> None:
    """It is told with the address."""
    with (
        pytest.raises(UsageError, match=address),
        served(address, RunCollector(REPORT, lambda: None)),
    ):
        pass
