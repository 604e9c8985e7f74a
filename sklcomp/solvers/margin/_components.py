r"""Kernels of the low-rank model: descent over its components, and its objective.

For fixed codes :math:`W` the components D, of which a label j has the weights
:math:`D^T w_j`, solve

.. math:: \min_{D, \tilde W} \; \tfrac12 \|D - D_0\|^2 + \tfrac{\gamma}{2}
          \|\tilde W\|^2 + \sum_{ij} c_{ij} (s_{ij} + \rho \zeta_{ij})      \tag{1}

under the constraints of ``_correcting``, all labels at once. Pairs
of example i and label j take the place of rows, and

.. math:: D = D_0 + \sum_{ij} \alpha_{ij} y_{ij} w_j x_i^T .                \tag{2}

Slope and curvature in one multiplier are, with :math:`\tilde y_{ij}` the other labels,

.. math:: g_{ij} = y_{ij} \langle w_j, D x_i \rangle - 1 + s_{ij} , \qquad
          h_{ij} = \|w_j\|^2 \|x_i\|^2 + \|\tilde y_{ij}\|^2 / \gamma .     \tag{3}

The gap is (5) of the privileged labels, summed over all labels:

.. math:: \sum_{ij} \alpha_{ij} g_{ij} + \rho c_{ij} \max(0, -g_{ij})
          + \sum_{jg} \beta_{jg} s_{jg} + \sum_j \lambda_j \Big(\sum_i c_{ij}
          + \gamma (\tilde w_{j0} + \tfrac12 \lambda_j)\Big) ,              \tag{4}

without what a lift spares the margins: an upper bound. Once all corrections are
feasible by their lifts, a label's part of the objective is

.. math:: \tfrac{\gamma}{2} \|\tilde w_j\|^2 + \sum_i c_{ij} s_{ij}
          + \rho c_{ij} \max(0, -g_{ij}) .                                  \tag{5}
"""

from typing import NamedTuple

import numpy as np

from sklcomp.solvers._jit import inlined, njit
from sklcomp.solvers.margin._descent import (
    clip_gradient,
    find_thresholds,
    is_settled,
    is_small,
    minimise_one,
)
from sklcomp.solvers.margin._factors import project, spread
from sklcomp.solvers.margin._labelsets import (
    correction_of,
    shift,
    squared_norm,
    sweep_sets,
)
from sklcomp.solvers.margin._rows import draw


class Pending(NamedTuple):
    """Which pairs are put aside, and how many of each example are not; their order.

    Pairs are put aside at a bound with a gradient above or below these.
    """

    idle: np.ndarray
    n_busy: np.ndarray
    order: np.ndarray
    above: float
    below: float
    state: int


@inlined()
def _score(codes, j, image):
    """Score of one label for an example that is projected already."""
    score = 0.0
    for r in range(image.size):
        score += codes[j, r] * image[r]
    return score


@inlined()
def _go_on(pending, upper, lower, state):
    """What is pending after an epoch with these extreme projected gradients."""
    above, below = find_thresholds(upper, lower)
    idle, n_busy, order, _, _, _ = pending
    return Pending(idle, n_busy, order, above, below, state)


@inlined()
def _add_gap(estimate, a, gradient, limit):
    """The estimate with what one pair adds to (4)."""
    if gradient < 0.0 and limit < np.inf:
        estimate -= limit * gradient
    return estimate + a * gradient


@njit
def _sweep_components(problem, privilege, multipliers, weights, codes, pending):
    """One epoch over all pairs of example and label that are not idle.

    An example is projected once for all labels. What they add to D is a sum of codes
    until it is spread over the features, which costs as much as the projection. Its
    product with x, the code times <x, x>, joins the image at once: so a label sees what
    those before it did, though D itself waits. In single precision a multiplier may be
    rounded to beyond its limit, which counts as on it.
    """
    (values, indices, indptr, constant), norms, signs, cost, cap, _ = problem
    (group, members, bounds, n_labels, signed), gamma = privilege
    (alpha, beta), (components, p, q) = multipliers, weights
    idle, n_busy, order, above, below, state = pending
    has_sets, code_norms = bounds.size > 1, np.sum(codes**2, axis=1)
    image, way = np.empty(codes.shape[1]), np.empty(codes.shape[1])
    upper, lower, estimate, worst = -np.inf, np.inf, 0.0, np.zeros(n_labels)
    for position in range(order.size):
        state = draw(state, order, position, order.size)
        i = order[position]
        if n_busy[i] == 0:
            continue
        g = group[i]
        start, stop = (bounds[g], bounds[g + 1]) if has_sets else (0, 0)
        project(values, indices, indptr[i], indptr[i + 1], constant, components, image)
        way[:] = 0.0
        for j in range(n_labels):
            if idle[i, j]:
                continue
            slack, size = 0.0, 0.0
            if has_sets:
                slack, size = correction_of(
                    members, start, stop, j, n_labels, signed, p[j], q[j]
                )
            gradient = signs[i, j] * _score(codes, j, image) - 1.0 + slack  # (3)
            a, limit = np.float64(alpha[i, j]), cap * cost[i, j]
            worst[j] = max(worst[j], -gradient)
            estimate = _add_gap(estimate, a, gradient, limit)
            projected, step = clip_gradient(gradient, a == 0.0, a >= limit), 0.0
            if projected != 0.0:
                curvature = code_norms[j] * norms[i] + size / gamma
                alpha[i, j] = minimise_one(a, gradient, curvature, limit)
                step = alpha[i, j] - a
                for r in range(image.size):
                    change = step * signs[i, j] * codes[j, r]
                    way[r] += change
                    image[r] += norms[i] * change
            elif is_settled(a, gradient, above, below):
                idle[i, j], n_busy[i] = True, n_busy[i] - 1
                continue
            upper, lower = max(upper, projected), min(lower, projected)
            if has_sets:
                change = max(-beta[j, g], -gamma * slack / size - step)
                beta[j, g] += change
                change = (step + change) / gamma
                shift(members, start, stop, j, signed, change, p[j], q[j])
        if np.any(way):
            spread(values, indices, indptr[i], indptr[i + 1], constant, way, components)
    return _go_on(pending, upper, lower, state), estimate, worst


