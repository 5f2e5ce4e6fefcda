"""Compiled search of the fast engine: scan, profile in z, Levenberg-Marquardt and Hessian."""

import numpy as np

from broker.science.fitters.salt2.kernel import (
    SIZE,
    T0,
    X0,
    X1,
    C,
    Points,
    Task,
    Z,
    compiled,
    normal,
    workspace,
)

_STALLED = 1e9
_SCAN_DAYS = 2.0
_RACE = 6
_HOPELESS = 25.0


@compiled
def _factor(matrix, use, lower):  # type: ignore[no-untyped-def]
    """Fill the Cholesky factor on the used parameters; False if not positive definite."""
    for a in range(SIZE):
        for c in range(a + 1):
            lower[a, c] = 0.0
            if not (use[a] and use[c]):
                continue
            total = matrix[a, c]
            for k in range(c):
                total -= lower[a, k] * lower[c, k]
            if a != c:
                lower[a, c] = total / lower[c, c]
            elif total > 1e-14 * abs(matrix[a, a]):
                lower[a, a] = np.sqrt(total)
            else:
                return False
    return True


@compiled
def _solve(matrix, rhs, use, out):  # type: ignore[no-untyped-def]
    """Solve on the used parameters, zero elsewhere; False if not positive definite."""
    lower = np.empty((SIZE, SIZE))
    out[:] = 0.0
    if not _factor(matrix, use, lower):
        return False
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


@compiled
def _movable(p, gradient, low, high, use):  # type: ignore[no-untyped-def]
    """Mark parameters that are free and not pushed against a bound."""
    for a in range(SIZE):
        pushed = (p[a] <= low[a] and gradient[a] > 0.0) or (p[a] >= high[a] and gradient[a] < 0.0)
        use[a] = low[a] < high[a] and not pushed


@compiled
def _gain(step, gradient):  # type: ignore[no-untyped-def]
    """Return how much chi2 a step should gain, were it quadratic."""
    gain = 0.0
    for a in range(SIZE):
        gain -= step[a] * gradient[a]
    return gain


@compiled
def _advance(p, step, low, high, trial):  # type: ignore[no-untyped-def]
    """Fill the point one step away, within bounds."""
    for a in range(SIZE):
        trial[a] = min(max(p[a] + step[a], low[a]), high[a])


@compiled
def _descend(p, task, low, high, tolerance, steps):  # type: ignore[no-untyped-def]
    """Bounded Levenberg-Marquardt from `p`, in place.

    Returns chi2, the number of model evaluations and whether it converged.
    """
    held = low[Z] == high[Z]
    gradient, next_gradient = np.empty(SIZE), np.empty(SIZE)
    matrix, next_matrix = np.empty((SIZE, SIZE)), np.empty((SIZE, SIZE))
    damped = np.empty((SIZE, SIZE))
    use = np.empty(SIZE, np.bool_)
    step, trial = np.empty(SIZE), np.empty(SIZE)
    chi2 = normal(p, task, held, gradient, matrix)
    calls = 1
    damping = 1e-3
    while calls <= steps and damping < _STALLED:
        _movable(p, gradient, low, high, use)
        damped[:] = matrix
        for a in range(SIZE):
            damped[a, a] = matrix[a, a] * (1.0 + damping)
        if not _solve(damped, -gradient, use, step):
            damping *= 8.0
            continue
        if damping < 1.0 and _gain(step, gradient) < tolerance:
            return chi2, calls, True
        _advance(p, step, low, high, trial)
        value = normal(trial, task, held, next_gradient, next_matrix)
        calls += 1
        if value < chi2:
            chi2 = value
            p[:] = trial
            gradient, next_gradient = next_gradient, gradient
            matrix, next_matrix = next_matrix, matrix
            damping = max(damping * 0.1, 1e-9)
        else:
            damping *= 8.0
    return chi2, calls, damping >= _STALLED and _gain(step, gradient) < 1e-2


@compiled
def _hessian(p, task, hessian):  # type: ignore[no-untyped-def]
    """Fill half the second derivatives of chi2 by differences of the exact gradient."""
    ahead, behind = np.empty(SIZE), np.empty(SIZE)
    matrix, scratch = np.empty((SIZE, SIZE)), np.empty((SIZE, SIZE))
    normal(p, task, False, ahead, matrix)
    shifted = p.copy()
    hessian[:] = 0.0
    for a in range(SIZE):
        if not task.low[a] < task.high[a]:
            continue
        width = 0.02 / np.sqrt(matrix[a, a]) if matrix[a, a] > 0.0 else 1e-3
        shifted[a] = p[a] + width
        normal(shifted, task, False, ahead, scratch)
        shifted[a] = p[a] - width
        normal(shifted, task, False, behind, scratch)
        shifted[a] = p[a]
        for c in range(SIZE):
            if task.low[c] < task.high[c]:
                half = 0.5 * (ahead[c] - behind[c]) / (2.0 * width)
                hessian[a, c] += half
                hessian[c, a] += half
    return 2 * SIZE + 1


