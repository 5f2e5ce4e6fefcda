"""The simulated sky: chance, light curves, shares of populations."""

from datetime import date
from math import inf
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from broker.apps.simulator import chance, shapes
from broker.apps.simulator.cadence import cadence_of, can_simulate, named_rates, profiles
from broker.apps.simulator.catalogue import populations
from broker.apps.simulator.night import Night
from broker.apps.simulator.spectra import colour
from broker.apps.simulator.supernovae import Salt2Light, light_of, toy_tables, type_ia_light
from broker.errors import ConfigError, UsageError
from broker.surveys import SURVEYS

NIGHT = date(2026, 11, 20)
ZTF = SURVEYS["ztf"]


def test_chance_is_a_function_of_its_keys():
    """Whatever else was drawn, and for arrays as for single numbers."""
    many = chance.uniform(1, np.arange(5), 2)

    assert float(chance.uniform(1, 3, 2)) == many[3]
    assert len({*many.tolist(), float(chance.uniform(3, 1, 2))}) == 6


def test_chance_is_uniform_and_normal():
    """By mean, spread and range."""
    keys = chance.key(7, np.arange(20_000))
    uniform, normal = chance.uniform(keys), chance.normal(keys)

    assert (uniform.min() >= 0) & (uniform.max() < 1)
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert (normal.mean(), normal.std()) == pytest.approx((0, 1), abs=0.03)


def test_streams_are_independent_of_each_other():
    """No two of them are correlated."""
    numbers = chance.streams(chance.key(np.arange(5000)), 4)

    assert np.abs(np.corrcoef(numbers) - np.eye(4)).max() < 0.05


def test_a_random_walk_forgets_within_its_timescale():
    """Correlation exp(-dt / timescale), unit variance (mean over objects)."""
    count, lags = 4000, (0.0, 50.0, 100.0, 300.0)
    p = {"seed": np.arange(count).astype(float) * 7919, "timescale": np.full(count, 100.0)}
    first = shapes.random_walk(p, np.full(count, 61000.0))

    found = [np.mean(first * shapes.random_walk(p, np.full(count, 61000.0 + lag))) for lag in lags]

    assert found == pytest.approx(np.exp(-np.array(lags) / 100.0), abs=0.06)


def test_an_eclipse_only_takes_light_away():
    """And repeats after a period."""
    p = {"period": np.full(200, 2.5), "phase": np.zeros(200), "width": np.full(200, 0.05),
         "ratio": np.full(200, 0.5)}  # fmt: skip
    mjd = np.linspace(61000, 61005, 200)

    flux = shapes.eclipse(p, mjd)

    assert flux.max() <= 0
    assert flux.min() == pytest.approx(-1, abs=0.1)
    assert flux == pytest.approx(shapes.eclipse(p, mjd + 2.5), abs=1e-6)


def test_a_transient_rises_faster_than_it_falls():
    """And is gone before and after."""
    p = {"rise": np.full(300, 3.0), "fall": np.full(300, 20.0), "plateau": np.full(300, 8.0),
         "slope": np.full(300, 0.02)}  # fmt: skip
    age = np.linspace(-60, 240, 300)

    flux = shapes.villar(p, age)
    peak = int(flux.argmax())

    assert flux[0] < 1e-3 > flux[-1]
    assert (flux[:peak] > flux.max() / 2).sum() < (flux[peak:] > flux.max() / 2).sum()


def test_hot_sources_are_blue():
    """Relative to 6200 Angstrom."""
    assert colour(4000, 15000) > 1 > colour(4000, 4000)
    assert colour(6200, 9999) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def truth() -> pl.DataFrame:
    """Return the truth of a night."""
    return pl.concat([part.truth for part in Night(ZTF, NIGHT, seed=5).alerts(4000)])


def test_every_population_has_its_share(truth):
    """As the mix says, within the noise of some 15 fields."""
    wanted = cadence_of(ZTF).mix("teaching")
    counts = dict(truth["class"].value_counts().iter_rows())

    assert set(counts) == set(wanted) == set(populations())
    for name, share in wanted.items():
        assert counts[name] / 4000 == pytest.approx(share, rel=0.45, abs=0.01), name


def test_nothing_is_fainter_than_the_depth(truth):
    """Measured at five sigma."""
    assert (truth["flux"].abs() / truth["flux_error"]).min() > 5
    assert truth["mag_true"].min() > cadence_of(ZTF).saturation_mag - 0.5


def test_measured_fluxes_scatter_around_the_truth_as_their_errors_say(truth):
    """For bright ones, where the threshold does not select."""
    bright = truth.filter(pl.col("flux_true").abs() > 12 * pl.col("flux_error"))
    pull = (bright["flux"] - bright["flux_true"]) / bright["flux_error"]

    assert pull.std() == pytest.approx(1.0, abs=0.06)
    assert pull.mean() == pytest.approx(0.0, abs=0.08)


