"""Sets of small files in a bucket, each set a version that stays.

A bucket holds::

    blobs/<sha256>            contents, stored once and never changed
    versions/<number>.json    which contents a version has, by name: stored once too
    <name>                    a copy of each file of the latest version, for plain readers

Two who push at one time cannot lose each other's files: a version is stored on the condition
that its number is free, and who comes second builds on the first.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

from broker.connectors.files.names import check_name
from broker.errors import NotFoundError, RefusedError, TransientError, UsageError
from broker.ports import Files

_BLOBS, _VERSIONS = "blobs/", "versions/"
_VERSION = re.compile(r"versions/(\d{6})\.json\Z")
# Each try that fails means that another's push succeeded in the meantime.
_TRIES = 50
_MOST_NAME_BYTES = 200

Digests = Mapping[str, str]


class ReplacingFiles(Files, Protocol):
    """Buckets whose objects can be replaced and removed."""

    def replace(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> None:
        """Store an object in place of the one that may be there."""
        ...

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        ...


@dataclass(frozen=True, slots=True)
class Note:
    """Who changes something, when (ISO 8601) and why."""

    who: str
    when: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One set of files.

    Parameters
    ----------
    number : int
        Counts from 1; 0 is the empty set before the first.
    note : Note
        Who stored it, when and why.
    files : mapping of str to str
        SHA-256 of each file's content by its name.
    restores : int, optional
        The older version that it equals on purpose.
    """

    number: int = 0
    note: Note = field(default_factory=lambda: Note("", ""))
    files: Digests = field(default_factory=dict)
    restores: int | None = None

    def changes(self, before: "Version") -> list[str]:
        """Name the files that are not as they were in another version."""
        names = {*self.files, *before.files}
        return sorted(name for name in names if self.files.get(name) != before.files.get(name))


