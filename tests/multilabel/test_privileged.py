"""Labels that teach each other: optimality against plain formulas, limits, symmetry."""

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sklcomp.model_selection import IterativeStratifiedKFold
from sklcomp.multilabel import PrivilegedMultiLabelClassifier
from sklcomp.solvers.margin._per_label import best_thresholds
from tests.helpers.labels import privileged_features

TIGHT = {"tol": 1e-10, "max_iter": 4000, "random_state": 0}
CODINGS = ["signed", "binary", "constant"]


def primal_value(model, X, Y, label, cost, coding):
    """Objective of the solution of one label, which must be feasible."""
    y = 2 * Y[:, label] - 1
    w = np.append(model.coef_[label], model.intercept_[label])
    margins = y * (X @ w[:-1] + w[-1])
    features = privileged_features(Y, label, coding)
    weights = np.append(
        model.privileged_coef_[label], model.privileged_intercept_[label]
    )
    slack = features @ weights
    assert slack.min() > -1e-9
    excess = np.maximum(1 - margins - slack, 0)
    if model.slack_cap == np.inf:
        assert excess.max() < 1e-9
        excess = np.zeros(len(y))
    cap = model.slack_cap if np.isfinite(model.slack_cap) else 0.0
    norms = w @ w + model.gamma_ * weights @ weights
    return 0.5 * norms + cost @ (slack + cap * excess)