@compiled
def _polish(p, task, hessian):  # type: ignore[no-untyped-def]
    """Take Newton steps with the full Hessian until the gain is negligible."""
    gradient, step, trial = np.empty(SIZE), np.empty(SIZE), np.empty(SIZE)
    matrix = np.empty((SIZE, SIZE))
    use = np.empty(SIZE, np.bool_)
    chi2 = normal(p, task, False, gradient, matrix)
    calls = 1
    for _ in range(3):
        calls += _hessian(p, task, hessian)
        _movable(p, gradient, task.low, task.high, use)
        if not _solve(hessian, -gradient, use, step):
            return chi2, calls
        expected = _gain(step, gradient)
        if expected < 2e-6:
            return chi2, calls
        _advance(p, step, task.low, task.high, trial)
        value = normal(trial, task, False, gradient, matrix)
        calls += 1
        if not value < chi2:
            return chi2, calls
        p[:] = trial
        chi2 = value
        if expected < 1e-3:
            return chi2, calls
    return chi2, calls


@compiled
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


@compiled
def _scan_sums(coarse, cell, points, peak, sums):  # type: ignore[no-untyped-def]
    """Accumulate the normal equations of (x0, x0 x1) at one cell and peak."""
    z_row, c_row = cell
    t0, stretch, phase_start = peak
    phases = coarse.shape[3]
    sums[1:] = 0.0
    for i in range(points.time.size):
        phase = (points.time[i] - t0) * stretch - phase_start
        if not points.mask[i] or phase < 0.0 or phase >= phases - 1:
            continue
        k = int(phase)
        s = phase - k
        r = 1.0 - s
        b = points.band[i]
        m0 = r * coarse[z_row, c_row, b, k, 0] + s * coarse[z_row, c_row, b, k + 1, 0]
        m1 = r * coarse[z_row, c_row, b, k, 1] + s * coarse[z_row, c_row, b, k + 1, 1]
        m0 *= points.weight[i]
        m1 *= points.weight[i]
        f = points.flux[i] * points.weight[i]
        sums[1] += f * m0
        sums[2] += f * m1
        sums[3] += m0 * m0
        sums[4] += m0 * m1
        sums[5] += m1 * m1


@compiled
def _scan(task, coarse, grid, starts):  # type: ignore[no-untyped-def]
    """Fill `starts` with the best (t0, c) at each z, x0 and x1 solved for; return how many."""
    z_grid, z_rows, c_grid = grid
    low, high = task.low, task.high
    sums = np.zeros(6)
    for i in range(task.points.time.size):
        if task.points.mask[i]:
            sums[0] += (task.points.flux[i] * task.points.weight[i]) ** 2
    count = 0
    t0_count = max(int((high[T0] - low[T0]) / _SCAN_DAYS), 1)
    for j in range(z_grid.size):
        stretch = 1.0 / (1.0 + z_grid[j])
        best = np.inf
        for k in range(c_grid.size):
            for n in range(t0_count):
                t0 = low[T0] + (high[T0] - low[T0]) * (n + 0.5) / t0_count
                peak = (t0, stretch, task.model.phase_start)
                _scan_sums(coarse, (z_rows[j], k), task.points, peak, sums)
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


@compiled
def _profile(starts, count, task, chi2):  # type: ignore[no-untyped-def]
    """Descend from each start with z held, so that chi2 profiles z; return evaluations."""
    low, high = task.low.copy(), task.high.copy()
    calls = 0
    for s in range(count):
        low[Z] = starts[s, Z]
        high[Z] = starts[s, Z]
        chi2[s], used, _ = _descend(starts[s], task, low, high, 2e-2, _RACE)
        calls += used
    return calls


@compiled
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


@compiled
def _finish(starts, order, count, profile, task, second):  # type: ignore[no-untyped-def]
    """Descend freely from the chosen starts; the winner ends in ``starts[0]``.

    Fills `second` with the runner-up. Returns both chi2, the evaluations and convergence.
    """
    value, other = np.inf, np.inf
    done = False
    calls = 0
    winner = np.empty(SIZE)
    for n in range(count):
        p = starts[order[n]]
        chi2, used, converged = profile[order[n]], 0, True
        if chi2 <= value + _HOPELESS:
            _advance(p, np.zeros(SIZE), task.low, task.high, p)
            chi2, used, converged = _descend(p, task, task.low, task.high, 1e-4, 80)
        calls += used
        if chi2 < value:
            second[:] = winner
            other = value
            winner[:] = p
            value = chi2
            done = converged
        elif chi2 < other:
            second[:] = p
            other = chi2
    starts[0] = winner
    return value, other, calls, done


@compiled
def _minimise(starts, count, wanted, task, second):  # type: ignore[no-untyped-def]
    """Profile in z, then finish from the valleys."""
    chi2 = np.empty(count)
    order = np.zeros(count, np.int64)
    calls = _profile(starts, count, task, chi2)
    chosen = _valleys(chi2, count, wanted, order)
    value, other, used, done = _finish(starts, order, chosen, chi2, task, second)
    return value, other, calls + used, done