class VersionedFiles:
    """The versions of one bucket.

    Parameters
    ----------
    files : ReplacingFiles
        Where the bucket is.
    bucket : str
        Its name.
    """

    def __init__(self, files: ReplacingFiles, bucket: str) -> None:
        self._files = files
        self.bucket = bucket

    def versions(self) -> list[Version]:
        """Return all versions, oldest first."""
        return [self.version(number) for number in self._numbers()]

    def latest(self) -> Version | None:
        """Return the version in force; None if nothing was ever pushed."""
        numbers = self._numbers()
        return self.version(numbers[-1]) if numbers else None

    def version(self, number: int) -> Version:
        """Return a version.

        Raises
        ------
        NotFoundError
            If there is none of that number.
        RefusedError
            If what is stored is no version.
        """
        try:
            data = self._files.read(self.bucket, _path(number))
        except NotFoundError as error:
            raise NotFoundError(f"bucket {self.bucket!r} has no version {number}") from error
        return _parsed(number, data)

    def read(self, version: Version, name: str) -> bytes:
        """Return a file as a version has it.

        Raises
        ------
        NotFoundError
            If the version has no such file.
        RefusedError
            If the content is not what was pushed.
        """
        if name not in version.files:
            raise NotFoundError(f"version {version.number} has no file {name!r}")
        return self._blob(version.files[name])

    def plain(self, name: str) -> bytes:
        """Return the copy of a file that plain readers see.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        return self._files.read(self.bucket, name)

    def push(self, changes: Mapping[str, bytes | None], note: Note) -> Version:
        """Store files as a new version and return it; the latest if nothing changes.

        Parameters
        ----------
        changes : mapping
            Contents by name; files that are not named stay, None takes one away.
        note : Note
            Who, when and why.

        Raises
        ------
        UsageError
            If a name is not allowed.
        TransientError
            If the place does not answer. The version may be stored; the same again is safe.
        """
        for name in changes:
            _check(name)
        digests = {name: self._keep(data) for name, data in changes.items() if data is not None}
        gone = changes.keys() - digests.keys()

        def changed(files: Digests) -> Digests:
            found = {name: it for name, it in {**files, **digests}.items() if name not in gone}
            _check_folders(found)
            return found

        return self._append(changed, note)

    def restore(self, number: int, note: Note) -> Version:
        """Store a new version that equals an older one, and return it.

        Raises
        ------
        NotFoundError
            If there is no such version.
        RefusedError
            If one of its files is damaged.
        """
        old = self.version(number)
        for digest in old.files.values():
            self._blob(digest)
        return self._append(lambda _: old.files, note, restores=number)

    def _append(
        self, changed: Callable[[Digests], Digests], note: Note, restores: int | None = None
    ) -> Version:
        for _ in range(_TRIES):
            base = self.latest() or Version()
            files = changed(base.files)
            if files == base.files:
                self._copy()
                return base
            new = Version(base.number + 1, note, files, restores)
            if self._files.create(self.bucket, _path(new.number), _written(new), _JSON):
                self._copy()
                return new
        raise TransientError(f"others push to bucket {self.bucket!r} all the time; try again")

    def _copy(self) -> None:
        """Make the plain copies equal to the latest version, whoever stored it last."""
        for _ in range(_TRIES):
            before = self.latest() or Version()
            self._copy_of(before)
            if (self.latest() or Version()).number == before.number:
                return

    def _copy_of(self, version: Version) -> None:
        infos = [it for it in self._files.list(self.bucket) if "sha256" in it.metadata]
        there = {it.name: it.metadata["sha256"] for it in infos}
        for name, digest in version.files.items():
            if there.get(name) != digest or not self._has_copy(name, digest):
                metadata = {"sha256": digest, "version": str(version.number)}
                self._files.replace(self.bucket, name, self._blob(digest), metadata)
        for name in there.keys() - version.files.keys():
            self._files.remove(self.bucket, name)

    def _has_copy(self, name: str, digest: str) -> bool:
        """Look at the bytes: another one may just be replacing or removing the copy."""
        try:
            return _digest(self.plain(name)) == digest
        except NotFoundError:
            return False

    def _numbers(self) -> list[int]:
        names = (info.name for info in self._files.list(self.bucket, _VERSIONS))
        return sorted(int(found[1]) for name in names if (found := _VERSION.match(name)))

    def _keep(self, data: bytes) -> str:
        digest = _digest(data)
        self._files.create(self.bucket, _BLOBS + digest, data, {})
        return digest

    def _blob(self, digest: str) -> bytes:
        data = self._files.read(self.bucket, _BLOBS + digest)
        if _digest(data) != digest:
            raise RefusedError(
                f"object {_BLOBS + digest!r} of bucket {self.bucket!r} is damaged: delete it and"
                " push the file again"
            )
        return data


_JSON = {"contentType": "application/json"}


def _check(name: str) -> None:
    """Refuse a name under which no copy could be stored, before it is in a version."""
    check_name(name)
    if name.startswith((_BLOBS, _VERSIONS)):
        raise UsageError(f"{name!r} is no name for a file: that is where versions are kept")
    if len(name.encode()) > _MOST_NAME_BYTES or not name.isprintable():
        raise UsageError(
            f"{name!r} is no name for a file: it must be one line of {_MOST_NAME_BYTES} bytes"
            " at most"
        )


def _check_folders(names: Collection[str]) -> None:
    """Refuse a file where another name has a folder, as disks do."""
    everything = (PurePosixPath(name) for name in (*names, _path(1), _BLOBS + "sha256"))
    folders = {str(above) for path in everything for above in path.parents}
    if both := sorted(folders.intersection(names)):
        raise UsageError(f"{both[0]!r} cannot be a file and a folder")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _path(number: int) -> str:
    return f"{_VERSIONS}{number:06d}.json"


def _written(version: Version) -> bytes:
    return json.dumps(asdict(version), indent=1).encode()


def _parsed(number: int, data: bytes) -> Version:
    try:
        content: dict[str, Any] = json.loads(data)
        content["note"] = Note(**content["note"])
        return Version(**content)
    except (ValueError, TypeError, KeyError) as error:
        raise RefusedError(f"version {number} cannot be read: {error}") from error
