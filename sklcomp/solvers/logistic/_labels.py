r"""Logistic regressions of many labels on the same rows, all at once.

Label j minimises, over its coefficients and a free intercept,

.. math:: \sum_i c_{ij} \left( \log(1 + e^{z_{ij}}) - y_{ij} z_{ij} \right)
          + \tfrac{\lambda_j}{2} \|w_j\|^2 , \qquad z_{ij} = o_{ij} + w_j^T x_i + b_j .

Two products of the rows with a matrix an iteration serve a block of labels.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sklcomp.solvers._jit import njit
from sklcomp.solvers.logistic._design import Design
from sklcomp.solvers.logistic._lbfgs import minimise_rows
from sklcomp.solvers.margin._per_label import map_labels

# Scores of so many labels stay in the cache of a core for some thousand rows; it is
# fixed so that results do not depend on the number of threads.
BLOCK = 64
# Of a product of so many factors in [1, 2] no digit is lost.
FACTORS = 500
# Share of the prior's variance that the mean curvature is taken for at least.
LEAST_CURVATURE = 0.05


class LogisticResult(NamedTuple):
    """Coefficients in the design's basis, one row a label, and how they were found."""

    solution: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


class LogisticRows:
    """The objective of a block of labels, for :func:`minimise_rows`.

    Targets are 1, 0, or -1 where a label is not known. ``factors`` are of shape
    (n_labels, 2), for absence and presence, or None.
    """

    def __init__(
        self,
        design: Design,
        targets: np.ndarray,
        penalty: np.ndarray,
        *,
        factors: np.ndarray | None = None,
        offset: np.ndarray | None = None,
        intercept_penalty: float = 0.0,
    ) -> None:
        self.design, self.targets = design, targets
        self.factors, self.offset = factors, offset
        weight = design.weight
        self.is_plain = factors is None and bool(
            (weight == 1.0).all() and targets.min(initial=0) >= 0
        )
        self.penalty = np.repeat(penalty[:, None], len(design.variance) + 1, axis=1)
        self.penalty[:, -1] = intercept_penalty
        self.preconditioner = np.ones_like(self.penalty)

    def start(self, W: np.ndarray) -> np.ndarray:
        """Scores at W; sets the preconditioner by the mean curvature there."""
        Z = self.scores(W)
        if self.offset is not None:
            Z += self.offset
        _, R = self.losses(Z)
        curvature = _mean_curvatures(R, self.targets, self.design.weight, self.factors)
        spread = curvature[:, None] * np.append(self.design.variance, 1.0)
        self.preconditioner = 1.0 / (spread + self.penalty + np.finfo(float).tiny)
        return Z

    def scores(self, W: np.ndarray) -> np.ndarray:
        """Scores without the offset, of shape (n_labels, n_rows)."""
        return self.design.scores(W)

    def gradients(self, R: np.ndarray) -> np.ndarray:
        """Transpose of ``scores``."""
        return self.design.gradients(R)

    def losses(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Losses of each label, and their derivatives by Z."""
        R = np.abs(Z)
        np.exp(np.negative(R, out=R), out=R)
        sums = np.empty(len(Z))
        if self.is_plain:
            _plain_losses(Z, self.targets, R, sums)
        else:
            factors = np.ones((len(Z), 2)) if self.factors is None else self.factors
            _weighted_losses(Z, self.targets, self.design.weight, factors, R, sums)
        return sums, R

    def take(self, kept: np.ndarray) -> "LogisticRows":
        """Some of the labels."""
        taken = object.__new__(LogisticRows)
        taken.__dict__.update(
            design=self.design,
            offset=None,
            is_plain=self.is_plain,
            targets=self.targets[kept],
            factors=None if self.factors is None else self.factors[kept],
            penalty=self.penalty[kept],
            preconditioner=self.preconditioner[kept],
        )
        return taken


def solve_logistic(
    design: Design,
    targets: np.ndarray,
    *,
    penalty: np.ndarray,
    factors: np.ndarray | None = None,
    offset: np.ndarray | None = None,
    intercept_penalty: float = 0.0,
    init: np.ndarray | None = None,
    tol: float = 1e-2,
    max_iter: int = 200,
    n_jobs: int | None = None,
    callback: Callable[[int], bool] | None = None,
) -> LogisticResult:
    """Solve all labels, in blocks.

    Parameters
    ----------
    design : Design
        The rows and their weights.
    targets : ndarray of shape (n_labels, n_rows), int8
        1, 0, or -1 where the label of a row is not known.
    penalty : ndarray of shape (n_labels,)
        Weight of half the squared norm.
    factors : ndarray of shape (n_labels, 2) or None
        Factors of the costs of rows without and with the label.
    offset : ndarray of shape (n_labels, n_rows) or None
        Known part of the scores.
    intercept_penalty : float
        Weight of half the square of the intercept.
    init : ndarray of shape (n_labels, n_coefs) or None
        Start; None is the constant model.
    tol, max_iter
        See :func:`minimise_rows`.
    n_jobs : int or None
        Threads over blocks; results do not depend on it.
    callback : callable or None
        Called with the number of each block solved; True stops.

    Returns
    -------
    result : LogisticResult
        Labels that were not solved before a stop keep their start.
    """
    n_labels = len(targets)
    W = _constant_models(design, targets, factors, offset) if init is None else init
    solution, n_iter = W.copy(), np.zeros(n_labels, dtype=np.int64)
    converged = np.ones(n_labels, dtype=bool)

    # A label that is constant here has no optimum, and keeps its start.
    solved = np.flatnonzero((targets == 0).any(axis=1) & (targets == 1).any(axis=1))

    def solve(block: int) -> None:
        part = solved[block * BLOCK : (block + 1) * BLOCK]
        problem = LogisticRows(
            design,
            targets[part],
            penalty[part],
            factors=None if factors is None else factors[part],
            offset=None if offset is None else offset[part],
            intercept_penalty=intercept_penalty,
        )
        solution[part], n_iter[part], converged[part] = minimise_rows(
            problem, W[part], tol=tol, max_iter=max_iter
        )

    n_kept = map_labels(solve, -(-len(solved) // BLOCK), n_jobs, callback)
    forgotten = solved[n_kept * BLOCK :]
    solution[forgotten], n_iter[forgotten] = W[forgotten], 0
    converged[forgotten] = True
    return LogisticResult(solution, n_iter, converged)


def losses_of(
    scores: np.ndarray,
    targets: np.ndarray,
    weight: np.ndarray,
    factors: np.ndarray | None = None,
) -> np.ndarray:
    """Sum of the logistic losses of each label, for scores of any source."""
    R = np.exp(-np.abs(scores))
    factors = np.ones((len(scores), 2)) if factors is None else factors
    sums = np.empty(len(scores))
    _weighted_losses(
        np.ascontiguousarray(scores),
        np.ascontiguousarray(targets),
        weight,
        factors,
        R,
        sums,
    )
    return sums


def _constant_models(
    design: Design, targets: np.ndarray, factors: Any, offset: Any
) -> np.ndarray:
    """Zero coefficients, and the intercepts of the best constants without offset."""
    W = np.zeros((len(targets), len(design.variance) + 1))
    if offset is None:
        absent = (targets == 0) @ design.weight
        present = (targets == 1) @ design.weight
        if factors is not None:
            absent, present = absent * factors[:, 0], present * factors[:, 1]
        # Half a row of each kind keeps a label finite that is constant here.
        W[:, -1] = np.log((present + 0.5) / (absent + 0.5))
    return W


def _mean_curvatures(
    R: np.ndarray, targets: np.ndarray, weight: np.ndarray, factors: Any
) -> np.ndarray:
    """Sum over the rows of p (1 - p), never far below that of the prior."""
    # Residuals are c (p - y): their sizes tell p (1 - p) on either side.
    cost = weight[None] * (targets >= 0)
    if factors is not None:
        cost = cost * np.where(targets > 0, factors[:, [1]], factors[:, [0]])
    size = np.abs(R)
    curvature = (size - size * size / np.where(cost > 0, cost, 1.0)).sum(axis=1)
    total = cost.sum(axis=1)
    prior = ((targets > 0) * cost).sum(axis=1) / np.where(total > 0, total, 1.0)
    return np.maximum(curvature, LEAST_CURVATURE * total * prior * (1.0 - prior))


@njit
def _plain_losses(Z, targets, R, sums):
    """Losses of rows of weight 1; R holds exp(-abs(Z)), and p - y at the end."""
    n_labels, n_rows = Z.shape
    for j in range(n_labels):
        total = 0.0
        for start in range(0, n_rows, FACTORS):
            # The sum of logarithms is that of a product: one for many rows.
            product = 1.0
            for i in range(start, min(start + FACTORS, n_rows)):
                decay, score, target = R[j, i], Z[j, i], float(targets[j, i])
                product *= 1.0 + decay
                total += max(score, 0.0) - target * score
                probability = 1.0 / (1.0 + decay)
                R[j, i] = (
                    probability if score >= 0.0 else decay * probability
                ) - target
            total += math.log(product)
        sums[j] = total


@njit
def _weighted_losses(Z, targets, weight, factors, R, sums):
    """The same for weighted rows and factors of classes; -1 costs nothing."""
    n_labels, n_rows = Z.shape
    for j in range(n_labels):
        total = 0.0
        for i in range(n_rows):
            if targets[j, i] < 0:
                R[j, i] = 0.0
                continue
            decay, score, target = R[j, i], Z[j, i], float(targets[j, i])
            cost = weight[i] * factors[j, targets[j, i]]
            total += cost * (max(score, 0.0) - target * score + math.log1p(decay))
            probability = 1.0 / (1.0 + decay)
            if score < 0.0:
                probability *= decay
            R[j, i] = cost * (probability - target)
        sums[j] = total
