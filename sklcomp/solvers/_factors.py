"""Factors of a coefficient matrix: where they start, and how they are balanced."""

from typing import Any

import numpy as np
from scipy import linalg, sparse
from sklearn.linear_model import Ridge

from sklcomp.solvers._rows import squared_norms


def initial_factors(
    X: Any, Y: sparse.csr_array, constant: float, rank: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Balanced factors of the best approximation, of this rank, of ridge regression."""
    n_samples, n_features = X.shape
    mean = np.asarray(Y.mean(axis=0)).ravel()
    penalty = 0.01 * float(np.mean(squared_norms(X))) or 1.0
    ridge = Ridge(penalty, solver="auto", tol=1e-2, random_state=seed, max_iter=100)
    if min(n_samples, n_features) > 3000:
        ridge.set_params(solver="sparse_cg")
    coef = np.empty((n_features + 1, Y.shape[1]))
    coef[:-1] = (
        2.0 * ridge.fit(X, Y.toarray().astype(X.dtype)).coef_.reshape(Y.shape[1], -1).T
    )
    coef[-1] = (2.0 * mean - 1.0) / constant if constant else 0.0
    left, values, right = linalg.svd(coef, full_matrices=False)
    root = np.sqrt(values[:rank])
    components, codes = np.zeros((n_features + 1, rank)), np.zeros((Y.shape[1], rank))
    components[:, : root.size] = left[:, :rank] * root
    codes[:, : root.size] = right[:rank].T * root
    return components, codes


def balance(components: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the same product with the least sum of squares: its trace norm."""
    q_left, r_left = linalg.qr(components, mode="economic")
    q_right, r_right = linalg.qr(codes, mode="economic")
    left, values, right = linalg.svd(r_left @ r_right.T, full_matrices=False)
    root = np.sqrt(values)
    rank = components.shape[1]
    found = np.zeros_like(components), np.zeros_like(codes)
    found[0][:, : root.size] = (q_left @ (left * root))[:, :rank]
    found[1][:, : root.size] = (q_right @ (right.T * root))[:, :rank]
    return found
