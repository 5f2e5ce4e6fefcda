"""The fast engine: batches of light curves through the compiled kernel, on all cores."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ScienceError
from broker.science.fitters.salt2 import kernel
from broker.science.fitters.salt2.presets import DEFAULT, Preset, Redshift
from broker.science.fitters.salt2.problem import Problem, at_bound, mode, pose
from broker.science.fitters.salt2.result import Salt2Fit
from broker.science.fitters.salt2.tables import BETA, LOG_STEP, SourceTables

if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve

Array = NDArray[np.float64]
Model = tuple[Array, Array, float, float, float]
"""Slabs, central colour law, first c, step in c and first phase."""

_MARGIN = 3
_SCAN_C = (-0.25, 0.0, 0.3, 0.8)
_SCAN_Z = 8
_CHUNK = 64
_C_STEP = 0.04
_C_WIDE = 3.0


@dataclass(frozen=True, slots=True)
class FastEngine:
    """Fits on tables; as right as sncosmo on the same chi-squared.

    Parameters
    ----------
    tables : SourceTables
        Of the model and all bands.
    preset : Preset
        Bounds and search.
    threads : int
        Cores to use; 0 is all that this process may use.
    """

    tables: SourceTables
    preset: Preset = DEFAULT
    threads: int = 0
    name: str = "fast"
    _scan: tuple[Array, Array, NDArray[np.int64], Array] = field(init=False, repr=False)
    _model: Model = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_model", expand(self.tables, self.preset.c))
        object.__setattr__(self, "_scan", _scan_tables(self.tables, self.preset))

    def fit(
        self,
        lightcurves: Sequence["LightCurve"],
        redshifts: Sequence[Redshift | None] | None = None,
    ) -> list[Salt2Fit]:
        """Fit a batch; a light curve that cannot be fitted carries its error.

        Parameters
        ----------
        lightcurves : sequence of LightCurve
            Any number.
        redshifts : sequence of Redshift or None, optional
            One a light curve; None leaves the redshift free.
        """
        known = [None] * len(lightcurves) if redshifts is None else list(redshifts)
        problems = [self._pose(*pair) for pair in zip(lightcurves, known, strict=True)]
        posed = [problem for problem in problems if isinstance(problem, Problem)]
        outcomes = iter(self._solve(posed))
        fits = []
        for lightcurve, problem, redshift in zip(lightcurves, problems, known, strict=True):
            blank = self._blank(lightcurve, redshift)
            if isinstance(problem, ScienceError):
                fits.append(_failed(blank, problem))
            else:
                fits.append(_finished(blank, lightcurve, problem, next(outcomes)))
        return fits

    def _pose(self, lightcurve: "LightCurve", redshift: Redshift | None) -> Problem | ScienceError:
        try:
            return pose(lightcurve, self.tables.coverage, self.preset, redshift)
        except ScienceError as error:
            return error

    def _blank(self, lightcurve: "LightCurve", redshift: Redshift | None) -> dict[str, Any]:
        return {
            "object_id": lightcurve.object_id,
            "source_id": lightcurve.source_id,
            "model": self.tables.model,
            "version": self.tables.version,
            "preset": self.preset.name,
            "engine": self.name,
            "redshift": mode(redshift),
            "starts": self.preset.starts,
        }

    def _solve(self, problems: list[Problem]) -> list[tuple[Array, Array, Array, NDArray[Any]]]:
        """Run the kernel over all problems; return numbers a problem."""
        if not problems:
            return []
        batch, offsets = _pack(problems)
        out = (
            np.full((len(problems), 5), np.nan),
            np.full((len(problems), 5, 5), np.nan),
            np.zeros((len(problems), 5)),
        )
        self._run(batch, self._rows(problems), out)
        masks = np.split(batch[5], offsets[1:-1])
        return list(zip(*out, masks, strict=True))

    def _rows(self, problems: list[Problem]) -> NDArray[np.int64]:
        """Return the coarse-table row of each narrow redshift range, -1 where z is scanned."""
        rows = np.full(len(problems), -1, np.int64)
        for n, problem in enumerate(problems):
            if problem.high[0] - problem.low[0] < LOG_STEP * 5:
                z = 0.5 * (problem.low[0] + problem.high[0])
                rows[n] = round(np.log1p(z) / LOG_STEP) + _MARGIN
        return rows

    def _run(self, batch: Any, rows: NDArray[np.int64], out: Any) -> None:
        phases = self.preset.phase_range or (-1e9, 1e9)
        settings = (self.preset.starts, np.array(phases))
        count = rows.size
        threads = min(self.threads or len(os.sched_getaffinity(0)), -(-count // _CHUNK))
        edges = np.linspace(0, count, max(threads, 1) + 1).astype(int).tolist()

        def chunk(first: int, last: int) -> None:
            kernel.fit_range(first, last, batch, self._model, (*self._scan, rows), settings, out)

        if threads <= 1:
            chunk(0, count)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(chunk, edges[:-1], edges[1:]))


def expand(tables: SourceTables, c_range: tuple[float, float]) -> Model:
    """Tabulate the colour term on a grid of c, as the kernel takes it.

    A factor for the colour law at the middle of each band is taken out, so that what is left
    varies slowly with c. Cells are (band, redshift, c, phase and component).
    """
    low, high = c_range
    step = _C_STEP if high - low < _C_WIDE else 2 * _C_STEP
    colours = np.arange(low - step, high + 2.5 * step, step)
    centre = _central_colour(tables)
    rows = np.moveaxis(tables.values, 3, 1)
    bands, redshifts = rows.shape[:2]
    slabs = np.empty((bands, redshifts, colours.size, 2 * rows.shape[2]))
    for b in range(bands):
        law = tables.colour[b, :, None] - centre[b, :, None, None]
        weights = np.exp(-BETA * law * colours)
        flat = rows[b].reshape(redshifts, -1, rows.shape[-1])
        slabs[b] = np.moveaxis(flat @ weights, 1, 2)
    return slabs, centre, float(colours[0]), step, tables.phase_range[0]


def _central_colour(tables: SourceTables) -> Array:
    """Return the flux-weighted colour law of each band and redshift near maximum."""
    near = tables.values[:, round(-tables.phase_range[0]), 0]
    return np.asarray((near * tables.colour[:, None, :]).sum(-1) / near.sum(-1))


def _scan_tables(
    tables: SourceTables, preset: Preset
) -> tuple[Array, Array, NDArray[np.int64], Array]:
    """Contract the colour nodes at the scan's colours, for every redshift node."""
    colours = np.clip(np.array(_SCAN_C), *preset.c)
    weights = np.exp(-BETA * colours[:, None, None] * tables.colour)
    values = tables.values[:, :-4]
    coarse = np.einsum("bpmjk,cbk->jcbpm", values, weights)
    low, high = np.log1p(preset.z) / LOG_STEP + _MARGIN
    rows = np.unique(np.round(np.linspace(low, high, 2 * _SCAN_Z + 1)[1::2]).astype(np.int64))
    return np.ascontiguousarray(coarse), np.expm1(LOG_STEP * (rows - _MARGIN)), rows, colours


