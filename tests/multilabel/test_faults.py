"""Faults and bad input that all multi-label learners must survive, case by case."""

import gc
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklcomp.multilabel import (
    PrivilegedLogisticClassifier,
    PrivilegedMultiLabelClassifier,
    StreamingLabelClassifier,
)
from sklcomp.solvers.margin._per_label import map_labels
from tests.helpers.callbacks import StopAt

LEARNERS = [
    PrivilegedMultiLabelClassifier(max_iter=60, random_state=0),
    PrivilegedMultiLabelClassifier(rank=2, slack_cap=1.5, random_state=0),
    StreamingLabelClassifier(random_state=0),
    PrivilegedLogisticClassifier(random_state=0),
]
each_learner = pytest.mark.parametrize(
    "learner", LEARNERS, ids=["privileged", "low-rank", "streaming", "logistic"]
)
each_full_rank = pytest.mark.parametrize(
    "learner", LEARNERS[:3:2], ids=["privileged", "streaming"]
)


@pytest.fixture
def labelled(rng):
    X = rng.normal(size=(40, 4))
    Y = (X @ rng.normal(size=(4, 3)) + 0.5 * rng.normal(size=(40, 3)) > 0).astype(int)
    return X, Y


def with_cost(learner, C):
    """A copy with this cost alone."""
    name = "C" if "C" in learner.get_params() else "Cs"
    return clone(learner).set_params(**{name: C if name == "C" else [C]})


def coefficients(learner, X, Y, **settings):
    return clone(learner).fit(X, Y, **settings).coef_


@each_learner
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, Y: (np.where(X > 1, np.nan, X), Y), "contains NaN"),
        (lambda X, Y: (np.where(X > 1, np.inf, X), Y), "infinity"),
        (lambda X, Y: (X[:0], Y[:0]), "0 sample"),
        (lambda X, Y: (X[:, :0], Y), r"0 feature\(s\)"),
        (lambda X, Y: (X[:1], Y[:1]), "n_samples=1"),
        (lambda X, Y: (X[:, 0], Y), "Reshape your data"),
        (lambda X, Y: (X, Y[:30]), "inconsistent numbers of samples"),
        (lambda X, Y: (X, 2 * Y), "y holds 2"),
        (lambda X, Y: (X, 2 * Y - 1), "y holds -1"),
        (lambda X, Y: (X, 0.5 * Y), "y holds 0.5"),
        (lambda X, Y: (X, Y.astype(str)), "y holds '0', '1'"),
        (lambda X, Y: (X * 1j, Y), "Complex data not supported"),
        (lambda X, Y: (X * 1e300, Y), "where inner products overflow"),
        (lambda X, Y: (X, None), "requires y to be passed"),
    ],
)
def test_malformed_input_is_refused(learner, labelled, change, message):
    with pytest.raises(ValueError, match=message):
        clone(learner).fit(*change(*labelled))


@each_learner
def test_predicting_comes_after_fitting_and_expects_as_many_features(learner, labelled):
    X, Y = labelled
    with pytest.raises(NotFittedError):
        clone(learner).predict(X)
    with pytest.raises(ValueError, match="expecting 4 features"):
        clone(learner).fit(X, Y).predict(X[:, :3])


@each_learner
def test_feature_names_are_checked(learner, labelled):
    X, Y = labelled
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = clone(learner).fit(frame, Y)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("bacd")])


@each_learner
def test_one_column_is_one_label(learner, labelled):
    X, Y = labelled
    learner = clone(learner)
    if learner.get_params().get("rank") == 2:
        learner.set_params(rank=None)
    model = learner.fit(X, Y[:, 0])
    assert model.coef_.shape == (1, 4)
    assert model.decision_function(X).shape == (40,)
    text = np.where(Y[:, 0] == 1, "yes", "no")
    np.testing.assert_array_equal(
        learner.fit(X, text).predict(X) == "yes", model.fit(X, Y[:, 0]).predict(X) == 1
    )


@each_learner
def test_zero_rows_and_constant_features_are_no_division_by_zero(learner, labelled):
    X, Y = labelled
    X = np.column_stack([X, np.zeros(40), np.ones(40)])
    X[3] = 0
    has_intercept = "fit_intercept" in learner.get_params()
    for settings in ({}, {"fit_intercept": False})[: 1 + has_intercept]:
        model = clone(learner).set_params(**settings).fit(X, Y)
        assert np.isfinite(model.decision_function(X)).all()
        np.testing.assert_allclose(model.coef_[:, 4], 0, atol=1e-12)


@each_learner
@pytest.mark.parametrize("shape", [(10, 300, 1), (10, 300, 2), (60, 3, 500)])
def test_many_features_or_labels_finish(learner, rng, shape):
    n_samples, n_features, n_labels = shape
    X = rng.normal(size=(n_samples, n_features))
    Y = (rng.random((n_samples, n_labels)) < 0.3).astype(int)
    Y[0], Y[1] = 0, 1
    learner = with_cost(learner, 0.1)
    if "gamma" in learner.get_params():
        learner.set_params(rank=learner.rank and min(2, n_labels), gamma=1.0)
    model = learner.fit(X, Y)
    assert model.coef_.shape == (n_labels, n_features)
    assert np.isfinite(model.coef_).all()


