"""Folds that hold their share of every label."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.svm import LinearSVC

from sklcomp.model_selection import IterativeStratifiedKFold


@pytest.fixture
def labels(rng):
    """Labels from frequent to rare, with 7 examples of the rarest."""
    Y = (rng.random((300, 8)) < np.geomspace(0.5, 0.02, 8)).astype(int)
    Y[:, 7] = 0
    Y[rng.choice(300, 7, replace=False), 7] = 1
    return Y


def counts_per_fold(folds, Y):
    return np.array([Y[test].sum(axis=0) for _, test in folds.split(Y, Y)])


def test_folds_are_a_partition(labels):
    folds = IterativeStratifiedKFold(4, random_state=0)
    tests = []
    for train, test in folds.split(labels, labels):
        np.testing.assert_array_equal(
            np.sort(np.concatenate([train, test])), np.arange(300)
        )
        tests.append(test)
    assert folds.get_n_splits() == len(tests) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(300))


def test_every_label_is_shared_out(labels):
    counts = counts_per_fold(IterativeStratifiedKFold(5, random_state=0), labels)
    # The rarest is dealt out first, so evenly; the others nearly so.
    assert np.ptp(counts[:, 7]) == 1
    share = labels.sum(axis=0) / 5
    assert np.abs(counts - share).max() <= 3
    plain = counts_per_fold(KFold(5, shuffle=True, random_state=0), labels)
    assert np.abs(counts - share).mean() < 0.3 * np.abs(plain - share).mean()


def test_one_label_is_stratified_exactly(rng):
    y = rng.permutation(np.repeat([0, 1, 2], [50, 30, 20]))
    for _, test in IterativeStratifiedKFold(10, random_state=1).split(y, y):
        np.testing.assert_array_equal(np.bincount(y[test]), [5, 3, 2])


def test_rows_without_labels_keep_folds_equal():
    Y = np.zeros((23, 2), dtype=int)
    sizes = [
        len(test) for _, test in IterativeStratifiedKFold(4, random_state=0).split(Y, Y)
    ]
    assert sorted(sizes) == [5, 6, 6, 6]


def test_sparse_and_boolean_labels_give_the_same_folds(labels):
    expected = counts_per_fold(IterativeStratifiedKFold(3, random_state=0), labels)
    for Y in (labels > 0, sparse.csr_array(labels), sparse.csc_matrix(labels)):
        folds = IterativeStratifiedKFold(3, random_state=0).split(labels, Y)
        found = [labels[test].sum(axis=0) for _, test in folds]
        np.testing.assert_array_equal(found, expected)


def test_seed_decides_and_the_global_one_is_left_alone(labels):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (
        [test.tolist() for _, test in folds.split(labels, labels)]
        for folds in (
            IterativeStratifiedKFold(3, random_state=0),
            clone(IterativeStratifiedKFold(3, random_state=0), safe=False),
            IterativeStratifiedKFold(3, random_state=1),
        )
    )
    assert first == again
    assert first != other
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("n_splits", [0, 1, 301, 2.5, "5", True])
def test_impossible_numbers_of_folds_are_refused(labels, n_splits):
    with pytest.raises(ValueError, match=f"n_splits={n_splits!r} must be an integer"):
        next(IterativeStratifiedKFold(n_splits).split(labels, labels))


def test_labels_are_needed_and_as_many_as_examples(labels):
    with pytest.raises(ValueError, match="needs y"):
        next(IterativeStratifiedKFold().split(labels))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(IterativeStratifiedKFold().split(labels, labels[:50]))


def test_scikit_learn_takes_it_as_cv(labels, rng):
    X = rng.normal(size=(300, 3))
    scores = cross_val_score(
        MultiOutputClassifier(LinearSVC()),
        X,
        labels,
        cv=IterativeStratifiedKFold(3, random_state=0),
        scoring="f1_micro",
    )
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
