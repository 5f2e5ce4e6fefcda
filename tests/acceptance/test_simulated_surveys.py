"""Every survey that can be simulated, from packets to fits, also without model data."""

import json
import re
import time
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.apps.cli import cli
from broker.apps.simulator.cadence import can_simulate
from broker.apps.simulator.models import SimulationBroker, StandInModels
from broker.apps.simulator.night import Night
from broker.config import Settings
from broker.errors import ConfigError
from broker.science.fitters.salt2.models import pinned
from broker.surveys import SURVEYS

SIMULATED = sorted(name for name, survey in SURVEYS.items() if can_simulate(survey))
ALERTS = 500


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> dict[str, str | None]:
    """Return an environment without model data, on a cache of its own."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return {"XDG_CACHE_HOME": cache, "PGB_FETCH_MODELS": "never", "SNCOSMO_DATA_DIR": None}


def pgb(environment: dict[str, str | None], *words: str):
    """Run a command; return what it printed as JSON, and its words to a person."""
    found = CliRunner(env=environment).invoke(cli, [*words, "--json"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout.splitlines()[-1]), found.stderr


def test_the_surveys_are_found():
    """Those of the documents among them."""
    assert {"ztf", "lsst", "elasticc"} <= set(SIMULATED)


@pytest.mark.parametrize("name", SIMULATED)
def test_supernovae_are_found_and_fitted_without_model_data(name, bare, tmp_path):
    """The survey is named by the URL alone; the report finds the true parameters again."""
    home = ["--home", str(tmp_path)]
    url = f"sim://{name}?alerts={ALERTS}&seed=4&truth={tmp_path / 'truth'}"

    made, words = pgb(bare, "run", url, *home, "--plots", "never")
    out = ["--truth", str(tmp_path / "truth"), "--out", str(tmp_path / "page.html")]
    report, _ = pgb(bare, "simulate", "report", "--survey", name, *out, *home)

    assert (made["stored"], made["dead_lettered"]) == (ALERTS, 0)
    assert "small made-up models stand in for salt2-2.4" in words
    assert (report["alerts"], report["missing"]) == (ALERTS, 0)
    found = {row["parameter"]: row for row in report["recovery"]}
    assert found["x1"]["fits"] >= 10
    assert abs(found["x1"]["bias"]) < 0.3
    assert abs(found["t0"]["bias"]) < 0.5
    assert (tmp_path / "page.html").read_text().count("<img") == 3


@pytest.mark.parametrize("name", SIMULATED)
def test_alerts_can_have_files_of_their_own(name, bare, tmp_path):
    """Also of a survey whose stream has no topic of the night, and when they are replayed."""
    environment = bare | {"PGB_ALERT_FILES": "always", "PGB_HOME": str(tmp_path)}

    made, _ = pgb(environment, "run", f"sim://{name}?alerts=20&model=parametric")
    again, _ = pgb(environment, "replay", "--survey", name)

    assert (made["stored"], again["stored"]) == (20, 20)
    for bucket in (f"{name}-alert_avros", f"{name}-alert_avros-replay"):
        assert len(list((tmp_path / "files" / bucket).rglob("*.avro"))) == 20


def test_what_is_at_hand_is_used(tmp_path: Path):
    """Something stands in for what is missing, and for nothing else."""
    for name in ("salt2-2.4", "ztfg", "ztfr"):
        for file in pinned()[name].digests:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
    models = StandInModels(tmp_path / "none", tmp_path)

    assert models.missing(["salt2-2.4", "ztfg", "ztfi", "ztfr"]) == ["ztfi"]


def test_a_model_that_nobody_knows_has_no_stand_in():
    """A slip in a setting is not hidden."""
    with pytest.raises(ConfigError, match="salt9"):
        SimulationBroker(Settings(survey="ztf", salt2_model="salt9")).source_tables()


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATED)
def test_making_packets_is_no_bottleneck(name):
    """At least 5,000 a second of one core's own time."""
    night = Night(SURVEYS[name], date(2026, 1, 1), seed=1)
    assert sum(len(part.payloads) for part in night.alerts(1500)) == 1500  # kernels are compiled

    began = time.process_time()
    count = sum(len(part.payloads) for part in night.alerts(8000))

    assert count / (time.process_time() - began) >= 5000


def test_the_demo_tells_what_was_there(bare, tmp_path):
    """Supernovae are found and fitted, without data, account or network."""
    words = ["demo", "--alerts", "300", "--home", str(tmp_path)]

    found = CliRunner(env=bare).invoke(cli, words, catch_exceptions=False)

    told = re.search(r"Of (\d+) type Ia supernovae in this night, (\d+) were fitted", found.stdout)
    assert told is not None
    assert int(told[1]) >= int(told[2]) >= 5
