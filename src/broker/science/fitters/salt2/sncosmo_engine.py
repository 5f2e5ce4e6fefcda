"""The engine ``sncosmo``: the oracle of the fast one, and for models without tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ScienceError
from broker.science.fitters.salt2.presets import DEFAULT, PARAMETERS, Preset, Redshift
from broker.science.fitters.salt2.problem import Problem, at_bound, mode, pose
from broker.science.fitters.salt2.result import Salt2Fit
from broker.science.fitters.salt2.tables import ZERO_POINT, Coverage, coverage

if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve

Array = NDArray[np.float64]

_ANY_Z = 2.0


@dataclass(frozen=True, slots=True)
class SncosmoEngine:
    """Fits with ``sncosmo.fit_lc``: one start, Minuit, no tables.

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
        return [self._one(*pair) for pair in zip(lightcurves, known, strict=True)]

    def restart(self, lightcurve: "LightCurve", fit: Salt2Fit) -> Salt2Fit:
        """Minimise again on the points of `fit`, from its answer.

        Parameters
        ----------
        lightcurve : LightCurve
            What `fit` was made from.
        fit : Salt2Fit
            Where to start, with the redshift free.

        Raises
        ------
        ScienceError
            If no point can be fitted.
        """
        problem = pose(lightcurve.select(fit.used), self._coverage, self.preset, None)
        bounds = pose(lightcurve, self._coverage, self.preset, None)
        result = self._minuit(problem, bounds, None, fit.parameters)
        return self._finished(self._blank(lightcurve, None), lightcurve, bounds, result)

    def _one(self, lightcurve: "LightCurve", redshift: Redshift | None) -> Salt2Fit:
        blank = self._blank(lightcurve, redshift)
        try:
            problem = pose(lightcurve, self._coverage, self.preset, redshift)
            result = self._minuit(problem, problem, self.preset.phase_range, None)
        except ScienceError as error:
            return Salt2Fit(**blank, error=error)
        # sncosmo and Minuit raise many kinds of error; none may stop a batch.
        except Exception as error:
            reason = ScienceError(f"sncosmo failed: {type(error).__name__}: {error}")
            return Salt2Fit(**blank, error=reason)
        return self._finished(blank, lightcurve, problem, result)

    def _blank(self, lightcurve: "LightCurve", redshift: Redshift | None) -> dict[str, Any]:
        return {
            "object_id": lightcurve.object_id,
            "source_id": lightcurve.source_id,
            "model": str(self.source.name),
            "version": str(self.source.version),
            "preset": self.preset.name,
            "engine": self.name,
            "redshift": mode(redshift),
            "starts": 1,
        }

    def _minuit(
        self,
        problem: Problem,
        limits: Problem,
        phase_range: tuple[float, float] | None,
        start: Array | None,
    ) -> Any:
        """Run fit_lc, from its own guess unless a start is given."""
        import sncosmo

        model = sncosmo.Model(self.source)
        low, high = limits.low, limits.high
        free = [name for i, name in enumerate(PARAMETERS) if low[i] < high[i]]
        bounds = {n: (low[i], high[i]) for i, n in enumerate(PARAMETERS) if n in free and n != "x0"}
        model.set(z=0.5 * (low[0] + high[0]))
        if start is not None:
            model.set(**dict(zip(PARAMETERS, start.tolist(), strict=True)))
        guess = start is None
        return sncosmo.fit_lc(
            self._photometry(problem),
            model,
            free,
            bounds=bounds,
            guess_amplitude=guess,
            guess_t0=guess,
            guess_z=guess,
            phase_range=phase_range,
            warn=False,
        )[0]

    def _photometry(self, problem: Problem) -> dict[str, Any]:
        """Return the points as sncosmo takes them, in order of time."""
        size = problem.time.size
        return {
            "time": problem.time,
            "band": np.array(self.bandpasses, dtype=object)[problem.band],
            "flux": problem.flux,
            "fluxerr": problem.error,
            "zp": np.full(size, ZERO_POINT),
            "zpsys": np.full(size, "ab"),
        }

    def _finished(
        self, blank: dict[str, Any], lightcurve: "LightCurve", problem: Problem, result: Any
    ) -> Salt2Fit:
        names = [name for name in result.param_names if name in result.vparam_names]
        places = [PARAMETERS.index(name) for name in names]
        covariance = np.full((5, 5), np.nan)
        if result.covariance is not None:
            covariance[:] = 0.0
            covariance[np.ix_(places, places)] = result.covariance
        parameters = np.array([result.parameters[result.param_names.index(n)] for n in PARAMETERS])
        used = np.zeros(lightcurve.mjd.size, np.bool_)
        mask = result.data_mask if result.data_mask.size == problem.time.size else slice(None)
        used[problem.chosen[mask]] = True
        phase = (problem.time[mask] - parameters[1]) / (1 + parameters[0])
        return Salt2Fit(
            **blank,
            success=bool(result.success),
            ncall=int(result.ncall),
            chisq=float(result.chisq),
            ndof=int(result.ndof),
            parameters=parameters,
            covariance=covariance,
            at_bound=at_bound(parameters, problem.low, problem.high),
            phase_min=float(phase.min()),
            phase_max=float(phase.max()),
            used=used,
            bands=tuple(sorted(set(lightcurve.band[used].tolist()))),
        )
