"""The design: its two products are each other's transpose, and weights are rows."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers.logistic import _design
from sklcomp.solvers.logistic._design import prepare_design


@pytest.fixture
def rows(rng):
    """Rows with many zeros and a mean, whole weights, coefficients, residuals."""
    X = rng.normal(1.0, 1.0, size=(60, 5)) * (rng.random((60, 5)) < 0.6)
    W = rng.normal(size=(3, 6))
    return X, rng.integers(1, 4, 60).astype(float), W, rng.normal(size=(3, 60))


@pytest.fixture(params=["basis", "no basis"])
def as_basis(request, monkeypatch):
    """With an eigenbasis, and as for more features than are worth one."""
    if request.param == "no basis":
        monkeypatch.setattr(_design, "MAX_BASIS", 4)
    return request.param == "basis"


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_gradients_are_the_transpose_of_scores(rows, as_basis, container):
    X, weight, W, R = rows
    design = prepare_design(container(X), weight)
    assert (design.basis is not None) == as_basis
    forward = np.sum(design.scores(W) * R)
    np.testing.assert_allclose(forward, np.sum(W * design.gradients(R)), rtol=1e-10)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_scores_are_linear_in_the_features_as_given(rows, as_basis, container):
    X, weight, W, _ = rows
    design = prepare_design(container(X), weight)
    coef, intercept = design.natural(W)
    expected = coef @ X.T + intercept[:, None]
    np.testing.assert_allclose(design.scores(W), expected, atol=1e-12)
    # The last coefficient is the score of the mean row.
    mean = np.average(X, axis=0, weights=weight)
    np.testing.assert_allclose(coef @ mean + intercept, W[:, -1], atol=1e-12)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_the_variances_are_those_of_the_weighted_rows(rows, as_basis, container):
    X, weight, *_ = rows
    design = prepare_design(container(X), weight)
    covariance = np.cov(X.T, aweights=weight, bias=True)
    if as_basis:
        covariance = design.basis.T @ covariance @ design.basis
        np.testing.assert_allclose(design.basis.T @ design.basis, np.eye(5), atol=1e-12)
        np.testing.assert_allclose(covariance, np.diag(design.variance), atol=1e-12)
    np.testing.assert_allclose(np.diag(covariance), design.variance, atol=1e-12)
    assert design.total == weight.sum()


def test_weights_are_repeated_rows(rows, as_basis):
    X, weight, *_ = rows
    weighted = prepare_design(X, weight)
    repeated = prepare_design(np.repeat(X, weight.astype(int), axis=0))
    assert weighted.total == repeated.total
    np.testing.assert_allclose(weighted.mean, repeated.mean, atol=1e-12)
    np.testing.assert_allclose(weighted.variance, repeated.variance, atol=1e-12)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_rows_in_single_precision_have_scores_in_double(rows, as_basis, container):
    X, weight, W, R = rows
    single = container(X.astype(np.float32))
    double = prepare_design(container(X), weight)
    halved = double._replace(X=single)
    for found, expected in (
        (halved.scores(W), double.scores(W)),
        (halved.gradients(R), double.gradients(R)),
    ):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert prepare_design(single, weight).variance.dtype == np.float64


def test_a_constant_feature_has_no_variance(as_basis, rng):
    X = np.column_stack([rng.normal(size=(60, 4)), np.full(60, 3.0)])
    design = prepare_design(X, rng.uniform(0.5, 2.0, 60))
    assert (design.variance >= 0).all()
    assert design.variance.min() < 1e-12
