r"""The correcting function of privileged labels, and its descent for one label.

For a label with signs y, costs c and the privileged features :math:`\tilde y_i` (the
other labels of example i and a constant),

.. math:: \min_{w, \tilde w} \; \tfrac12 \|w - w_0\|^2
          + \tfrac{\gamma}{2} \|\tilde w\|^2
          + \sum_i c_i \, (\langle \tilde w, \tilde y_i \rangle + \rho \zeta_i)
          \tag{1}

subject to :math:`y_i \langle w, x_i \rangle \ge 1 - \langle \tilde w, \tilde y_i
\rangle - \zeta_i`, :math:`\langle \tilde w, \tilde y_i \rangle \ge 0` and
:math:`\zeta_i \ge 0`. In the dual,

.. math:: \max_{\alpha, \beta} \; \sum_i \alpha_i - \tfrac12 \|w\|^2
          + \tfrac12 \|w_0\|^2 - \tfrac{\gamma}{2} \|\tilde w\|^2 ,         \tag{2}

w follows from :math:`0 \le \alpha_i \le \rho c_i` by (1) of
``_descent`` and :math:`\tilde w` from both multipliers by (3) of
``_labelsets``. Examples with equal labels share the constraint on
their correction :math:`s_i`, so they share one :math:`\beta \ge 0`. Slope and curvature
in one :math:`\alpha_i` are

.. math:: g_i = y_i \langle w, x_i \rangle - 1 + s_i , \qquad
          h_i = \|x_i\|^2 + \|\tilde y_i\|^2 / \gamma .                     \tag{3}

The least lift of the constant that makes all corrections feasible (without a cap, the
margins as well) is

.. math:: \lambda = \max(0, -\min_i s_i) \quad \text{or} \quad
          \max(0, -\min_i s_i, -\min_i g_i) .                               \tag{4}

To the point that it leads to the gap is

.. math:: P - D = \sum_i \alpha_i g_i + \sum_g \beta_g s_g
          + \sum_i \rho c_i \max(0, -g_i - \lambda)
          + \lambda \Big(\sum_i c_i
          + \gamma (\tilde w_0 + \tfrac12 \lambda)\Big)                     \tag{5}

with :math:`\tilde w_0` the weight of the constant, and to the point that corrects
nothing

.. math:: P - D = \tfrac{\gamma}{2} \|\tilde w\|^2
          + \sum_i \rho c_i \max(0, s_i - g_i) - \alpha_i (s_i - g_i) .     \tag{6}
"""

import numpy as np

