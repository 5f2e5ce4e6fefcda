"""An archive of nights on the loopback, which fails when a test wants it to."""

import email.utils
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = "/alerts/public/"


@dataclass
class ArchiveServer:
    """Files of a folder, with ranges, as the archive's own server sends them.

    Attributes
    ----------
    folder : Path
        What it has.
    breaks : list of int
        The next answers break off after so many bytes, one each.
    statuses : list of int
        The next answers are these instead, one each.
    ranges : bool
        Whether it goes on in the middle of a file.
    asked : list of (str, str or None)
        Name and range of each request.
    """

    folder: Path
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def running(self) -> Iterator["ArchiveServer"]:
        """Serve, until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}{FOLDER}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def tarballs_asked(self) -> list[str | None]:
        """Return the range of each request for a tarball."""
        return [wanted for name, wanted in self.asked if name.endswith(".tar.gz")]


def _handler(served: ArchiveServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep quiet."""

        def do_GET(self) -> None:
            """Answer with a file, from where it is wanted."""
            name, wanted = self.path.removeprefix(FOLDER), self.headers.get("Range")
            served.asked.append((name, wanted))
            file = served.folder / name
            if served.statuses and name.endswith(".gz"):
                self.send_error(served.statuses.pop(0))
            elif not file.is_file():
                self.send_error(404)
            else:
                self._send(file, wanted)

        def _send(self, file: Path, wanted: str | None) -> None:
            data = file.read_bytes()
            version = email.utils.formatdate(file.stat().st_mtime, usegmt=True)
            same = self.headers.get("If-Range") == version
            start = int(wanted[6:-1]) if wanted and served.ranges and same else 0
            if start > len(data) or (start and start == len(data)):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Last-Modified", version)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            breaks = served.breaks.pop(0) if served.breaks and file.suffix == ".gz" else None
            self.wfile.write(data[start:][:breaks])

    return Handler
