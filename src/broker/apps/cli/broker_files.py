"""``pgb broker-files``: schema maps, settings and jobs, in versions that can be gone back to."""

import difflib
import getpass
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.apps.cloud import broker_files as content
from broker.apps.cloud.versions import Note, Version, VersionedFiles
from broker.config import Settings
from broker.errors import NotFoundError

place = click.option(
    "--broker-files", metavar="PLACE", help="Where broker files are: home, or like gs://PROJECT."
)
"""Option of the commands that use broker files."""

_why = click.option("--why", metavar="TEXT", default="", help="The reason, kept with the version.")
_WHOSE = ("survey", "home", "testid")


@click.group(name="broker-files")
def command() -> None:
    """Keep schema maps, settings and jobs in versions that workers load when they start."""


@command.command(name="push")
@click.argument("files", nargs=-1, metavar="[NAME=PATH]...")
@options(*_WHOSE)
@place
@_why
def push(files: tuple[str, ...], why: str, **flags: Any) -> None:
    """Store a new version: the files given, or all that belongs to an instance.

    Without files, these are the schema maps, photometry maps and Kafka profiles that are
    shipped, the settings in force (no secrets, nothing of one machine) and the jobs. Other
    files of the latest version stay. Workers load the new version when they next start.

    \b
      pgb broker-files push --why "first"
      pgb broker-files push schema_maps/ztf.yaml=my_map.yaml --why "magap, not magpsf"
    """
    settings = settings_of(**flags)
    versioned = content.open_broker_files(settings)
    before = versioned.latest() or Version()
    changes = content.parse_assignments(files) if files else content.default_content(settings)
    after = versioned.push(dict(changes), note(why))
    if after.number == before.number:
        click.echo(f"nothing has changed since version {after.number} of {versioned.bucket}")
        return
    names = ", ".join(after.changes(before))
    click.echo(f"version {after.number} of {versioned.bucket} is stored: {names}")


@command.command(name="list")
@options(*_WHOSE, "json")
@place
def list_versions(as_json: bool, **flags: Any) -> None:
    """List the versions, oldest first, with what each changed."""
    versions = content.open_broker_files(settings_of(**flags)).versions()
    if as_json:
        print_json([asdict(version) for version in versions])
        return
    pairs = zip([Version(), *versions], versions, strict=False)
    rows = [
        (it.number, it.note.when, it.note.who, _reason(it), _few(it.changes(before)))
        for before, it in pairs
    ]
    print_table("", ("version", "when", "who", "why", "changed"), rows)


@command.command(name="show")
@click.argument("name", required=False)
@click.option("--version", "number", type=int, help="A version other than the latest.")
@options(*_WHOSE, "json")
@place
def show(name: str | None, number: int | None, as_json: bool, **flags: Any) -> None:
    """Print the file NAME of a version, or list the version's files."""
    versioned = content.open_broker_files(settings_of(**flags))
    version = _version(versioned, number)
    if name:
        click.echo(versioned.read(version, name), nl=False)
    elif as_json:
        print_json(asdict(version))
    else:
        title = f"Version {version.number} of {versioned.bucket}"
        print_table(title, ("file", "sha256"), sorted(version.files.items()))


@command.command(name="diff")
@click.argument("old", type=int, required=False)
@click.argument("new", type=int, required=False)
@options(*_WHOSE)
@place
def diff(old: int | None, new: int | None, **flags: Any) -> None:
    """Show how version NEW differs from OLD.

    OLD is by default the latest, and NEW what `pgb broker-files push` would store now.
    """
    settings = settings_of(**flags)
    versioned = content.open_broker_files(settings)
    before = _contents(versioned, _version(versioned, old))
    after = (
        before | content.default_content(settings)
        if new is None
        else _contents(versioned, _version(versioned, new))
    )
    for line in _differences(before, after):
        click.echo(line)


@command.command(name="rollback")
@click.argument("number", type=int, metavar="VERSION")
@options(*_WHOSE)
@place
@_why
def rollback(number: int, why: str, **flags: Any) -> None:
    """Go back to VERSION: a new version is stored that equals it."""
    versioned = content.open_broker_files(settings_of(**flags))
    new = versioned.restore(number, note(why))
    click.echo(f"version {new.number} of {versioned.bucket} equals version {number}")


@command.command(name="log")
@options("home", "json")
def log(as_json: bool, **flags: Any) -> None:
    """Tell which version each start on this home used."""
    found = list(content.starts(settings_of(**flags)))
    if as_json:
        print_json(found)
        return
    rows = [(it["time"], it["instance"], it["bucket"], it["version"]) for it in found]
    print_table("", ("start", "worker", "bucket", "version"), rows)


def note(why: str) -> Note:
    """Say who changes something, and when."""
    who = ""
    with suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        who = getpass.getuser()
    return Note(f"{who}@{socket.gethostname()}", _now(), why)


def started(**flags: Any) -> Settings:
    """Read the settings under the flags given, as the latest version has them."""
    return content.start(settings_of(**flags), flags, _now)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(versioned: VersionedFiles, number: int | None) -> Version:
    found = versioned.latest() if number is None else versioned.version(number)
    if found is None:
        raise NotFoundError(
            f"bucket {versioned.bucket!r} has no broker files yet: pgb broker-files push"
        )
    return found


def _contents(versioned: VersionedFiles, version: Version) -> dict[str, bytes]:
    return {name: versioned.read(version, name) for name in version.files}


def _differences(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        old, new = (it.get(name, b"").decode(errors="replace") for it in (before, after))
        yield from difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"old/{name}", f"new/{name}", lineterm=""
        )


def _reason(version: Version) -> str:
    back = f"equals version {version.restores}" if version.restores else ""
    return "; ".join(part for part in (back, version.note.why) if part)


def _few(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
