"""Logistic regressions with label sets as teachers: the whole recipe.

What the estimator of the same name calls; each step has a module of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sklcomp.solvers.logistic._coupling import Coupling, learn_coupling
from sklcomp.solvers.logistic._design import Design, prepare_design
from sklcomp.solvers.logistic._gate import solve_softmax
from sklcomp.solvers.logistic._labels import LogisticResult, solve_logistic
from sklcomp.solvers.logistic._out_of_fold import (
    choose_gate,
    choose_penalties,
    prepare_folds,
)
from sklcomp.solvers.logistic._prototypes import assign_prototypes, label_shares

# Least and greatest C of the grid, times the mean squared norm of centred rows: the
# scale of the features does not matter then.
COSTS = 0.1, 300.0


class Gate(NamedTuple):
    """Which prototype a row is expected to belong to, and the labels of each."""

    coef: np.ndarray
    intercept: np.ndarray
    shares: np.ndarray
    penalty: float


class PrivilegedLogisticResult(NamedTuple):
    """Each label's own regression, gate and coupling, and scores of unseen rows."""

    coef: np.ndarray
    intercept: np.ndarray
    penalties: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray
    gate: Gate | None
    coupling: Coupling | None
    own_scores: np.ndarray | None
    coupled_scores: np.ndarray | None


def costs_for(design: Design, n_costs: int) -> np.ndarray:
    """Rising grid of C for features of this scale."""
    spread = design.variance.sum()
    grid = np.geomspace(*COSTS, n_costs) if n_costs > 1 else np.sqrt([np.prod(COSTS)])
    return grid / (spread if spread > 0 else 1.0)


def solve_privileged_logistic(
    X: Any,
    Y: sparse.csr_array,
    *,
    costs: np.ndarray | int,
    splits: list[tuple[np.ndarray, np.ndarray]],
    n_prototypes: int,
    rank: int,
    couplings: np.ndarray,
    weight: np.ndarray,
    factors: np.ndarray | None,
    tol: float,
    max_iter: int,
    rng: np.random.RandomState,
    n_jobs: int | None = None,
    callback: Callable[[int], bool] | None = None,
) -> PrivilegedLogisticResult:
    """Learn each label, what the label sets say of it, and a coupling of both.

    Parameters
    ----------
    X : {ndarray, CSR} of shape (n_rows, n_features)
        Rows.
    Y : CSR of shape (n_rows, n_labels)
        Ones where a row has a label; each label varies.
    costs : ndarray or int
        Rising values of C, or their number.
    splits : list of (train, test)
        Folds that test each row once; empty where nothing is to be chosen.
    n_prototypes, rank : int
        Most prototypes, and directions of the coupling.
    couplings : ndarray
        Falling penalties of the coupling; empty for each label's own regression.
    weight : ndarray of shape (n_rows,)
        Positive weights.
    factors : ndarray of shape (n_labels, 2) or None
        Factors of the costs of absence and presence.
    tol, max_iter
        See :func:`minimise_rows`.
    rng : RandomState
        Clusters of the label sets, and start of the directions.
    n_jobs : int or None
        Threads over labels.
    callback : callable or None
        Called with 0, 1 and 2 once penalties, gate and coupling are chosen; True goes
        straight to each label's own regression.

    Returns
    -------
    result : PrivilegedLogisticResult
        With ``gate`` and ``coupling`` None if not asked for, or not reached by a stop.
    """
    common: dict[str, Any] = {"weight": weight, "factors": factors, "tol": tol}
    is_stopped = callback or (lambda step: False)
    targets = np.ascontiguousarray(Y.T.toarray(), dtype=np.int8)
    design = prepare_design(X, weight)
    penalties = 1.0 / (costs_for(design, costs) if isinstance(costs, int) else costs)
    folds = prepare_folds(X, weight, splits)
    choice, own_scores, coupled_scores = np.zeros(len(targets), np.int64), None, None
    if folds:
        choice, own_scores = choose_penalties(
            folds, targets, penalties, max_iter=max_iter, n_jobs=n_jobs, **common
        )
    gate = coupling = None
    if not is_stopped(0) and len(couplings) and own_scores is not None:
        assigned = assign_prototypes(Y, n_prototypes, weight, rng)
        labels = Y, targets, assigned
        strength, given = choose_gate(
            folds, *labels, some_of(penalties), max_iter=max_iter, **common
        )
        if not is_stopped(1):
            scores = own_scores, given, targets
            coupling, coupled_scores = learn_coupling(
                *scores, splits, couplings, rank=rank, rng=rng, n_jobs=n_jobs, **common
            )
            gate = _learn_gate(design, Y, assigned, strength, tol, max_iter)
            is_stopped(2)
    result = solve_logistic(
        design,
        targets,
        penalty=penalties[choice],
        factors=factors,
        tol=tol,
        max_iter=max_iter,
        n_jobs=n_jobs,
    )
    own = *design.natural(result.solution), penalties[choice]
    how = result.n_iter, result.converged
    return PrivilegedLogisticResult(
        *own, *how, gate, coupling, own_scores, coupled_scores
    )


def some_of(penalties: np.ndarray) -> np.ndarray:
    """Every second penalty, for the gate: it costs as much as many labels."""
    return penalties[1::2] if len(penalties) > 2 else penalties


def _learn_gate(
    design: Design,
    Y: sparse.csr_array,
    assigned: np.ndarray,
    penalty: float,
    tol: float,
    max_iter: int,
) -> Gate:
    """The gate of all rows, in the features as given."""
    n_prototypes = int(assigned.max()) + 1
    result: LogisticResult = solve_softmax(
        design, assigned, n_prototypes, penalty=penalty, tol=tol, max_iter=max_iter
    )
    coef, intercept = design.natural(result.solution)
    shares = label_shares(Y, assigned, n_prototypes, design.weight)
    return Gate(coef, intercept, shares, penalty)
