"""Label sets that teach: what it equals in its limits, and what users rely on."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, label_ranking_loss
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklcomp.datasets import load_digit_attributes
from sklcomp.model_selection import IterativeStratifiedKFold
from sklcomp.multilabel import PrivilegedLogisticClassifier
from tests.helpers.callbacks import StopAt

TIGHT = {"tol": 1e-7, "max_iter": 5000, "random_state": 0}
ATTRIBUTES = ("prototypes_", "gate_coef_", "gate_intercept_", "coupling_")


def make_labels(seed=0, n_rows=240, n_labels=5, n_features=6):
    """Noisy linear labels that share two directions."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features))
    weights = rng.normal(size=(n_features, 2)) @ rng.normal(size=(2, n_labels))
    return X, (X @ weights + rng.normal(size=(n_rows, n_labels)) > 0.5).astype(int)


@pytest.fixture
def unguarded(monkeypatch):
    """Coupled scores are kept, however they rank so few rows."""
    monkeypatch.setattr("sklcomp.solvers.logistic._guard.WORSE", np.inf)


def fit(X, Y, **settings):
    return PrivilegedLogisticClassifier(random_state=0, **settings).fit(X, Y)


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_without_a_coupling_each_label_is_a_logistic_regression(C):
    X, Y = make_labels()
    weight = np.random.default_rng(1).uniform(0, 3, len(X))
    model = PrivilegedLogisticClassifier([C], coupling=None, **TIGHT)
    model.fit(X, Y, weight)
    for j, label in enumerate(Y.T):
        one = LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(X, label, weight)
        np.testing.assert_allclose(model.coef_[j], one.coef_[0], atol=1e-5)
        np.testing.assert_allclose(model.intercept_[j], one.intercept_[0], atol=1e-5)
    np.testing.assert_allclose(
        model.decision_function(X), X @ model.coef_.T + model.intercept_, atol=1e-12
    )
    assert model.guard_ == {"kept": "plain"}
    assert not any(hasattr(model, name) for name in ATTRIBUTES)


def test_one_label_has_nobody_to_teach_it():
    X, Y = make_labels()
    model = PrivilegedLogisticClassifier(**TIGHT).fit(X, Y[:, 0])
    one = LogisticRegression(C=model.C_[0], tol=1e-10, max_iter=5000).fit(X, Y[:, 0])
    np.testing.assert_allclose(model.predict_proba(X), one.predict_proba(X), atol=1e-5)
    with pytest.raises(AttributeError, match="two labels or more"):
        model.prototype_proba(X)


@pytest.mark.usefixtures("unguarded")
def test_the_score_is_the_sum_that_the_docstring_says():
    X, Y = make_labels()
    model = fit(X, Y)
    assert model.guard_["kept"] == "privileged"
    z = np.clip(X @ model.coef_.T + model.intercept_, -12, 12)
    q = model.prototype_proba(X) @ model.prototypes_
    coupling = model._coupled
    groups = np.hstack([z, expit(z), q])
    scaled = (groups - coupling.features.centre) / coupling.features.scale
    added = scaled @ coupling.features.directions @ coupling.coef.T
    expected = 0.7 * z + 0.3 * np.log(q / (1 - q)) + added + coupling.intercept
    np.testing.assert_allclose(model.decision_function(X), expected, atol=1e-8)
    np.testing.assert_allclose(model.predict_proba(X), expit(expected), atol=1e-8)
    np.testing.assert_array_equal(model.predict(X), expected > 0)


@pytest.mark.usefixtures("unguarded")
def test_a_huge_penalty_leaves_the_blend_of_both():
    X, Y = make_labels()
    model = fit(X, Y, coupling=1e12)
    z = np.clip(X @ model.coef_.T + model.intercept_, -12, 12)
    q = model.prototype_proba(X) @ model.prototypes_
    blend = 0.7 * z + 0.3 * np.log(q / (1 - q))
    np.testing.assert_allclose(model.decision_function(X), blend, atol=1e-6)
    assert model.coupling_ == 1e12


def test_prototypes_are_shares_and_their_probabilities_sum_to_one():
    X, Y = make_labels()
    model = fit(X, Y, n_prototypes=4)
    P = model.prototype_proba(X)
    assert P.shape == (len(X), 4)
    np.testing.assert_allclose(P.sum(axis=1), 1.0)
    assert (model.prototypes_ > 0).all()
    assert (model.prototypes_ < 1).all()


