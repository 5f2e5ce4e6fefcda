"""Light curves of type Ia supernovae from SALT2 tables, of the real model or a small one."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from broker.apps.simulator.cadence import Cadence
from broker.apps.simulator.population import Change, Parameters, parametric_type_ia
from broker.errors import ConfigError, UsageError
from broker.science.fitters.salt2 import kernel
from broker.science.fitters.salt2.engine import expand
from broker.science.fitters.salt2.tables import ZERO_POINT, SourceTables, build_tables
from broker.science.fitters.salt2.toy import toy_bandpasses, toy_source
from broker.surveys.synthetic.columns import Floats, Ints

KINDS = ("auto", "salt2", "toy", "parametric")

_COLOURS = (-0.3, 0.5)
_NJY = 10 ** (0.4 * (31.4 - ZERO_POINT))


@dataclass(frozen=True)
class Salt2Light:
    """Difference flux of supernovae from tables.

    Parameters
    ----------
    model : tuple
        Expanded tables, as the kernel takes them.
    band : ndarray of int64
        Row of each of the survey's bands in the tables.
    """

    model: kernel.Model
    band: Ints

    def __call__(self, p: Parameters, mjd: Floats, wavelength: Floats) -> Floats:
        """Return fluxes in nJy, object by object; rows of one object lie together."""
        flux = np.zeros(wavelength.size)
        row = p["_row"]
        band = self.band[p["_band"].astype(np.int64)]
        edges = np.append(np.flatnonzero(np.diff(row, prepend=-1)), row.size)
        for begin, end in pairwise(edges.tolist()):
            one = np.array([p[name][begin] for name in ("z", "t0", "x0", "x1", "c")])
            kernel.model_flux(one, mjd[begin:end], band[begin:end], self.model, flux[begin:end])
        return np.asarray(np.maximum(flux, 0.0) * _NJY)


def type_ia_light(
    kind: str, cadence: Cadence, published: Callable[[], SourceTables], cache: Path
) -> Change:
    """Return the light curves of type Ia supernovae.

    Parameters
    ----------
    kind : str
        ``salt2`` (the published model), ``toy`` (a small one of the same form, no data
        needed), ``parametric``, or ``auto``: salt2 where its data is at hand, otherwise toy.
    cadence : Cadence
        Gives the passbands.
    published : callable
        Returns the tables of the published model, or raises ConfigError.
    cache : Path
        Folder of the small model and its tables.

    Raises
    ------
    UsageError
        If the kind is not known.
    ConfigError
        If the data of ``salt2`` is missing; says how to get it.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown model {kind!r}; known are: {', '.join(KINDS)}")
    if kind == "parametric":
        return parametric_type_ia
    if kind == "toy":
        return light_of(toy_tables(cadence, cache), cadence)
    try:
        return light_of(published(), cadence)
    except ConfigError:
        if kind == "salt2":
            raise
        return light_of(toy_tables(cadence, cache), cadence)


def light_of(tables: SourceTables, cadence: Cadence) -> Salt2Light:
    """Return the light curves of tables that have all of a survey's passbands.

    Raises
    ------
    ConfigError
        If the tables lack one.
    """
    known, names = tables.coverage.bands, [band.passband for band in cadence.bands]
    if missing := [name for name in names if name not in known]:
        raise ConfigError(f"the tables of {tables.model} have no passband {', '.join(missing)}")
    rows = [known.index(name) for name in names]
    return Salt2Light(expand(tables, _COLOURS), np.array(rows, np.int64))


def toy_tables(cadence: Cadence, cache: Path) -> SourceTables:
    """Return tables of the small model in passbands with smooth edges."""
    edges = {band.passband: band.edges for band in cadence.bands}
    return build_tables(toy_source(cache / "toy"), toy_bandpasses(edges), cache=cache)
