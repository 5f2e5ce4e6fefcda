"""A running server on a home: started, ready, and stopped in order."""

import errno
import fcntl
import ipaddress
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from broker.apps.pubsub import front
from broker.apps.pubsub.front import GRPC_SOCKET, HTTP_SOCKET
from broker.apps.pubsub.grpc_service import make_server
from broker.apps.pubsub.rest import HttpServer
from broker.apps.pubsub.services import Services
from broker.config import Secret
from broker.errors import UsageError
from broker.wiring import Broker

_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and what callers must know.

    Parameters
    ----------
    host : str
        Name or address of an interface.
    port : int
        0 takes a free one.
    token : Secret
        What callers must send; empty asks nothing.
    open_to_all : bool
        Whether others on the network may come without a token.
    """

    host: str = "127.0.0.1"
    port: int = 8085
    token: Secret = field(default_factory=Secret)
    open_to_all: bool = False

    def check(self) -> None:
        """Refuse to listen to the network without a token, unless that is wished.

        Raises
        ------
        UsageError
            With what to do.
        """
        if not (_is_here(self.host) or self.token.reveal() or self.open_to_all):
            raise UsageError(
                f"on {self.host} everyone on the network could read and write this home: "
                "give --token-file, or --allow-anyone if that is meant"
            )


@contextmanager
def serving(broker: Broker, address: Address, *, from_start: bool = False) -> Iterator[str]:
    """Serve a home while the block lasts; give ``host:port``.

    Raises
    ------
    UsageError
        If the port is in use, or another server is at work on the home.
    """
    address.check()
    with ExitStack() as stack:
        stack.enter_context(_only_one(broker.home, broker.settings.worker))
        listener = stack.enter_context(_listen(address))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="pgb-pubsub-")))
        stack.callback(broker.stream.close)
        services = Services(broker.stream, broker.settings.worker, from_start=from_start)
        keeper = _Front(listener, folder)
        keeper.start()
        stack.callback(keeper.stop)
        _start(services, folder, address.token, stack)
        host = f"[{address.host}]" if ":" in address.host else address.host
        yield f"{host}:{listener.getsockname()[1]}"


def _start(services: Services, folder: Path, token: Secret, stack: ExitStack) -> None:
    """Start the services on sockets that only this user can reach."""
    http = stack.enter_context(HttpServer(str(folder / HTTP_SOCKET), services, token))
    threading.Thread(target=http.serve_forever, name="pubsub-http", daemon=True).start()
    stack.callback(http.shutdown)
    grpc = make_server(services, token)
    grpc.add_insecure_port(f"unix:{folder / GRPC_SOCKET}")
    grpc.start()
    services.start()
    stack.callback(lambda: grpc.stop(_GRACE_S).wait())
    stack.callback(services.stop)


class _Front(threading.Thread):
    """Keeps the process that clients connect to alive."""

    def __init__(self, listener: socket.socket, folder: Path) -> None:
        super().__init__(name="pubsub-front", daemon=True)
        self._listener = listener
        self._folder = folder
        self._stopping = False
        self._guard = threading.Lock()
        self._process = self._begin()

    def run(self) -> None:
        """Begin again whenever the process ends, until `stop`."""
        while True:
            self._process.wait()
            with self._guard:
                if self._stopping:
                    return
                self._process = self._begin()

    def stop(self) -> None:
        """End the process, which its standard input tells."""
        with self._guard:
            self._stopping = True
            if self._process.stdin is not None:
                self._process.stdin.close()
        self.join()

    def _begin(self) -> "subprocess.Popen[bytes]":
        descriptor = self._listener.fileno()
        return subprocess.Popen(
            [sys.executable, "-m", front.__name__, str(descriptor), str(self._folder)],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
        )


def _listen(address: Address) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family, backlog=128)
    except OSError as error:
        place = f"{address.host}:{address.port}"
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"{place} is in use: end what listens there, or give another --port (0: a free one)"
            ) from error
        raise UsageError(f"cannot listen on {place}: {error.strerror or error}") from error


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _only_one(home: Path, worker: str) -> Iterator[None]:
    """Hold the place of this server on the home."""
    path = home / "locks" / f"pubsub-{worker}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise UsageError(f"the home {home} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UsageError(
                f"a server is already at work on {home} (process {file.read().strip() or '?'})"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
