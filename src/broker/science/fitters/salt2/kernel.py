"""Compiled model of the fast engine: band fluxes, their slopes and the normal equations.

Parameters are ordered (z, t0, x0, x1, c). All loops run without the interpreter lock.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from broker.science.fitters.salt2.tables import BETA, LOG_STEP

Array = NDArray[np.float64]

Z, T0, X0, X1, C = range(5)
SIZE = 5

_FAST = {"reassoc", "contract", "arcp", "nsz"}
_BETA = float(BETA)
_STEP = float(LOG_STEP)
_MARGIN = 3
_NEGLIGIBLE = 1e-9


class Model(NamedTuple):
    """Tables with the colour term on a grid of c.

    `slabs` has cells (band, redshift, c, phase and component); `centre` is the colour law (band,
    redshift) whose effect was taken out of them.
    """

    slabs: Array
    centre: Array
    c_first: float
    c_step: float
    phase_start: float


class Points(NamedTuple):
    """Points of one light curve; `weight` is one over the error."""

    time: Array
    band: NDArray[np.int64]
    flux: Array
    weight: Array
    mask: NDArray[np.bool_]


class Work(NamedTuple):
    """What one thread writes into."""

    weights: Array
    curves: Array
    rows: NDArray[np.int64]
    use: NDArray[np.bool_]
    w_z: Array
    dw_z: Array
    w_c: Array
    dw_c: Array
    phases: Array


class Task(NamedTuple):
    """One light curve's points, the model, scratch space, prior (mean, width) and bounds."""

    points: Points
    model: Model
    work: Work
    prior: Array
    low: Array
    high: Array


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function once, on first call, to run without the interpreter lock."""
    return njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")(function)


@compiled
def _lagrange(s, scale, w, dw):  # type: ignore[no-untyped-def]
    """Fill four Lagrange weights at `s` (nodes 0 to 3), and derivatives times `scale`."""
    a, b, c, d = s, s - 1.0, s - 2.0, s - 3.0
    w[0] = -b * c * d / 6.0
    w[1] = a * c * d / 2.0
    w[2] = -a * b * d / 2.0
    w[3] = a * b * c / 6.0
    dw[0] = -(c * d + b * d + b * c) / 6.0 * scale
    dw[1] = (c * d + a * d + a * c) / 2.0 * scale
    dw[2] = -(b * d + a * d + a * b) / 2.0 * scale
    dw[3] = (b * c + a * c + a * b) / 6.0 * scale


@compiled
def _redshift_weights(z, count, w, dw):  # type: ignore[no-untyped-def]
    """Fill four Lagrange weights and their derivatives in z; return the first node."""
    u = np.log1p(z) / _STEP + _MARGIN
    first = min(max(int(np.floor(u)) - 1, 0), count - 4)
    _lagrange(u - first, 1.0 / (_STEP * (1.0 + z)), w, dw)
    return first


@compiled
def _colour_weights(c, c_first, c_step, count, w, dw):  # type: ignore[no-untyped-def]
    """Fill four Lagrange weights and their derivatives in c; return the first node."""
    u = (c - c_first) / c_step
    first = min(max(int(np.floor(u)) - 1, 0), count - 4)
    _lagrange(u - first, 1.0 / c_step, w, dw)
    return first


@compiled
def _corner_weights(p, model, work):  # type: ignore[no-untyped-def]
    """Fill, per band, work.weights of the 16 (z, c) corners and their z and c derivatives."""
    z_first = _redshift_weights(p[Z], model.slabs.shape[1], work.w_z, work.dw_z)
    k_first = _colour_weights(
        p[C], model.c_first, model.c_step, model.slabs.shape[2], work.w_c, work.dw_c
    )
    for b in range(model.slabs.shape[0]):
        for j in range(4):
            law = -_BETA * model.centre[b, z_first + j]
            factor = np.exp(law * p[C])
            for k in range(4):
                work.weights[b, 0, 4 * j + k] = factor * work.w_z[j] * work.w_c[k]
                work.weights[b, 1, 4 * j + k] = factor * work.dw_z[j] * work.w_c[k]
                work.weights[b, 2, 4 * j + k] = (
                    factor * work.w_z[j] * (work.dw_c[k] + law * work.w_c[k])
                )
    return z_first, k_first


@compiled
def _contract(slabs, b, corner, work, begin, end):  # type: ignore[no-untyped-def]
    """Sum the corners of one band over a range of (phase, component) cells."""
    z_first, node = corner
    weights, use, curves = work.weights, work.use, work.curves
    for i in range(begin, end):
        curves[b, 0, i] = 0.0
        curves[b, 1, i] = 0.0
        curves[b, 2, i] = 0.0
    for j in range(4):
        if not use[j]:
            continue
        z = z_first + j
        n = 4 * j
        v0 = weights[b, 0, n + 0]
        v1 = weights[b, 0, n + 1]
        v2 = weights[b, 0, n + 2]
        v3 = weights[b, 0, n + 3]
        z0 = weights[b, 1, n + 0]
        z1 = weights[b, 1, n + 1]
        z2 = weights[b, 1, n + 2]
        z3 = weights[b, 1, n + 3]
        c0 = weights[b, 2, n + 0]
        c1 = weights[b, 2, n + 1]
        c2 = weights[b, 2, n + 2]
        c3 = weights[b, 2, n + 3]
        for i in range(begin, end):
            s0 = slabs[b, z, node, i]
            s1 = slabs[b, z, node + 1, i]
            s2 = slabs[b, z, node + 2, i]
            s3 = slabs[b, z, node + 3, i]
            curves[b, 0, i] += v0 * s0 + v1 * s1 + v2 * s2 + v3 * s3
            curves[b, 1, i] += z0 * s0 + z1 * s1 + z2 * s2 + z3 * s3
            curves[b, 2, i] += c0 * s0 + c1 * s1 + c2 * s2 + c3 * s3


@compiled
def fill_curves(p, points, model, work, held):  # type: ignore[no-untyped-def]
    """Fill the model's work.curves (value, d/dz, d/dc) where the points of each band need them.

    Points outside the model's work.phases get the phase -1.
    """
    count = model.slabs.shape[3] // 2 - 4
    corner = _corner_weights(p, model, work)
    for j in range(4):
        work.use[j] = not held or abs(work.w_z[j]) > _NEGLIGIBLE
    stretch = 1.0 / (1.0 + p[Z])
    for b in range(model.slabs.shape[0]):
        work.rows[b, 0] = count
        work.rows[b, 1] = -1
    for i in range(points.time.size):
        phase = (points.time[i] - p[T0]) * stretch - model.phase_start
        inside = points.mask[i] and phase >= 0.0 and phase <= count - 1
        work.phases[i] = phase if inside else -1.0
        if inside:
            row = int(phase)
            work.rows[points.band[i], 0] = min(work.rows[points.band[i], 0], row - 1)
            work.rows[points.band[i], 1] = max(work.rows[points.band[i], 1], row + 3)
    for b in range(model.slabs.shape[0]):
        begin = max(work.rows[b, 0], 0)
        end = min(work.rows[b, 1], count)
        if work.rows[b, 1] < 0:
            continue
        _contract(model.slabs, b, corner, work, 2 * begin, 2 * end)
        if work.rows[b, 0] < 0 or work.rows[b, 1] > count:
            _contract(model.slabs, b, corner, work, 2 * count, 2 * count + 8)
    return stretch


@compiled
def _phase_weights(phase, count, w, dw):  # type: ignore[no-untyped-def]
    """Fill weights of phase rows for a phase in days from the first node.

    Returns the first row and the number of rows; none outside the model.
    """
    if phase < 0.0 or phase > count - 1:
        return 0, 0
    i = min(int(phase), count - 2)
    s = phase - i
    if i == 0 or i == count - 2:
        w[0] = 1.0 - s
        w[1] = s
        dw[0] = -1.0
        dw[1] = 1.0
        return (count if i == 0 else count + 2), 2
    w[0] = s * (-0.5 + s * (1.0 - 0.5 * s))
    w[1] = 1.0 + s * s * (1.5 * s - 2.5)
    w[2] = s * (0.5 + s * (2.0 - 1.5 * s))
    w[3] = s * s * (0.5 * s - 0.5)
    dw[0] = -0.5 + s * (2.0 - 1.5 * s)
    dw[1] = s * (4.5 * s - 5.0)
    dw[2] = 0.5 + s * (4.0 - 4.5 * s)
    dw[3] = s * (1.5 * s - 1.0)
    return i - 1, 4


@compiled
def fill_point(b, phase, work, point):  # type: ignore[no-untyped-def]
    """Fill (value, d/dz, d/dc, d/dphase) of both components at one phase of a band."""
    curves, w, dw = work.curves, work.w_z, work.dw_z
    for m in range(2):
        for a in range(4):
            point[m, a] = 0.0
    first, count = _phase_weights(phase, curves.shape[2] // 2 - 4, w, dw)
    for r in range(count):
        for m in range(2):
            i = 2 * (first + r) + m
            value = curves[b, 0, i]
            point[m, 0] += w[r] * value
            point[m, 1] += w[r] * curves[b, 1, i]
            point[m, 2] += w[r] * curves[b, 2, i]
            point[m, 3] += dw[r] * value


@compiled
def _slopes(p, point, delay, stretch, slope):  # type: ignore[no-untyped-def]
    """Fill the derivatives of a flux in all parameters; return the flux for x0 = 1."""
    shape = point[0, 0] + p[X1] * point[1, 0]
    by_phase = (point[0, 3] + p[X1] * point[1, 3]) * stretch
    slope[Z] = p[X0] * (point[0, 1] + p[X1] * point[1, 1] - by_phase * delay)
    slope[T0] = -p[X0] * by_phase
    slope[X0] = shape
    slope[X1] = p[X0] * point[1, 0]
    slope[C] = p[X0] * (point[0, 2] + p[X1] * point[1, 2])
    return shape


@compiled
def normal(p, task, held, gradient, matrix):  # type: ignore[no-untyped-def]
    """Return chi2 + prior; fill J'r (half the gradient) and J'J (half the curvature)."""
    points, work, prior = task.points, task.work, task.prior
    point = np.empty((2, 4))
    slope = np.empty(SIZE)
    gradient[:] = 0.0
    matrix[:] = 0.0
    stretch = fill_curves(p, points, task.model, work, held)
    chi2 = 0.0
    for i in range(points.time.size):
        if not points.mask[i]:
            continue
        fill_point(points.band[i], work.phases[i], work, point)
        delay = (points.time[i] - p[T0]) * stretch
        shape = _slopes(p, point, delay, stretch, slope)
        weight = points.weight[i]
        residual = (p[X0] * shape - points.flux[i]) * weight
        chi2 += residual * residual
        for a in range(SIZE):
            slope[a] *= weight
            gradient[a] += slope[a] * residual
            for c in range(a + 1):
                matrix[a, c] += slope[a] * slope[c]
    for a in range(SIZE):
        for c in range(a):
            matrix[c, a] = matrix[a, c]
    if prior[1] > 0.0:
        pull = (p[Z] - prior[0]) / prior[1]
        chi2 += pull * pull
        gradient[Z] += pull / prior[1]
        matrix[Z, Z] += 1.0 / (prior[1] * prior[1])
    return chi2


@compiled
def workspace(slabs, points):  # type: ignore[no-untyped-def]
    """Allocate what one thread writes into."""
    bands = slabs.shape[0]
    return Work(
        np.empty((bands, 3, 16)),
        np.empty((bands, 3, slabs.shape[3])),
        np.empty((bands, 2), np.int64),
        np.empty(4, np.bool_),
        np.empty(4),
        np.empty(4),
        np.empty(4),
        np.empty(4),
        np.empty(points),
    )


@compiled
def model_flux(p, time, band, model, out):  # type: ignore[no-untyped-def]
    """Fill model fluxes at zero point 25 for parameters `p`."""
    work = workspace(model.slabs, time.size)
    points = Points(time, band, time, time, np.ones(time.size, np.bool_))
    fill_curves(p, points, model, work, False)
    point = np.empty((2, 4))
    for i in range(time.size):
        fill_point(band[i], work.phases[i], work, point)
        out[i] = p[X0] * (point[0, 0] + p[X1] * point[1, 0])


@compiled
def model_band(p, covariance, points, model, out):  # type: ignore[no-untyped-def]
    """Fill model fluxes at zero point 25 and their standard deviations, rows of `out`."""
    work = workspace(model.slabs, points.time.size)
    stretch = fill_curves(p, points, model, work, False)
    point = np.empty((2, 4))
    slope = np.empty(SIZE)
    for i in range(points.time.size):
        fill_point(points.band[i], work.phases[i], work, point)
        delay = (points.time[i] - p[T0]) * stretch
        shape = _slopes(p, point, delay, stretch, slope)
        variance = 0.0
        for a in range(SIZE):
            for c in range(SIZE):
                variance += slope[a] * covariance[a, c] * slope[c]
        out[0, i] = p[X0] * shape
        out[1, i] = np.sqrt(variance) if variance > 0.0 else 0.0
