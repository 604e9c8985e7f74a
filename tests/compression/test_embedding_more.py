"""What a distillation must not use, take up or leave out without a word."""

import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import scale
from skorch import NeuralNetClassifier
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    LoadInitState,
    LRScheduler,
)
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Subset, default_collate

from sklcomp.compression import FeatureEmbeddingDistiller, _embedding
from sklcomp.nn._resuming import weights_of
from tests.helpers.nets import Stop, classifier

X, y = load_iris(return_X_y=True)
rows = np.random.default_rng(0).permutation(len(X))
X, y = scale(X)[rows].astype(np.float32), y[rows]


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def mlp(width=6, relu=nn.ReLU, drop=0.0):
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(4, width), relu(), nn.Dropout(drop), nn.Linear(width, 3)
        )
    )


def net(module=None, **settings):
    settings = {"optimizer": torch.optim.SGD, "lr": 0.1, "max_epochs": 4} | settings
    return classifier(module or mlp(), **settings)


@pytest.fixture(scope="module")
def trained():
    return seeded(lambda: net(mlp(8), max_epochs=20).fit(X, y))


@pytest.fixture
def distil(trained):
    def distil(student=None, teacher=None, stop=None, X=X, y=y, **settings):
        settings = {"random_state": 0} | settings
        distiller = FeatureEmbeddingDistiller(
            student or net(), teacher or FrozenEstimator(trained), **settings
        )
        if stop is not None:
            distiller.set_callbacks(stop)
        return distiller.fit(X, y)

    return distil


def assert_same(first, second):
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


def assert_resumes(distil, student, folder, after=2, **settings):
    """An interrupted fit that goes on is the one that was not interrupted."""
    kept = {"checkpoint": folder, "warm_start": True} | settings
    with pytest.raises(KeyboardInterrupt):
        distil(student(), stop=Stop(after), **kept)
    resumed, whole = distil(student(), **kept), distil(student(), **settings)
    assert_same(resumed, whole)
    # Its first epochs are not done again.
    assert len(resumed.estimator_.history) == whole.n_iter_ == resumed.n_iter_


