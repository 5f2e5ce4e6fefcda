"""Prove with Google's own clients that a run in the cloud loses and doubles nothing.

``python tests/gcp/prove.py [FOLDER]`` starts the emulators of Pub/Sub, Cloud Storage and
BigQuery, sets an instance up, sends every ZTF packet of FOLDER (by default of the shared data,
or generated ones) through ``pgb run``, and then looks with the plain client libraries what is
there: objects, rows, messages, each once. It does it all again, and nothing may have changed.
Where Google's Pub/Sub emulator is missing, or with ``--ours``, ``pgb pubsub serve`` stands in.
"""

import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import fastavro

_HERE = Path(__file__).parent
_SHARED = _HERE.parents[1] / "../shared/data/ztf"
_PROJECT, _TESTID = "proj-prove", "prove"
_INPUT = f"ztf-alerts_in-{_TESTID}"
_ALERTS, _AVROS = f"ztf-alerts-{_TESTID}", f"ztf-alert_avros-{_TESTID}"
_BUCKET = f"{_PROJECT}-ztf-alert_avros-{_TESTID}"
_DATASET = f"ztf_alerts_{_TESTID}"
_EMULATORS = ("pubsub_emulator", "storage_emulator", "bigquery_emulator")
_AT_ONCE = 40


def modules() -> list[Any]:
    """Return the modules that start the emulators."""
    sys.path.insert(0, str(_HERE))
    return [importlib.import_module(name) for name in _EMULATORS]


def what_is_missing() -> str:
    """Say why nothing can be proved here; empty if it can."""
    try:
        _, *needed = modules()
        return "; ".join(filter(None, (module.what_is_missing() for module in needed)))
    except ImportError as error:
        return f"{error}: pip install '.[gcp]'"


@contextmanager
def emulators(folder: Path, *, ours: bool = False) -> Iterator[dict[str, str]]:
    """Yield the variables under which everyone reaches the three emulators."""
    pubsub, storage, bigquery = modules()
    with ExitStack() as stack:
        ours = ours or bool(pubsub.what_is_missing())
        if ours:
            from pubsub_ours import running

            queue = stack.enter_context(running(folder / "pubsub")).address
        else:
            queue = stack.enter_context(pubsub.running())
        store = stack.enter_context(storage.running())
        warehouse = stack.enter_context(bigquery.running(folder / "bigquery", store))
        print(f"Pub/Sub: {'pgb pubsub serve' if ours else 'emulator'} at {queue}", flush=True)
        yield {
            "GOOGLE_CLOUD_PROJECT": _PROJECT,
            "PUBSUB_EMULATOR_HOST": queue,
            "STORAGE_EMULATOR_HOST": store,
            "BIGQUERY_EMULATOR_HOST": warehouse.url,
            "BIGQUERY_STORAGE_EMULATOR_HOST": warehouse.grpc,
        }


def packets_of(folder: Path) -> list[bytes]:
    """Return the packets of a folder that are whole, or generated ones if there is none."""
    if not folder.is_dir():
        from broker.surveys import get_survey

        return list(get_survey("ztf").generate(60, 5, date(2026, 1, 2)))  # type: ignore[misc]
    return [file.read_bytes() for file in sorted(folder.rglob("*.avro"))]


def candid_of(packet: bytes) -> int | None:
    """Return the detection's id; None if the packet is no ZTF alert."""
    try:
        (alert,) = fastavro.reader(io.BytesIO(packet))
        return int(alert["candid"])
    except Exception:
        return None


