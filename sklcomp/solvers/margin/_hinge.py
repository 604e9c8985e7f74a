r"""Dual coordinate descent for the hinge losses of one label.

With costs :math:`c_i`, signs :math:`y_i` and a prior :math:`w_0`,

.. math:: \min_w \; \tfrac12 \|w - w_0\|^2 + \sum_i c_i \,
          \ell(1 - y_i \langle w, x_i \rangle) , \qquad
          \ell(t) = \max(0, t) \; \text{or} \; \max(0, t)^2 .               \tag{1}

Its dual, for w from :math:`\alpha` by (1) of ``_descent``, is

.. math:: \max_{\alpha \ge 0} \; \sum_i \alpha_i - \tfrac12 \|w\|^2
          + \tfrac12 \|w_0\|^2 - \sum_i \tfrac{\alpha_i^2}{4 c_i} ,         \tag{2}

of which the last sum belongs to the squares; without them :math:`\alpha_i \le c_i`.
The slope and the curvature in one multiplier are

.. math:: g_i = y_i \langle w, x_i \rangle - 1 + \tfrac{\alpha_i}{2 c_i} , \qquad
          h_i = \|x_i\|^2 + \tfrac{1}{2 c_i} ,                              \tag{3}

again with the fractions of the squares alone. With :math:`t_i = 1 - y_i \langle w, x_i
\rangle` the gap is a sum over rows, none of them negative:

.. math:: P - D = \sum_i c_i \, \ell(t_i) - \alpha_i t_i
          + \tfrac{\alpha_i^2}{4 c_i} .                                     \tag{4}

LIBLINEAR does the same (Hsieh et al., ICML 2008): random order, shrinking, one
coordinate solved exactly at a time. Three things are ours. The relative duality gap
ends it, which the gradients of an epoch estimate for free. Because that gap is checked
on all rows, rows are put aside sooner than LIBLINEAR dares. And on the free rows,
where coordinate descent is slow, conjugate gradients take over every tenth epoch, once
these are few: with the others fixed, (2) is a quadratic of the free multipliers,

.. math:: \min_{d} \; \tfrac12 \Big\|w + \sum_{i} d_i y_i x_i\Big\|^2
          + \sum_i \tfrac{(\alpha_i + d_i)^2}{4 c_i} - d_i .                \tag{5}
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from sklcomp.solvers._jit import inlined, njit
from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.margin._descent import (
    CG_TOL,
    LEAST_TOL,
    Effort,
    Problem,
    begin,
    clip_gradient,
    count_most_free,
    go_on,
    is_due,
    is_settled,
    is_small,
    is_turn_of_gradients,
    minimise_one,
    put_aside,
    take_back,
)
from sklcomp.solvers.margin._per_label import map_labels, signs_of
from sklcomp.solvers.margin._rows import add, as_rows, dot, draw, squared_norms


@inlined()
def gap_term(miss, a, c, squared):
    """What one row adds to the duality gap (4), miss = 1 - margin; never negative."""
    loss = max(0.0, miss)
    if squared:
        return c * loss * loss + a * (0.25 * a / c - miss)
    return c * loss - a * miss


@njit
def _sweep(problem, alpha, w, progress):
    """One epoch over the active rows, and its estimate of the gap."""
    (values, indices, indptr, constant), norms, y, cost, cap, squared = problem
    order, n_active, above, below, _, state = progress
    upper, lower, estimate = -np.inf, np.inf, 0.0
    position = 0
    while position < n_active:
        state = draw(state, order, position, n_active)
        i = order[position]
        a, c = alpha[i], cost[i]
        margin = y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        gradient = margin - 1.0  # (3)
        estimate += gap_term(-gradient, a, c, squared)  # (4)
        curvature, limit = norms[i], cap * c
        # The gap is that of the loss alone: only now what the squares add to the dual.
        if squared:
            gradient += 0.5 * a / c
            curvature += 0.5 / c
        projected = clip_gradient(gradient, a == 0.0, a == limit)
        if projected != 0.0:
            alpha[i] = minimise_one(a, gradient, curvature, limit)
            step = (alpha[i] - a) * y[i]
            add(values, indices, indptr[i], indptr[i + 1], constant, step, w)
        elif is_settled(a, gradient, above, below):
            n_active = put_aside(order, position, n_active)
            continue
        upper, lower = max(upper, projected), min(lower, projected)
        position += 1
    return go_on(progress, n_active, upper, lower, state), estimate


@njit
def _find_face_minimum(problem, alpha, w, free, max_iter, step):
    """Conjugate gradients on (5) without bounds; the work, in row visits."""
    (values, indices, indptr, constant), _, y, cost, _, squared = problem
    m = free.size
    residual = np.empty(m)
    start_norm = 0.0
    for place in range(m):
        i = free[place]
        margin = y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        bend = 0.5 * alpha[i] / cost[i] if squared else 0.0
        residual[place] = 1.0 - margin - bend
        start_norm += residual[place] ** 2
    direction = residual.copy()
    image = np.empty(w.size)
    norm, n_iter = start_norm, 0
    while n_iter < max_iter and norm > CG_TOL * start_norm:
        n_iter += 1
        image[:] = 0.0
        curvature = 0.0
        for place in range(m):
            i, d = free[place], direction[place]
            add(values, indices, indptr[i], indptr[i + 1], constant, d * y[i], image)
            if squared:
                curvature += 0.5 * d * d / cost[i]
        for k in range(image.size):
            curvature += image[k] * image[k]
        # Rows that depend on each other leave directions in which (5) is a line.
        if curvature <= 0.0:
            break
        length = norm / curvature
        old, norm = norm, 0.0
        for place in range(m):
            i, d = free[place], direction[place]
            product = dot(values, indices, indptr[i], indptr[i + 1], constant, image)
            slope = y[i] * product
            if squared:
                slope += 0.5 * d / cost[i]
            step[place] += length * d
            residual[place] -= length * slope
            norm += residual[place] ** 2
        for place in range(m):
            direction[place] = residual[place] + norm / old * direction[place]
    # At least the residual was computed; a budget that did not shrink would never end.
    return m * max(n_iter, 1)


@njit
def _search_projected(problem, alpha, w, free, step):
    """Go along the step, clipped to the bounds, if the dual objective rises.

    Up to the first bound it does, whatever the step is.
    """
    (values, indices, indptr, constant), _, y, cost, cap, squared = problem
    before = after = 0.0
    for k in range(w.size):
        before += w[k] * w[k]
    trial, found = np.empty(w.size), np.empty(free.size)
    scale, first = 1.0, 1.0
    for place in range(free.size):
        i = free[place]
        if step[place] < 0.0:
            first = min(first, -alpha[i] / step[place])
        elif step[place] > 0.0:
            # Squares have no upper bound: with their infinite cap nothing is lost here.
            first = min(first, (cap * cost[i] - alpha[i]) / step[place])
    for attempt in range(5):
        # What is clipped may lead uphill, but up to the first bound nothing is clipped.
        if attempt == 4:
            scale = first
        trial[:] = w
        gain = 0.5 * before
        for place in range(free.size):
            i = free[place]
            moved = max(alpha[i] + scale * step[place], 0.0)
            found[place] = min(moved, cap * cost[i])
            change = found[place] - alpha[i]
            gain += change  # (2)
            if squared:
                gain -= 0.25 * (found[place] ** 2 - alpha[i] ** 2) / cost[i]
            change *= y[i]
            add(values, indices, indptr[i], indptr[i + 1], constant, change, trial)
        after = 0.0
        for k in range(w.size):
            after += trial[k] * trial[k]
        if gain > 0.5 * after:
            w[:] = trial
            for place in range(free.size):
                alpha[free[place]] = found[place]
            return
        scale *= 0.3


@njit
def _accelerate(problem, alpha, w, active, budget, most_free):
    """Conjugate gradients on the free rows, clipped to the bounds."""
    cost, cap = problem.cost, problem.cap
    is_free = np.zeros(active.size, dtype=np.bool_)
    while budget > 0:
        # Each step leaves some rows on their bounds, and a smaller face.
        for place in range(active.size):
            i = active[place]
            is_free[place] = alpha[i] > 0.0 and alpha[i] < cap * cost[i]
        free = active[is_free]
        if free.size == 0 or free.size > most_free:
            return
        step = np.zeros(free.size)
        max_iter = min(free.size, max(10, budget // free.size))
        budget -= _find_face_minimum(problem, alpha, w, free, max_iter, step)
        _search_projected(problem, alpha, w, free, step)


@njit
def _dual_value(problem, alpha, w, start):
    """The dual objective (2)."""
    value = 0.0
    for k in range(w.size):
        value += 0.5 * (start[k] * start[k] - w[k] * w[k])
    for i in range(alpha.size):
        value += alpha[i]
        if problem.squared:
            value -= 0.25 * alpha[i] * alpha[i] / problem.cost[i]
    return value


@njit
def _exact_gap(problem, alpha, w):
    """The gap (4) over all rows, at one w."""
    (values, indices, indptr, constant), _, y, cost, _, squared = problem
    gap = 0.0
    for i in range(alpha.size):
        miss = 1.0 - y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        gap += gap_term(miss, alpha[i], cost[i], squared)
    return gap


@njit
def descend_hinge(problem, alpha, w, start, effort):
    """Minimise in place; return the epochs used, the gap and the primal objective.

    ``w`` is ``start`` + sum alpha y x on entry and on return. Costs are positive.
    """
    tol, max_epochs, seed = effort
    progress = begin(alpha.size, seed)
    epoch, budget = 0, 0
    while epoch < max_epochs:
        epoch += 1
        progress, estimate = _sweep(problem, alpha, w, progress)
        dual = _dual_value(problem, alpha, w, start)
        if is_due(estimate, dual, progress.trust * tol, epoch):
            gap = _exact_gap(problem, alpha, w)
            if is_small(gap, dual, tol):
                return epoch, gap, dual + gap
            progress = take_back(progress)
            continue
        # Conjugate gradients may take as long as the epochs since they last did.
        budget += progress.n_active
        if is_turn_of_gradients(epoch):
            active = progress.order[: progress.n_active]
            most_free = count_most_free(epoch, w.size, alpha.size)
            _accelerate(problem, alpha, w, active, budget, most_free)
            budget = 0
    # Estimates are of other moments; what is reported has to be a bound.
    gap = _exact_gap(problem, alpha, w)
    return epoch, gap, _dual_value(problem, alpha, w, start) + gap


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
    # Squares bound their multipliers by themselves.
    cap = np.inf if squared else 1.0
    found = np.zeros((n_labels, 3))

    def solve_label(j: int) -> None:
        y, alpha = signs_of(columns, j), np.zeros(len(cost))
        problem = Problem(rows, norms, y, cost, cap, squared)
        effort = Effort(tol, max_iter, seeds[j])
        found[j] = descend_hinge(problem, alpha, W[j], start[j], effort)

    n_kept = map_labels(solve_label, n_labels, n_jobs, callback)
    # Threads may have been further than the label at which the callback ended it.
    W[n_kept:], found[n_kept:] = start[n_kept:], 0.0
    n_iter, gap, objective = found.T
    # An objective of zero has no gap, and nothing to divide by.
    gap = gap / np.maximum(objective, np.finfo(np.float64).tiny)
    return SolverResult(W, n_iter.astype(int), gap, gap <= tol)
