"""A small synthetic model of the SALT2 kind, made from what the sncosmo wheel ships."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NAME, VERSION = "toy", "1"
"""Name and version that rows of toy fits carry."""

_STRETCH = 0.1
_PEAK = 0.5
_COLOUR_LAW = (
    "4\n-0.504294\n0.787691\n-0.461715\n0.0815619\n"
    "Salt2ExtinctionLaw.version 1\n"
    "Salt2ExtinctionLaw.min_lambda 2800\n"
    "Salt2ExtinctionLaw.max_lambda 7000\n"
)
_FLAT = ("lc_relative_variance_0", "lc_relative_variance_1", "lc_relative_covariance_01")


def write_toy_model(folder: Path, wave_step: float = 20.0) -> Path:
    """Write a model folder in SALT2's format; no download is needed.

    The mean surface is the Hsiao template that sncosmo ships, the stretch component is its
    response to a stretch of time, and the colour law is the published SALT2 polynomial.

    Parameters
    ----------
    folder : Path
        Is created.
    wave_step : float, Angstrom
        Sampling of the surfaces.

    References
    ----------
    Hsiao et al. 2007, ApJ 663, 1187 (template); Betoule et al. 2014, A&A 568, A22 (law).
    """
    import sncosmo

    folder.mkdir(parents=True, exist_ok=True)
    source = sncosmo.get_source("hsiao-subsampled")
    phase = np.arange(-20.0, 51.0)
    wave = np.arange(2000.0, 9200.0 + wave_step / 2, wave_step)
    mean = _surface(source, phase, wave)
    slope = _surface(source, phase / (1 + _STRETCH), wave) - mean
    scale = _PEAK / mean.max()
    _grid(folder / "salt2_template_0.dat", phase, wave, mean * scale)
    _grid(folder / "salt2_template_1.dat", phase, wave, slope * scale)
    for name in _FLAT:
        _grid(folder / f"salt2_{name}.dat", phase[[0, -1]], wave[[0, -1]], np.zeros((2, 2)))
    scaling = folder / "salt2_lc_dispersion_scaling.dat"
    _grid(scaling, phase[[0, -1]], wave[[0, -1]], np.ones((2, 2)))
    (folder / "salt2_color_correction.dat").write_text(_COLOUR_LAW)
    np.savetxt(folder / "salt2_color_dispersion.dat", [[2000.0, 0.0], [9200.0, 0.0]])
    return folder


def toy_source(folder: Path) -> Any:
    """Return the sncosmo source of a toy model, which is written unless it is there."""
    import sncosmo

    if not (folder / "salt2_template_0.dat").exists():
        write_toy_model(folder)
    return sncosmo.SALT2Source(modeldir=str(folder), name=NAME, version=VERSION)


def toy_bandpasses(edges: Mapping[str, tuple[float, float]], width: float = 60.0) -> list[Any]:
    """Return passbands with smooth logistic edges.

    Parameters
    ----------
    edges : mapping
        Name to the wavelengths of half transmission, in Angstrom.
    width : float, Angstrom
        Width of an edge.
    """
    import sncosmo

    passbands = []
    for name, (blue, red) in edges.items():
        wave = np.arange(blue - 6 * width, red + 6 * width, 5.0)
        rise = 1 / (1 + np.exp(-(wave - blue) / width))
        fall = 1 / (1 + np.exp((wave - red) / width))
        passbands.append(sncosmo.Bandpass(wave, rise * fall, name=name))
    return passbands


def _surface(source: Any, phase: Array, wave: Array) -> Array:
    """Return the template's flux, zero before it begins."""
    inside = (phase >= source.minphase()) & (phase <= source.maxphase())
    flux = np.zeros((phase.size, wave.size))
    flux[inside] = source.flux(phase[inside], wave)
    return flux


def _grid(file: Path, phase: Array, wave: Array, values: Array) -> None:
    """Write ``phase wavelength value`` lines."""
    phases, waves = np.meshgrid(phase, wave, indexing="ij")
    table = np.column_stack([phases.ravel(), waves.ravel(), values.ravel()])
    np.savetxt(file, table, fmt="%.2f %.2f %.8e")