@each_full_rank
def test_tiny_features_stay_finite(learner, labelled):
    X, Y = labelled
    for scale in (1e-300, 1e-310):
        assert np.isfinite(coefficients(learner, X * scale, Y)).all()
    # Scaling the features and the cost leaves the scores as they are.
    learner = clone(learner).set_params(fit_intercept=False, tol=1e-9, max_iter=5000)
    if "gamma" in learner.get_params():
        learner.set_params(gamma=12.0)
    expected = coefficients(learner, X, Y)
    if "gamma" in learner.get_params():
        learner.set_params(gamma=12.0e12)
    learner.set_params(C=1e12)
    np.testing.assert_allclose(
        coefficients(learner, X * 1e-6, Y) * 1e-6, expected, atol=1e-4
    )


@each_learner
@pytest.mark.parametrize("kind", ["float16", "int8", "bool", "object", ">f8"])
def test_other_types_give_the_same_result(learner, labelled, kind):
    X, Y = labelled
    X = np.round(X)
    if kind == "bool":
        X = (X > 0).astype(float)
    found = coefficients(learner, X.astype(kind), Y)
    np.testing.assert_allclose(found, coefficients(learner, X, Y), atol=1e-8)


@each_learner
def test_memory_layout_and_containers_do_not_matter(learner, labelled):
    X, Y = labelled
    expected = coefficients(learner, X, Y)
    wide = np.zeros((40, 8))
    wide[:, ::2] = X
    for features in (np.asfortranarray(X), wide[:, ::2], X[::-1][::-1], X.tolist()):
        np.testing.assert_array_equal(coefficients(learner, features, Y), expected)
    for labels in (Y.tolist(), Y > 0, Y.astype(float), pd.DataFrame(Y)):
        np.testing.assert_array_equal(coefficients(learner, X, labels), expected)


@each_learner
def test_read_only_input_is_left_alone(learner, labelled, tmp_path):
    X, Y = labelled
    path = tmp_path / "X.joblib"
    joblib.dump(X, path)
    mapped = joblib.load(path, mmap_mode="r")
    before = joblib.hash((X, Y))
    # Kernels are compiled anew for what cannot be written, perhaps with sums in another
    # order: so solutions agree as far as they are determined, those of a factorisation
    # by their objective alone.
    learner = clone(learner).set_params(tol=1e-9, max_iter=4000)
    first, second = (clone(learner).fit(features, Y) for features in (X, mapped))
    if learner.get_params().get("rank") != 2:
        np.testing.assert_allclose(second.coef_, first.coef_, atol=1e-6)
    else:
        np.testing.assert_allclose(second.objective_, first.objective_, rtol=1e-2)
    for make in (np.array, sparse.csr_array):
        features, labels = make(X), make(Y)
        for array in (features, labels):
            (array.data if sparse.issparse(array) else array).flags.writeable = False
        assert np.isfinite(coefficients(learner, features, labels)).all()
    assert joblib.hash((X, Y)) == before


@each_learner
def test_sparse_labels_with_explicit_zeros_equal_dense_ones(learner, labelled):
    X, Y = labelled
    rows, columns = np.indices(Y.shape).reshape(2, -1)
    explicit = sparse.csr_array((Y.ravel(), (rows, columns)), shape=Y.shape)
    assert explicit.nnz == Y.size
    np.testing.assert_array_equal(
        coefficients(learner, X, explicit), coefficients(learner, X, Y)
    )


@each_learner
def test_global_random_state_is_untouched(learner, labelled):
    state = joblib.hash(np.random.get_state())  # noqa: NPY002
    clone(learner).fit(*labelled)
    assert joblib.hash(np.random.get_state()) == state  # noqa: NPY002
    seeded = [
        coefficients(
            clone(learner).set_params(random_state=np.random.RandomState(3)), *labelled
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*seeded)


@each_learner
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-np.ones(40), "[Nn]egative"),
        (np.zeros(40), "at least one non-zero"),
        (np.ones(39), r"sample_weight.shape == \(39,\)"),
    ],
)
def test_impossible_weights_are_refused(learner, labelled, weight, message):
    with pytest.raises(ValueError, match=message):
        clone(learner).fit(*labelled, sample_weight=weight)


@each_learner
def test_costs_whose_sum_overflows_are_refused(learner, labelled):
    weight = np.full(40, 1e308)
    with pytest.raises(ValueError, match="sample_weight lead to a sum of inf"):
        clone(learner).fit(*labelled, sample_weight=weight)
    with pytest.raises(ValueError, match=r"C=1e\+308 .*choose smaller"):
        with_cost(learner, 1e308).fit(*labelled)


@each_full_rank
@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("kind", [int, float, bool])
def test_one_column_that_is_constant_is_a_label(learner, labelled, value, kind):
    X, _ = labelled
    y = np.full((40, 1), value, dtype=kind)
    with pytest.warns(UserWarning, match="1 of 1 labels are constant"):
        model = clone(learner).fit(X, y)
    np.testing.assert_array_equal(model.classes_, [0, 1])
    np.testing.assert_array_equal(model.decision_function(X), 2 * value - 1)
    assert (model.predict(X) == value).all()
    assert model.predict(X).dtype == kind


