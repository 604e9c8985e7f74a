"""The gate: scikit-learn's multinomial regression, its gradient, its limits."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from sklcomp.solvers.logistic._design import prepare_design
from sklcomp.solvers.logistic._gate import SoftmaxRows, solve_softmax

TOL = 1e-8


@pytest.fixture
def problem(rng):
    """Rows, noisy prototypes of unequal sizes, and whole weights."""
    X = rng.normal(0.5, 1.0, size=(80, 4))
    Z = X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(80, 3)) + [1.0, 0.5, 0.0]
    assigned = Z.argmax(axis=1)
    assigned[:3] = np.arange(3)
    return X, assigned, rng.integers(1, 4, 80).astype(float)


def solve(X, assigned, weight=None, penalty=2.0, n_prototypes=3, **settings):
    design = prepare_design(X, weight)
    settings = {"tol": TOL, "max_iter": 1000} | settings
    result = solve_softmax(design, assigned, n_prototypes, penalty=penalty, **settings)
    assert result.converged.all()
    coef, intercept = design.natural(result.solution)
    # A constant that all intercepts share changes no probability.
    return np.column_stack([coef, intercept - intercept.mean()])


@pytest.mark.parametrize("penalty", [0.1, 2.0, 50.0])
def test_scikit_learn_finds_the_same(problem, penalty):
    X, assigned, weight = problem
    found = solve(X, assigned, weight, penalty)
    rival = LogisticRegression(C=1.0 / penalty, tol=1e-10, max_iter=10_000)
    rival.fit(X, assigned, sample_weight=weight)
    intercept = rival.intercept_ - rival.intercept_.mean()
    expected = np.column_stack([rival.coef_, intercept])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    probabilities = softmax(found[:, :-1] @ X.T + found[:, [-1]], axis=0).T
    np.testing.assert_allclose(probabilities, rival.predict_proba(X), atol=1e-4)


def test_gradients_are_those_of_finite_differences(problem, rng):
    X, assigned, weight = problem
    problems = SoftmaxRows(prepare_design(X, weight), assigned, 3, 2.0)

    def objective(W):
        ridge = 0.5 * np.sum(problems.penalty * W * W)
        return problems.losses(problems.scores(W))[0][0] + ridge

    W, step = rng.normal(size=(1, 15)), 1e-5
    _, R = problems.losses(problems.scores(W))
    gradient = (problems.gradients(R) + problems.penalty * W)[0]
    slopes = [
        (objective(W + towards) - objective(W - towards)) / (2 * step)
        for towards in step * np.eye(15)
    ]
    np.testing.assert_allclose(slopes, gradient, atol=1e-5)


def test_weights_are_repeated_rows(problem):
    X, assigned, weight = problem
    times = weight.astype(int)
    repeated = solve(np.repeat(X, times, axis=0), np.repeat(assigned, times))
    np.testing.assert_allclose(solve(X, assigned, weight), repeated, atol=1e-5)


def test_two_prototypes_are_one_logistic_regression(problem):
    # Its coefficients are the difference of both, and half its penalty theirs.
    X, assigned, weight = problem
    y = assigned > 0
    found = solve(X, y.astype(int), weight, n_prototypes=2)
    rival = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    rival.fit(X, y, sample_weight=weight)
    expected = np.append(rival.coef_, rival.intercept_)
    np.testing.assert_allclose(found[1] - found[0], expected, atol=1e-5)


def test_a_penalty_that_grows_leaves_the_shares(problem):
    X, assigned, weight = problem
    found = solve(X, assigned, weight, penalty=1e12)
    np.testing.assert_allclose(found[:, :-1], 0.0, atol=1e-8)
    shares = np.bincount(assigned, weights=weight) / weight.sum()
    np.testing.assert_allclose(softmax(found[:, -1], axis=0), shares, atol=1e-8)


def test_a_prototype_without_rows_is_not_expected(problem):
    X, assigned, weight = problem
    design = prepare_design(X, weight)
    result = solve_softmax(design, assigned, 4, penalty=2.0, tol=1e-4)
    assert np.isfinite(result.solution).all()
    P = softmax(design.scores(result.solution), axis=0)
    assert P[3].max() < 0.02
    # The others are as they would be without it.
    others = solve_softmax(design, assigned, 3, penalty=2.0, tol=TOL)
    np.testing.assert_allclose(
        P[:3], softmax(design.scores(others.solution), axis=0), atol=0.02
    )


def test_nothing_is_left_to_do_at_the_optimum(problem):
    X, assigned, weight = problem
    design, settings = prepare_design(X, weight), {"penalty": 2.0}
    found = solve_softmax(design, assigned, 3, tol=TOL, **settings).solution
    again = solve_softmax(design, assigned, 3, init=found, tol=1e-6, **settings)
    np.testing.assert_array_equal(again.solution, found)
    assert not again.n_iter.any()
    short = solve_softmax(design, assigned, 3, tol=TOL, max_iter=1, **settings)
    assert not short.converged.any()


def test_probabilities_sum_to_one_at_any_score(rng):
    Z = np.column_stack([rng.normal(0.0, 5.0, (3, 9)), [800.0, -800.0, 0.0]])
    P = softmax(Z, axis=0)
    np.testing.assert_allclose(P.sum(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(P[:, -1], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(softmax(Z + rng.normal(size=10), axis=0), P, atol=1e-12)
    # So do the losses: that of a score which is far too low is its distance.
    problems = SoftmaxRows(prepare_design(np.eye(10)), np.full(10, 1), 3, 1.0)
    loss, R = problems.losses(Z[None])
    expected = np.logaddexp.reduce(Z, axis=0) - Z[1]
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-10)
    np.testing.assert_allclose(R[0].sum(axis=0), 0.0, atol=1e-12)