def dual_value(X, Y, label, cost, cap, gamma, coding):
    """Largest value of the dual that a general bounded solver reaches."""
    n = len(X)
    signed_rows = (2 * Y[:, label] - 1)[:, None] * np.column_stack([X, np.ones(n)])
    features = privileged_features(Y, label, coding)

    def negative(multipliers):
        alpha, beta = multipliers[:n], multipliers[n:]
        w = signed_rows.T @ alpha
        weights = features.T @ (alpha + beta - cost) / gamma
        value = 0.5 * w @ w + 0.5 * gamma * weights @ weights - alpha.sum()
        slope = features @ weights
        return value, np.append(signed_rows @ w + slope - 1, slope)

    bounds = [(0, cap * c) for c in cost] + [(0, None)] * n
    multipliers = np.append(0 * cost, cost)
    for _ in range(4):  # it may stop too early, and forgets its steps when it starts
        found = optimize.minimize(
            negative,
            multipliers,
            jac=True,
            bounds=bounds,
            options={"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-9},
        )
        multipliers = found.x
    return -found.fun


@pytest.mark.filterwarnings("ignore:.*zero coefficients")
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cap", [1.5, 3.0, np.inf])
def test_full_rank_is_optimal_by_plain_formulas(labelled, coding, cap):
    X, Y = (array[:25] for array in labelled)
    weight = np.linspace(0.5, 1.5, 25)
    model = PrivilegedMultiLabelClassifier(
        C=0.7, gamma=5.0, slack_cap=cap, privileged=coding, **TIGHT
    ).fit(X, Y, sample_weight=weight)
    cost, total = 0.7 * weight, 0.0
    for j in range(4):
        primal = primal_value(model, X, Y, j, cost, coding)
        dual = dual_value(X, Y, j, cost, cap, 5.0, coding)
        assert abs(primal - dual) < 1e-6 * primal
        total += primal
    np.testing.assert_allclose(model.objective_, total, rtol=1e-8)
    assert model.dual_gap_ < 1e-6


@pytest.mark.parametrize(
    "settings", [{"slack_cap": 1}, {"privileged": None, "slack_cap": 3}]
)
def test_without_privilege_it_is_the_linear_svm(labelled, settings):
    X, Y = labelled
    model = PrivilegedMultiLabelClassifier(C=0.5, **settings, **TIGHT).fit(X, Y)
    for j in range(4):
        rival = LinearSVC(
            C=0.5, loss="hinge", tol=1e-10, max_iter=10**6, random_state=0
        ).fit(X, Y[:, j])
        np.testing.assert_allclose(model.coef_[j], rival.coef_[0], atol=1e-4)
        np.testing.assert_allclose(model.intercept_[j], rival.intercept_[0], atol=1e-4)


def test_cap_one_is_the_limit_of_larger_caps(labelled):
    X, Y = labelled
    fits = [
        PrivilegedMultiLabelClassifier(slack_cap=cap, **TIGHT).fit(X, Y).coef_
        for cap in (1, 1 + 1e-9)
    ]
    np.testing.assert_allclose(*fits, atol=1e-4)


def test_correcting_function_is_the_product_with_the_other_labels(labelled):
    X, Y = labelled
    for coding in CODINGS:
        model = PrivilegedMultiLabelClassifier(privileged=coding, **TIGHT).fit(X, Y)
        slack = model.correcting_function(Y)
        for j in range(4):
            weights = np.append(
                model.privileged_coef_[j], model.privileged_intercept_[j]
            )
            plain = privileged_features(Y, j, coding) @ weights
            np.testing.assert_allclose(slack[:, j], plain, atol=1e-9)
        np.testing.assert_allclose(
            model.correcting_function(sparse.csr_array(Y)), slack
        )
        np.testing.assert_array_equal(np.diag(model.privileged_coef_), 0)


@pytest.mark.parametrize(
    "classes", [["no", "yes"], [0, 1], [False, True], ["a", "b", "c"], [3, 5, 9]]
)
def test_correcting_function_reads_classes_as_the_fit_does(labelled, classes):
    X, Y = labelled
    y = np.array(classes)[(Y[:, 0] + Y[:, 1]) % len(classes)]
    model = PrivilegedMultiLabelClassifier(**TIGHT).fit(X, y)
    signs = np.where(y[:, None] == model.classes_, 1, -1)
    if len(classes) == 2:
        signs = signs[:, 1:]
    slack = signs @ model.privileged_coef_.T + model.privileged_intercept_
    forms = [y, y[:, None], y.tolist()]
    if y.dtype.kind in "bi":
        forms += [make(y[:, None]) for make in (sparse.csr_array, sparse.lil_array)]
    for form in forms:
        found = model.correcting_function(form)
        np.testing.assert_allclose(found, np.maximum(slack, 0), atol=1e-9)
    for odd, message in (
        (np.column_stack([y, y]), r"shape \(60, 2\).*expecting 1 column"),
        (y[None, None], r"shape \(1, 1, 60\); expected"),
        (np.full(60, 7), "y holds 7; .* was fitted with the classes"),
        (np.full(60, "z"), "y holds 'z'; .* was fitted with the classes"),
    ):
        with pytest.raises(ValueError, match=message):
            model.correcting_function(odd)


def test_correcting_function_keeps_to_the_fit(labelled):
    X, Y = labelled
    model = PrivilegedMultiLabelClassifier(**TIGHT).fit(X, Y)
    slack = model.correcting_function(Y)
    model.set_params(privileged="binary", slack_cap=1)
    for make in (np.array, sparse.lil_array, sparse.dok_array):
        np.testing.assert_array_equal(model.correcting_function(make(Y)), slack)
    for odd in (Y[:, 0], Y[:, :2], Y[None]):
        with pytest.raises(ValueError, match="y has shape .*expect"):
            model.correcting_function(odd)


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("cap", [1, 3])
def test_order_of_rows_and_labels_does_not_matter(labelled, rng, rank, cap):
    X, Y = labelled
    settings = (
        dict(TIGHT)
        if rank is None
        else {
            "rank": rank,
            "tol": 1e-8,
            "inner_tol": 1e-8,
            "max_iter": 300,
            "inner_max_iter": 1000,
            "random_state": 0,
        }
    )
    settings |= {"slack_cap": cap, "C": 0.5, "gamma": 9.0}
    rows, labels = rng.permutation(60), rng.permutation(4)
    base = PrivilegedMultiLabelClassifier(**settings).fit(X, Y)
    other = PrivilegedMultiLabelClassifier(**settings).fit(X[rows], Y[rows][:, labels])
    if rank is None:  # of low rank there may be others as good
        np.testing.assert_allclose(other.coef_, base.coef_[labels], atol=1e-4)
    np.testing.assert_allclose(other.objective_, base.objective_, rtol=1e-4)


@pytest.mark.parametrize("cap", [1, 3])
def test_weight_zero_is_a_row_removed_and_two_is_a_row_twice(labelled, cap):
    X, Y = labelled
    weight = np.tile([0, 1, 2, 1], 15)
    rows = np.repeat(np.arange(60), weight)
    settings = {"slack_cap": cap, "gamma": 10.0, **TIGHT}
    weighted = PrivilegedMultiLabelClassifier(**settings).fit(X, Y, weight)
    repeated = PrivilegedMultiLabelClassifier(**settings).fit(X[rows], Y[rows])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-4)
    np.testing.assert_allclose(
        weighted.privileged_coef_, repeated.privileged_coef_, atol=1e-4
    )


