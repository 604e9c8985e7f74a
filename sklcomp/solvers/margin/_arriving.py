r"""Labels that arrive one after the other, each with a prior from those before it.

The streaming classifier calls it. With the self-representation s of a new label, (1) of
``_streaming``, and the coefficients W of the earlier ones, its problem is

.. math:: \min_w \; \tfrac12 \| w - c W s \|^2 + C \sum_i \ell(y_i \, w^T x_i) ,

(1) of ``_hinge``, or of squared errors a ridge regression.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.margin._hinge import solve_hinge
from sklcomp.solvers.margin._per_label import signs_of
from sklcomp.solvers.margin._streaming import (
    SelfRepresentation,
    factorise_ridge,
    find_prior_scale,
    is_worth_leaving_out,
)

# Scores beyond say no more about a label than these do.
LARGEST_SCORE = 2.0


@dataclass(frozen=True)
class LabelLearner:
    """The problem of a label, but for its target and its prior.

    Attributes
    ----------
    X : ndarray or csr_array of shape (n_samples, n_features)
        Checked examples.
    cost : ndarray of shape (n_samples,)
        C times the weights of the examples, positive.
    loss : {"hinge", "squared_hinge", "squared_error"}
        The losses; ``tol`` and ``max_iter`` are for the first two.
    fit_intercept : bool
        Whether there is a constant feature, of 1.
    tol : float
        Relative duality gap to stop at.
    max_iter : int
        Most epochs for a label.
    n_jobs : int or None
        Threads over the labels.
    rng : RandomState
        Order of the coordinates.
    """

    X: Any
    cost: np.ndarray
    loss: str
    fit_intercept: bool
    tol: float
    max_iter: int
    n_jobs: int | None
    rng: np.random.RandomState

    @cached_property
    def ridge(self) -> Callable[[np.ndarray], np.ndarray]:
        """One factor for all labels with squared errors."""
        return factorise_ridge(self.X, self.cost, float(self.fit_intercept))

    def solve(
        self,
        Y: sparse.csr_array,
        start: np.ndarray,
        callback: Callable[[int], bool] | None = None,
    ) -> SolverResult:
        """Coefficients of labels of which each has a prior."""
        if self.loss != "squared_error":
            return solve_hinge(
                self.X,
                Y,
                cost=self.cost,
                squared=self.loss == "squared_hinge",
                start=start,
                constant=float(self.fit_intercept),
                tol=self.tol,
                max_iter=self.max_iter,
                n_jobs=self.n_jobs,
                callback=callback,
                seeds=self.rng.randint(2**31 - 1, size=Y.shape[1]),
            )
        columns, W, n_labels = Y.tocsc(), start.copy(), Y.shape[1]
        for j in range(n_labels):
            prior = self.X @ start[j, :-1] + float(self.fit_intercept) * start[j, -1]
            W[j] += self.ridge(signs_of(columns, j) - prior)
            if callback is not None and callback(j):
                break
        ones = np.ones(n_labels, dtype=int)
        return SolverResult(W, ones, np.zeros(n_labels), ones == 1)


class Arrivals(NamedTuple):
    """Of each label that arrived: s, the scale c of its prior, and its solution."""

    representation: list[np.ndarray]
    scale: list[float]
    results: list[SolverResult]


def solve_arriving(
    learner: LabelLearner,
    Y: sparse.csr_array,
    past: sparse.csr_array | None,
    W: np.ndarray,
    weight: np.ndarray,
    *,
    alpha: float,
    prior_scale: Any,
    constant_scores: np.ndarray,
) -> Arrivals:
    """Represent and learn new labels, in the order of their columns.

    Parameters
    ----------
    learner : LabelLearner
        The problem of a label, with the examples.
    Y : csr_array of shape (n_samples, n_new)
        Which new labels an example has.
    past : csr_array of shape (n_samples, n_labels) or None
        Which earlier ones; None: their clipped scores take their place.
    W : ndarray of shape (n_labels, n_features + 1)
        Coefficients of the earlier labels, intercepts last.
    weight : ndarray of shape (n_samples,)
        Weights of the examples.
    alpha : float
        Penalty of the self-representation.
    prior_scale : float or "auto"
        c, or its least-squares choice.
    constant_scores : ndarray of shape (n_new,)
        Score of a label that all examples have, or none; 0 of one that varies.

    Returns
    -------
    arrivals : Arrivals
        One entry a label in each of its lists.
    """
    X, m, n_new = learner.X, len(W), Y.shape[1]
    columns = Y.tocsc()
    W = np.vstack([W, np.zeros((n_new, W.shape[1]))])
    scores: Any = None
    if past is None or (prior_scale == "auto" and is_worth_leaving_out(X.shape[0], m)):
        scores = X @ W[:m, :-1].T + W[:m, -1]
    earlier = SelfRepresentation(
        np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE) if past is None else past,
        weight,
        alpha,
        n_new,
        learner.fit_intercept,
    )
    arrivals = Arrivals([], [], [])
    for t in range(n_new):
        target = signs_of(columns, t)
        coef, prior, scale = np.zeros(m + t), np.zeros(W.shape[1]), 0.0
        if constant_scores[t]:
            W[m + t, -1] = constant_scores[t]
            done = np.ones(1, dtype=int), np.zeros(1), np.ones(1, dtype=bool)
            result = SolverResult(W[m + t : m + t + 1], *done)
        else:
            coef, prior, scale = _inherit(
                X, target, W[: m + t], earlier, scores, prior_scale
            )
            result = learner.solve(Y[:, [t]], prior[None])
            W[m + t] = result.solution[0]
        arrivals.representation.append(coef)
        arrivals.scale.append(scale)
        arrivals.results.append(result)
        own = X @ W[m + t, :-1] + W[m + t, -1]
        if scores is not None:
            scores = np.column_stack([scores, own])
        own = np.clip(own, -LARGEST_SCORE, LARGEST_SCORE)
        earlier.append(own if past is None else target)
    return arrivals


def _inherit(
    X: Any,
    target: np.ndarray,
    W: np.ndarray,
    earlier: SelfRepresentation,
    scores: np.ndarray | None,
    prior_scale: Any,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Representation of a label, the prior that follows, and its scale."""
    coef, intercept = earlier.solve(target)
    prior = coef @ W
    prior[-1] += intercept
    if not earlier.fit_intercept:
        # Constant labels have one all the same.
        prior[-1] = 0.0
        scores = None if scores is None else scores - W[:, -1]
    if prior_scale != "auto":
        return coef, prior_scale * prior, float(prior_scale)
    inherited = X @ prior[:-1] + prior[-1]
    if scores is not None:
        inherited = earlier.leave_one_out(target, inherited, scores)
    scale, shift = find_prior_scale(
        inherited, target, earlier.weight, earlier.fit_intercept
    )
    prior *= scale
    prior[-1] += shift
    return coef, prior, scale
