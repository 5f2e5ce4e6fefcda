"""Band-integrated model tables: everything about a SALT model that a fit needs."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ScienceError

Array = NDArray[np.float64]

BETA = 0.4 * np.log(10.0)
"""Magnitudes to natural logarithm of flux."""

LOG_STEP = 0.002
"""Step of the redshift axis in ln(1 + z): 10 A at 5000 A, the models' own sampling."""

ZERO_POINT = 25.0
"""AB zero point on which table fluxes are."""

_FORMAT = 3
_EXTRA_ROWS = 4
_MARGIN = 3


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which bands a source covers, and at which redshifts.

    Parameters
    ----------
    bands : tuple of str
        Names of the passbands.
    edges : ndarray (bands, 2), Angstrom
        Shortest and longest wavelength of each passband.
    wave_range : tuple of float, Angstrom
        Wavelengths that the source covers.
    z_max : float
        Largest redshift that can be fitted.
    """

    bands: tuple[str, ...]
    edges: Array
    wave_range: tuple[float, float]
    z_max: float

    def covers(self, band: NDArray[np.int64], z: Array) -> NDArray[np.bool_]:
        """Tell whether bands lie within the source's range at both redshifts.

        Parameters
        ----------
        band : ndarray (n,)
            Indices of bands; a negative one is never covered.
        z : ndarray (n, 2)
            Lowest and highest redshift.
        """
        shortest, longest = self.wave_range
        blue, red = self.edges[np.maximum(band, 0)].T
        inside = (blue > shortest * (1 + z[:, 1])) & (red < longest * (1 + z[:, 0]))
        return np.asarray((band >= 0) & inside)


def coverage(source: Any, bandpasses: Sequence[Any], z_max: float) -> Coverage:
    """Return what a sncosmo source covers of sncosmo bandpasses."""
    return Coverage(
        bands=tuple(str(band.name) for band in bandpasses),
        edges=np.array([[band.minwave(), band.maxwave()] for band in bandpasses]),
        wave_range=(float(source.minwave()), float(source.maxwave())),
        z_max=z_max,
    )


@dataclass(frozen=True, slots=True)
class SourceTables:
    """Band fluxes of a SALT source on (band, phase, component, redshift, colour node).

    The flux of component m is ``sum_jk w_j(z) exp(-BETA c colour[band, k]) values[band, phase,
    m, j, k]`` with Lagrange weights w over four redshift nodes. The last four phase rows are
    for the first and last phase interval, where the model is bilinear.

    Parameters
    ----------
    model, version, checksum : str
        Name and version of the source, and the digest of what the tables were made from.
    coverage : Coverage
        Bands and redshifts.
    phase_range : tuple of float, rest-frame days
        First and last phase of the source; nodes are one day apart.
    colour : ndarray (bands, nodes), mag
        Colour-law values at which the colour term is tabulated.
    values : ndarray (bands, phases + 4, 2, redshifts, nodes)
        Fluxes at AB zero point 25 for x0 = 1.
    """

    model: str
    version: str
    checksum: str
    coverage: Coverage
    phase_range: tuple[float, float]
    colour: Array
    values: Array


def build_tables(
    source: Any,
    bandpasses: Sequence[Any],
    *,
    z_max: float = 0.25,
    nodes: int = 20,
    cache: Path | None = None,
) -> SourceTables:
    """Integrate a sncosmo SALT source over bandpasses, or read the cached result.

    Parameters
    ----------
    source : sncosmo.SALT2Source or sncosmo.SALT3Source
        The source; its own grids, interpolation kernel and colour law are used.
    bandpasses : sequence of sncosmo.Bandpass
        Named passbands; the integral is on sncosmo's own 5 A grid.
    z_max : float
        Largest redshift.
    nodes : int
        Chebyshev nodes in colour law a band; 20 keep \\|c\\| < 5 exact to 1e-5.
    cache : Path, optional
        Folder in which tables are kept between runs.

    Raises
    ------
    ScienceError
        If the source's grids are not of the kind that the tables represent.

    References
    ----------
    Guy et al. 2007, A&A 466, 11, equation 1.
    """
    grids = _grids(source)
    key = _digest(source, grids, bandpasses, z_max, nodes)
    file = None if cache is None else cache / _file_name(source.name, source.version, key)
    if file is not None and file.exists():
        return _load(file, source, bandpasses, key)
    built = _integrate(source, grids, bandpasses, z_max, nodes)
    tables = _assemble(source, bandpasses, key, *built)
    if file is not None:
        _store(file, tables)
    return tables


def recall_tables(cache: Path, fingerprint: str, z_max: float) -> SourceTables | None:
    """Return tables that were noted under a fingerprint; None if there are none.

    It spares the import of sncosmo and the reading of the model, a second and more.
    """
    try:
        note = json.loads(_note_file(cache, fingerprint, z_max).read_text())
        with np.load(cache / note["file"]) as stored:
            colour, values = stored["colour"], stored["values"]
        covered = Coverage(
            tuple(note["bands"]), np.array(note["edges"]), tuple(note["wave_range"]), note["z_max"]
        )
        words = (note["model"], note["version"], note["checksum"])
        return SourceTables(*words, covered, tuple(note["phase_range"]), colour, values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note_tables(cache: Path, fingerprint: str, z_max: float, tables: SourceTables) -> None:
    """Note of which data tables in the cache were made; a cache that is read-only has no notes."""
    covered = tables.coverage
    note = {
        "file": _file_name(tables.model, tables.version, tables.checksum),
        "model": tables.model,
        "version": tables.version,
        "checksum": tables.checksum,
        "bands": covered.bands,
        "edges": covered.edges.tolist(),
        "wave_range": covered.wave_range,
        "z_max": covered.z_max,
        "phase_range": tables.phase_range,
    }
    file = _note_file(cache, fingerprint, z_max)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    with suppress(OSError):
        partial.write_text(json.dumps(note))
        partial.replace(file)


def _note_file(cache: Path, fingerprint: str, z_max: float) -> Path:
    made = repr((_FORMAT, z_max, LOG_STEP, version("sncosmo"), fingerprint)).encode()
    return cache / f"{hashlib.md5(made, usedforsecurity=False).hexdigest()[:16]}.json"


def _file_name(model: str, model_version: str, key: str) -> str:
    return f"{model}-{model_version}-{key[:16]}.npz"


def _grids(source: Any) -> list[Any]:
    """Return (phase, wave, values) of both components."""
    grids = [tuple(source._model[name].__getnewargs__()) for name in ("M0", "M1")]
    phase = grids[0][0]
    regular = np.allclose(np.diff(phase), 1.0) and np.array_equal(phase, grids[1][0])
    if not regular or phase.size < 6:
        raise ScienceError(
            f"model {source.name} {source.version} has no one-day phase grid: use engine sncosmo"
        )
    return grids


def _digest(source: Any, grids: Any, bandpasses: Sequence[Any], z_max: float, nodes: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    digest.update(repr((_FORMAT, z_max, nodes, LOG_STEP)).encode())
    for grid in grids:
        for part in grid:
            digest.update(np.ascontiguousarray(part).tobytes())
    digest.update(source.colorlaw(grids[0][1]).tobytes())
    for band in bandpasses:
        digest.update(f"{band.name}".encode())
        digest.update(np.ascontiguousarray(band.wave).tobytes())
        digest.update(np.ascontiguousarray(band.trans).tobytes())
    return digest.hexdigest()


def _integrate(
    source: Any, grids: Any, bandpasses: Sequence[Any], z_max: float, nodes: int
) -> tuple[Array, Array]:
    steps = int(np.ceil(np.log1p(z_max) / LOG_STEP)) + 2 * _MARGIN
    redshifts = np.expm1(LOG_STEP * (np.arange(steps) - _MARGIN))
    rows = grids[0][0].size + _EXTRA_ROWS
    colour = np.empty((len(bandpasses), nodes))
    values = np.empty((len(bandpasses), rows, 2, steps, nodes))
    for b, band in enumerate(bandpasses):
        wave, weight = _band_weights(band)
        colour[b] = _colour_nodes(source, wave, redshifts, nodes)
        for j, z in enumerate(redshifts):
            rest = wave / (1 + z)
            basis = _lagrange_basis(colour[b], source.colorlaw(rest))
            basis *= (weight / (1 + z))[:, None]
            for m, grid in enumerate(grids):
                values[b, :, m, j, :] = _rest_flux(grid, rest) @ basis
    return colour, values


def _band_weights(band: Any) -> tuple[Array, Array]:
    """Return the integration grid and weights that turn flux density into table flux."""
    from sncosmo import get_magsystem
    from sncosmo.constants import HC_ERG_AA, MODEL_BANDFLUX_SPACING
    from sncosmo.utils import integration_grid

    wave, step = integration_grid(band.minwave(), band.maxwave(), MODEL_BANDFLUX_SPACING)
    scale = 10 ** (0.4 * ZERO_POINT) / get_magsystem("ab").zpbandflux(band)
    return wave, wave * band(wave) * step / HC_ERG_AA * scale


def _colour_nodes(source: Any, wave: Array, redshifts: Array, nodes: int) -> Array:
    reach = np.linspace(wave[0] / (1 + redshifts[-1]), wave[-1] / (1 + redshifts[0]), 500)
    law = source.colorlaw(reach)
    low, high = law.min(), law.max()
    angles = np.pi * (np.arange(nodes) + 0.5) / nodes
    return np.asarray((low + high) / 2 + max(high - low, 1e-3) / 2 * np.cos(angles))


def _lagrange_basis(nodes: Array, at: Array) -> Array:
    """Return the Lagrange polynomials of `nodes` at `at`, shape (at, nodes)."""
    basis = np.ones((at.size, nodes.size))
    for k, node in enumerate(nodes):
        for other in np.delete(nodes, k):
            basis[:, k] *= (at - other) / (node - other)
    return basis


def _kernel(distance: Array) -> Array:
    """Cubic convolution kernel with a = -1/2, as snfit and sncosmo use it."""
    x = np.abs(distance)
    inner = x * x * (1.5 * x - 2.5) + 1.0
    outer = -0.5 * (-4.0 + x * (8.0 + x * (-5.0 + x)))
    return np.where(x < 1, inner, np.where(x <= 2, outer, 0.0))


def _rest_flux(grids: tuple[Array, Array, Array], at: Array) -> Array:
    """Return flux densities at wavelengths `at` for all phase nodes and the extra rows."""
    phase, wave, grid = grids
    i = np.clip(np.searchsorted(wave, at, side="right") - 1, 0, wave.size - 2)
    fraction = (at - wave[i]) / (wave[i + 1] - wave[i])
    linear = (1 - fraction) * grid[:, i] + fraction * grid[:, i + 1]
    cubic = sum(
        _kernel(fraction - offset) * grid[:, np.clip(i + offset, 0, wave.size - 1)]
        for offset in (-1, 0, 1, 2)
    )
    inside = (i > 0) & (i <= wave.size - 3)
    flux = np.where(inside, cubic, linear)
    both = np.concatenate([flux, linear[[0, 1, phase.size - 2, phase.size - 1]]])
    return np.asarray(np.where((at < wave[0]) | (at > wave[-1]), 0.0, both))


def _assemble(
    source: Any, bandpasses: Sequence[Any], key: str, colour: Array, values: Array
) -> SourceTables:
    steps = values.shape[3] - 2 * _MARGIN
    return SourceTables(
        model=str(source.name),
        version=str(source.version),
        checksum=key,
        coverage=coverage(source, bandpasses, float(np.expm1(LOG_STEP * steps))),
        phase_range=(float(source.minphase()), float(source.maxphase())),
        colour=colour,
        values=values,
    )


def _store(file: Path, tables: SourceTables) -> None:
    """Write by rename, so that no reader meets half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, colour=tables.colour, values=tables.values)
    partial.replace(file)


def _load(file: Path, source: Any, bandpasses: Sequence[Any], key: str) -> SourceTables:
    with np.load(file) as stored:
        return _assemble(source, bandpasses, key, stored["colour"], stored["values"])
