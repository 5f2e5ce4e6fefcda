"""Kafka for tests: librdkafka's mock cluster, and a real Apache Kafka where there is one."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from broker.science.fitters.salt2.toy import toy_bandpasses, write_toy_model

_SERVER = Path(__file__).parents[1] / "kafka" / "server.py"


def _server_module() -> Any:
    pytest.importorskip("confluent_kafka")
    if "kafka_server" not in sys.modules:
        spec = importlib.util.spec_from_file_location("kafka_server", _SERVER)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["kafka_server"] = module
        spec.loader.exec_module(module)
    return sys.modules["kafka_server"]


@pytest.fixture(scope="session")
def kafka_module() -> Any:
    """Return the module that starts Apache Kafka; the test is skipped where it cannot."""
    module = _server_module()
    if reason := module.what_is_missing():
        pytest.skip(reason)
    return module


@pytest.fixture(scope="session")
def kafka(kafka_module: Any) -> Iterator[Any]:
    """Return a running Apache Kafka."""
    server = kafka_module.KafkaServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def mock_cluster() -> Iterator[str]:
    """Return the address of librdkafka's mock cluster of three servers."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": "mock", "test.mock.num.brokers": 3, "log_level": 0}
    )
    servers = producer.list_topics(timeout=60).brokers.values()
    yield ",".join(f"{it.host}:{it.port}" for it in servers)
    del producer


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> str:
    """Return the address of a cluster: Apache Kafka where it can run, the mock elsewhere."""
    if _server_module().what_is_missing():
        return str(request.getfixturevalue("mock_cluster"))
    return str(request.getfixturevalue("kafka").plain)


@pytest.fixture
def topic() -> str:
    """Return a topic's name that no other test uses."""
    return f"t-{uuid4().hex[:12]}"


Produce = Callable[..., None]


@pytest.fixture
def produce() -> Produce:
    """Return a function that sends payloads to a topic and waits until they are there."""
    confluent_kafka = pytest.importorskip("confluent_kafka")

    def send(address: str, topic: str, payloads: list[bytes], partition: int = -1) -> None:
        producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": address,
                "log_level": 0,
                "message.max.bytes": 4_000_000,
                "enable.idempotence": True,  # the order is kept when something is sent again
            }
        )
        for number, payload in enumerate(payloads, 1):
            producer.produce(topic, payload, partition=partition)
            producer.poll(0)
            if number % 2000 == 0:  # before the queue of a gigabyte is full
                assert producer.flush(60) == 0
        assert producer.flush(60) == 0

    return send


EDGES = {"ztfg": (4100.0, 5500.0), "ztfr": (5600.0, 7300.0), "ztfi": (7000.0, 8800.0)}
FILES = {"ztfg": "P48_g.dat", "ztfr": "P48_R.dat", "ztfi": "P48_I.dat"}


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with the synthetic model in the place of the real one."""
    folder = tmp_path_factory.mktemp("models")
    write_toy_model(folder / "models" / "salt2" / "salt2-4")
    bands = folder / "bandpasses" / "ztf"
    bands.mkdir(parents=True)
    for band in toy_bandpasses(EDGES):
        np.savetxt(bands / FILES[band.name], np.column_stack([band.wave, band.trans]))
    return folder