class Parts(nn.Module):
    """Layers whose first axis is not the examples, and others without features."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Linear(1, 2)
        self.times = nn.LSTM(2, 3)
        self.mean = nn.Flatten(0)
        self.words = Words()
        self.output = nn.Linear(12, 3)

    def forward(self, x):
        patches = self.patches(x.reshape(-1, 1))
        times, _ = self.times(patches.reshape(len(x), 4, 2).transpose(0, 1))
        self.mean(x.mean(1))
        self.words(x)
        return self.output(times.transpose(0, 1).flatten(1))


class Words(nn.Module):
    def forward(self, x):
        return "no tensor"


@pytest.mark.parametrize("whose", ["teacher", "student"])
@pytest.mark.parametrize(("layer", "found"), [
    ("patches", r"features of shape \(128, 2\)"),
    ("times", r"features of shape \(4, 32, 3\)"),
    ("mean", r"features of shape \(32,\)"), ("words", "no tensor"),
])  # fmt: skip
def test_features_must_be_of_the_examples(distil, whose, layer, found):
    module = seeded(Parts)
    given = {"teacher": module, "student": net(module)}[whose]
    message = rf"layer '{layer}' of Parts gives {found}. Expected \(32 examples, n_fea"
    with pytest.raises(ValueError, match=message):
        distil(**{whose: given, f"{whose}_layer": layer})


def test_layers_before_the_last_may_work_on_patches(distil):
    distiller = distil(net(seeded(Parts)), seeded(Parts))
    assert distiller.embed(X)[0].shape == (len(X), 12)


class Flipped(Subset):
    def __getitem__(self, i):
        x, y = self.dataset[self.indices[i]]
        return -x, y

    def __getitems__(self, indices):
        return [self[i] for i in indices]


class FlippedAll(Dataset):
    def transform(self, X, y):
        return super().transform(-X, y)


@pytest.mark.parametrize("split", [
    lambda dataset, y=None, **_: (Flipped(dataset, range(100)), None),
    lambda dataset, y=None, **_: (FlippedAll(dataset.X, dataset.y), None),
], ids=["Subset", "Dataset"])  # fmt: skip
def test_answers_are_of_the_examples_that_a_subclass_shows(distil, split):
    student = net(train_split=split)
    settings = {"kd_weight": 1.0, "gamma": 0.0}
    cached = distil(student, **settings)
    asked = distil(student, cache_teacher=False, **settings)
    np.testing.assert_allclose(cached.history_["kd"], asked.history_["kd"], rtol=1e-5)


@pytest.mark.parametrize(("whose", "change"), [
    ("student", {"drop": 0.9}), ("student", {"relu": nn.Tanh}),
    ("teacher", {"relu": nn.Tanh}),
], ids=["dropout", "function", "teacher"])  # fmt: skip
def test_another_module_is_another_fit(distil, tmp_path, whose, change):
    kept = {"checkpoint": tmp_path, "warm_start": True}
    pairs = [
        {whose: given if whose == "teacher" else net(given)}
        for given in (mlp(), mlp(**change))
    ]
    settings = {"kd_weight": 1.0}
    distil(**pairs[0], **kept, **settings)
    found, want = distil(**pairs[1], **kept, **settings), distil(**pairs[1], **settings)
    assert_same(found, want)


def by(factor):
    return lambda epoch: factor


@pytest.mark.parametrize(("first", "second"), [
    (lambda epoch: 1.0, lambda epoch: 0.0),
    (lambda epoch: abs(0.5), lambda epoch: round(0.5)),
    (lambda epoch, factor=1.0: factor, lambda epoch, factor=0.5: factor),
    (lambda epoch, *, factor=1.0: factor, lambda epoch, *, factor=0.5: factor),
    (lambda epoch: (lambda: 1.0)(), lambda epoch: (lambda: 0.5)()),
    (by(1.0), by(0.5)),
], ids=["constant", "name", "default", "keyword", "inner", "closure"])  # fmt: skip
def test_another_function_is_another_fit(distil, tmp_path, first, second):
    def student(function):
        schedule = LRScheduler(policy="LambdaLR", lr_lambda=function)
        return net(callbacks=[schedule])

    kept = {"checkpoint": tmp_path, "warm_start": True}
    distil(student(first), **kept)
    assert_same(distil(student(second), **kept), distil(student(second)))


class Stopping(Stop):
    """Asks to stop, and does not interrupt."""

    def on_fit_task_end(self, estimator, context, **_):
        self.after -= 1
        return not self.after


def early():
    return EarlyStopping(monitor="train_loss", patience=2, threshold=1e9)


@pytest.mark.parametrize("kind", ["skorch", "scikit-learn"])
def test_a_fit_that_has_stopped_does_not_go_on(distil, tmp_path, kind):
    def fit(**settings):
        if kind == "skorch":
            student = net(max_epochs=9, callbacks=[early()])
            return distil(student, checkpoint=tmp_path, **settings)
        student, stop = net(max_epochs=9), Stopping(3)
        return distil(student, stop=stop, checkpoint=tmp_path, **settings)

    first, again = fit(), fit(warm_start=True)
    assert first.n_iter_ == again.n_iter_ == 3
    assert_same(first, again)


def test_more_epochs_do_not_revive_early_stopping(distil, tmp_path):
    kept = {"checkpoint": tmp_path, "warm_start": True}
    distil(net(max_epochs=9, callbacks=[early()]), **kept)
    assert distil(net(max_epochs=12, callbacks=[early()]), **kept).n_iter_ == 3


def test_more_epochs_go_on_where_a_callback_of_scikit_learn_stopped(distil, tmp_path):
    kept = {"checkpoint": tmp_path, "warm_start": True}
    distil(net(max_epochs=4), stop=Stopping(3), **kept)
    more = distil(net(max_epochs=5), **kept)
    assert_same(more, distil(net(max_epochs=5)))


def noisy(batch):
    """Drawn from the generators of numpy and of Python."""
    X, y = default_collate(batch)
    noise = np.random.normal(random.random(), size=X.shape)  # noqa: NPY002
    return X + torch.from_numpy(noise).float(), y


def test_all_generators_are_resumed(distil, tmp_path):
    def student():
        return net(
            iterator_train__collate_fn=noisy, train_split=ValidSplit(0.2),
            iterator_train__shuffle=True,
        )  # fmt: skip

    before = random.getstate()
    assert_same(distil(student()), distil(student()))
    assert_resumes(distil, student, tmp_path)
    assert random.getstate() == before


class Slower(Callback):
    """Halves the rate of learning by what it has seen of the epochs so far."""

    def on_train_begin(self, net, **kwargs):
        self.rates_, self.rate_ = [], np.float32(0.1)

    def on_epoch_begin(self, net, **kwargs):
        self.rates_.append(float(self.rate_))
        net.optimizer_.param_groups[0]["lr"] = sum(self.rates_) / len(self.rates_)

    def on_epoch_end(self, net, **kwargs):
        self.rate_ = self.rate_ / np.float32(2)


def test_attributes_of_callbacks_are_resumed(distil, tmp_path):
    assert_resumes(distil, lambda: net(callbacks=[Slower()]), tmp_path)


class Average(Callback):
    def on_epoch_end(self, net, **kwargs):
        if not hasattr(self, "average_"):
            self.average_ = AveragedModel(net.module_)
        self.average_.update_parameters(net.module_)


class EarlyAverage(Average):
    def on_train_begin(self, net, **kwargs):
        self.average_ = AveragedModel(net.module_)


def test_state_that_has_nowhere_to_go_is_named(distil, tmp_path):
    kept = {"checkpoint": tmp_path, "warm_start": True}
    student = net(callbacks=[Average()])
    with pytest.raises(KeyboardInterrupt):
        distil(student, stop=Stop(2), **kept)
    message = "state of average_ of the callback 'Average', .* Make it in on_train_beg"
    with pytest.raises(ValueError, match=message):
        distil(student, **kept)
    assert_resumes(distil, lambda: net(callbacks=[EarlyAverage()]), tmp_path)


def test_epochs_of_a_foreign_checkpoint_are_not_those_of_the_fit(distil, tmp_path):
    keeper = Checkpoint(monitor=None, dirname=tmp_path / "other")
    start = net(max_epochs=5, callbacks=[keeper]).fit(X, y)

    def student():
        return net(max_epochs=3, callbacks=[LoadInitState(keeper)])

    fitted = distil(student())
    assert fitted.n_iter_ == 3
    assert len(fitted.estimator_.history) == 8
    before = start.module_[0].weight
    assert (fitted.module_[0].weight - before).abs().max() > 1e-3
    kept = {"checkpoint": tmp_path, "warm_start": True}
    with pytest.raises(KeyboardInterrupt):
        distil(student(), stop=Stop(2), **kept)
    assert_same(distil(student(), **kept), fitted)


def test_training_score_is_of_rows_from_everywhere(distil, monkeypatch):
    monkeypatch.setattr(_embedding, "N_SCORED", 50)
    order = np.argsort(y)
    distiller = distil(X=X[order], y=y[order])
    some = order[np.linspace(0, len(X) - 1, 50, dtype=int)]
    assert len(np.unique(some)) == 50
    want = accuracy_score(y[some], distiller.predict(X[some]))
    assert distiller.report_.after["training score"] == pytest.approx(want)


def test_a_collate_function_and_a_cache_are_refused(distil):
    student = net(iterator_train__collate_fn=default_collate)
    with pytest.raises(ValueError, match='take cache_teacher="auto" or False'):
        distil(student, cache_teacher=True)
    assert distil(student).n_iter_ == 4


class OwnStep(NeuralNetClassifier):
    def train_step_single(self, batch, **fit_params):
        X, y = batch
        self._set_training(True)
        output = self.infer(X) if self.infers else self.module_(X)
        loss = self.get_loss(output, y, **self.named(X))
        loss.backward()
        return {"loss": loss, "y_pred": output}


@pytest.mark.parametrize("named", [
    lambda self, X: {"training": True}, lambda self, X: {"X": X},
], ids=["without X", "without training"])  # fmt: skip
@pytest.mark.parametrize("infers", [True, False])
def test_a_step_that_leaves_something_out_is_told(distil, named, infers):
    kind = type("Own", (OwnStep,), {"named": named, "infers": infers})
    student = kind(**net().get_params(deep=False))
    with pytest.raises(ValueError, match=r"get_loss\(y_pred, y, X=X, training=True\)"):
        distil(student, kd_weight=1.0)


def test_a_step_without_infer_is_told(distil):
    named = {"named": lambda self, X: {"X": X, "training": True}, "infers": False}
    student = type("Own", (OwnStep,), named)(**net().get_params(deep=False))
    with pytest.raises(ValueError, match=r"must call infer\(X\)"):
        distil(student)


class Half(nn.Sequential):
    def forward(self, x):
        return super().forward(x.bfloat16())


def test_teacher_of_bfloat16(distil, trained, tmp_path):
    teacher = Half(*seeded(lambda: mlp(8))).bfloat16()
    teacher.load_state_dict(trained.module_.state_dict())
    kept = {"checkpoint": tmp_path, "warm_start": True}
    half = distil(teacher=teacher, kd_weight=1.0, **kept)
    whole = distil(kd_weight=1.0)
    for name in ("embedding", "kd"):
        np.testing.assert_allclose(half.history_[name], whole.history_[name], rtol=0.05)
    np.testing.assert_allclose(half.embed(X)[0], whole.embed(X)[0], atol=0.05)
    before, after = (one.report_.before["training score"] for one in (half, whole))
    assert before == pytest.approx(after, abs=0.1)


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"scale": self.scale, "names": ["a", "b"]}

    def set_extra_state(self, state):
        self.scale = state["scale"]

    scale = 1.0


def test_module_with_a_state_of_its_own(distil, tmp_path):
    def module(scale):
        layer = seeded(lambda: Extra(4, 6))
        layer.scale = scale
        return nn.Sequential(layer, nn.ReLU(), seeded(lambda: nn.Linear(6, 3)))

    assert weights_of(module(1.0)) == weights_of(module(1.0)) != weights_of(module(2.0))
    assert_resumes(distil, lambda: net(module(1.0)), tmp_path)


def test_answers_do_not_change_the_examples(distil):
    copy = X.copy()
    teacher = nn.Sequential(nn.ReLU(inplace=True), seeded(lambda: nn.Linear(4, 3)))
    distiller = distil(teacher=teacher, X=copy, kd_weight=1.0)
    distiller.embed(copy)
    np.testing.assert_array_equal(copy, X)
