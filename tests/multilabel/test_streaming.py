"""Labels that arrive: what stays, what is inherited, and when it is nothing."""

import copy

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

from sklcomp.multilabel import StreamingLabelClassifier
from sklcomp.solvers.margin import _arriving

TIGHT = {"tol": 1e-10, "max_iter": 20000, "random_state": 0}


@pytest.fixture
def stream(rng):
    """Examples, three labels, and two more that follow from them."""
    X = rng.normal(size=(80, 5))
    Y = (X @ rng.normal(size=(5, 3)) + 0.5 * rng.normal(size=(80, 3)) > 0).astype(int)
    new = np.column_stack([Y[:, 0] | Y[:, 1], Y[:, 2] ^ (X[:, 0] > 1)])
    return X, Y, new


def state_of(model):
    return joblib.hash(vars(model))


def test_no_prior_equals_liblinear(stream):
    X, Y, new = stream
    model = StreamingLabelClassifier(prior_scale=0.0, **TIGHT).fit(X, Y)
    model.add_labels(X[:50], new[:50], y_past=Y[:50])
    for j in range(5):
        rows = slice(None) if j < 3 else slice(50)
        y = np.column_stack([Y, new])[rows, j]
        rival = LinearSVC(loss="hinge", tol=1e-10, max_iter=10**6, random_state=0)
        rival.fit(X[rows], y)
        np.testing.assert_allclose(model.coef_[j], rival.coef_[0], atol=1e-4)
        np.testing.assert_allclose(model.intercept_[j], rival.intercept_[0], atol=1e-4)
    np.testing.assert_array_equal(model.prior_scale_, [0, 0])


def test_a_label_added_from_scratch_equals_one_of_the_fit(stream):
    X, Y, new = stream
    for loss in ("hinge", "squared_hinge", "squared_error"):
        settings = {"loss": loss, "prior_scale": 0.0, **TIGHT}
        model = StreamingLabelClassifier(**settings).fit(X, Y)
        model.add_labels(X, new, y_past=Y)
        whole = StreamingLabelClassifier(**settings).fit(X, np.column_stack([Y, new]))
        np.testing.assert_allclose(model.coef_, whole.coef_, atol=1e-5)
        np.testing.assert_allclose(model.intercept_, whole.intercept_, atol=1e-5)


def test_squared_losses_equal_scikit_learn(stream):
    X, Y, _ = stream
    model = StreamingLabelClassifier(C=0.7, loss="squared_hinge", **TIGHT).fit(X, Y)
    rival = LinearSVC(C=0.7, tol=1e-10, max_iter=10**6, random_state=0).fit(X, Y[:, 1])
    np.testing.assert_allclose(model.coef_[1], rival.coef_[0], atol=1e-5)
    model = StreamingLabelClassifier(C=0.7, loss="squared_error").fit(X, Y)
    ridge = Ridge(alpha=1 / 0.7, fit_intercept=False)
    ridge.fit(np.column_stack([X, np.ones(80)]), 2 * Y - 1)
    np.testing.assert_allclose(model.coef_, ridge.coef_[:, :5], atol=1e-9)
    np.testing.assert_allclose(model.intercept_, ridge.coef_[:, 5], atol=1e-9)


@pytest.mark.parametrize("representation", ["labels", "scores"])
def test_representation_is_ridge_regression(stream, representation):
    X, Y, new = stream
    model = StreamingLabelClassifier(representation=representation, alpha=3.0, **TIGHT)
    model.fit(X, Y)
    features = 2 * Y - 1
    if representation == "scores":
        features = np.clip(model.decision_function(X), -2, 2)
    weight = np.linspace(0.5, 2, 80)
    model.add_labels(X, new, y_past=Y, sample_weight=weight)
    added = 2 * new[:, 0] - 1
    if representation == "scores":
        added = np.clip(model.decision_function(X)[:, 3], -2, 2)
    for t, known in enumerate([features, np.column_stack([features, added])]):
        ridge = Ridge(alpha=3.0).fit(known, 2 * new[:, t] - 1, sample_weight=weight)
        np.testing.assert_allclose(model.representation_[t], ridge.coef_, atol=1e-8)


