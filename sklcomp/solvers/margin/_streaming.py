r"""A new label as a combination of earlier ones, and the problem it starts from.

With centred features :math:`\phi_i` of the earlier labels of example i (signs or
scores) and the signs y of the new label, the self-representation is the ridge
regression

.. math:: \min_{s, s_0} \; \tfrac12 \sum_i \omega_i (y_i - \phi_i^T s - s_0)^2
          + \tfrac{\alpha}{2} \|s\|^2 .                                     \tag{1}

The coefficients W of the earlier labels then make an inherited hypothesis
:math:`W s`, which the problem of the new label takes as its prior.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg, sparse
from sklearn.linear_model import Ridge
from sklearn.utils.extmath import safe_sparse_dot

from sklcomp.solvers._jit import njit


@njit
def count_pairs(indptr, indices, weight, gram):
    """Add to gram the weight of the examples that have both labels of a pair.

    Only to its lower triangle, for indices that ascend within a row.
    """
    for i in range(weight.size):
        for k in range(indptr[i], indptr[i + 1]):
            for other in range(indptr[i], k + 1):
                gram[indices[k], indices[other]] += weight[i]


# Leaving examples out of the regression is spared where it costs more multiplications
# than that and there are so many examples a label that it changes next to nothing.
LOO_PRODUCTS, ROWS_PER_LABEL = 3e8, 10
# The smaller side of X up to which one factorisation serves all new labels.
LARGEST_FACTOR = 4000


class SelfRepresentation:
    """Ridge regression on the earlier labels, whose Cholesky factor grows with them.

    Parameters
    ----------
    features : csr_array or ndarray of shape (n_samples, n_labels)
        Indicator of the earlier labels, or their scores.
    weight : ndarray of shape (n_samples,)
        Weights of the examples.
    alpha : float
        Penalty, positive.
    n_new : int
        Labels to be appended.
    fit_intercept : bool
        Whether there is an intercept, which is not penalised.
    """

    def __init__(
        self,
        features: Any,
        weight: np.ndarray,
        alpha: float,
        n_new: int,
        fit_intercept: bool,
    ) -> None:
        self.weight, self.total = weight, weight.sum()
        self.alpha, self.fit_intercept = alpha, fit_intercept
        self.is_indicator = sparse.issparse(features)
        self.size = features.shape[1]
        self.appended: list[np.ndarray] = []
        self.features = features.T.tocsr() if self.is_indicator else features.T
        self.means = np.zeros(self.size + n_new)
        if fit_intercept:
            self.means[: self.size] = self.features @ weight / self.total
            if self.is_indicator:
                self.means[: self.size] = 2.0 * self.means[: self.size] - 1.0
        gram = self._gram(features)
        gram[np.diag_indices(self.size)] += alpha
        self.factor = np.zeros((self.size + n_new,) * 2)
        self.factor[: self.size, : self.size] = linalg.cholesky(
            gram, lower=True, overwrite_a=True, check_finite=False
        )

    def _gram(self, rows: Any) -> np.ndarray:
        """Centred inner products of the features; signs are 2 Y - 1, never formed.

        For an indicator, only the lower triangle.
        """
        means = self.means[: self.size]
        if not self.is_indicator:
            gram = (self.features * self.weight) @ self.features.T
        else:
            gram = np.zeros((self.size, self.size))
            count_pairs(rows.indptr, rows.indices, self.weight, gram)
            # Of signs 2 Y - 1: four times the pairs, less twice the examples of either.
            gram *= 4.0
            counts = self.features @ self.weight
            gram += self.total - 2.0 * (counts[:, None] + counts)
        return gram - self.total * np.outer(means, means)

    def _cross(self, target: np.ndarray) -> np.ndarray:
        """Inner products of the centred features with a centred target."""
        weighted = self.weight * target
        earlier = self.features @ weighted
        if self.is_indicator:
            earlier = 2.0 * earlier - weighted.sum()
        return np.array([*earlier, *(column @ weighted for column in self.appended)])

    def solve(self, target: np.ndarray) -> tuple[np.ndarray, float]:
        """Coefficients s of the earlier labels and the intercept."""
        mean = self.weight @ target / self.total if self.fit_intercept else 0.0
        factor = self.factor[: self.size, : self.size]
        # The normal equations of (1).
        coef = linalg.cho_solve((factor, True), self._cross(target - mean))
        return coef, mean - float(self.means[: self.size] @ coef)

    def append(self, feature: np.ndarray) -> None:
        """A learned label joins the earlier ones, in O(n_labels ** 2)."""
        m = self.size
        mean = self.weight @ feature / self.total if self.fit_intercept else 0.0
        centred = feature - mean
        row = linalg.solve_triangular(
            self.factor[:m, :m], self._cross(centred), lower=True
        )
        corner = self.weight @ centred**2 + self.alpha - row @ row
        # Never less than the penalty gives, whatever rounding leaves of a copied label.
        self.factor[m, :m], self.factor[m, m] = row, np.sqrt(max(corner, self.alpha))
        self.means[m] = mean
        self.appended.append(feature)
        self.size += 1

    def leave_one_out(
        self, target: np.ndarray, inherited: np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        """Inherited scores of which each ignores the target of its own example.

        ``inherited`` is scores @ s + s_0. Leaving example i out moves (s, s_0) by its
        residual, divided by one minus its leverage, along the solution for its own
        features.
        """
        features = self.features
        if self.is_indicator:
            features = 2.0 * features.toarray() - 1.0
        features = np.vstack([features, *self.appended])
        coef, intercept = self.solve(target)
        residual = target - coef @ features - intercept
        means = self.means[: self.size, None]
        factor = self.factor[: self.size, : self.size]
        own = linalg.solve_triangular(factor, features - means, lower=True)
        other = linalg.solve_triangular(factor, scores.T - means, lower=True)
        constant = 1.0 / self.total if self.fit_intercept else 0.0
        leverage = self.weight * (np.sum(own * own, axis=0) + constant)
        effect = self.weight * (np.sum(own * other, axis=0) + constant)
        return inherited - effect * residual / np.maximum(1.0 - leverage, 1e-12)


def is_worth_leaving_out(n_samples: int, n_labels: int) -> bool:
    """Whether inherited scores should ignore the target of their own example."""
    is_cheap = n_samples * n_labels**2 <= LOO_PRODUCTS
    return is_cheap or n_samples < ROWS_PER_LABEL * n_labels


def find_prior_scale(
    inherited: np.ndarray, target: np.ndarray, weight: np.ndarray, fit_intercept: bool
) -> tuple[float, float]:
    """Least-squares c in [0, 1] and b of c * inherited + b; both 0 if c would be."""
    centre_f = weight @ inherited / weight.sum() if fit_intercept else 0.0
    centre_y = weight @ target / weight.sum() if fit_intercept else 0.0
    deviation = inherited - centre_f
    variance = weight @ deviation**2
    # A prior that is the same for all examples says nothing but its mean.
    if variance <= np.finfo(np.float64).eps * (weight @ inherited**2):
        return 0.0, 0.0
    scale = float(np.clip((weight * deviation) @ (target - centre_y) / variance, 0, 1))
    return scale, float(centre_y - scale * centre_f) if scale > 0.0 else 0.0


def factorise_ridge(
    X: Any, cost: np.ndarray, constant: float
) -> Callable[[np.ndarray], np.ndarray]:
    r"""The map from residuals r to the minimiser of a sum of squared errors.

    It is :math:`\arg\min_v \tfrac12 \|v\|^2 + \tfrac12 \sum_i c_i (r_i - v^T x_i)^2`
    with ``constant`` as the last feature of x, through one Cholesky factor of the
    smaller side; beyond 4,000 rows and columns through scikit-learn's ``Ridge``.
    """
    n_samples, n_features = X.shape[0], X.shape[1] + 1
    stack = sparse.hstack if sparse.issparse(X) else np.hstack
    column = np.full((n_samples, 1), constant)
    design = stack([X, column]).astype(np.float64)
    # Costs join the rows, so that one symmetric factor serves all right sides.
    root = np.sqrt(cost)
    design = sparse.diags_array(root) @ design
    if min(n_samples, n_features) > LARGEST_FACTOR:
        model = Ridge(alpha=1.0, fit_intercept=False, tol=1e-6)
        return lambda residual: model.fit(design, root * residual).coef_
    design = design.tocsr() if sparse.issparse(design) else design
    is_tall = n_features <= n_samples
    left, right = (design.T, design) if is_tall else (design, design.T)
    gram = safe_sparse_dot(left, right, dense_output=True)
    gram[np.diag_indices(len(gram))] += 1.0
    factor = linalg.cho_factor(gram, lower=True, overwrite_a=True)
    if is_tall:
        return lambda residual: linalg.cho_solve(factor, design.T @ (root * residual))
    return lambda residual: design.T @ linalg.cho_solve(factor, root * residual)
