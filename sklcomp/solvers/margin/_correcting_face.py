r"""Conjugate gradients on the free multipliers of privileged labels.

Coordinate descent soon knows which multipliers lie on a bound, and is slow on the
others. With those fixed, the dual of ``_correcting`` is a quadratic
of the free ones. For a step d of them, which moves the weights to
:math:`w' = w + \sum_i d_i y_i x_i` and :math:`\tilde w' = \tilde w + \tfrac{1}{\gamma}
(\sum_i d_i \tilde y_i + \sum_g d_g \tilde y_g)`, its slopes at the beginning are

.. math:: y_i \langle w, x_i \rangle + s_i - 1 \quad \text{of a row,} \qquad
          s_g \quad \text{of a label set,}                                  \tag{1}

and its curvatures, which precondition it,

.. math:: \|x_i\|^2 + \|\tilde y_i\|^2 / \gamma , \qquad
          \|\tilde y_g\|^2 / \gamma .                                       \tag{2}

A step to its minimum may cross bounds, so it is clipped to them and searched along
until the dual objective rises:

.. math:: \sum_i d_i > \tfrac12 \big(\|w'\|^2 + \gamma \|\tilde w'\|^2
          - \|w\|^2 - \gamma \|\tilde w\|^2\big) .                          \tag{3}
"""

from typing import NamedTuple

import numpy as np

from sklcomp.solvers._jit import inlined, njit
from sklcomp.solvers.margin._descent import CG_TOL
from sklcomp.solvers.margin._labelsets import (
    Weights,
    correction_of,
    shift,
    squared_norm,
)
from sklcomp.solvers.margin._rows import add, dot


class Face(NamedTuple):
    """Rows and label sets whose multipliers are strictly within their bounds."""

    rows: np.ndarray
    sets: np.ndarray


@njit
def _apply(problem, privilege, label, face, vector, weights):
    """Add to the weights what the multipliers of a face change in them."""
    values, indices, indptr, constant = problem.rows
    (group, members, bounds, _, signed), gamma = privilege
    y, (w, p, q) = problem.y, weights
    # One vector holds the steps of all rows and behind them those of all sets.
    m = face.rows.size
    for place in range(vector.size):
        step = vector[place]
        if place < m:
            i = face.rows[place]
            g = group[i]
            start, stop = indptr[i], indptr[i + 1]
            add(values, indices, start, stop, constant, step * y[i], w)
        else:
            g = face.sets[place - m]
        step /= gamma
        shift(members, bounds[g], bounds[g + 1], label, signed, step, p, q)


@njit
def _slopes(problem, privilege, label, face, weights, out):
    """The slopes (1) of a face without their -1: linear in the weights."""
    values, indices, indptr, constant = problem.rows
    group, members, bounds, n_labels, signed = privilege.sets
    y, (w, p, q) = problem.y, weights
    m = face.rows.size
    for place in range(out.size):
        i = face.rows[place] if place < m else 0
        g = group[i] if place < m else face.sets[place - m]
        start, stop = bounds[g], bounds[g + 1]
        slack, _ = correction_of(members, start, stop, label, n_labels, signed, p, q)
        out[place] = slack
        if place < m:
            product = dot(values, indices, indptr[i], indptr[i + 1], constant, w)
            out[place] += y[i] * product


@njit
def _curvatures(problem, privilege, label, face, weights):
    """The curvatures (2) of the multipliers of a face."""
    (group, members, bounds, n_labels, signed), gamma = privilege
    _, p, q = weights
    m = face.rows.size
    diagonal = np.empty(m + face.sets.size)
    for place in range(diagonal.size):
        g = group[face.rows[place]] if place < m else face.sets[place - m]
        start, stop = bounds[g], bounds[g + 1]
        _, size = correction_of(members, start, stop, label, n_labels, signed, p, q)
        norm = problem.norms[face.rows[place]] if place < m else 0.0
        diagonal[place] = size / gamma + norm
    return diagonal