@each_learner
def test_sparse_labels_of_any_format_are_read(learner, labelled):
    X, Y = labelled
    expected = coefficients(learner, X, Y)
    for make in (sparse.lil_array, sparse.dok_array, sparse.coo_array):
        np.testing.assert_allclose(coefficients(learner, X, make(Y)), expected)
    model = clone(LEARNERS[2]).fit(X, Y)
    model.add_labels(X, sparse.lil_array(Y[:, :1]), y_past=sparse.dok_array(Y))
    assert model.n_labels_ == 4


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_labels_are_kept_up_to_the_one_that_stops(n_jobs):
    asked, solved = [], []

    def stop_at_seven(label):
        asked.append(label)
        return label == 7

    assert map_labels(solved.append, 200, n_jobs, stop_at_seven) == 8
    assert asked == list(range(8))
    assert set(solved) >= set(range(8))
    assert len(solved) < 200
    assert map_labels(solved.append, 30, n_jobs) == 30


@each_full_rank
def test_where_a_callback_stops_does_not_depend_on_threads(learner, rng):
    X = rng.normal(size=(40, 4))
    Y = (X @ rng.normal(size=(4, 30)) + rng.normal(size=(40, 30)) > 0).astype(int)
    learner = clone(learner)
    if "threshold" in learner.get_params():
        learner.set_params(threshold="f1")
    whole = clone(learner).fit(X, Y)
    for n_jobs in (None, 2):
        model = clone(learner).set_params(n_jobs=n_jobs).set_callbacks(StopAt(3))
        model.fit(X, Y)
        np.testing.assert_array_equal(model.coef_[:3], whole.coef_[:3])
        np.testing.assert_array_equal(model.coef_[3:], 0)
        np.testing.assert_array_equal(model.intercept_[3:], 0)
        np.testing.assert_array_equal(getattr(model, "thresholds_", 0), 0)


@each_learner
def test_predictions_of_a_batch_are_those_of_its_rows(learner, labelled):
    X, Y = labelled
    model = clone(learner).fit(X, Y)
    single = np.concatenate([model.decision_function(row[None]) for row in X])
    np.testing.assert_allclose(model.decision_function(X), single, atol=1e-12)


@each_learner
def test_copies_before_and_after_the_fit_predict_alike(learner, labelled):
    X, Y = labelled
    model = clone(learner).fit(X, Y)
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(dumped(model))):
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))
    again = pickle.loads(pickle.dumps(clone(learner))).fit(X, Y)
    np.testing.assert_array_equal(again.coef_, model.coef_)


def dumped(model):
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    return buffer


@each_learner
def test_many_fits_keep_no_objects(learner, labelled):
    model = clone(learner).fit(*labelled)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        model.fit(*labelled)
    gc.collect()
    assert len(gc.get_objects()) < before + 100


@each_learner
def test_fits_in_threads_give_the_right_answers(learner, labelled):
    X, Y = labelled
    expected = coefficients(learner, X, Y)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: coefficients(learner, X, Y), range(16)))
    for coef in found:
        np.testing.assert_array_equal(coef, expected)


def _fit_in_child(learner, X, Y, queue):
    queue.put(learner.set_params(n_jobs=2).fit(X, Y).coef_)


@pytest.mark.skipif(sys.platform != "linux", reason="fork is used on Linux only")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@each_learner
def test_a_forked_child_can_fit(learner, labelled):
    X, Y = labelled
    expected = clone(learner).set_params(n_jobs=2).fit(X, Y).coef_
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_fit_in_child, args=(clone(learner), X, Y, queue))
    child.start()
    np.testing.assert_array_equal(queue.get(timeout=60), expected)
    child.join(60)
    assert child.exitcode == 0


FIT_BOTH = """
import numpy as np
from sklcomp.multilabel import (
    PrivilegedLogisticClassifier,
    PrivilegedMultiLabelClassifier,
    StreamingLabelClassifier,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(20, 3))
Y = (X @ rng.normal(size=(3, 3)) > 0).astype(int)
for rank in (None, 2):
    model = PrivilegedMultiLabelClassifier(
        rank=rank, slack_cap=1.5, tol=1e-6, max_iter=100, random_state=0
    ).fit(X, Y)
    print(*np.round(model.objective_, 2).ravel())
model = StreamingLabelClassifier(random_state=0, tol=1e-8).fit(X, Y[:, :2])
model.add_labels(X, Y[:, 2], y_past=Y[:, :2])
print(*np.round(model.coef_, 4).ravel() + 0.0)
"""


def test_the_kernels_are_plain_python_within_their_bounds():
    outputs = set()
    for setting in ({}, {"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_BOUNDSCHECK": "1"}):
        environment = {**os.environ, **setting}
        if setting:
            environment["SKLCOMP_NUMBA_CACHE"] = "0"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FIT_BOTH],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1, outputs
