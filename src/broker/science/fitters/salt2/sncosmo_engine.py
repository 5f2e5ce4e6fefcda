"""The engine ``sncosmo``: the oracle of the fast one, and for models without tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ScienceError
from broker.science.fitters.salt2.outcome import Origin, Solution, collect
from broker.science.fitters.salt2.presets import DEFAULT, PARAMETERS, Preset, Range, Redshift
from broker.science.fitters.salt2.problem import Batch, pose
from broker.science.fitters.salt2.result import Salt2Fit
from broker.science.fitters.salt2.tables import ZERO_POINT, Coverage, coverage

if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve

Array = NDArray[np.float64]

_ANY_Z = 2.0


@dataclass(frozen=True, slots=True)
class SncosmoEngine:
    """Fits with ``sncosmo.fit_lc``: one start, Minuit, no tables.

    A Gaussian prior on the redshift is refused, as ``fit_lc`` has none.

    Parameters
    ----------
    source : sncosmo.Source
        A source with parameters x0, x1 and c.
    bandpasses : sequence of sncosmo.Bandpass
        Named passbands of the light curves.
    preset : Preset
        Bounds and data selection; the number of starts has no meaning here.
    """

    source: Any
    bandpasses: Sequence[Any]
    preset: Preset = DEFAULT
    name: str = "sncosmo"
    _coverage: Coverage = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = coverage(self.source, self.bandpasses, _ANY_Z)
        object.__setattr__(self, "_coverage", found)

    def fit(
        self,
        lightcurves: Sequence["LightCurve"],
        redshifts: Sequence[Redshift | None] | None = None,
    ) -> list[Salt2Fit]:
        """Fit each light curve; one that cannot be fitted carries its error.

        Parameters
        ----------
        lightcurves : sequence of LightCurve
            Any number.
        redshifts : sequence of Redshift or None, optional
            One a light curve; None leaves the redshift free.
        """
        known = [None] * len(lightcurves) if redshifts is None else list(redshifts)
        batch = pose(lightcurves, self._coverage, self.preset, known)
        solution = _blank(batch)
        for n in range(len(lightcurves)):
            self._attempt(n, batch, solution)
        return self._collect(lightcurves, known, batch, solution)

    def restart(self, lightcurve: "LightCurve", fit: Salt2Fit) -> Salt2Fit:
        """Minimise again on the points of `fit`, from its answer, with the redshift free.

        Parameters
        ----------
        lightcurve : LightCurve
            What `fit` was made from.
        fit : Salt2Fit
            Where to start.
        """
        batch = pose([lightcurve], self._coverage, self.preset, [None])
        solution = _blank(batch)
        mask = fit.used[batch.source]
        self._minuit(0, batch, solution, mask, start=fit.parameters)
        return self._collect([lightcurve], [None], batch, solution)[0]

    def _collect(
        self,
        lightcurves: Sequence["LightCurve"],
        redshifts: Sequence[Redshift | None],
        batch: Batch,
        solution: Solution,
    ) -> list[Salt2Fit]:
        version = str(self.source.version)
        origin = Origin(str(self.source.name), version, self.preset, self.name, 1)
        return collect(lightcurves, redshifts, batch, solution, origin)

    def _attempt(self, n: int, batch: Batch, solution: Solution) -> None:
        """Fit one light curve; whatever goes wrong becomes its failure."""
        if n in batch.failures:
            return
        if batch.prior[n, 1] > 0:
            batch.failures[n] = ScienceError("engine sncosmo has no redshift prior: use fast")
            return
        part = batch.points(n)
        mask = np.zeros(batch.time.size, np.bool_)
        mask[part] = batch.early[part]
        try:
            self._minuit(n, batch, solution, mask, phases=self.preset.phase_range)
        # sncosmo and Minuit raise many kinds of error; none may stop a batch.
        except Exception as error:
            batch.failures[n] = ScienceError(f"sncosmo failed: {type(error).__name__}: {error}")

    def _minuit(
        self,
        n: int,
        batch: Batch,
        solution: Solution,
        mask: NDArray[np.bool_],
        *,
        phases: Range | None = None,
        start: Array | None = None,
    ) -> None:
        """Run fit_lc on the masked points, from its own guess unless a start is given."""
        import sncosmo

        low, high = batch.low[n], batch.high[n]
        free = [name for i, name in enumerate(PARAMETERS) if low[i] < high[i]]
        bounds = {p: (low[i], high[i]) for i, p in enumerate(PARAMETERS) if p in free}
        del bounds["x0"]
        model = sncosmo.Model(self.source)
        model.set(z=0.5 * (low[0] + high[0]))
        if start is not None:
            model.set(**dict(zip(PARAMETERS, start.tolist(), strict=True)))
        result, _ = sncosmo.fit_lc(
            self._photometry(batch, mask),
            model,
            free,
            bounds=bounds,
            guess_amplitude=start is None,
            guess_t0=start is None,
            guess_z=start is None,
            phase_range=phases,
            warn=False,
        )
        _record(n, solution, np.flatnonzero(mask), result)

    def _photometry(self, batch: Batch, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Return the points as sncosmo takes them."""
        size = int(mask.sum())
        return {
            "time": batch.time[mask],
            "band": np.array(self.bandpasses, dtype=object)[batch.band[mask]],
            "flux": batch.flux[mask],
            "fluxerr": batch.error[mask],
            "zp": np.full(size, ZERO_POINT),
            "zpsys": np.full(size, "ab"),
        }


def _blank(batch: Batch) -> Solution:
    count = len(batch.low)
    return Solution(
        parameters=np.full((count, 5), np.nan),
        covariance=np.full((count, 5, 5), np.nan),
        found=np.zeros(count, np.bool_),
        chisq=np.full(count, np.nan),
        ncall=np.zeros(count, np.int64),
        success=np.zeros(count, np.bool_),
        second_minimum=np.full(count, np.nan),
        mask=np.zeros(batch.time.size, np.bool_),
    )


def _record(n: int, solution: Solution, fitted: NDArray[np.intp], result: Any) -> None:
    """Write what fit_lc found into the batch's numbers."""
    places = [PARAMETERS.index(name) for name in result.vparam_names]
    if result.covariance is not None:
        solution.covariance[n] = 0.0
        solution.covariance[n][np.ix_(places, places)] = result.covariance
    found = dict(zip(result.param_names, result.parameters, strict=True))
    solution.parameters[n] = [found[name] for name in PARAMETERS]
    solution.found[n] = True
    solution.chisq[n] = result.chisq
    solution.ncall[n] = result.ncall
    solution.success[n] = result.success
    solution.mask[fitted[result.data_mask]] = True
