"""Every fold its share of every label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sklcomp.utils._stratification import _largest, stratify


def folds_of(Y, n_splits, seed=0):
    Y = sparse.csr_array(np.asarray(Y, dtype=np.int8))
    return stratify(Y, n_splits, np.random.RandomState(seed))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(0, 4))
def test_every_row_is_in_one_fold_and_a_lone_label_is_shared_evenly(
    seed, n_splits, n_labels
):
    rng = np.random.default_rng(seed)
    Y = rng.random((n_splits * 8 + 3, n_labels)) < 0.3
    folds = folds_of(Y, n_splits, seed)
    assert ((folds >= 0) & (folds < n_splits)).all()
    # Exclusive labels are dealt out one after the other, as if each were alone.
    own = rng.integers(0, n_labels + 1, len(Y))
    folds = folds_of(own[:, None] == np.arange(n_labels), n_splits, seed)
    for label in range(n_labels):
        counts = np.bincount(folds[own == label], minlength=n_splits)
        assert np.ptp(counts) <= 1


@pytest.mark.parametrize("n_splits", [2, 3, 7])
def test_without_labels_folds_are_of_equal_size(n_splits):
    for Y in (np.zeros((23, 0)), np.zeros((23, 4))):
        counts = np.bincount(folds_of(Y, n_splits), minlength=n_splits)
        assert counts.max() - counts.min() <= 1


def test_labels_that_all_have_do_not_disturb():
    # They say nothing: sizes stay equal and the other label stays shared.
    rng = np.random.default_rng(0)
    rare = np.zeros(40, int)
    rare[rng.choice(40, 8, replace=False)] = 1
    folds = folds_of(np.column_stack([np.ones(40), rare, np.ones(40)]), 4)
    np.testing.assert_array_equal(np.bincount(folds), [10] * 4)
    np.testing.assert_array_equal(np.bincount(folds[rare == 1]), [2] * 4)


def test_rarest_label_is_dealt_out_first():
    # Two examples hold both labels: as the rare one they must be in unlike folds.
    Y = np.zeros((20, 2), int)
    Y[:10, 0] = 1
    Y[[0, 1], 1] = 1
    for seed in range(5):
        folds = folds_of(Y, 2, seed)
        assert folds[0] != folds[1]
        np.testing.assert_array_equal(np.bincount(folds[:10]), [5, 5])


def test_seed_decides_alone_and_the_labels_are_left_as_they_are():
    rng = np.random.default_rng(0)
    Y = sparse.csr_array((rng.random((60, 5)) < 0.3).astype(np.int8))
    before = Y.copy()
    first, again, other = (
        stratify(Y, 3, np.random.RandomState(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (before != Y).nnz == 0


def test_folds_are_as_good_whatever_the_order_of_rows_and_labels():
    rng = np.random.default_rng(0)
    Y = (rng.random((200, 6)) < np.linspace(0.05, 0.4, 6)).astype(int)
    wanted = Y.sum(axis=0) / 4
    rows, columns = rng.permutation(200), rng.permutation(6)
    for one, share in ((Y, wanted), (Y[rows][:, columns], wanted[columns])):
        folds = folds_of(one, 4)
        counts = np.array([one[folds == k].sum(axis=0) for k in range(4)])
        assert np.abs(counts - share).max() <= 3
        assert np.ptp(np.bincount(folds)) <= 6


@pytest.mark.parametrize(("first", "second", "possible"), [
    ([1, 3, 2], [0, 0, 0], {1}), ([3, 1, 3], [1, 9, 2], {2}),
    ([3, 3, 1], [2, 2, 9], {0, 1}), ([0.1 * 3, 0.3, 0], [1, 1, 1], {0, 1}),
])  # fmt: skip
def test_largest_by_the_first_then_by_the_second_then_by_chance(
    first, second, possible
):
    rng = np.random.RandomState(0)
    first, second = np.array(first, float), np.array(second, float)
    assert {_largest(first, second, rng) for _ in range(40)} == possible