@dataclass
class Google:
    """The plain clients."""

    publisher: Any = field(init=False)
    subscriber: Any = field(init=False)
    storage: Any = field(init=False)
    bigquery: Any = field(init=False)

    def __post_init__(self) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery, pubsub_v1, storage

        self.publisher = pubsub_v1.PublisherClient()
        self.subscriber = pubsub_v1.SubscriberClient()
        self.storage = storage.Client(project=_PROJECT)
        self.bigquery = bigquery.Client(
            project=_PROJECT,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": os.environ["BIGQUERY_EMULATOR_HOST"]},
        )

    def topic(self, name: str) -> str:
        """Return a topic's path."""
        return str(self.publisher.topic_path(_PROJECT, name))

    def subscription(self, name: str) -> str:
        """Return a subscription's path."""
        return str(self.subscriber.subscription_path(_PROJECT, name))

    def listen(self, topic: str) -> None:
        """Make a subscription of our own on a topic."""
        path = self.subscription(f"{topic}-proof")
        self.subscriber.create_subscription(
            request={"name": path, "topic": self.topic(topic), "ack_deadline_seconds": 600}
        )

    def send(self, packets: Sequence[bytes]) -> None:
        """Publish packets as the consumer of a survey does."""
        attributes = {"kafka.topic": "ztf_20260102_programid1", "kafka.partition": "0"}
        for offset, packet in enumerate(packets):
            more = {"kafka.offset": str(offset), "kafka.timestamp": "1767312000000"}
            self.publisher.publish(self.topic(_INPUT), packet, **attributes, **more).result()

    def heard(self, topic: str) -> list[Any]:
        """Return and acknowledge every message that our subscription has."""
        path, found = self.subscription(f"{topic}-proof"), []
        while True:
            answer = self.subscriber.pull(
                request={"subscription": path, "max_messages": _AT_ONCE}, timeout=10
            )
            if not answer.received_messages:
                return found
            found += [each.message for each in answer.received_messages]
            ids = [each.ack_id for each in answer.received_messages]
            self.subscriber.acknowledge(request={"subscription": path, "ack_ids": ids})

    def objects(self) -> dict[str, tuple[int, bytes]]:
        """Return generation and bytes of every object in the bucket of packets."""
        blobs = self.storage.list_blobs(_BUCKET)
        return {blob.name: (blob.generation, blob.download_as_bytes()) for blob in blobs}

    def rows(self, table: str, column: str) -> Counter[int]:
        """Count the rows of each id in a table."""
        sql = f"SELECT {column} FROM `{_PROJECT}.{_DATASET}.{table}`"
        return Counter(int(row[0]) for row in self.bigquery.query(sql).result())


