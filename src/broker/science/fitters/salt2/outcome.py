"""From what an engine computed to fits, for a batch at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ScienceError
from broker.science.fitters.salt2.presets import Preset, Redshift
from broker.science.fitters.salt2.problem import Batch, at_bound, mode
from broker.science.fitters.salt2.result import Salt2Fit

if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve

Array = NDArray[np.float64]

_NO_MATCH = "the fit failed: no model with positive flux matches"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who made a fit: model, version, preset and engine, and with how many starts."""

    model: str
    version: str
    preset: Preset
    engine: str
    starts: int


@dataclass(frozen=True, slots=True)
class Solution:
    """Numbers of a batch: parameters (n, 5), covariance (n, 5, 5) and others (n,).

    `mask` tells which points of the batch were fitted; `found` is False where nothing was.
    """

    parameters: Array
    covariance: Array
    found: NDArray[np.bool_]
    chisq: Array
    ncall: NDArray[np.int64]
    success: NDArray[np.bool_]
    second_minimum: Array
    mask: NDArray[np.bool_]


def collect(
    lightcurves: Sequence["LightCurve"],
    redshifts: Sequence[Redshift | None],
    batch: Batch,
    solution: Solution,
    origin: Origin,
) -> list[Salt2Fit]:
    """Make one fit a light curve."""
    used = _used(lightcurves, batch, solution)
    phase_min, phase_max, counts = _phases(batch, solution)
    bounds = at_bound(solution.parameters, batch.low, batch.high)
    free = (batch.low < batch.high).sum(axis=1)
    chisq = solution.chisq - _prior_chisq(batch, solution)
    fits = []
    for n, (lightcurve, redshift) in enumerate(zip(lightcurves, redshifts, strict=True)):
        blank = _blank(lightcurve, redshift, origin)
        error = batch.failures.get(n)
        if error is None and not (solution.found[n] and counts[n]):
            error = ScienceError(_NO_MATCH)
        if error is not None:
            fits.append(Salt2Fit(**blank, error=error))
            continue
        fits.append(
            Salt2Fit(
                **blank,
                success=bool(solution.success[n]) and bool(solution.parameters[n, 2] > 0),
                ncall=int(solution.ncall[n]),
                chisq=float(chisq[n]),
                ndof=int(counts[n] - free[n]),
                parameters=solution.parameters[n],
                covariance=solution.covariance[n],
                at_bound=bounds[n],
                second_minimum=float(solution.second_minimum[n]),
                phase_min=float(phase_min[n]),
                phase_max=float(phase_max[n]),
                used=used[n],
                bands=tuple(sorted(set(lightcurve.band[used[n]].tolist()))),
            )
        )
    return fits


def _blank(lightcurve: "LightCurve", redshift: Redshift | None, origin: Origin) -> dict[str, Any]:
    return {
        "object_id": lightcurve.object_id,
        "source_id": lightcurve.source_id,
        "model": origin.model,
        "version": origin.version,
        "preset": origin.preset.name,
        "engine": origin.engine,
        "redshift": mode(redshift),
        "starts": origin.starts,
    }


def _used(
    lightcurves: Sequence["LightCurve"], batch: Batch, solution: Solution
) -> list[NDArray[np.bool_]]:
    """Return, for each light curve, which of its points were fitted."""
    edges = np.cumsum([0, *(lightcurve.mjd.size for lightcurve in lightcurves)])
    used = np.zeros(edges[-1], np.bool_)
    used[batch.source[solution.mask]] = True
    return [used[first:last] for first, last in pairwise(edges.tolist())]


def _phases(batch: Batch, solution: Solution) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return first and last rest-frame phase and number of fitted points."""
    count = len(batch.low)
    owner = np.repeat(np.arange(count), np.diff(batch.offsets))
    parameters = solution.parameters[owner]
    phase = (batch.time - parameters[:, 1]) / (1 + parameters[:, 0])
    first, last = np.full(count, np.inf), np.full(count, -np.inf)
    mask = solution.mask & np.isfinite(phase)
    np.minimum.at(first, owner[mask], phase[mask])
    np.maximum.at(last, owner[mask], phase[mask])
    return first, last, np.bincount(owner[solution.mask], minlength=count)


def _prior_chisq(batch: Batch, solution: Solution) -> Array:
    """Return the redshift prior's share of what was minimised."""
    value, error = batch.prior.T
    pull = (solution.parameters[:, 0] - value) / np.where(error > 0, error, 1.0)
    return np.asarray(np.where(error > 0, pull**2, 0.0))
