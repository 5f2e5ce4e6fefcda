"""What a SALT2 fit found, and its table row."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ScienceError
from broker.science.fitters.salt2.presets import PARAMETERS

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Salt2Fit:
    """The outcome of one fit; of a failed one, `error` says why and numbers are NaN.

    Parameters
    ----------
    object_id : str
        The object.
    source_id : int
        The detection that the light curve belongs to.
    model, version, preset, engine : str
        How the fit was made.
    redshift : str
        ``free``, ``fixed`` or ``prior``.
    success : bool
        Whether the minimiser converged to a proper minimum.
    ncall : int
        Evaluations of the model.
    chisq : float
        Chi-squared of the fitted points, without the prior's share.
    ndof : int
        Fitted points less free parameters.
    parameters : ndarray (5,)
        z, t0 (MJD), x0, x1, c.
    covariance : ndarray (5, 5)
        Inverse of half the second derivatives of chi-squared; zero for fixed parameters.
    at_bound : tuple of str
        Parameters that ended on a bound, as ``z_low`` or ``t0_high``.
    second_minimum : float
        Chi-squared of the runner-up minimum less the best; NaN if none was met.
    starts : int
        Descents that were made.
    phase_min, phase_max : float, rest-frame days
        Phases of the first and last fitted point.
    used : ndarray (n,) of bool
        Which points of the light curve were fitted.
    error : ScienceError or None
        Why there is no fit.
    """

    object_id: str
    source_id: int
    model: str
    version: str
    preset: str
    engine: str
    redshift: str = "free"
    success: bool = False
    ncall: int = 0
    chisq: float = np.nan
    ndof: int = 0
    parameters: Array = field(default_factory=lambda: np.full(5, np.nan))
    covariance: Array = field(default_factory=lambda: np.full((5, 5), np.nan))
    at_bound: tuple[str, ...] = ()
    second_minimum: float = np.nan
    starts: int = 0
    phase_min: float = np.nan
    phase_max: float = np.nan
    used: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    bands: tuple[str, ...] = ()
    error: ScienceError | None = None

    @property
    def errors(self) -> Array:
        """Standard deviations of the parameters, shape (5,)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(np.diag(self.covariance)))

    def row(self, object_key: str = "objectId", source_key: str = "candid") -> dict[str, Any]:
        """Return the row of table ``salt2``; NaN becomes None.

        Parameters
        ----------
        object_key, source_key : str
            The survey's own names of the two ids.
        """
        row: dict[str, Any] = {
            object_key: self.object_id,
            source_key: self.source_id,
            "success": int(self.success),
            "ncall": self.ncall,
            "chisq": _number(self.chisq),
            "ndof": self.ndof,
        }
        return row | self._numbers() | {"plot_lc_bytes": None} | self._provenance()

    def _numbers(self) -> dict[str, float | None]:
        """Return parameters, errors and covariances under sncosmo's flattened names."""
        numbers: dict[str, float | None] = {}
        for name, value, error in zip(PARAMETERS, self.parameters, self.errors, strict=True):
            numbers |= {name: _number(value), f"{name}_err": _number(error)}
        for i, first in enumerate(PARAMETERS):
            for j, second in enumerate(PARAMETERS):
                numbers[f"{first}_{second}_cov"] = _number(self.covariance[i, j])
        return numbers

    def _provenance(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "version": self.version,
            "preset": self.preset,
            "engine": self.engine,
            "redshift": self.redshift,
            "at_bound": ",".join(self.at_bound),
            "second_minimum": _number(self.second_minimum),
            "starts": self.starts,
            "npoints": int(self.used.sum()),
            "bands": ",".join(self.bands),
            "phase_min": _number(self.phase_min),
            "phase_max": _number(self.phase_max),
            "reason": None if self.error is None else str(self.error),
        }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
