"""Buckets as folders."""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from broker.connectors.disk import disk_errors, flush
from broker.connectors.files.names import METADATA_SUFFIX, check_bucket, check_name
from broker.errors import NotFoundError
from broker.ports import FileInfo


class FolderFiles:
    """`Files` on disk: ``<root>/<bucket>/<name>``, readable by anything.

    An object appears whole, with its metadata beside it in a ``.meta.json``.

    Parameters
    ----------
    root : Path
        The folder of all buckets.
    sync : bool
        Whether an object is flushed to the disk before `create` returns.
    """

    def __init__(self, root: Path, *, sync: bool = False) -> None:
        self._root = root
        self._sync = sync

    def create(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> bool:
        """Store an object unless it exists; tell whether it was stored.

        Raises
        ------
        UsageError
            If the name is not allowed or the folder cannot be written to.
        TransientError
            If the disk is full; nothing was stored.
        """
        path = self.path(bucket, name)
        with disk_errors(path):
            if path.exists():
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            if metadata:
                self._store(_metadata_path(path), json.dumps(dict(metadata)).encode(), os.replace)
            try:
                self._store(path, data, os.link)
            except FileExistsError:
                return False
        return True

    def replace(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> None:
        """Store an object in place of the one that may be there.

        Raises
        ------
        UsageError, TransientError
            As `create`.
        """
        path = self.path(bucket, name)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store(_metadata_path(path), json.dumps(dict(metadata)).encode(), os.replace)
            self._store(path, data, os.replace)

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object; one that is not there is no error.

        Raises
        ------
        UsageError
            If the name is not allowed or the folder cannot be written to.
        """
        path = self.path(bucket, name)
        with disk_errors(path):
            path.unlink(missing_ok=True)
            _metadata_path(path).unlink(missing_ok=True)

    def read(self, bucket: str, name: str) -> bytes:
        """Return an object's bytes.

        Raises
        ------
        NotFoundError
            If there is no such object.
        """
        path = self.path(bucket, name)
        with disk_errors(path):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise NotFoundError(f"bucket {bucket!r} has no object {name!r}") from error

    def list(self, bucket: str, prefix: str = "") -> Iterator[FileInfo]:
        """Iterate over the objects whose names start with `prefix`, in order of name."""
        check_bucket(bucket)
        return _walk(self._root / bucket, "", prefix)

    def path(self, bucket: str, name: str) -> Path:
        """Return where an object lies, or would.

        Raises
        ------
        UsageError
            If the name is not allowed.
        """
        check_bucket(bucket)
        check_name(name)
        return self._root / bucket / name

    def _store(self, path: Path, data: bytes, appear: Callable[[Path, Path], None]) -> None:
        """Write beside `path`, then let it appear: `os.link` keeps an older one."""
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb", buffering=0) as file:
                file.write(data)
                if self._sync:
                    flush(file.fileno())
            appear(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _walk(folder: Path, path: str, prefix: str) -> Iterator[FileInfo]:
    try:
        entries = [(it.name + "/" * it.is_dir(), it) for it in os.scandir(folder)]
    except FileNotFoundError:
        return
    for name, entry in sorted(entries, key=lambda it: it[0]):
        full = path + name
        if name.startswith(".") or name.endswith(METADATA_SUFFIX):
            continue
        if name.endswith("/") and (full.startswith(prefix) or prefix.startswith(full)):
            yield from _walk(Path(entry.path), full, prefix)
        elif full.startswith(prefix):
            with suppress(FileNotFoundError):  # removed since the folder was read
                size = Path(entry.path).stat().st_size
                yield FileInfo(full, size, _metadata(Path(entry.path)))


def _metadata(path: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(_metadata_path(path).read_bytes())
    except FileNotFoundError:
        return {}
    return found


def _metadata_path(path: Path) -> Path:
    return path.with_name(path.name + METADATA_SUFFIX)
