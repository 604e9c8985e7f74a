import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import coverage_error, make_scorer
from sklearn.model_selection import GridSearchCV

from sklcomp.metrics import (
    normalized_coverage,
    normalized_coverage_scorer,
    one_error,
    one_error_scorer,
    precision_at_k,
    precision_at_k_scorer,
)
from sklcomp.multilabel import PrivilegedMultiLabelClassifier

MEASURES = [one_error, normalized_coverage, precision_at_k]
each_measure = pytest.mark.parametrize("measure", MEASURES)


@pytest.fixture
def ranking(rng):
    """Labels, of which one row has none, and scores with ties."""
    labels = rng.random((60, 7)) < 0.3
    labels[1:, 0] |= ~labels[1:].any(axis=1)
    labels[0] = False
    return labels.astype(int), rng.integers(0, 5, labels.shape) / 4


def brute_precision(labels, scores, k, rng, n_draws=4000):
    """Mean over random orders of tied labels."""
    total = 0.0
    for _ in range(n_draws):
        tie = rng.random(scores.shape)
        best = np.lexsort((tie, -scores), axis=1)[:, :k]
        total += np.take_along_axis(labels, best, axis=1).mean()
    return total / n_draws


@pytest.mark.parametrize("k", [1, 3, 7])
def test_precision_is_that_of_random_orders_of_ties(ranking, rng, k):
    labels, scores = ranking
    expected = brute_precision(labels, scores, k, rng)
    assert precision_at_k(labels, scores, k=k) == pytest.approx(expected, abs=3e-3)


def test_closed_forms():
    labels = np.array([[1, 1, 0, 0], [0, 1, 0, 0]])
    assert one_error(labels, labels) == 0
    assert one_error(labels, -labels) == 1
    assert normalized_coverage(labels, labels + [[0.1, 0, 0, 0]] * 2) == 0.125
    assert normalized_coverage(labels, -labels) == 0.75
    assert precision_at_k(labels, labels, k=1) == 1
    assert precision_at_k(labels, labels, k=4) == pytest.approx(3 / 8)
    # All labels equal: a random choice.
    assert one_error(labels, np.zeros((2, 4))) == pytest.approx(1 - 3 / 8)


def test_one_label_is_always_first():
    labels, scores = [[1], [0], [1]], [[0.1], [0.2], [0.2]]
    assert normalized_coverage(labels, scores) == 0
    assert normalized_coverage(labels, scores, sample_weight=[1, 2, 3]) == 0
    assert one_error(labels, scores) == pytest.approx(1 / 3)


def test_one_error_is_that_of_the_best_label_without_ties(rng):
    labels = (rng.random((200, 6)) < 0.4).astype(int)
    scores = rng.random(labels.shape)
    best = labels[np.arange(200), scores.argmax(axis=1)]
    assert one_error(labels, scores) == pytest.approx(1 - best.mean())
    assert one_error(labels[:0:-1], scores[:0:-1]) == one_error(labels[1:], scores[1:])


def test_coverage_counts_from_zero_where_scikit_learn_counts_from_one(ranking):
    labels, scores = ranking
    expected = (coverage_error(labels[1:], scores[1:]) - 1) / 7
    assert normalized_coverage(labels[1:], scores[1:]) == pytest.approx(expected)
    everywhere = normalized_coverage(labels, scores)
    by_rows = [normalized_coverage(labels[[i]], scores[[i]]) for i in range(60)]
    assert by_rows[0] == 0
    assert everywhere == pytest.approx(np.mean(by_rows))


@each_measure
def test_invariances(measure, ranking, rng):
    labels, scores = ranking
    value = measure(labels, scores)
    order = rng.permutation(7)
    assert measure(labels[:, order], scores[:, order]) == pytest.approx(value)
    assert measure(labels, np.exp(3 * scores)) == pytest.approx(value)
    assert measure(sparse.csr_array(labels), scores) == value
    assert measure(labels.astype(bool), scores.tolist()) == value


@each_measure
def test_weights_are_repetitions(measure, ranking, rng):
    labels, scores = ranking
    weight = rng.integers(0, 3, len(labels))
    repeated = np.repeat(labels, weight, axis=0), np.repeat(scores, weight, axis=0)
    weighted = measure(labels, scores, sample_weight=weight)
    assert weighted == pytest.approx(measure(*repeated))


@each_measure
@pytest.mark.parametrize(
    ("labels", "scores", "settings", "message"),
    [
        ([[1, 0]], [[0.1]], {}, r"\(1, 2\) and y_score \(1, 1\)"),
        ([[1, 0]], [[0.1, 0.2]] * 2, {}, "inconsistent numbers of samples"),
        ([[2, 0]], [[0.1, 0.2]], {}, "y_true holds 2; an indicator"),
        ([[1, 0]], [[np.nan, 0.2]], {}, "y_score contains NaN"),
        ([[1, 0]], [[0.1, 0.2]], {"sample_weight": [0]}, "at least one non-zero"),
        ([[1, 0]], [[0.1, 0.2]], {"sample_weight": [-1]}, "[Nn]egative"),
    ],
)
def test_bad_input_is_named(measure, labels, scores, settings, message):
    settings = settings | ({"k": 1} if measure is precision_at_k else {})
    with pytest.raises(ValueError, match=message):
        measure(labels, scores, **settings)


def test_too_large_k_is_named():
    with pytest.raises(ValueError, match="k=3 exceeds the number of labels 2"):
        precision_at_k([[1, 0]], [[0.1, 0.2]], k=3)


@pytest.mark.parametrize(
    ("scorer", "measure", "sign"),
    [
        (one_error_scorer, one_error, -1),
        (normalized_coverage_scorer, normalized_coverage, -1),
        (precision_at_k_scorer, precision_at_k, 1),
        (
            make_scorer(precision_at_k, k=2, response_method="decision_function"),
            lambda y, s: precision_at_k(y, s, k=2),
            1,
        ),
    ],
)
def test_scorers_score_and_search(scorer, measure, sign):
    X, Y = make_multilabel_classification(n_samples=80, n_classes=4, random_state=0)
    model = PrivilegedMultiLabelClassifier(random_state=0)
    search = GridSearchCV(model, {"C": [0.01, 1]}, scoring=scorer, cv=2).fit(X, Y)
    scores = search.best_estimator_.decision_function(X)
    assert scorer(search.best_estimator_, X, Y) == sign * measure(Y, scores)


def test_scorers_take_probabilities_in_a_list():
    X, Y = make_multilabel_classification(n_samples=80, n_classes=4, random_state=0)
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    scores = np.column_stack([p[:, 1] for p in forest.predict_proba(X)])
    assert one_error_scorer(forest, X, Y) == -one_error(Y, scores)
