"""The fast SALT2 engine against sncosmo, on a synthetic model that needs no download."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from broker.alerts.lightcurve import LightCurve
from broker.errors import ConfigError, ScienceError
from broker.science.fitters.salt2 import kernel
from broker.science.fitters.salt2.engine import FastEngine, expand
from broker.science.fitters.salt2.fitter import Salt2Fitter, make_fitter, passes_quality
from broker.science.fitters.salt2.presets import (
    DEFAULT,
    ORIGINAL,
    PARAMETERS,
    Redshift,
    with_original_errors,
)
from broker.science.fitters.salt2.simulate import Sampling, packet, simulate
from broker.science.fitters.salt2.sncosmo_engine import SncosmoEngine
from broker.science.fitters.salt2.tables import build_tables
from broker.science.fitters.salt2.toy import toy_bandpasses, toy_source

EDGES = {"ztfg": (3900.0, 5500.0), "ztfr": (5600.0, 7200.0), "ztfi": (7000.0, 8700.0)}
WHOLE = replace(DEFAULT, phase_range=None)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The synthetic model, its passbands and its tables."""
    source = toy_source(tmp_path_factory.mktemp("toy"))
    bandpasses = toy_bandpasses(EDGES)
    return source, bandpasses, build_tables(source, bandpasses)


@pytest.fixture(scope="module")
def simulated(toy):
    """Well sampled supernovae in three bands."""
    sampling = Sampling(tuple(EDGES), cadence=1.5, z=(0.02, 0.08))
    return simulate(toy[2], sampling, 24, np.random.default_rng(5))


@pytest.fixture(scope="module")
def fits(toy, simulated):
    """Their fits with the default preset."""
    return Salt2Fitter(toy[2]).fit([one.lightcurve for one in simulated])


def test_flux_is_sncosmos(toy):
    """Table fluxes are sncosmo's to 2e-5 of the peak, edges of the model included."""
    import sncosmo

    source, bandpasses, tables = toy
    model, rng = expand(tables, DEFAULT.c), np.random.default_rng(1)
    expected, found, out = [], [], np.empty(30)
    for _ in range(20):
        p = np.array([rng.uniform(0.002, 0.2), 0.0, 1e-3, rng.normal(), rng.uniform(-0.5, 1.5)])
        time, band = rng.uniform(-25, 62, 30), rng.integers(0, 3, 30)
        kernel.model_flux(p, time, band, model, out)
        oracle = sncosmo.Model(source)
        oracle.parameters = p
        names = np.array(bandpasses, dtype=object)[band]
        flux = oracle.bandflux(names, time, zp=25.0, zpsys="ab")
        expected.append(flux / np.abs(flux).max())
        found.append(out / np.abs(flux).max())

    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_gradient_is_exact(toy, simulated):
    """The analytic gradient is the slope of chi-squared."""
    tables = toy[2]
    model = expand(tables, DEFAULT.c)
    curve = simulated[0].lightcurve
    band = np.array([tables.coverage.bands.index(name) for name in curve.band.tolist()])
    points = kernel.Points(curve.mjd, band, curve.flux, 1 / curve.fluxerr, curve.flux > 0)
    work = kernel.workspace(model.slabs, curve.mjd.size)
    bounds = np.zeros(5), np.ones(5)
    task = kernel.Task(points, model, work, np.array([0.05, 0.02]), *bounds)
    p = simulated[0].truth * [1.01, 1, 1.01, 1, 1] + [0.0003, 0.3, 0, 0.1, 0.013]
    gradient, scratch, matrix = np.empty(5), np.empty(5), np.empty((5, 5))
    kernel.normal(p, task, False, gradient, matrix)

    slopes = []
    for i, width in enumerate([1e-6, 1e-4, p[2] * 1e-5, 1e-4, 1e-5]):
        step = np.eye(5)[i] * width
        up = kernel.normal(p + step, task, False, scratch, matrix)
        down = kernel.normal(p - step, task, False, scratch, matrix)
        slopes.append((up - down) / width / 4)

    np.testing.assert_allclose(gradient, slopes, rtol=2e-4)


