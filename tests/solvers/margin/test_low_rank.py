"""Low-rank privileged labels: what an alternation may not lose."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers.margin import _low_rank
from sklcomp.solvers.margin._low_rank import solve_low_rank
from sklcomp.solvers.margin._privileged import solve_privileged

CODINGS = ["signed", "binary", "constant", None]


@pytest.fixture
def labelled(rng):
    """Forty examples with six labels that depend on two directions, and costs."""
    X = rng.normal(size=(40, 5))
    scores = X @ rng.normal(size=(5, 2)) @ rng.normal(size=(2, 6))
    Y = (scores + 0.5 * rng.normal(size=(40, 6)) > 0).astype(int)
    Y[0], Y[1] = 1, 0
    return X, Y, rng.uniform(0.2, 1.5, 40)


def settings_of(coding="signed", **settings):
    return {
        "class_weight": None,
        "gamma": 5.0,
        "slack_cap": 2.0,
        "coding": coding,
        "constant": 1.0,
        "n_jobs": None,
    } | settings


def solve(X, Y, cost, rank=2, **settings):
    settings = (
        {
            "prox": None,
            "tol": 1e-7,
            "inner_tol": 1e-7,
            "max_iter": 200,
            "inner_max_iter": 2000,
            "seed": 1,
        }
        | settings_of()
        | settings
    )
    return solve_low_rank(X, sparse.csr_array(Y), rank=rank, cost=cost, **settings)


def value(result, X, Y, cost, coding):
    """The objective of the factors, written out."""
    features = {"signed": 2.0 * Y - 1, "binary": 1.0 * Y}.get(coding, 0.0 * Y)
    cap = 1.0 if coding is None else 2.0
    total = 0.5 * (np.sum(result.codes**2) + np.sum(result.components**2))
    scores = np.column_stack([X, np.ones(len(X))]) @ result.components @ result.codes.T
    for j in range(Y.shape[1]):
        weights, constant = result.privileged_coef[j], result.privileged_intercept[j]
        slack = features @ weights + constant
        assert slack.min() > -1e-9
        miss = np.maximum(1 - (2 * Y[:, j] - 1) * scores[:, j] - slack, 0)
        total += 2.5 * (weights @ weights + constant**2) + cost @ (slack + cap * miss)
    return total


@pytest.mark.parametrize("coding", CODINGS)
def test_the_curve_never_rises_and_ends_in_the_objective(labelled, coding):
    X, Y, cost = labelled
    result = solve(X, Y, cost, coding=coding)
    rises = np.diff(result.loss_curve)
    assert rises.max() <= 1e-12 * result.objective[0]
    assert result.objective[0] == result.loss_curve[-1]
    expected = value(result, X, Y, cost, coding)
    np.testing.assert_allclose(result.objective[0], expected, rtol=1e-9)
    product = result.codes @ result.components.T
    np.testing.assert_allclose(result.solution, product, atol=1e-12)
    # Balanced, so that the penalty is the trace norm.
    trace = np.linalg.svd(result.solution, compute_uv=False).sum()
    for factor in (result.codes, result.components):
        np.testing.assert_allclose(np.sum(factor**2), trace, rtol=1e-6)


@pytest.mark.parametrize("coding", CODINGS)
def test_it_is_no_worse_than_cutting_the_full_model(labelled, coding):
    X, Y, cost = labelled
    full = solve_privileged(
        X,
        sparse.csr_array(Y),
        cost=cost,
        tol=1e-8,
        max_iter=20_000,
        seeds=np.arange(6) + 1,
        **settings_of(coding),
    )
    start = solve(X, Y, cost, coding=coding, max_iter=0)
    assert np.linalg.matrix_rank(start.solution) == 2
    assert np.linalg.matrix_rank(full.solution) > 2
    result = solve(X, Y, cost, coding=coding)
    assert result.objective[0] <= start.objective[0]


def test_more_rank_is_no_worse(labelled):
    X, Y, cost = labelled
    one, two, six = (solve(X, Y, cost, rank=rank).objective[0] for rank in (1, 2, 6))
    assert two <= one * 1.02
    assert six <= two * 1.02


@pytest.mark.parametrize("coding", CODINGS)
def test_threads_and_sparse_rows_agree(labelled, coding):
    X, Y, cost = labelled
    base = solve(X, Y, cost, coding=coding)
    threads = solve(X, Y, cost, coding=coding, n_jobs=3)
    np.testing.assert_array_equal(threads.solution, base.solution)
    other = solve(sparse.csr_array(X), Y, cost, coding=coding)
    np.testing.assert_allclose(other.objective, base.objective, rtol=2e-2)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_fit_that_was_stopped_goes_on_from_where_it_was(labelled, coding):
    X, Y, cost = labelled
    seen = []

    def stop(n_iter):
        seen.append(n_iter)
        return n_iter == 3

    first = solve(X, Y, cost, coding=coding, callback=stop)
    assert seen == list(range(1, first.n_iter[0] + 1))
    assert first.n_iter[0] <= 3
    state = (*first.dual, first.components, first.codes)
    again = solve(X, Y, cost, coding=coding, init=state)
    assert again.objective[0] <= first.objective[0] * (1 + 1e-9)


def test_a_given_proximal_term_ends_near(labelled):
    X, Y, cost = labelled
    adapted, fixed = (solve(X, Y, cost, prox=prox).objective[0] for prox in (None, 0.3))
    np.testing.assert_allclose(fixed, adapted, rtol=0.02)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("epochs", [1, 7, 20_000])
def test_the_gap_is_a_bound_wherever_the_last_problem_was_left(
    labelled, coding, epochs, monkeypatch
):
    X, Y, cost = labelled
    seen, descend = [], _low_rank.descend_components

    def spy(problem, privilege, multipliers, weights, codes, start, effort):
        args = problem, privilege, multipliers, weights, codes, start, effort
        found = descend(*args)
        state = [np.copy(one) for one in (*multipliers, *weights, codes, start)]
        seen[:] = [(problem, privilege, *state)]
        return found

    monkeypatch.setattr(_low_rank, "descend_components", spy)
    result = solve(X, Y, cost, coding=coding, max_iter=2, inner_max_iter=epochs)
    problem, privilege, alpha, _, components, p, q, codes, start = seen[0]
    weights = np.sum(_low_rank.to_weights(p, q) ** 2) + np.sum(q[:, 2] ** 2)
    squares = np.sum(start**2) - np.sum(components**2) - privilege.gamma * weights
    dual = alpha.sum() + 0.5 * squares
    scores = np.column_stack([X, np.ones(len(X))]) @ components @ codes.T
    losses, _ = _low_rank.primal_values(problem, privilege, scores, p, q)
    primal = losses.sum() + 0.5 * np.sum((components - start) ** 2)
    gap = (primal - dual) / primal
    assert result.gap[0] == pytest.approx(gap, rel=1e-6)


@pytest.mark.parametrize("coding", CODINGS)
def test_too_few_iterations_are_told(labelled, coding):
    X, Y, cost = labelled
    result = solve(X, Y, cost, coding=coding, max_iter=1)
    assert not result.converged[0]
    assert result.n_iter[0] == 1
    assert len(result.loss_curve) == 2


def test_costs_that_vanish_leave_nothing(labelled):
    X, Y, cost = labelled
    result = solve(X, Y, 1e-9 * cost)
    np.testing.assert_allclose(result.solution, 0, atol=1e-6)
    np.testing.assert_allclose(result.privileged_coef, 0, atol=1e-6)


def test_the_rank_of_the_solution_is_at_most_that_asked_for(labelled):
    X, Y, cost = labelled
    for rank in (1, 2, 4):
        solution = solve(X, Y, cost, rank=rank, max_iter=5).solution
        values = np.linalg.svd(solution, compute_uv=False)
        assert values[rank:].max() < 1e-9 * values[0]
