"""Multipliers of privileged labels: feasible, and as good as the weights they give."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers.margin._hinge import solve_hinge
from sklcomp.solvers.margin._labelsets import as_labelsets
from sklcomp.solvers.margin._privileged import solve_privileged, weighted_costs
from tests.helpers.labels import privileged_features

CODINGS = ["signed", "binary", "constant"]
GAMMA = 5.0


@pytest.fixture
def labelled(rng):
    """Thirty examples, of which some have equal labels, and unequal costs."""
    X = rng.normal(size=(30, 5))
    Y = (X @ rng.normal(size=(5, 4)) + rng.normal(size=(30, 4)) > 0).astype(int)
    Y[:2], Y[2:4] = 1, 0
    return X, Y, rng.uniform(0.2, 1.5, 30)


def solve(X, Y, cost, **settings):
    settings = {
        "class_weight": None,
        "gamma": GAMMA,
        "slack_cap": 2.0,
        "coding": "signed",
        "constant": 1.0,
        "tol": 1e-9,
        "max_iter": 20_000,
        "seeds": np.arange(Y.shape[1]) + 1,
        "n_jobs": None,
    } | settings
    return solve_privileged(X, sparse.csr_array(Y), cost=cost, **settings)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", [1.0, 3.0, np.inf])
def test_multipliers_are_feasible_and_certify_the_objective(labelled, coding, cap):
    X, Y, cost = labelled
    result = solve(X, Y, cost, coding=coding, slack_cap=cap)
    assert result.converged.all()
    groups = as_labelsets(sparse.csr_array(Y), coding).group
    for j, (alpha, beta) in enumerate(zip(*result.dual, strict=True)):
        assert alpha.min() >= 0
        assert beta.min() >= 0
        assert (alpha <= cap * cost * (1 + 1e-12)).all()
        features = privileged_features(Y, j, coding)
        moment = features.T @ (alpha - cost)
        for group, multiplier in enumerate(beta):
            moment += multiplier * features[np.flatnonzero(groups == group)[0]]
        weights = moment / GAMMA
        w = (alpha * (2 * Y[:, j] - 1)) @ np.column_stack([X, np.ones(30)])
        # Weights are the sums over multipliers, and these bound the objective.
        np.testing.assert_allclose(result.solution[j], w, atol=1e-9)
        dual = alpha.sum() - 0.5 * w @ w - 0.5 * GAMMA * weights @ weights
        assert dual <= result.objective[j] * (1 + 1e-12)
        assert dual >= result.objective[j] * (1 - 1e-8)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_paid_for_lies_on_its_bound(labelled, coding):
    X, Y, cost = labelled
    result = solve(X, Y, cost, coding=coding, slack_cap=2.0, tol=1e-12)
    for j in range(4):
        weights = np.append(result.privileged_coef[j], result.privileged_intercept[j])
        slack = privileged_features(Y, j, coding) @ weights
        w = result.solution[j]
        miss = 1 - (2 * Y[:, j] - 1) * (X @ w[:-1] + w[-1]) - slack
        alpha = result.dual[0][j]
        assert slack.min() > -1e-6
        # Complementary slackness, of the margins and of their excess.
        assert np.abs(miss[(alpha > 1e-6) & (alpha < 2 * cost - 1e-6)]).max() < 1e-3
        assert miss[alpha == 0].max(initial=-1) < 1e-4
        assert miss[alpha == 2 * cost].min(initial=1) > -1e-4


def test_without_privilege_it_is_the_hinge_problem(labelled):
    X, Y, cost = labelled
    found = solve(X, Y, cost, coding=None, tol=1e-11)
    expected = solve_hinge(
        X,
        sparse.csr_array(Y),
        cost=cost,
        squared=False,
        start=np.zeros((4, 6)),
        constant=1.0,
        tol=1e-11,
        max_iter=20_000,
        seeds=np.arange(4) + 1,
    )
    np.testing.assert_allclose(found.solution, expected.solution, atol=1e-4)
    assert not found.privileged_coef.any()


def test_dear_corrections_leave_the_capped_hinge_problem(labelled):
    X, Y, cost = labelled
    found = solve(X, Y, cost, gamma=1e9, slack_cap=2.0, tol=1e-11)
    plain = solve(X, Y, 2 * cost, coding=None, tol=1e-11)
    np.testing.assert_allclose(found.solution, plain.solution, atol=1e-3)
    np.testing.assert_allclose(found.objective, plain.objective, rtol=1e-5)


@pytest.mark.parametrize("coding", [*CODINGS, None])
def test_sparse_rows_and_threads_agree(labelled, coding):
    X, Y, cost = labelled
    base = solve(X, Y, cost, coding=coding)
    other = solve(sparse.csr_array(X), Y, cost, coding=coding)
    np.testing.assert_allclose(other.objective, base.objective, rtol=1e-8)
    threads = solve(X, Y, cost, coding=coding, n_jobs=3)
    np.testing.assert_array_equal(threads.solution, base.solution)


@pytest.mark.parametrize("coding", [*CODINGS, None])
def test_from_its_solution_it_goes_nowhere(labelled, coding):
    X, Y, cost = labelled
    first = solve(X, Y, cost, coding=coding, tol=1e-6)
    again = solve(X, Y, cost, coding=coding, tol=1e-5, init=first.dual)
    assert (again.n_iter <= np.maximum(first.n_iter, 2)).all()
    np.testing.assert_allclose(again.objective, first.objective, rtol=3e-5)


def test_weights_of_classes_are_costs(labelled):
    X, Y, cost = labelled
    weight = np.array([[1.0, 3.0], [2.0, 2.0], [0.5, 1.0], [1.0, 1.0]])
    found = solve(X, Y, cost, class_weight=weight)
    for j in range(4):
        own = weighted_costs(2 * Y[:, j] - 1, cost, weight[j])
        np.testing.assert_array_equal(own, cost * weight[j][Y[:, j]])
        alone = solve(X, Y, own)
        np.testing.assert_allclose(found.objective[j], alone.objective[j], rtol=1e-7)


@pytest.mark.parametrize("coding", [*CODINGS, None])
def test_few_epochs_are_told_and_their_gap_is_a_bound(labelled, coding):
    X, Y, cost = labelled
    best = solve(X, Y, cost, coding=coding).objective
    for max_iter in (1, 3, 10):
        result = solve(X, Y, cost, coding=coding, max_iter=max_iter)
        assert (result.n_iter <= max_iter).all()
        np.testing.assert_array_equal(result.converged, result.gap <= 1e-9)
        # Between the objective less its gap and the objective lies the minimum.
        assert (result.objective >= best * (1 - 1e-8)).all()
        assert (result.objective * (1 - result.gap) <= best * (1 + 1e-8)).all()
    assert not solve(X, Y, cost, coding=coding, max_iter=1).converged.any()


def test_a_callback_leaves_the_other_labels_at_zero(labelled):
    X, Y, cost = labelled
    whole = solve(X, Y, cost)
    for n_jobs in (None, 3):
        result = solve(X, Y, cost, callback=lambda j: j == 1, n_jobs=n_jobs)
        np.testing.assert_array_equal(result.solution[:2], whole.solution[:2])
        for left in (result.solution, result.privileged_coef, *result.dual):
            assert not left[2:].any()


@pytest.mark.parametrize("coding", CODINGS)
def test_labels_that_nothing_explains_pay_for_every_margin(rng, coding):
    X = np.zeros((6, 2))
    Y = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 1]])
    result = solve(X, Y, np.ones(6), coding=coding, slack_cap=2.0, constant=0.0)
    # Equal rows of zeros: all margins are missed by one, and paid or corrected.
    np.testing.assert_array_equal(result.solution, 0)
    assert (result.objective <= 12 * (1 + 1e-9)).all()
    dear = solve(
        X, Y, np.ones(6), coding=coding, slack_cap=2.0, constant=0.0, gamma=1e9
    )
    np.testing.assert_allclose(dear.objective, 12, rtol=1e-6)


def test_single_precision_is_served_and_inputs_are_kept(labelled):
    X, Y, cost = labelled
    X = np.round(X, 1).astype(np.float32)
    before = [array.copy() for array in (X, Y, cost)]
    found = solve(X, Y, cost, tol=1e-7)
    exact = solve(X.astype(float), Y, cost, tol=1e-7)
    np.testing.assert_allclose(found.objective, exact.objective, rtol=1e-6)
    assert found.dual[0].dtype == np.float32
    assert exact.dual[0].dtype == np.float64
    for array, copy in zip((X, Y, cost), before, strict=True):
        np.testing.assert_array_equal(array, copy)
