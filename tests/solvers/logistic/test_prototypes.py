"""Prototypes: the commonest label sets, or clusters; and what they say of labels."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers.logistic._prototypes import assign_prototypes, label_shares

SETS = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]])


@pytest.fixture
def common(rng):
    """Three sets that 45 of 60 rows have, in any order, and rows that are near some."""
    Y = np.repeat(SETS, [20, 15, 10], axis=0)
    odd = rng.integers(0, 2, size=(15, 6))
    return rng.permutation(np.vstack([Y, odd]))


def assign(Y, n_prototypes, weight=None, seed=0):
    weight = np.ones(len(Y)) if weight is None else weight
    rng = np.random.RandomState(seed)
    return assign_prototypes(sparse.csr_array(Y), n_prototypes, weight, rng)


def distances(Y, sets):
    return (Y[:, None] != sets[None]).sum(axis=2)


def assert_by_size(assigned, weight):
    sizes = np.bincount(assigned, weights=weight)
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()


@pytest.mark.parametrize("n_prototypes", [2, 3])
def test_each_row_goes_to_the_nearest_of_the_commonest_sets(common, n_prototypes):
    assigned = assign(common, n_prototypes)
    assert_by_size(assigned, np.ones(60))
    assert assigned.max() == n_prototypes - 1
    sets = SETS[:n_prototypes]
    # A set goes to itself, which tells its number.
    numbers = [np.unique(assigned[(common == one).all(axis=1)]) for one in sets]
    assert sorted(np.concatenate(numbers)) == list(range(n_prototypes))
    own = np.argsort(np.concatenate(numbers))[assigned]
    away = distances(common, sets)
    np.testing.assert_array_equal(away[np.arange(60), own], away.min(axis=1))


def test_the_order_of_the_rows_does_not_matter(common, rng):
    order = rng.permutation(60)
    np.testing.assert_array_equal(assign(common, 5)[order], assign(common[order], 5))


def test_weights_are_repeated_rows(common, rng):
    times = rng.integers(1, 4, 60)
    repeated = assign(np.repeat(common, times, axis=0), 3)
    weighted = assign(common, 3, times.astype(float))
    np.testing.assert_array_equal(np.repeat(weighted, times), repeated)
    assert_by_size(weighted, times)


def test_a_set_seen_once_is_no_prototype():
    once = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 0]])
    Y = np.vstack([np.repeat(SETS, [9, 6, 3], axis=0), once])
    assigned = assign(Y, 10)
    assert assigned.max() == 2
    away = distances(once, SETS)
    np.testing.assert_array_equal(assigned[-2:], away.argmin(axis=1))
    # Two of them are, where nothing is common.
    np.testing.assert_array_equal(np.sort(assign(once, 10)), [0, 1])


def test_two_common_sets_are_enough_whatever_is_asked(rng):
    Y = np.repeat(SETS[:2], [40, 20], axis=0)
    np.testing.assert_array_equal(assign(Y, 60), np.repeat([0, 1], [40, 20]))


def test_clusters_where_no_set_is_common(rng):
    # Of 2 ** 14 sets hardly one is seen twice.
    Y = rng.integers(0, 2, size=(60, 14))
    weight = rng.uniform(0.5, 2.0, 60)
    assigned = assign(Y, 4, weight)
    assert_by_size(assigned, weight)
    assert assigned.max() == 3
    # Each row is nearest to the mean of its own cluster: k-means has ended.
    rows = Y / np.sqrt(np.maximum(Y.sum(axis=1), 1))[:, None]
    means = np.array(
        [
            np.average(rows[assigned == k], axis=0, weights=weight[assigned == k])
            for k in range(4)
        ]
    )
    away = ((rows[:, None] - means) ** 2).sum(axis=2)
    assert (away[np.arange(60), assigned] <= away.min(axis=1) + 1e-2).all()
    np.testing.assert_array_equal(assigned, assign(Y, 4, weight))


def test_shares_are_means_drawn_to_the_frequency_by_one_row(common, rng):
    assigned, weight = assign(common, 3), rng.uniform(0.5, 2.0, 60)
    shares = label_shares(sparse.csr_array(common), assigned, 4, weight)
    prior = (weight @ common + 0.5) / (weight.sum() + 1.0)
    for k in range(3):
        rows = np.vstack([common[assigned == k], prior])
        expected = np.average(rows, axis=0, weights=[*weight[assigned == k], 1.0])
        np.testing.assert_allclose(shares[k], expected, rtol=1e-12)
    # Of a prototype without rows nothing else is known.
    np.testing.assert_allclose(shares[3], prior, rtol=1e-12)


def test_shares_of_labels_that_no_row_or_every_row_has_are_inside():
    Y = np.column_stack([np.zeros(50, int), np.ones(50, int)])
    shares = label_shares(sparse.csr_array(Y), np.repeat([0, 1], 25), 2, np.ones(50))
    rare = 0.5 / 51.0 / 26.0
    np.testing.assert_allclose(shares, [[rare, 1.0 - rare]] * 2, rtol=1e-12)
    assert (shares > 0.0).all()
    assert (shares < 1.0).all()


def test_shares_come_to_the_means_as_weights_grow(common, rng):
    assigned, weight = assign(common, 3), rng.uniform(0.5, 2.0, 60)
    shares = label_shares(sparse.csr_array(common), assigned, 3, 1e9 * weight)
    for k in range(3):
        rows = assigned == k
        means = np.average(common[rows], axis=0, weights=weight[rows])
        np.testing.assert_allclose(shares[k], means, atol=1e-8)
