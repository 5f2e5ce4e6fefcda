"""Compiled core of the fast engine: model, scan, Levenberg-Marquardt and Hessian.

Parameters are ordered (z, t0, x0, x1, c). All loops run without the interpreter lock.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from broker.science.fitters.salt2.tables import BETA, LOG_STEP

Z, T0, X0, X1, C = range(5)
SIZE = 5

_FAST = {"reassoc", "contract", "arcp", "nsz"}
_BETA = float(BETA)
_STEP = float(LOG_STEP)
_MARGIN = 3
_STALLED = 1e9
_SCAN_DAYS = 2.0
_RACE = 6
_HOPELESS = 25.0
_NEGLIGIBLE = 1e-9


def _compiled(function: Callable[..., Any]) -> Any:
    return njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")(function)


@_compiled
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


@_compiled
def _redshift_weights(z, count, w, dw):  # type: ignore[no-untyped-def]
    """Fill four Lagrange weights and their derivatives in z; return the first node."""
    u = np.log1p(z) / _STEP + _MARGIN
    first = min(max(int(np.floor(u)) - 1, 0), count - 4)
    _lagrange(u - first, 1.0 / (_STEP * (1.0 + z)), w, dw)
    return first


@_compiled
def _colour_weights(c, c_first, c_step, count, w, dw):  # type: ignore[no-untyped-def]
    """Fill four Lagrange weights and their derivatives in c; return the first node."""
    u = (c - c_first) / c_step
    first = min(max(int(np.floor(u)) - 1, 0), count - 4)
    _lagrange(u - first, 1.0 / c_step, w, dw)
    return first


@_compiled
def _corner_weights(p, model, work):  # type: ignore[no-untyped-def]
    """Fill, per band, weights of the 16 (z, c) corners and their z and c derivatives."""
    slabs, centre, c_first, c_step, phase_start = model
    weights, curves, rows, use, w_z, dw_z, w_c, dw_c, phases = work
    z_first = _redshift_weights(p[Z], slabs.shape[1], w_z, dw_z)
    k_first = _colour_weights(p[C], c_first, c_step, slabs.shape[2], w_c, dw_c)
    for b in range(slabs.shape[0]):
        for j in range(4):
            law = -_BETA * centre[b, z_first + j]
            factor = np.exp(law * p[C])
            for k in range(4):
                weights[b, 0, 4 * j + k] = factor * w_z[j] * w_c[k]
                weights[b, 1, 4 * j + k] = factor * dw_z[j] * w_c[k]
                weights[b, 2, 4 * j + k] = factor * w_z[j] * (dw_c[k] + law * w_c[k])
    return z_first, k_first


@_compiled
def _contract(slabs, b, z_first, k_first, weights, use, curves, begin, end):  # type: ignore[no-untyped-def]
    """Sum the corners of one band over a range of (phase, component) cells."""
    for i in range(begin, end):
        curves[b, 0, i] = 0.0
        curves[b, 1, i] = 0.0
        curves[b, 2, i] = 0.0
    node = k_first
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


@_compiled
def _curves(p, data, model, work, held):  # type: ignore[no-untyped-def]
    """Fill the model's curves (value, d/dz, d/dc) where the points of each band need them.

    Points outside the model's phases get the phase -1.
    """
    time, band, flux, weight, mask = data
    slabs, centre, c_first, c_step, phase_start = model
    weights, curves, rows, use, w_z, dw_z, w_c, dw_c, phases = work
    count = slabs.shape[3] // 2 - 4
    z_first, k_first = _corner_weights(p, model, work)
    for j in range(4):
        use[j] = not held or abs(w_z[j]) > _NEGLIGIBLE
    stretch = 1.0 / (1.0 + p[Z])
    for b in range(slabs.shape[0]):
        rows[b, 0] = count
        rows[b, 1] = -1
    for i in range(time.size):
        phase = (time[i] - p[T0]) * stretch - phase_start
        inside = mask[i] and phase >= 0.0 and phase <= count - 1
        phases[i] = phase if inside else -1.0
        if inside:
            row = int(phase)
            rows[band[i], 0] = min(rows[band[i], 0], row - 1)
            rows[band[i], 1] = max(rows[band[i], 1], row + 3)
    for b in range(slabs.shape[0]):
        begin = max(rows[b, 0], 0)
        end = min(rows[b, 1], count)
        if rows[b, 1] < 0:
            continue
        _contract(slabs, b, z_first, k_first, weights, use, curves, 2 * begin, 2 * end)
        if rows[b, 0] < 0 or rows[b, 1] > count:
            _contract(slabs, b, z_first, k_first, weights, use, curves, 2 * count, 2 * count + 8)
    return stretch


@_compiled
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


@_compiled
def _point(curves, b, phase, phases, w, dw, point):  # type: ignore[no-untyped-def]
    """Fill (value, d/dz, d/dc, d/dphase) of both components at one phase."""
    for m in range(2):
        for a in range(4):
            point[m, a] = 0.0
    first, count = _phase_weights(phase, phases, w, dw)
    for r in range(count):
        for m in range(2):
            i = 2 * (first + r) + m
            value = curves[b, 0, i]
            point[m, 0] += w[r] * value
            point[m, 1] += w[r] * curves[b, 1, i]
            point[m, 2] += w[r] * curves[b, 2, i]
            point[m, 3] += dw[r] * value


@_compiled
def _normal(p, data, model, work, prior, held, gradient, matrix):  # type: ignore[no-untyped-def]
    """Return chi2 + prior; fill J'r (half the gradient) and J'J (half the curvature)."""
    time, band, flux, weight, mask = data
    weights, curves, rows, use, w, dw, w_c, dw_c, phases = work
    count = curves.shape[2] // 2 - 4
    point = np.empty((2, 4))
    slope = np.empty(SIZE)
    gradient[:] = 0.0
    matrix[:] = 0.0
    stretch = _curves(p, data, model, work, held)
    chi2 = 0.0
    for i in range(time.size):
        if not mask[i]:
            continue
        _point(curves, band[i], phases[i], count, w, dw, point)
        shape = point[0, 0] + p[X1] * point[1, 0]
        by_phase = (point[0, 3] + p[X1] * point[1, 3]) * stretch
        residual = (p[X0] * shape - flux[i]) * weight[i]
        scaled = p[X0] * weight[i]
        delay = (time[i] - p[T0]) * stretch
        slope[Z] = scaled * (point[0, 1] + p[X1] * point[1, 1] - by_phase * delay)
        slope[T0] = -scaled * by_phase
        slope[X0] = shape * weight[i]
        slope[X1] = scaled * point[1, 0]
        slope[C] = scaled * (point[0, 2] + p[X1] * point[1, 2])
        chi2 += residual * residual
        for a in range(SIZE):
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


@_compiled
def _solve(matrix, rhs, use, out):  # type: ignore[no-untyped-def]
    """Solve on the used parameters by Cholesky; False if not positive definite."""
    lower = np.zeros((SIZE, SIZE))
    out[:] = 0.0
    for a in range(SIZE):
        if not use[a]:
            continue
        for c in range(a + 1):
            if not use[c]:
                continue
            total = matrix[a, c]
            for k in range(c):
                total -= lower[a, k] * lower[c, k]
            if a == c:
                if not total > 1e-14 * abs(matrix[a, a]):
                    return False
                lower[a, a] = np.sqrt(total)
            else:
                lower[a, c] = total / lower[c, c]
    for a in range(SIZE):
        if use[a]:
            total = rhs[a]
            for k in range(a):
                total -= lower[a, k] * out[k]
            out[a] = total / lower[a, a]
    for a in range(SIZE - 1, -1, -1):
        if use[a]:
            total = out[a]
            for k in range(a + 1, SIZE):
                total -= lower[k, a] * out[k]
            out[a] = total / lower[a, a]
    return True


@_compiled
def _movable(p, gradient, low, high, use):  # type: ignore[no-untyped-def]
    """Mark parameters that are free and not pushed against a bound."""
    for a in range(SIZE):
        pushed = (p[a] <= low[a] and gradient[a] > 0.0) or (p[a] >= high[a] and gradient[a] < 0.0)
        use[a] = low[a] < high[a] and not pushed


@_compiled
def _descend(p, limits, data, model, work, prior, tolerance, steps):  # type: ignore[no-untyped-def]
    """Bounded Levenberg-Marquardt from `p`, in place.

    Returns chi2, the number of model evaluations and whether it converged.
    """
    low, high = limits
    held = low[Z] == high[Z]
    gradient = np.empty(SIZE)
    matrix = np.empty((SIZE, SIZE))
    next_gradient = np.empty(SIZE)
    next_matrix = np.empty((SIZE, SIZE))
    damped = np.empty((SIZE, SIZE))
    use = np.empty(SIZE, np.bool_)
    step = np.empty(SIZE)
    trial = np.empty(SIZE)
    chi2 = _normal(p, data, model, work, prior, held, gradient, matrix)
    calls = 1
    damping = 1e-3
    while calls <= steps:
        _movable(p, gradient, low, high, use)
        damped[:] = matrix
        for a in range(SIZE):
            damped[a, a] = matrix[a, a] * (1.0 + damping)
        solved = _solve(damped, -gradient, use, step)
        expected = 0.0
        for a in range(SIZE):
            trial[a] = min(max(p[a] + step[a], low[a]), high[a])
            expected -= step[a] * gradient[a]
        if solved and damping < 1.0 and expected < tolerance:
            return chi2, calls, True
        if solved:
            value = _normal(trial, data, model, work, prior, held, next_gradient, next_matrix)
            calls += 1
        if solved and value < chi2:
            chi2 = value
            p[:] = trial
            gradient, next_gradient = next_gradient, gradient
            matrix, next_matrix = next_matrix, matrix
            damping = max(damping * 0.1, 1e-9)
        else:
            damping = damping * 8.0
            if damping > _STALLED:
                return chi2, calls, expected < 1e-2
    return chi2, calls, False


@_compiled
def _hessian(p, limits, data, model, work, prior, hessian):  # type: ignore[no-untyped-def]
    """Fill half the second derivatives of chi2 by differences of the exact gradient."""
    low, high = limits
    gradient = np.empty(SIZE)
    ahead = np.empty(SIZE)
    behind = np.empty(SIZE)
    matrix = np.empty((SIZE, SIZE))
    scratch = np.empty((SIZE, SIZE))
    _normal(p, data, model, work, prior, False, gradient, matrix)
    shifted = p.copy()
    hessian[:] = 0.0
    for a in range(SIZE):
        if not low[a] < high[a]:
            continue
        width = 0.02 / np.sqrt(matrix[a, a]) if matrix[a, a] > 0.0 else 1e-3
        shifted[a] = p[a] + width
        _normal(shifted, data, model, work, prior, False, ahead, scratch)
        shifted[a] = p[a] - width
        _normal(shifted, data, model, work, prior, False, behind, scratch)
        shifted[a] = p[a]
        for c in range(SIZE):
            if low[c] < high[c]:
                hessian[a, c] = (ahead[c] - behind[c]) / (2.0 * width)
    for a in range(SIZE):
        for c in range(a):
            mean = 0.5 * (hessian[a, c] + hessian[c, a])
            hessian[a, c] = mean
            hessian[c, a] = mean
    return 2 * SIZE + 1


@_compiled
def _polish(p, limits, data, model, work, prior, hessian):  # type: ignore[no-untyped-def]
    """Take Newton steps with the full Hessian until the gain is negligible."""
    low, high = limits
    gradient = np.empty(SIZE)
    matrix = np.empty((SIZE, SIZE))
    use = np.empty(SIZE, np.bool_)
    step = np.empty(SIZE)
    trial = np.empty(SIZE)
    calls = 0
    for _ in range(3):
        calls += _hessian(p, limits, data, model, work, prior, hessian)
        chi2 = _normal(p, data, model, work, prior, False, gradient, matrix)
        _movable(p, gradient, low, high, use)
        if not _solve(hessian, -gradient, use, step):
            return chi2, calls
        expected = 0.0
        for a in range(SIZE):
            trial[a] = min(max(p[a] + step[a], low[a]), high[a])
            expected -= step[a] * gradient[a]
        if expected < 2e-6:
            return chi2, calls
        value = _normal(trial, data, model, work, prior, False, gradient, matrix)
        calls += 2
        if not value < chi2:
            return chi2, calls
        p[:] = trial
        chi2 = value
        if expected < 1e-3:
            return chi2, calls
    return chi2, calls


@_compiled
def _linear(sums, low, high):  # type: ignore[no-untyped-def]
    """Return chi2, x0 and x1 that minimise a model linear in x0 and x0 x1, x1 bounded."""
    ff, f0, f1, m00, m01, m11 = sums
    determinant = m00 * m11 - m01 * m01
    x1 = 0.0
    if determinant > 1e-12 * m00 * m11:
        top = f0 * m11 - f1 * m01
        x1 = (f1 * m00 - f0 * m01) / top if top > 0.0 else 0.0
    x1 = min(max(x1, low), high)
    power = m00 + 2.0 * x1 * m01 + x1 * x1 * m11
    match = f0 + x1 * f1
    if not (power > 0.0 and match > 0.0):
        return ff, 0.0, x1
    return ff - match * match / power, match / power, x1


@_compiled
def _scan_sums(coarse, z_row, c_row, data, t0, stretch, phase_start, sums):  # type: ignore[no-untyped-def]
    """Accumulate the normal equations of (x0, x0 x1) at one grid point."""
    time, band, flux, weight, mask = data
    phases = coarse.shape[3]
    sums[1:] = 0.0
    for i in range(time.size):
        phase = (time[i] - t0) * stretch - phase_start
        if not mask[i] or phase < 0.0 or phase >= phases - 1:
            continue
        k = int(phase)
        s = phase - k
        b = band[i]
        r = 1.0 - s
        m0 = r * coarse[z_row, c_row, b, k, 0] + s * coarse[z_row, c_row, b, k + 1, 0]
        m1 = r * coarse[z_row, c_row, b, k, 1] + s * coarse[z_row, c_row, b, k + 1, 1]
        m0 *= weight[i]
        m1 *= weight[i]
        f = flux[i] * weight[i]
        sums[1] += f * m0
        sums[2] += f * m1
        sums[3] += m0 * m0
        sums[4] += m0 * m1
        sums[5] += m1 * m1


@_compiled
def _scan(limits, data, coarse, grid, phase_start, starts):  # type: ignore[no-untyped-def]
    """Fill `starts` with the best (t0, c) at each z, x0 and x1 solved for; return how many."""
    low, high = limits
    z_grid, z_rows, c_grid = grid
    time, band, flux, weight, mask = data
    sums = np.zeros(6)
    for i in range(time.size):
        if mask[i]:
            sums[0] += (flux[i] * weight[i]) ** 2
    count = 0
    t0_count = max(int((high[T0] - low[T0]) / _SCAN_DAYS), 1)
    for j in range(z_grid.size):
        stretch = 1.0 / (1.0 + z_grid[j])
        best = np.inf
        for k in range(c_grid.size):
            for n in range(t0_count):
                t0 = low[T0] + (high[T0] - low[T0]) * (n + 0.5) / t0_count
                _scan_sums(coarse, z_rows[j], k, data, t0, stretch, phase_start, sums)
                chi2, x0, x1 = _linear(sums, low[X1], high[X1])
                if chi2 < best and x0 > 0.0:
                    best = chi2
                    starts[count, Z] = z_grid[j]
                    starts[count, T0] = t0
                    starts[count, X0] = x0
                    starts[count, X1] = x1
                    starts[count, C] = c_grid[k]
        if best < np.inf:
            count += 1
    return count


@_compiled
def _profile(starts, count, limits, data, model, work, prior, chi2):  # type: ignore[no-untyped-def]
    """Descend from each start with z held, so that chi2 profiles z; return evaluations."""
    held_low = limits[0].copy()
    held_high = limits[1].copy()
    calls = 0
    for s in range(count):
        held_low[Z] = starts[s, Z]
        held_high[Z] = starts[s, Z]
        held = (held_low, held_high)
        chi2[s], used, _ = _descend(starts[s], held, data, model, work, prior, 2e-2, _RACE)
        calls += used
    return calls


@_compiled
def _valleys(chi2, count, wanted, order):  # type: ignore[no-untyped-def]
    """Fill `order` with the local minima of a profile, best first; return how many."""
    chosen = 0
    for s in range(count):
        left = s == 0 or chi2[s] <= chi2[s - 1]
        right = s == count - 1 or chi2[s] < chi2[s + 1]
        if not (left and right):
            continue
        place = chosen
        while place > 0 and chi2[order[place - 1]] > chi2[s]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = s
        chosen += 1
    return min(chosen, wanted)


@_compiled
def _finish(starts, order, count, profile, limits, data, model, work, prior, second):  # type: ignore[no-untyped-def]
    """Descend freely from the chosen starts; the winner ends in ``starts[0]``.

    Fills `second` with the runner-up. Returns both chi2, the evaluations and convergence.
    """
    value = np.inf
    other = np.inf
    done = False
    calls = 0
    winner = np.empty(SIZE)
    for n in range(count):
        s = order[n]
        for a in range(SIZE):
            starts[s, a] = min(max(starts[s, a], limits[0][a]), limits[1][a])
        if profile[s] > value + _HOPELESS:
            chi2, used, converged = profile[s], 0, True
        else:
            chi2, used, converged = _descend(
                starts[s], limits, data, model, work, prior, 1e-4, 80
            )
        calls += used
        if chi2 < value:
            second[:] = winner
            other = value
            winner[:] = starts[s]
            value = chi2
            done = converged
        elif chi2 < other:
            second[:] = starts[s]
            other = chi2
    starts[0] = winner
    return value, other, calls, done


@_compiled
def _minimise(starts, count, wanted, limits, data, model, work, prior, second):  # type: ignore[no-untyped-def]
    """Profile in z, then finish from the valleys."""
    chi2 = np.empty(count)
    order = np.zeros(count, np.int64)
    calls = _profile(starts, count, limits, data, model, work, prior, chi2)
    chosen = _valleys(chi2, count, wanted, order)
    value, other, used, done = _finish(
        starts, order, chosen, chi2, limits, data, model, work, prior, second
    )
    return value, other, calls + used, done


@_compiled
def _mask_phases(p, time, phase_range, mask):  # type: ignore[no-untyped-def]
    """Keep points within rest-frame phases; return whether the mask changed, and the count."""
    changed = False
    kept = 0
    for i in range(time.size):
        phase = (time[i] - p[T0]) / (1.0 + p[Z])
        keep = phase > phase_range[0] and phase < phase_range[1]
        changed = changed or keep != mask[i]
        mask[i] = keep
        kept += keep
    return changed, kept


@_compiled
def _refit(starts, count, wanted, limits, data, model, work, prior, phase_range, second):  # type: ignore[no-untyped-def]
    """Minimise, then mask by phase and minimise again until the mask is stable."""
    mask = data[4]
    value, other, calls, done = _minimise(
        starts, count, wanted, limits, data, model, work, prior, second
    )
    order = np.arange(2)
    profile = np.zeros(2)
    for _ in range(6):
        changed, kept = _mask_phases(starts[0], data[0], phase_range, mask)
        if not changed:
            break
        if kept == 0:
            return value, np.inf, calls, False
        pair = 2 if other < np.inf else 1
        if pair == 2:
            starts[1] = second
        value, other, used, done = _finish(
            starts, order, pair, profile, limits, data, model, work, prior, second
        )
        calls += used
    return value, other, calls, done


@_compiled
def _covariance(hessian, use, covariance):  # type: ignore[no-untyped-def]
    """Invert the Hessian on the used parameters; False if not positive definite."""
    unit = np.zeros(SIZE)
    column = np.zeros(SIZE)
    for a in range(SIZE):
        if use[a]:
            unit[:] = 0.0
            unit[a] = 1.0
            if not _solve(hessian, unit, use, column):
                return False
            covariance[a] = column
    return True


@_compiled
def _errors(p, limits, hessian, covariance):  # type: ignore[no-untyped-def]
    """Fill the covariance, without parameters at a bound where it needs that."""
    low, high = limits
    use = np.empty(SIZE, np.bool_)
    covariance[:] = 0.0
    for a in range(SIZE):
        use[a] = low[a] < high[a]
    if _covariance(hessian, use, covariance):
        return True
    covariance[:] = 0.0
    for a in range(SIZE):
        if use[a] and (p[a] <= low[a] or p[a] >= high[a]):
            use[a] = False
            covariance[a, a] = np.nan
    if _covariance(hessian, use, covariance):
        return True
    covariance[:] = np.nan
    return False


@_compiled
def _apart(p, second, covariance):  # type: ignore[no-untyped-def]
    """Tell whether two points differ by more than half an error in any parameter."""
    for a in range(SIZE):
        if abs(p[a] - second[a]) > 0.5 * np.sqrt(covariance[a, a]) and p[a] != second[a]:
            return True
    return False


@_compiled
def _workspace(slabs, points):  # type: ignore[no-untyped-def]
    """Allocate what one thread writes into."""
    bands = slabs.shape[0]
    return (
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


@_compiled
def fit_range(first, last, batch, model, scan, settings, out):  # type: ignore[no-untyped-def]
    """Fit light curves `first` to `last` of a packed batch; results go to `out`.

    Parameters
    ----------
    first, last : int
        Range of light curves.
    batch : tuple
        (offsets, time, band, flux, 1 / error, mask, low, high, prior).
    model : tuple
        (slabs, central colour law, first c, step in c, first phase).
    scan : tuple
        (coarse table, z grid, z rows, c grid) and per light curve whether z is scanned.
    settings : tuple
        (descents from valleys of the profile in z, phase range, which can be fitted).
    out : tuple
        (parameters, covariances, numbers): arrays that are filled.
    """
    offsets, time, band, flux, weight, mask, low, high, prior = batch
    coarse, z_grid, z_rows, c_grid, own_rows = scan
    wanted, phase_range, ready = settings
    parameters, covariances, numbers = out
    starts = np.empty((max(z_grid.size, 2), SIZE))
    second = np.empty(SIZE)
    hessian = np.empty((SIZE, SIZE))
    own_z = np.empty(1)
    work = _workspace(model[0], np.max(np.diff(offsets)))
    for n in range(first, last):
        if not ready[n]:
            continue
        part = slice(offsets[n], offsets[n + 1])
        data = (time[part], band[part], flux[part], weight[part], mask[part])
        limits = (low[n], high[n])
        if own_rows[n] >= 0:
            own_z[0] = 0.5 * (low[n, Z] + high[n, Z])
            grid = (own_z, own_rows[n : n + 1], c_grid)
        else:
            grid = (z_grid, z_rows, c_grid)
        count = _scan(limits, data, coarse, grid, model[4], starts)
        numbers[n, 0] = 0.0
        if count == 0:
            continue
        value, other, calls, done = _refit(
            starts, count, wanted, limits, data, model, work, prior[n], phase_range, second
        )
        p = starts[0]
        value, used = _polish(p, limits, data, model, work, prior[n], hessian)
        good = _errors(p, limits, hessian, covariances[n])
        parameters[n] = p
        numbers[n, 0] = 1.0
        numbers[n, 1] = value
        numbers[n, 2] = calls + used
        numbers[n, 3] = 1.0 if done and good else 0.0
        numbers[n, 4] = np.nan
        if other < np.inf and _apart(p, second, covariances[n]):
            numbers[n, 4] = other - value


@_compiled
def model_flux(p, time, band, model, out):  # type: ignore[no-untyped-def]
    """Fill model fluxes at zero point 25 for parameters `p`."""
    slabs = model[0]
    work = _workspace(slabs, time.size)
    weights, curves, rows, use, w, dw, w_c, dw_c, phases = work
    data = (time, band, time, time, np.ones(time.size, np.bool_))
    _curves(p, data, model, work, False)
    point = np.empty((2, 4))
    for i in range(time.size):
        _point(curves, band[i], phases[i], slabs.shape[3] // 2 - 4, w, dw, point)
        out[i] = p[X0] * (point[0, 0] + p[X1] * point[1, 0])


@_compiled
def model_band(p, covariance, time, band, model, out):  # type: ignore[no-untyped-def]
    """Fill model fluxes at zero point 25 and their standard deviations, rows of `out`."""
    slabs = model[0]
    work = _workspace(slabs, time.size)
    weights, curves, rows, use, w, dw, w_c, dw_c, phases = work
    data = (time, band, time, time, np.ones(time.size, np.bool_))
    stretch = _curves(p, data, model, work, False)
    point = np.empty((2, 4))
    slope = np.empty(SIZE)
    for i in range(time.size):
        _point(curves, band[i], phases[i], slabs.shape[3] // 2 - 4, w, dw, point)
        shape = point[0, 0] + p[X1] * point[1, 0]
        by_phase = (point[0, 3] + p[X1] * point[1, 3]) * stretch
        delay = (time[i] - p[T0]) * stretch
        slope[Z] = p[X0] * (point[0, 1] + p[X1] * point[1, 1] - by_phase * delay)
        slope[T0] = -p[X0] * by_phase
        slope[X0] = shape
        slope[X1] = p[X0] * point[1, 0]
        slope[C] = p[X0] * (point[0, 2] + p[X1] * point[1, 2])
        variance = 0.0
        for a in range(SIZE):
            for c in range(SIZE):
                variance += slope[a] * covariance[a, c] * slope[c]
        out[0, i] = p[X0] * shape
        out[1, i] = np.sqrt(variance) if variance > 0.0 else 0.0