def test_same_minimum_as_sncosmo(toy, simulated):
    """On whole light curves both engines find the same minimum to a few percent of an error."""
    source, bandpasses, tables = toy
    curves = [one.lightcurve for one in simulated[:8]]
    ours = FastEngine(tables, WHOLE).fit(curves)
    theirs = SncosmoEngine(source, bandpasses, WHOLE).fit(curves)

    excess = [a.chisq - b.chisq for a, b in zip(ours, theirs, strict=True)]
    apart = [
        np.abs(a.parameters - b.parameters) / a.errors
        for a, b in zip(ours, theirs, strict=True)
        if abs(a.chisq - b.chisq) < 0.1
    ]
    assert max(excess) < 0.1
    assert np.median(apart) < 0.01


def test_sncosmo_cannot_improve(toy, simulated):
    """Restarted from our answer on short packets, sncosmo gains nothing."""
    source, bandpasses, tables = toy
    rng = np.random.default_rng(2)
    curves = [packet(one.lightcurve, rng) for one in simulated[:8]]
    oracle = SncosmoEngine(source, bandpasses, WHOLE)
    ours = FastEngine(tables, WHOLE).fit(curves)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = [oracle.restart(curve, fit) for curve, fit in zip(curves, ours, strict=True)]

    assert max(a.chisq - b.chisq for a, b in zip(ours, again, strict=True)) < 0.1


def test_recovers_truth(simulated, fits):
    """Parameters of simulated supernovae come back within their errors."""
    pulls = np.array(
        [(f.parameters - s.truth) / f.errors for f, s in zip(fits, simulated, strict=True)]
    )

    assert all(fit.success for fit in fits)
    assert (np.median(np.abs(pulls), axis=0) < 1.5).all()
    assert np.median(np.abs(pulls[:, 1]) * [fit.errors[1] for fit in fits]) < 1


def test_fixed_redshift(toy, simulated):
    """A fixed redshift stays, has no error, and frees a degree of freedom."""
    curve, z = simulated[0].lightcurve, float(simulated[0].truth[0])
    engine = FastEngine(toy[2])

    free, fixed = engine.fit([curve, curve], [None, Redshift(z)])

    assert (fixed.parameters[0], fixed.errors[0]) == (z, 0)
    assert fixed.ndof == free.ndof + 1
    assert (free.redshift, fixed.redshift) == ("free", "fixed")


def test_prior_pulls(toy, simulated):
    """A prior narrows the redshift, and its share is not in chi-squared."""
    curve, z = simulated[0].lightcurve, float(simulated[0].truth[0])
    engine = FastEngine(toy[2])

    free, prior = engine.fit([curve, curve], [None, Redshift(z, 0.001)])

    assert abs(prior.parameters[0] - z) < 0.003
    assert prior.errors[0] < min(0.00101, free.errors[0])
    assert prior.chisq >= free.chisq - 1e-3


def test_phase_mask(toy, simulated):
    """A late point, where the model ends, is neither fitted nor changes the answer."""
    one = simulated[0]
    alone = one.lightcurve
    late = LightCurve.of_detections(
        "B",
        1,
        np.append(alone.mjd, one.truth[1] + 52 * (1 + one.truth[0])),
        np.append(alone.band, "ztfr"),
        np.append(alone.flux, 0.2 * alone.flux.max()),
        np.append(alone.fluxerr, 0.002 * alone.flux.max()),
    )

    expected, masked = FastEngine(toy[2]).fit([alone, late])

    assert not masked.used[-1]
    assert masked.used.sum() == expected.used.sum()
    np.testing.assert_allclose(masked.parameters, expected.parameters, rtol=1e-4)
    assert -15 < masked.phase_min < masked.phase_max < 45


