"""Logistic regressions of many labels: those of scikit-learn, closed forms, limits."""

from time import sleep

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sklcomp.solvers.logistic._design import prepare_design
from sklcomp.solvers.logistic._labels import (
    BLOCK,
    FACTORS,
    LogisticRows,
    losses_of,
    solve_logistic,
)

TOL = 1e-8


@pytest.fixture
def problem(rng):
    """Rows, four noisy labels, whole weights, and factors of the classes."""
    X = rng.normal(0.5, 1.0, size=(80, 4))
    noisy = rng.normal(size=(4, 4)) @ X.T + rng.normal(0.0, 3.0, size=(4, 80))
    targets = (noisy > np.median(noisy, axis=1)[:, None] + 0.5).astype(np.int8)
    weight = rng.integers(1, 4, 80).astype(float)
    return X, targets, weight, rng.uniform(0.5, 2.0, size=(4, 2))


def solve(X, targets, weight=None, **settings):
    design = prepare_design(X, weight)
    settings = {"penalty": np.full(len(targets), 2.0), "tol": TOL} | settings
    result = solve_logistic(design, targets, **settings)
    assert result.converged.all()
    return np.column_stack(design.natural(result.solution))


def their(X, y, weight, penalty, **settings):
    settings = {"tol": 1e-10, "max_iter": 10_000} | settings
    rival = LogisticRegression(C=1.0 / penalty, **settings)
    rival.fit(X, y, sample_weight=weight)
    return np.append(rival.coef_, rival.intercept_)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_scikit_learn_finds_the_same(problem, is_weighted):
    X, targets, weight, factors = problem
    penalty = np.geomspace(0.05, 50.0, 4)
    if not is_weighted:
        weight, factors = np.ones(80), None
    found = solve(X, targets, weight, factors=factors, penalty=penalty)
    for j in range(4):
        cost = weight if factors is None else weight * factors[j, targets[j]]
        expected = their(X, targets[j], cost, penalty[j])
        np.testing.assert_allclose(found[j], expected, atol=1e-5)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_gradients_are_those_of_finite_differences(problem, is_weighted, rng):
    X, targets, weight, factors = problem
    targets = np.where(rng.random(targets.shape) < 0.1, np.int8(-1), targets)
    if not is_weighted:
        weight, factors, targets = np.ones(80), None, problem[1]
    problems = LogisticRows(
        prepare_design(X, weight),
        targets,
        np.full(4, 2.0),
        factors=factors,
        intercept_penalty=0.7,
    )
    assert problems.is_plain != is_weighted

    def objective(W):
        ridge = 0.5 * (problems.penalty * W * W).sum(axis=1)
        return problems.losses(problems.scores(W))[0] + ridge

    W, step = rng.normal(size=(4, 5)), 1e-5
    _, R = problems.losses(problems.scores(W))
    gradients = problems.gradients(R) + problems.penalty * W
    for k, towards in enumerate(step * np.eye(5)):
        slope = (objective(W + towards) - objective(W - towards)) / (2 * step)
        np.testing.assert_allclose(slope, gradients[:, k], atol=1e-5)


def test_weights_are_repeated_rows(problem):
    X, targets, weight, factors = problem
    found = solve(X, targets, weight, factors=factors)
    times = weight.astype(int)
    repeated = solve(
        np.repeat(X, times, axis=0), np.repeat(targets, times, axis=1), factors=factors
    )
    np.testing.assert_allclose(found, repeated, atol=1e-5)


def test_unknown_targets_are_rows_left_out(problem, rng):
    X, targets, weight, factors = problem
    known = rng.random(targets.shape) < 0.7
    found = solve(X, np.where(known, targets, np.int8(-1)), weight, factors=factors)
    for j, kept in enumerate(known):
        alone = solve(
            X[kept], targets[[j]][:, kept], weight[kept], factors=factors[[j]]
        )
        np.testing.assert_allclose(found[j], alone[0], atol=1e-5)


def test_a_known_part_of_the_scores_is_not_learned_again(problem, rng):
    X, targets, weight, _ = problem
    # A constant is taken up by the intercept, which is free.
    constant = rng.normal(size=4)
    offset = np.repeat(constant[:, None], 80, axis=1)
    found = solve(X, targets, weight, offset=offset)
    expected = solve(X, targets, weight)
    expected[:, -1] -= constant
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Without a penalty the same is true of anything linear.
    known, free = rng.normal(size=(4, 5)), {"penalty": np.zeros(4)}
    offset = known[:, :-1] @ X.T + known[:, [-1]]
    found = solve(X, targets, weight, offset=offset, **free)
    np.testing.assert_allclose(
        found + known, solve(X, targets, weight, **free), atol=1e-5
    )


def test_a_penalty_that_grows_leaves_the_log_odds(problem):
    X, targets, weight, factors = problem
    penalty = np.full(4, 1e12)
    found = solve(X, targets, weight, factors=factors, penalty=penalty)
    present = factors[:, 1] * (targets @ weight)
    odds = present / (factors[:, 0] * ((1 - targets) @ weight))
    np.testing.assert_allclose(found[:, -1], np.log(odds), atol=1e-7)
    np.testing.assert_allclose(found[:, :-1], 0.0, atol=1e-8)


