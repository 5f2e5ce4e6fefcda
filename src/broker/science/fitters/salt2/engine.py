"""The fast engine: batches of light curves through the compiled kernel, on all cores."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from broker.science.fitters.salt2 import search
from broker.science.fitters.salt2.kernel import Model
from broker.science.fitters.salt2.outcome import Origin, Solution, collect
from broker.science.fitters.salt2.presets import DEFAULT, Preset, Redshift
from broker.science.fitters.salt2.problem import Batch, pose
from broker.science.fitters.salt2.result import Salt2Fit
from broker.science.fitters.salt2.tables import BETA, LOG_STEP, SourceTables

if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve

Array = NDArray[np.float64]

_MARGIN = 3
_SCAN_C = (-0.15, 0.15, 0.6)
_SCAN_Z = 8
_CHUNK = 64
_NARROW = 0.01
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
        batch = pose(lightcurves, self.tables.coverage, self.preset, known)
        return collect(lightcurves, known, batch, self._solve(batch), self._origin())

    def _origin(self) -> Origin:
        starts = self.preset.starts
        return Origin(self.tables.model, self.tables.version, self.preset, self.name, starts)

    def _solve(self, batch: Batch) -> Solution:
        """Run the kernel over a batch."""
        count = len(batch.low)
        packed = (
            batch.offsets,
            batch.time,
            batch.band,
            batch.flux,
            1.0 / batch.error,
            batch.early.copy(),
            batch.low,
            batch.high,
            batch.prior,
        )
        out = (np.full((count, 5), np.nan), np.full((count, 5, 5), np.nan), np.zeros((count, 5)))
        ready = np.array([n not in batch.failures for n in range(count)], np.bool_)
        self._run(packed, self._rows(batch), ready, out)
        parameters, covariance, numbers = out
        return Solution(
            parameters=parameters,
            covariance=covariance,
            found=(numbers[:, 0] > 0) & np.isfinite(parameters).all(axis=1),
            chisq=numbers[:, 1],
            ncall=numbers[:, 2].astype(np.int64),
            success=numbers[:, 3] > 0,
            second_minimum=numbers[:, 4],
            mask=packed[5],
        )

    def _rows(self, batch: Batch) -> NDArray[np.int64]:
        """Return the coarse-table row of each narrow redshift range, -1 where z is scanned."""
        z_low, z_high = batch.low[:, 0], batch.high[:, 0]
        rows = np.round(np.log1p(0.5 * (z_low + z_high)) / LOG_STEP).astype(np.int64) + _MARGIN
        return np.where(z_high - z_low < _NARROW, rows, -1)

    def _run(
        self, packed: Any, rows: NDArray[np.int64], ready: NDArray[np.bool_], out: Any
    ) -> None:
        """Share the light curves out over threads."""
        if rows.size == 0:
            return
        phases = self.preset.phase_range or (-1e9, 1e9)
        settings = (self.preset.starts, np.array(phases), ready)
        threads = min(self.threads or os.cpu_count() or 1, -(-rows.size // _CHUNK))
        edges = np.linspace(0, rows.size, max(threads, 1) + 1).astype(int).tolist()

        def chunk(first: int, last: int) -> None:
            scan = (*self._scan, rows)
            search.fit_range((first, last), packed, self._model, scan, settings, out)

        if threads <= 1:
            chunk(0, rows.size)
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
    return Model(slabs, centre, float(colours[0]), step, tables.phase_range[0])


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
    spread = np.linspace(np.ceil(low), np.floor(high), _SCAN_Z)
    rows = np.unique(np.round(spread).astype(np.int64))
    return np.ascontiguousarray(coarse), np.expm1(LOG_STEP * (rows - _MARGIN)), rows, colours
