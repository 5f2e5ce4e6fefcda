"""SALT2 fits against sncosmo on the same light curves, and recovery of what was put in."""

import io
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.alerts.lightcurve import LightCurve, load_photometry_map
from broker.science.fitters.salt2.engine import FastEngine
from broker.science.fitters.salt2.fitter import Painter
from broker.science.fitters.salt2.models import ModelStore
from broker.science.fitters.salt2.presets import DEFAULT, ORIGINAL, PARAMETERS
from broker.science.fitters.salt2.result import Salt2Fit
from broker.science.fitters.salt2.simulate import Sampling, Simulated, packet, simulate
from broker.science.fitters.salt2.sncosmo_engine import SncosmoEngine
from broker.science.fitters.salt2.tables import SourceTables, build_tables
from broker.science.fitters.salt2.toy import toy_bandpasses, toy_source
from broker.surveys import DEFAULT_SURVEY

MODEL = "salt2-2.4"
"""Model that is measured where its data is present."""

_TOY_EDGES = ((3900.0, 5500.0), (5600.0, 7200.0), (7000.0, 8700.0))
_SAME = 0.1
_REPEATS = 3
_SEED = 20240
_WHOLE = replace(DEFAULT, phase_range=None)


@dataclass(frozen=True, slots=True)
class Bench:
    """A model, its passbands and its tables."""

    name: str
    source: Any
    bandpasses: Sequence[Any]
    tables: SourceTables


def run(
    models: Path | None = None,
    rounds: int = 5,
    packets: int = 500,
    full: int = 200,
    pictures: int = 20,
    recovered: int = 400,
) -> dict[str, Any]:
    """Measure; every time is CPU time of the process on one thread.

    Parameters
    ----------
    models : Path, optional
        Data folder with the real model; a synthetic one is made otherwise.
    rounds : int
        Rounds in which both engines take turns; medians are reported.
    packets, full : int
        Light curves of one alert each, and whole ones.
    pictures : int
        Alerts that go end to end: fit, row and picture.
    recovered : int
        Well sampled supernovae whose parameters are recovered.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bench = prepare(models, Path(folder))
        rng = np.random.default_rng(_SEED)
        bands = bench.tables.coverage.bands[:2]
        simulated = simulate(bench.tables, Sampling(bands), max(packets, full), rng)
        curves = [one.lightcurve for one in simulated]
        cut = [packet(curve, rng) for curve in curves[:packets]]
        by_packet = compare(bench, cut, rounds)
        by_full = compare(bench, curves[:full], rounds)
        end_to_end = picture_ratio(bench, cut[:pictures], rounds)
        pulls = recovery(bench, recovered, rng)
    return {
        "model": bench.name,
        "ratios": {
            "packets_vs_sncosmo": by_packet.pop("ratio"),
            "full_vs_sncosmo": by_full.pop("ratio"),
            "fit_row_picture_vs_original": end_to_end.pop("ratio"),
        },
        "agreement": {"packets": by_packet, "full": by_full},
        "end_to_end": end_to_end,
        "recovery": pulls,
    }


def prepare(models: Path | None, scratch: Path) -> Bench:
    """Load the real model from a data folder, or make the synthetic one."""
    text = files("broker.surveys").joinpath(DEFAULT_SURVEY, "photometry.yaml").read_text()
    names = list(load_photometry_map(text).bands.values())
    if models is None:
        source: Any = toy_source(scratch / "toy")
        bandpasses = toy_bandpasses(dict(zip(names, _TOY_EDGES, strict=True)))
        name = f"{source.name} {source.version}"
    else:
        store = ModelStore(models)
        source, bandpasses, name = store.source(MODEL), store.bandpasses(names), MODEL
    return Bench(name, source, bandpasses, build_tables(source, bandpasses))


def compare(bench: Bench, curves: Sequence[LightCurve], rounds: int) -> dict[str, Any]:
    """Fit with both engines in turns; say how fast, how alike and who is worse."""
    fast = FastEngine(bench.tables, _WHOLE, threads=1)
    slow = SncosmoEngine(bench.source, bench.bandpasses, _WHOLE)
    fast.fit(curves[:2])
    ours: list[Salt2Fit] = []
    theirs: list[Salt2Fit] = []
    times = []
    for part in np.array_split(np.arange(len(curves)), rounds):
        chunk = [curves[n] for n in part]
        found, mine = _timed(partial(fast.fit, chunk), _REPEATS)
        expected, other = _timed(partial(slow.fit, chunk), 1)
        ours += found
        theirs += expected
        times.append((mine / len(chunk), other / len(chunk)))
    again = [slow.restart(curve, fit) for curve, fit in zip(curves, ours, strict=True)]
    mine, other = np.median(times, axis=0)
    return {
        "ratio": float(np.median([b / a for a, b in times])),
        "fast_ms": 1e3 * float(mine),
        "sncosmo_ms": 1e3 * float(other),
        **agreement(ours, theirs, again),
    }


def agreement(
    ours: Sequence[Salt2Fit], theirs: Sequence[Salt2Fit], again: Sequence[Salt2Fit]
) -> dict[str, Any]:
    """Compare minima: differences in units of the error, and who found the lower chi-squared.

    Parameters
    ----------
    ours, theirs : sequence of Salt2Fit
        Of both engines on the same points.
    again : sequence of Salt2Fit
        The oracle restarted from our answers.
    """
    excess = np.array([a.chisq - b.chisq for a, b in zip(ours, theirs, strict=True)])
    gain = np.array([a.chisq - b.chisq for a, b in zip(ours, again, strict=True)])
    pairs = [
        (a, b)
        for a, b, d in zip(ours, theirs, excess, strict=True)
        if abs(d) < _SAME and a.success and not a.at_bound and not b.at_bound
    ]
    differences = np.array([np.abs(a.parameters - b.parameters) / a.errors for a, b in pairs])
    polished = np.array(
        [np.abs(a.parameters - b.parameters) / a.errors for a, b in zip(ours, again, strict=True)]
    )
    return {
        "count": len(ours),
        "better": float(np.mean(excess < -_SAME)),
        "same": float(np.mean(np.abs(excess) <= _SAME)),
        "worse": float(np.mean(excess > _SAME)),
        "restart_improves": float(np.mean(gain > _SAME)),
        "sigma_median": _by_parameter(np.median(differences, axis=0)),
        "sigma_p95": _by_parameter(np.percentile(differences, 95, axis=0)),
        "restart_sigma_p95": _by_parameter(np.nanpercentile(polished, 95, axis=0)),
        "success": float(np.mean([fit.success for fit in ours])),
        "at_bound": float(np.mean([bool(fit.at_bound) for fit in ours])),
    }


def picture_ratio(bench: Bench, curves: Sequence[LightCurve], rounds: int) -> dict[str, Any]:
    """Measure fit, row and picture against sncosmo's fit_lc, flatten_result and plot_lc."""
    fast = FastEngine(bench.tables, DEFAULT, threads=1)
    painter = Painter(bench.tables)

    def ours() -> int:
        fits = fast.fit(curves)
        rows = [fit.row() for fit in fits]
        drawn = [painter.draw(fit, curve) for fit, curve in zip(fits, curves, strict=True)]
        return len(rows) + len(drawn)

    ours()
    original = _original(bench)
    original(curves[0])
    times = []
    for part in np.array_split(np.arange(len(curves)), min(rounds, len(curves))):
        _, mine = _timed(ours, _REPEATS)
        _, theirs = _timed(partial(list, map(original, [curves[n] for n in part])), 1)
        times.append((mine / len(curves), theirs / len(part)))
    mine, theirs = np.median(times, axis=0)
    ratio = float(np.median([b / a for a, b in times]))
    return {"ratio": ratio, "ours_ms": 1e3 * float(mine), "original_ms": 1e3 * float(theirs)}


