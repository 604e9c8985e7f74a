"""Scores of rows that a model has not seen, and the penalties that they choose."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import logit, softmax

from sklcomp.solvers.logistic._design import Design, prepare_design
from sklcomp.solvers.logistic._gate import solve_softmax
from sklcomp.solvers.logistic._labels import BLOCK, losses_of, solve_logistic
from sklcomp.solvers.logistic._prototypes import label_shares
from sklcomp.solvers.margin._per_label import map_labels

# Scores beyond say no more than these: odds of 160,000 to one.
LARGEST_LOGIT = 12.0
LEAST_PROBABILITY = 1e-6
# Labels of which a loss tells little go along with the others: to the change of each
# loss so many times the mean change of all labels of the block is added.
POOLED = 1.0


class Fold(NamedTuple):
    """Rows to learn from, as a design, and rows to test on."""

    train: np.ndarray
    test: np.ndarray
    design: Design
    tested: Design


def prepare_folds(
    X: Any, weight: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]
) -> list[Fold]:
    """Designs of all folds; their rows are copies."""
    folds = []
    for train, test in splits:
        design = prepare_design(X[train], weight[train])
        folds.append(Fold(train, test, design, design._replace(X=X[test])))
    return folds


def clipped(Z: np.ndarray) -> np.ndarray:
    """Scores clipped in place to +-``LARGEST_LOGIT``."""
    return np.clip(Z, -LARGEST_LOGIT, LARGEST_LOGIT, out=Z)


def choose_penalties(
    folds: list[Fold],
    targets: np.ndarray,
    penalties: np.ndarray,
    *,
    weight: np.ndarray,
    factors: np.ndarray | None = None,
    tol: float,
    max_iter: int,
    n_jobs: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the best of the falling penalties for each label, and its scores.

    Each label goes down the path, every fold from its last solution, until its
    out-of-fold loss, with a share of all others', rises: what follows costs most and
    fits noise. The others count since the loss of a label of a few rows is noise too,
    and labels of unlike penalties are ranked badly.
    """
    n_labels = len(targets)
    choice = np.zeros(n_labels, dtype=np.int64)
    scores = np.empty(targets.shape)

    def choose(block: int) -> None:
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        part_factors = None if factors is None else factors[part]
        choice[part], scores[part] = _follow_path(
            folds, targets[part], penalties, weight, part_factors, tol, max_iter
        )

    map_labels(choose, -(-n_labels // BLOCK), n_jobs)
    return choice, scores


def _follow_path(
    folds: list[Fold],
    targets: np.ndarray,
    penalties: np.ndarray,
    weight: np.ndarray,
    factors: np.ndarray | None,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray]:
    n_labels = len(targets)
    last = np.full(n_labels, np.inf)
    choice, scores = np.zeros(n_labels, dtype=np.int64), np.empty(targets.shape)
    rising = np.zeros(n_labels, dtype=bool)
    states: list[Any] = [None] * len(folds)
    for k, penalty in enumerate(penalties):
        going = np.flatnonzero(~rising)
        if not going.size:
            break
        found = np.empty((len(going), targets.shape[1]))
        part = None if factors is None else factors[going]
        for f, fold in enumerate(folds):
            known = targets[np.ix_(going, fold.train)]
            init = None if states[f] is None else states[f][going]
            result = solve_logistic(
                fold.design,
                known,
                penalty=np.full(len(going), penalty),
                factors=part,
                init=init,
                tol=tol,
                max_iter=max_iter,
            )
            if states[f] is None:
                states[f] = np.empty((n_labels, result.solution.shape[1]))
            states[f][going] = result.solution
            found[:, fold.test] = clipped(fold.tested.scores(result.solution))
        loss = losses_of(found, targets[going], weight, part)
        if k == 0:
            falls = np.ones(n_labels, dtype=bool)
        else:
            change = loss - last[going]
            falls = change + POOLED * change.mean() < 0.0
        improved = going[falls]
        last[going] = loss
        choice[improved], scores[improved] = k, found[falls]
        rising[going[~falls]] = True
    return choice, scores


def choose_gate(
    folds: list[Fold],
    Y: sparse.csr_array,
    targets: np.ndarray,
    assigned: np.ndarray,
    penalties: np.ndarray,
    *,
    weight: np.ndarray,
    factors: np.ndarray | None = None,
    tol: float,
    max_iter: int,
) -> tuple[float, np.ndarray]:
    """Best of the falling penalties of the gate, and the probabilities of the labels.

    They are those of the prototypes that the gate expects, (n_labels, n_rows).
    """
    n_prototypes = int(assigned.max()) + 1
    best, choice = np.inf, penalties[0]
    probabilities: np.ndarray = np.empty((0, 0))
    states: list[Any] = [None] * len(folds)
    for penalty in penalties:
        found = np.empty(targets.shape)
        for f, fold in enumerate(folds):
            train = fold.train
            states[f] = solve_softmax(
                fold.design,
                assigned[train],
                n_prototypes,
                penalty=penalty,
                init=states[f],
                tol=tol,
                max_iter=max_iter,
            ).solution
            shares = label_shares(
                Y[train], assigned[train], n_prototypes, weight[train]
            )
            found[:, fold.test] = shares.T @ softmax(
                fold.tested.scores(states[f]), axis=0
            )
        np.clip(found, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY, out=found)
        loss = float(losses_of(logit(found), targets, weight, factors).sum())
        if loss >= best:
            break
        best, choice, probabilities = loss, penalty, found
    return float(choice), probabilities