def test_original_bounds(toy, simulated):
    """The original preset keeps its bounds, and says so when a fit ends on one."""
    curves = [one.lightcurve for one in simulated]

    for fit, curve in zip(FastEngine(toy[2], ORIGINAL).fit(curves), curves, strict=True):
        z, t0, _, x1, c = fit.parameters
        first = int(curve.mjd[curve.flux / curve.fluxerr >= 5][0])
        assert 0.01 <= z <= 0.2
        assert abs(t0 - first) <= 10
        assert max(abs(x1), abs(c)) <= 5
        if abs(t0 - first) > 9.999:
            assert {"t0_low", "t0_high"} & set(fit.at_bound)


def test_original_errors(toy, simulated):
    """The original error formula divides chi-squared by 2.27 at a fixed model."""
    curve, z = simulated[0].lightcurve, Redshift(float(simulated[0].truth[0]))

    right = FastEngine(toy[2]).fit([curve], [z])[0]
    wrong = FastEngine(toy[2], with_original_errors(DEFAULT)).fit([curve], [z])[0]

    assert right.chisq / wrong.chisq == pytest.approx((np.log(4) / np.log(10) * 2.5) ** 2, rel=1e-3)


def test_failures_stay_in_the_batch(toy, simulated):
    """A light curve that cannot be fitted carries its error; its neighbours are fitted."""
    good = simulated[0].lightcurve
    empty = good.select(np.zeros(good.mjd.size, bool))
    unknown = replace(good, band=np.full(good.mjd.size, "nowhere"))

    fits = FastEngine(toy[2]).fit([empty, good, unknown])

    assert [fit.error is None for fit in fits] == [False, True, False]
    assert all(isinstance(fit.error, ScienceError) for fit in (fits[0], fits[2]))


def test_redshift_beyond_tables(toy, simulated):
    """A fixed redshift that the tables do not reach is said to be so."""
    fit = FastEngine(toy[2]).fit([simulated[0].lightcurve], [Redshift(2.0)])[0]

    assert "outside the tables" in str(fit.error)


def test_threads_change_nothing(toy, simulated):
    """Many light curves on two threads give what one thread gives."""
    curves = [one.lightcurve for one in simulated] * 6

    one = FastEngine(toy[2], threads=1).fit(curves)
    two = FastEngine(toy[2], threads=2).fit(curves)

    np.testing.assert_array_equal([f.parameters for f in one], [f.parameters for f in two])


def test_empty_batch(toy):
    """No light curves give no fits."""
    assert FastEngine(toy[2]).fit([]) == []


def test_tables_are_cached(toy, tmp_path):
    """Tables read from the cache are those that were built."""
    source, bandpasses, tables = toy
    build_tables(source, bandpasses, cache=tmp_path)

    again = build_tables(source, bandpasses, cache=tmp_path)

    np.testing.assert_array_equal(again.values, tables.values)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("count", "snr", "passes"), [(5, 5.0, True), (4, 5.0, False), (5, 4.99, False), (0, 5, False)]
)
def test_quality_cuts(count, snr, passes):
    """Five detections and S/N 5 are enough; less, or nothing at all, is not."""
    flux = np.full(count, 1.0)
    flux[:1] = snr
    curve = LightCurve.of_detections(
        "A", 1, np.arange(float(count)), np.full(count, "ztfg"), flux, np.ones(count)
    )

    assert passes_quality(curve) is passes


def test_row(fits):
    """A row has the 42 columns of the original table, plain types, and says how it was made."""
    row = fits[0].row()
    covariances = {f"{a}_{b}_cov" for a in PARAMETERS for b in PARAMETERS}
    first = ["objectId", "candid", "success", "ncall", "chisq", "ndof", "plot_lc_bytes"]
    errors = [f"{name}_err" for name in PARAMETERS]

    assert {*first, *PARAMETERS, *errors, *covariances} <= set(row)
    assert all(type(row[name]) is int for name in ("success", "ncall", "ndof"))
    assert (row["model"], row["version"], row["engine"]) == ("toy", "1", "fast")
    assert row["preset"] == "default"


