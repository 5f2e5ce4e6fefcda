"""Every file store of ours keeps the contract."""

from pathlib import Path

import pytest

from broker.connectors.files.folder import FolderFiles
from broker.connectors.files.memory import MemoryFiles
from broker.errors import TransientError, UsageError
from broker.ports import Files
from broker.testing.files_contract import ReplacingFilesContract


class TestFolderFiles(ReplacingFilesContract):
    @pytest.fixture
    def files(self, tmp_path: Path) -> Files:
        """Return the files under test."""
        return FolderFiles(tmp_path)

    def test_is_a_plain_file(self, files: Files, tmp_path: Path) -> None:
        """Anything can read an object where its name says, and nothing else is left there."""
        files.create("b", "topic/1.avro", b"data", {})

        assert [tmp_path / "b/topic/1.avro"] == [it for it in tmp_path.rglob("*") if it.is_file()]

    def test_metadata_names_are_taken(self, files: Files) -> None:
        """An object cannot pose as the metadata of another."""
        with pytest.raises(UsageError, match="metadata"):
            files.create("b", "x.meta.json", b"", {})

    def test_place_that_is_a_file(self, tmp_path: Path) -> None:
        """A root that cannot be written to is refused in words."""
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="cannot be used"):
            FolderFiles(tmp_path / "file").create("b", "x", b"", {})


class TestMemoryFiles(ReplacingFilesContract):
    @pytest.fixture
    def files(self) -> Files:
        """Return the files under test."""
        return MemoryFiles()

    def test_scripted_failure(self) -> None:
        """A failure comes once, and then the object is stored."""
        files = MemoryFiles(failures=[TransientError("busy")])
        with pytest.raises(TransientError, match="busy"):
            files.create("b", "x", b"", {})

        assert files.create("b", "x", b"", {})