def _original(bench: Bench) -> Callable[[LightCurve], bytes]:
    """Return the original recipe: one fit, one flat row, one figure."""
    import matplotlib as mpl
    import sncosmo

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    by_name = {band.name: band for band in bench.bandpasses}

    def recipe(curve: LightCurve) -> bytes:
        significant = curve.mjd[curve.flux / curve.fluxerr >= 5]
        first = int(significant[0]) if significant.size else int(curve.mjd[0])
        data = {
            "time": curve.mjd,
            "band": np.array([by_name[name] for name in curve.band.tolist()], dtype=object),
            "flux": curve.flux,
            "fluxerr": curve.fluxerr,
            "zp": curve.zp,
            "zpsys": curve.zpsys,
        }
        bounds = {
            "z": ORIGINAL.z,
            "x1": ORIGINAL.x1,
            "c": ORIGINAL.c,
            "t0": (first - 10, first + 10),
        }
        model = sncosmo.Model(bench.source)
        result, fitted = sncosmo.fit_lc(data, model, list(PARAMETERS), bounds=bounds, minsnr=0)
        sncosmo.flatten_result(result)
        figure = sncosmo.plot_lc(data, model=fitted, errors=result.errors)
        out = io.BytesIO()
        figure.savefig(out, format="png")
        plt.close(figure)
        return out.getvalue()

    return recipe


def recovery(bench: Bench, count: int, rng: np.random.Generator) -> dict[str, Any]:
    """Fit well sampled supernovae with known parameters; return mean and width of pulls."""
    simulated, fits = recover(bench, count, rng)
    pulls = np.array(
        [
            (fit.parameters - one.truth) / fit.errors
            for fit, one in zip(fits, simulated, strict=True)
            if fit.success and not fit.at_bound
        ]
    )
    low, middle, high = np.percentile(pulls, [15.87, 50, 84.13], axis=0)
    return {
        "count": len(pulls),
        "mean": _by_parameter(np.mean(np.clip(pulls, -5, 5), axis=0)),
        "median": _by_parameter(middle),
        "width": _by_parameter((high - low) / 2),
    }


def recover(
    bench: Bench, count: int, rng: np.random.Generator
) -> tuple[list[Simulated], list[Salt2Fit]]:
    """Simulate well sampled supernovae and fit them."""
    bands = bench.tables.coverage.bands
    sampling = Sampling(bands, cadence=1.0, threshold=-np.inf, z=(0.02, 0.08))
    simulated = simulate(bench.tables, sampling, count, rng)
    fits = FastEngine(bench.tables, DEFAULT).fit([one.lightcurve for one in simulated])
    return simulated, fits


def _by_parameter(values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(PARAMETERS, values.tolist(), strict=True))


def _timed(work: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """Return a result and the median CPU time of getting it."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        result = work()
        times.append(time.process_time() - begin)
    return result, float(np.median(times))
