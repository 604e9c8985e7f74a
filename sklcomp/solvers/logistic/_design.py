"""Design: rows that many linear problems share, and what preconditions all of them."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

# Above, an eigenbasis costs more than the iterations that it saves.
MAX_BASIS = 600


class Design(NamedTuple):
    """Rows X, centred without being made dense, in a basis of their features.

    Coefficients are rows of length ``len(variance) + 1``, the intercept of the centred
    features last. In the eigenbasis of the features the curvature of any label is
    nearly diagonal, whatever its penalty: one decomposition serves all.
    """

    X: Any
    weight: np.ndarray
    mean: np.ndarray
    basis: np.ndarray | None
    variance: np.ndarray

    @property
    def total(self) -> float:
        """Sum of the weights of the rows."""
        return float(self.weight.sum())

    def scores(self, W: np.ndarray) -> np.ndarray:
        """Scores of shape (n_problems, n_rows)."""
        coef, intercept = self.natural(W)
        Z = product(coef, self.X)
        Z += intercept[:, None]
        return Z

    def gradients(self, R: np.ndarray) -> np.ndarray:
        """Transpose of :meth:`scores`, of shape (n_problems, n_coefs)."""
        total = R.sum(axis=1)
        G = transposed_product(R, self.X) - np.outer(total, self.mean)
        return np.hstack([G if self.basis is None else G @ self.basis, total[:, None]])

    def natural(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of the features as given, and intercepts."""
        coef = W[:, :-1] if self.basis is None else W[:, :-1] @ self.basis.T
        return coef, W[:, -1] - coef @ self.mean


def prepare_design(X: Any, weight: np.ndarray | None = None) -> Design:
    """Mean, eigenbasis (or variances) of the features of the rows X."""
    weight = np.ones(X.shape[0]) if weight is None else weight
    total = weight.sum()
    mean = np.asarray(weight @ X, dtype=np.float64).ravel() / total
    if X.shape[1] > MAX_BASIS:
        squares = X.multiply(X) if sparse.issparse(X) else X * X
        second = np.asarray(weight @ squares, dtype=np.float64).ravel() / total
        return Design(X, weight, mean, None, np.maximum(second - mean**2, 0.0))
    weighted = (
        X.multiply(weight[:, None]) if sparse.issparse(X) else X * weight[:, None]
    )
    second = X.T @ weighted
    second = second.toarray() if sparse.issparse(second) else second
    covariance = second.astype(np.float64) / total - np.outer(mean, mean)
    variance, basis = np.linalg.eigh(covariance)
    return Design(X, weight, mean, basis, np.maximum(variance, 0.0))


def product(coef: np.ndarray, X: Any) -> np.ndarray:
    """``coef @ X.T`` in double precision, X as it is."""
    if sparse.issparse(X):
        columns = np.ascontiguousarray(coef.T, dtype=X.dtype)
        return np.ascontiguousarray((X @ columns).T, dtype=np.float64)
    return (coef.astype(X.dtype, copy=False) @ X.T).astype(np.float64, copy=False)


def transposed_product(R: np.ndarray, X: Any) -> np.ndarray:
    """``R @ X`` in double precision, X as it is."""
    if sparse.issparse(X):
        columns = np.ascontiguousarray(R.T, dtype=X.dtype)
        return np.ascontiguousarray((X.T @ columns).T, dtype=np.float64)
    return (R.astype(X.dtype, copy=False) @ X).astype(np.float64, copy=False)