def test_failed_row_has_no_nan(toy, simulated):
    """A failed fit's row has None for NaN, and the reason."""
    curve = simulated[0].lightcurve
    row = FastEngine(toy[2]).fit([curve.select(np.zeros(curve.mjd.size, bool))])[0].row()

    assert row["z"] is None
    assert row["chisq"] is None
    assert "no point" in row["reason"]


def test_sncosmo_failure_is_a_value(toy, simulated):
    """What sncosmo raises becomes the fit's error."""
    source, bandpasses, _ = toy
    faint = replace(simulated[0].lightcurve, fluxerr=simulated[0].lightcurve.flux)

    fit = SncosmoEngine(source, bandpasses).fit([faint])[0]

    assert "DataQualityError" in str(fit.error)


class Toys:
    """Models as `make_fitter` takes them."""

    def __init__(self, toy, mark=""):
        self.toy, self.mark, self.asked = toy, mark, 0

    def fingerprint(self, names):
        """Return what the data is known by."""
        return self.mark

    def source(self, name):
        """Return the toy, whatever is asked for."""
        self.asked += 1
        return self.toy[0]

    def bandpasses(self, names):
        """Return the passbands of those names."""
        return [band for band in self.toy[1] if band.name in names]


@pytest.mark.parametrize("engine", ["fast", "sncosmo"])
def test_engines_share_a_door(toy, simulated, tmp_path, engine):
    """Both engines are made by name and fit the same light curve alike."""
    fitter = make_fitter(Toys(toy), list(EDGES), engine=engine, cache=tmp_path)

    fit = fitter.fit([simulated[1].lightcurve])[0]

    assert (fit.engine, fit.preset) == (engine, "default")
    assert abs(fit.parameters[1] - simulated[1].truth[1]) < 5 * fit.errors[1]


def test_model_is_opened_once_for_the_same_data(toy, tmp_path):
    """Tables come from the cache without it, and are the same; a damaged note counts for none."""
    first, again, other = Toys(toy, "data"), Toys(toy, "data"), Toys(toy, "data")

    made = make_fitter(first, list(EDGES), cache=tmp_path).tables
    kept = make_fitter(again, list(EDGES), cache=tmp_path).tables
    for note in tmp_path.glob("*.json"):
        note.write_text("{")
    damaged = make_fitter(other, list(EDGES), cache=tmp_path).tables

    assert (first.asked, again.asked, other.asked) == (1, 0, 1)
    np.testing.assert_array_equal(damaged.values, made.values)
    np.testing.assert_array_equal(kept.values, made.values)
    np.testing.assert_array_equal(kept.colour, made.colour)
    np.testing.assert_array_equal(kept.coverage.edges, made.coverage.edges)
    for name in ("model", "version", "checksum", "phase_range"):
        assert getattr(kept, name) == getattr(made, name)
    assert kept.coverage.bands == made.coverage.bands
    assert kept.coverage.wave_range == made.coverage.wave_range
    assert kept.coverage.z_max == made.coverage.z_max


def test_unknown_engine(toy):
    """An engine that does not exist is refused with those that do."""
    with pytest.raises(ConfigError, match="fast, sncosmo"):
        make_fitter(Toys(toy), list(EDGES), engine="slow")


def test_wide_redshifts(toy, simulated):
    """Tables reach as far as is asked, and a redshift of 0.6 drops bands out of range."""
    fitter = make_fitter(Toys(toy), list(EDGES), z_max=1.0)
    curve = simulated[0].lightcurve

    fit = fitter.fit([curve], [Redshift(0.95)])[0]

    assert fitter.tables.coverage.z_max >= 1.0
    assert fit.parameters[0] == 0.95
    assert "ztfg" not in fit.bands
