"""The hinge problem: its dual, liblinear's answer, its limits."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.svm import LinearSVC

from sklcomp.solvers.margin._hinge import solve_hinge

TOL = 1e-10


@pytest.fixture
def problem(rng):
    """Examples, three noisy labels and unequal costs."""
    X = rng.normal(size=(80, 6))
    Y = (X @ rng.normal(size=(6, 3)) + rng.normal(size=(80, 3)) > 0).astype(int)
    return X, Y, rng.uniform(0.2, 2.0, 80)


def solve(X, Y, cost, **settings):
    settings = {
        "squared": False,
        "start": np.zeros((Y.shape[1], X.shape[1] + 1)),
        "constant": 1.0,
        "tol": TOL,
        "max_iter": 20_000,
        "seeds": np.arange(Y.shape[1]) + 1,
    } | settings
    result = solve_hinge(X, sparse.csr_array(Y), cost=cost, **settings)
    assert result.converged.all()
    return result


def objective(X, y, cost, w, squared, start):
    loss = np.maximum(1 - y * (X @ w[:-1] + w[-1]), 0)
    return 0.5 * np.sum((w - start) ** 2) + cost @ loss ** (2 if squared else 1)


@pytest.mark.parametrize("squared", [False, True])
def test_nothing_near_is_lower(problem, squared, rng):
    X, Y, cost = problem
    start = rng.normal(size=(3, 7))
    found = solve(X, Y, cost, squared=squared, start=start).solution
    for j in range(3):
        y = 2 * Y[:, j] - 1
        least = objective(X, y, cost, found[j], squared, start[j])
        for size in (1e-4, 1e-2, 1.0):
            for _ in range(20):
                w = found[j] + size * rng.normal(size=7)
                # What the gap allows, which is relative.
                assert objective(X, y, cost, w, squared, start[j]) >= least * (1 - TOL)


@pytest.mark.parametrize(
    ("squared", "loss"), [(False, "hinge"), (True, "squared_hinge")]
)
def test_liblinear_finds_the_same(problem, squared, loss):
    X, Y, cost = problem
    found = solve(X, Y, cost, squared=squared).solution
    for j in range(3):
        rival = LinearSVC(C=1.0, loss=loss, dual=True, tol=1e-10, max_iter=10**6)
        rival.fit(X, Y[:, j], sample_weight=cost)
        theirs = np.append(rival.coef_, rival.intercept_)
        np.testing.assert_allclose(found[j], theirs, atol=2e-4)


@pytest.mark.parametrize("squared", [False, True])
def test_sparse_rows_single_precision_threads_and_seeds_agree(problem, squared):
    X, Y, cost = problem
    X = np.round(X, 1).astype(np.float32)
    base = solve(X, Y, cost, squared=squared).solution
    for other, settings in (
        (sparse.csr_array(X), {}),
        (X.astype(float), {}),
        (X, {"seeds": np.array([7, 8, 9])}),
    ):
        found = solve(other, Y, cost, squared=squared, **settings).solution
        np.testing.assert_allclose(found, base, atol=1e-4)
    threads = solve(X, Y, cost, squared=squared, n_jobs=3).solution
    np.testing.assert_array_equal(threads, base)


@pytest.mark.parametrize("squared", [False, True])
def test_costs_that_vanish_leave_the_prior(problem, squared, rng):
    X, Y, _ = problem
    start = rng.normal(size=(3, 7))
    settings = {"squared": squared, "start": start}
    found = solve(X, Y, np.full(80, 1e-9), **settings).solution
    np.testing.assert_allclose(found, start, atol=1e-6)
    # Where all examples have their margin from the start, it is the solution.
    y, far = Y[:, :1], 100 * start[:1]
    kept = (2 * y[:, 0] - 1) * (X @ far[0, :-1] + far[0, -1]) > 1
    found = solve(X[kept], y[kept], np.ones(kept.sum()), squared=squared, start=far)
    np.testing.assert_array_equal(found.solution, far)


def test_squared_losses_of_missed_examples_are_a_ridge_regression(rng):
    # With small costs every margin is missed, and the losses are squares.
    X, y = rng.normal(size=(40, 5)), rng.integers(0, 2, (40, 1))
    signs, cost = 2.0 * y[:, 0] - 1, 1e-4
    design = np.column_stack([X, np.ones(40)])
    normal = np.eye(6) + 2 * cost * design.T @ design
    expected = np.linalg.solve(normal, 2 * cost * design.T @ signs)
    assert (signs * (design @ expected) < 1).all()
    found = solve(X, y, np.full(40, cost), squared=True).solution[0]
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_two_points_have_the_widest_margin():
    X, Y = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[0], [1]])
    # Costs and the constant magnify rounding: small ones, and a gap well above it.
    found = solve(X, Y, np.ones(2), constant=100.0, tol=1e-8).solution[0]
    # A large constant leaves the intercept nearly free: w x + b is -1 and +1 there.
    np.testing.assert_allclose(found[:2], [1.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(100 * found[2], -2.0, atol=1e-3)


def test_a_callback_ends_it_at_a_label(problem):
    X, Y, cost = problem
    start = np.ones((3, 7))
    seen = []

    def stop(label):
        seen.append(label)
        return label == 1

    result = solve_hinge(
        X,
        sparse.csr_array(Y),
        cost=cost,
        squared=False,
        start=start,
        constant=1.0,
        tol=1e-6,
        max_iter=1000,
        seeds=np.ones(3, int),
        callback=stop,
    )
    assert seen == [0, 1]
    np.testing.assert_array_equal(result.solution[2], start[2])
    assert not (result.solution[:2] == start[:2]).all(axis=1).any()
