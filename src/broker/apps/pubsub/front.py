"""One port for gRPC and HTTP: bytes go on to the one or the other, as Google's emulator does.

It is a process of its own, so that bytes flow while the server computes; it ends with the
server, whatever ends that.
"""

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

GRPC_SOCKET, HTTP_SOCKET = "grpc", "http"
"""Names of the sockets in the server's folder."""

# How HTTP/2 starts; no other request does.
_HTTP2 = b"PRI"
_CHUNK = 2**20
_PIPE_BYTES = 2**20


def main() -> None:
    """Accept on an inherited socket until the standard input ends."""
    descriptor, folder = int(sys.argv[1]), Path(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    listener = socket.socket(fileno=descriptor)
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            continue
        threading.Thread(target=_connect, args=(client, folder), daemon=True).start()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _connect(client: socket.socket, folder: Path) -> None:
    with client, suppress(OSError):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = client.recv(len(_HTTP2), socket.MSG_PEEK | socket.MSG_WAITALL)
        name = GRPC_SOCKET if start == _HTTP2 else HTTP_SOCKET
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(str(folder / name))
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Move bytes until the source ends."""
    with suppress(OSError):
        (_splice if hasattr(os, "splice") else _copy)(source, target)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _splice(source: socket.socket, target: socket.socket) -> None:
    """Move bytes within the kernel."""
    out, into = os.pipe()
    try:
        _widen(into)
        while count := os.splice(source.fileno(), into, _CHUNK):
            while count:
                count -= os.splice(out, target.fileno(), count)
    finally:
        os.close(out)
        os.close(into)


def _widen(pipe: int) -> None:
    import fcntl

    with suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _copy(source: socket.socket, target: socket.socket) -> None:
    buffer = memoryview(bytearray(_CHUNK))
    while count := source.recv_into(buffer):
        target.sendall(buffer[:count])


if __name__ == "__main__":
    main()