from sklcomp.solvers._jit import njit
from sklcomp.solvers.margin._correcting_face import accelerate
from sklcomp.solvers.margin._descent import (
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
from sklcomp.solvers.margin._labelsets import (
    correction_of,
    make_feasible,
    shift,
    squared_norm,
    sweep_sets,
)
from sklcomp.solvers.margin._rows import add, dot, draw

# Gaps below this share of the costs are rounding.
ROUNDING = 1e-15


@njit
def _sweep(problem, privilege, label, multipliers, weights, progress):
    """One epoch over the active rows and over all label sets.

    Returned are the terms of the gap that (5) and (6) sum over rows and sets, and the
    lift (4).
    """
    (values, indices, indptr, constant), norms, y, cost, cap, _ = problem
    (group, members, bounds, n_labels, signed), gamma = privilege
    (alpha, beta), (w, p, q) = multipliers, weights
    order, n_active, above, below, _, state = progress
    upper, lower, estimate, worst, plain = -np.inf, np.inf, 0.0, 0.0, 0.0
    position = 0
    while position < n_active:
        state = draw(state, order, position, n_active)
        i = order[position]
        g = group[i]
        start, stop = bounds[g], bounds[g + 1]
        slack, size = correction_of(members, start, stop, label, n_labels, signed, p, q)
        margin = y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        gradient = margin - 1.0 + slack  # (3)
        a, limit = alpha[i], cap * cost[i]
        if gradient < 0.0:
            worst = max(worst, -gradient)
            if limit < np.inf:
                estimate -= limit * gradient
        estimate += a * gradient  # (5), before the lift is known
        if limit < np.inf:
            plain += a * (margin - 1.0) + limit * max(0.0, 1.0 - margin)  # (6)
        projected, step = clip_gradient(gradient, a == 0.0, a == limit), 0.0
        if projected != 0.0:
            alpha[i] = minimise_one(a, gradient, norms[i] + size / gamma, limit)
            step = alpha[i] - a
            add(values, indices, indptr[i], indptr[i + 1], constant, step * y[i], w)
        elif is_settled(a, gradient, above, below):
            n_active = put_aside(order, position, n_active)
            continue
        upper, lower = max(upper, projected), min(lower, projected)
        position += 1
        # The beta of the set follows at once: both go into one shift of the weights.
        change = max(-beta[g], -gamma * slack / size - step)
        beta[g] += change
        step += change
        if step != 0.0:
            shift(members, start, stop, label, signed, step / gamma, p, q)
    extra, lift = sweep_sets(privilege, label, beta, p, q)
    if cap == np.inf:
        lift = max(lift, worst)
    progress = go_on(progress, n_active, upper, lower, state)
    return progress, estimate + extra, plain, lift


@njit
def _exact_gap(problem, privilege, label, multipliers, weights):
    """The gap to a feasible primal point, and by how much to lift the constant for it.

    Where no correction at all is nearer to the optimum, the lift is NaN.
    """
    (values, indices, indptr, constant), _, y, cost, cap, _ = problem
    (group, members, bounds, n_labels, signed), gamma = privilege
    (alpha, beta), (w, p, q) = multipliers, weights
    slack, gradient = np.empty(beta.size), np.empty(alpha.size)
    gap, least, total = 0.0, 0.0, 0.0
    for g in range(beta.size):
        slack[g], _ = correction_of(
            members, bounds[g], bounds[g + 1], label, n_labels, signed, p, q
        )
        gap += beta[g] * slack[g]
        least = min(least, slack[g])
    for i in range(alpha.size):
        margin = y[i] * dot(values, indices, indptr[i], indptr[i + 1], constant, w)
        gradient[i] = margin - 1.0 + slack[group[i]]
        gap += alpha[i] * gradient[i]
        total += cost[i]
        if cap == np.inf:
            least = min(least, gradient[i])
    lift = -least  # (4)
    gap += lift * (total + gamma * (q[2] + 0.5 * lift))  # (5)
    if cap < np.inf:
        plain = 0.5 * gamma * squared_norm(p, q, label)
        for i in range(alpha.size):
            limit, miss = cap * cost[i], slack[group[i]] - gradient[i]
            gap += limit * max(0.0, -gradient[i] - lift)  # (5)
            plain += limit * max(0.0, miss) - alpha[i] * miss  # (6)
        if plain < gap:
            gap, lift = plain, np.nan
    # Slacks are known to rounding only, and so is their sum with the costs.
    return max(0.0, gap - ROUNDING * total), lift


@njit
def _dual_value(privilege, label, alpha, weights, start):
    """The dual objective (2)."""
    w, p, q = weights
    value = -0.5 * privilege.gamma * squared_norm(p, q, label)
    for k in range(w.size):
        value += 0.5 * (start[k] * start[k] - w[k] * w[k])
    for i in range(alpha.size):
        value += alpha[i]
    return value


@njit
def descend_privileged(problem, privilege, label, multipliers, weights, start, effort):
    """Minimise in place; the epochs used, the gap and the primal objective.

    On entry the weights follow from the multipliers; on return w does, and (p, q) is
    made feasible.
    """
    cap, gamma = problem.cap, privilege.gamma
    (alpha, beta), (w, p, q), (tol, max_epochs, seed) = multipliers, weights, effort
    progress = begin(alpha.size, seed)
    epoch, total, budget = 0, 0.0, 0
    for i in range(alpha.size):
        total += problem.cost[i]
    while epoch < max_epochs:
        epoch += 1
        progress, estimate, plain, lift = _sweep(
            problem, privilege, label, multipliers, weights, progress
        )
        estimate += lift * (total + gamma * (q[2] + 0.5 * lift))  # (5)
        if cap < np.inf:
            plain += 0.5 * gamma * squared_norm(p, q, label)  # (6)
            estimate = min(estimate, plain)
        dual = _dual_value(privilege, label, alpha, weights, start)
        if is_due(estimate, dual, progress.trust * tol, epoch):
            gap, lift = _exact_gap(problem, privilege, label, multipliers, weights)
            if is_small(gap, dual, tol):
                make_feasible(lift, p, q)
                return epoch, gap, dual + gap
            progress = take_back(progress)
            continue
        # Conjugate gradients may take as long as the epochs since they last did.
        budget += progress.n_active + beta.size
        if is_turn_of_gradients(epoch):
            active = progress.order[: progress.n_active]
            most_free = count_most_free(epoch, w.size, alpha.size)
            accelerate(
                problem,
                privilege,
                label,
                multipliers,
                weights,
                active,
                budget,
                most_free,
            )
            budget = 0
    gap, lift = _exact_gap(problem, privilege, label, multipliers, weights)
    dual = _dual_value(privilege, label, alpha, weights, start)
    make_feasible(lift, p, q)
    return epoch, gap, dual + gap