@njit
def _find_face_minimum(problem, privilege, label, weights, face, max_iter):
    """Preconditioned conjugate gradients on the face, without bounds."""
    m = face.rows.size
    diagonal = _curvatures(problem, privilege, label, face, weights)
    slope = np.empty(diagonal.size)
    _slopes(problem, privilege, label, face, weights, slope)
    residual = -slope  # (1)
    for place in range(m):
        residual[place] += 1.0
    direction, step = residual / diagonal, np.zeros(slope.size)
    norm = np.sum(residual * direction)
    start_norm, n_iter = norm, 0
    w, p, q = weights
    image = Weights(np.empty(w.size), np.empty(p.size), np.empty(q.size))
    while n_iter < max_iter and norm > CG_TOL * start_norm:
        n_iter += 1
        image.w[:], image.p[:], image.q[:] = 0.0, 0.0, 0.0
        # The matrix is never formed: its product with a direction is the slopes of the
        # weights that this direction alone would give.
        _apply(problem, privilege, label, face, direction, image)
        _slopes(problem, privilege, label, face, image, slope)
        curvature = np.sum(direction * slope)
        # Rows and sets that depend on each other leave directions without a minimum.
        if curvature <= 0.0:
            break
        length = norm / curvature
        old, norm = norm, 0.0
        for place in range(slope.size):
            step[place] += length * direction[place]
            residual[place] -= length * slope[place]
            norm += residual[place] ** 2 / diagonal[place]
        for place in range(slope.size):
            downhill = residual[place] / diagonal[place]
            direction[place] = downhill + norm / old * direction[place]
    return step, n_iter


@inlined()
def _first_bound(problem, multipliers, face, step):
    """Which share of the step leads to the first bound, at most 1."""
    alpha, beta = multipliers
    m, first = face.rows.size, 1.0
    for place in range(step.size):
        if place < m:
            i = face.rows[place]
            room = alpha[i]
            if step[place] > 0.0:
                room = problem.cap * problem.cost[i] - room
        else:
            room = beta[face.sets[place - m]]
        if step[place] < 0.0 or (place < m and step[place] > 0.0):
            first = min(first, room / abs(step[place]))
    return first


@njit
def _search_projected(problem, privilege, label, multipliers, weights, face, step):
    """Go along the step, clipped to the bounds, if the dual objective rises.

    Up to the first bound it does, whatever the step is.
    """
    cost, cap, gamma = problem.cost, problem.cap, privilege.gamma
    (alpha, beta), (w, p, q) = multipliers, weights
    m = face.rows.size
    change = np.empty(step.size)
    first = _first_bound(problem, multipliers, face, step)
    before = np.sum(w * w) + gamma * squared_norm(p, q, label)
    # What is clipped may lead uphill, but up to the first bound nothing is clipped.
    for scale in (1.0, 0.3, 0.09, 0.027, first):
        gain = 0.0
        for place in range(m):
            i = face.rows[place]
            new = min(max(alpha[i] + scale * step[place], 0.0), cap * cost[i])
            change[place] = new - alpha[i]
            gain += change[place]
        for place in range(m, step.size):
            change[place] = max(scale * step[place], -beta[face.sets[place - m]])
        trial = Weights(w.copy(), p.copy(), q.copy())
        _apply(problem, privilege, label, face, change, trial)
        after = np.sum(trial.w * trial.w)
        after += gamma * squared_norm(trial.p, trial.q, label)
        if gain > 0.5 * (after - before):  # (3)
            w[:], p[:], q[:] = trial.w, trial.p, trial.q
            # Rounding may have left a sum outside of its bounds.
            for place in range(m):
                i = face.rows[place]
                alpha[i] = min(max(alpha[i] + change[place], 0.0), cap * cost[i])
            for place in range(m, step.size):
                g = face.sets[place - m]
                beta[g] = max(beta[g] + change[place], 0.0)
            return


@njit
def accelerate(
    problem, privilege, label, multipliers, weights, active, budget, most_free
):
    """Conjugate gradients on the free multipliers, clipped to the bounds."""
    cost, cap, (alpha, beta) = problem.cost, problem.cap, multipliers
    is_free = np.zeros(active.size, dtype=np.bool_)
    while budget > 0:
        # Each step leaves some multipliers on their bounds, and a smaller face.
        for place in range(active.size):
            i = active[place]
            is_free[place] = alpha[i] > 0.0 and alpha[i] < cap * cost[i]
        face = Face(active[is_free], np.flatnonzero(beta > 0.0))
        size = face.rows.size + face.sets.size
        if size == 0 or face.rows.size > most_free:
            return
        max_iter = min(size, max(10, budget // size))
        step, n_iter = _find_face_minimum(
            problem, privilege, label, weights, face, max_iter
        )
        _search_projected(problem, privilege, label, multipliers, weights, face, step)
        budget -= size * max(n_iter, 1)
