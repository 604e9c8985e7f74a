"""``frechet_distance``: the distance of two sets of features, taken as Gaussians."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from sklcomp.utils._sklearn import validate_params
from sklcomp.utils._validation import as_float_array, refuse_masked


@refuse_masked
@validate_params(
    {"X": ["array-like"], "Y": ["array-like"], "features": [callable, None]},
    prefer_skip_nested_validation=True,
)
def frechet_distance(
    X: Any, Y: Any, *, features: Callable[[Any], Any] | None = None
) -> float:
    r"""Squared Fréchet distance of Gaussians fitted to two sets; lower is better.

    .. math:: \|\mu_X - \mu_Y\|^2 + \mathrm{tr}\bigl(S_X + S_Y - 2 (S_X S_Y)^{1/2}
        \bigr)

    with the means :math:`\mu` and the sample covariances S (divided by n - 1) of the
    rows [1]_. It is the squared 2-Wasserstein distance of the two Gaussians, and 0 for
    sets that agree in mean and covariance, whatever else they differ in.

    It is not the Fréchet inception distance (FID), which is this number on features of
    one fixed Inception network [2]_; values on other features, or on pixels, compare
    with each other only.

    Parameters
    ----------
    X, Y : array-like of shape (n_samples, ...)
        Examples of either set, or their features; the numbers of examples may differ.
    features : callable, default=None
        Called with X and with Y as they are, it returns their features, an array-like
        of shape (n_samples, n_features), such as the layer before the last of a
        network. None takes the examples themselves, flattened.

    Returns
    -------
    distance : float
        At least 0, in squared units of the features.

    Raises
    ------
    ValueError
        If a set has fewer than 2 examples or no features, the numbers of features
        differ, a value is not finite, or ``features`` returns no matrix.

    Notes
    -----
    Two samples of one distribution have a distance above 0, which falls as they grow;
    so compare values of equal numbers of examples only.

    For centred rows A and B, divided by the roots of n - 1, the last trace is the sum
    of the singular values of :math:`A B^T`. Its singular vectors give the orthogonal
    U that makes :math:`\|A - U B\|^2` smallest, which is the part of the distance that
    the covariances have. Computed as this sum of squares it is never negative, and a
    covariance without full rank, as from fewer examples than features, needs no care.

    References
    ----------
    .. [1] D. C. Dowson and B. V. Landau, "The Fréchet Distance between Multivariate
       Normal Distributions", Journal of Multivariate Analysis 12, 1982.
    .. [2] M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler and S. Hochreiter, "GANs
       Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
       arXiv:1706.08500, 2017.

    Examples
    --------
    The means are 1 and 6, the variances 2 and 18, so that it is
    :math:`(1 - 6)^2 + (\sqrt 2 - \sqrt{18})^2 = 25 + 8`:

    >>> from sklcomp.metrics import frechet_distance
    >>> round(frechet_distance([[0], [2]], [[3], [9]]), 6)
    33.0
    """
    x = _check_features(X, "X", features)
    y = _check_features(Y, "Y", features)
    if x.shape[1] != y.shape[1]:
        msg = (
            f"X has {x.shape[1]} features and Y {y.shape[1]}; they must be equal, such "
            "as images of one size or features of one layer."
        )
        raise ValueError(msg)
    # An infinite square would stop the decomposition; this leaves it to the result.
    largest = float(max(np.abs(x).max(), np.abs(y).max())) or 1.0
    x, y = x / largest, y / largest
    gap = x.mean(axis=0) - y.mean(axis=0)
    distance = float(gap @ gap) + _covariance_distance(_root(x), _root(y))
    return distance * largest * largest


def _check_features(values: Any, name: str, features: Any) -> np.ndarray:
    """Finite float64 matrix with a row for each example."""
    if features is not None:
        values, name = features(values), f"features({name})"
    array = as_float_array(values, name).astype(np.float64, copy=False)
    if features is not None and array.ndim != 2:
        msg = (
            f"{name} has shape {array.shape}; expected 2 axes, (n_samples, "
            "n_features). Flatten or pool what features returns."
        )
        raise ValueError(msg)
    n_samples = len(array) if array.ndim else 0
    if n_samples < 2:
        msg = (
            f"{name} has shape {array.shape}; a covariance needs at least 2 examples "
            "along the first axis. Pass more."
        )
        raise ValueError(msg)
    array = array.reshape(n_samples, prod(array.shape[1:]))
    if array.shape[1] == 0:
        msg = f"{name} has 0 features; pass examples with at least 1."
        raise ValueError(msg)
    n_odd = array.size - np.count_nonzero(np.isfinite(array))
    if n_odd:
        msg = (
            f"{name} contains NaN or infinity in {n_odd} of {array.size} values; all "
            "must be finite, so fill or drop them before."
        )
        raise ValueError(msg)
    return array


def _root(x: np.ndarray) -> Any:
    """A with A^T A = covariance of the rows, of min(n_samples, n_features) rows."""
    root = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return np.linalg.qr(root, mode="r") if len(root) > root.shape[1] else root


def _covariance_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest squared distance of a from a rotated b; one is filled up with zeros."""
    u, _, vt = np.linalg.svd(a @ b.T, full_matrices=False)
    a_turned, b_turned = u.T @ a, vt @ b
    # The rows that the shorter matrix has no partner for; of one of the two none remain
    # but rounding.
    rest = a - u @ a_turned, b - vt.T @ b_turned
    return float(sum(np.sum(part**2) for part in (a_turned - b_turned, *rest)))