def _pack(problems: list[Problem]) -> tuple[Any, NDArray[np.int64]]:
    """Concatenate the problems into the arrays of one kernel call."""
    sizes = [problem.time.size for problem in problems]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    batch = (
        offsets,
        np.concatenate([problem.time for problem in problems]),
        np.concatenate([problem.band for problem in problems]),
        np.concatenate([problem.flux for problem in problems]),
        1.0 / np.concatenate([problem.error for problem in problems]),
        np.concatenate([problem.early for problem in problems]),
        np.stack([problem.low for problem in problems]),
        np.stack([problem.high for problem in problems]),
        np.array([problem.prior for problem in problems]),
    )
    return batch, offsets


def _failed(blank: dict[str, Any], error: ScienceError) -> Salt2Fit:
    return Salt2Fit(**blank, error=error)


def _finished(
    blank: dict[str, Any],
    lightcurve: "LightCurve",
    problem: Problem,
    outcome: tuple[Array, Array, Array, NDArray[np.bool_]],
) -> Salt2Fit:
    """Turn the kernel's numbers into a fit."""
    parameters, covariance, numbers, mask = outcome
    if not (numbers[0] and mask.any() and np.isfinite(parameters).all()):
        return _failed(blank, ScienceError("the fit failed: no model with positive flux matches"))
    used = np.zeros(lightcurve.mjd.size, np.bool_)
    used[problem.chosen[mask]] = True
    phase = (problem.time[mask] - parameters[1]) / (1 + parameters[0])
    free = int((problem.low < problem.high).sum())
    return Salt2Fit(
        **blank,
        success=bool(numbers[3]) and bool(parameters[2] > 0),
        ncall=int(numbers[2]),
        chisq=float(numbers[1] - prior_chisq(problem, parameters)),
        ndof=int(mask.sum()) - free,
        parameters=parameters,
        covariance=covariance,
        at_bound=at_bound(parameters, problem.low, problem.high),
        second_minimum=float(numbers[4]),
        phase_min=float(phase.min()),
        phase_max=float(phase.max()),
        used=used,
        bands=tuple(sorted(set(lightcurve.band[used].tolist()))),
    )


def prior_chisq(problem: Problem, parameters: Array) -> float:
    """Return the redshift prior's share of what is minimised."""
    value, error = problem.prior
    return ((float(parameters[0]) - value) / error) ** 2 if error > 0 else 0.0
