"""The real model on real light curves; skipped where its data is absent."""

import io
import os
from importlib.resources import files
from pathlib import Path

import fastavro
import numpy as np
import pytest

from broker.alerts.lightcurve import build_lightcurves, load_photometry_map
from broker.science.fitters.salt2.engine import FastEngine
from broker.science.fitters.salt2.models import ModelStore
from broker.science.fitters.salt2.presets import DEFAULT
from broker.science.fitters.salt2.sncosmo_engine import SncosmoEngine
from broker.science.fitters.salt2.tables import build_tables

TRUE_Z = 0.0035
MAP = load_photometry_map(files("broker.surveys").joinpath("ztf", "photometry.yaml").read_text())


@pytest.fixture(scope="module")
def store():
    """The folder of fetched model data."""
    folder = os.environ.get("SNCOSMO_DATA_DIR", "")
    if not folder or not Path(folder, "models/salt2/salt2-4").is_dir():
        pytest.skip("SNCOSMO_DATA_DIR has no SALT2 model")
    return ModelStore(Path(folder))


@pytest.fixture(scope="module")
def packets(shared_data):
    """The packets of SN 2021rhu in order of time."""
    paths = (shared_data / "ztf" / "pittgoogle-ZTF21abiuvdk").glob("*.avro")
    found = [next(fastavro.reader(io.BytesIO(path.read_bytes()))) for path in paths]
    return sorted(found, key=lambda packet: packet["candidate"]["jd"])


def prepare(store, model="salt2-2.4"):
    """Return source, passbands and tables of a model."""
    source, bandpasses = store.source(model), store.bandpasses(list(MAP.bands.values()))
    return source, bandpasses, build_tables(source, bandpasses)


def test_packets_never_worse_than_sncosmo(store, packets):
    """Of 34 packets, none ends above sncosmo's chi-squared on the same points."""
    source, bandpasses, tables = prepare(store)
    curves = build_lightcurves(packets, MAP)
    ours = FastEngine(tables).fit(curves)
    masked = [curve.select(fit.used) for curve, fit in zip(curves, ours, strict=True)]
    theirs = SncosmoEngine(source, bandpasses).fit(masked)

    pairs = [
        (a, b)
        for a, b in zip(ours, theirs, strict=True)
        if b.error is None and a.used.sum() == b.used.sum()
    ]
    assert len(pairs) > 25
    for ours_, theirs_ in pairs:
        assert ours_.chisq <= theirs_.chisq + 0.02


def test_whole_light_curve(store, packets):
    """The whole light curve gives a redshift consistent with the true one."""
    stored = [p for packet in packets for p in [packet["candidate"], *packet["prv_candidates"]]]
    curve = build_lightcurves(packets[-1:], MAP, [stored])[0]

    fit = FastEngine(prepare(store)[2]).fit([curve])[0]

    assert fit.success
    assert abs(fit.parameters[0] - TRUE_Z) < 2 * fit.errors[0]
    assert fit.chisq == pytest.approx(584.2, abs=0.2)


@pytest.mark.parametrize("model", ["salt2-T23", "salt3-2.0", "salt3-nir-1.0"])
def test_other_models(store, packets, model):
    """Later models come through the same tables and agree with sncosmo."""
    if store.status() and {one.name: one.state for one in store.status()}[model] == "missing":
        pytest.skip(f"{model} is not there")
    source, bandpasses, tables = prepare(store, model)
    curve = build_lightcurves(packets[16:17], MAP)[0]

    ours = FastEngine(tables).fit([curve])[0]
    theirs = SncosmoEngine(source, bandpasses, DEFAULT).fit([curve])[0]

    assert ours.chisq <= theirs.chisq + 0.02
    assert np.isfinite(ours.errors).all()
