"""SALT2 in the stream, from the command line, on a synthetic model that needs no download."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from broker import fit
from broker.config import Settings
from broker.connectors.sources.generated import GeneratedSource
from broker.errors import ConfigError, UsageError
from broker.pipeline.reconcile import reconcile, reconcile_sinks
from broker.science.fitters.salt2.models import ModelStore
from broker.science.fitters.salt2.presets import Redshift
from broker.science.fitters.salt2.simulate import Sampling, simulate
from broker.surveys import get_survey
from broker.surveys.example import encode_as_sent, example_packet
from broker.wiring import Broker
from tests_support import Pgb

COLUMNS_OF_THE_ORIGINAL = 42


@pytest.fixture(scope="module")
def fitted(toy_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Return a broker after a night with supernovae in it."""
    home = tmp_path_factory.mktemp("home")
    broker = Broker(Settings(home=str(home), model_dir=str(toy_models)))
    generate = broker.survey.generate
    assert generate is not None
    packets = list(generate(300, 7, date(2026, 1, 2)))
    broker.pipeline(broker.salt2_stage()).run(GeneratedSource(packets))
    yield broker
    broker.stream.close()
    broker.ledger.close_file()


def test_every_good_alert_is_tried(fitted: Broker):
    """Fitted, failed with a reason, or not enough data: together those that passed."""
    fates = fitted.ledger.sums().fates

    assert sum(fates["salt2"].values()) == fates["filter extragalactic"]["pass"]
    assert fates["salt2"]["fitted"] > 10
    tried = sum(n for fate, n in fates["salt2"].items() if fate != "not enough data")
    assert fates["products"]["salt2"] == tried


def test_the_ledger_adds_up_with_fits(fitted: Broker):
    """Rows and messages of fits included."""
    checks = reconcile(fitted.ledger) + reconcile_sinks(
        fitted.ledger, fitted.instance, fitted.stream, fitted.tables
    )

    assert [check for check in checks if not check.ok] == []


def test_a_survey_whose_passbands_nobody_has_is_run_without_fits(tmp_path: Path):
    """Where model data is fetched as well: there is nothing to fetch, and that is a line."""
    decat = get_survey("decat")
    schema = decat.schemas.get("0.14")
    assert schema is not None
    (tmp_path / "alert.avro").write_bytes(encode_as_sent(decat, schema, example_packet(schema)))
    pgb = Pgb(tmp_path / "home")
    places = {"PGB_FETCH_MODELS": "once", "XDG_CACHE_HOME": str(tmp_path / "cache")}

    alert = str(tmp_path / "alert.avro")
    _, said = pgb.start("run", alert, "--survey", "decat", environment=places).communicate()

    assert "no SALT2 fits in this run: no model data is pinned as 'sdssg'" in said
    assert pgb.json("ledger", "--survey", "decat")["stored"] == 1


def test_rows_have_the_original_columns_and_say_how_they_were_made(fitted: Broker):
    """The 42 columns come first."""
    rows = fitted.tables.query("SELECT * FROM ztf_alerts.salt2")

    assert rows.columns[:3] == ["objectId", "candid", "success"]
    assert rows.columns[COLUMNS_OF_THE_ORIGINAL - 1] == "plot_lc_bytes"
    assert set(rows["preset"]) == {"default"}
    assert set(rows["engine"]) == {"fast"}
    assert rows["model"].null_count() == rows["version"].null_count() == 0


def test_a_message_has_alert_and_fit(fitted: Broker):
    """Valid JSON; ids exact."""
    fitted.stream.subscribe("ztf-salt2", "test")

    message = fitted.stream.pull("test", 1)[0]
    body = json.loads(message.payload)

    assert set(body) == {"alert", "salt2Fit"}
    assert (
        body["alert"]["candid"] == body["salt2Fit"]["candid"] == int(message.attributes["candid"])
    )
    assert "NaN" not in message.payload.decode()