@pytest.mark.parametrize("rank", [None, 2])
def test_sparse_equals_dense(labelled, rank):
    X, Y = labelled
    X = np.where(np.abs(X) < 0.5, 0.0, X)
    settings = {"rank": rank, "tol": 1e-6, "max_iter": 60, "random_state": 0}
    settings["slack_cap"] = 1.5
    dense = PrivilegedMultiLabelClassifier(**settings).fit(X, Y)
    for make in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        model = PrivilegedMultiLabelClassifier(**settings).fit(make(X), make(Y))
        np.testing.assert_allclose(model.objective_, dense.objective_, rtol=1e-3)
        if rank is None:
            np.testing.assert_allclose(model.coef_, dense.coef_, atol=1e-2)
        found = model.predict(make(X))
        assert sparse.issparse(found)
        assert (found.toarray() == dense.predict(X)).mean() > 0.95


def test_untidy_sparse_matrices_are_read_right(labelled):
    X, Y = labelled
    tidy = sparse.csr_array(X)
    # Every row twice as halves, in reverse order, with an explicit zero.
    values = np.concatenate([np.tile(0.5 * row[::-1], 2).tolist() + [0.0] for row in X])
    columns = np.tile([4, 3, 2, 1, 0, 4, 3, 2, 1, 0, 2], 60).astype(np.int64)
    untidy = sparse.csr_array((values, columns, 11 * np.arange(61)), shape=(60, 5))
    before = untidy.indices.copy()
    fits = [
        PrivilegedMultiLabelClassifier(**TIGHT).fit(features, Y).coef_
        for features in (tidy, untidy)
    ]
    np.testing.assert_allclose(*fits, atol=1e-4)
    np.testing.assert_array_equal(untidy.indices, before)


@pytest.mark.parametrize("rank", [None, 2])
def test_float32_is_close_to_float64(labelled, rank):
    X, Y = labelled
    settings = {"rank": rank, "random_state": 0, "C": 0.3, "max_iter": 300}
    settings |= {"tol": 1e-6, "inner_tol": 1e-6, "gamma": 5.4}
    double = PrivilegedMultiLabelClassifier(**settings).fit(X, Y)
    single = PrivilegedMultiLabelClassifier(dtype=np.float32, **settings).fit(X, Y)
    assert single.coef_.dtype == np.float32
    np.testing.assert_allclose(single.coef_, double.coef_, atol=0.05)
    np.testing.assert_allclose(single.objective_, double.objective_, rtol=2e-3)


@pytest.mark.parametrize("rank", [None, 2])
def test_threads_and_seeds_do_not_change_the_result(labelled, rank):
    X, Y = labelled
    models = [
        PrivilegedMultiLabelClassifier(
            rank=rank, n_jobs=n_jobs, random_state=7, max_iter=60
        ).fit(X, Y)
        for n_jobs in (1, 2, 1)
    ]
    for model in models[1:]:
        np.testing.assert_array_equal(model.coef_, models[0].coef_)


