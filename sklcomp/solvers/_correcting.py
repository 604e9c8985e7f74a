r"""The correcting function of privileged labels, and its descent for one label.

For label j with signs y, costs c and the privileged features :math:`\tilde y_i` (the
other labels of example i and a constant),

.. math:: \min_{w, \tilde w} \; \tfrac12 \|w - w_0\|^2
          + \tfrac{\gamma}{2} \|\tilde w\|^2
          + \sum_i c_i \, (\langle \tilde w, \tilde y_i \rangle + \rho \zeta_i)

subject to :math:`y_i \langle w, x_i \rangle \ge 1 - \langle \tilde w, \tilde y_i
\rangle - \zeta_i`, :math:`\langle \tilde w, \tilde y_i \rangle \ge 0` and
:math:`\zeta_i \ge 0`. In the dual, :math:`w = w_0 + \sum_i \alpha_i y_i x_i` with
:math:`0 \le \alpha_i \le \rho c_i` and :math:`\gamma \tilde w = \sum_i (\alpha_i +
\beta_i - c_i) \tilde y_i` with :math:`\beta_i \ge 0`. Examples with equal labels share
their constraint, so they share one :math:`\beta`.
"""

import numpy as np

from sklcomp.solvers._hinge import (
    EPOCHS_BEFORE_ALL,
    EPOCHS_BEFORE_CG,
    EPOCHS_BETWEEN_CG,
    EPOCHS_TO_CHECK,
    SHRINKAGE,
    minimise_one,
)
from sklcomp.solvers._jit import njit
from sklcomp.solvers._labelsets import (
    correct,
    make_feasible,
    shift,
    squared_norm,
    sweep_sets,
)
from sklcomp.solvers._rows import add, dot, draw

# Gaps below this share of the costs are rounding.
ROUNDING = 1e-15


@njit
def _sweep(
    rows, norms, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q, order, n_active,
    above, below, state,
):  # fmt: skip
    """One epoch over the rows order[:n_active] and over all label sets.

    Returned are two estimates of the gap without its other terms: to the corrected
    primal point, and to that whose correction vanishes.
    """
    values, indices, indptr, constant = rows
    group, members, bounds, n_labels, signed = sets
    upper, lower, estimate, worst, plain = -np.inf, np.inf, 0.0, 0.0, 0.0
    position = 0
    while position < n_active:
        state = draw(state, order, position, n_active)
        i = order[position]
        g = group[i]
        start, stop = bounds[g], bounds[g + 1]
        slack, size, count = correct(members, start, stop, own, n_labels, signed, p, q)
        margin = y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        gradient = margin - 1.0 + slack
        a, limit = alpha[i], cap * cost[i]
        if gradient < 0.0:
            worst = max(worst, -gradient)
            if limit < np.inf:
                estimate -= limit * gradient
        estimate += a * gradient
        if limit < np.inf:
            plain += a * (margin - 1.0) + limit * max(0.0, 1.0 - margin)
        projected = gradient
        if a == 0.0:
            projected = min(gradient, 0.0)
        elif a == limit:
            projected = max(gradient, 0.0)
        step = 0.0
        if projected == 0.0:
            if (a == 0.0 and gradient > above) or (a > 0.0 and gradient < below):
                n_active -= 1
                order[position], order[n_active] = order[n_active], i
                continue
        else:
            new = minimise_one(a, gradient, norms[i] + size / gamma, limit)
            alpha[i] = new
            step = new - a
            add(values, indices, indptr[i], indptr[i + 1], constant, step * y[i], w)
        upper, lower = max(upper, projected), min(lower, projected)
        position += 1
        change = max(-beta[g], -gamma * slack / size - step)
        beta[g] += change
        step += change
        if step != 0.0:
            shift(members, start, stop, own, count, signed, step / gamma, p, q)
    extra, lift = sweep_sets(gamma, sets, own, beta, p, q)
    return n_active, upper, lower, estimate + extra, plain, worst, lift, state


@njit
def _apply(rows, y, gamma, sets, own, free, free_sets, vector, w, p, q):
    """Add to (w, p, q) what the multipliers of free rows and sets change in them."""
    values, indices, indptr, constant = rows
    group, members, bounds, _, signed = sets
    m = free.size
    for k in range(m + free_sets.size):
        step = vector[k]
        if k < m:
            i = free[k]
            g = group[i]
            start, stop = indptr[i], indptr[i + 1]
            add(values, indices, start, stop, constant, step * y[i], w)
        else:
            g = free_sets[k - m]
        start, stop = bounds[g], bounds[g + 1]
        count = 0
        for k in range(start, stop):
            count += members[k] != own
        shift(members, start, stop, own, count, signed, step / gamma, p, q)


