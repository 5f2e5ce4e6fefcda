"""Buckets of Cloud Storage keep the contract, through Google's own client."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("google.cloud.storage")

from broker.config import Settings
from broker.connectors.files.gcs import GcsFiles
from broker.connectors.gcp.clients import Cloud
from broker.errors import ConfigError, ForbiddenError, TransientError, UsageError
from broker.testing.files_contract import ReplacingFilesContract
from gcp.storage_emulator import running, what_is_missing

_PROJECT = "a-test-project"
_needs_emulator = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """Return a project on an emulator of its own, empty."""
    with running() as url:
        yield Cloud(_PROJECT, storage=url)


@_needs_emulator
class TestGcsFiles(ReplacingFilesContract):
    @pytest.fixture
    def files(self, cloud: Cloud) -> GcsFiles:
        """Return the files under test."""
        return GcsFiles(cloud)

    def test_google_sees_type_and_metadata(self, files: GcsFiles, cloud: Cloud) -> None:
        """Google's client finds the content type and the metadata apart."""
        files.create("bucket", "x.png", b"png", {"contentType": "image/png", "candid": "12"})

        blob = cloud.store.bucket("bucket").get_blob("x.png")
        assert (blob.content_type, blob.metadata) == ("image/png", {"candid": "12"})

    def test_bucket_has_uniform_access(self, files: GcsFiles, cloud: Cloud) -> None:
        """A bucket that was absent is made in the cloud's region."""
        files.create("bucket", "x", b"", {})

        assert cloud.store.get_bucket("bucket").location == "US-CENTRAL1"

    def test_many_threads_store_an_object_once(self, files: GcsFiles) -> None:
        """Of 32 threads with one name, one stores; a bucket is made but once."""
        with ThreadPoolExecutor(32) as pool:
            told = list(pool.map(lambda i: files.create("bucket", "x", b"%d" % i, {}), range(32)))

        assert sum(told) == 1
        assert files.read("bucket", "x") == b"%d" % told.index(True)

    def test_generation_of_another(self, files: GcsFiles, cloud: Cloud) -> None:
        """An object that Google's client stored is not changed."""
        files.create("bucket", "first", b"", {})
        cloud.store.bucket("bucket").blob("x").upload_from_string(b"theirs")

        assert not files.create("bucket", "x", b"ours", {})
        assert files.read("bucket", "x") == b"theirs"

    def test_big_object(self, files: GcsFiles) -> None:
        """An object above 8 MB is sent in parts, and once."""
        data = bytes(range(256)) * 78_125

        assert files.create("bucket", "big", data, {"k": "v"})
        assert files.read("bucket", "big") == data
        assert not files.create("bucket", "big", b"\0" * len(data), {})
        assert files.read("bucket", "big") == data

    def test_objects_outlive_the_emulator(self, tmp_path: Path) -> None:
        """What was stored in a folder is there for the next emulator."""
        for expected in (True, False):
            with running(tmp_path) as url:
                files = GcsFiles(Cloud(_PROJECT, storage=url))
                assert files.create("bucket", "x", b"", {}) is expected

    def test_list_of_many_pages(self, files: GcsFiles) -> None:
        """A list longer than a page of the service is whole and in order."""
        names = [f"{i:04d}" for i in range(1_100)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: files.create("bucket", name, b"", {}), names))

        assert [info.name for info in files.list("bucket")] == names

    @pytest.mark.parametrize("name", ["x" * 1025, "a\nb"])
    def test_name_that_the_service_refuses(self, files: GcsFiles, name: str) -> None:
        """A name that no bucket can have is refused before anything is sent."""
        with pytest.raises(UsageError, match="one line"):
            files.create("bucket", name, b"", {})


@_needs_emulator
def test_place() -> None:
    """A place is a project on the settings' emulator."""
    with running() as url:
        files = GcsFiles.from_url(f"gs://{_PROJECT}", Settings(storage_emulator=url))
        assert files.create("bucket", "x", b"", {})


@pytest.mark.parametrize(("place", "words"), [("gs://", "project"), ("gs://my-project/x", "more")])
def test_place_not_understood(place: str, words: str) -> None:
    """A place without a project, or with more, is refused in words."""
    with pytest.raises(ConfigError, match=words):
        GcsFiles.from_url(place, Settings())


def test_no_emulator() -> None:
    """An emulator that is not running is told soon, and by its address."""
    files = GcsFiles(Cloud(_PROJECT, storage="http://127.0.0.1:9"))
    begin = time.monotonic()

    with pytest.raises(TransientError, match=r"no emulator answers at http://127\.0\.0\.1:9"):
        files.create("bucket", "x", b"", {})
    assert time.monotonic() - begin < 6


class _Scripted(BaseHTTPRequestHandler):
    """A service that gives the answers of its script, the last one again and again."""

    script: list[tuple[int, dict[str, Any]]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _answer(code: int, words: str) -> tuple[int, dict[str, Any]]:
    return code, {"error": {"code": code, "message": words, "errors": []}}


@pytest.fixture
def scripted() -> Iterator[tuple[str, type[_Scripted]]]:
    """Return the address of a service and its script."""

    class Handler(_Scripted):
        """A script of this test's own."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Handler
    server.shutdown()
    thread.join()
    server.server_close()


class TestAnswersOfTheService:
    def test_tries_again(self, scripted: tuple[str, type[_Scripted]]) -> None:
        """A service that is busy is asked again."""
        address, service = scripted
        files = GcsFiles(Cloud(_PROJECT, storage=address))
        service.script = [_answer(503, "busy"), _answer(429, "slow down"), (200, {"name": "x"})]

        assert files.create("bucket", "x", b"data", {})

    def test_stays_away(self, scripted: tuple[str, type[_Scripted]]) -> None:
        """A service that stays busy is a matter of time."""
        address, service = scripted
        files = GcsFiles(Cloud(_PROJECT, storage=address))
        service.script = [_answer(503, "busy")]

        with pytest.raises(TransientError):
            files.create("bucket", "x", b"data", {})

    def test_proxy(
        self, scripted: tuple[str, type[_Scripted]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The environment's proxy is used, as by every client of Google's."""
        address, service = scripted
        service.script = [(200, {"name": "x"})]
        monkeypatch.setenv("http_proxy", address)
        files = GcsFiles(Cloud(_PROJECT, storage="http://storage.invalid"))

        assert files.create("bucket", "x", b"data", {})

    def test_permission_denied(self, scripted: tuple[str, type[_Scripted]]) -> None:
        """A role that lacks is told as such."""
        address, service = scripted
        files = GcsFiles(Cloud(_PROJECT, storage=address))
        service.script = [_answer(403, "you do not have storage.objects.create access")]

        with pytest.raises(ForbiddenError, match="permission denied"):
            files.create("bucket", "x", b"data", {})