def test_warm_start_goes_on_where_it_stopped(labelled):
    X, Y = labelled
    model = PrivilegedMultiLabelClassifier(warm_start=True, **TIGHT).fit(X, Y)
    coef, n_iter = model.coef_.copy(), model.n_iter_
    model.fit(X, Y)
    assert model.n_iter_ < n_iter
    np.testing.assert_allclose(model.coef_, coef, atol=1e-6)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("coding", ["signed", "constant", None])
def test_other_labels_of_the_same_shape_start_anew(labelled, rank, coding):
    # The multipliers of few label sets do not fit many, nor the other way round.
    X, Y = labelled
    few = np.zeros_like(Y)
    few[:30], few[0, 0] = 1, 0
    settings = {"rank": rank, "privileged": coding, "C": 0.1, "random_state": 0}
    settings["tol"] = 1e-2
    for before, after in ((few, Y), (Y, few)):
        warm = PrivilegedMultiLabelClassifier(warm_start=True, **settings)
        warm.fit(X, before).fit(X, after)
        cold = PrivilegedMultiLabelClassifier(**settings).fit(X, after)
        np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-8)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({0: np.nan, 1: 1}, "gives nan to the class 0"),
        ({1: -2}, "gives -2 to the class 1"),
        ({0: "high"}, "gives 'high' to the class 0"),
        ([{0: 1}] * 3 + [{1: np.inf}], "gives inf to the class 1"),
        ([1, 2, 3, 4], "a list that holds 1; give one dictionary"),
    ],
)
def test_odd_class_weights_are_refused_by_value(labelled, weights, message):
    X, Y = labelled
    for y in (Y, Y[:, 0]):
        with pytest.raises(ValueError, match=message):
            PrivilegedMultiLabelClassifier(class_weight=weights).fit(X, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slack_cap": 1e308}, "slack_cap=1e.308"),
        ({"gamma": 1e-300}, "gamma=1e-300.*raise gamma"),
        ({"class_weight": {0: 1e308}}, "class_weight"),
    ],
)
@pytest.mark.parametrize("rank", [None, 2])
def test_costs_that_overflow_are_refused(labelled, rank, settings, message):
    with pytest.raises(ValueError, match=message):
        PrivilegedMultiLabelClassifier(rank=rank, **settings).fit(*labelled)


def test_features_that_overflow_when_cast_are_refused(labelled):
    X, Y = labelled
    with pytest.raises(ValueError, match="float32 features of size inf"):
        PrivilegedMultiLabelClassifier(dtype=np.float32).fit(X * 1e39, Y)


def test_class_weight_is_a_factor_of_the_cost(labelled):
    X, Y = labelled
    weighted = PrivilegedMultiLabelClassifier(
        class_weight={0: 1.0, 1: 3.0}, slack_cap=1, **TIGHT
    ).fit(X, Y)
    for j in range(4):
        single = PrivilegedMultiLabelClassifier(slack_cap=1, **TIGHT)
        single.fit(X, Y[:, j], sample_weight=np.where(Y[:, j], 3.0, 1.0))
        np.testing.assert_allclose(single.coef_[0], weighted.coef_[j], atol=1e-4)
    balanced = PrivilegedMultiLabelClassifier(
        class_weight="balanced", slack_cap=1, **TIGHT
    ).fit(X, Y)
    listed = PrivilegedMultiLabelClassifier(
        class_weight=[
            {0: 60 / (2 * (60 - count)), 1: 60 / (2 * count)} for count in Y.sum(axis=0)
        ],
        slack_cap=1,
        **TIGHT,
    ).fit(X, Y)
    np.testing.assert_allclose(balanced.coef_, listed.coef_, atol=1e-6)
    with pytest.raises(ValueError, match="does not fit 4 labels"):
        PrivilegedMultiLabelClassifier(class_weight=[{0: 1}]).fit(X, Y)


