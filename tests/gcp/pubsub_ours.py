"""Our own Pub/Sub server for tests: a process on a home, killed or stopped at will."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Served:
    """A running server."""

    process: "subprocess.Popen[str]"
    address: str

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> str:
        """End it as Ctrl-C does; return what it said."""
        self._end(signal.SIGINT)
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def _end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(30)


def command(home: Path, *more: str) -> list[str]:
    """Return the command that serves a home."""
    main = "from broker.apps.cli import main; main()"
    return [sys.executable, "-c", main, "pubsub", "serve", "--home", str(home), *more]


@contextmanager
def running(home: Path, *more: str) -> Iterator[Served]:
    """Serve a home on a free port while the block lasts."""
    options = more if "--port" in more else ("--port", "0", *more)
    process = subprocess.Popen(command(home, *options), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"on (\S+:\d+)", process.stdout.readline())
        assert found, "the server did not become ready"
        yield Served(process, found[1])
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
        process.stdout.close()
