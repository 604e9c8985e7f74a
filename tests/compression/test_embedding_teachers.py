"""Teachers that are no networks, or not of the usual kind."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from sklcomp.compression import FeatureEmbeddingDistiller
from sklcomp.inspection import CompressionDisplay, DistillationDisplay
from sklcomp.nn import kd_loss
from tests.helpers.nets import Stop, classifier, regressor

X, y = load_iris(return_X_y=True)
order = np.random.default_rng(0).permutation(len(X))
X, y = X[order].astype(np.float32), y[order]
names = np.array(["setosa", "versicolor", "virginica"])[y]


def module(width=6, n_outputs=3):
    with torch.random.fork_rng():
        torch.manual_seed(width)
        return nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, n_outputs)
        )


def student(**settings):
    settings = {"optimizer": torch.optim.SGD, "lr": 0.05, "max_epochs": 4} | settings
    return classifier(settings.pop("module", None) or module(), **settings)


def distil(teacher, y=y, X=X, net=None, **settings):
    settings = {"gamma": 0.0, "kd_weight": 1.0, "random_state": 0} | settings
    if not isinstance(teacher, nn.Module):
        teacher = FrozenEstimator(teacher)
    return FeatureEmbeddingDistiller(net or student(), teacher, **settings).fit(X, y)


class Backwards(ClassifierMixin, BaseEstimator):
    """Its classes are not in sorted order."""

    def __init__(self, inner):
        self.inner = inner

    def fit(self, X, y):
        self.classes_ = self.inner.fit(X, y).classes_[[2, 0, 1]]
        return self

    def predict_proba(self, X):
        return self.inner.predict_proba(X)[:, [2, 0, 1]]

    def predict(self, X):
        return self.inner.predict(X)


TEACHERS = {
    "forest": lambda: RandomForestClassifier(20, random_state=0),
    "pipeline": lambda: make_pipeline(StandardScaler(copy=False), LogisticRegression()),
    "search": lambda: GridSearchCV(
        LogisticRegression(max_iter=1000), {"C": [0.1, 1.0]}
    ),
    "order of its own": lambda: Backwards(LogisticRegression(max_iter=1000)),
}


@pytest.mark.parametrize("labels", [y, y + 5, names, names.astype(object)])
@pytest.mark.parametrize("kind", TEACHERS)
def test_answers_are_compared_by_class(kind, labels):
    teacher = TEACHERS[kind]().fit(X.copy(), labels)
    before, data = pickle.dumps(teacher), X.copy()
    # In its only step the student is what it was.
    net = student(batch_size=-1, max_epochs=1)
    fitted = distil(teacher, labels, data, net, temperature=2.0)
    with torch.no_grad():
        own = module()(torch.from_numpy(X))
    theirs = np.log(np.maximum(teacher.predict_proba(X.copy()), 1.2e-7))
    want = float(kd_loss(own, torch.from_numpy(theirs).float(), 2.0))
    assert fitted.history_["kd"][0] == pytest.approx(want, rel=1e-4)
    codes = np.array([teacher.classes_.tolist().index(one) for one in labels])
    cross = float(nn.functional.cross_entropy(own, torch.from_numpy(codes)))
    assert fitted.history_["task"][0] == pytest.approx(cross, rel=1e-4)
    np.testing.assert_array_equal(fitted.classes_, teacher.classes_)
    score = np.mean(teacher.predict(X.copy()) == labels)
    assert fitted.report_.before["training score"] == pytest.approx(score)
    assert fitted.teacher_ is teacher
    assert pickle.dumps(teacher) == before
    np.testing.assert_array_equal(data, X)


def test_a_student_of_text_says_what_its_teacher_says():
    teacher = TEACHERS["order of its own"]().fit(X, names)
    net = student(max_epochs=60)
    fitted = distil(teacher, names, net=net, kd_weight=5.0)
    assert np.mean(fitted.predict(X) == teacher.predict(X)) > 0.9
    assert fitted.score(X, names) > 0.9


def test_a_pipeline_around_a_net_teaches_as_the_net():
    net = student(module=module(8), max_epochs=20).fit(X, y)
    around = make_pipeline(FunctionTransformer(), net).fit(X, y)
    net.module_.load_state_dict(around[-1].module_.state_dict())
    for is_cached in (True, False):
        one, other = (
            distil(teacher, cache_teacher=is_cached) for teacher in (net, around)
        )
        np.testing.assert_allclose(
            one.predict_proba(X), other.predict_proba(X), atol=1e-4
        )


def test_numbers_of_a_forest():
    target = X[:, :2] @ [1.0, -2.0]
    teacher = RandomForestRegressor(20, random_state=0).fit(X, target)
    first = module(n_outputs=1)
    net = regressor(copy.deepcopy(first), batch_size=-1, max_epochs=1, callbacks=None)
    fitted = distil(teacher, target, net=net)
    with torch.no_grad():
        own = first(torch.from_numpy(X)).numpy().ravel()
    want = np.mean((own - teacher.predict(X)) ** 2)
    assert fitted.history_["kd"][0] == pytest.approx(want, rel=1e-4)


def test_columns_are_chosen_by_name():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    chosen = ColumnTransformer([("some", StandardScaler(), ["d", "b"])])
    teacher = make_pipeline(chosen, LogisticRegression()).fit(frame, y)
    fitted = distil(teacher, X=frame)
    want = np.mean(teacher.predict(frame) == y)
    assert fitted.report_.before["training score"] == pytest.approx(want)


def test_what_needs_features_is_refused_with_the_cure():
    teacher = TEACHERS["forest"]().fit(X, y)
    message = (
        r"gamma=0.1 .* RandomForestClassifier, holds no module_.* Take gamma=0 and "
        r"kd_weight=1.0"
    )
    for settings in ({"gamma": 0.1}, {"gamma": 0.1, "kd_weight": 0.0}):
        with pytest.raises(ValueError, match=message):
            distil(teacher, **settings)
    with pytest.raises(ValueError, match="gamma=0.1 compares features"):
        FeatureEmbeddingDistiller(student(), FrozenEstimator(teacher)).fit(X, y)
    fitted = distil(teacher)
    for ask in (fitted.embed, lambda X: DistillationDisplay.from_estimator(fitted, X)):
        with pytest.raises(ValueError, match="RandomForestClassifier has no features"):
            ask(X)


def test_the_report_of_a_teacher_without_module_has_its_score():
    fitted = distil(TEACHERS["forest"]().fit(X, y))
    assert np.isnan(fitted.report_.before["parameters"])
    assert np.isnan(fitted.report_.ratio("parameters"))
    assert fitted.report_.after["parameters"] == 51
    assert "training score" in repr(fitted.report_)
    CompressionDisplay.from_estimator(fitted)


@pytest.mark.parametrize(("teacher", "labels", "net", "message"), [
    (RandomForestClassifier(), y, None, "RandomForestClassifier .* is not fitted: fit"),
    (LinearSVC().fit(X, y), y, None, "has no predict_proba, .*CalibratedClassifierCV"),
    (RandomForestRegressor(3).fit(X, y), y, None, "teacher is a RandomForestRegressor"),
    (RandomForestClassifier(3).fit(X, y), X[:, 0],
     regressor(module(n_outputs=1), callbacks=None), "the teacher is a RandomForestCl"),
    (RandomForestClassifier(3).fit(X, np.column_stack([y, y])), y, None,
     "answers for 2 outputs of classes"),
    (RandomForestClassifier(3).fit(X[y < 2], y[y < 2]), y, None,
     r"y contains 2; the RandomForestClassifier knows \[0, 1\]"),
    (RandomForestClassifier(3).fit(X, y.astype(str)), y, None,
     r"y contains 0; the RandomForestClassifier knows \['0', '1', '2'\]"),
    (RandomForestClassifier(3).fit(X[:, :3], y), y, None,
     r"RandomForestClassifier cannot take X of shape \(n, 4\) .* Freeze a pipeline"),
    (RandomForestRegressor(3).fit(X, X[:, :2]), X[:, 0],
     regressor(module(n_outputs=1), callbacks=None), "teacher has 2 outputs for 1 out"),
])  # fmt: skip
def test_teachers_that_cannot_teach(teacher, labels, net, message):
    with pytest.raises(ValueError, match=message):
        distil(teacher, labels, net=net)


def test_a_forest_teaches_on_where_it_stopped(tmp_path):
    forests = [
        GridSearchCV(
            RandomForestClassifier(9, random_state=k), {"max_depth": [1, 2]}, cv=2
        ).fit(X, y)
        for k in (0, 1)
    ]
    kept = {"checkpoint": tmp_path, "warm_start": True}
    stopped = FeatureEmbeddingDistiller(
        student(),
        FrozenEstimator(forests[0]),
        gamma=0.0,
        kd_weight=1.0,
        random_state=0,
        **kept,
    ).set_callbacks(Stop(2))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(X, y)
    rest, whole = distil(forests[0], **kept), distil(forests[0])
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))
    assert rest.n_iter_ == whole.n_iter_ == 4
    other, anew = distil(forests[1], **kept), distil(forests[1])
    np.testing.assert_array_equal(other.predict_proba(X), anew.predict_proba(X))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_of_another_precision_are_refused_with_the_cure(dtype):
    teacher = module(8).to(dtype)
    kind = str(dtype).removeprefix("torch.")
    message = rf"or give copy.deepcopy\(module\).float\(\): its weights are {kind}"
    with pytest.raises(ValueError, match=message):
        distil(teacher)
    fitted = distil(copy.deepcopy(teacher).float(), gamma=0.1)
    assert np.isfinite(fitted.history_["kd"]).all()
    assert teacher[0].weight.dtype == dtype


def test_a_module_without_values_is_refused_with_the_cure():
    with pytest.raises(ValueError, match="device meta, where weights have no values"):
        distil(module(8).to("meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_a_module_on_another_device_teaches_as_here():
    teacher = module(8)
    for gamma in (0.0, 0.1):
        here = distil(teacher, gamma=gamma)
        there = distil(copy.deepcopy(teacher).cuda(), gamma=gamma)
        np.testing.assert_allclose(
            here.predict_proba(X), there.predict_proba(X), atol=1e-4
        )