@pytest.mark.parametrize("representation", ["labels", "scores"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_prior_scale_comes_from_scores_that_leave_their_example_out(
    stream, representation, fit_intercept
):
    X, Y = (array[:25] for array in stream[:2])
    model = StreamingLabelClassifier(
        representation=representation, fit_intercept=fit_intercept, alpha=2.0, **TIGHT
    ).fit(X, Y)
    scores = model.decision_function(X)
    features = np.clip(scores, -2, 2) if representation == "scores" else 2 * Y - 1
    # Follows from the first label, but not quite.
    label = np.where(np.arange(25) % 6, Y[:, 0], 1 - Y[:, 0])
    y = 2.0 * label - 1
    inherited = np.empty(25)
    for i in range(25):
        others = np.arange(25) != i
        ridge = Ridge(alpha=2.0, fit_intercept=fit_intercept)
        ridge.fit(features[others], y[others])
        inherited[i] = scores[i] @ ridge.coef_ + ridge.intercept_
    columns = [inherited, np.ones(25)] if fit_intercept else [inherited]
    least_squares = np.linalg.lstsq(np.column_stack(columns), y, rcond=None)[0]
    model.add_labels(X, label, y_past=Y)
    expected = np.clip(least_squares[0], 0, 1)
    assert 0 < expected < 1
    np.testing.assert_allclose(model.prior_scale_, [expected], rtol=1e-8)


def test_small_cost_leaves_the_inherited_hypothesis(stream):
    X, Y, new = stream
    for loss in ("hinge", "squared_hinge", "squared_error"):
        model = StreamingLabelClassifier(loss=loss, random_state=0).fit(X, Y)
        model.set_params(C=1e-9, prior_scale=1.0).add_labels(X, new[:, 0], y_past=Y)
        expected = model.representation_[0] @ model.coef_[:3]
        np.testing.assert_allclose(model.coef_[3], expected, atol=1e-6)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "squared_error"])