def test_the_truth_knows_the_parameters_of_supernovae(truth):
    """And of nothing else."""
    type_ia = truth.filter(pl.col("class") == "SNIa")

    assert type_ia.select(pl.col("z", "t0", "x0", "x1", "c").null_count()).sum_horizontal()[0] == 0
    assert truth.filter(pl.col("group") == "variable")["x0"].null_count() == len(
        truth.filter(pl.col("group") == "variable")
    )


def test_variables_and_artefacts_go_both_ways(truth):
    """Negative differences are real; eclipses are hardly anything else."""
    negative = truth.group_by("class").agg((pl.col("flux") < 0).mean().alias("share"))
    shares = dict(negative.iter_rows())

    assert shares["EB"] > 0.95
    assert 0.2 < shares["RRLyrae"] < 0.8
    assert 0.2 < shares["dipole"] < 0.8
    assert shares["SNIa"] == 0


def test_the_small_model_shines_like_the_published_one(tmp_path: Path):
    """A normal supernova at z = 0.05 peaks near -19.31 + 36.7 mag."""
    cadence = cadence_of(ZTF)
    light = light_of(toy_tables(cadence, tmp_path), cadence)
    mjd = np.arange(60000.0, 60060.0)
    x0 = 10 ** (0.4 * (10.5 + 19.31 - 36.78))
    one = {"z": 0.05, "t0": 60020.0, "x0": x0, "x1": 0.0, "c": 0.0, "_row": 0.0, "_band": 2.0}

    flux = light({name: np.full(60, v) for name, v in one.items()}, mjd, mjd)

    assert 31.4 - 2.5 * np.log10(flux.max()) == pytest.approx(17.6, abs=0.3)
    assert mjd[flux.argmax()] == pytest.approx(60021, abs=3)


def test_the_small_model_stands_in_where_data_is_missing(tmp_path: Path):
    """By default; asked for by name, the published one is missed in words."""

    def missing():
        raise ConfigError("run 'pgb models fetch'")

    assert isinstance(type_ia_light("auto", cadence_of(ZTF), missing, tmp_path), Salt2Light)
    with pytest.raises(ConfigError, match="pgb models fetch"):
        type_ia_light("salt2", cadence_of(ZTF), missing, tmp_path)
    with pytest.raises(UsageError, match="unknown model"):
        type_ia_light("best", cadence_of(ZTF), missing, tmp_path)


def test_a_field_without_supernovae_is_dark(tmp_path: Path):
    """No rows, no light."""
    nothing = np.empty(0)
    light = light_of(toy_tables(cadence_of(ZTF), tmp_path), cadence_of(ZTF))

    assert light({"_row": nothing, "_band": nothing}, nothing, nothing).size == 0


def test_tables_without_a_passband_are_not_used(tmp_path: Path):
    """They would shine in the wrong colour."""
    tables = toy_tables(cadence_of(ZTF), tmp_path)

    with pytest.raises(ConfigError, match="no passband lsstu"):
        light_of(tables, cadence_of(SURVEYS["lsst"]))


def test_supernovae_of_the_tables_are_in_the_night(tmp_path: Path):
    """Their measured fluxes are those of the tables at the true parameters."""
    cadence = cadence_of(ZTF)
    light = light_of(toy_tables(cadence, tmp_path), cadence)
    parts = Night(ZTF, NIGHT, seed=5, type_ia=light).alerts(600)
    found = pl.concat([part.truth for part in parts]).filter(pl.col("class") == "SNIa")
    names = [band.name for band in cadence.bands]
    p = {name: found[name].to_numpy() for name in ("z", "t0", "x0", "x1", "c")}
    p["_row"] = np.arange(len(found), dtype=float)
    p["_band"] = np.array([names.index(name) for name in found["band"]], float)

    flux = light(p, found["mjd"].to_numpy(), p["z"])

    assert len(found) > 30
    assert flux == pytest.approx(found["flux_true"].to_numpy(), rel=1e-6)


def test_surveys_that_cannot_be_simulated_say_so():
    """And name those that can."""
    assert not can_simulate(SURVEYS["lvk"])
    with pytest.raises(UsageError, match="elasticc, lsst, ztf can"):
        cadence_of(SURVEYS["lvk"])
    with pytest.raises(UsageError, match="there is no mix 'no-such'"):
        next(Night(ZTF, NIGHT, mix="no-such").fields())


def test_loads_and_rates_have_names():
    """Those of the design documents among them."""
    assert profiles()["lsst-night"].alerts == 10_000
    assert profiles()["lsst-night"].every_s == 39
    assert profiles()["lsst-peak-visit"].alerts == 40_000
    assert profiles()["lsst-burst"].within_s == 3
    assert named_rates()["ztf-live-max"] == (200, "perSec")
    assert all(0 < one.within_s <= one.every_s < inf for one in profiles().values())
