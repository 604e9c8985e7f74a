r"""Privileged labels and a low-rank coefficient matrix, by alternation.

With scores :math:`W D x`, codes :math:`W` of shape (n_labels, rank) and components
:math:`D` of shape (rank, n_features),

.. math:: \min_{W, D, \tilde W} \; \tfrac12 \|W\|^2 + \tfrac12 \|D\|^2
          + \tfrac{\gamma}{2} \|\tilde W\|^2 + \sum_{ij} c_{ij}
          (\langle \tilde w_j, \tilde y_{ij} \rangle + \rho \zeta_{ij})     \tag{1}

under the constraints of ``_correcting``. For D fixed these are
independent problems, one a label, in the projected examples; for W fixed one problem
couples all of them. Both are solved by dual coordinate descent with a proximal term,
:math:`\tfrac{\mu}{2}` times the squared distance to the last iterate. Dividing by
:math:`1 + \mu` turns it into a shifted start and smaller costs,

.. math:: \tfrac12 \|w\|^2 + \tfrac{\mu}{2} \|w - w'\|^2 + c \, \ell
          = (1 + \mu) \Big(\tfrac12 \big\|w - \tfrac{\mu}{1 + \mu} w'\big\|^2
          + \tfrac{c}{1 + \mu} \, \ell\Big) + \text{const} ,                \tag{2}

so multipliers and :math:`\gamma` are smaller by the same factor. After each pair the
factors are balanced, which lowers the objective for the same product:

.. math:: \min_{W D = M} \; \tfrac12 \|W\|^2 + \tfrac12 \|D\|^2 = \|M\|_* .  \tag{3}
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sklcomp.solvers.margin._components import descend_components, primal_values
from sklcomp.solvers.margin._correcting import descend_privileged
from sklcomp.solvers.margin._descent import Effort, Problem
from sklcomp.solvers.margin._factors import (
    balance,
    factorise,
    project_all,
    rebuild_components,
)
from sklcomp.solvers.margin._hinge import descend_hinge
from sklcomp.solvers.margin._labelsets import (
    Multipliers,
    Privilege,
    Weights,
    as_labelsets,
    rebuild_privileged,
    to_weights,
)
from sklcomp.solvers.margin._per_label import map_labels
from sklcomp.solvers.margin._privileged import (
    Model,
    PrivilegedResult,
    solve_privileged,
    weighted_costs,
)
from sklcomp.solvers.margin._rows import as_rows, squared_norms

# How well the model without a rank is solved that an alternation begins with.
START_TOL, START_EPOCHS = 5e-2, 100


@dataclass(frozen=True)
class LowRankResult(PrivilegedResult):
    """Factors instead of single solutions; ``solution`` is their product.

    Attributes
    ----------
    components : ndarray of shape (n_features + 1, rank)
        The shared projection, transposed.
    codes : ndarray of shape (n_labels, rank)
        Weights of the labels in the projection.
    loss_curve : list of float
        Objective after each iteration; never rises.
    """

    components: np.ndarray
    codes: np.ndarray
    loss_curve: list[float]


def _problem_of_all_labels(X, Y, model):
    """Signs and costs of all pairs of example and label."""
    # One byte a pair: with many labels there are more of these than numbers in X.
    signs = np.full(Y.shape, -1, dtype=np.int8)
    signs[Y.nonzero()] = 1
    cost = np.empty(Y.shape, dtype=X.dtype)
    for j in range(Y.shape[1]):
        factors = None if model.class_weight is None else model.class_weight[j]
        cost[:, j] = weighted_costs(signs[:, j], model.cost, factors)
    rows, norms = as_rows(X, model.constant), squared_norms(X, model.constant)
    return Problem(rows, norms, signs, cost, model.cap)


class _Alternation:
    """The state of one fit, and its two steps."""

    def __init__(self, X, Y, model, rank, seed, n_jobs, init):
        self.n_jobs, self.model = n_jobs, model
        self.privilege = Privilege(as_labelsets(Y, model.coding), model.gamma)
        self.problem = _problem_of_all_labels(X, Y, model)
        n_samples, n_labels = Y.shape
        self.p, self.q = np.zeros((n_labels, n_labels)), np.zeros((n_labels, 3))
        if init is None:
            # The best approximation of the model without a rank.
            full = solve_privileged(
                X,
                Y,
                **model._asdict(),
                tol=START_TOL,
                max_iter=START_EPOCHS,
                seeds=seed + np.arange(n_labels),
                n_jobs=n_jobs,
            )
            self.alpha = np.ascontiguousarray(full.dual[0].T)
            self.beta = full.dual[1]
            self.components, self.codes = factorise(full.solution.T, rank)
        else:
            alpha, self.beta, self.components, self.codes = init
            alpha = np.clip(alpha, 0, model.cap * self.problem.cost)
            self.alpha = alpha.astype(X.dtype)
        self.prox, self.last = 1.0, None
        self.projected = np.empty((n_samples, rank))
        self.score()

    def score(self):
        """Objective at the present factors; lifts the correcting functions."""
        project_all(self.problem.rows, self.components, self.projected)
        self.losses = self.evaluate(self.codes, self.p, self.q)
        self.objective = self.penalised(self.losses)

    def penalised(self, losses):
        """The objective (1): the losses with the norms of the present factors."""
        norms = np.sum(self.codes**2) + np.sum(self.components**2)
        return float(losses.sum() + 0.5 * norms)

    def evaluate(self, codes, p, q):
        """Losses a label, without the factors' norms; lifts q in place."""
        scores = self.projected @ codes.T
        losses, lift = primal_values(self.problem, self.privilege, scores, p, q)
        q[:, 2] += lift
        return losses

    def update_codes(self, effort):
        """The labels' own problems; each is taken back as far as its objective rose."""
        rows, norms = as_rows(self.projected), squared_norms(self.projected)
        scale = 1.0 + self.prox
        # The constant feature of these rows is zero, and so stays its weight.
        codes = np.zeros((len(self.codes), self.codes.shape[1] + 1))
        p, q = np.zeros_like(self.p), np.zeros_like(self.q)
        privilege = Privilege(self.privilege.sets, self.model.gamma / scale)

        def solve_label(j):
            # In double precision whatever X is, so that a kernel is compiled once.
            y = self.problem.y[:, j].astype(np.float64)
            c = self.problem.cost[:, j].astype(np.float64) / scale
            problem = Problem(rows, norms, y, c, self.model.cap)
            alpha = self.alpha[:, j].astype(np.float64) / scale
            start = np.append(self.codes[j] * (self.prox / scale), 0.0)  # (2)
            w = codes[j]
            w[:] = start
            w[:-1] += self.projected.T @ (alpha * y)
            # Every label has an order of its own, whatever thread it is solved by.
            turn = effort._replace(seed=effort.seed + j)
            if self.model.coding is None:
                descend_hinge(problem, alpha, w, start, turn)
            else:
                beta = (self.beta[j] / scale).astype(np.float64)
                rebuild_privileged(alpha, beta, c, privilege, j, p[j], q[j])
                multipliers, weights = Multipliers(alpha, beta), Weights(w, p[j], q[j])
                descend_privileged(
                    problem, privilege, j, multipliers, weights, start, turn
                )
                self.beta[j] = beta * scale
            self.alpha[:, j] = alpha * scale

        map_labels(solve_label, len(codes), self.n_jobs)
        return self._accept_codes(codes[:, :-1], p, q)

    def _accept_codes(self, codes, p, q):
        """Go towards the new codes of each label as far as its objective falls."""
        old = self.losses + 0.5 * np.sum(self.codes**2, axis=1)
        share, n_halved = np.ones(len(codes)), 0
        while True:
            # Written so that a share of one takes the new ones to their last digit.
            mixed = [
                new + (1.0 - share[:, None]) * (before - new)
                for new, before in ((codes, self.codes), (p, self.p), (q, self.q))
            ]
            losses = self.evaluate(*mixed)
            rose = losses + 0.5 * np.sum(mixed[0] ** 2, axis=1) > old
            if not rose.any() or n_halved == 5:
                break
            # The fifth try is the old codes, of which rounding alone can be the rise.
            n_halved += 1
            share[rose] *= 0.25 if n_halved < 5 else 0.0
        self.codes, self.p, self.q = mixed
        self.losses = losses
        return float(share.mean())

    def update_components(self, effort):
        """The shared problem, taken back as far as the objective rose."""
        scale = 1.0 + self.prox
        start = self.components * (self.prox / scale)  # (2)
        alpha, beta = self.alpha / scale, self.beta / scale
        privilege = Privilege(self.privilege.sets, self.model.gamma / scale)
        problem = self.problem._replace(cost=self.problem.cost / scale)
        components = start.copy()
        p, q = np.zeros_like(self.p), np.zeros_like(self.q)
        rebuild_components(problem.rows, problem.y, alpha, self.codes, components)
        if self.model.coding is not None:
            for j in range(len(beta)):
                a = alpha[:, j].astype(np.float64)
                b = beta[j].astype(np.float64)
                c = problem.cost[:, j].astype(np.float64)
                rebuild_privileged(a, b, c, privilege, j, p[j], q[j])
        multipliers, weights = Multipliers(alpha, beta), Weights(components, p, q)
        _, gap, objective = descend_components(
            problem, privilege, multipliers, weights, self.codes, start, effort
        )
        self.alpha, self.beta = alpha * scale, beta * scale
        self.last = weights, self.codes, start, scale, objective - gap
        self._accept_components(components, p, q)

    def gap(self):
        """Relative gap of the last problem for the components.

        The descent's own is an estimate, of moments and, where its epochs ran out, of
        some pairs; what is reported has to be a bound.
        """
        if self.last is None:
            return np.inf
        (components, p, q), codes, start, scale, dual = self.last
        privilege = Privilege(self.privilege.sets, self.model.gamma / scale)
        problem = self.problem._replace(cost=self.problem.cost / scale)
        projected = np.empty_like(self.projected)
        project_all(problem.rows, components, projected)
        losses, _ = primal_values(problem, privilege, projected @ codes.T, p, q)
        objective = float(losses.sum() + 0.5 * np.sum((components - start) ** 2))
        return (objective - dual) / max(objective, np.finfo(np.float64).tiny)

    def _accept_components(self, components, p, q):
        """Go towards the new components as far as the objective falls."""
        # The codes have moved since the objective was last computed.
        before = self.components, self.p, self.q
        old = self.objective = self.penalised(self.losses)
        share = 1.0
        while True:
            self.components, self.p, self.q = (
                new + (1.0 - share) * (former - new)
                for new, former in zip((components, p, q), before, strict=True)
            )
            self.score()
            if self.objective <= old or share == 0.0:
                break
            share = share * 0.25 if share > 0.01 else 0.0
        # A step that had to be shortened asks for a stronger proximal term.
        self.prox = max(2.0 * self.prox, 0.1) if share < 1.0 else 0.5 * self.prox
        self.components, self.codes = balance(self.components, self.codes)  # (3)
        self.score()

    def as_result(self, curve, n_iter, is_converged):
        """The factors of now, with how they were found."""
        return LowRankResult(
            solution=self.codes @ self.components.T,
            n_iter=np.array([n_iter]),
            gap=np.array([self.gap()]),
            converged=np.array([is_converged]),
            objective=np.array([curve[-1]]),
            privileged_coef=to_weights(self.p, self.q),
            privileged_intercept=self.q[:, 2].copy(),
            dual=(self.alpha, self.beta),
            components=self.components,
            codes=self.codes,
            loss_curve=curve,
        )


