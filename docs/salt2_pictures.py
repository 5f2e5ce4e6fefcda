"""Draw the pictures of docs/explanation/salt2.md from simulated supernovae."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from broker.apps.benchmarks.salt2 import prepare, recover
from broker.apps.cli.bench import model_data
from broker.science.fitters.salt2.fitter import Painter, Salt2Fitter
from broker.science.fitters.salt2.result import Salt2Fit
from broker.science.fitters.salt2.simulate import Sampling, Simulated, simulate

PICTURES = Path(__file__).parent / "pictures"
COUNT, SEED = 400, 7
LABELS = ("z", "t₀", "x₀", "x₁", "c")


def main() -> None:
    """Draw a fit, and the pulls of recovered parameters."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(model_data(), Path(scratch))
        random = np.random.default_rng(SEED)
        bands = tuple(band.name for band in bench.bandpasses)
        one = simulate(bench.tables, Sampling(bands, z=(0.04, 0.05)), 1, random)[0].lightcurve
        fit = Salt2Fitter(bench.tables).fit([one])[0]
        (PICTURES / "salt2-fit.png").write_bytes(Painter(bench.tables).draw(fit, one))
        draw_pulls(*recover(bench, COUNT, random))


def draw_pulls(simulated: Sequence[Simulated], fits: Sequence[Salt2Fit]) -> None:
    """Draw a histogram of (found - true) / error for each parameter."""
    pairs = zip(fits, simulated, strict=True)
    good = [(fit, one) for fit, one in pairs if fit.success and not fit.at_bound]
    pulls = np.array([(fit.parameters - one.truth) / fit.errors for fit, one in good])
    figure = Figure(figsize=(10, 2.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = np.linspace(-4, 4, 200)
    for axes, label, values in zip(figure.subplots(1, 5), LABELS, pulls.T, strict=True):
        axes.hist(values, bins=np.linspace(-4, 4, 25), density=True, color="#7aa6d8")
        axes.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color="#1b2a41", lw=1.2)
        axes.set_title(f"{label}:  {values.mean():+.2f} ± {values.std():.2f}", size=10)
        axes.set_yticks([])
        axes.set_xlabel("(found − true) / error", size=8)
    figure.savefig(PICTURES / "salt2-recovery.png")


if __name__ == "__main__":
    main()
