"""What every `Files` does, as tests to inherit."""

from typing import Any

import pytest

from broker.errors import NotFoundError, UsageError
from broker.ports import FileInfo, Files


class FilesContract:
    """Inherit, and give the fixture `files`, empty."""

    def test_reads_what_was_created(self, files: Files) -> None:
        """The bytes come back, whatever they are."""
        stored = files.create("bucket", "topic/object/1.avro", b"\x00data\xff", {})

        assert stored
        assert files.read("bucket", "topic/object/1.avro") == b"\x00data\xff"

    def test_create_keeps_the_first(self, files: Files) -> None:
        """An object that exists is not changed, and that is told."""
        files.create("bucket", "x", b"first", {"k": "1"})

        assert not files.create("bucket", "x", b"second", {"k": "2"})
        assert files.read("bucket", "x") == b"first"
        assert list(files.list("bucket")) == [FileInfo("x", 5, {"k": "1"})]

    def test_metadata_comes_back(self, files: Files) -> None:
        """Metadata is any text, and says of what type the content is."""
        metadata = {"contentType": "image/png", "objectId": "SN 2026é ☄", "ra": "-1.5"}
        files.create("bucket", "x.png", b"", metadata)

        assert [info.metadata for info in files.list("bucket")] == [metadata]

    def test_empty_object(self, files: Files) -> None:
        """An object may have no bytes."""
        files.create("bucket", "x", b"", {})

        assert files.read("bucket", "x") == b""

    @pytest.mark.parametrize("name", ["absent", "a/b/absent", "folder", "file/below"])
    def test_absent(self, files: Files, name: str) -> None:
        """Reading what is not there is told in the names used."""
        files.create("bucket", "folder/x", b"x", {})
        files.create("bucket", "file", b"x", {})

        with pytest.raises(NotFoundError, match=name):
            files.read("bucket", name)

    def test_buckets_are_separate(self, files: Files) -> None:
        """The same name in two buckets is two objects."""
        assert files.create("bucket-1", "x", b"1", {})
        assert files.create("bucket-2", "x", b"2", {})
        assert [files.read(bucket, "x") for bucket in ("bucket-1", "bucket-2")] == [b"1", b"2"]

    def test_list_is_in_order_of_name(self, files: Files) -> None:
        """Names are ordered as whole texts, with size and metadata."""
        names = ["a/z", "a-b", "a.c", "a0", "a/b/c", "B"]
        for name in names:
            files.create("bucket", name, name.encode(), {"name": name})

        expected = [FileInfo(name, len(name), {"name": name}) for name in sorted(names)]
        assert list(files.list("bucket")) == expected

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [("a/", ["a/1", "a/2"]), ("a", ["a/1", "a/2", "ab"]), ("a/1", ["a/1"]), ("c", [])],
    )
    def test_list_by_prefix(self, files: Files, prefix: str, expected: list[str]) -> None:
        """A prefix need not end at a slash."""
        for name in ("a/1", "a/2", "ab", "b/1"):
            files.create("bucket", name, b"", {})

        assert [info.name for info in files.list("bucket", prefix)] == expected

    def test_list_of_unknown_bucket(self, files: Files) -> None:
        """A bucket that nothing was put into is empty."""
        assert list(files.list("nothing")) == []

    @pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../x", "a//b", "a/", ".x", "a\0b"])
    def test_name_not_allowed(self, files: Files, name: str) -> None:
        """A name cannot point out of its bucket."""
        with pytest.raises(UsageError, match="not allowed"):
            files.create("bucket", name, b"", {})

    @pytest.mark.parametrize("bucket", ["", "..", "a/b", ".hidden"])
    def test_bucket_not_allowed(self, files: Files, bucket: str) -> None:
        """A bucket's name is one plain word."""
        with pytest.raises(UsageError, match="not allowed"):
            files.create(bucket, "x", b"", {})


class ReplacingFilesContract(FilesContract):
    """What those `Files` do too that can replace and remove an object."""

    def test_replace(self, files: Any) -> None:
        """The last one counts, its metadata too, whether there was one or not."""
        files.replace("bucket", "a/x", b"first", {"k": "1", "l": "1"})
        files.replace("bucket", "a/x", b"2", {"k": "2"})

        assert files.read("bucket", "a/x") == b"2"
        assert list(files.list("bucket")) == [FileInfo("a/x", 1, {"k": "2"})]

    def test_remove(self, files: Any) -> None:
        """What was removed is absent and can be stored again."""
        files.create("bucket", "x", b"1", {"k": "1"})
        files.remove("bucket", "x")
        files.remove("bucket", "x")

        assert list(files.list("bucket")) == []
        assert files.create("bucket", "x", b"2", {})
        assert list(files.list("bucket")) == [FileInfo("x", 1, {})]

    def test_remove_from_no_bucket(self, files: Any) -> None:
        """Nothing can be removed from a bucket that is not there, which is no error."""
        files.remove("nothing", "x")

        assert list(files.list("nothing")) == []
