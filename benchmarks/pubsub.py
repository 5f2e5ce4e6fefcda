"""Google's Pub/Sub client against our server and, where one is named, Google's emulator."""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

_BYTES = 60_000
_PROJECT = "projects/bench"
_WAIT_S = 300
# Google's client opens a plain channel to an emulator, which then cannot send a backlog.
_UNLIMITED = [("grpc.max_receive_message_length", -1)]
_SERVE = "from broker.apps.cli import main; main()"


def run(rounds: int = 3, server: str = "", messages: int = 3000) -> dict[str, Any]:
    """Publish and pull messages of 60 kB, in rounds in which the servers take turns.

    Client and server share the machine; the client is Google's, with its defaults.

    Parameters
    ----------
    rounds : int
        Rounds of which medians and the best are reported.
    server : str
        Address of a server to compare with; that of Google's emulator is told by
        ``python tests/gcp/pubsub_emulator.py``.
    messages : int
        Messages of each side per round.
    """
    payload = os.urandom(_BYTES)
    sides: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    spent: list[float] = []
    with tempfile.TemporaryDirectory() as home, _serving(Path(home)) as (address, processes):
        _round(address, payload, messages // 4, stock=True)
        for _ in range(rounds):
            before = _cpu_s(processes)
            sides["ours"].append(_round(address, payload, messages, stock=True))
            spent.append(1e6 * (_cpu_s(processes) - before) / messages)
            if server:
                sides["theirs"].append(_round(server, payload, messages, stock=False))
    figures: dict[str, float] = {"server_cpu_us_per_message": median(spent)}
    for side, found in sides.items():
        figures |= _figures(side, found)
    ratios = [
        {"publish_vs_emulator": ours[0] / theirs[0], "pull_vs_emulator": ours[1] / theirs[1]}
        for ours, theirs in zip(sides["ours"], sides["theirs"], strict=False)
    ]
    names = ratios[0] if ratios else {}
    return {
        "ratios": {name: median(ratio[name] for ratio in ratios) for name in names},
        "figures": figures,
    }


def _figures(side: str, found: Sequence[tuple[float, float]]) -> dict[str, float]:
    figures = {}
    for i, what in enumerate(("publish", "streaming_pull")) if found else ():
        figures[f"{side}_{what}_per_s"] = median(each[i] for each in found)
        figures[f"{side}_{what}_per_s_best"] = max(each[i] for each in found)
    return figures


def _round(address: str, payload: bytes, messages: int, *, stock: bool) -> tuple[float, float]:
    """Return messages per second, published and pulled."""
    with ExitStack() as stack:
        publisher, subscriber = _clients(address, stack, stock=stock)
        name = f"bench-{uuid4().hex[:8]}"
        topic, subscription = f"{_PROJECT}/topics/{name}", f"{_PROJECT}/subscriptions/{name}"
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic, ack_deadline_seconds=600)
        started = time.perf_counter()
        futures = [publisher.publish(topic, payload, n=str(i)) for i in range(messages)]
        for future in futures:
            future.result(_WAIT_S)
        published = messages / (time.perf_counter() - started)
        pulled = _pull(subscriber, subscription, messages)
        subscriber.delete_subscription(subscription=subscription)
        publisher.delete_topic(topic=topic)
    return published, pulled


def _clients(address: str, stack: ExitStack, *, stock: bool) -> tuple[Any, Any]:
    import grpc
    from google.cloud import pubsub_v1
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    os.environ["PUBSUB_EMULATOR_HOST"] = address
    publisher = pubsub_v1.PublisherClient()
    stack.callback(publisher.transport.close)
    if stock:
        subscriber = pubsub_v1.SubscriberClient()
    else:
        channel = grpc.insecure_channel(address, options=_UNLIMITED)
        transport = SubscriberGrpcTransport(channel=channel)
        subscriber = pubsub_v1.SubscriberClient(transport=transport)
    stack.callback(subscriber.close)
    return publisher, subscriber


def _pull(subscriber: Any, subscription: str, messages: int) -> float:
    done, lock, seen = threading.Event(), threading.Lock(), set()

    def take(message: Any) -> None:
        message.ack()
        with lock:
            seen.add(message.message_id)
            if len(seen) == messages:
                done.set()

    started = time.perf_counter()
    future = subscriber.subscribe(subscription, take)
    complete = done.wait(_WAIT_S)
    spent = time.perf_counter() - started
    future.cancel()
    future.result()
    if not complete:
        raise RuntimeError(f"{len(seen)} of {messages} messages came in {_WAIT_S} s")
    return messages / spent


@contextmanager
def _serving(home: Path) -> Iterator[tuple[str, list[int]]]:
    """Run our server; give its address and its processes."""
    command = [sys.executable, "-c", _SERVE, "pubsub", "serve", "--home", str(home), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"on (\S+:\d+)", process.stdout.readline())
            if found is None:
                raise RuntimeError("the server did not become ready")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            front = map(int, children.read_text().split()) if children.exists() else ()
            yield found[1], [process.pid, *front]
        finally:
            process.terminate()


def _cpu_s(processes: Sequence[int]) -> float:
    """Return the CPU time that processes have spent, where the system tells it."""
    ticks = 0
    for number in processes:
        stat = Path(f"/proc/{number}/stat")
        if stat.exists():
            ticks += sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")
