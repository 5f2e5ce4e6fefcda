"""Pub/Sub for tests: Google's emulator and our own server, both through Google's client."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gcp import pubsub_emulator, pubsub_ours


@contextmanager
def emulator_host(address: str) -> Iterator[None]:
    """Let Google's clients made within the block go to `address`."""
    before = os.environ.get("PUBSUB_EMULATOR_HOST")
    os.environ["PUBSUB_EMULATOR_HOST"] = address
    try:
        yield
    finally:
        del os.environ["PUBSUB_EMULATOR_HOST"]
        if before is not None:
            os.environ["PUBSUB_EMULATOR_HOST"] = before


@pytest.fixture(scope="session")
def google_address() -> Iterator[str]:
    """Return the address of Google's emulator, shared by all tests."""
    if reason := pubsub_emulator.what_is_missing():
        pytest.skip(reason)
    with pubsub_emulator.running() as address:
        yield address


@pytest.fixture(scope="session")
def our_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of our server on an empty home, shared by all tests."""
    pytest.importorskip("google.cloud.pubsub_v1")
    with pubsub_ours.running(tmp_path_factory.mktemp("pubsub-home")) as served:
        yield served.address


def _bus(address: str) -> Any:
    from gcp.pubsub_bus import Bus

    return Bus(address)


@pytest.fixture(params=["google", "ours"])
def bus(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return Google's clients on a server, each in turn."""
    pytest.importorskip("google.cloud.pubsub_v1")
    name = "google_address" if request.param == "google" else "our_address"
    address = request.getfixturevalue(name)
    with emulator_host(address), _bus(address) as bus:
        yield bus


@pytest.fixture
def ours(our_address: str) -> Iterator[Any]:
    """Return Google's clients on our server."""
    with emulator_host(our_address), _bus(our_address) as bus:
        yield bus