@pytest.mark.parametrize("representation", ["labels", "scores"])
def test_a_batch_equals_one_after_the_other(stream, loss, representation):
    X, Y, new = stream
    settings = {"loss": loss, "representation": representation, **TIGHT}
    batch = StreamingLabelClassifier(**settings).fit(X, Y)
    single = copy.deepcopy(batch)
    batch.add_labels(X, new, y_past=Y)
    single.add_labels(X, new[:, 0], y_past=Y)
    single.add_labels(X, new[:, 1], y_past=np.column_stack([Y, new[:, 0]]))
    np.testing.assert_allclose(batch.coef_, single.coef_, atol=1e-5)
    np.testing.assert_allclose(batch.prior_scale_, single.prior_scale_, atol=1e-5)
    for found, expected in zip(
        batch.representation_, single.representation_, strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_old_columns_stay_bit_identical(stream):
    X, Y, new = stream
    model = StreamingLabelClassifier(random_state=0).fit(X.astype(np.float32), Y)
    coef, intercept = model.coef_.copy(), model.intercept_.copy()
    model.add_labels(X, new, y_past=Y)
    assert model.coef_.dtype == np.float32
    np.testing.assert_array_equal(model.coef_[:3], coef)
    np.testing.assert_array_equal(model.intercept_[:3], intercept)
    assert model.predict(X).shape == (80, 5)
    np.testing.assert_array_equal(model.classes_, np.arange(5))


def test_related_labels_help_with_few_examples():
    # The new label is a past one; with eight annotations its hypothesis comes along.
    rng = np.random.default_rng(3)
    X = rng.normal(size=(500, 30))
    Y = (X @ rng.normal(size=(30, 4)) > 0).astype(int)
    few = slice(8)
    scores = {}
    for scale in (0.0, "auto"):
        model = StreamingLabelClassifier(prior_scale=scale, alpha=1.0, random_state=0)
        model.fit(X, Y).add_labels(X[few], Y[few, 2], y_past=Y[few])
        scores[scale] = (model.predict(X)[:, 4] == Y[:, 2]).mean()
    assert scores["auto"] > scores[0.0] + 0.1


def test_unrelated_labels_are_learned_from_scratch(rng):
    X = rng.normal(size=(300, 6))
    Y = (X[:, :3] > 0).astype(int)
    new = (X[:, 5] > 0).astype(int)
    model = StreamingLabelClassifier(random_state=0).fit(X, Y)
    model.add_labels(X, new, y_past=Y)
    assert model.prior_scale_[0] < 0.2


def test_a_failing_call_changes_nothing(stream, monkeypatch):
    X, Y, new = stream
    model = StreamingLabelClassifier(random_state=0).fit(X, Y)
    model.add_labels(X, new[:, 0], y_past=Y, label_names="first")
    before, predictions = state_of(model), model.predict(X)
    known = np.column_stack([Y, new[:, 0]])
    for settings, message in (
        ({"label_names": "first"}, "'first' is there already"),
        ({"label_names": 2}, "label_names=2 is neither"),
        ({"label_names": ["a", "b"]}, "2 names are given for 1"),
        ({"y_past": Y}, r"y_past has shape \(80, 3\), but \(80, 4\)"),
        ({"y_past": known[:50]}, r"y_past has shape \(50, 4\)"),
        ({"y_past": known + 1}, "y_past holds 2"),
        ({"sample_weight": np.zeros(80)}, "at least one non-zero"),
        ({"sample_weight": -np.ones(80)}, "[Nn]egative"),
        ({"y_new": np.empty((80, 0))}, "at least one column"),
        ({"y_new": new[:50, 1]}, "inconsistent numbers of samples"),
        ({"y_new": np.where(new[:, 1], "yes", "no")}, "y_new holds 'no', 'yes'"),
        ({"X": X[:, :3]}, "expecting 5 features"),
        ({"X": np.full_like(X, np.nan)}, "contains NaN"),
        ({"X": np.full_like(X, 1e100)}, "scale them first"),
    ):
        call = {"X": X, "y_new": new[:, 1], "y_past": known, **settings}
        with pytest.raises((ValueError, TypeError), match=message):
            model.add_labels(**call)
        assert state_of(model) == before, message
    calls = []

    def fail_at_the_second(*args, **settings):
        calls.append(settings)
        if len(calls) == 2:
            raise MemoryError
        return solve(*args, **settings)

    solve = _arriving.solve_hinge
    monkeypatch.setattr(_arriving, "solve_hinge", fail_at_the_second)
    with pytest.raises(MemoryError):
        model.add_labels(X, new, y_past=known)
    assert len(calls) == 2
    assert state_of(model) == before
    np.testing.assert_array_equal(model.predict(X), predictions)


def test_adding_comes_after_fitting(stream):
    X, Y, new = stream
    with pytest.raises(NotFittedError):
        StreamingLabelClassifier().add_labels(X, new, y_past=Y)
    model = StreamingLabelClassifier(random_state=0).fit(X, Y)
    model.add_labels(X, new, y_past=Y)
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    assert model.fit(X, Y).n_labels_ == 3
    assert model.representation_ == []


def test_one_column_of_zeros_and_ones_can_be_extended(stream):
    X, Y, new = stream
    model = StreamingLabelClassifier(random_state=0).fit(X, Y[:, 0])
    model.add_labels(X, new[:, 0], y_past=Y[:, 0])
    assert model.predict(X).shape == (80, 2)
    for y in (Y[:, 0] + 1, np.where(Y[:, 0], "a", "b"), Y @ [1, 1, 1]):
        model = StreamingLabelClassifier(random_state=0).fit(X, y)
        with pytest.raises(ValueError, match="labels cannot be added"):
            model.add_labels(X, new[:, 0])


def test_names_come_from_frames_arguments_or_numbers(stream):
    X, Y, new = stream
    frame = pd.DataFrame(Y, columns=["sad", "calm", "loud"])
    model = StreamingLabelClassifier(random_state=0).fit(X, frame)
    model.add_labels(X, pd.Series(new[:, 0], name="happy"), y_past=frame)
    model.add_labels(X, new[:, 1], label_names=[5])
    model.add_labels(X, new)
    assert model.label_names_.tolist() == ["sad", "calm", "loud", "happy", 5, 6, 7]
    with pytest.raises(ValueError, match="'sad' 2 times"):
        StreamingLabelClassifier().fit(X, frame.set_axis(["sad", "b", "sad"], axis=1))


@pytest.mark.parametrize("name", ["mood", None])
def test_classes_are_the_names_of_multi_class_labels(stream, name):
    X, Y, _ = stream
    y = pd.Series(np.array(["low", "mid", "high"])[Y[:, 0] + Y[:, 1]], name=name)
    for targets in (y, y.to_frame()):
        model = StreamingLabelClassifier(random_state=0).fit(X, targets)
        assert model.label_names_.tolist() == ["high", "low", "mid"]


def test_without_intercept_none_is_inherited_from_constant_labels(stream):
    X, Y, new = stream
    model = StreamingLabelClassifier(fit_intercept=False, alpha=1.0, **TIGHT)
    with pytest.warns(UserWarning, match="1 of 4 labels are constant"):
        model.fit(X, np.column_stack([Y, np.ones(80)]))
    with pytest.warns(UserWarning, match="1 of 3 labels are constant"):
        model.add_labels(X, np.column_stack([new[:, 0], np.ones(80), new[:, 1]]))
    np.testing.assert_array_equal(model.intercept_, [0, 0, 0, 1, 0, 1, 0])
    assert (model.prior_scale_[[0, 2]] > 0).all()


def test_the_scale_of_a_prior_does_not_count_constant_labels(stream):
    # Their scores are no part of the hypothesis, which has no intercept.
    X, Y, new = (array[:25] for array in stream)
    past = np.column_stack([Y, np.ones(25)])
    model = StreamingLabelClassifier(fit_intercept=False, alpha=2.0, **TIGHT)
    with pytest.warns(UserWarning, match="1 of 4 labels are constant"):
        model.fit(X, past)
    scores = X @ model.coef_.T
    y, inherited = 2.0 * new[:, 0] - 1, np.empty(25)
    for i in range(25):
        others = np.arange(25) != i
        ridge = Ridge(alpha=2.0, fit_intercept=False)
        inherited[i] = scores[i] @ ridge.fit((2 * past - 1)[others], y[others]).coef_
    expected = np.clip(inherited @ y / (inherited @ inherited), 0, 1)
    assert 0 < expected < 1
    model.add_labels(X, new[:, 0], y_past=past)
    np.testing.assert_allclose(model.prior_scale_, [expected], rtol=1e-8)


@pytest.mark.parametrize("representation", ["labels", "scores"])
def test_frames_without_past_labels_need_no_other_names(stream, representation):
    X, Y, new = stream
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = StreamingLabelClassifier(representation=representation, random_state=0)
    model.fit(frame, Y).add_labels(frame, new)
    assert model.n_labels_ == 5


@pytest.mark.parametrize("value", [0, 1])
def test_labels_are_added_to_one_that_is_constant(stream, value):
    X, _, new = stream
    with pytest.warns(UserWarning, match="1 of 1 labels are constant"):
        model = StreamingLabelClassifier().fit(X, np.full((80, 1), value))
    predicted = model.add_labels(X, new).predict(X)
    np.testing.assert_array_equal(predicted[:, 0], value)


def test_without_past_labels_predictions_stand_in(stream):
    X, Y, new = stream
    model = StreamingLabelClassifier(random_state=0).fit(X, Y)
    given = copy.deepcopy(model).add_labels(X, new, y_past=model.predict(X))
    assumed = copy.deepcopy(model).add_labels(X, new)
    np.testing.assert_array_equal(given.coef_, assumed.coef_)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "squared_error"])