def test_thresholds_have_the_highest_f1():
    Y = sparse.csr_array([[1], [1], [0], [1], [0]])
    scores = np.array([[3.0], [2.0], [1.0], [0.5], [-1.0]])
    # Cutting below 0.5 finds all three at F1 = 6/7; below 2.0, two at 4/5.
    assert best_thresholds(Y, scores)[0] == pytest.approx(-0.25)
    tied = np.array([[3.0], [2.0], [0.5], [0.5], [-1.0]])
    assert best_thresholds(Y, tied)[0] == pytest.approx(-0.25)


def test_f1_thresholds_move_predictions_and_not_scores(labelled):
    X, Y = labelled
    Y = Y.copy()
    Y[:, 3] = (X[:, 0] > 1.2).astype(int)
    zero = PrivilegedMultiLabelClassifier(**TIGHT).fit(X, Y)
    tuned = PrivilegedMultiLabelClassifier(threshold="f1", **TIGHT).fit(X, Y)
    np.testing.assert_allclose(
        tuned.decision_function(X), zero.decision_function(X), atol=1e-6
    )
    np.testing.assert_array_equal(
        tuned.predict(X), tuned.decision_function(X) > tuned.thresholds_
    )
    assert (tuned.thresholds_ != 0).all()


def test_constant_labels_are_predicted_as_such(labelled):
    X, Y = labelled
    Y = np.column_stack([np.ones(60, dtype=int), Y, np.zeros(60, dtype=int)])
    for rank in (None, 2):
        model = PrivilegedMultiLabelClassifier(rank=rank, max_iter=60, random_state=0)
        with pytest.warns(UserWarning, match=r"2 of 6 labels.*columns 0, 5"):
            model.fit(X, Y)
        assert model.predict(X)[:, 0].all()
        assert not model.predict(X)[:, 5].any()
        assert np.isfinite(model.decision_function(X)).all()
    with pytest.warns(UserWarning, match="2 of 2 labels are constant"):
        model = PrivilegedMultiLabelClassifier().fit(X, Y[:, [0, 5]])
    np.testing.assert_array_equal(model.predict(X), Y[:, [0, 5]])


def test_reaching_max_iter_warns_once_and_is_usable(labelled):
    X, Y = labelled
    model = PrivilegedMultiLabelClassifier(
        C=100, tol=1e-9, max_iter=1, inner_max_iter=2, random_state=0
    )
    with pytest.warns(ConvergenceWarning, match="4 of 4 labels did not") as caught:
        model.fit(X, Y)
    assert len(caught) == 1
    assert model.predict(X).shape == Y.shape


def test_duplicated_labels_and_contradicting_rows_converge(labelled):
    X, Y = labelled
    twins = np.column_stack([Y, Y])
    model = PrivilegedMultiLabelClassifier(random_state=0).fit(X, twins)
    np.testing.assert_allclose(model.coef_[:4], model.coef_[4:], atol=0.05)
    model.fit(np.vstack([X, X]), np.vstack([Y, 1 - Y]))
    assert np.isfinite(model.coef_).all()


def test_features_far_from_zero_converge(rng):
    # Coordinate descent alone does not get there.
    X, y = rng.normal(loc=100, size=(100, 2)), rng.integers(0, 2, size=100)
    model = PrivilegedMultiLabelClassifier(slack_cap=1, tol=1e-9, max_iter=10_000)
    assert model.fit(X, y).dual_gap_ <= 1e-9


def test_search_over_a_pipeline(labelled):
    X, Y = labelled
    pipeline = make_pipeline(
        StandardScaler(), PrivilegedMultiLabelClassifier(random_state=0)
    )
    step = "privilegedmultilabelclassifier__"
    search = GridSearchCV(
        pipeline,
        {step + "C": [0.05, 1.0], step + "rank": [None, 2]},
        cv=IterativeStratifiedKFold(3, random_state=0),
        scoring="f1_micro",
    ).fit(X, Y)
    assert search.best_score_ > 0.6
    assert search.predict(X).shape == Y.shape
