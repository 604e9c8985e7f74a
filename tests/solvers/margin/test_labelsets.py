"""Privileged inner products in O(labels of the example) against plain ones."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers._jit import njit
from sklcomp.solvers.margin._labelsets import (
    Privilege,
    as_labelsets,
    correction_of,
    make_feasible,
    rebuild_privileged,
    shift,
    squared_norm,
    sweep_sets,
    to_weights,
)
from tests.helpers.labels import privileged_features

CODINGS = ["signed", "binary", "constant"]


@njit
def corrections(sets, label, p, q):
    """Of every label set the correction and the squared norm of its features."""
    _, members, bounds, n_labels, signed = sets
    found = np.empty((2, bounds.size - 1))
    for g in range(bounds.size - 1):
        found[0, g], found[1, g] = correction_of(
            members, bounds[g], bounds[g + 1], label, n_labels, signed, p, q
        )
    return found


@njit
def move(sets, label, steps, p, q):
    _, members, bounds, _, signed = sets
    for g in range(steps.size):
        shift(members, bounds[g], bounds[g + 1], label, signed, steps[g], p, q)


@njit
def norm_of(p, q, label):
    return squared_norm(p, q, label)


@pytest.fixture(params=CODINGS)
def coded(request, rng):
    """Label sets of 30 examples, their features for label 2, and weights of these."""
    Y = (rng.random((30, 6)) < 0.4).astype(np.int8)
    Y[:4], Y[5] = Y[4], 0
    sets = as_labelsets(sparse.csr_array(Y), request.param)
    first = [np.flatnonzero(sets.group == g)[0] for g in range(len(sets.indptr) - 1)]
    features = privileged_features(Y, 2, request.param)[first]
    p, q = np.zeros(6), np.zeros(3)
    move(sets, 2, rng.normal(size=len(first)), p, q)
    return sets, features, p, q


def plain(p, q):
    """Weights of the other labels of label 2, and of the constant."""
    weights = np.append(p + q[0], q[2])
    weights[2] = 0
    return weights


@pytest.mark.parametrize("coding", CODINGS)
def test_weights_from_multipliers_equal_the_plain_sum(rng, coding):
    Y = (rng.random((30, 6)) < 0.4).astype(np.int8)
    Y[:4] = Y[4]
    Y[5] = 0
    sets = as_labelsets(sparse.csr_array(Y), coding)
    n_sets = len(sets.indptr) - 1
    assert n_sets == (1 if coding == "constant" else len(np.unique(Y, axis=0)))
    alpha, cost = rng.random(30), rng.random(30)
    beta, gamma = rng.random(n_sets), 3.0
    p, q = np.zeros((6, 6)), np.zeros((6, 3))
    for j in range(6):
        rebuild_privileged(alpha, beta, cost, Privilege(sets, gamma), j, p[j], q[j])
    moment = alpha - cost
    for g in range(n_sets):
        # One multiplier for all examples of a set; which of them holds it is free.
        moment[np.flatnonzero(sets.group == g)[0]] += beta[g]
    signs = {"signed": 2.0 * Y - 1, "binary": 1.0 * Y, "constant": 0.0 * Y}[coding]
    expected = np.tile(moment @ signs / gamma, (6, 1))
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(to_weights(p, q), expected, atol=1e-12)
    np.testing.assert_allclose(q[:, 2], moment.sum() / gamma, atol=1e-12)


def test_without_privilege_there_is_no_set():
    sets = as_labelsets(sparse.csr_array(np.eye(3, dtype=np.int8)), None)
    assert len(sets.indptr) == 1


def test_equal_label_sets_are_one_whatever_their_order():
    # Indices that do not ascend, as scipy leaves them after a product.
    indices, indptr = np.array([2, 0, 0, 2, 1]), np.array([0, 2, 4, 5, 5])
    Y = sparse.csr_array((np.ones(5), indices, indptr), shape=(4, 3))
    sets = as_labelsets(Y, "signed")
    np.testing.assert_array_equal(sets.group, [0, 0, 1, 2])
    np.testing.assert_array_equal(sets.members, [0, 2, 1])
    np.testing.assert_array_equal(sets.indptr, [0, 2, 3, 3])


def test_every_example_has_the_members_of_its_set(rng):
    Y = (rng.random((50, 7)) < 0.3).astype(np.int8)
    sets = as_labelsets(sparse.csr_array(Y), "binary")
    for i in range(50):
        g = sets.group[i]
        own = sets.members[sets.indptr[g] : sets.indptr[g + 1]]
        np.testing.assert_array_equal(own, np.flatnonzero(Y[i]))


def test_a_shift_adds_the_features_of_a_set(coded, rng):
    sets, features, p, q = coded
    before, steps = plain(p, q), rng.normal(size=len(features))
    move(sets, 2, steps, p, q)
    np.testing.assert_allclose(plain(p, q), before + steps @ features, atol=1e-12)
    # The sum of p is held along, and label 2 has no weight in itself.
    others = np.arange(6) != 2
    assert p[2] == 0
    if sets.signed:
        assert q[1] == pytest.approx(p[others].sum(), abs=1e-12)
    move(sets, 2, -steps, p, q)
    np.testing.assert_allclose(plain(p, q), before, atol=1e-12)


def test_corrections_are_inner_products_with_the_features(coded):
    sets, features, p, q = coded
    slack, size = corrections(sets, 2, p, q)
    np.testing.assert_allclose(slack, features @ plain(p, q), atol=1e-12)
    np.testing.assert_array_equal(size, np.sum(features**2, axis=1))
    expected = np.sum(plain(p, q) ** 2)
    assert norm_of(p, q, 2) == pytest.approx(expected, rel=1e-12)


def test_each_beta_of_a_sweep_is_the_best_while_others_are_fixed(coded, rng):
    sets, features, p, q = coded
    gamma, beta = 3.0, rng.uniform(0, 1, len(features))
    beta[::2] = 0
    weights, expected = plain(p, q), beta.copy()
    least, total = 0.0, 0.0
    for g, own in enumerate(features):
        slack = own @ weights
        least, total = min(least, slack), total + expected[g] * slack
        best = max(0.0, expected[g] - gamma * slack / (own @ own))
        weights += (best - expected[g]) / gamma * own
        expected[g] = best
        # Either no correction is left, or its multiplier has none to give.
        assert best == 0 or abs(own @ weights) < 1e-12
    estimate, worst = sweep_sets(Privilege(sets, gamma), 2, beta, p, q)
    np.testing.assert_allclose(beta, expected, atol=1e-12)
    np.testing.assert_allclose(plain(p, q), weights, atol=1e-12)
    assert estimate == pytest.approx(total, abs=1e-12)
    assert worst == pytest.approx(-least, abs=1e-12)


def test_sweeps_end_where_no_correction_is_negative(coded):
    sets, features, p, q = coded
    start, beta = plain(p, q), np.zeros(len(features))
    for _ in range(20_000):
        estimate, worst = sweep_sets(Privilege(sets, 3.0), 2, beta, p, q)
        if worst < 1e-10:
            break
    weights = plain(p, q)
    # It is the projection on the weights that correct upwards: multipliers are not
    # negative, and vanish where the correction does not.
    assert (features @ weights).min() > -1e-9
    assert beta.min() >= 0
    np.testing.assert_allclose(beta * (features @ weights), 0, atol=1e-8)
    np.testing.assert_allclose(weights, start + beta @ features / 3, atol=1e-9)


def test_a_lift_raises_all_corrections_and_nan_removes_them(coded):
    sets, _, p, q = coded
    before, _ = corrections(sets, 2, p, q)
    make_feasible(0.75, p, q)
    np.testing.assert_allclose(corrections(sets, 2, p, q)[0], before + 0.75, atol=1e-12)
    make_feasible(np.nan, p, q)
    assert not corrections(sets, 2, p, q)[0].any()
    assert not plain(p, q).any()


@pytest.mark.parametrize("coding", CODINGS)
def test_one_label_has_the_constant_alone(rng, coding):
    Y = np.array([[1], [0], [1]])
    sets = as_labelsets(sparse.csr_array(Y), coding)
    p, q = np.zeros(1), np.zeros(3)
    steps = rng.normal(size=len(sets.indptr) - 1)
    move(sets, 0, steps, p, q)
    slack, size = corrections(sets, 0, p, q)
    np.testing.assert_allclose(slack, steps.sum(), atol=1e-12)
    np.testing.assert_array_equal(size, 1)