def test_the_unit_of_the_features_does_not_matter():
    X, Y = make_labels()
    scores = fit(X, Y).decision_function(X)
    for factor in (1e-3, 1e3):
        found = fit(factor * X, Y).decision_function(factor * X)
        np.testing.assert_allclose(found, scores, atol=1e-6)


def test_sparse_rows_and_targets_are_as_good_as_dense_ones():
    X, Y = make_labels()
    X = np.where(np.abs(X) > 0.5, X, 0.0)
    dense = fit(X, Y, **{"tol": 1e-4, "max_iter": 1000})
    for container in (sparse.csr_array, sparse.csc_matrix):
        model = fit(container(X), container(Y), **{"tol": 1e-4, "max_iter": 1000})
        np.testing.assert_allclose(
            model.decision_function(container(X)), dense.decision_function(X), atol=1e-3
        )
        assert sparse.issparse(model.predict(X))


def test_threads_and_repeated_fits_give_the_same_bits():
    X, Y = make_labels(n_labels=140, n_rows=90)
    scores = [fit(X, Y, n_jobs=n).decision_function(X) for n in (None, 1, 2)]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


def test_labels_may_stand_in_any_order():
    X, Y = make_labels()
    folds = list(KFold(3, shuffle=True, random_state=0).split(X))
    order = np.random.default_rng(0).permutation(Y.shape[1])
    tight = {"cv": folds, "tol": 1e-6, "max_iter": 5000, "coupling": None}
    scores = fit(X, Y, **tight).decision_function(X)
    found = fit(X, Y[:, order], **tight).decision_function(X)
    np.testing.assert_allclose(found, scores[:, order], atol=1e-3)


def test_it_ranks_attributes_of_digits_better_than_its_labels_alone():
    X, Y = load_digit_attributes(return_X_y=True)
    losses = []
    for seed in range(3):
        train, test = next(IterativeStratifiedKFold(3, random_state=seed).split(X, Y))
        model = fit(X[train], Y[train])
        plain = X[test] @ model.coef_.T + model.intercept_
        losses.append(
            [
                label_ranking_loss(Y[test], scores)
                for scores in (model.decision_function(X[test]), plain)
            ]
        )
    coupled, alone = np.mean(losses, axis=0)
    assert coupled < 0.8 * alone


@pytest.mark.parametrize("y", ["strings", "integers"])
def test_classes_are_labels_that_exclude_each_other(y):
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(3, 4))
    codes = rng.integers(0, 3, 150)
    X = centres[codes] + rng.normal(size=(150, 4))
    classes = np.array(["ant", "bee", "cow"] if y == "strings" else [7, 1, 4])[codes]
    model = fit(X, classes)
    P = model.predict_proba(X)
    np.testing.assert_allclose(P.sum(axis=1), 1.0)
    np.testing.assert_array_equal(model.classes_[P.argmax(axis=1)], model.predict(X))
    assert model.score(X, classes) > 0.95
    # Far from everything each label alone is impossible, but one class is likeliest.
    far = fit(X, classes, coupling=None).predict_proba(-1e6 * X)
    np.testing.assert_allclose(far.sum(axis=1), 1.0)


def test_scores_of_unseen_rows_are_kept_on_request():
    X, Y = make_labels()
    folds = [(np.arange(80, 240), np.arange(80)), (np.arange(80), np.arange(80, 240))]
    model = fit(X, Y, cv=folds, Cs=[0.1], coupling=None, store_oof=True, tol=1e-6)
    for train, test in folds:
        part = fit(X[train], Y[train], Cs=[0.1], coupling=None, tol=1e-6)
        np.testing.assert_allclose(
            model.oof_decision_[test], part.decision_function(X[test]), atol=1e-4
        )
    assert not hasattr(fit(X, Y), "oof_decision_")


