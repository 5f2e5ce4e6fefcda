"""The numbers of a run for a monitor, in Prometheus' text format, while it goes."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from broker.connectors.kafka.health import Health, read_health
from broker.errors import ConfigError, UsageError
from broker.pipeline.runner import Report

_LOOPBACK = "127.0.0.1"


class RunCollector:
    """Collects what Prometheus asks for: the counts of a run, and how its consumer is.

    Parameters
    ----------
    report : Report
        The counts, which grow as the run goes.
    health : callable
        Returns how the consumer is; None if the run does not read from Kafka.
    now : callable
        UNIX time, s.
    """

    def __init__(
        self,
        report: Report,
        health: Callable[[], Health | None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._report = report
        self._health = health
        self._now = now

    def collect(self) -> Iterator[Any]:
        """Yield families of metrics as they are now."""
        yield from _counts(self._report)
        if (health := self._health()) is not None:
            yield from _states(health, self._now())
            yield from _offsets(health)


def health_of(file: Path) -> Health | None:
    """Return how this process's consumer is; None before its first word."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        health = read_health(file)
        return health if health.pid == os.getpid() else None
    return None


@contextmanager
def served(address: str, collector: RunCollector) -> Iterator[None]:
    """Answer a monitor at ``[host:]port`` with ``/metrics``, by default on this machine only.

    Raises
    ------
    ConfigError
        If the extra is not installed.
    UsageError
        If the address is wrong or taken.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
    except ImportError as error:
        raise ConfigError(
            "--metrics needs an extra: pip install 'pitt-google-broker[metrics]'"
        ) from error
    host, port = _split(address)
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        raise UsageError(f"metrics cannot be served at {address}: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise UsageError(f"--metrics takes a port, or host:port, not {address!r}")
    return host.strip("[]") or _LOOPBACK, int(port)


def _counts(report: Report) -> Iterator[Any]:
    fates = {
        "stored": report.stored,
        "duplicate": report.duplicates,
        "dead_lettered": report.dead_lettered,
    }
    yield _counter("pgb_alerts_received", "Alerts received.", report.received)
    yield _counters("pgb_alerts", "Alerts by what became of them.", "fate", fates)
    passed, published = dict(report.passed), dict(report.published)
    yield _counters("pgb_alerts_passed", "Alerts that passed a filter.", "filter", passed)
    yield _counter("pgb_alerts_fitted", "Light curves fitted.", report.fitted)
    yield _counters("pgb_messages_published", "Messages published.", "topic", published)
    recovered = report.recovered_batches
    yield _counter("pgb_batches_recovered", "Batches that a crash had left open.", recovered)


def _states(health: Health, now: float) -> Iterator[Any]:
    connected = health.state != "disconnected"
    yield _gauge("pgb_kafka_connected", "Whether a server answers.", connected)
    yield _gauge("pgb_kafka_empty", "Whether every topic is empty.", health.state == "empty")
    yield _gauge("pgb_kafka_topics_missing", "Topics waited for.", len(health.missing))
    assigned = len(health.partitions)
    yield _gauge("pgb_kafka_partitions_assigned", "Partitions read by this worker.", assigned)
    for name, doc, moment in (
        ("last_message", "Age of the last message, s.", health.last_message),
        ("last_commit", "Time since the last commit, s.", health.last_commit),
    ):
        if moment is not None:
            yield _gauge(f"pgb_kafka_{name}_age_seconds", doc, max(now - moment, 0))
    yield _counter("pgb_kafka_reconnects", "Lost connections that came back.", health.reconnects)
    reasons = Counter(gap.reason for gap in health.gaps)
    yield _counters("pgb_kafka_gaps", "Gaps between offsets.", "reason", reasons)


def _offsets(health: Health) -> Iterator[Any]:
    """Yield what is known of each partition; an unknown number is left out."""
    from prometheus_client.core import GaugeMetricFamily

    for name, doc in (
        ("lag", "Messages that are there and were not read yet."),
        ("position", "Offset of the next message."),
        ("committed", "Offset that the group has recorded."),
    ):
        family = GaugeMetricFamily(f"pgb_kafka_{name}", doc, labels=("topic", "partition"))
        for each in health.partitions:
            if (value := getattr(each, name)) >= 0:
                family.add_metric((each.topic, str(each.partition)), value)
        yield family


def _counter(name: str, doc: str, value: float) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, doc, value=value)


def _counters(name: str, doc: str, label: str, values: Mapping[str, int]) -> Any:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, doc, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _gauge(name: str, doc: str, value: float) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, doc, value=float(value))
