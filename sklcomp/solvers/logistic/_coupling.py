"""The coupling of all labels: a logistic regression on what is expected of each.

Its features are the leading directions of all labels' scores, their probabilities, and
the probabilities that the expected prototypes give, each of rows not learned from.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit

from sklcomp.solvers.logistic._design import prepare_design
from sklcomp.solvers.logistic._labels import losses_of, solve_logistic
from sklcomp.solvers.logistic._out_of_fold import LARGEST_LOGIT

# Share of the prototypes in the score, before the coupling.
GATE_SHARE = 0.3
# Penalty of the intercept in units of that of the coefficients, whose features have a
# variance of 1 in each of three groups.
INTERCEPT_PENALTY = 3.0
ROWS = 4096
N_PASSES, OVERSAMPLING = 4, 10
MAX_ITER = 60


class Features(NamedTuple):
    """Centres and scales of the three groups, and their leading directions."""

    centre: np.ndarray
    scale: np.ndarray
    directions: np.ndarray

    def __call__(self, Z: np.ndarray, Q: np.ndarray) -> np.ndarray:
        """Features of shape (n_rows, rank) of scores and gate's probabilities."""
        found = np.empty((Z.shape[1], self.directions.shape[1]))
        for rows in _chunks(Z.shape[1]):
            found[rows] = self.standardised(Z[:, rows], Q[:, rows]).T @ self.directions
        return found

    def standardised(self, Z: np.ndarray, Q: np.ndarray) -> np.ndarray:
        """All three groups, of shape (3 n_labels, n_rows)."""
        stacked = np.concatenate([Z, expit(Z), Q])
        stacked -= self.centre[:, None]
        stacked /= self.scale[:, None]
        return stacked


class Coupling(NamedTuple):
    """What is added to the blend of scores and gate, and its penalty."""

    features: Features
    coef: np.ndarray
    intercept: np.ndarray
    penalty: float

    def __call__(self, Z: np.ndarray, Q: np.ndarray) -> np.ndarray:
        """Coupled scores of shape (n_labels, n_rows)."""
        added = self.coef @ self.features(Z, Q).T
        return blend(Z, Q) + added + self.intercept[:, None]


def blend(Z: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Mean of the labels' own scores and of those that the prototypes give."""
    given = np.clip(logit(Q), -LARGEST_LOGIT, LARGEST_LOGIT)
    return (1.0 - GATE_SHARE) * Z + GATE_SHARE * given


def learn_coupling(
    Z: np.ndarray,
    Q: np.ndarray,
    targets: np.ndarray,
    splits: list[tuple[np.ndarray, np.ndarray]],
    penalties: np.ndarray,
    *,
    rank: int,
    weight: np.ndarray,
    factors: np.ndarray | None = None,
    tol: float,
    rng: np.random.RandomState,
    n_jobs: int | None = None,
) -> tuple[Coupling, np.ndarray]:
    """Coupling of out-of-fold scores, and its own out-of-fold scores.

    Penalties fall, so that each is solved from the last.
    """
    features = leading_features(Z, Q, rank, weight, rng)
    F, offset = features(Z, Q), blend(Z, Q)
    best, choice, scores = np.inf, penalties[0], np.empty(0)
    folds = [
        (*split, prepare_design(F[split[0]], weight[split[0]])) for split in splits
    ]

    def solve(design: Any, penalty: float, rows: Any, init: Any = None) -> np.ndarray:
        return solve_logistic(
            design,
            targets[:, rows],
            penalty=np.full(len(targets), penalty),
            intercept_penalty=INTERCEPT_PENALTY * penalty,
            factors=factors,
            offset=offset[:, rows],
            init=init,
            tol=tol,
            max_iter=MAX_ITER,
            n_jobs=n_jobs,
        ).solution

    states: list[Any] = [None] * len(folds)
    for penalty in penalties:
        found = offset.copy()
        for f, (train, test, design) in enumerate(folds):
            states[f] = solve(design, penalty, train, states[f])
            found[:, test] += design._replace(X=F[test]).scores(states[f])
            # Of a label that was not met here nothing can be told by anyone.
            unmet = np.flatnonzero(~(targets[:, train] == 1).any(axis=1))
            found[np.ix_(unmet, test)] = Z[np.ix_(unmet, test)]
        loss = losses_of(found, targets, weight, factors).sum()
        if loss < best:
            best, choice, scores = loss, penalty, found
    design = prepare_design(F, weight)
    coef, intercept = design.natural(solve(design, choice, slice(None)))
    return Coupling(features, coef, intercept, float(choice)), scores


def leading_features(
    Z: np.ndarray, Q: np.ndarray, rank: int, weight: np.ndarray, rng: Any
) -> Features:
    """Groups of total variance 1, and their principal directions (subspace iteration).

    Nothing larger than ``ROWS`` rows of all three groups is ever made.
    """
    n_labels, n_rows = Z.shape
    centre, square = np.zeros(3 * n_labels), np.zeros(3 * n_labels)
    for rows in _chunks(n_rows):
        stacked = np.concatenate([Z[:, rows], expit(Z[:, rows]), Q[:, rows]])
        centre += stacked @ weight[rows]
        square += (stacked * stacked) @ weight[rows]
    centre /= weight.sum()
    variance = np.maximum(square / weight.sum() - centre**2, 0.0)
    group = np.sqrt(variance.reshape(3, n_labels).sum(axis=1))
    scale = np.repeat(np.where(group > 0, group, 1.0), n_labels)
    if rank >= 3 * n_labels:
        return Features(centre, scale, np.eye(3 * n_labels))
    width = min(rank + OVERSAMPLING, 3 * n_labels)
    Q_basis = rng.standard_normal((3 * n_labels, width))
    features = Features(centre, scale, Q_basis)
    for _ in range(N_PASSES):
        image = np.zeros_like(Q_basis)
        for rows in _chunks(n_rows):
            A = features.standardised(Z[:, rows], Q[:, rows])
            image += A @ (weight[rows, None] * (A.T @ Q_basis))
        Q_basis, small = np.linalg.qr(image)
    # The last image is Q_basis @ small: its leading left directions.
    left = np.linalg.svd(small)[0]
    return features._replace(directions=Q_basis @ left[:, :rank])


def _chunks(n_rows: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, n_rows, ROWS)]
