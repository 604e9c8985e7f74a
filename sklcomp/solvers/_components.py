"""Kernels of the low-rank model: descent over its components, and its objective."""

from typing import NamedTuple

import numpy as np

from sklcomp.solvers._factors import project, spread
from sklcomp.solvers._hinge import SHRINKAGE, minimise_one
from sklcomp.solvers._jit import inlined, njit
from sklcomp.solvers._labelsets import correct, shift, squared_norm, sweep_sets
from sklcomp.solvers._rows import Rows, draw


class Pairs(NamedTuple):
    """What is given of the pairs of example and label.

    ``norms`` are those of the rows, squared; ``signs`` and ``cost`` have shape
    (n_samples, n_labels). Multipliers lie between 0 and ``cap * cost``.
    """

    rows: Rows
    norms: np.ndarray
    signs: np.ndarray
    cost: np.ndarray
    cap: float
    gamma: float


class Duals(NamedTuple):
    """Multipliers and what follows from them: D and the correcting functions."""

    alpha: np.ndarray
    beta: np.ndarray
    components: np.ndarray
    p: np.ndarray
    q: np.ndarray


class Pending(NamedTuple):
    """Which pairs are put aside, and how many of each example are not; the order.

    Pairs are put aside at a bound with a gradient above or below these.
    """

    idle: np.ndarray
    n_busy: np.ndarray
    order: np.ndarray
    above: float
    below: float


@inlined()
def _score(codes, j, image):
    score = 0.0
    for r in range(image.size):
        score += codes[j, r] * image[r]
    return score


@inlined()
def _clip_gradient(a, gradient, limit, estimate):
    """The gradient as far as the bounds let a move, and the gap with this pair's."""
    if gradient < 0.0 and limit < np.inf:
        estimate -= limit * gradient
    estimate += a * gradient
    if a == 0.0:
        return min(gradient, 0.0), estimate
    if a >= limit:
        return max(gradient, 0.0), estimate
    return gradient, estimate


@njit
def _sweep_components(pairs, sets, duals, codes, pending, state):
    """One epoch over all pairs of example and label that are not idle."""
    (values, indices, indptr, constant), norms, signs, cost, cap, gamma = pairs
    group, members, bounds, n_labels, signed = sets
    alpha, beta, components, p, q = duals
    idle, n_busy, order, above, below = pending
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
            slack, size, count = 0.0, 0.0, 0
            if has_sets:
                slack, size, count = correct(
                    members, start, stop, j, n_labels, signed, p[j], q[j]
                )
            gradient = signs[i, j] * _score(codes, j, image) - 1.0 + slack
            a, limit = np.float64(alpha[i, j]), cap * cost[i, j]
            worst[j] = max(worst[j], -gradient)
            projected, estimate = _clip_gradient(a, gradient, limit, estimate)
            step = 0.0
            if projected != 0.0:
                curvature = code_norms[j] * norms[i] + size / gamma
                alpha[i, j] = minimise_one(a, gradient, curvature, limit)
                step = alpha[i, j] - a
                for r in range(image.size):
                    change = step * signs[i, j] * codes[j, r]
                    way[r] += change
                    image[r] += norms[i] * change
            elif (a == 0.0 and gradient > above) or (a > 0.0 and gradient < below):
                idle[i, j], n_busy[i] = True, n_busy[i] - 1
                continue
            upper, lower = max(upper, projected), min(lower, projected)
            if has_sets:
                change = max(-beta[j, g], -gamma * slack / size - step)
                beta[j, g] += change
                change = (step + change) / gamma
                shift(members, start, stop, j, count, signed, change, p[j], q[j])
        if np.any(way):
            spread(values, indices, indptr[i], indptr[i + 1], constant, way, components)
    return upper, lower, estimate, worst, state


@njit
def descend_components(pairs, sets, duals, codes, start, tol, max_epochs, seed):
    """Minimise over D and all correcting functions in place; epochs, gap, objective.

    The gap is the estimate of the last epoch, which counted all pairs.
    """
    cap, gamma = pairs.cap, pairs.gamma
    alpha, beta, components, p, q = duals
    n_samples, n_labels = alpha.shape
    totals = np.sum(pairs.cost, axis=0)
    idle = np.zeros((n_samples, n_labels), dtype=np.bool_)
    n_busy = np.full(n_samples, n_labels)
    order = np.arange(n_samples)
    above, below, state, epoch = np.inf, -np.inf, seed, 0
    estimate, dual, is_whole = np.inf, 0.0, True
    while epoch < max_epochs:
        epoch += 1
        upper, lower, estimate, worst, state = _sweep_components(
            pairs, sets, duals, codes, Pending(idle, n_busy, order, above, below), state
        )
        dual = 0.5 * (np.sum(start**2) - np.sum(components**2))
        for j in range(n_labels):
            extra, lift = sweep_sets(gamma, sets, j, beta[j], p[j], q[j])
            if cap == np.inf:
                lift = max(lift, worst[j])
            estimate += extra + lift * (totals[j] + gamma * (q[j, 2] + 0.5 * lift))
            dual -= 0.5 * gamma * squared_norm(p[j], q[j], j)
        dual += np.sum(alpha)
        if estimate <= tol * (dual + estimate):
            if is_whole:
                break
            idle[:], n_busy[:] = False, n_labels
            above, below, is_whole = np.inf, -np.inf, True
            continue
        above = SHRINKAGE * upper if upper > 0.0 else np.inf
        below = SHRINKAGE * lower if lower < 0.0 else -np.inf
        is_whole = False
    return epoch, estimate, dual + estimate


@njit
def primal_values(signs, cost, cap, gamma, sets, margins, p, q, lift):
    """Objective of every label without the norms of the factors.

    ``margins`` are scores; ``lift`` receives what makes each correcting function
    feasible (for an infinite cap, also the margins).
    """
    group, members, bounds, n_labels, signed = sets
    values = np.empty(n_labels)
    slack = np.zeros(max(1, bounds.size - 1))
    for j in range(n_labels):
        least = 0.0
        for g in range(bounds.size - 1):
            slack[g], _, _ = correct(
                members, bounds[g], bounds[g + 1], j, n_labels, signed, p[j], q[j]
            )
            least = min(least, slack[g])
        if cap == np.inf:
            for i in range(margins.shape[0]):
                gradient = signs[i, j] * margins[i, j] - 1.0 + slack[group[i]]
                least = min(least, gradient)
        lift[j] = -least
        value = gamma * (0.5 * squared_norm(p[j], q[j], j))
        value += gamma * lift[j] * (q[j, 2] + 0.5 * lift[j])
        for i in range(margins.shape[0]):
            s = slack[group[i]] + lift[j]
            value += cost[i, j] * s
            if cap < np.inf:
                miss = 1.0 - s - signs[i, j] * margins[i, j]
                value += cap * cost[i, j] * max(0.0, miss)
        values[j] = value
    return values
