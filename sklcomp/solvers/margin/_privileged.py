"""Privileged labels without a rank: one convex problem a label.

The privileged classifier calls it. It is (1) of ``_correcting``, or without privileged
information (1) of ``_hinge``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.margin._correcting import descend_privileged
from sklcomp.solvers.margin._descent import LEAST_TOL, Effort, Problem
from sklcomp.solvers.margin._hinge import descend_hinge
from sklcomp.solvers.margin._labelsets import (
    Multipliers,
    Privilege,
    Weights,
    as_labelsets,
    rebuild_privileged,
    to_weights,
)
from sklcomp.solvers.margin._per_label import map_labels, signs_of
from sklcomp.solvers.margin._rows import as_rows, squared_norms

# Relative gap at which the hinge losses that a fit begins with are left.
HINGE_TOL = 3e-2


@dataclass(frozen=True)
class PrivilegedResult(SolverResult):
    """One solution a label, with its correcting function.

    Attributes
    ----------
    objective : ndarray of shape (n_labels,)
        Primal objective.
    privileged_coef : ndarray of shape (n_labels, n_labels)
        Weights of the other labels in the slack of each label; 0 on the diagonal.
    privileged_intercept : ndarray of shape (n_labels,)
        Weight of the constant.
    dual : tuple (alpha, beta)
        Multipliers of shapes (n_labels, n_samples) and (n_labels, n_label_sets).
    """

    objective: np.ndarray
    privileged_coef: np.ndarray
    privileged_intercept: np.ndarray
    dual: tuple[np.ndarray, np.ndarray]


class Model(NamedTuple):
    """The settings that define the problem, as :func:`solve_privileged` has them."""

    cost: np.ndarray
    class_weight: np.ndarray | None
    gamma: float
    slack_cap: float
    coding: str | None
    constant: float

    @property
    def cap(self) -> float:
        """Bound of a multiplier by its cost; that of the hinge loss is the cost."""
        return 1.0 if self.coding is None else self.slack_cap


def weighted_costs(
    signs: np.ndarray, cost: np.ndarray, class_weight: Any
) -> np.ndarray:
    """Costs of one label: times the weight of its absence or presence."""
    if class_weight is None:
        return cost
    return cost * np.where(signs > 0, class_weight[1], class_weight[0])


class _Labels:
    """The problems of all labels, and what is found of each."""

    def __init__(self, X, Y, model, init):
        n_samples, n_labels = Y.shape
        self.X, self.columns, self.model, self.init = X, Y.tocsc(), model, init
        self.rows = as_rows(X, model.constant)
        self.norms = squared_norms(X, model.constant)
        self.privilege = Privilege(as_labelsets(Y, model.coding), model.gamma)
        n_sets = len(self.privilege.sets.indptr) - 1
        # In the precision of X: nothing that is kept for a warm start is larger.
        self.alphas = np.zeros((n_labels, n_samples), dtype=X.dtype)
        self.betas = np.zeros((n_labels, n_sets), dtype=X.dtype)
        self.W = np.zeros((n_labels, X.shape[1] + 1))
        self.p, self.q = np.zeros((n_labels, n_labels)), np.zeros((n_labels, 3))
        self.found = np.zeros((n_labels, 3))

    def solve(self, j: int, effort: Effort) -> None:
        """Epochs, gap and objective of one label, from its multipliers or from zero."""
        y, model = signs_of(self.columns, j), self.model
        factors = None if model.class_weight is None else model.class_weight[j]
        c, w = weighted_costs(y, model.cost, factors), self.W[j]
        problem = Problem(self.rows, self.norms, y, c, model.cap)
        alpha, start = np.zeros(len(y)), np.zeros(len(w))
        if self.init is not None:
            # Costs may have fallen since these multipliers were found.
            alpha = np.clip(self.init[0][j], 0.0, model.cap * c).astype(np.float64)
            w[:-1] = self.X.T @ (alpha * y)
            w[-1] = model.constant * (alpha @ y)
        if model.coding is None:
            self.found[j] = descend_hinge(problem, alpha, w, start, effort)
        else:
            self._solve_privileged(j, problem, alpha, start, effort)
        self.alphas[j] = alpha

    def _solve_privileged(self, j, problem, alpha, start, effort):
        cap, c, privilege = problem.cap, problem.cost, self.privilege
        w, p, q, epochs = self.W[j], self.p[j], self.q[j], 0
        if self.init is not None:
            beta = self.init[1][j].astype(np.float64)
        else:
            if cap < np.inf:
                # The optimum, wherever the labels correct nothing.
                plain = problem._replace(cost=cap * c, cap=1.0)
                tol, max_iter = max(effort.tol, HINGE_TOL), effort.max_epochs - 1
                first = Effort(tol, max_iter, effort.seed)
                epochs, _, _ = descend_hinge(plain, alpha, w, start, first)
            n_sets = self.betas.shape[1]
            # Where they can, these leave a set without any correction.
            beta = np.bincount(privilege.sets.group, c - alpha, n_sets)
            beta = np.maximum(beta, 0.0)
        rebuild_privileged(alpha, beta, c, privilege, j, p, q)
        multipliers, weights = Multipliers(alpha, beta), Weights(w, p, q)
        effort = effort._replace(max_epochs=effort.max_epochs - epochs)
        self.found[j] = descend_privileged(
            problem, privilege, j, multipliers, weights, start, effort
        )
        # The epochs of the hinge loss count as well: they took as long.
        self.found[j, 0] += epochs
        self.betas[j] = beta

    def as_result(self, n_kept: int, tol: float) -> PrivilegedResult:
        """What was found; the labels from ``n_kept`` on are left at zero."""
        parts = self.W, self.p, self.q, self.found, self.alphas, self.betas
        for array in parts:
            array[n_kept:] = 0.0
        n_iter, gap, objective = self.found.T
        # An objective of zero has no gap, and nothing to divide by.
        gap = gap / np.maximum(objective, np.finfo(np.float64).tiny)
        return PrivilegedResult(
            solution=self.W,
            n_iter=n_iter.astype(int),
            gap=gap,
            converged=gap <= tol,
            objective=objective,
            privileged_coef=to_weights(self.p, self.q),
            privileged_intercept=self.q[:, 2],
            dual=(self.alphas, self.betas),
        )


def solve_privileged(
    X: Any,
    Y: sparse.csr_array,
    *,
    cost: np.ndarray,
    class_weight: np.ndarray | None,
    gamma: float,
    slack_cap: float,
    coding: str | None,
    constant: float,
    tol: float,
    max_iter: int,
    seeds: np.ndarray,
    n_jobs: int | None,
    init: tuple[np.ndarray, np.ndarray] | None = None,
    callback: Callable[[int], bool] | None = None,
) -> PrivilegedResult:
    """Full-rank model: one convex problem a label, each with its own seed.

    Parameters
    ----------
    X : ndarray or csr_array of shape (n_samples, n_features)
        Checked examples.
    Y : csr_array of shape (n_samples, n_labels)
        Which labels an example has; no column may be constant.
    cost : ndarray of shape (n_samples,)
        C times the weights of the examples, positive.
    class_weight : ndarray of shape (n_labels, 2), default=None
        Factors of the cost where a label is absent and where it is present.
    gamma, slack_cap, coding, constant, tol, max_iter
        As in ``_correcting``; ``coding`` None is the hinge loss.
        ``max_iter`` counts epochs.
    seeds : ndarray of shape (n_labels,), int
        One below 2**31 for each label, so that results do not depend on ``n_jobs``.
    n_jobs : int or None
        Threads.
    init : tuple (alpha, beta), default=None
        Multipliers to start from.
    callback : callable, default=None
        Called with the number of each solved label; True leaves the others at zero.

    Returns
    -------
    result : PrivilegedResult
        ``solution`` has shape (n_labels, n_features + 1).
    """
    tol = max(tol, LEAST_TOL)
    model = Model(cost, class_weight, gamma, slack_cap, coding, constant)
    labels = _Labels(X, Y, model, init)

    def solve_label(j: int) -> None:
        labels.solve(j, Effort(tol, max_iter, seeds[j]))

    n_kept = map_labels(solve_label, Y.shape[1], n_jobs, callback)
    return labels.as_result(n_kept, tol)