@compiled
def _mask_phases(p, points, phase_range):  # type: ignore[no-untyped-def]
    """Keep points within rest-frame phases; return whether the mask changed, and the count."""
    changed = False
    kept = 0
    for i in range(points.time.size):
        phase = (points.time[i] - p[T0]) / (1.0 + p[Z])
        keep = phase > phase_range[0] and phase < phase_range[1]
        changed = changed or keep != points.mask[i]
        points.mask[i] = keep
        kept += keep
    return changed, kept


@compiled
def _refit(starts, count, wanted, task, phase_range, second):  # type: ignore[no-untyped-def]
    """Minimise, then mask by phase and minimise again until the mask is stable."""
    value, other, calls, done = _minimise(starts, count, wanted, task, second)
    order = np.arange(2)
    profile = np.zeros(2)
    for _ in range(6):
        changed, kept = _mask_phases(starts[0], task.points, phase_range)
        if not changed:
            break
        if kept == 0:
            return value, np.inf, calls, False
        pair = 2 if other < np.inf else 1
        if pair == 2:
            starts[1] = second
        value, other, used, done = _finish(starts, order, pair, profile, task, second)
        calls += used
    return value, other, calls, done


@compiled
def _invert(hessian, use, covariance):  # type: ignore[no-untyped-def]
    """Invert the Hessian on the used parameters; False if not positive definite."""
    unit = np.zeros(SIZE)
    for a in range(SIZE):
        if use[a]:
            unit[:] = 0.0
            unit[a] = 1.0
            if not _solve(hessian, unit, use, covariance[a]):
                return False
    return True


@compiled
def _errors(p, task, hessian, covariance):  # type: ignore[no-untyped-def]
    """Fill the covariance, without parameters at a bound where it needs that."""
    use = task.low < task.high
    covariance[:] = 0.0
    if _invert(hessian, use, covariance):
        return True
    covariance[:] = 0.0
    for a in range(SIZE):
        if use[a] and (p[a] <= task.low[a] or p[a] >= task.high[a]):
            use[a] = False
            covariance[a, a] = np.nan
    if _invert(hessian, use, covariance):
        return True
    covariance[:] = np.nan
    return False


@compiled
def _apart(p, second, covariance):  # type: ignore[no-untyped-def]
    """Tell whether two points differ by more than half an error in any parameter."""
    for a in range(SIZE):
        if abs(p[a] - second[a]) > 0.5 * np.sqrt(covariance[a, a]) and p[a] != second[a]:
            return True
    return False


@compiled
def _fit_one(starts, count, task, settings, covariance, numbers):  # type: ignore[no-untyped-def]
    """Fit one light curve from scanned starts; the answer ends in ``starts[0]``."""
    wanted, phase_range, _ = settings
    second = np.empty(SIZE)
    hessian = np.empty((SIZE, SIZE))
    value, other, calls, done = _refit(starts, count, wanted, task, phase_range, second)
    p = starts[0]
    value, used = _polish(p, task, hessian)
    good = _errors(p, task, hessian, covariance)
    numbers[0] = 1.0
    numbers[1] = value
    numbers[2] = calls + used
    numbers[3] = 1.0 if done and good else 0.0
    numbers[4] = np.nan
    if other < np.inf and _apart(p, second, covariance):
        numbers[4] = other - value


@compiled
def fit_range(span, batch, model, scan, settings, out):  # type: ignore[no-untyped-def]
    """Fit a range of light curves of a packed batch; results go to `out`.

    Parameters
    ----------
    span : tuple of int
        First light curve, and the one after the last.
    batch : tuple
        (offsets, time, band, flux, 1 / error, mask, low, high, prior).
    model : Model
        Expanded tables.
    scan : tuple
        (coarse table, z grid, z rows, c grid), and for each light curve the row of its own z
        or -1.
    settings : tuple
        (descents from valleys of the profile in z, phase range, which can be fitted).
    out : tuple
        (parameters, covariances, numbers): arrays that are filled.
    """
    offsets, time, band, flux, weight, mask, low, high, prior = batch
    coarse, z_grid, z_rows, c_grid, own_rows = scan
    parameters, covariances, numbers = out
    starts = np.empty((max(z_grid.size, 2), SIZE))
    own_z = np.empty(1)
    work = workspace(model.slabs, np.max(np.diff(offsets)))
    for n in range(span[0], span[1]):
        if not settings[2][n]:
            continue
        part = slice(offsets[n], offsets[n + 1])
        points = Points(time[part], band[part], flux[part], weight[part], mask[part])
        task = Task(points, model, work, prior[n], low[n], high[n])
        grid = (z_grid, z_rows, c_grid)
        if own_rows[n] >= 0:
            own_z[0] = 0.5 * (low[n, Z] + high[n, Z])
            grid = (own_z, own_rows[n : n + 1], c_grid)
        count = _scan(task, coarse, grid, starts)
        if count > 0:
            _fit_one(starts, count, task, settings, covariances[n], numbers[n])
            parameters[n] = starts[0]
