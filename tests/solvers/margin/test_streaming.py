"""The self-representation of labels: ridge regressions, however they are reached."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LinearRegression, Ridge

from sklcomp.solvers.margin import _streaming
from sklcomp.solvers.margin._streaming import (
    SelfRepresentation,
    count_pairs,
    factorise_ridge,
    find_prior_scale,
)


@pytest.fixture
def earlier(rng):
    """An indicator of six labels, weights of the examples and two new targets."""
    Y = (rng.random((50, 6)) < 0.4).astype(np.int8)
    return Y, rng.uniform(0.2, 2.0, 50), rng.choice([-1.0, 1.0], (2, 50))


def represent(Y, weight, is_sparse, alpha=0.7, n_new=2, fit_intercept=True):
    features = sparse.csr_array(Y) if is_sparse else 2.0 * Y - 1
    return SelfRepresentation(features, weight, alpha, n_new, fit_intercept)


def ridge(features, target, weight, fit_intercept=True, alpha=0.7):
    model = Ridge(alpha, fit_intercept=fit_intercept)
    return model.fit(features, target, sample_weight=weight)


def test_pairs_are_counted_by_weight(earlier):
    Y, weight, _ = earlier
    rows, found = sparse.csr_array(Y), np.zeros((6, 6))
    count_pairs(rows.indptr, rows.indices, weight, found)
    expected = np.tril(Y.T @ (weight[:, None] * Y))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_appended_labels_count_as_if_they_had_been_there(
    earlier, is_sparse, fit_intercept
):
    Y, weight, targets = earlier
    model = represent(Y, weight, is_sparse, fit_intercept=fit_intercept)
    features = 2.0 * Y - 1
    for target in targets:
        expected = ridge(features, target, weight, fit_intercept)
        coef, intercept = model.solve(target)
        np.testing.assert_allclose(coef, expected.coef_, atol=1e-10)
        np.testing.assert_allclose(intercept, expected.intercept_, atol=1e-10)
        model.append(target)
        features = np.column_stack([features, target])
    coef, _ = model.solve(weight)
    expected = ridge(features, weight, weight, fit_intercept)
    np.testing.assert_allclose(coef, expected.coef_, atol=1e-10)


@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_each_example_is_left_out_without_a_refit(
    earlier, is_sparse, fit_intercept, rng
):
    Y, weight, targets = earlier
    model = represent(Y, weight, is_sparse, fit_intercept=fit_intercept)
    target = targets[0]
    scores = rng.normal(size=(50, 6))
    coef, intercept = model.solve(target)
    found = model.leave_one_out(target, scores @ coef + intercept, scores)
    features = 2.0 * Y - 1
    for i in range(50):
        others = np.arange(50) != i
        refit = ridge(features[others], target[others], weight[others], fit_intercept)
        expected = scores[i] @ refit.coef_ + refit.intercept_
        np.testing.assert_allclose(found[i], expected, atol=1e-9)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("slope", [0.4, 3.0, -1.0])
def test_scale_of_a_prior_is_a_clipped_regression(rng, fit_intercept, slope):
    inherited, weight = rng.normal(1, 2, 80), rng.uniform(0.2, 2, 80)
    target = slope * inherited - 0.5 + 0.1 * rng.normal(size=80)
    scale, shift = find_prior_scale(inherited, target, weight, fit_intercept)
    line = LinearRegression(fit_intercept=fit_intercept)
    line.fit(inherited[:, None], target, sample_weight=weight)
    assert scale == pytest.approx(np.clip(line.coef_[0], 0, 1))
    if slope == 0.4:
        assert shift == pytest.approx(line.intercept_)
    elif slope < 0 or not fit_intercept:
        assert shift == 0
    else:
        assert shift == pytest.approx(weight @ (target - inherited) / weight.sum())
    # What is constant scales nothing.
    constant = np.full(80, 3.0)
    if fit_intercept:
        assert find_prior_scale(constant, target, weight, True) == (0, 0)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("largest", [4000, 3])
def test_one_factor_serves_all_residuals(rng, shape, kind, largest, monkeypatch):
    monkeypatch.setattr(_streaming, "LARGEST_FACTOR", largest)
    X, cost = rng.normal(size=shape), rng.uniform(0.2, 2, shape[0])
    design = np.column_stack([X, np.full(shape[0], 1.5)])
    normal = np.eye(shape[1] + 1) + design.T @ (cost[:, None] * design)
    solve = factorise_ridge(kind(X), cost, 1.5)
    for _ in range(3):
        residual = rng.normal(size=shape[0])
        expected = np.linalg.solve(normal, design.T @ (cost * residual))
        # Beyond the largest factor scikit-learn may iterate, to 1e-6.
        atol = 1e-10 if largest == 4000 else 1e-4
        np.testing.assert_allclose(solve(residual), expected, atol=atol)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_factor_is_that_of_the_centred_gram_matrix(earlier, fit_intercept):
    Y, weight, targets = earlier
    features = np.column_stack([2.0 * Y - 1, *targets])
    for is_sparse in (True, False):
        model = represent(Y, weight, is_sparse, fit_intercept=fit_intercept)
        for target in targets:
            model.append(target)
        means = weight @ features / weight.sum() if fit_intercept else 0
        centred = features - means
        expected = centred.T @ (weight[:, None] * centred) + 0.7 * np.eye(8)
        lower = np.tril(model.factor)
        np.testing.assert_allclose(lower @ lower.T, expected, atol=1e-10)


def test_penalties_from_a_copy_to_the_mean(earlier):
    Y, weight, _ = earlier
    target = 2.0 * Y[:, 3] - 1
    free = represent(Y, weight, True, alpha=1e-9).solve(target)
    np.testing.assert_allclose(free[0], np.eye(6)[3], atol=1e-6)
    assert free[1] == pytest.approx(0, abs=1e-6)
    stiff = represent(Y, weight, True, alpha=1e9).solve(target)
    np.testing.assert_allclose(stiff[0], 0, atol=1e-6)
    assert stiff[1] == pytest.approx(weight @ target / weight.sum(), abs=1e-6)


def test_a_label_that_is_appended_twice_shares_its_coefficient(earlier):
    Y, weight, targets = earlier
    model = represent(Y, weight, True)
    for _ in range(2):
        model.append(targets[0])
    coef, _ = model.solve(targets[1])
    # The penalty is least where equal features have equal weights.
    assert coef[6] == pytest.approx(coef[7], abs=1e-9)


def test_weights_of_examples_are_their_number(earlier):
    Y, _, targets = earlier
    times = np.arange(50) % 3 + 1
    many = np.repeat(np.arange(50), times)
    model = represent(Y, times.astype(float), True)
    coef, intercept = model.solve(targets[0])
    repeated = represent(Y[many], np.ones(len(many)), True)
    expected = repeated.solve(targets[0][many])
    np.testing.assert_allclose(coef, expected[0], atol=1e-10)
    assert intercept == pytest.approx(expected[1], abs=1e-10)


def test_a_perfect_prior_is_taken_as_it_is(rng):
    inherited, weight = rng.normal(size=40), rng.uniform(0.2, 2, 40)
    scale, shift = find_prior_scale(inherited, inherited, weight, True)
    assert (scale, shift) == pytest.approx((1, 0), abs=1e-12)
    # An offset is no fault of the prior; an unrelated one says nothing.
    scale, shift = find_prior_scale(inherited + 3, inherited, weight, True)
    assert (scale, shift) == pytest.approx((1, -3), abs=1e-12)
    assert find_prior_scale(-inherited, inherited, weight, True) == (0, 0)


def test_examples_are_left_out_where_it_is_cheap_or_they_are_few():
    assert _streaming.is_worth_leaving_out(1000, 100)
    assert not _streaming.is_worth_leaving_out(10**6, 1000)
    # So few examples a label that each of them moves the regression.
    assert _streaming.is_worth_leaving_out(9_000, 1000)
