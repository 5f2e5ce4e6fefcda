"""Alerts from files, folders and archives."""

import io
import tarfile
from pathlib import Path

import pytest

from broker.connectors.sources.files import FileSource
from broker.errors import UsageError


def contents(source: FileSource, most: int = 100) -> list[bytes]:
    """Return all payloads of a source."""
    return [payload for batch in source.batches(most, 0) for payload in batch.payloads]


def make_archive(path: Path, members: dict[str, bytes]) -> None:
    """Write a .tar.gz file."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_a_folder_is_read_in_order_of_name(tmp_path: Path):
    """With all below it, hidden files left out."""
    (tmp_path / "b").mkdir()
    for name in ("z.avro", "b/a.avro", "a.avro", ".hidden"):
        (tmp_path / name).write_bytes(name.encode())

    assert contents(FileSource([tmp_path])) == [b"a.avro", b"b/a.avro", b"z.avro"]


def test_batches_have_at_most_so_many(tmp_path: Path):
    """The last one is smaller."""
    for i in range(5):
        (tmp_path / str(i)).write_bytes(b"x")

    assert [len(b.payloads) for b in FileSource([tmp_path]).batches(2, 0)] == [2, 2, 1]


def test_an_archive_gives_its_members(tmp_path: Path):
    """Each with a place that a person can find."""
    make_archive(tmp_path / "night.tar.gz", {"1.avro": b"one", "2.avro": b"two"})
    source = FileSource([tmp_path])

    batch = next(source.batches(10, 0))

    assert batch.payloads == [b"one", b"two"]
    assert batch.origins["place"].to_list()[0].endswith("night.tar.gz!1.avro")


def test_a_truncated_archive_is_reported_and_the_rest_is_read(tmp_path: Path):
    """Members before the break, and the files beside it."""
    import random

    noise = random.Random(1)
    members = {f"{i}.avro": noise.randbytes(200_000) for i in range(4)}
    make_archive(tmp_path / "a.tar.gz", members)
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) * 3 // 5])
    (tmp_path / "b.avro").write_bytes(b"after")
    source = FileSource([tmp_path])

    found = contents(source)

    assert found[:2] == [members["0.avro"], members["1.avro"]]
    assert found[-1] == b"after"
    assert "a.tar.gz" in source.problems[0].place


def test_garbage_called_archive_is_reported(tmp_path: Path):
    """It is not an archive."""
    (tmp_path / "a.tar.gz").write_bytes(b"not an archive")
    source = FileSource([tmp_path])

    assert contents(source) == []
    assert len(source.problems) == 1


def test_an_empty_file_is_a_packet(tmp_path: Path):
    """It becomes a dead letter, not a silence."""
    (tmp_path / "empty.avro").touch()

    assert contents(FileSource([tmp_path])) == [b""]


def test_an_absent_place_is_named(tmp_path: Path):
    """Before anything is read."""
    with pytest.raises(UsageError, match="nowhere"):
        FileSource([tmp_path / "nowhere"])


def test_following_finds_new_files(tmp_path: Path):
    """Each file once; a look that finds nothing gives an empty batch."""
    (tmp_path / "1").write_bytes(b"one")
    later = iter([b"two", b"three"])

    def sleep(_: float) -> None:
        data = next(later)
        (tmp_path / data.decode()).write_bytes(data)
        import os

        os.utime(tmp_path / data.decode(), (0, 0))

    import os

    os.utime(tmp_path / "1", (0, 0))
    batches = FileSource([tmp_path], follow=True, sleep=sleep).batches(10, 0)

    assert [next(batches).payloads for _ in range(3)] == [[b"one"], [b"two"], [b"three"]]
