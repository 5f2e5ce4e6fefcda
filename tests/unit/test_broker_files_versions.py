"""Versions of sets of small files in a bucket."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.apps.cloud.versions import Note, Version, VersionedFiles
from broker.connectors.files.folder import FolderFiles
from broker.connectors.files.memory import MemoryFiles
from broker.errors import NotFoundError, RefusedError, TransientError, UsageError
from broker.ports import Files

NOTE = Note("me@here", "2026-01-02T03:04:05+00:00", "why not")


@pytest.fixture
def files() -> MemoryFiles:
    """Return where the bucket is."""
    return MemoryFiles()


@pytest.fixture
def versioned(files: MemoryFiles) -> VersionedFiles:
    """Return the versions under test."""
    return VersionedFiles(files, "bucket")


def _copies(files: Files) -> dict[str, bytes]:
    """Return what a plain reader finds."""
    names = [info.name for info in files.list("bucket")]
    plain = [name for name in names if not name.startswith(("blobs/", "versions/"))]
    return {name: files.read("bucket", name) for name in plain}


def test_nothing_was_pushed(versioned):
    """A bucket begins without a version."""
    assert versioned.latest() is None
    assert versioned.versions() == []


def test_a_version_tells_who_when_why_and_what(versioned):
    """A version is read back as it was stored."""
    stored = versioned.push({"maps/a.yaml": b"a: 1\n"}, NOTE)

    assert versioned.latest() == stored
    assert (stored.number, stored.note, stored.restores) == (1, NOTE, None)
    assert versioned.read(stored, "maps/a.yaml") == b"a: 1\n"


def test_files_that_are_not_named_stay(versioned):
    """A push changes the files it names."""
    versioned.push({"a": b"1", "b": b"1"}, NOTE)
    second = versioned.push({"b": b"2", "c": b"2"}, NOTE)

    assert {name: versioned.read(second, name) for name in second.files} == {
        "a": b"1",
        "b": b"2",
        "c": b"2",
    }
    assert second.changes(versioned.version(1)) == ["b", "c"]


def test_a_file_is_taken_away(versioned, files):
    """None takes a file away, its copy too."""
    versioned.push({"a": b"1", "b": b"1"}, NOTE)
    versioned.push({"a": None}, NOTE)

    assert _copies(files) == {"b": b"1"}
    with pytest.raises(NotFoundError, match="version 2 has no file 'a'"):
        versioned.read(versioned.version(2), "a")


def test_the_same_again_is_no_version(versioned):
    """A push of what is there gives the version that has it."""
    first = versioned.push({"a": b"1"}, NOTE)

    assert versioned.push({"a": b"1"}, NOTE) == first
    assert len(versioned.versions()) == 1


def test_going_back(versioned, files):
    """A version of old is stored as the newest, and says so."""
    versioned.push({"a": b"1"}, NOTE)
    versioned.push({"a": b"2", "b": b"2"}, NOTE)
    back = versioned.restore(1, NOTE)

    assert (back.number, back.restores, back.files) == (3, 1, versioned.version(1).files)
    assert _copies(files) == {"a": b"1"}


def test_going_back_to_what_never_was(versioned):
    """A version that is not there cannot be restored."""
    versioned.push({"a": b"1"}, NOTE)

    with pytest.raises(NotFoundError, match="no version 7"):
        versioned.restore(7, NOTE)


def test_damaged_content_is_told(versioned, files):
    """A content that is not what was pushed is never handed out."""
    version = versioned.push({"a": b"1"}, NOTE)
    files.replace("bucket", f"blobs/{version.files['a']}", b"2", {})

    with pytest.raises(RefusedError, match="damaged"):
        versioned.read(version, "a")


def test_damaged_version_is_told(versioned, files):
    """A version that cannot be read is told by its number."""
    files.create("bucket", "versions/000001.json", b"{}", {})

    with pytest.raises(RefusedError, match="version 1 cannot be read"):
        versioned.latest()


def test_copies_that_a_crash_left_old_are_mended(files, versioned):
    """A push whose copies were not made is made whole by the same push again."""
    versioned.push({"a": b"1"}, NOTE)
    files.remove("bucket", "a")
    versioned.push({"a": b"1"}, NOTE)

    assert _copies(files) == {"a": b"1"}


def test_copies_that_someone_edited_are_mended(files, versioned):
    """The copies follow from the version, whatever their metadata say."""
    version = versioned.push({"a": b"1"}, NOTE)
    files.replace("bucket", "a", b"edited", {"sha256": version.files["a"]})
    versioned.push({"a": b"1"}, NOTE)

    assert _copies(files) == {"a": b"1"}


def test_objects_of_others_stay(files, versioned):
    """What someone else put into the bucket is left alone."""
    files.create("bucket", "notes.txt", b"mine", {})
    versioned.push({"a": b"1"}, NOTE)

    assert _copies(files) == {"a": b"1", "notes.txt": b"mine"}


@pytest.mark.parametrize(
    "name",
    ["blobs/x", "versions/000002.json", "../x", "", "a/.b", "a.meta.json", "a\nb", "x" * 300],
)
def test_names_that_are_taken(versioned, name):
    """A file cannot pose as a version or a blob, or lie outside; nothing is stored."""
    with pytest.raises(UsageError):
        versioned.push({name: b""}, NOTE)
    assert versioned.latest() is None


@pytest.mark.parametrize("name", ["maps", "maps/a.yaml/b", "blobs", "versions"])
def test_a_folder_is_no_file(versioned, name):
    """A name that disks could not have beside the others is refused; nothing is stored."""
    first = versioned.push({"maps/a.yaml": b"1"}, NOTE)
    with pytest.raises(UsageError):
        versioned.push({name: b""}, NOTE)
    assert versioned.latest() == first


class _Overtaken(MemoryFiles):
    """Each time a version is about to be stored, another one was faster, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    def create(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> bool:
        """Let another one store it first."""
        if name.startswith("versions/") and self._times > 0:
            self._times -= 1
            number = int(name[9:15])
            VersionedFiles(self, bucket).push({f"other-{number}": b""}, NOTE)
        return super().create(bucket, name, data, metadata)


def test_one_who_was_faster_loses_nothing():
    """Who comes second builds on the first."""
    versioned = VersionedFiles(_Overtaken(1), "bucket")
    stored = versioned.push({"mine": b""}, NOTE)

    assert stored.number == 2
    assert set(stored.files) == {"mine", "other-1"}


def test_overtaken_again_and_again():
    """Someone who never gets a turn is told to try again."""

    class Busy(MemoryFiles):
        def create(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> bool:
            """Refuse every version."""
            return not name.startswith("versions/")

    with pytest.raises(TransientError, match="try again"):
        VersionedFiles(Busy(), "bucket").push({"a": b""}, NOTE)


def test_many_at_once(tmp_path):
    """Of many who push at one time, each is in the last version, and so are the copies."""
    files = FolderFiles(tmp_path)
    versioned = VersionedFiles(files, "bucket")
    names = [f"file-{number}" for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda name: versioned.push({name: name.encode()}, NOTE), names))

    assert set(versioned.latest().files) == set(names)
    assert [it.number for it in versioned.versions()] == list(range(1, 13))
    assert set(_copies(files)) == set(names)


def test_versions_of_nothing_changed():
    """Two equal sets have no changes."""
    assert Version().changes(Version()) == []
