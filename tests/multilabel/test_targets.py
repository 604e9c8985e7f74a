"""Targets from any container: read right or refused, alike by all that take them."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.preprocessing import MultiLabelBinarizer

from sklcomp.inspection import LabelStreamDisplay
from sklcomp.metrics import normalized_coverage, one_error, precision_at_k
from sklcomp.model_selection import IterativeStratifiedKFold
from sklcomp.multilabel import PrivilegedMultiLabelClassifier, StreamingLabelClassifier

LEARNERS = [
    PrivilegedMultiLabelClassifier(random_state=0),
    StreamingLabelClassifier(random_state=0),
]
each_learner = pytest.mark.parametrize(
    "learner", LEARNERS, ids=["privileged", "streaming"]
)
NAMES = ["sad", "calm", "loud"]
N = 40
X = np.random.default_rng(0).normal(size=(N, 4))
Y = (X[:, :3] + 0.3 * np.random.default_rng(1).normal(size=(N, 3)) > 0).astype(int)
SCORES = np.random.default_rng(2).random((N, 3))
CLASSES = np.array(list("abcd"))[np.arange(N) % 4]
FRAME = pd.DataFrame(Y, columns=NAMES)


def folds_of(y):
    splits = IterativeStratifiedKFold(4, random_state=0).split(X, y)
    return [test.tolist() for _, test in splits]


# All that takes an indicator matrix, and gives what depends on it.
TAKERS = {
    "privileged": lambda y: clone(LEARNERS[0]).fit(X, y).coef_,
    "streaming": lambda y: clone(LEARNERS[1]).fit(X, y).coef_,
    "add_labels": lambda y: (
        clone(LEARNERS[1]).fit(X, Y[:, 0]).add_labels(X, y, y_past=Y[:, 0]).coef_
    ),
    "y_past": lambda y: (
        clone(LEARNERS[1]).fit(X, Y).add_labels(X, Y[:, 0] ^ Y[:, 1], y_past=y).coef_
    ),
    "correcting_function": lambda y: (
        clone(LEARNERS[0]).fit(X, Y).correcting_function(y)
    ),
    "score": lambda y: clone(LEARNERS[1]).fit(X, Y).score(X, y),
    "folds": folds_of,
    "one_error": lambda y: one_error(y, SCORES),
    "coverage": lambda y: normalized_coverage(y, SCORES),
    "precision": lambda y: precision_at_k(y, SCORES, k=2),
}
each_taker = pytest.mark.parametrize("taker", TAKERS)
INDICATORS = {
    "bool": Y > 0,
    "float": Y.astype(float),
    "object": Y.astype(object),
    "list": Y.tolist(),
    "tuples": [tuple(row) for row in Y.tolist()],
    "csc_matrix": sparse.csc_matrix(Y),
    "coo_array": sparse.coo_array(Y),
    "sparse bool": sparse.csr_array(Y > 0),
    "pandas": pd.DataFrame(Y),
    "pandas bool": FRAME > 0,
    "pandas nullable": (FRAME > 0).astype("boolean"),
    "pandas Int64": FRAME.astype("Int64"),
    "pandas arrow": (FRAME > 0).convert_dtypes(dtype_backend="pyarrow"),
    "pandas sparse": pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(Y)),
    "pandas category": FRAME.astype("category"),
    "polars": pl.DataFrame(Y, schema=NAMES),
    "polars bool": pl.DataFrame(Y > 0, schema=NAMES),
    "pyarrow": pa.table({name: FRAME[name] for name in NAMES}),
}
ragged = [tuple(np.array(NAMES)[row > 0]) for row in Y]
WITH_MISSING = FRAME.astype("boolean")
WITH_MISSING.iloc[3, 1] = pd.NA
REFUSED = {
    "strings": (Y.astype(str), "holds '0', '1'.*astype"),
    "text objects": (Y.astype(str).astype(object), "holds '0', '1'.*astype"),
    "minus one": (2 * Y - 1, "holds -1;.*y > 0"),
    "sparse minus one": (sparse.csr_array(2 * Y - 1), "holds -1;.*y > 0"),
    "counts": (2 * Y, "holds 2;"),
    "halves": (0.5 * Y, "holds 0.5;"),
    "objects of numpy": (
        np.array([[np.int64(v) for v in row] for row in 3 * Y], object),
        "holds 3;",
    ),
    "label tuples": (ragged, "tuple; use MultiLabelBinarizer"),
    "pairs of labels": ([("a", "b")] * N, "holds 'a', 'b'.*MultiLabelBinarizer"),
    "label lists": ([list(row) for row in ragged], "list; use MultiLabelBinarizer"),
    "label sets": (list(map(set, ragged)), "set; use MultiLabelBinarizer"),
    "frozen": (list(map(frozenset, ragged)), "frozenset; use MultiLabelBinarizer"),
    "series of lists": (
        pd.Series([list(row) for row in ragged]),
        "list; use MultiLabelBinarizer",
    ),
    "classes in columns": (np.array([["a", "b", "c"]] * N), "MultiLabelBinarizer"),
    "NaN": (np.where(Y, Y, np.nan), "contains NaN or None in .*leave out the rows"),
    "None": (np.where(Y, Y, None), "contains NaN or None in .*leave out the rows"),
    "NA": (WITH_MISSING, "contains NaN or None in 1 places; leave out the rows"),
    "sparse NaN": (
        sparse.csr_array(np.where(Y, np.nan, 0)),
        "contains NaN or None in .*leave out the rows",
    ),
    "infinity": (np.where(Y, np.inf, 0), "holds inf;|infinity"),
    "three axes": (np.ones((N, 3, 2)), r"shape \(40, 3, 2\)"),
    "records": (FRAME.to_records(index=False), "structured array"),
}


@each_taker
@pytest.mark.parametrize("kind", INDICATORS)
def test_an_indicator_is_read_from_any_container(taker, kind):
    if taker == "folds" or taker in ("one_error", "coverage", "precision", "score"):
        assert TAKERS[taker](INDICATORS[kind]) == TAKERS[taker](Y)
    else:
        found, expected = TAKERS[taker](INDICATORS[kind]), TAKERS[taker](Y)
        np.testing.assert_array_equal(found, expected)


@each_taker
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_indicator_is_refused_with_the_cure(taker, kind):
    y, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message) as caught:
        TAKERS[taker](y)
    assert "np." not in str(caught.value).replace("np.nan", "")


def test_the_cure_helps():
    sets = MultiLabelBinarizer(classes=NAMES).fit_transform(ragged)
    np.testing.assert_array_equal(TAKERS["privileged"](sets), TAKERS["privileged"](Y))


@each_learner
def test_a_column_of_classes_is_a_vector_of_classes(learner):
    expected = clone(learner).fit(X, CLASSES)
    for y in (CLASSES[:, None], pd.DataFrame({"mood": CLASSES}), CLASSES.tolist()):
        model = clone(learner).fit(X, y)
        np.testing.assert_array_equal(model.coef_, expected.coef_)
        assert model.label_names_.tolist() == list("abcd")
        assert model.score(X, y) == expected.score(X, CLASSES)
    signs = 2 * Y[:, :1] - 1
    model = clone(learner).fit(X, signs)
    np.testing.assert_array_equal(model.classes_, [-1, 1])
    assert model.score(X, signs) == clone(learner).fit(X, Y[:, 0]).score(X, Y[:, 0])


def test_folds_of_a_column_of_classes_are_those_of_the_classes():
    for y in (CLASSES[:, None], pd.DataFrame({"mood": CLASSES}), pd.Series(CLASSES)):
        assert folds_of(y) == folds_of(CLASSES)
    for test in folds_of(CLASSES[:, None]):
        counts = np.unique(CLASSES[test], return_counts=True)[1]
        assert set(counts) <= {2, 3}  # of 10 / 4
    numbers = (np.arange(N) % 4)[:, None]
    for test in folds_of(sparse.csr_array(numbers)):
        assert np.ptp(np.bincount(numbers[test, 0])) <= 1


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.arange(N), "n_splits=4 exceeds the members of every class"),
        (np.linspace(0, 1, N), "continuous"),
        (np.array([1, "a"] * 20, dtype=object), "mixes int and str"),
        (np.array(["a", None] * 20, dtype=object), "contains NaN or None in 20"),
        (np.where(Y[:, 0], 1, np.nan), "contains NaN or None in"),
    ],
)
def test_folds_are_stratified_or_refused(y, message):
    with pytest.raises(ValueError, match=message):
        folds_of(y)
    if "n_splits" not in message:
        for learner in LEARNERS:
            with pytest.raises(ValueError, match=message):
                clone(learner).fit(X, y)


@each_learner
@pytest.mark.parametrize("interface", ["spmatrix", "sparray"])
@pytest.mark.parametrize("columns", [[0], [0, 1, 2]])
def test_sparse_targets_come_back_sparse(learner, interface, columns):
    dense = clone(learner).fit(X, Y[:, columns])
    is_wanted = sparse.isspmatrix if interface == "spmatrix" else is_sparse_array
    for make in (sparse.csr_matrix, sparse.coo_array, pandas_sparse):
        y = make(Y[:, columns])
        with config_context(sparse_interface=interface):
            model = clone(learner).fit(X, y)
            found = model.predict(X)
            assert model.score(X, y) == dense.score(X, Y[:, columns])
        assert is_wanted(found)
        assert found.shape == (N, len(columns))
        np.testing.assert_array_equal(
            found.toarray(), dense.predict(X).reshape(found.shape)
        )


def is_sparse_array(y):
    return isinstance(y, sparse.sparray)


def pandas_sparse(Y):
    return pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(Y))


@each_learner
def test_a_sparse_column_of_classes_comes_back(learner):
    y = np.arange(N) % 3
    expected = clone(learner).fit(X, y).predict(X)
    found = clone(learner).fit(X, sparse.csr_array(y[:, None])).predict(X)
    np.testing.assert_array_equal(found.toarray()[:, 0], expected)


def test_one_sparse_label_stays_sparse_when_others_arrive():
    model = clone(LEARNERS[1]).fit(X, sparse.csr_array(Y[:, :1]))
    assert sparse.issparse(model.predict(X))
    model.add_labels(X, sparse.coo_array(Y[:, 1]), y_past=sparse.coo_array(Y[:, 0]))
    assert sparse.issparse(model.predict(X))
    dense = clone(LEARNERS[1]).fit(X, Y[:, :1]).add_labels(X, Y[:, 1], y_past=Y[:, :1])
    np.testing.assert_array_equal(model.coef_, dense.coef_)


PERMUTED = ["loud", "sad", "calm"]
FRAMES = {
    "pandas": lambda values, columns: pd.DataFrame(values, columns=columns),
    "pandas sparse": lambda values, columns: pd.DataFrame.sparse.from_spmatrix(
        sparse.csr_matrix(values), columns=columns
    ),
    "polars": lambda values, columns: pl.DataFrame(values, schema=columns),
    "pyarrow": lambda values, columns: pa.table(
        dict(zip(columns, np.asarray(values).T, strict=True))
    ),
}
# All that takes targets whose names are known.
MATCHED = {
    "add_labels": lambda model, y: (
        model.add_labels(X[:20], Y[:20, 0] ^ Y[:20, 1], y_past=y).coef_
    ),
    "correcting_function": lambda model, y: model.correcting_function(y),
    "score": lambda model, y: model.score(X[:20], y),
}


def named_model(taker, columns=NAMES):
    learner = LEARNERS[0] if taker == "correcting_function" else LEARNERS[1]
    return clone(learner).fit(X, pd.DataFrame(Y, columns=columns))


@pytest.mark.parametrize("taker", MATCHED)
@pytest.mark.parametrize("frame", FRAMES)
def test_permuted_columns_are_matched_by_name(taker, frame):
    order = [NAMES.index(name) for name in PERMUTED]
    permuted = FRAMES[frame](Y[:20][:, order], PERMUTED)
    expected = MATCHED[taker](named_model(taker), Y[:20])
    np.testing.assert_array_equal(
        MATCHED[taker](named_model(taker), permuted), expected
    )


@pytest.mark.parametrize("taker", MATCHED)
@pytest.mark.parametrize("frame", FRAMES)
def test_foreign_columns_are_named_and_change_nothing(taker, frame):
    model = named_model(taker)
    coef = model.coef_.copy()
    foreign = FRAMES[frame](Y[:20], ["sad", "calm", "noisy"])
    message = "no labels: 'noisy' and no columns for the labels 'loud'"
    with pytest.raises(ValueError, match=message):
        MATCHED[taker](model, foreign)
    wider = FRAMES[frame](np.c_[Y, Y[:, 0]][:20], [*NAMES, "more"])
    with pytest.raises(ValueError, match="columns that are no labels: 'more'"):
        MATCHED[taker](model, wider)
    narrower = FRAMES[frame](Y[:20, :2], NAMES[:2])
    with pytest.raises(ValueError, match="no columns for the labels 'loud'"):
        MATCHED[taker](model, narrower)
    np.testing.assert_array_equal(model.coef_, coef)
    assert model.label_names_.tolist() == NAMES


@pytest.mark.parametrize("taker", MATCHED)
def test_names_that_are_integers_stay_and_are_matched(taker):
    model = named_model(taker, [30, 10, 20])
    assert model.label_names_.tolist() == [30, 10, 20]
    assert {type(name) for name in model.label_names_} == {int}
    expected = MATCHED[taker](model, Y[:20])
    permuted = pd.DataFrame(Y[:20, [1, 2, 0]], columns=np.array([10, 20, 30]))
    found = MATCHED[taker](named_model(taker, [30, 10, 20]), permuted)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="no labels: 11 and .* labels 10"):
        MATCHED[taker](
            named_model(taker, [30, 10, 20]), permuted.rename(columns={10: 11})
        )


@pytest.mark.parametrize("taker", MATCHED)
def test_columns_that_nobody_named_go_by_their_place(taker):
    expected = MATCHED[taker](named_model(taker), Y[:20])
    found = MATCHED[taker](named_model(taker), pd.DataFrame(Y[:20]))
    np.testing.assert_array_equal(found, expected)
    # Nor does a name say anything where the labels have none.
    nameless = named_model(taker, range(3))
    assert nameless.label_names_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(MATCHED[taker](nameless, FRAME[:20]), expected)


def test_names_of_labels_that_arrived_are_matched_too():
    def arrived(y_past):
        model = clone(LEARNERS[1]).fit(X, Y[:, :2])
        model.add_labels(X, Y[:, 2], label_names="third")
        return model.add_labels(X, Y[:, 0] ^ Y[:, 1], y_past=y_past)

    assert arrived(Y).label_names_.tolist() == [0, 1, "third", 3]
    mixed = pd.DataFrame(Y[:, [2, 1, 0]], columns=["third", 1, 0])
    np.testing.assert_array_equal(arrived(mixed).coef_, arrived(Y).coef_)


def test_new_labels_have_the_integers_of_their_columns():
    frame = pd.DataFrame(np.c_[Y, 1 - Y])
    model = clone(LEARNERS[1]).fit(X, frame[[0, 2, 4]])
    model.add_labels(X, frame[[1, 3]], y_past=frame[[4, 2, 0]])
    assert model.label_names_.tolist() == [0, 2, 4, 1, 3]
    model.add_labels(X, Y[:, 0], label_names=np.array([9]))
    assert type(model.label_names_[-1]) is int
    with pytest.raises(ValueError, match="the label 9 is there already"):
        model.add_labels(X, Y[:, 0], label_names=np.array([9]))


@each_learner
def test_the_name_of_one_label_is_known_too(learner):
    model = clone(learner).fit(X, FRAME[["sad"]])
    assert model.score(X, FRAME[["sad"]]) == model.score(X, FRAME["sad"].to_numpy())
    with pytest.raises(ValueError, match="no labels: 'calm' and .* labels 'sad'"):
        model.score(X, FRAME[["calm"]])


@each_learner
def test_names_must_differ(learner):
    with pytest.raises(ValueError, match="'sad' 2 times"):
        clone(learner).fit(X, FRAME.set_axis(["sad", "b", "sad"], axis=1))


@each_learner
def test_names_are_those_of_the_columns(learner):
    for frame in (FRAME, pl.DataFrame(Y, schema=NAMES)):
        assert clone(learner).fit(X, frame).label_names_.tolist() == NAMES
    assert clone(learner).fit(X, FRAME["sad"]).label_names_.tolist() == ["sad"]
    assert clone(learner).fit(X, Y).label_names_.tolist() == [0, 1, 2]
    assert clone(learner).fit(X, CLASSES).label_names_.tolist() == list("abcd")


def test_two_frames_are_matched_by_measures():
    scores = pd.DataFrame(SCORES, columns=NAMES)
    for measure in (one_error, normalized_coverage):
        expected = measure(Y, SCORES)
        assert measure(FRAME[PERMUTED], scores) == pytest.approx(expected)
        assert measure(FRAME, SCORES) == expected
    with pytest.raises(ValueError, match="y_score has columns that are no labels"):
        one_error(FRAME, scores.rename(columns={"sad": "glad"}))


def test_pictures_match_columns_by_name():
    model = named_model("add_labels")
    model.add_labels(X, Y[:, 0] ^ Y[:, 1], y_past=Y, label_names="new")
    whole = FRAME.assign(new=Y[:, 0] ^ Y[:, 1])
    expected = LabelStreamDisplay.from_estimator(model, X, whole.to_numpy()).score
    for order in (["new", "loud", "calm", "sad"], list(whole)):
        display = LabelStreamDisplay.from_estimator(model, X, whole[order])
        np.testing.assert_array_equal(display.score, expected)
