"""The truth report that is built for every commit: its pages, and floors under its numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / ".ci" / "report"
SURVEYS = ("ztf", "lsst", "elasticc")
FLOORS = {  # completeness and purity of the two filters that ship
    "ztf": {"extragalactic": (0.6, 0.95), "purity": (0.6, 0.95)},
    "lsst": {"extragalactic": (0.5, 0.5), "purity": (0.85, 0.95)},
    "elasticc": {"extragalactic": (0.75, 0.95), "purity": (0.95, 0.95)},
}
MOST_BIAS = {"z": 0.02, "t0": 0.3, "x1": 0.2, "c": 0.05}
FEWEST_FITS = 20
MOST_SECONDS = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reports of this run, which are made where nobody has."""
    made = os.environ.get("PGB_REPORT_DIR")
    if made and (Path(made) / "index.html").exists():
        return Path(made)
    out = tmp_path_factory.mktemp("report")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PGB_REPORT_DIR": str(out)}
    subprocess.run([SCRIPT], env=environment, check=True, capture_output=True, timeout=400)
    return out


@pytest.fixture(params=SURVEYS)
def name(request: pytest.FixtureRequest) -> str:
    """Return each survey."""
    return str(request.param)


@pytest.fixture
def report(folder: Path, name: str) -> dict:
    """Return the numbers of a survey's report."""
    return json.loads((folder / f"{name}.json").read_text())


def test_every_alert_came_through(report: dict):
    """None is missing."""
    assert report["alerts"] > 0
    assert report["missing"] == 0


def test_filters_find_what_they_are_for(report: dict, name: str):
    """Completeness and purity are above their floors."""
    found = {row["filter"]: row for row in report["filters"]}

    for chosen, (completeness, purity) in FLOORS[name].items():
        assert found[chosen]["completeness"] > completeness
        assert found[chosen]["purity"] > purity


def test_fits_find_the_true_parameters(report: dict):
    """Without bias, and with errors that are neither far too small nor far too large."""
    found = {row["parameter"]: row for row in report["recovery"]}

    for parameter, most in MOST_BIAS.items():
        row = found[parameter]
        assert row["fits"] >= FEWEST_FITS
        assert abs(row["bias"]) < most
        assert 0.5 < row["pull_scatter"] < 2


def test_latency_is_told(report: dict, name: str):
    """To row, to each topic and to fit; a small night is done within a minute."""
    places = {"rows", *(f"topic {name}-{s}" for s in ("alerts", "alerts_pure", "salt2"))}

    assert places <= set(report["latency_s"])
    assert all(one["p99"] < MOST_SECONDS for one in report["latency_s"].values())


def test_the_pages_are_there(folder: Path, name: str):
    """With three plots each, and a page that leads to all."""
    assert (folder / f"{name}.html").read_text().count("<img") == 3
    assert f"href='{name}.html'" in (folder / "index.html").read_text()
