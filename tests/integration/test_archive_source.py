"""Nights of an archive: fetched once, resumed, verified; and what cannot be had said in words."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from archive_server import ArchiveServer
from click.testing import CliRunner

from broker.apps.cli import cli
from broker.apps.simulator.night import Night
from broker.config import Settings
from broker.connectors.sources.archive import ArchiveSource
from broker.connectors.sources.download import Download
from broker.errors import ConfigError, NotFoundError, RefusedError, TransientError, UsageError
from broker.surveys import SURVEYS
from tests_support import Pgb

NIGHT = date(2026, 1, 2)
NAME = "ztf_public_20260102.tar.gz"
COUNT = 120


def tarball(file: Path, members: dict[str, bytes]) -> Path:
    """Write a tarball in the archive's layout."""
    with tarfile.open(file, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


@pytest.fixture(scope="module")
def night(tmp_path_factory) -> dict[str, bytes]:
    """Return a night's packets under the names that the archive gives them."""
    parts = list(Night(SURVEYS["ztf"], NIGHT, seed=3).alerts(COUNT))
    return {
        f"{source_id}.avro": payload
        for part in parts
        for source_id, payload in zip(part.truth["source_id"], part.payloads, strict=True)
    }


@pytest.fixture
def archive(tmp_path: Path, night) -> Iterator[ArchiveServer]:
    """Return a server that has one night."""
    folder = tmp_path / "served"
    folder.mkdir()
    tarball(folder / NAME, night)
    with ArchiveServer(folder).running() as server:
        yield server


def source(archive: ArchiveServer, cache: Path, place: str = "archive://20260102", **flags):
    """Return the source of a night, which does not wait between tries."""
    settings = Settings(archive_url=archive.url, archive_dir=str(cache), survey="ztf")
    found = ArchiveSource.from_url(place, settings, **flags)
    object.__setattr__(found.download, "sleep", lambda _: None)
    return found


def packets(found: ArchiveSource) -> list[bytes]:
    """Return all packets, sorted."""
    return sorted(bytes(p) for batch in found.batches(50, 1.0) for p in batch.payloads)


def test_a_night_comes_over_http(archive, tmp_path, night):
    """Every packet, byte for byte."""
    assert packets(source(archive, tmp_path / "c")) == sorted(night.values())


def test_a_night_is_fetched_once(archive, tmp_path):
    """The second time it is read from the cache, also without a server."""
    first = packets(source(archive, tmp_path / "c"))
    archive.folder.joinpath(NAME).unlink()

    assert packets(source(archive, tmp_path / "c")) == first
    assert len(archive.tarballs_asked()) == 1


def test_a_broken_download_goes_on_where_it_broke_off(archive, tmp_path, night):
    """By itself, with the range that is missing."""
    archive.breaks = [100_000, 200_000]

    found = packets(source(archive, tmp_path / "c"))

    assert found == sorted(night.values())
    assert archive.tarballs_asked() == [None, "bytes=100000-", "bytes=300000-"]


def test_a_stopped_download_goes_on_with_the_next_run(archive, tmp_path, night):
    """In another process, from what is on disk."""
    archive.breaks = [100_000]
    steps = source(archive, tmp_path / "c").fetch()
    next(steps)
    steps.close()

    assert packets(source(archive, tmp_path / "c")) == sorted(night.values())
    assert archive.tarballs_asked() == [None, "bytes=100000-"]


@pytest.mark.parametrize(("cut", "asked"), [(0, 1), (-9, 2)])
def test_a_whole_download_that_was_not_renamed(archive, tmp_path, night, cut, asked):
    """Is not fetched again; if it has too many bytes, it is."""
    steps = source(archive, tmp_path / "c")
    archive.breaks = [100_000]
    part = steps.fetch()
    next(part)
    part.close()
    data = (archive.folder / NAME).read_bytes()
    steps.download.partial.write_bytes(data + b"?" * -cut)
    archive.asked.clear()

    assert packets(source(archive, tmp_path / "c")) == sorted(night.values())
    assert len(archive.tarballs_asked()) == asked


def test_another_file_on_the_server_is_begun_anew(archive, tmp_path, night):
    """Halves of two versions would make no tarball."""
    archive.breaks = [100_000]
    steps = source(archive, tmp_path / "c").fetch()
    next(steps)
    steps.close()
    os.utime(archive.folder / NAME, (1e9, 1e9))

    assert packets(source(archive, tmp_path / "c")) == sorted(night.values())


def test_a_server_without_ranges_is_asked_for_everything(archive, tmp_path, night):
    """It answers a range with the whole file."""
    archive.ranges, archive.breaks = False, [100_000]

    assert packets(source(archive, tmp_path / "c")) == sorted(night.values())


def test_a_server_that_is_busy_is_asked_again(archive, tmp_path, night):
    """Service unavailable, twice."""
    archive.statuses = [503, 429]

    assert packets(source(archive, tmp_path / "c")) == sorted(night.values())


def test_a_server_that_stays_away_is_given_up(archive, tmp_path):
    """With its answer; what was fetched is kept."""
    archive.breaks, archive.statuses = [100_000], []
    found = source(archive, tmp_path / "c")
    steps = found.fetch()
    next(steps)
    archive.statuses = [503] * 9

    with pytest.raises(TransientError, match="the server answers 503"):
        list(steps)

    assert found.download.partial.stat().st_size == 100_000


def test_nobody_at_the_address(tmp_path):
    """Is said in words."""
    download = Download(
        "http://127.0.0.1:9/x.tar.gz", tmp_path / "x", tries=2, sleep=lambda _: None
    )

    with pytest.raises(TransientError, match="the server does not answer"):
        list(download.steps())


def test_a_night_that_the_archive_lacks(archive, tmp_path):
    """Names the night."""
    with pytest.raises(NotFoundError, match="the archive has no night of 2020-01-01"):
        packets(source(archive, tmp_path / "c", "archive://20200101"))


def test_digests_are_looked_at(archive, tmp_path, night):
    """The archive's list of them may have paths and comments."""
    digest = hashlib.md5((archive.folder / NAME).read_bytes()).hexdigest()
    (archive.folder / "MD5SUMS").write_text(f"# of all\n{'0' * 32}  x\n{digest}  ./public/{NAME}\n")

    assert packets(source(archive, tmp_path / "c")) == sorted(night.values())


def test_a_wrong_digest_keeps_nothing(archive, tmp_path):
    """Not the file, nor a part of it."""
    (archive.folder / "MD5SUMS").write_text(f"{'0' * 32}  {NAME}\n")

    with pytest.raises(RefusedError, match="is damaged: its MD5 is"):
        packets(source(archive, tmp_path / "c"))

    assert not list((tmp_path / "c").rglob("*.tar.gz*[!k]"))


def test_a_damaged_tarball_gives_what_it_has_and_is_named(archive, tmp_path, night, caplog):
    """Where the archive has no digests, as of nights that broke off there."""
    file = archive.folder / NAME
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found = source(archive, tmp_path / "c")

    read = packets(found)

    assert set(night.values()) > set(read[1:])
    assert "delete it to fetch it again" in caplog.text
    assert found.problems[0].place.startswith(str(found.download.file))


def test_members_cannot_leave_the_folder(archive, tmp_path):
    """Nothing is unpacked: paths are only names, and links are passed over."""
    file = archive.folder / NAME
    with tarfile.open(file, "w:gz") as made:
        for name in ("../../outside.avro", "/absolute.avro"):
            member = tarfile.TarInfo(name)
            member.size = 200
            made.addfile(member, io.BytesIO(os.urandom(200)))
        link = tarfile.TarInfo("link.avro")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        made.addfile(link)
    before = set(tmp_path.rglob("*"))

    read = packets(source(archive, tmp_path / "c"))

    assert len(read) == 2
    new = {path.name for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert new == {NAME, f"{NAME}.lock"}


def test_a_night_without_alerts_is_empty(archive, tmp_path, caplog):
    """The archive has them as tarballs of some forty bytes."""
    (archive.folder / NAME).write_bytes(b"\x1f\x8b" + bytes(42))

    assert packets(source(archive, tmp_path / "c")) == []
    assert "no alerts of 2026-01-02" in caplog.text


def test_empty_batches_come_while_a_night_is_fetched(archive, tmp_path):
    """So that a run can be stopped, and tells that it lives."""
    found = source(archive, tmp_path / "c")

    sizes = [len(batch.payloads) for batch in found.batches(50, 0.0)]

    assert sizes[0] == 0
    assert sum(sizes) == COUNT


@pytest.mark.parametrize(
    ("place", "flags", "error", "words"),
    [
        ("archive://someday", {}, UsageError, "names no night"),
        ("archive://20260102", {"follow": True}, UsageError, "cannot be followed"),
    ],
)
def test_wrong_places(archive, tmp_path, place, flags, error, words):
    """Are named."""
    with pytest.raises(error, match=words):
        source(archive, tmp_path, place, **flags)


def test_a_survey_without_an_archive():
    """Says so."""
    with pytest.raises(UsageError, match="no public archive of the nights of lsst"):
        ArchiveSource.from_url("archive://20260102", Settings(survey="lsst"))


def test_an_address_that_is_no_web_address():
    """No file of this machine can be read through it."""
    with pytest.raises(ConfigError, match="archive_url"):
        ArchiveSource.from_url("archive://20260102", Settings(archive_url="file:///etc/"))


def test_the_archive_is_that_of_the_survey():
    """Without a setting, the address is the published one."""
    found = ArchiveSource.from_url("archive://2018-11-29", Settings(survey="ztf"))

    assert found.download.url == "https://ztf.uw.edu/alerts/public/ztf_public_20181129.tar.gz"


@pytest.fixture
def pgb(archive: ArchiveServer, tmp_path: Path, monkeypatch) -> Pgb:
    """Return the command, with the archive on the loopback."""
    monkeypatch.setenv("PGB_ARCHIVE_URL", archive.url)
    monkeypatch.setenv("PGB_ARCHIVE_DIR", str(tmp_path / "nights"))
    return Pgb(tmp_path / "home")


def test_a_night_of_the_archive_can_be_replayed(pgb, archive):
    """Into an instance of its own."""
    archive.breaks = [100_000]

    made = json.loads(pgb("replay", "--night", "20260102", "--from", "archive", "--json"))

    assert (made["stored"], made["dead_lettered"]) == (COUNT, 0)
    assert "ztf-alerts-replay" in pgb("topics", "--json")


def test_a_night_of_the_archive_can_be_taken_in(pgb):
    """As any other place."""
    assert json.loads(pgb("run", "archive://20260102", "--json"))["stored"] == COUNT


@pytest.mark.parametrize(
    "words", [("run", "archive://20200101"), ("replay", "--from", "archive", "--night", "20200101")]
)
def test_an_absent_night_is_one_line(pgb, words):
    """And exit code 2."""
    out = pgb(*words, code=2)

    assert "the archive has no night of 2020-01-01" in out
    assert "Traceback" not in out


def test_a_night_that_cannot_be_read_is_one_line(pgb, archive):
    """Its place and what is wrong with it, and exit code 2."""
    (archive.folder / NAME).write_bytes(os.urandom(5000))

    out = pgb("replay", "--from", "archive", "--night", "20260102", code=2)

    assert f"{NAME} cannot be read: " in out


def test_a_replay_from_the_archive_needs_a_night(tmp_path):
    """Says so."""
    found = CliRunner().invoke(cli, ["replay", "--from", "archive", "--home", str(tmp_path)])

    assert "needs --night" in str(found.exception)


def test_a_real_night_can_be_replayed(shared_data, tmp_path):
    """Some alerts of 2018-11-29, in the archive's own layout."""
    folder = tmp_path / "served"
    folder.mkdir()
    name = "ztf_public_20181129.tar.gz"
    (folder / name).write_bytes((shared_data / "ztf" / "archive" / name).read_bytes())
    words = ["replay", "--night", "20181129", "--from", "archive", "--speed", "max", "--json"]

    with ArchiveServer(folder).running() as server:
        where = {"PGB_ARCHIVE_URL": server.url, "PGB_ARCHIVE_DIR": str(tmp_path / "nights")}
        made = json.loads(Pgb(tmp_path / "home")(*words, environment=where))

    with tarfile.open(folder / name) as tarball:
        count = len(tarball.getnames())
    assert (made["received"], made["stored"], made["dead_lettered"]) == (count, count, 0)
