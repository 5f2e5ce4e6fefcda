"""A real Apache Kafka on this machine for tests: one node, KRaft, no authority beyond it.

Fetch the jars once with ``python tests/kafka/server.py fetch``; start one by hand with
``python tests/kafka/server.py start``.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from confluent_kafka.admin import AdminClient

VERSION = "4.1.0"
USER, PASSWORD = "pgb-reader", "correct horse"
_START_S = 60.0
_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"
_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"
_OAUTH = "org.apache.kafka.common.security.oauthbearer"
_STORE_PASSWORD = "self-signed"
# Nothing is dropped for its age: the clocks of many tests stand still in the past.
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:{plain},SCRAM://127.0.0.1:{scram},OAUTH://127.0.0.1:{oauth},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},SCRAM://127.0.0.1:{scram},OAUTH://127.0.0.1:{oauth}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,SCRAM:SASL_PLAINTEXT,OAUTH:SASL_SSL
inter.broker.listener.name=PLAIN
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config={module} required;
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config={tokens}.OAuthBearerLoginModule required \\
  unsecuredLoginStringClaim_sub="server";
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class={tokens}.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler
listener.name.oauth.ssl.keystore.type=PKCS12
listener.name.oauth.ssl.keystore.location={folder}/server.p12
listener.name.oauth.ssl.keystore.password={store_password}
log.dirs={folder}/data
log.retention.ms=-1
auto.create.topics.enable=true
num.partitions=4
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes=4000000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.backoff.ms=200
"""


def jars_folder() -> Path:
    """Return where the jars are kept."""
    named = os.environ.get("PGB_TEST_KAFKA_JARS")
    return Path(named) if named else Path(platformdirs.user_cache_dir("pgb")) / f"kafka-{VERSION}"


def what_is_missing() -> str:
    """Say why no server can be started here; empty if one can."""
    if shutil.which("java") is None or shutil.which("keytool") is None:
        return "no Java here: Apache Kafka cannot be started"
    if not (jars_folder() / f"kafka_2.13-{VERSION}.jar").is_file():
        return "no Kafka jars here: run python tests/kafka/server.py fetch"
    return ""


def fetch() -> None:
    """Let Maven resolve Kafka's jars into the cache."""
    if what_is_missing().startswith("no Kafka jars"):
        pom = Path(__file__).with_name("pom.xml")
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={jars_folder()}"]
        subprocess.run(["mvn", "-q", "-B", "-f", str(pom), *goal], check=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass
class KafkaServer:
    """One Kafka node whose data outlives its process until `remove`."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pgb-kafka-")))
    ports: list[int] = field(default_factory=lambda: _free_ports(4))
    _process: subprocess.Popen[bytes] | None = None

    @property
    def plain(self) -> str:
        """Address of the listener without login."""
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def scram(self) -> str:
        """Address of the SASL_PLAINTEXT listener with SCRAM-SHA-512."""
        return f"127.0.0.1:{self.ports[1]}"

    @property
    def oauth(self) -> str:
        """Address of the SASL_SSL listener with OAUTHBEARER, which takes unsigned tokens."""
        return f"127.0.0.1:{self.ports[2]}"

    @property
    def certificate(self) -> Path:
        """The server's own certificate, which clients of that listener must trust."""
        return self.folder / "server.pem"

    def format(self) -> None:
        """Write the properties and make the data folder, with the one user."""
        plain, scram, oauth, controller = self.ports
        text = _PROPERTIES.format(
            plain=plain,
            scram=scram,
            oauth=oauth,
            controller=controller,
            folder=self.folder,
            module=_MODULE,
            tokens=_OAUTH,
            store_password=_STORE_PASSWORD,
        )
        self._certify()
        self._properties.write_text(text)
        login = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        command = ["format", "-t", _CLUSTER, "-c", str(self._properties), "--add-scram", login]
        done = subprocess.run(
            [*self._java("128m"), "kafka.tools.StorageTool", *command], capture_output=True
        )
        if done.returncode:
            raise RuntimeError(f"Kafka's storage cannot be made: {done.stderr.decode()}")

    def _certify(self) -> None:
        """Make a key and a certificate that nobody else vouches for."""
        store = ["-keystore", str(self.folder / "server.p12"), "-storepass", _STORE_PASSWORD]
        named = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-validity", "30"]
        make = ["-genkeypair", "-alias", "server", "-keyalg", "RSA", *named]
        show = ["-exportcert", "-alias", "server", "-rfc", "-file", str(self.certificate)]
        for command in (make, show):
            subprocess.run(["keytool", *command, *store], check=True, capture_output=True)

    def start(self) -> "KafkaServer":
        """Start the process and wait until it answers."""
        if not self._properties.exists():
            self.format()
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java("768m"), "kafka.Kafka", str(self._properties)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()
        return self

    def kill(self) -> None:
        """End the process at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process in order."""
        self._end(signal.SIGTERM)

    def remove(self) -> None:
        """End the process and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, memory: str) -> list[str]:
        options = [f"-Xmx{memory}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4"]
        return ["java", *options, "-cp", str(jars_folder() / "*")]

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.ports[0]), 1):
                    admin = AdminClient({"bootstrap.servers": self.plain, "log_level": 0})
                    admin.list_topics(timeout=10)
                    return
            except OSError:
                time.sleep(0.1)
        tail = (self.folder / "log.txt").read_text()[-2000:]
        raise RuntimeError(f"Apache Kafka did not start: {tail}")

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)


def main() -> None:
    """Fetch the jars, or start a server until Ctrl-C or SIGTERM."""
    if sys.argv[1:] == ["fetch"]:
        fetch()
        print(what_is_missing() or f"Apache Kafka {VERSION} is in {jars_folder()}")
        return
    if reason := what_is_missing():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = KafkaServer()
    try:
        server.start()
        print(f"plain {server.plain}  SCRAM-SHA-512 {server.scram} (user {USER})", flush=True)
        print(f"SSL, OAUTHBEARER {server.oauth}, certificate {server.certificate}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.remove()


if __name__ == "__main__":
    main()