def test_a_penalised_intercept_goes_to_zero(problem):
    X, targets, weight, _ = problem
    design = prepare_design(X, weight)
    settings = {"penalty": np.full(4, 2.0), "tol": TOL}
    free, pulled, none = (
        solve_logistic(design, targets, intercept_penalty=size, **settings).solution
        for size in (0.0, 20.0, 1e12)
    )
    assert (np.abs(pulled[:, -1]) < np.abs(free[:, -1])).all()
    np.testing.assert_allclose(none[:, -1], 0.0, atol=1e-8)
    # It is that of the mean row.
    centred = X - np.average(X, axis=0, weights=weight)
    for j, coef in enumerate(design.natural(none)[0]):
        expected = their(centred, targets[j], weight, 2.0, fit_intercept=False)
        np.testing.assert_allclose(coef, expected[:-1], atol=1e-5)


def test_a_constant_label_keeps_its_start(problem, rng):
    X, targets, weight, _ = problem
    targets[1], targets[2] = 0, 1
    targets[3] = np.where(targets[3] == 0, -1, 1)
    design, penalty = prepare_design(X, weight), np.ones(4)
    result = solve_logistic(design, targets, penalty=penalty, tol=TOL)
    assert not result.solution[1:, :-1].any()
    # Half a row of each kind keeps its odds finite.
    odds = np.log((weight.sum() + 0.5) / 0.5)
    np.testing.assert_allclose(result.solution[1:3, -1], [-odds, odds])
    assert result.n_iter[0] > 0
    assert not result.n_iter[1:].any()
    assert result.converged.all()
    init = rng.normal(size=(4, 5))
    result = solve_logistic(design, targets, penalty=penalty, init=init, tol=TOL)
    np.testing.assert_array_equal(result.solution[1:], init[1:])


@pytest.fixture
def many(rng):
    """Labels in three blocks."""
    X = rng.normal(size=(60, 3))
    n_labels = 2 * BLOCK + 2
    scores = rng.normal(size=(n_labels, 3)) @ X.T
    targets = (scores + rng.normal(size=(n_labels, 60)) > 0).astype(np.int8)
    return prepare_design(X), targets, np.geomspace(0.1, 10.0, n_labels)


def test_labels_of_all_blocks_are_those_found_alone(many):
    design, targets, penalty = many
    found = solve_logistic(design, targets, penalty=penalty, tol=TOL)
    for j in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1):
        alone = solve_logistic(design, targets[[j]], penalty=penalty[[j]], tol=TOL)
        np.testing.assert_allclose(found.solution[j], alone.solution[0], atol=1e-5)


def test_threads_find_the_same_bits(many):
    design, targets, penalty = many
    one, two = (
        solve_logistic(design, targets, penalty=penalty, n_jobs=n) for n in (1, 2)
    )
    np.testing.assert_array_equal(one.solution, two.solution)
    np.testing.assert_array_equal(one.n_iter, two.n_iter)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_callback_ends_it_at_a_block(many, n_jobs):
    design, targets, penalty = many
    init, seen = np.ones((len(targets), 4)), []

    def stop(block):
        seen.append(block)
        sleep(0.1)  # the other thread ends its block meanwhile
        return True

    settings = {"penalty": penalty, "init": init, "n_jobs": n_jobs}
    found = solve_logistic(design, targets, callback=stop, **settings)
    assert seen == [0]
    whole = solve_logistic(design, targets, **settings)
    np.testing.assert_array_equal(found.solution[:BLOCK], whole.solution[:BLOCK])
    np.testing.assert_array_equal(found.solution[BLOCK:], init[BLOCK:])
    np.testing.assert_array_equal(found.n_iter[:BLOCK], whole.n_iter[:BLOCK])
    assert not found.n_iter[BLOCK:].any()


def test_too_few_iterations_are_told(problem):
    X, targets, weight, _ = problem
    design, penalty = prepare_design(X, weight), np.ones(4)
    result = solve_logistic(design, targets, penalty=penalty, tol=TOL, max_iter=1)
    assert not result.converged.any()
    np.testing.assert_array_equal(result.n_iter, 1)


def test_both_kernels_are_the_loss_at_any_score(rng):
    # More rows than one product holds, and scores whose exponentials overflow.
    n_rows = 2 * FACTORS + 3
    Z = rng.normal(0.0, 30.0, size=(2, n_rows))
    Z[:, :4] = [800.0, -800.0, 0.0, -0.0]
    targets = rng.integers(0, 2, Z.shape).astype(np.int8)
    expected = (np.logaddexp(0.0, Z) - targets * Z).sum(axis=1)
    design = prepare_design(np.zeros((n_rows, 1)))
    plain, weighted = (
        LogisticRows(design, targets, np.ones(2), factors=factors)
        for factors in (None, np.ones((2, 2)))
    )
    assert plain.is_plain
    assert not weighted.is_plain
    slope = np.where(Z < 0, np.exp(-np.abs(Z)), 1.0) / (1.0 + np.exp(-np.abs(Z)))
    for problems in (plain, weighted):
        sums, R = problems.losses(Z)
        np.testing.assert_allclose(sums, expected, rtol=1e-10)
        np.testing.assert_allclose(R, slope - targets, atol=1e-12)
    np.testing.assert_allclose(losses_of(Z, targets, np.ones(n_rows)), expected)


def test_losses_count_weights_and_factors_and_leave_out_the_unknown(problem, rng):
    _, targets, weight, factors = problem
    Z = rng.normal(0.0, 5.0, size=targets.shape)
    known = rng.random(targets.shape) < 0.7
    cost = weight * np.where(targets == 1, factors[:, [1]], factors[:, [0]])
    expected = np.sum(cost * known * (np.logaddexp(0.0, Z) - targets * Z), axis=1)
    found = losses_of(Z, np.where(known, targets, np.int8(-1)), weight, factors)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
