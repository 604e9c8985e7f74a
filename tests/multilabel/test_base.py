"""What both learners share, by hand."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.utils import compute_class_weight

from sklcomp.multilabel import PrivilegedMultiLabelClassifier, StreamingLabelClassifier
from sklcomp.multilabel._base import (
    LARGEST_COST,
    LARGEST_FEATURE,
    canonical,
    check_class_weight,
    check_scale,
    check_total,
    keep_weighted,
    label_weights,
    split_constant,
)

rng = np.random.default_rng(0)
X = rng.standard_normal((30, 4))
Y = sparse.csr_array((X[:, :3] > [0.3, -0.3, 0]).astype(np.int8))


def test_rows_without_weight_are_left_out(rng):
    weight = np.array([0, 1, 2, 0, 3] * 6, float)
    for given_X in (X, sparse.csr_array(X)):
        found, kept_weight, kept = keep_weighted(given_X, weight, 1.0)
        dense = found.toarray() if sparse.issparse(found) else found
        np.testing.assert_array_equal(dense, X[weight > 0])
        np.testing.assert_array_equal(kept_weight, weight[weight > 0])
        np.testing.assert_array_equal(kept, weight > 0)


@pytest.mark.parametrize("weight", [None, 2.0, np.ones(30, np.float32)])
def test_where_all_rows_count_nothing_is_copied(weight):
    found, kept_weight, kept = keep_weighted(X, weight, 1.0)
    assert found is X
    assert kept is None
    assert kept_weight.dtype == np.float64
    expected = 2.0 if isinstance(weight, float) else 1.0
    np.testing.assert_array_equal(kept_weight, np.full(30, expected))


def test_features_may_be_large_but_not_overflow():
    check_scale(np.array([[LARGEST_FEATURE, -LARGEST_FEATURE]]))
    check_scale(sparse.csr_array((3, 4)))
    message = "X has float64 features of size 2e.75, over 1e.75.*scale them first"
    for values in ([[2e75]], [[0.0, -2e75]]):
        for make in (np.array, sparse.csr_array):
            with pytest.raises(ValueError, match=message):
                check_scale(make(values))


@pytest.mark.parametrize("total", [np.inf, np.nan, 2 * LARGEST_COST])
def test_costs_that_overflow_are_named_with_the_cure(total):
    check_total(LARGEST_COST, "C")
    with pytest.raises(ValueError, match="C and W lead to a sum of .*; take less."):
        check_total(total, "C and W", "take less")


def test_weights_that_overflow_with_C_are_refused():
    with pytest.raises(ValueError, match="C=1e.70 and sample_weight lead to a sum"):
        keep_weighted(X, np.full(30, 1e5), 1e70)


def test_sparse_rows_become_canonical_and_are_copied_only_then():
    double = sparse.csr_array(
        (np.array([1.0, 2, 3]), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 3)
    )
    before = double.data.copy()
    found = canonical(double)
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), [[2, 0, 4]])
    np.testing.assert_array_equal(double.data, before)
    assert canonical(found) is found


@pytest.mark.parametrize(("class_weight", "message"), [
    ([{0: 1}, 0.5], r"a list that holds 0\.5; give one dictionary \{0: ..., 1: ...\}"),
    ({0: -1}, "class_weight gives -1 to the class 0; give finite numbers"),
    ({"a": np.inf}, "gives inf to the class 'a'"), ({1: np.nan}, "gives nan to the cl"),
    ({1: "2"}, "gives '2' to the class 1"), ([{0: 1}, {1: None}], "gives None to the"),
])  # fmt: skip
def test_class_weights_that_are_no_numbers_are_named(class_weight, message):
    with pytest.raises(ValueError, match=message):
        check_class_weight(class_weight)
    check_class_weight([{0: 0, 1: np.float32(2)}, {}])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_balanced_weights_are_those_of_scikit_learn_label_by_label(seed):
    rng = np.random.default_rng(seed)
    Y = rng.random((20, 4)) < 0.5
    Y[:2] = [[True] * 4, [False] * 4]
    weight = rng.integers(1, 4, 20).astype(float)
    found = label_weights(sparse.csr_array(Y.astype(np.int8)), weight, "balanced")
    for k, label in enumerate(Y.T):
        rows = np.repeat(label, weight.astype(int))
        want = compute_class_weight("balanced", classes=np.array([False, True]), y=rows)
        np.testing.assert_allclose(found[k], want)
    # Either class then has half of all the weight.
    costs = np.where(Y, found[:, 1], found[:, 0]) * weight[:, None]
    np.testing.assert_allclose((costs * Y).sum(0), weight.sum() / 2)


def test_weights_by_dictionary_are_of_one_or_of_each_label():
    ones = np.ones(30)
    same = label_weights(Y, ones, {0: 0.5, 1: 2})
    np.testing.assert_array_equal(same, [[0.5, 2]] * 3)
    each = label_weights(Y, ones, [{0: 0.5}, {}, {1: 3}])
    np.testing.assert_array_equal(each, [[0.5, 1], [1, 1], [1, 3]])
    for wrong in ([{0: 1}] * 2, {2: 1.0}, [{0: 1}, {0: 1}, {"a": 1}]):
        with pytest.raises(ValueError, match="does not fit 3 labels: give 'balanced'"):
            label_weights(Y, ones, wrong)


def test_constant_labels_are_told_from_others():
    Y = np.zeros((5, 14), np.int8)
    Y[:, 0], Y[:2, 1] = 1, 1
    varies, constant = split_constant(sparse.csr_array(Y), warn=False)
    assert varies.tolist() == [False, True] + [False] * 12
    assert constant[0] == 1
    assert (constant[2:] == -1).all()
    message = r"13 of 14 labels are constant in y \(columns 0, 2, .*, 10, \.\.\.\)"
    with pytest.warns(UserWarning, match=message):
        split_constant(sparse.csr_array(Y), warn=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_constant(sparse.csr_array(Y[:, 1:2]), warn=True)


LEARNERS = [
    PrivilegedMultiLabelClassifier(random_state=0),
    StreamingLabelClassifier(random_state=0),
]
each_learner = pytest.mark.parametrize(
    "learner", LEARNERS, ids=["privileged", "streaming"]
)


@each_learner
def test_scores_are_linear_and_labels_are_those_above_the_threshold(learner):
    model = learner.fit(X, Y.toarray())
    scores = model.decision_function(X)
    np.testing.assert_allclose(scores, X @ model.coef_.T + model.intercept_)
    np.testing.assert_allclose(model.decision_function(sparse.csr_array(X)), scores)
    limits = getattr(model, "thresholds_", 0.0)
    np.testing.assert_array_equal(model.predict(X), scores > limits)
    assert model.score(X, Y) == (model.predict(X) == Y.toarray()).all(axis=1).mean()


@each_learner
@pytest.mark.parametrize("classes", [["no", "yes"], [3, 7], [False, True]])
def test_two_classes_are_one_label(learner, classes):
    classes = np.array(classes)
    present = Y.toarray()[:, 0]
    first = learner.fit(X, classes[present]).decision_function(X)
    assert first.shape == (30,)
    np.testing.assert_array_equal(learner.classes_, classes)
    found = learner.predict(X)
    assert set(found.tolist()) <= set(classes.tolist())
    column = learner.fit(X, present[:, None]).decision_function(X)
    np.testing.assert_allclose(column, first)


@each_learner
def test_unknown_classes_are_named_when_they_are_scored(learner):
    model = learner.fit(X, np.arange(30) % 3)
    with pytest.raises(ValueError, match=r"y holds 7, 8; .* with the classes 0, 1, 2"):
        model._encode_again(np.array([0, 7, 8]))
    with pytest.raises(ValueError, match=r"y has shape \(2, 3\), but .* expecting 1"):
        model._encode_again(np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="cannot be fitted with n_samples=1; at least"):
        learner.fit(X[:1], [1])
