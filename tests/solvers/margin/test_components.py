"""All labels at once: with plain codes they are the problems of the labels."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers.margin._components import descend_components, primal_values
from sklcomp.solvers.margin._descent import Effort, Problem
from sklcomp.solvers.margin._labelsets import (
    Multipliers,
    Privilege,
    Weights,
    as_labelsets,
    rebuild_privileged,
    to_weights,
)
from sklcomp.solvers.margin._privileged import solve_privileged
from sklcomp.solvers.margin._rows import as_rows, squared_norms
from tests.helpers.labels import privileged_features

CODINGS = ["signed", "binary", "constant", None]
CAPS = [1.0, 3.0, np.inf]
GAMMA = 5.0


@pytest.fixture
def labelled(rng):
    """Thirty examples, of which some have equal labels, and costs of all pairs."""
    X = rng.normal(size=(30, 4))
    Y = (X @ rng.normal(size=(4, 3)) + rng.normal(size=(30, 3)) > 0).astype(int)
    Y[:2], Y[2:4] = 1, 0
    return X, Y, np.tile(rng.uniform(0.2, 1.5, (30, 1)), 3)


def plain_codes(rng):
    """Two orthonormal components: descent is slow where codes are nearly parallel."""
    return np.linalg.qr(rng.normal(size=(3, 2)))[0]


def setup(X, Y, cost, coding, cap):
    cap = 1.0 if coding is None else cap
    norms, signs = squared_norms(X, 1.0), (2 * Y - 1).astype(np.int8)
    problem = Problem(as_rows(X, 1.0), norms, signs, cost, cap)
    return problem, Privilege(as_labelsets(sparse.csr_array(Y), coding), GAMMA)


def from_multipliers(problem, privilege, alpha, beta, codes, start, design):
    """Components and correcting functions of multipliers, by (2) and (3)."""
    n_labels = len(codes)
    p, q = np.zeros((n_labels, n_labels)), np.zeros((n_labels, 3))
    if beta.shape[1]:
        for j in range(n_labels):
            args = alpha[:, j], beta[j], problem.cost[:, j], privilege, j, p[j], q[j]
            rebuild_privileged(*args)
    components = start + design.T @ (alpha * problem.y) @ codes
    return Weights(components, p, q)


def descend(
    X, Y, cost, codes, coding="signed", cap=3.0, start=None, tol=1e-6, epochs=10**6
):
    """Components, correcting functions with their lift, multipliers, what it says."""
    problem, privilege = setup(X, Y, cost, coding, cap)
    start = np.zeros((X.shape[1] + 1, codes.shape[1])) if start is None else start
    dense = X.toarray() if sparse.issparse(X) else X
    design = np.column_stack([dense, np.ones(len(Y))])
    n_sets = len(privilege.sets.indptr) - 1
    alpha, beta = np.zeros(Y.shape), np.zeros((Y.shape[1], n_sets))
    weights = from_multipliers(problem, privilege, alpha, beta, codes, start, design)
    found = descend_components(
        problem,
        privilege,
        Multipliers(alpha, beta),
        weights,
        codes,
        start,
        Effort(tol, epochs, 7),
    )
    expected = from_multipliers(problem, privilege, alpha, beta, codes, start, design)
    for one, two in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-8)
    scores = design @ weights.w @ codes.T
    values, lift = primal_values(problem, privilege, scores, weights.p, weights.q)
    weights.q[:, 2] += lift
    value = values.sum() + 0.5 * np.sum((weights.w - start) ** 2)
    return weights, (alpha, beta), found, value


def plain_values(problem, coding, Y, scores, p, q):
    """Objective (5) of every label, written out, and what is missed of its limits."""
    weights, is_hard = to_weights(p, q), problem.cap == np.inf
    values, least = np.empty(Y.shape[1]), np.empty(Y.shape[1])
    for j in range(Y.shape[1]):
        correcting = np.append(weights[j], q[j, 2])
        slack = privileged_features(Y, j, coding or "constant") @ correcting
        gradient = problem.y[:, j] * scores[:, j] - 1 + slack
        # Without a cap margins are limits, with one they have a price.
        price = 0.0 if is_hard else problem.cap
        paid = slack + price * np.maximum(-gradient, 0)
        values[j] = 0.5 * GAMMA * correcting @ correcting + problem.cost[:, j] @ paid
        least[j] = min(slack.min(), gradient.min()) if is_hard else slack.min()
    return values, least


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", CAPS)
def test_values_are_those_of_the_least_feasible_lift(labelled, coding, cap, rng):
    X, Y, cost = labelled
    problem, privilege = setup(X, Y, cost, coding, cap)
    scores = rng.normal(size=Y.shape)
    p, q = np.zeros((3, 3)), np.zeros((3, 3))
    for j in range(3):
        if coding is not None:
            beta = rng.random(len(privilege.sets.indptr) - 1)
            alpha = rng.random(30)
            rebuild_privileged(alpha, beta, cost[:, j], privilege, j, p[j], q[j])
    found, lift = primal_values(problem, privilege, scores, p, q)
    _, least = plain_values(problem, coding, Y, scores, p, q)
    np.testing.assert_allclose(lift, np.maximum(-least, 0), atol=1e-12)
    q[:, 2] += lift
    expected, least = plain_values(problem, coding, Y, scores, p, q)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert (least >= -1e-12).all()
    # What is feasible is not lifted again, and has the same value.
    again, lift = primal_values(problem, privilege, scores, p, q)
    np.testing.assert_allclose(lift, 0, atol=1e-12)
    np.testing.assert_allclose(again, found, rtol=1e-10)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", CAPS)
def test_with_one_component_a_label_they_are_the_problems_of_the_labels(
    labelled, coding, cap
):
    X, Y, cost = labelled
    weights, _, (_, gap, objective), value = descend(X, Y, cost, np.eye(3), coding, cap)
    expected = solve_privileged(
        X,
        sparse.csr_array(Y),
        cost=cost[:, 0],
        class_weight=None,
        gamma=GAMMA,
        slack_cap=cap,
        coding=coding,
        constant=1.0,
        tol=1e-10,
        max_iter=20_000,
        seeds=np.arange(3) + 1,
        n_jobs=None,
    )
    total = expected.objective.sum()
    assert objective == pytest.approx(total, rel=1e-5)
    assert value == pytest.approx(total, rel=1e-5)
    assert gap <= 1e-6 * objective
    np.testing.assert_allclose(weights.w.T, expected.solution, atol=3e-2)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", CAPS)
def test_multipliers_are_feasible_and_certify_the_objective(labelled, coding, cap, rng):
    X, Y, cost = labelled
    codes, start = plain_codes(rng), rng.normal(size=(5, 2))
    weights, (alpha, beta), (_, _, objective), value = descend(
        X, Y, cost, codes, coding, cap, start
    )
    assert alpha.min() >= 0
    assert beta.min(initial=0) >= 0
    assert (alpha <= (1.0 if coding is None else cap) * cost).all()
    assert objective == pytest.approx(value, rel=1e-5)
    problem, privilege = setup(X, Y, cost, coding, cap)
    design = np.column_stack([X, np.ones(30)])
    own = from_multipliers(problem, privilege, alpha, beta, codes, start, design)
    correcting = np.sum(to_weights(own.p, own.q) ** 2) + np.sum(own.q[:, 2] ** 2)
    squares = np.sum(start**2) - np.sum(own.w**2) - GAMMA * correcting
    dual = alpha.sum() + 0.5 * squares
    assert dual <= value * (1 + 1e-10)
    assert dual >= value * (1 - 1e-5)


@pytest.mark.parametrize("cap", CAPS)
def test_nothing_near_that_is_feasible_is_lower(labelled, cap, rng):
    X, Y, cost = labelled
    codes, start = plain_codes(rng), rng.normal(size=(5, 2))
    weights, _, _, least = descend(X, Y, cost, codes, "binary", cap, start)
    problem, privilege = setup(X, Y, cost, "binary", cap)
    design = np.column_stack([X, np.ones(30)])
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(10):
            components = weights.w + size * rng.normal(size=(5, 2))
            p, q = weights.p + size * rng.normal(size=(3, 3)), weights.q.copy()
            q[:, 2] += size * rng.normal(size=3)
            scores = design @ components @ codes.T
            values, _ = primal_values(problem, privilege, scores, p, q)
            value = values.sum() + 0.5 * np.sum((components - start) ** 2)
            assert value >= least * (1 - 1e-5)


def test_a_turn_of_the_codes_turns_the_components(labelled, rng):
    X, Y, cost = labelled
    codes, start = plain_codes(rng), rng.normal(size=(5, 2))
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    base = descend(X, Y, cost, codes, start=start)
    found = descend(X, Y, cost, codes @ turn, start=start @ turn)
    assert found[3] == pytest.approx(base[3], rel=1e-5)
    np.testing.assert_allclose(found[0].w, base[0].w @ turn, atol=3e-2)


def test_a_code_of_zero_leaves_the_components_where_they_are(labelled, rng):
    X, Y, cost = labelled
    start = rng.normal(size=(5, 2))
    weights, _, _, _ = descend(X, Y, cost, np.zeros((3, 2)), start=start)
    np.testing.assert_array_equal(weights.w, start)
    codes = np.array([[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]])
    weights, _, _, _ = descend(X, Y, cost, codes, start=start)
    # A component without a code is in nobody's scores.
    np.testing.assert_array_equal(weights.w[:, 1], start[:, 1])
    assert np.abs(weights.w[:, 0] - start[:, 0]).max() > 1e-3


@pytest.mark.parametrize("coding", ["signed", None])
def test_sparse_rows_agree(labelled, coding, rng):
    X, Y, cost = labelled
    X = np.where(np.abs(X) < 0.5, 0, np.round(X, 1))
    codes = plain_codes(rng)
    base = descend(X, Y, cost, codes, coding)[3]
    found = descend(sparse.csr_array(X), Y, cost, codes, coding)[3]
    assert found == pytest.approx(base, rel=1e-5)


def test_a_few_epochs_are_told(labelled, rng):
    X, Y, cost = labelled
    codes = plain_codes(rng)
    best = descend(X, Y, cost, codes)[3]
    for epochs in (1, 2, 5):
        _, _, (epoch, gap, _), value = descend(X, Y, cost, codes, epochs=epochs)
        assert epoch == epochs
        assert gap > 1e-6 * value
        # A feasible point is never below the optimum.
        assert value >= best * (1 - 1e-5)
