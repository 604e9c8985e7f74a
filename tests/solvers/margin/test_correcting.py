"""Descent for one privileged label: its gap, its optimum, what leaves it as it is."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize

from sklcomp.solvers.margin._correcting import descend_privileged
from sklcomp.solvers.margin._descent import Effort
from tests.helpers.labels import PrivilegedCase

CODINGS = ["signed", "binary", "constant"]
CAPS = [1.0, 3.0, np.inf]


@pytest.fixture
def labelled(rng):
    """Thirty examples, of which some have equal labels, and unequal costs."""
    X = rng.normal(size=(30, 4))
    Y = (X @ rng.normal(size=(4, 4)) + rng.normal(size=(30, 4)) > 0).astype(int)
    Y[:2], Y[2:4] = 1, 0
    return X, Y, rng.uniform(0.2, 1.5, 30)


def descend(case, tol=1e-10, max_epochs=20_000, seed=3, init=(None, None)):
    """Weights, correcting function, multipliers, and what is returned."""
    multipliers, weights = case.state(*init)
    effort = Effort(tol, max_epochs, seed)
    found = descend_privileged(
        case.problem,
        case.privilege,
        case.label,
        multipliers,
        weights,
        case.start,
        effort,
    )
    return weights.w, case.correcting(weights), multipliers, found


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("max_epochs", [0, 1, 3, 25, 150])
def test_the_gap_is_that_of_the_point_it_leads_to(labelled, coding, cap, max_epochs):
    case = PrivilegedCase(*labelled[:2], 1, labelled[2], coding, cap)
    w, correcting, (alpha, beta), (epoch, gap, value) = descend(
        case, tol=0.0, max_epochs=max_epochs
    )
    # Rounding may leave no gap at all.
    assert epoch == max_epochs or gap == 0
    # Wherever it stops: both sides of the gap, recomputed from what it leaves.
    assert alpha.min() >= 0
    assert beta.min() >= 0
    assert (alpha <= cap * case.cost).all()
    np.testing.assert_allclose(w, (alpha * case.y) @ case.design, atol=1e-10)
    assert (case.features @ correcting).min() >= -1e-10
    primal, dual = case.primal(w, correcting), case.dual(alpha, beta)
    assert value == pytest.approx(primal, rel=1e-9)
    assert gap == pytest.approx(primal - dual, rel=1e-6, abs=1e-9 * primal)
    if cap == np.inf:
        slack = case.features @ correcting
        assert (case.y * (case.design @ w) + slack).min() >= 1 - 1e-9


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", CAPS)
def test_no_epoch_lowers_the_dual(labelled, coding, cap):
    case = PrivilegedCase(*labelled[:2], 0, labelled[2], coding, cap)
    values = []
    for max_epochs in (0, 1, 2, 3, 5, 10, 19, 20, 21, 30, 31, 60):
        _, _, multipliers, _ = descend(case, tol=0.0, max_epochs=max_epochs)
        values.append(case.dual(*multipliers))
    values = np.array(values)
    assert (np.diff(values) >= -1e-11 * np.abs(values[1:])).all()
    assert values[-1] > values[0]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", [1.0, 3.0])
def test_a_quasi_newton_method_finds_the_same_on_the_dual(labelled, coding, cap, rng):
    case = PrivilegedCase(*labelled[:2], 2, labelled[2], coding, cap)
    bounds = [(0, cap * c) for c in case.cost] + [(0, None)] * case.n_sets

    def value(x):
        alpha, beta = x[:30], x[30:]
        w = case.start + (alpha * case.y) @ case.design
        correcting = case.moment(alpha, beta) / case.gamma
        slopes = 1 - case.y * (case.design @ w) - case.features @ correcting
        slope = np.append(slopes, -case.set_features @ correcting)
        return -case.dual(alpha, beta), -slope

    for start in (np.zeros(5), rng.normal(size=5)):
        case.start = start
        w, _, _, (_, _, least) = descend(case)
        rival = minimize(
            value,
            np.zeros(len(bounds)),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-14, "gtol": 1e-9},
        )
        assert -rival.fun == pytest.approx(least, rel=1e-6)
        theirs = start + (rival.x[:30] * case.y) @ case.design
        np.testing.assert_allclose(w, theirs, atol=1e-2)


@pytest.mark.parametrize("cap", CAPS)
def test_nothing_near_that_is_feasible_is_lower(labelled, cap, rng):
    case = PrivilegedCase(*labelled[:2], 3, labelled[2], "signed", cap)
    w, correcting, _, (_, _, least) = descend(case)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(20):
            near = w + size * rng.normal(size=w.shape)
            other = correcting + size * rng.normal(size=correcting.shape)
            other[case.label] = 0
            slack = case.features @ other
            short = -slack.min()
            if cap == np.inf:
                short = max(short, (1 - case.y * (case.design @ near) - slack).max())
            other[-1] += max(short, 0)
            assert case.primal(near, other) >= least * (1 - 1e-9)


def test_a_prior_with_all_margins_is_kept(labelled):
    X, Y, cost = labelled
    far = np.array([50.0, -30.0, 20.0, 10.0, 5.0])
    kept = np.abs(X @ far[:4] + far[4]) > 1
    X, Y, cost = X[kept], Y[kept].copy(), cost[kept]
    Y[:, 0] = X @ far[:4] + far[4] > 0
    for cap in CAPS:
        case = PrivilegedCase(X, Y, 0, cost, "signed", cap)
        case.start = far
        w, correcting, (alpha, _), (_, _, value) = descend(case)
        np.testing.assert_allclose(w, far, rtol=1e-7)
        assert not alpha.any()
        # Corrections cost something, so that there are none but for the tolerance.
        np.testing.assert_allclose(case.features @ correcting, 0, atol=1e-6)
        assert value == pytest.approx(0, abs=1e-6)


def test_costs_that_vanish_leave_the_prior(labelled, rng):
    X, Y, cost = labelled
    case = PrivilegedCase(X, Y, 0, 1e-9 * cost)
    case.start = rng.normal(size=5)
    w, correcting, _, _ = descend(case)
    np.testing.assert_allclose(w, case.start, atol=1e-6)
    np.testing.assert_allclose(correcting, 0, atol=1e-6)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", CAPS)
def test_the_order_of_examples_and_of_the_other_labels_does_not_matter(
    labelled, coding, cap, rng
):
    X, Y, cost = labelled
    base = descend(PrivilegedCase(X, Y, 0, cost, coding, cap))
    rows = rng.permutation(30)
    labels = np.append(0, rng.permutation(3) + 1)
    turned = PrivilegedCase(X[rows], Y[rows][:, labels], 0, cost[rows], coding, cap)
    found = descend(turned)
    assert found[3][2] == pytest.approx(base[3][2], rel=1e-8)
    np.testing.assert_allclose(found[0], base[0], atol=1e-4)
    # An example twice is an example at twice the cost.
    twice = np.append(np.arange(30), [4, 7])
    double = cost.copy()
    double[[4, 7]] *= 2
    parts = descend(PrivilegedCase(X[twice], Y[twice], 0, cost[twice], coding, cap))
    whole = descend(PrivilegedCase(X, Y, 0, double, coding, cap))
    assert parts[3][2] == pytest.approx(whole[3][2], rel=1e-8)


def test_the_units_of_features_are_those_of_the_costs(labelled):
    X, Y, cost = labelled
    base = descend(PrivilegedCase(X, Y, 1, 9 * cost, gamma=45.0))
    case = PrivilegedCase(X, Y, 1, cost, gamma=5.0)
    # Three times x and the constant: w falls to a third, its square to a ninth.
    case.problem = case.problem._replace(
        rows=case.problem.rows._replace(
            values=3 * case.problem.rows.values, constant=3.0
        ),
        norms=9 * case.problem.norms,
    )
    case.design *= 3
    found = descend(case)
    assert 9 * found[3][2] == pytest.approx(base[3][2], rel=1e-8)
    np.testing.assert_allclose(3 * found[0], base[0], atol=1e-4)
    np.testing.assert_allclose(found[1], base[1], atol=1e-4)


@pytest.mark.parametrize("cap", CAPS)
def test_sparse_rows_and_other_seeds_end_at_the_same_value(labelled, cap):
    X, Y, cost = labelled
    X = np.where(np.abs(X) < 0.5, 0, X)
    base = descend(PrivilegedCase(X, Y, 1, cost, cap=cap))[3][2]
    other = PrivilegedCase(sparse.csr_array(X), Y, 1, cost, cap=cap)
    for seed in (3, 4, 99):
        assert descend(other, seed=seed)[3][2] == pytest.approx(base, rel=1e-9)


@pytest.mark.parametrize("cap", CAPS)
def test_from_any_feasible_multipliers_it_ends_at_the_same_value(labelled, cap, rng):
    case = PrivilegedCase(*labelled[:2], 1, labelled[2], cap=cap)
    base = descend(case)
    alpha = rng.uniform(0, min(cap, 5), 30) * case.cost
    found = descend(case, init=(alpha, rng.random(case.n_sets)))
    assert found[3][2] == pytest.approx(base[3][2], rel=1e-9)
    again = descend(case, tol=1e-8, init=tuple(base[2]))
    assert again[3][0] <= 2
