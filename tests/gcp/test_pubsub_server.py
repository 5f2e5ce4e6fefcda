"""Our Pub/Sub server as a process on a home: what it shares, survives, refuses and says."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("google.cloud.pubsub_v1")

import grpc
import requests
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from broker.connectors.streams.local import LocalStream
from broker.ports import BatchKey, Messages
from gcp import pubsub_ours
from gcp.conftest import emulator_host
from gcp.pubsub_bus import PROJECT, Bus, data


@contextmanager
def bus_on(home: Path, *options: str) -> Iterator[tuple[Bus, pubsub_ours.Served]]:
    """Serve a home, with clients on it."""
    with (
        pubsub_ours.running(home, *options) as served,
        emulator_host(served.address),
        Bus(served.address) as bus,
    ):
        yield bus, served


def refused(home: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run a server that cannot start."""
    return subprocess.run(
        pubsub_ours.command(home, *options), capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
class TestRestart:
    @pytest.mark.parametrize("end", ["stop", "kill"])
    def test_keeps_everything(self, tmp_path: Path, end: str) -> None:
        """Messages, settings, acknowledgements and leases are there after a restart."""
        with bus_on(tmp_path) as (bus, served):
            topic = bus.topic(labels={"a": "b"})
            subscription = bus.subscription(topic, ack_deadline_seconds=33, filter="attributes:n")
            bus.publish(topic, b"acknowledged", n="1")
            bus.acknowledge(subscription, bus.pull(subscription, 1))
            bus.publish(topic, b"leased", n="2")
            leased = bus.pull(subscription, 1)
            bus.publish(topic, b"waiting", n="3")
            bus.publish(topic, b"filtered out")
            getattr(served, end)()

        with bus_on(tmp_path) as (bus, _):
            found = bus.subscriber.get_subscription(subscription=subscription)
            waiting = bus.pull(subscription, 2, wait_s=2)
            bus.set_deadline(subscription, leased, 0)

            assert dict(bus.publisher.get_topic(topic=topic).labels) == {"a": "b"}
            assert (found.ack_deadline_seconds, found.topic) == (33, topic)
            assert data(waiting) == [b"waiting"]
            assert data(bus.pull(subscription, 1)) == [b"leased"]

    def test_nothing_published_is_lost(self, tmp_path: Path) -> None:
        """What an id was given for is there after a kill in full flight."""
        known: list[str] = []
        with bus_on(tmp_path) as (bus, served):
            topic, subscription = bus.pair()

            def publish() -> None:
                with suppress(grpc.RpcError):
                    while True:
                        known.extend(bus.publish(topic, *[bytes(20_000)] * 5))

            threads = [threading.Thread(target=publish) for _ in range(4)]
            for thread in threads:
                thread.start()
            while len(known) < 100:
                time.sleep(0.01)
            served.kill()
            for thread in threads:
                thread.join()

        with bus_on(tmp_path) as (bus, _):
            found = set()
            while messages := bus.pull(subscription, 100, wait_s=1):
                found |= {message.message.message_id for message in messages}

        assert set(known) <= found

    def test_snapshots_and_schemas_are_kept(self, tmp_path: Path) -> None:
        """A snapshot remembers over a restart."""
        with bus_on(tmp_path) as (bus, served):
            topic, subscription = bus.pair()
            bus.publish(topic, b"x")
            wanted = {"name": bus.name("snapshots"), "subscription": subscription}
            bus.subscriber.create_snapshot(wanted)
            bus.acknowledge(subscription, bus.pull(subscription, 1))
            served.kill()

        with bus_on(tmp_path) as (bus, _):
            bus.subscriber.seek({"subscription": subscription, "snapshot": wanted["name"]})
            assert data(bus.pull(subscription, 1)) == [b"x"]

    def test_a_stream_goes_on(self, tmp_path: Path) -> None:
        """A client that streams finds a server that comes back on its port."""
        with ExitStack() as second, bus_on(tmp_path) as (bus, served):
            port = served.address.rsplit(":", 1)[1]
            topic, subscription = bus.pair()
            with bus.streaming(subscription) as queue:
                bus.publish(topic, b"before")
                queue.get(timeout=10).ack()
                time.sleep(0.5)
                served.kill()
                second.enter_context(pubsub_ours.running(tmp_path, "--port", port))
                bus.publisher.publish(topic, b"after").result(timeout=30)
                message = queue.get(timeout=30)
                message.ack()

        assert message.data == b"after"


class TestHome:
    def test_messages_of_the_broker(self, tmp_path: Path) -> None:
        """What a worker publishes into the home is delivered, while the server runs."""
        stream = LocalStream(tmp_path / "streams", "w0")
        stream.create_topic("some-alerts")
        with bus_on(tmp_path) as (bus, _):
            topic = f"projects/{PROJECT}/topics/some-alerts"
            subscription = bus.subscription(topic)
            with bus.streaming(subscription) as queue:
                time.sleep(0.5)
                attributes = pl.DataFrame({"candid": [2**60], "band": [None], "pure": [True]})
                stream.publish("some-alerts", Messages([b"x"], attributes), BatchKey("w0", 0))
                message = queue.get(timeout=10)
                message.ack()
        stream.close()

        assert message.data == b"x"
        assert dict(message.attributes) == {"candid": str(2**60), "pure": "true"}

    def test_messages_of_the_server(self, tmp_path: Path) -> None:
        """What is published through the server is read from the home."""
        with bus_on(tmp_path) as (bus, _):
            topic = bus.topic()
            [message_id] = bus.publish(topic, b"x", a="b")
            name = topic.rsplit("/", 1)[1]
            stream = LocalStream(tmp_path / "streams", "reader")
            stream.subscribe(name, "mine")
            [found] = stream.pull("mine", 5)
            stream.close()

        assert (found.message_id, found.payload) == (message_id, b"x")
        assert dict(found.attributes) == {"a": "b"}

    def test_from_start(self, tmp_path: Path) -> None:
        """New subscriptions can be asked to begin with what is there."""
        with bus_on(tmp_path, "--from-start") as (bus, _):
            topic = bus.topic()
            bus.publish(topic, b"before")
            subscription = bus.subscription(topic)

            assert data(bus.pull(subscription, 1)) == [b"before"]

    def test_topics_of_the_broker_stay(self, tmp_path: Path) -> None:
        """A topic that the broker wrote to cannot be deleted from outside."""
        stream = LocalStream(tmp_path / "streams", "w0")
        stream.publish("some-alerts", Messages([b"x"], pl.DataFrame()), BatchKey("w0", 0))
        stream.close()
        with bus_on(tmp_path) as (bus, _):
            topic = f"projects/{PROJECT}/topics/some-alerts"
            with pytest.raises(exceptions.FailedPrecondition, match="w0"):
                bus.publisher.delete_topic(topic=topic)
            assert bus.publisher.get_topic(topic=topic).name == topic


class TestPage:
    def test_python_of_the_page(self, tmp_path: Path) -> None:
        """What the how-to page writes in Python works as it stands."""
        page = Path(__file__).parents[2] / "docs" / "how-to" / "pubsub-on-a-laptop.md"
        [code] = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        stream = LocalStream(tmp_path / "streams", "w0")
        attributes = pl.DataFrame({"objectId": ["ZTF26x", "other"], "is_pure": ["1", "1"]})
        messages = Messages([b"wanted", b"not wanted"], attributes)
        stream.publish("ztf-alerts_pure", messages, BatchKey("w0", 0))
        stream.close()
        got: list[bytes] = []
        with bus_on(tmp_path):
            words: dict[str, Any] = {"print": lambda message: got.append(message.data)}
            exec(code, words)
            deadline = time.monotonic() + 15
            while not got and time.monotonic() < deadline:
                time.sleep(0.05)
            words["future"].cancel()
            words["future"].result()
            words["subscriber"].close()

        assert got == [b"wanted"]


class TestToken:
    TOKEN = "not to be seen"

    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[pubsub_ours.Served]:
        """Return a server that asks for a token."""
        file = tmp_path / "token"
        file.write_text(self.TOKEN + "\n")
        with pubsub_ours.running(tmp_path / "home", "--token-file", str(file)) as served:
            yield served

    def test_grpc(self, served: pubsub_ours.Served) -> None:
        """The token travels in the metadata; without it nothing is answered."""
        channel = grpc.insecure_channel(served.address)
        with pubsub_v1.publisher.client.publisher_client.PublisherClient(
            transport=PublisherGrpcTransport(channel=channel)
        ) as client:
            right = [("authorization", f"Bearer {self.TOKEN}")]
            made = client.create_topic(name=f"projects/{PROJECT}/topics/topic", metadata=right)
            for wrong in ([], [("authorization", "Bearer nonsense")]):
                with pytest.raises(exceptions.Unauthenticated):
                    client.get_topic(topic=made.name, metadata=wrong)

    def test_http(self, served: pubsub_ours.Served) -> None:
        """The token travels in a header."""
        url = f"http://{served.address}/v1/projects/{PROJECT}/topics"
        right = {"Authorization": f"Bearer {self.TOKEN}"}

        assert requests.get(url, headers=right, timeout=10).status_code == 200
        assert requests.get(url, timeout=10).status_code == 401

    def test_is_never_told(self, served: pubsub_ours.Served) -> None:
        """Neither output nor refusals show the token."""
        url = f"http://{served.address}/v1/projects/{PROJECT}/topics"
        told = requests.get(url, headers={"Authorization": "x"}, timeout=10).text

        assert self.TOKEN not in told + served.stop()


class TestCommand:
    def test_stops_in_order(self, tmp_path: Path) -> None:
        """Ctrl-C ends with a line and exit code 0."""
        with pubsub_ours.running(tmp_path) as served:
            said = served.stop()

        assert "kept" in said
        assert served.process.returncode == 0

    def test_says_what_to_export(self, tmp_path: Path) -> None:
        """The ready line is followed by what a client needs."""
        with pubsub_ours.running(tmp_path) as served:
            assert f"export PUBSUB_EMULATOR_HOST={served.address}" in served.stop()

    def test_port_in_use(self, tmp_path: Path) -> None:
        """A port that is taken is an error in one line."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = refused(tmp_path, "--port", str(port))

        assert done.returncode == 2
        assert f"127.0.0.1:{port} is in use" in done.stderr
        assert "Traceback" not in done.stderr

    def test_port_that_is_none(self, tmp_path: Path) -> None:
        """A number that no port has is named."""
        done = refused(tmp_path, "--port", "99999")

        assert done.returncode == 2
        assert "'--port'" in done.stderr
        assert "Traceback" not in done.stderr

    def test_second_server(self, tmp_path: Path) -> None:
        """A home has one server."""
        with pubsub_ours.running(tmp_path):
            done = refused(tmp_path, "--port", "0")

        assert done.returncode == 2
        assert "already at work" in done.stderr

    def test_network_without_token(self, tmp_path: Path) -> None:
        """A home is not opened to the network by accident."""
        done = refused(tmp_path, "--host", "0.0.0.0", "--port", "0")

        assert done.returncode == 2
        assert "--token-file" in done.stderr

    @pytest.mark.parametrize("content", [None, " \n"])
    def test_no_token_in_the_file(self, tmp_path: Path, content: str | None) -> None:
        """A token file must be there and hold something."""
        file = tmp_path / "token"
        if content is not None:
            file.write_text(content)
        done = refused(tmp_path, "--token-file", str(file), "--port", "0")

        assert done.returncode == 2
        assert "token file" in done.stderr

    def test_processes_end_with_the_server(self, tmp_path: Path) -> None:
        """After a kill nothing listens on the port any more."""
        with pubsub_ours.running(tmp_path) as served:
            port = int(served.address.rsplit(":", 1)[1])
            served.kill()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    socket.create_server(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                pytest.fail("the port is still taken")

    def test_front_is_begun_again(self, tmp_path: Path) -> None:
        """A server whose front process was killed is reached again."""
        with bus_on(tmp_path) as (bus, served):
            topic, subscription = bus.pair()
            number = served.process.pid
            [front] = Path(f"/proc/{number}/task/{number}/children").read_text().split()
            os.kill(int(front), signal.SIGKILL)
            bus.publisher.publish(topic, b"x").result(timeout=30)

            assert data(bus.pull(subscription, 1)) == [b"x"]

    def test_web_pages_are_refused(self, tmp_path: Path) -> None:
        """A page in a browser cannot use the server behind its user's back."""
        with pubsub_ours.running(tmp_path) as served:
            url = f"http://{served.address}/v1/projects/{PROJECT}/topics"
            found = requests.get(url, headers={"Origin": "https://example.org"}, timeout=10)

        assert found.status_code == 403


KEY = """{"type": "service_account", "project_id": "%s", "private_key_id": "x",
 "client_email": "x@example.org", "client_id": "1", "token_uri": "http://127.0.0.1:9/token"}"""


@pytest.fixture
def pittgoogle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the installed client of the first broker, with a key that opens nothing."""
    pytest.importorskip("pittgoogle")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import serialization

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = tmp_path / "key.json"
    file.write_text(json.dumps(json.loads(KEY % PROJECT) | {"private_key": key.decode()}))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    import pittgoogle

    return pittgoogle


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestPittgoogle:
    def test_publish_and_pull(self, tmp_path: Path, pittgoogle: Any) -> None:
        """Its topics and subscriptions work as they are."""
        with bus_on(tmp_path / "home"):
            topic = pittgoogle.Topic("first-alerts", PROJECT)
            topic.touch()
            subscription = pittgoogle.Subscription("first-alerts", topic=topic)
            subscription.touch()
            alert = pittgoogle.Alert.from_dict({"a": 1}, attributes={"b": "c"})
            topic.publish(alert)
            [found] = subscription.pull_batch(max_messages=1)

        assert found.dict == {"a": 1}
        assert found.attributes["b"] == "c"

    def test_consumer(self, tmp_path: Path, pittgoogle: Any) -> None:
        """Its consumer streams."""
        got, enough = [], threading.Event()

        def take(alert: Any) -> Any:
            got.append(alert.msg.data)
            if len(got) == 10:
                enough.set()
            return pittgoogle.pubsub.Response(ack=True, result=None)

        with bus_on(tmp_path / "home") as (bus, _):
            topic = pittgoogle.Topic("first-alerts", PROJECT)
            topic.touch()
            subscription = pittgoogle.Subscription("first-alerts", topic=topic)
            subscription.touch()
            consumer = pittgoogle.pubsub.Consumer(subscription=subscription, msg_callback=take)
            consumer.stream(block=False)
            for i in range(10):
                bus.publish(f"projects/{PROJECT}/topics/first-alerts", b"%d" % i)
            arrived = enough.wait(20)
            consumer.stop()

        assert arrived
        assert sorted(got) == [b"%d" % i for i in range(10)]
