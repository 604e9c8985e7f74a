"""Distillations that are interrupted, taken up again, or are others."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    LoadInitState,
    LRScheduler,
)
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import default_collate

from sklcomp.training._state import weights_of
from tests.helpers.embedding import distiller, student
from tests.helpers.iris import X, assert_same, mlp, net, seeded, y
from tests.helpers.nets import Stop


def assert_resumes(distil, student, folder, after=2, **settings):
    """An interrupted fit that goes on is the one that was not interrupted."""
    kept = {"checkpoint": folder, "warm_start": True} | settings
    with pytest.raises(KeyboardInterrupt):
        distil(student(), stop=Stop(after), **kept)
    resumed, whole = distil(student(), **kept), distil(student(), **settings)
    assert_same(resumed, whole)
    # Its first epochs are not done again.
    assert len(resumed.estimator_.history) == whole.n_iter_ == resumed.n_iter_


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
            iterator_train__collate_fn=noisy,
            train_split=ValidSplit(0.2),
            iterator_train__shuffle=True,
        )

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


def scheduled():
    """A net whose callbacks and optimizer have a state of their own."""
    return student(
        max_epochs=6, optimizer=torch.optim.Adam, iterator_train__shuffle=True
    ).set_params(
        callbacks=[
            LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.3),
            EarlyStopping(monitor="train_loss", patience=4),
        ]
    )


def test_stopped_and_resumed_is_uninterrupted(digits, trained, tmp_path):
    X, y = digits
    settings = {"student": scheduled(), "kd_weight": 0.5}
    whole = distiller(trained, **settings).fit(X, y)
    kept = {"checkpoint": tmp_path, "warm_start": True}
    stopped = distiller(trained, **settings, **kept).set_callbacks(Stop(after=3))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(X, y)
    assert not hasattr(stopped, "estimator_")
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]
    rest = distiller(trained, **settings, **kept).fit(X, y)
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))
    np.testing.assert_array_equal(rest.history_["kd"], whole.history_["kd"])
    assert rest.n_iter_ == 6
    # More epochs go on; another weight starts afresh.
    longer = copy.deepcopy(settings["student"]).set_params(max_epochs=8)
    assert (
        distiller(trained, **settings | {"student": longer}, **kept).fit(X, y).n_iter_
        == 8
    )
    other = distiller(trained, **settings | {"kd_weight": 0.6}, **kept).fit(X, y)
    plain = distiller(trained, **settings | {"kd_weight": 0.6}).fit(X, y)
    np.testing.assert_array_equal(other.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_numbers_of_numpy_are_resumed_as_any(digits, trained, tmp_path, number):
    net = student().set_params(lr=number(0.05), max_epochs=2)
    kept = {"student": net, "checkpoint": tmp_path, "warm_start": True}
    first = distiller(trained, **kept, kd_weight=number(0.5)).fit(*digits)
    again = distiller(trained, **kept, kd_weight=number(0.5)).fit(*digits)
    np.testing.assert_array_equal(
        again.estimator_.history_[:, "dur"], first.estimator_.history_[:, "dur"]
    )
    # Another number is another fit.
    other = distiller(trained, **kept, kd_weight=number(0.6)).fit(*digits)
    assert other.estimator_.history_[:, "dur"] != first.estimator_.history_[:, "dur"]


class Marker:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut", "code"])
def test_broken_checkpoint_is_named_and_no_code_is_run(
    digits, trained, tmp_path, content
):
    file, marker = tmp_path / "training.pt", tmp_path / "marker"
    if content == "code":
        torch.save({"key": Marker(marker)}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"training.pt is no state of a fit"):
        distiller(trained, checkpoint=tmp_path, warm_start=True).fit(*digits)
    assert not marker.exists()