def pgb(*arguments: str) -> str:
    """Run a command of the broker; its output."""
    program = str(Path(sys.executable).with_name("pgb"))
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pgb {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def run() -> dict[str, Any]:
    """Let the broker take in what is in the input subscription."""
    places = ["--bus", "pubsub://", "--files", "gs://", "--tables", "bigquery://"]
    out = pgb("run", f"pubsub:///{_INPUT}?quiet=5", *places, "--testid", _TESTID, "--json")
    return dict(json.loads(out.strip().splitlines()[-1]))


@dataclass
class Proof:
    """What was held against what."""

    failures: int = 0

    def check(self, what: str, *, holds: bool, told: str = "") -> None:
        """Print one line of the proof."""
        self.failures += not holds
        print(f"{'ok ' if holds else 'NOT'} {what}{f' ({told})' if told else ''}", flush=True)


def prove(packets: Sequence[bytes]) -> int:
    """Send, run and look, twice; return how many things do not hold."""
    google, proof = Google(), Proof()
    ids = [candid_of(packet) for packet in packets]
    good: dict[int, set[bytes]] = {}
    for candid, packet in zip(ids, packets, strict=True):
        if candid is not None:
            good.setdefault(candid, set()).add(packet)
    print(f"{len(packets)} packets, {len(good)} alerts", flush=True)
    pgb("setup", "--survey", "ztf", "--testid", _TESTID, "--yes")
    google.publisher.create_topic(request={"name": google.topic(_INPUT)})
    google.subscriber.create_subscription(
        request={"name": google.subscription(_INPUT), "topic": google.topic(_INPUT)}
    )
    for topic in (_ALERTS, _AVROS):
        google.listen(topic)

    google.send(packets)
    report = run()
    told = f"{report['stored']} stored, {report['duplicates']} repeats"
    proof.check("every packet was received", holds=report["received"] == len(packets), told=told)
    first = google.objects()
    _prove_objects(proof, first, good)
    _prove_rows(proof, google, good)
    _prove_layout(proof, google)
    _prove_messages(proof, google, good)

    google.send(packets)
    report = run()
    proof.check("a second time nothing is stored", holds=report["stored"] == 0)
    proof.check("no object has changed", holds=google.objects() == first)
    _prove_rows(proof, google, good)
    for topic in (_ALERTS, _AVROS):
        proof.check(f"no new message in {topic}", holds=not google.heard(topic))
    pgb("teardown", "--survey", "ztf", "--testid", _TESTID, "--yes")
    left = [blob.name for blob in google.storage.list_buckets() if _TESTID in blob.name]
    proof.check("teardown leaves no bucket", holds=not left, told=", ".join(left))
    return proof.failures


def _prove_objects(
    proof: Proof, objects: dict[str, tuple[int, bytes]], good: dict[int, set[bytes]]
) -> None:
    names = Counter(int(name.rsplit("/", 1)[1].removesuffix(".avro")) for name in objects)
    proof.check("one object an alert", holds=names == Counter(dict.fromkeys(good, 1)))
    same = all(
        data in good[int(name.rsplit("/", 1)[1].removesuffix(".avro"))]
        for name, (_, data) in objects.items()
    )
    proof.check("every object is its packet, byte for byte", holds=same)


def _prove_rows(proof: Proof, google: Google, good: dict[int, set[bytes]]) -> None:
    once = Counter(dict.fromkeys(good, 1))
    for table, column in (("alerts", "candid"), ("DIASource", "candid"), ("verdicts", "source_id")):
        proof.check(f"one row an alert in {table}", holds=google.rows(table, column) == once)


def _prove_layout(proof: Proof, google: Google) -> None:
    for name in ("alerts", "DIASource"):
        table = google.bigquery.get_table(f"{_PROJECT}.{_DATASET}.{name}")
        day = table.time_partitioning and table.time_partitioning.field
        pixels = (table.clustering_fields or [""])[0].startswith("healpix")
        told = f"{day}, {table.clustering_fields}"
        holds = day == "kafkaPublishTimestamp" and pixels
        proof.check(f"{name} is partitioned by day and clustered by pixel", holds=holds, told=told)


def _prove_messages(proof: Proof, google: Google, good: dict[int, set[bytes]]) -> None:
    once = Counter(dict.fromkeys(good, 1))
    packets = google.heard(_ALERTS)
    sent = Counter(int(message.attributes["candid"]) for message in packets)
    proof.check(f"one message an alert in {_ALERTS}", holds=sent == once)
    same = all(bytes(each.data) in good[int(each.attributes["candid"])] for each in packets)
    proof.check("every message is its packet, byte for byte", holds=same)
    announced = Counter(int(each.attributes["candid"]) for each in google.heard(_AVROS))
    proof.check(f"one message an alert in {_AVROS}", holds=announced == once)


def main() -> int:
    """Prove it, if the emulators are here; 0 also if they are not."""
    if missing := what_is_missing():
        print(f"nothing was proved about Google Cloud: {missing}")
        return 0
    ours = "--ours" in sys.argv
    named = [argument for argument in sys.argv[1:] if argument != "--ours"]
    folder = Path(named[0]) if named else _SHARED
    with tempfile.TemporaryDirectory() as place, emulators(Path(place), ours=ours) as variables:
        os.environ.update(variables, PGB_HOME=f"{place}/home", PGB_FETCH_MODELS="never")
        failures = prove(packets_of(folder))
    print("nothing was lost, nothing doubled" if not failures else f"{failures} do not hold")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