@pytest.mark.parametrize("representation", ["labels", "scores"])
def test_weight_zero_is_a_row_removed_and_two_is_a_row_twice(
    stream, loss, representation
):
    X, Y, new = stream
    weight = np.tile([0, 1, 2, 1], 20)
    rows = np.repeat(np.arange(80), weight)
    settings = {"loss": loss, "representation": representation, **TIGHT}
    weighted = StreamingLabelClassifier(**settings).fit(X, Y, sample_weight=weight)
    weighted.set_params(prior_scale=0.7)
    weighted.add_labels(X, new, y_past=Y, sample_weight=weight)
    repeated = StreamingLabelClassifier(**settings).fit(X[rows], Y[rows])
    repeated.set_params(prior_scale=0.7)
    repeated.add_labels(X[rows], new[rows], y_past=Y[rows])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-5)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, atol=1e-5)


@pytest.mark.parametrize("loss", ["hinge", "squared_error"])
def test_sparse_equals_dense(stream, loss):
    X, Y, new = stream
    X = np.where(np.abs(X) < 0.5, 0.0, X)
    settings = {"loss": loss, **TIGHT}
    dense = StreamingLabelClassifier(**settings).fit(X, Y)
    dense.add_labels(X, new, y_past=Y)
    for make in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        model = StreamingLabelClassifier(**settings).fit(make(X), make(Y))
        model.add_labels(make(X), make(new), y_past=make(Y))
        np.testing.assert_allclose(model.coef_, dense.coef_, atol=1e-6)
        found = model.predict(make(X))
        assert sparse.issparse(found)
        np.testing.assert_array_equal(found.toarray(), dense.predict(X))