@njit
def descend_components(problem, privilege, multipliers, weights, codes, start, effort):
    """Minimise over D and all correcting functions in place; epochs, gap, objective.

    The gap is the estimate of the last epoch: of other moments and, where
    ``max_epochs`` ended it, without the pairs that were put aside.
    """
    cap, gamma, (alpha, beta) = problem.cap, privilege.gamma, multipliers
    (components, p, q), (tol, max_epochs, seed) = weights, effort
    n_samples, n_labels = alpha.shape
    # What a lift of the constant costs a label, beside the square of its weight.
    totals = np.sum(problem.cost, axis=0)
    idle = np.zeros((n_samples, n_labels), dtype=np.bool_)
    n_busy, order = np.full(n_samples, n_labels), np.arange(n_samples)
    pending = Pending(idle, n_busy, order, np.inf, -np.inf, seed)
    epoch, estimate, dual, is_whole = 0, np.inf, 0.0, True
    while epoch < max_epochs:
        epoch += 1
        pending, estimate, worst = _sweep_components(
            problem, privilege, multipliers, weights, codes, pending
        )
        dual = 0.5 * (np.sum(start**2) - np.sum(components**2))
        for j in range(n_labels):
            extra, lift = sweep_sets(privilege, j, beta[j], p[j], q[j])
            if cap == np.inf:
                lift = max(lift, worst[j])
            # (4), of which the sweep has summed what belongs to pairs.
            estimate += extra + lift * (totals[j] + gamma * (q[j, 2] + 0.5 * lift))
            dual -= 0.5 * gamma * squared_norm(p[j], q[j], j)
        dual += np.sum(alpha)
        if not is_small(estimate, dual, tol):
            is_whole = False
            continue
        # No gap but that of all pairs may end it: another epoch, with all of them.
        if is_whole:
            break
        idle[:], n_busy[:] = False, n_labels
        pending = Pending(idle, n_busy, order, np.inf, -np.inf, pending.state)
        is_whole = True
    return epoch, estimate, dual + estimate


@njit
def primal_values(problem, privilege, scores, p, q):
    """Objective (5) of every label, and the lift of the constants that it needs.

    A lift makes a correcting function feasible; for an infinite cap, also the margins.
    """
    signs, cost, cap, gamma = problem.y, problem.cost, problem.cap, privilege.gamma
    group, members, bounds, n_labels, signed = privilege.sets
    values, lift = np.empty(n_labels), np.empty(n_labels)
    # Without privilege there is no set, but every row reads the slack of set 0.
    slack = np.zeros(max(1, bounds.size - 1))
    for j in range(n_labels):
        least = 0.0
        for g in range(bounds.size - 1):
            slack[g], _ = correction_of(
                members, bounds[g], bounds[g + 1], j, n_labels, signed, p[j], q[j]
            )
            least = min(least, slack[g])
        # A finite cap lets margins be missed at a price; without one none may be.
        if cap == np.inf:
            for i in range(scores.shape[0]):
                gradient = signs[i, j] * scores[i, j] - 1.0 + slack[group[i]]
                least = min(least, gradient)
        lift[j] = -least  # (4) of the privileged labels
        value = gamma * (0.5 * squared_norm(p[j], q[j], j))
        value += gamma * lift[j] * (q[j, 2] + 0.5 * lift[j])
        for i in range(scores.shape[0]):
            s = slack[group[i]] + lift[j]
            value += cost[i, j] * s  # (5)
            if cap < np.inf:
                miss = 1.0 - s - signs[i, j] * scores[i, j]
                value += cap * cost[i, j] * max(0.0, miss)
        values[j] = value
    return values, lift