@njit
def _slopes(rows, y, sets, own, free, free_sets, w, p, q, out):
    """Margin plus slack of the free rows, and slack of the free sets."""
    values, indices, indptr, constant = rows
    group, members, bounds, n_labels, signed = sets
    m = free.size
    for k in range(out.size):
        i = free[k] if k < m else 0
        g = group[i] if k < m else free_sets[k - m]
        slack, _, _ = correct(
            members, bounds[g], bounds[g + 1], own, n_labels, signed, p, q
        )
        out[k] = slack
        if k < m:
            start, stop = indptr[i], indptr[i + 1]
            out[k] += y[i] * dot(values, indices, start, stop, constant, w)


@njit
def _find_face_minimum(
    rows, y, gamma, sets, own, w, p, q, free, free_sets, diagonal, max_iter
):
    """Preconditioned conjugate gradients on the free multipliers, without bounds."""
    m = free.size
    size = m + free_sets.size
    slope = np.empty(size)
    _slopes(rows, y, sets, own, free, free_sets, w, p, q, slope)
    residual = -slope
    for k in range(m):
        residual[k] += 1.0
    direction, step = residual / diagonal, np.zeros(size)
    norm = np.sum(residual * direction)
    start_norm, n_iter = norm, 0
    image, image_p, image_q = np.empty(w.size), np.empty(p.size), np.empty(q.size)
    while n_iter < max_iter and norm > 1e-2 * start_norm:
        n_iter += 1
        image[:], image_p[:], image_q[:] = 0.0, 0.0, 0.0
        _apply(
            rows, y, gamma, sets, own, free, free_sets, direction, image, image_p,
            image_q,
        )  # fmt: skip
        _slopes(rows, y, sets, own, free, free_sets, image, image_p, image_q, slope)
        curvature = np.sum(direction * slope)
        if curvature <= 0.0:
            break
        length = norm / curvature
        old, norm = norm, 0.0
        for k in range(size):
            step[k] += length * direction[k]
            residual[k] -= length * slope[k]
            norm += residual[k] ** 2 / diagonal[k]
        for k in range(size):
            direction[k] = residual[k] / diagonal[k] + norm / old * direction[k]
    return step, n_iter


@njit
def _search_projected(
    rows, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q, free, free_sets, step
):
    """Go along the step, clipped to the bounds, if the dual objective rises.

    Up to the first bound it does, whatever the step is.
    """
    m = free.size
    change, first = np.empty(step.size), 1.0
    for k in range(step.size):
        room = beta[free_sets[k - m]] if k >= m else alpha[free[k]]
        if k < m and step[k] > 0.0:
            room = cap * cost[free[k]] - room
        if step[k] < 0.0 or (k < m and step[k] > 0.0):
            first = min(first, room / abs(step[k]))
    before = np.sum(w * w) + gamma * squared_norm(p, q, own)
    for scale in (1.0, 0.3, 0.09, 0.027, first):
        gain = 0.0
        for k in range(m):
            i = free[k]
            new = min(max(alpha[i] + scale * step[k], 0.0), cap * cost[i])
            change[k] = new - alpha[i]
            gain += change[k]
        for k in range(m, step.size):
            change[k] = max(scale * step[k], -beta[free_sets[k - m]])
        trial, trial_p, trial_q = w.copy(), p.copy(), q.copy()
        _apply(
            rows, y, gamma, sets, own, free, free_sets, change, trial, trial_p, trial_q
        )
        after = np.sum(trial * trial) + gamma * squared_norm(trial_p, trial_q, own)
        if gain > 0.5 * (after - before):
            w[:], p[:], q[:] = trial, trial_p, trial_q
            for k in range(m):
                limit = cap * cost[free[k]]
                alpha[free[k]] = min(max(alpha[free[k]] + change[k], 0.0), limit)
            for k in range(m, step.size):
                g = free_sets[k - m]
                beta[g] = max(beta[g] + change[k], 0.0)
            return


