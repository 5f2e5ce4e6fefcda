"""Large files over HTTP: resumed where they broke off, there whole or not at all."""

import fcntl
import hashlib
import http.client
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from broker.connectors.disk import disk_errors
from broker.errors import (
    ForbiddenError,
    NotFoundError,
    RefusedError,
    ServiceError,
    TransientError,
    UsageError,
)

_CHUNK = 1 << 20
_MOST_TEXT = 16 << 20
_LONGEST_PAUSE_S = 30.0
_RANGE_NOT_SATISFIABLE = 416
_KINDS: Mapping[int, type[ServiceError]] = {
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    410: NotFoundError,
    # The server has another file than the one that was begun: begin again.
    _RANGE_NOT_SATISFIABLE: TransientError,
    408: TransientError,
    429: TransientError,
}


class _WholeError(Exception):
    """Nothing is left to fetch: a process ended between the last byte and the renaming."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a download is: bytes that are here, and bytes of all if that is known."""

    done: int
    total: int | None


@dataclass(frozen=True)
class Download:
    """One file to fetch.

    What was fetched before is kept beside the file and continued, if the server still has the
    same file; a download that breaks off goes on by itself.

    Parameters
    ----------
    url : str
        Where it is; http or https.
    file : Path
        Where it goes; it appears by rename, when it is whole.
    md5 : callable, optional
        Returns the digest that it must have, None if that is not known.
    tries : int
        Failures in a row, without a byte between them, after which it is given up.
    timeout_s : float
        Longest silence, s.
    sleep : callable
        Waits between two tries.
    """

    url: str
    file: Path
    md5: Callable[[], str | None] = lambda: None
    tries: int = 5
    timeout_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    @property
    def partial(self) -> Path:
        """The file while it is not whole."""
        return self.file.with_name(f"{self.file.name}.partial")

    @property
    def _mark(self) -> Path:
        """File that says of which version of the remote file the partial one is."""
        return self.file.with_name(f"{self.file.name}.version")

    def steps(self) -> Iterator[Step]:
        """Fetch the file, unless it is there; yield how far it is.

        Raises
        ------
        NotFoundError
            If the server has no such file.
        TransientError
            If the server does not answer, or the connection broke too often; what was fetched
            is kept.
        RefusedError
            If the file has another digest than it must have; nothing is kept.
        UsageError
            If another process fetches it, or the disk has no room for it.
        """
        if self.file.exists():
            return
        with disk_errors(self.partial), self._alone():
            yield from self._all_tries()
            yield from self._verified()
            self.partial.rename(self.file)
            self._mark.unlink(missing_ok=True)

    def _all_tries(self) -> Iterator[Step]:
        failures = 0
        while True:
            before = self._size()
            try:
                yield from self._one_try(before)
            except _WholeError:
                return
            except TransientError:
                failures = 1 if self._size() > before else failures + 1
                if failures >= self.tries:
                    raise
                self.sleep(min(2.0**failures, _LONGEST_PAUSE_S))
            else:
                return

    def _one_try(self, have: int) -> Iterator[Step]:
        with _answer(self._request(have), self.timeout_s, self._forget) as answer:
            start, total = _extent(answer.headers, have)
            self._keep_version(answer.headers)
            self._look_for_room(start, total)
            done = start
            with self.partial.open("r+b" if start else "wb") as out:
                out.seek(start)
                out.truncate()
                while chunk := answer.read(_CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    yield Step(done, total)
        if total is not None and done != total:
            raise TransientError(f"{self.url} broke off after {done:,} of {total:,} bytes")

    def _request(self, have: int) -> Request:
        headers = {"User-Agent": "pitt-google-broker", "Accept-Encoding": "identity"}
        if have and self._mark.exists():
            headers |= {"Range": f"bytes={have}-", "If-Range": self._mark.read_text()}
        return Request(self.url, headers=headers)  # noqa: S310 - the scheme is checked by who asks

    def _keep_version(self, headers: Message) -> None:
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        if version and not version.startswith("W/"):
            self._mark.write_text(version)
        else:
            self._mark.unlink(missing_ok=True)

    def _forget(self, error: HTTPError) -> None:
        if error.code == _RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{self._size()}":
                raise _WholeError
            self.partial.unlink(missing_ok=True)

    def _look_for_room(self, start: int, total: int | None) -> None:
        room = shutil.disk_usage(self.file.parent).free
        if total is not None and total - start > room:
            raise UsageError(
                f"{self.url} has {total - start:,} bytes more, {self.file.parent} room for {room:,}"
            )

    def _verified(self) -> Iterator[Step]:
        expected, size = self.md5(), self._size()
        if expected is None:
            return
        digest = hashlib.md5(usedforsecurity=False)
        with self.partial.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                yield Step(size, size)
        if digest.hexdigest() != expected.lower():
            self.partial.unlink()
            self._mark.unlink(missing_ok=True)
            raise RefusedError(
                f"{self.url} is damaged: its MD5 is {digest.hexdigest()}, not {expected};"
                " nothing of it is kept"
            )

    def _size(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from the same file."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.with_name(f"{self.file.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"another process fetches {self.url}: wait for it") from error
            yield


def read_text(url: str, timeout_s: float = 30.0) -> str:
    """Return a small text file.

    Raises
    ------
    NotFoundError
        If there is none.
    TransientError
        If the server does not answer.
    """
    with _answer(Request(url), timeout_s) as answer:  # noqa: S310 - as above
        return answer.read(_MOST_TEXT).decode(errors="replace")


@contextmanager
def _answer(
    request: Request, timeout_s: float, on_error: Callable[[HTTPError], None] = lambda _: None
) -> Iterator["http.client.HTTPResponse"]:
    """Open a URL; errors of the way there become ours, those of a disk do not."""
    url = request.full_url
    try:
        answer = urlopen(request, timeout=timeout_s)  # noqa: S310 - as above
    except HTTPError as error:
        with error:
            on_error(error)
            kind = _KINDS.get(error.code, TransientError if error.code >= 500 else RefusedError)
            raise kind(f"{url}: the server answers {error.code} {error.reason}") from error
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise TransientError(f"{url}: the server does not answer: {reason}") from error
    with answer:
        yield _Reader(answer, url)  # type: ignore[misc]


class _Reader:
    """An answer whose breaks are ours."""

    def __init__(self, answer: IO[bytes], url: str) -> None:
        self._answer = answer
        self._url = url
        self.headers: Message = answer.headers  # type: ignore[attr-defined]

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; nothing at the end."""
        try:
            return self._answer.read(size)
        except http.client.IncompleteRead as error:
            return error.partial
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{self._url} broke off: {error}") from error


def _extent(headers: Message, have: int) -> tuple[int, int | None]:
    """Return where an answer starts in the file, and how large the file is."""
    length = headers.get("Content-Length")
    size = int(length) if length is not None and length.isdigit() else None
    begin, _, whole = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if begin.partition("-")[0] == str(have) and have:
        return have, int(whole) if whole.isdigit() else (have + size if size is not None else None)
    return 0, size
