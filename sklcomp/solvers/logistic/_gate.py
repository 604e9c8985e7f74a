r"""The gate: which prototype a row belongs to, by multinomial logistic regression.

.. math:: \min \; \sum_i c_i \Bigl( \log \sum_k e^{z_{ik}} - z_{i g_i} \Bigr)
          + \tfrac{\lambda}{2} \sum_k \|w_k\|^2 , \qquad z_{ik} = w_k^T x_i + b_k .
"""

from typing import Any

import numpy as np

from sklcomp.solvers.logistic._design import Design
from sklcomp.solvers.logistic._labels import LogisticResult
from sklcomp.solvers.logistic._lbfgs import minimise_rows

# Largest and least share of a prototype that its curvature is taken for.
SHARES = 1e-4, 0.9


class SoftmaxRows:
    """The objective of all prototypes together, one problem, for the minimiser."""

    def __init__(
        self, design: Design, assigned: np.ndarray, n_prototypes: int, penalty: float
    ) -> None:
        self.design, self.assigned, self.n_prototypes = design, assigned, n_prototypes
        self.rows = np.arange(len(assigned))
        counts = np.bincount(assigned, weights=design.weight, minlength=n_prototypes)
        self.shares = counts / design.total
        ridge = np.full((n_prototypes, len(design.variance) + 1), penalty)
        ridge[:, -1] = 0.0
        self.penalty = ridge.reshape(1, -1)
        least, largest = SHARES
        curvature = np.maximum(self.shares, least)
        curvature = design.total * curvature * (1.0 - np.minimum(curvature, largest))
        spread = curvature[:, None] * np.append(design.variance, 1.0)
        self.preconditioner = 1.0 / (spread.reshape(1, -1) + self.penalty + 1e-300)

    def start(self, W: np.ndarray) -> np.ndarray:
        """Scores at W."""
        return self.scores(W)

    def scores(self, W: np.ndarray) -> np.ndarray:
        """Scores of shape (1, n_prototypes, n_rows)."""
        return self.design.scores(W.reshape(self.n_prototypes, -1))[None]

    def gradients(self, R: np.ndarray) -> np.ndarray:
        """Transpose of ``scores``."""
        return self.design.gradients(R[0]).reshape(1, -1)

    def losses(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cross-entropy, and its derivatives by Z."""
        largest = Z[0].max(axis=0)
        R = Z[0] - largest
        own = R[self.assigned, self.rows]
        np.exp(R, out=R)
        total = R.sum(axis=0)
        weight = self.design.weight
        loss = weight @ (np.log(total) - own)
        R *= weight / total
        R[self.assigned, self.rows] -= weight
        return np.array([loss]), R[None]

    def take(self, kept: np.ndarray) -> "SoftmaxRows":
        """All of it: there is one problem."""
        return self


def solve_softmax(
    design: Design,
    assigned: np.ndarray,
    n_prototypes: int,
    *,
    penalty: float,
    init: Any = None,
    tol: float = 1e-2,
    max_iter: int = 200,
) -> LogisticResult:
    """Solve the gate.

    Parameters
    ----------
    design : Design
        The rows and their weights.
    assigned : ndarray of shape (n_rows,), int
        Prototype of each row.
    n_prototypes : int
        Number of prototypes.
    penalty : float
        Weight of half the squared norm.
    init : ndarray of shape (n_prototypes, n_coefs) or None
        Start; None is the constant model.
    tol, max_iter
        See :func:`minimise_rows`.

    Returns
    -------
    result : LogisticResult
        Coefficients in the design's basis, one row a prototype.
    """
    problem = SoftmaxRows(design, assigned, n_prototypes, penalty)
    if init is None:
        init = np.zeros((n_prototypes, len(design.variance) + 1))
        init[:, -1] = np.log(np.maximum(problem.shares, 0.5 / design.total))
    W, n_iter, converged = minimise_rows(
        problem, init.reshape(1, -1), tol=tol, max_iter=max_iter
    )
    return LogisticResult(W.reshape(n_prototypes, -1), n_iter, converged)
