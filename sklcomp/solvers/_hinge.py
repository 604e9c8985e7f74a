r"""Dual coordinate descent for the hinge losses of one label.

With costs :math:`c_i`, signs :math:`y_i` and a prior :math:`w_0`,

.. math:: \min_w \; \tfrac12 \|w - w_0\|^2 + \sum_i c_i \,
          \ell(1 - y_i \langle w, x_i \rangle) , \qquad
          \ell(t) = \max(0, t) \; \text{or} \; \max(0, t)^2 ,

through :math:`w = w_0 + \sum_i \alpha_i y_i x_i`, as LIBLINEAR does (Hsieh et al.,
ICML 2008): random order, shrinking, one coordinate solved exactly at a time. Three
things are ours. The relative duality gap ends it, which the gradients of an epoch
estimate for free. Because that gap is checked on all rows, rows are put aside sooner
than LIBLINEAR dares. And on the free rows, where coordinate descent is slow, conjugate
gradients take over every tenth epoch, once these are few.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from sklcomp.solvers._jit import inlined, njit
from sklcomp.solvers._labels import map_labels, signs_of
from sklcomp.solvers._result import SolverResult
from sklcomp.solvers._rows import add, as_rows, dot, draw, squared_norms

# A row at its bound is put aside if its gradient exceeds this share of the largest
# projected gradient of the epoch before (LIBLINEAR: 1).
SHRINKAGE = 0.1
# Rows that were put aside too soon come back after so many epochs at the latest.
EPOCHS_TO_CHECK = 100
# Relative gaps below are rounding.
LEAST_TOL = 3e-12
EPOCHS_BEFORE_CG, EPOCHS_BETWEEN_CG = 20, 10
# More free rows than weights are too many for good: most of them will reach a bound,
# which coordinate descent finds faster. Until then it goes on alone.
EPOCHS_BEFORE_ALL = 200


@inlined()
def gap_term(miss, a, c, squared):
    """What one row adds to the duality gap, miss = 1 - margin; never negative."""
    loss = max(0.0, miss)
    if squared:
        return c * loss * loss + a * (0.25 * a / c - miss)
    return c * loss - a * miss


@inlined()
def minimise_one(a, gradient, curvature, limit):
    """Minimiser in [0, limit] of a quadratic with this slope and curvature at a."""
    if curvature <= 0.0:
        return limit if gradient < 0.0 else a
    return min(max(a - gradient / curvature, 0.0), limit)


@njit
def _sweep(
    rows, norms, y, cost, squared, alpha, w, order, n_active, above, below, state
):
    """One epoch over order[:n_active]; rows put aside move behind."""
    values, indices, indptr, constant = rows
    upper, lower, estimate = -np.inf, np.inf, 0.0
    position = 0
    while position < n_active:
        state = draw(state, order, position, n_active)
        i = order[position]
        a, c = alpha[i], cost[i]
        gradient = (
            y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w) - 1.0
        )
        estimate += gap_term(-gradient, a, c, squared)
        curvature, limit = norms[i], c
        if squared:
            gradient += 0.5 * a / c
            curvature, limit = norms[i] + 0.5 / c, np.inf
        projected = gradient
        if a == 0.0:
            projected = min(gradient, 0.0)
        elif a == limit:
            projected = max(gradient, 0.0)
        if projected == 0.0:
            if (a == 0.0 and gradient > above) or (a > 0.0 and gradient < below):
                n_active -= 1
                order[position], order[n_active] = order[n_active], i
                continue
        else:
            new = minimise_one(a, gradient, curvature, limit)
            alpha[i] = new
            step = (new - a) * y[i]
            add(values, indices, indptr[i], indptr[i + 1], constant, step, w)
        upper, lower = max(upper, projected), min(lower, projected)
        position += 1
    return n_active, upper, lower, estimate, state


@njit
def _find_face_minimum(rows, y, cost, squared, alpha, w, free, max_iter, step):
    """Conjugate gradients on alpha[free] without bounds; the work, in row visits."""
    values, indices, indptr, constant = rows
    m = free.size
    residual = np.empty(m)
    start_norm = 0.0
    for p in range(m):
        i = free[p]
        margin = y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        residual[p] = 1.0 - margin - (0.5 * alpha[i] / cost[i] if squared else 0.0)
        start_norm += residual[p] ** 2
    direction = residual.copy()
    image = np.empty(w.size)
    norm, n_iter = start_norm, 0
    while n_iter < max_iter and norm > 1e-2 * start_norm:
        n_iter += 1
        image[:] = 0.0
        curvature = 0.0
        for p in range(m):
            i = free[p]
            d = direction[p]
            add(values, indices, indptr[i], indptr[i + 1], constant, d * y[i], image)
            if squared:
                curvature += 0.5 * d * d / cost[i]
        for k in range(image.size):
            curvature += image[k] * image[k]
        if curvature <= 0.0:
            break
        length = norm / curvature
        old, norm = norm, 0.0
        for p in range(m):
            i = free[p]
            d = direction[p]
            slope = y[i] * dot(
                values, indices, indptr[i], indptr[i + 1], constant, image
            )
            if squared:
                slope += 0.5 * d / cost[i]
            step[p] += length * d
            residual[p] -= length * slope
            norm += residual[p] ** 2
        for p in range(m):
            direction[p] = residual[p] + norm / old * direction[p]
    return m * max(n_iter, 1)


@njit
def _search_projected(rows, y, cost, squared, alpha, w, free, step):
    """Go along the step, clipped to the bounds, if the dual objective rises.

    Up to the first bound it does, whatever the step is.
    """
    values, indices, indptr, constant = rows
    before = after = 0.0
    for k in range(w.size):
        before += w[k] * w[k]
    trial = np.empty(w.size)
    found = np.empty(free.size)
    scale, first = 1.0, 1.0
    for p in range(free.size):
        i = free[p]
        if step[p] < 0.0:
            first = min(first, -alpha[i] / step[p])
        elif step[p] > 0.0 and not squared:
            first = min(first, (cost[i] - alpha[i]) / step[p])
    for attempt in range(5):
        if attempt == 4:
            scale = first
        trial[:] = w
        gain = 0.5 * before
        for p in range(free.size):
            i = free[p]
            limit = np.inf if squared else cost[i]
            found[p] = min(max(alpha[i] + scale * step[p], 0.0), limit)
            change = found[p] - alpha[i]
            gain += change
            if squared:
                gain -= 0.25 * (found[p] ** 2 - alpha[i] ** 2) / cost[i]
            add(
                values,
                indices,
                indptr[i],
                indptr[i + 1],
                constant,
                change * y[i],
                trial,
            )
        after = 0.0
        for k in range(w.size):
            after += trial[k] * trial[k]
        if gain > 0.5 * after:
            w[:] = trial
            for p in range(free.size):
                alpha[free[p]] = found[p]
            return
        scale *= 0.3


@njit
def _accelerate(rows, y, cost, squared, alpha, w, order, n_active, budget, most_free):
    """Conjugate gradients on the free rows, clipped to the bounds."""
    is_free = np.zeros(n_active, dtype=np.bool_)
    while budget > 0:
        for p in range(n_active):
            i = order[p]
            is_free[p] = alpha[i] > 0.0 and (squared or alpha[i] < cost[i])
        free = order[:n_active][is_free]
        if free.size == 0 or free.size > most_free:
            return
        step = np.zeros(free.size)
        max_iter = min(free.size, max(10, budget // free.size))
        budget -= _find_face_minimum(
            rows, y, cost, squared, alpha, w, free, max_iter, step
        )
        _search_projected(rows, y, cost, squared, alpha, w, free, step)


@njit
def _dual_value(cost, squared, alpha, w, start):
    value = 0.0
    for k in range(w.size):
        value += 0.5 * (start[k] * start[k] - w[k] * w[k])
    for i in range(alpha.size):
        value += alpha[i]
        if squared:
            value -= 0.25 * alpha[i] * alpha[i] / cost[i]
    return value


@njit
def _exact_gap(rows, y, cost, squared, alpha, w):
    values, indices, indptr, constant = rows
    gap = 0.0
    for i in range(alpha.size):
        miss = 1.0 - y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        gap += gap_term(miss, alpha[i], cost[i], squared)
    return gap


@njit
def descend_hinge(
    rows, norms, y, cost, squared, alpha, w, start, tol, max_epochs, seed
):
    """Minimise in place; return the epochs used, the gap and the primal objective.

    ``w`` is ``start`` + sum alpha y x on entry and on return. Costs are positive.
    """
    order = np.arange(alpha.size)
    n_active = alpha.size
    above, below = np.inf, -np.inf
    state, trust, epoch, budget = seed, 1.0, 0, 0
    while epoch < max_epochs:
        epoch += 1
        n_active, upper, lower, estimate, state = _sweep(
            rows, norms, y, cost, squared, alpha, w, order, n_active,
            above, below, state,
        )  # fmt: skip
        dual = _dual_value(cost, squared, alpha, w, start)
        if estimate <= trust * tol * (dual + estimate) or epoch % EPOCHS_TO_CHECK == 0:
            gap = _exact_gap(rows, y, cost, squared, alpha, w)
            if gap <= tol * (dual + gap):
                return epoch, gap, dual + gap
            if n_active == alpha.size:
                trust *= 0.5
            n_active = alpha.size
            above, below = np.inf, -np.inf
            continue
        above = SHRINKAGE * upper if upper > 0.0 else np.inf
        below = SHRINKAGE * lower if lower < 0.0 else -np.inf
        budget += n_active
        if epoch >= EPOCHS_BEFORE_CG and epoch % EPOCHS_BETWEEN_CG == 0:
            most_free = w.size if epoch < EPOCHS_BEFORE_ALL else alpha.size
            _accelerate(
                rows, y, cost, squared, alpha, w, order, n_active, budget, most_free
            )
            budget = 0
    gap = _exact_gap(rows, y, cost, squared, alpha, w)
    return epoch, gap, _dual_value(cost, squared, alpha, w, start) + gap


def solve_hinge(
    X: Any,
    Y: sparse.csr_array,
    *,
    cost: np.ndarray,
    squared: bool,
    start: np.ndarray,
    constant: float,
    tol: float,
    max_iter: int,
    seeds: np.ndarray,
    n_jobs: int | None = None,
    callback: Callable[[int], bool] | None = None,
) -> SolverResult:
    """One hinge problem for each label.

    Parameters
    ----------
    X : ndarray or csr_array of shape (n_samples, n_features)
        Checked examples.
    Y : csr_array of shape (n_samples, n_labels)
        Which labels an example has.
    cost : ndarray of shape (n_samples,)
        C times the weights of the examples, positive.
    squared : bool
        Whether the losses are squared.
    start : ndarray of shape (n_labels, n_features + 1)
        Prior of the coefficients and of the weight of the constant.
    constant : float
        Value of the constant feature.
    tol : float
        Relative duality gap to stop at.
    max_iter : int
        Most epochs.
    seeds : ndarray of shape (n_labels,), int
        One below 2**31 for each label.
    n_jobs : int or None
        Threads.
    callback : callable, default=None
        Called with the number of each solved label; True leaves the others at the
        start.

    Returns
    -------
    result : SolverResult
        ``solution`` has shape (n_labels, n_features + 1).
    """
    tol = max(tol, LEAST_TOL)
    n_labels = Y.shape[1]
    rows, norms = as_rows(X, constant), squared_norms(X, constant)
    columns = Y.tocsc()
    W = np.array(start, dtype=np.float64)
    found = np.zeros((n_labels, 3))

    def solve_label(j: int) -> None:
        y, alpha = signs_of(columns, j), np.zeros(len(cost))
        found[j] = descend_hinge(
            rows, norms, y, cost, squared, alpha, W[j], start[j], tol, max_iter,
            seeds[j],
        )  # fmt: skip

    n_kept = map_labels(solve_label, n_labels, n_jobs, callback)
    W[n_kept:], found[n_kept:] = start[n_kept:], 0.0
    n_iter, gap, objective = found.T
    gap = gap / np.maximum(objective, np.finfo(np.float64).tiny)
    return SolverResult(W, n_iter.astype(int), gap, gap <= tol)