def test_thresholds_find_rare_labels_and_spare_hopeless_ones():
    X, Y = make_labels(n_rows=400)
    rng = np.random.default_rng(0)
    Y[:, 0] = (X[:, 0] + 0.5 * rng.normal(size=400)) > 1.9  # rare
    Y[:, 1] = rng.uniform(size=400) < 0.1  # has nothing to do with X
    model = fit(X, Y, threshold="f1", store_oof=True)
    scores, thresholds = model.oof_decision_, model.thresholds_
    found = f1_score(Y[:, 0], scores[:, 0] > thresholds[0])
    assert found >= f1_score(Y[:, 0], scores[:, 0] > 0)
    # At most three times the positives, and one.
    n_positive = Y.sum(axis=0)
    assert ((scores > thresholds).sum(axis=0) <= 3 * n_positive + 1).all()


def test_a_label_that_never_occurs_is_unlikely_but_finite():
    X, Y = make_labels()
    Y[:, 1], Y[:, 2] = 0, 1
    with pytest.warns(UserWarning, match="2 of 5 labels are constant"):
        model = fit(X, Y)
    P = model.predict_proba(X)
    # As if half a row more of each kind had been seen.
    np.testing.assert_allclose(P[:, 1], 0.5 / (len(X) + 1.0))
    np.testing.assert_allclose(P[:, 2], (len(X) + 0.5) / (len(X) + 1.0))
    np.testing.assert_array_equal(np.isnan(model.C_), [False, True, True, False, False])


def test_splitters_and_their_faults():
    X, Y = make_labels()
    splitter = IterativeStratifiedKFold(3, random_state=0)
    found = fit(X, Y, cv=splitter).decision_function(X)
    listed = fit(X, Y, cv=list(splitter.split(X, Y))).decision_function(X)
    np.testing.assert_array_equal(found, listed)
    for cv, n_tested in (
        (ShuffleSplit(2, test_size=0.25, random_state=0), r"\d+"),
        ([(np.arange(100), np.arange(100, 240))], 140),
    ):
        model = PrivilegedLogisticClassifier(cv=cv)
        with pytest.raises(ValueError, match=rf"tests {n_tested} of 240 rows.*once"):
            model.fit(X, Y)
        assert not hasattr(model, "coef_")


@pytest.mark.parametrize("Cs", [[], [0.0, 1.0], [-1.0], [np.nan], [1.0, np.inf]])
def test_costs_must_be_positive_numbers(Cs):
    X, Y = make_labels()
    with pytest.raises(ValueError, match="finite values greater than 0"):
        PrivilegedLogisticClassifier(Cs).fit(X, Y)


def test_a_failed_fit_leaves_the_last_one():
    X, Y = make_labels()
    model = fit(X, Y)
    before = model.decision_function(X)
    with pytest.raises(ValueError, match="finite values greater"):
        model.set_params(Cs=[0.0]).fit(X, Y)
    np.testing.assert_array_equal(model.decision_function(X), before)


def test_a_second_fit_forgets_the_first():
    X, Y = make_labels()
    model = fit(X, Y, store_oof=True)
    model.set_params(coupling=None, store_oof=False).fit(X, Y)
    assert not any(hasattr(model, name) for name in (*ATTRIBUTES, "oof_decision_"))


def test_it_goes_into_pipelines_searches_and_pickles():
    X, Y = make_labels()
    pipeline = make_pipeline(StandardScaler(), PrivilegedLogisticClassifier(Cs=3))
    grid = {"privilegedlogisticclassifier__coupling": ["auto", None]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    assert set(search.cv_results_["rank_test_score"]) <= {1, 2}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert clone(pipeline).get_params()["privilegedlogisticclassifier__Cs"] == 3


def test_inputs_and_global_randomness_stay_as_they_are():
    X, Y = make_labels()
    copies, state = (X.copy(), Y.copy()), np.random.get_state()[1].copy()  # noqa: NPY002
    X.flags.writeable = Y.flags.writeable = False
    fit(X, Y)
    np.testing.assert_array_equal(X, copies[0])
    np.testing.assert_array_equal(Y, copies[1])
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.usefixtures("unguarded")
def test_a_callback_may_stop_after_any_step(last):
    X, Y = make_labels()

    model = PrivilegedLogisticClassifier(random_state=0)
    model.set_callbacks(StopAt(last)).fit(X, Y)
    assert np.isfinite(model.decision_function(X)).all()
    assert (model.guard_["kept"] == "plain") == (last < 3)


@pytest.mark.usefixtures("unguarded")
def test_verbose_prints_one_line(capsys):
    X, Y = make_labels()
    fit(X, Y, verbose=1)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "5 labels" in out
    assert "kept: privileged" in out
