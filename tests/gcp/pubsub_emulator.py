"""Google's own Pub/Sub emulator on this machine for tests: in memory, loopback only.

It comes with the Google Cloud CLI (``gcloud components install pubsub-emulator``) and needs
Java; start one by hand with ``python tests/gcp/pubsub_emulator.py``.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

_START_S = 60.0
# Java that ends with its standard input, whatever becomes of those who started it.
_UNTIL_EOF = ["sh", "-c", 'java "$@" </dev/null & read -r _; kill -9 $!; wait $!', "emulator"]


@cache
def jar() -> Path | None:
    """Return the emulator's jar, None where it is not installed."""
    named = os.environ.get("PGB_TEST_PUBSUB_JAR")
    if named:
        return Path(named)
    folder = _sdk_root() / "platform" / "pubsub-emulator" / "lib"
    return max(folder.glob("cloud-pubsub-emulator-*-all.jar"), default=None)


def what_is_missing() -> str:
    """Say why no emulator can be started here; empty if one can."""
    if shutil.which("java") is None:
        return "no Java here: Google's Pub/Sub emulator cannot be started"
    if jar() is None:
        return "no Pub/Sub emulator here: run gcloud components install pubsub-emulator"
    return ""


@contextmanager
def running(memory: str = "1g") -> Iterator[str]:
    """Run an emulator and give its address, ``127.0.0.1:port``; it ends with the block.

    Parameters
    ----------
    memory : str
        The most heap that Java may take; the emulator never frees a message.
    """
    with tempfile.TemporaryFile() as log:
        port = _free_port()
        options = [f"-Xmx{memory}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4"]
        process = subprocess.Popen(
            [*_UNTIL_EOF, *options, "-jar", str(jar()), "--host=127.0.0.1", f"--port={port}"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(process, port, log)
            yield f"127.0.0.1:{port}"
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(30)


def _sdk_root() -> Path:
    if shutil.which("gcloud") is None:
        return Path("no-sdk")
    asked = ["gcloud", "info", "--format=value(installation.sdk_root)"]
    return Path(subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "no-sdk")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(process: "subprocess.Popen[bytes]", port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    log.seek(0)
    raise RuntimeError(f"Google's emulator did not start: {log.read().decode()[-2000:]}")


def main() -> None:
    """Run an emulator until Ctrl-C."""
    if reason := what_is_missing():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.signal(signal.SIGINT, lambda *_: sys.exit())
    with running() as address:
        print(f"export PUBSUB_EMULATOR_HOST={address}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
