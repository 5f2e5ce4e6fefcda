"""Light curves: difference flux as a function of time, for many objects at once.

Each function takes columns of parameters with one row an epoch, and returns the change of
flux in units of the object's own amplitude.
"""

from collections.abc import Mapping

import numpy as np

from broker.apps.simulator.chance import streams
from broker.surveys.synthetic.columns import Floats

Parameters = Mapping[str, Floats]

_MODES = 24
_STEEP = 40.0


def villar(p: Parameters, age: Floats) -> Floats:
    """Rise, decline on a plateau, and exponential fall.

    Parameters
    ----------
    p : mapping
        ``rise``, ``fall``, ``plateau`` [d] and ``slope`` [1/d].
    age : ndarray, d
        Time since the middle of the rise.

    References
    ----------
    Villar et al. 2019, ApJ 884, 83, equation 1; without a plateau it is that of Bazin et al.
    2009, A&A 499, 653, with a sharper peak.
    """
    ramp = 1 / (1 + np.exp(np.clip(-age / p["rise"], -_STEEP, _STEEP)))
    on_plateau = np.minimum(age, p["plateau"])
    tail = np.exp(-np.clip((age - p["plateau"]) / p["fall"], 0, _STEEP))
    return np.asarray(ramp * (1 - p["slope"] * np.maximum(on_plateau, 0)) * tail)


def pulsation(p: Parameters, mjd: Floats) -> Floats:
    """Steep rise and slow decline, as pulsating stars have; the mean is zero."""
    phase = 2 * np.pi * (mjd / p["period"] + p["phase"])
    skew = p["skew"]
    wave = np.cos(phase) + skew * np.cos(2 * phase + 0.8) + skew**2 * np.cos(3 * phase + 1.6)
    return np.asarray(wave / (1 + skew))


def eclipse(p: Parameters, mjd: Floats) -> Floats:
    """Two dips a period; out of them the light is that of the reference image."""
    phase = (mjd / p["period"] + p["phase"]) % 1.0
    first = np.minimum(phase, 1 - phase)
    second = np.abs(phase - 0.5)
    width = p["width"]
    return np.asarray(
        -np.exp(-((first / width) ** 2)) - p["ratio"] * np.exp(-((second / width) ** 2))
    )


def random_walk(p: Parameters, mjd: Floats) -> Floats:
    """Damped random walk of unit variance, at any time without the times before it.

    A sum of waves whose frequencies are drawn from the walk's power spectrum (a Lorentzian)
    has the walk's covariance, ``exp(-|dt| / timescale)``.

    References
    ----------
    Kelly, Bechtold & Siemiginowska 2009, ApJ 698, 895 (the walk); Rahimi & Recht 2007 (the sum).
    """
    seeds, row = np.unique(p["seed"].astype(np.uint64), return_inverse=True)
    chance = streams(seeds, 2 * _MODES)
    rate = np.tan(np.pi * (chance[:_MODES] - 0.5))
    begin = 2 * np.pi * chance[_MODES:]
    time = mjd / p["timescale"]
    total = np.zeros(mjd.shape)
    for mode in range(_MODES):
        total += np.cos(rate[mode, row] * time + begin[mode, row])
    return np.asarray(total * np.sqrt(2 / _MODES))