def test_wide_and_tall_ridge_agree(rng):
    X = rng.normal(size=(12, 30))
    Y = (rng.random((12, 2)) > 0.5).astype(int)
    model = StreamingLabelClassifier(loss="squared_error").fit(X, Y)
    ridge = Ridge(alpha=1.0, fit_intercept=False, solver="svd")
    ridge.fit(np.column_stack([X, np.ones(12)]), 2 * Y - 1)
    np.testing.assert_allclose(model.coef_, ridge.coef_[:, :-1], atol=1e-10)


def test_large_ridge_agrees_with_the_factorised_one(stream, monkeypatch):
    X, Y, _ = stream
    small = StreamingLabelClassifier(loss="squared_error").fit(X, Y)
    monkeypatch.setattr("sklcomp.solvers.margin._streaming.LARGEST_FACTOR", 3)
    for features in (X, sparse.csr_array(X)):
        large = StreamingLabelClassifier(loss="squared_error").fit(features, Y)
        np.testing.assert_allclose(large.coef_, small.coef_, atol=1e-5)


def test_threads_and_seeds_do_not_change_the_result(stream):
    X, Y, new = stream
    models = [
        StreamingLabelClassifier(n_jobs=n_jobs, random_state=7)
        .fit(X, Y)
        .add_labels(X, new, y_past=Y)
        for n_jobs in (1, 2, 1)
    ]
    for model in models[1:]:
        np.testing.assert_array_equal(model.coef_, models[0].coef_)


def test_constant_labels_are_predicted_as_such(stream):
    X, Y, new = stream
    model = StreamingLabelClassifier(random_state=0).fit(X, Y)
    with pytest.warns(UserWarning, match="2 of 3 labels are constant"):
        model.add_labels(X, np.column_stack([np.ones(80), new[:, 0], np.zeros(80)]))
    assert model.predict(X)[:, 3].all()
    assert not model.predict(X)[:, 5].any()
    assert np.isfinite(model.decision_function(X)).all()


def test_reaching_max_iter_warns_once_and_is_usable(stream):
    X, Y, new = stream
    model = StreamingLabelClassifier(random_state=0).fit(X, Y)
    model.set_params(tol=1e-9, max_iter=2, C=1e3)
    with pytest.warns(ConvergenceWarning, match="2 labels did not reach") as caught:
        model.add_labels(X, new, y_past=Y)
    assert len(caught) == 1
    assert model.predict(X).shape == (80, 5)


def test_verbose_says_one_line_a_call(stream, capsys):
    X, Y, new = stream
    model = StreamingLabelClassifier(random_state=0, verbose=1).fit(X, Y)
    model.add_labels(X, new, y_past=Y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "[StreamingLabelClassifier] 3 labels",
        "[StreamingLabelClassifier] 5 labels",
    ]