def test_every_fit_has_its_picture(fitted: Broker):
    """In the bucket of pictures, under the promised name."""
    names = {file.name for file in fitted.files.list("ztf-sncosmo")}
    rows = fitted.tables.query("SELECT objectId, candid FROM ztf_alerts.salt2 WHERE reason IS NULL")

    assert names == {f"salt2/plot_lc/{o}.{c}.png" for o, c in rows.iter_rows()}
    picture = fitted.files.read("ztf-sncosmo", min(names))
    assert picture.startswith(b"\x89PNG")


def test_without_model_data_the_words_say_what_to_do(tmp_path: Path):
    """Not a crash, nor a network call."""
    store = ModelStore(tmp_path / "nothing")

    with pytest.raises(ConfigError, match=r"pgb models fetch salt2-2\.4"):
        store.path("salt2-2.4")


def test_a_table_of_photometry_is_fitted_object_by_object(fitted: Broker):
    """With a redshift for those that have one."""
    supernovae = simulate(
        fitted.source_tables(),
        Sampling(("ztfg", "ztfr"), z=(0.04, 0.05)),
        3,
        np.random.default_rng(2),
    )
    curves = [one.lightcurve for one in supernovae]
    table = pl.DataFrame(
        {
            "name": np.repeat(["a", "b", "c"], [len(curve.mjd) for curve in curves]),
            "mjd": np.concatenate([curve.mjd for curve in curves]),
            "band": [band[-1] for curve in curves for band in curve.band],
            "flux": np.concatenate([curve.flux for curve in curves]),
            "fluxerr": np.concatenate([curve.fluxerr for curve in curves]),
            "zp": np.concatenate([curve.zp for curve in curves]),
            "z": np.repeat([0.045, None, None], [len(curve.mjd) for curve in curves]),
        }
    )

    fits = fit(table, broker=fitted).table()

    assert fits["objectId"].to_list() == ["a", "b", "c"]
    assert fits["redshift"].to_list() == ["fixed", "free", "free"]
    assert fits["z"][0] == 0.045


def test_the_first_brokers_errors_are_there_when_asked_for(fitted: Broker):
    """1.505 times larger, so that chi-squared is 2.27 times smaller."""
    row = fitted.tables.query("SELECT objectId FROM ztf_alerts.salt2 WHERE success = 1 LIMIT 1")

    right = fit(row.item(), broker=fitted).table()
    original = fit(row.item(), broker=fitted, original_errors=True).table()

    assert right["chisq"].item() / original["chisq"].item() == pytest.approx(2.2655, rel=0.02)


def test_a_stored_object_is_fitted_by_its_id(fitted: Broker):
    """With a prior on its redshift."""
    row = fitted.tables.query("SELECT objectId FROM ztf_alerts.salt2 WHERE success = 1 LIMIT 1")

    done = fit(row.item(), broker=fitted, redshift=Redshift(0.05, 0.01)).table()

    assert done["redshift"].item() == "prior"
    assert done["objectId"].item() == row.item()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pl.DataFrame({"x": [1]}), "column of objects"),
        (pl.DataFrame({"id": ["a"], "mjd": [1.0], "band": ["g"]}), "flux and fluxerr"),
        (
            pl.DataFrame(
                {"id": ["a"], "mjd": [1.0], "band": ["q"], "mag": [20.0], "magerr": [0.1]}
            ),
            "passband 'q'",
        ),
    ],
)
def test_a_table_that_cannot_be_fitted_is_told_why(fitted: Broker, table: pl.DataFrame, words: str):
    """The words name what is missing."""
    with pytest.raises(UsageError, match=words):
        fit(table, broker=fitted)


def test_the_command_fits_and_draws(fitted: Broker, toy_models: Path, tmp_path: Path):
    """One object, as JSON and picture."""
    row = fitted.tables.query("SELECT objectId FROM ztf_alerts.salt2 WHERE success = 1 LIMIT 1")
    pgb = Pgb(fitted.home)

    out = pgb(
        "fit",
        row.item(),
        "--json",
        "--plot",
        str(tmp_path / "fit.png"),
        environment={"SNCOSMO_DATA_DIR": str(toy_models)},
    )

    assert json.loads(out)["objectId"] == row.item()
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
