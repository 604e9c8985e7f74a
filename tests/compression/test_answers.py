"""Any estimator that answers, as a teacher."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sklcomp.compression._answers import AnsweringTeacher, answers_of, check_answers

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 3)).astype(np.float32)
y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
EXAMPLES = torch.from_numpy(X)


def teacher_of(estimator, is_classes=True, names=None):
    return AnsweringTeacher(estimator, is_classes, names, "cpu")


def test_scores_are_logarithms_of_probabilities():
    model = LogisticRegression().fit(X, y)
    features, scores = teacher_of(model)(EXAMPLES)
    np.testing.assert_allclose(scores.exp(), model.predict_proba(X), rtol=1e-4)
    torch.testing.assert_close(scores.softmax(-1), scores.exp())
    assert features.shape == (60, 0)
    assert scores.dtype == torch.float32


class Certain(BaseEstimator):
    """Probabilities of zero and one."""

    def predict_proba(self, X):
        return np.eye(3)[np.arange(len(X)) % 3]


def test_certainty_has_finite_scores():
    scores = teacher_of(Certain())(EXAMPLES)[1]
    assert torch.isfinite(scores).all()
    np.testing.assert_allclose(
        scores.softmax(-1), Certain().predict_proba(X), atol=1e-6
    )


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_numbers_are_scores_themselves(n_outputs):
    targets = X @ rng.standard_normal((3, n_outputs))
    targets = targets if n_outputs > 1 else targets[:, 0]
    model = LinearRegression().fit(X, targets)
    scores = teacher_of(model, is_classes=False)(EXAMPLES)[1]
    assert scores.shape == (60, n_outputs)
    np.testing.assert_allclose(scores, model.predict(X).reshape(60, -1), rtol=1e-5)


def test_all_answers_are_those_in_parts_and_the_state_is_they():
    teacher = teacher_of(LogisticRegression().fit(X, y))
    many = EXAMPLES.repeat(6, 1)
    torch.testing.assert_close(teacher.answer_all(many)[1], teacher(many)[1])
    np.testing.assert_array_equal(teacher.state(EXAMPLES), teacher(EXAMPLES)[1])


class Overwriting(LogisticRegression):
    def predict_proba(self, X):
        found = super().predict_proba(X)
        X[:] = 0
        return found


def test_examples_may_be_overwritten_by_the_estimator():
    examples = EXAMPLES.clone()
    teacher_of(Overwriting().fit(X, y))(examples)
    assert torch.equal(examples, EXAMPLES)


def test_columns_may_be_chosen_by_name():
    names = ["a", "b", "c"]
    frame = pd.DataFrame(X, columns=names)
    chosen = ColumnTransformer([("scale", StandardScaler(), ["c", "a"])])
    model = make_pipeline(chosen, LogisticRegression()).fit(frame, y)
    found = answers_of(model, EXAMPLES, True, names)
    np.testing.assert_allclose(found, model.predict_proba(frame), rtol=1e-5)
    # An estimator that knows of no names is not told any.
    plain = LogisticRegression().fit(X, y)
    np.testing.assert_allclose(
        answers_of(plain, EXAMPLES, True, names), plain.predict_proba(X), rtol=1e-5
    )


def test_shape_of_the_examples_goes_through():
    class Images(BaseEstimator):
        def predict(self, X):
            assert X.shape == (60, 1, 3)
            return X.sum((1, 2))

    found = answers_of(Images(), EXAMPLES.reshape(60, 1, 3), False, None)
    np.testing.assert_allclose(found[:, 0], X.sum(1), rtol=1e-4, atol=1e-5)


class Unsure(BaseEstimator):
    def predict(self, X):
        return np.where(np.arange(len(X)) == 3, np.nan, 1.0)


@pytest.mark.parametrize(("estimator", "is_classes", "message"), [
    (LogisticRegression().fit(X[:, :2], y), True,
     r"LogisticRegression cannot take X of shape \(n, 3\) and dtype float32: X has 3 "
     r"features.* Freeze a pipeline"),
    (MultiOutputClassifier(LogisticRegression()).fit(X, np.column_stack([y, y])), True,
     "the teacher MultiOutputClassifier answers for 2 outputs of classes; give one"),
    (Unsure(), False, "the teacher Unsure gives answers that are NaN or infinite"),
])  # fmt: skip
def test_answers_that_teach_nothing_are_named(estimator, is_classes, message):
    with pytest.raises(ValueError, match=message):
        answers_of(estimator, EXAMPLES, is_classes, None)


@pytest.mark.parametrize(("estimator", "is_classes", "message"), [
    (LogisticRegression(), True, "the LogisticRegression inside FrozenEstimator is"),
    (object(), False, "the object inside FrozenEstimator is no estimator"),
    (LinearSVC().fit(X, y), True, "no predict_proba, so it can teach nothing. Give"),
    (StandardScaler().fit(X), False, "no predict, so it can teach nothing"),
])  # fmt: skip
def test_who_cannot_answer_is_named_with_the_cure(estimator, is_classes, message):
    with pytest.raises(ValueError, match=message):
        check_answers(estimator, is_classes)


def test_who_can_answer_is_taken():
    check_answers(LogisticRegression().fit(X, y), is_classes=True)
    check_answers(LinearSVC().fit(X, y), is_classes=False)


class NoEstimator:
    """Answers, and cannot be fitted."""

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)


def test_what_cannot_be_fitted_is_said_to_be_no_estimator():
    with pytest.raises(
        ValueError, match="NoEstimator .* is no estimator, as it has no"
    ):
        check_answers(NoEstimator(), True)
