"""Colours of simulated sources: black bodies, as ratios of flux between bands."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

REFERENCE_ANGSTROM = 6200.0
"""Magnitudes of populations are meant at this wavelength."""

# h c / k in Angstrom kelvin.
_HC_K = 1.4387768775e8


def colour(wavelength: ArrayLike, temperature: ArrayLike) -> NDArray[np.float64]:
    """Return the flux (per frequency) of a black body over that at the reference wavelength.

    Parameters
    ----------
    wavelength : array_like, Angstrom
    temperature : array_like, K
    """
    wave = np.asarray(wavelength, dtype=np.float64)
    heat = np.asarray(temperature, dtype=np.float64)
    ratio = np.expm1(_HC_K / (REFERENCE_ANGSTROM * heat)) / np.expm1(_HC_K / (wave * heat))
    return np.asarray(ratio * (REFERENCE_ANGSTROM / wave) ** 3)