@njit
def _accelerate(
    rows, norms, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q, active, budget,
    most_free,
):  # fmt: skip
    """Conjugate gradients on the free multipliers, clipped to the bounds."""
    group, members, bounds, n_labels, signed = sets
    is_free = np.zeros(active.size, dtype=np.bool_)
    while budget > 0:
        for k in range(active.size):
            i = active[k]
            is_free[k] = alpha[i] > 0.0 and alpha[i] < cap * cost[i]
        free, free_sets = active[is_free], np.flatnonzero(beta > 0.0)
        m = free.size
        size = m + free_sets.size
        if size == 0 or m > most_free:
            return
        diagonal = np.empty(size)
        for k in range(size):
            g = group[free[k]] if k < m else free_sets[k - m]
            count = 0
            for k2 in range(bounds[g], bounds[g + 1]):
                count += members[k2] != own
            square = float(n_labels) if signed else 1.0 + count
            diagonal[k] = square / gamma + (norms[free[k]] if k < m else 0.0)
        step, n_iter = _find_face_minimum(
            rows, y, gamma, sets, own, w, p, q, free, free_sets, diagonal,
            min(size, max(10, budget // size)),
        )  # fmt: skip
        _search_projected(
            rows, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q, free, free_sets,
            step,
        )  # fmt: skip
        budget -= size * max(n_iter, 1)


@njit
def _exact_gap(rows, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q):
    """The gap to a feasible primal point, and by how much to lift the constant for it.

    Where no correction at all is nearer to the optimum, the lift is NaN.
    """
    values, indices, indptr, constant = rows
    group, members, bounds, n_labels, signed = sets
    slack = np.empty(beta.size)
    gap, least, total, plain = 0.0, 0.0, 0.0, np.inf
    for g in range(beta.size):
        slack[g], _, _ = correct(
            members, bounds[g], bounds[g + 1], own, n_labels, signed, p, q
        )
        gap += beta[g] * slack[g]
        least = min(least, slack[g])
    gradient = np.empty(alpha.size)
    for i in range(alpha.size):
        margin = y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        gradient[i] = margin - 1.0 + slack[group[i]]
        gap += alpha[i] * gradient[i]
        total += cost[i]
        if cap == np.inf:
            least = min(least, gradient[i])
    lift = -least
    gap += lift * (total + gamma * (q[2] + 0.5 * lift))
    if cap < np.inf:
        plain = 0.5 * gamma * squared_norm(p, q, own)
        for i in range(alpha.size):
            limit, miss = cap * cost[i], slack[group[i]] - gradient[i]
            gap += limit * max(0.0, -gradient[i] - lift)
            plain += limit * max(0.0, miss) - alpha[i] * miss
    if plain < gap:
        gap, lift = plain, np.nan
    # Slacks are known to rounding only, and so is their sum with the costs.
    return max(0.0, gap - ROUNDING * total), lift


@njit
def _dual_value(gamma, own, alpha, w, start, p, q):
    value = -0.5 * gamma * squared_norm(p, q, own)
    for k in range(w.size):
        value += 0.5 * (start[k] * start[k] - w[k] * w[k])
    for i in range(alpha.size):
        value += alpha[i]
    return value


@njit
def descend_privileged(
    rows, norms, y, cost, cap, gamma, sets, own, alpha, beta, w, start, p, q,
    tol, max_epochs, seed,
):  # fmt: skip
    """Minimise in place; the epochs used, the gap and the primal objective.

    On entry ``w`` and (p, q) follow from alpha and beta; on return ``w`` does, and
    (p, q) is made feasible.
    """
    order = np.arange(alpha.size)
    n_active = alpha.size
    above, below = np.inf, -np.inf
    state, trust, epoch, total, budget = seed, 1.0, 0, 0.0, 0
    for i in range(cost.size):
        total += cost[i]
    while epoch < max_epochs:
        epoch += 1
        n_active, upper, lower, estimate, plain, worst, lift, state = _sweep(
            rows, norms, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q, order,
            n_active, above, below, state,
        )  # fmt: skip
        if cap == np.inf:
            lift = max(lift, worst)
        estimate += lift * (total + gamma * (q[2] + 0.5 * lift))
        if cap < np.inf:
            plain += 0.5 * gamma * squared_norm(p, q, own)
            estimate = min(estimate, plain)
        dual = _dual_value(gamma, own, alpha, w, start, p, q)
        if estimate <= trust * tol * (dual + estimate) or epoch % EPOCHS_TO_CHECK == 0:
            gap, lift = _exact_gap(
                rows, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q
            )
            if gap <= tol * (dual + gap):
                make_feasible(lift, p, q)
                return epoch, gap, dual + gap
            if n_active == alpha.size:
                trust *= 0.5
            n_active = alpha.size
            above, below = np.inf, -np.inf
            continue
        above = SHRINKAGE * upper if upper > 0.0 else np.inf
        below = SHRINKAGE * lower if lower < 0.0 else -np.inf
        budget += n_active + beta.size
        if epoch >= EPOCHS_BEFORE_CG and epoch % EPOCHS_BETWEEN_CG == 0:
            _accelerate(
                rows, norms, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q,
                order[:n_active], budget,
                w.size if epoch < EPOCHS_BEFORE_ALL else alpha.size,
            )  # fmt: skip
            budget = 0
    gap, lift = _exact_gap(rows, y, cost, cap, gamma, sets, own, alpha, beta, w, p, q)
    dual = _dual_value(gamma, own, alpha, w, start, p, q)
    make_feasible(lift, p, q)
    return epoch, gap, dual + gap