def solve_low_rank(
    X: Any,
    Y: sparse.csr_array,
    *,
    rank: int,
    cost: np.ndarray,
    class_weight: np.ndarray | None,
    gamma: float,
    slack_cap: float,
    coding: str | None,
    constant: float,
    prox: float | None,
    tol: float,
    inner_tol: float,
    max_iter: int,
    inner_max_iter: int,
    seed: int,
    n_jobs: int | None,
    init: tuple | None = None,
    callback: Callable[[int], bool] | None = None,
) -> LowRankResult:
    """Alternate between the codes of the labels and the shared components.

    Parameters
    ----------
    X, Y, cost, class_weight, gamma, slack_cap, coding, constant, n_jobs
        As in ``_privileged.solve_privileged``.
    rank : int
        Number of components.
    prox : float or None
        Weight of the proximal term; None adapts it: doubled when a step has to be
        shortened for the objective not to rise, halved otherwise.
    tol : float
        Stop when the objective falls by at most this share of itself.
    inner_tol : float
        Relative duality gap of the two problems of an iteration; the first iterations
        are content with more.
    max_iter, inner_max_iter : int
        Iterations, and epochs within each problem.
    seed : int
        Below 2**30.
    init : tuple (alpha, beta, components, codes), default=None
        State to go on from.
    callback : callable, default=None
        Called with the number of each iteration; True ends them.

    Returns
    -------
    result : LowRankResult
        ``solution`` has shape (n_labels, n_features + 1).
    """
    model = Model(cost, class_weight, gamma, slack_cap, coding, constant)
    state = _Alternation(X, Y, model, rank, seed, n_jobs, init)
    curve = [state.objective]
    fall, n_iter, is_converged = 1.0, 0, False
    while n_iter < max_iter and not is_converged:
        n_iter += 1
        if prox is not None:
            state.prox = prox
        # A problem that is solved far better than the objective falls is time lost.
        inner = min(0.1, max(inner_tol, 0.3 * fall))
        effort = Effort(inner, inner_max_iter, seed + n_iter)
        state.update_codes(effort)
        state.update_components(effort)
        curve.append(state.objective)
        fall = (curve[-2] - curve[-1]) / max(curve[-1], np.finfo(np.float64).tiny)
        # After rough problems a small fall says little.
        is_converged = fall <= tol and inner <= inner_tol
        if callback is not None and callback(n_iter):
            break
    return state.as_result(curve, n_iter, is_converged)
