"""The whole recipe: what it chooses, where it stops, and what does not matter."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from sklcomp.solvers.logistic._coupling import blend
from sklcomp.solvers.logistic._design import prepare_design
from sklcomp.solvers.logistic._labels import BLOCK
from sklcomp.solvers.logistic._recipe import (
    COSTS,
    costs_for,
    solve_privileged_logistic,
    some_of,
)

STEPS = {"penalties": 0, "gate": 1, "coupling": 2}


@pytest.fixture
def problem(rng):
    """Rows, and labels that a hidden kind of each row and its features tell."""
    X = rng.normal(size=(75, 4))
    kinds = rng.integers(0, 2, size=(3, 5))
    told = 2.0 * (kinds[np.argmax(X[:, :3], axis=1)] - 0.5) + X @ rng.normal(
        size=(4, 5)
    )
    Y = told + rng.normal(size=(75, 5)) > np.median(told, axis=0)
    return X, Y.astype(np.int8), list(KFold(3).split(X))


def solve(problem, **settings):
    X, Y, splits = problem
    settings = {
        "costs": 3,
        "splits": splits,
        "n_prototypes": 4,
        "rank": 6,
        "couplings": np.array([30.0, 3.0]),
        "weight": np.ones(len(Y)),
        "factors": None,
        "tol": 1e-5,
        "max_iter": 1000,
        "rng": np.random.RandomState(0),
    } | settings
    return solve_privileged_logistic(X, sparse.csr_array(Y), **settings)


def assert_same_labels(found, expected):
    for name in ("coef", "intercept", "penalties", "own_scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_costs_are_a_grid_in_the_scale_of_the_rows(problem):
    X, *_ = problem
    spread = ((X - X.mean(axis=0)) ** 2).sum(axis=1).mean()
    design = prepare_design(X)
    grid = costs_for(design, 5)
    np.testing.assert_allclose(grid[[0, -1]] * spread, COSTS)
    np.testing.assert_allclose(np.diff(np.log(grid)), np.log(COSTS[1] / COSTS[0]) / 4)
    # One cost is the middle of the grid.
    np.testing.assert_allclose(costs_for(design, 1), grid[[2]])
    constant = prepare_design(np.ones((9, 2)))
    np.testing.assert_allclose(costs_for(constant, 2), COSTS)


def test_the_gate_has_every_second_penalty():
    penalties = np.arange(8.0, 0.0, -1.0)
    np.testing.assert_array_equal(some_of(penalties), [7.0, 5.0, 3.0, 1.0])
    for n in (1, 2):
        np.testing.assert_array_equal(some_of(penalties[:n]), penalties[:n])


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_the_features_does_not_matter(problem, scale):
    X, Y, splits = problem
    found, scaled = solve(problem), solve((scale * X, Y, splits))
    np.testing.assert_allclose(scaled.penalties, scale**2 * found.penalties)
    assert scaled.coupling.penalty == found.coupling.penalty
    for name in ("own_scores", "coupled_scores", "intercept"):
        one, other = getattr(found, name), getattr(scaled, name)
        np.testing.assert_allclose(other, one, atol=1e-3)
    np.testing.assert_allclose(scale * scaled.coef, found.coef, atol=1e-3)
    np.testing.assert_allclose(scale * scaled.gate.coef, found.gate.coef, atol=1e-3)


def test_each_label_is_a_regression_with_the_penalty_chosen(problem):
    X, Y, _ = problem
    found = solve(problem, tol=1e-7)
    assert found.converged.all()
    grid = 1.0 / costs_for(prepare_design(X), 3)
    for j, penalty in enumerate(found.penalties):
        assert penalty in grid
        rival = LogisticRegression(C=1.0 / penalty, tol=1e-10, max_iter=10_000)
        rival.fit(X, Y[:, j])
        np.testing.assert_allclose(found.coef[j], rival.coef_[0], atol=1e-4)
        np.testing.assert_allclose(found.intercept[j], rival.intercept_[0], atol=1e-4)


def test_without_couplings_there_is_neither_gate_nor_coupling(problem):
    plain = solve(problem, couplings=np.empty(0))
    assert plain.gate is None
    assert plain.coupling is None
    assert plain.coupled_scores is None
    assert_same_labels(plain, solve(problem))


def test_without_folds_the_first_cost_is_taken(problem):
    X, Y, _ = problem
    found = solve((X, Y, []), costs=np.array([0.5]))
    assert found.own_scores is None
    assert found.gate is None
    np.testing.assert_array_equal(found.penalties, 2.0)


def test_a_huge_penalty_leaves_the_blend(problem):
    found = solve(problem, couplings=np.array([1e12]))
    X = problem[0]
    given = found.gate.coef @ X.T + found.gate.intercept[:, None]
    Q = found.gate.shares.T @ (np.exp(given) / np.exp(given).sum(axis=0))
    Z = found.coef @ X.T + found.intercept[:, None]
    np.testing.assert_allclose(found.coupling(Z, Q), blend(Z, Q), atol=1e-6)


@pytest.mark.parametrize(("step", "last"), STEPS.items())
def test_a_callback_ends_it_with_each_labels_own_regression(problem, step, last):
    seen = []

    def stop(number):
        seen.append(number)
        return number == last

    stopped, whole = solve(problem, callback=stop), solve(problem)
    assert seen == list(range(last + 1))
    assert_same_labels(stopped, whole)
    assert stopped.converged.all()
    assert (stopped.gate is None) == (step != "coupling")
    assert (stopped.coupling is None) == (step != "coupling")
    if step == "coupling":  # nothing is left to stop
        np.testing.assert_array_equal(stopped.coupled_scores, whole.coupled_scores)


def test_a_callback_that_goes_on_changes_nothing(problem):
    seen, whole = [], solve(problem)
    found = solve(problem, callback=seen.append)
    assert seen == [0, 1, 2]
    assert_same_labels(found, whole)
    np.testing.assert_array_equal(found.coupled_scores, whole.coupled_scores)


def test_threads_find_the_same_bits(rng):
    # Labels in two blocks.
    X = rng.normal(size=(60, 3))
    Y = X @ rng.normal(size=(3, BLOCK + 6)) + rng.normal(size=(60, BLOCK + 6)) > 0
    problem = X, Y.astype(np.int8), list(KFold(2).split(X))
    one, two = (solve(problem, n_jobs=n, tol=1e-2) for n in (1, 2))
    assert_same_labels(two, one)
    np.testing.assert_array_equal(two.coupled_scores, one.coupled_scores)
    np.testing.assert_array_equal(two.coupling.coef, one.coupling.coef)


@pytest.mark.parametrize("container", [sparse.csr_array, np.asfortranarray])
def test_sparse_rows_have_the_same_scores(problem, container):
    X, Y, splits = problem
    X = np.where(np.abs(X) < 0.5, 0.0, X)
    found, other = solve((X, Y, splits)), solve((container(X), Y, splits))
    np.testing.assert_allclose(other.own_scores, found.own_scores, atol=1e-3)
    np.testing.assert_allclose(other.coupled_scores, found.coupled_scores, atol=1e-3)


def test_weights_of_two_are_half_the_penalties(problem):
    # Costs are given: an integer would give the same grid for both.
    costs = np.array([0.02, 0.2, 2.0])
    twice = {"weight": np.full(75, 2.0), "couplings": np.array([60.0, 6.0])}
    found, doubled = (
        solve(problem, costs=costs),
        solve(problem, costs=costs / 2, **twice),
    )
    np.testing.assert_allclose(doubled.penalties, 2.0 * found.penalties)
    np.testing.assert_allclose(doubled.own_scores, found.own_scores, atol=1e-3)
    np.testing.assert_allclose(doubled.coef, found.coef, atol=1e-3)
