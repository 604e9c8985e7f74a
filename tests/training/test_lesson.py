"""A teacher's answers, and the loss of who listens to them."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import Subset, TensorDataset

from sklcomp.nn._running import torch_session
from sklcomp.training import _lesson
from sklcomp.training._lesson import (
    OWN_STEP,
    Teacher,
    TeacherLoss,
    makes_batches,
    may_augment,
    train_with_teacher,
)
from sklcomp.training._listening import NumberedRows, RowsKept, rows_of
from sklcomp.training._loop import StopTraining, train_net
from tests.helpers.nets import classifier, regressor

rng = np.random.default_rng(0)
X = rng.standard_normal((70, 4)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
EXAMPLES = torch.from_numpy(X)


def mlp(seed=0, *first):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*first, nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def net(module=None, **settings):
    settings = {
        "optimizer": torch.optim.SGD,
        "lr": 0.1,
        "max_epochs": 3,
        "batch_size": 16,
    } | settings
    return classifier(module or mlp(), **settings)


def teacher_of(module=None, layer="penultimate", is_classes=True):
    return Teacher(module or mlp(1), layer, is_classes, EXAMPLES, "cpu")


def same(first, second):
    first, second = (m.state_dict().values() for m in (first, second))
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_answers_are_features_and_scores_of_the_network():
    module = mlp(1)
    features, scores = teacher_of(module)(EXAMPLES)
    torch.testing.assert_close(features, module[1](module[0](EXAMPLES)))
    torch.testing.assert_close(scores, module(EXAMPLES))
    bare = teacher_of(module, None)(EXAMPLES)
    assert bare[0].shape == (70, 0)
    torch.testing.assert_close(bare[1], scores)


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_answers_to_all_are_those_to_each(batch, monkeypatch):
    teacher = teacher_of(nn.Sequential(nn.BatchNorm1d(4), *mlp(1)))
    monkeypatch.setattr(_lesson, "BATCH", batch)
    for found, want in zip(
        teacher.answer_all(EXAMPLES), teacher(EXAMPLES), strict=True
    ):
        torch.testing.assert_close(found, want)


def test_teacher_is_a_copy_that_never_changes():
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.9), *mlp(1)).train()
    before = copy.deepcopy(module)
    teacher = teacher_of(module)
    first = teacher(EXAMPLES)[1]
    assert same(module, before)
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        module[2].weight.zero_()
    assert torch.equal(teacher(EXAMPLES)[1], first)
    assert not any(p.requires_grad for p in teacher.module.parameters())


def test_gradients_go_through_an_answer_but_not_when_it_is_asked():
    teacher = teacher_of()
    inputs = EXAMPLES.clone().requires_grad_()
    teacher.answer(inputs)[1].sum().backward()
    assert inputs.grad.abs().sum() > 0
    assert not teacher(inputs)[1].requires_grad


def test_examples_may_be_overwritten_by_the_network():
    examples = EXAMPLES.clone()
    found = teacher_of(mlp(1, nn.ReLU(inplace=True)))(examples)[1]
    assert torch.equal(examples, EXAMPLES)
    torch.testing.assert_close(found, mlp(1)(EXAMPLES.relu()))


def test_scores_of_probabilities_are_their_logarithms():
    logits = teacher_of()(EXAMPLES)[1]
    scores = teacher_of(nn.Sequential(*mlp(1), nn.Softmax(-1)))(EXAMPLES)[1]
    torch.testing.assert_close(scores.softmax(-1), logits.softmax(-1))
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(70))


def test_room_is_that_of_all_answers(monkeypatch):
    # Six features and three scores of four bytes, of seventy examples.
    for limit, is_little in ((70 * 9 * 4, True), (70 * 9 * 4 - 1, False)):
        monkeypatch.setattr(_lesson, "CACHE_LIMIT", limit)
        assert teacher_of().takes_little_room(EXAMPLES) is is_little


def test_state_is_that_of_the_weights():
    assert teacher_of().state(EXAMPLES) == teacher_of().state(-EXAMPLES)
    assert teacher_of().state(EXAMPLES) != teacher_of(mlp(2)).state(EXAMPLES)


class Flipped(Dataset):
    def transform(self, X, y):
        return super().transform(-X, y)


class OwnStep(NeuralNetClassifier):
    def train_step_single(self, batch, **fit_params):
        return super().train_step_single(batch, **fit_params)


class OwnBatches(NeuralNetClassifier):
    def get_iterator(self, dataset, training=False):
        return super().get_iterator(dataset, training)


class OwnScores(NeuralNetClassifier):
    def predict_proba(self, X):
        return super().predict_proba(X)


def collate(batch):
    return torch.utils.data.default_collate(batch)


@pytest.mark.parametrize(("make", "augments", "batches"), [
    (net, False, False), (lambda: net(iterator_train__shuffle=True), False, False),
    (lambda: net(dataset=Flipped), True, False),
    (lambda: OwnStep(**net().get_params(deep=False)), True, False),
    (lambda: OwnBatches(**net().get_params(deep=False)), True, True),
    (lambda: OwnScores(**net().get_params(deep=False)), False, False),
    (lambda: net(iterator_train__collate_fn=collate), True, True),
],
    ids=["plain", "shuffled", "dataset", "step", "iterator", "scores", "collate"],
)  # fmt: skip
def test_who_may_show_other_examples_and_make_batches(make, augments, batches):
    assert may_augment(make()) is augments
    assert makes_batches(make()) is batches


def test_rows_of_subsets_of_subsets():
    whole = Dataset(X, y)
    outer = Subset(whole, [9, 3, 5, 1])
    inner = Subset(outer, np.array([2, 0]))
    np.testing.assert_array_equal(rows_of(whole, X, Dataset), np.arange(70))
    np.testing.assert_array_equal(rows_of(outer, X, Dataset), [9, 3, 5, 1])
    np.testing.assert_array_equal(rows_of(inner, X, Dataset), [5, 9])


@pytest.mark.parametrize("dataset", [
    Dataset(X[:50], y[:50]), Dataset(X.copy(), y), Flipped(X, y),
    TensorDataset(EXAMPLES, torch.from_numpy(y)), Subset(Dataset(X[:9], y[:9]), [1]),
], ids=["fewer", "a copy", "subclass", "foreign", "subset of fewer"])  # fmt: skip
def test_rows_of_other_examples_are_not_known(dataset):
    assert rows_of(dataset, X, Dataset) is None


def test_places_go_elsewhere_and_batches_stay_as_they_are():
    rows, kept = np.arange(70)[::-1].copy(), []
    numbered = NumberedRows(Dataset(X, y), rows)
    loader = torch.utils.data.DataLoader(numbered, batch_size=16)
    batches = RowsKept(loader, kept.append)
    assert len(batches) == len(loader) == 5
    assert len(numbered) == 70
    found = [X for X, y in batches]
    torch.testing.assert_close(torch.cat(found), EXAMPLES)
    np.testing.assert_array_equal(torch.cat(kept), rows)


def lesson_of(**settings):
    settings = {"kd_weight": 0.7, "temperature": 2.0, "X": X} | settings
    return TeacherLoss(settings.pop("teacher", None) or teacher_of(), **settings)


def divergence(teacher, student, T):
    p, q = (z.double().div(T).softmax(-1) for z in (teacher, student))
    return float(T**2 * (p * (p / q).log()).sum(-1).mean())


@pytest.mark.parametrize("T", [1.0, 4.0])
@pytest.mark.parametrize(("task", "kd"), [(1.0, 0.0), (0.3, 0.7), (0.0, 1.0)])
def test_loss_is_the_weighted_sum(task, kd, T):
    lesson = lesson_of(task_weight=task, kd_weight=kd, temperature=T)
    output, teacher = mlp(5)(EXAMPLES).detach(), mlp(1)(EXAMPLES).detach()
    found = lesson.loss(torch.tensor(2.0), output, EXAMPLES)
    want = task * 2.0 + kd * divergence(teacher, output, T)
    assert float(found) == pytest.approx(want, rel=1e-5)


def test_at_high_temperature_scores_are_compared_as_numbers():
    # T^2 KL tends to half the mean square of centred differences, times 1 / k.
    lesson = lesson_of(task_weight=0.0, kd_weight=1.0, temperature=300.0)
    module, output = mlp(1).double(), mlp(5).double()(EXAMPLES.double())
    lesson.teacher.module.double()
    found = lesson.loss(torch.tensor(0.0), output, EXAMPLES.double())
    gap = output - module(EXAMPLES.double())
    want = (gap - gap.mean(1, keepdim=True)).square().mean() / 2
    torch.testing.assert_close(found, want, rtol=0.02, atol=1e-6)


def test_embedding_is_of_the_features_of_both():
    lesson = lesson_of(embedding=F.mse_loss, gamma=0.5, kd_weight=0.0)
    student = mlp(5)
    lesson.features = [student[:2](EXAMPLES)]
    found = lesson.loss(torch.tensor(2.0), student(EXAMPLES), EXAMPLES)
    want = 2 + 0.5 * F.mse_loss(student[:2](EXAMPLES), mlp(1)[:2](EXAMPLES))
    torch.testing.assert_close(found, want)


def test_answers_that_are_kept_are_those_of_the_rows():
    asked, kept = lesson_of(), lesson_of()
    kept.ask_once(net(), EXAMPLES)
    rows = torch.tensor([5, 3, 60])
    kept.keep_rows(rows)
    output = mlp(5)(EXAMPLES[rows])
    losses = [
        one.loss(torch.tensor(1.0), output, EXAMPLES[rows]) for one in (asked, kept)
    ]
    torch.testing.assert_close(*losses)
    # And they are not asked for again, whatever the examples are.
    torch.testing.assert_close(
        kept.loss(torch.tensor(1.0), output, 0 * EXAMPLES[rows]), losses[0]
    )


@pytest.mark.parametrize(("student", "how", "is_kept"), [
    (net, "auto", True), (net, False, False), (net, True, True),
    (lambda: net(dataset=Flipped), "auto", False),
    (lambda: net(dataset=Flipped), True, True),
    (lambda: net(iterator_train__collate_fn=collate), "auto", False),
])  # fmt: skip
def test_answers_are_kept_where_that_may_be(student, how, is_kept):
    lesson = lesson_of()
    lesson.ask_once(student(), EXAMPLES, how)
    assert (lesson.answers is not None) is is_kept
    silent = lesson_of(kd_weight=0.0)
    silent.ask_once(student(), EXAMPLES, how)
    assert silent.answers is None
    assert not silent.needs_teacher


def test_rows_of_batches_of_its_own_are_not_known():
    with pytest.raises(ValueError, match='cache_teacher=True, and .*"auto" or False'):
        lesson_of().ask_once(net(iterator_train__collate_fn=collate), EXAMPLES, True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training_by_its_name(value):
    lesson = lesson_of()
    with pytest.raises(StopTraining):
        lesson.loss(torch.tensor(value), mlp(5)(EXAMPLES), EXAMPLES)
    assert lesson.fault == f"the task loss became {value}"
    lesson = lesson_of()
    with pytest.raises(StopTraining):
        lesson.loss(torch.tensor(1.0), mlp(5)(EXAMPLES) * value, EXAMPLES)
    assert lesson.fault == "the kd loss became nan"


@pytest.mark.parametrize(("settings", "given"), [
    ({}, None), ({"gamma": 1.0, "embedding": F.mse_loss}, EXAMPLES),
])  # fmt: skip
def test_a_step_that_leaves_something_out_is_told(settings, given):
    with pytest.raises(ValueError, match="a training step of your own must call") as e:
        lesson_of(**settings).loss(torch.tensor(1.0), mlp(5)(EXAMPLES), given)
    assert str(e.value) == OWN_STEP


def test_history_has_means_over_examples_and_the_best_weights():
    lesson, student = lesson_of(kd_weight=0.0), net().initialize()
    for epoch, losses in enumerate(([4.0, 1.0], [2.0, 1.0], [8.0, 0.5])):
        for loss, n in zip(losses, (10, 30), strict=True):
            lesson.loss(torch.tensor(loss), mlp(5)(EXAMPLES[:n]), EXAMPLES[:n])
        student.history.new_epoch()
        with torch.no_grad():
            student.module_[0].bias.fill_(epoch)
        lesson.end_epoch(student)
    assert lesson.history["task"] == pytest.approx([1.75, 1.25, 2.375])
    total, epoch, weights = lesson.best
    assert (total, epoch) == (pytest.approx(1.25), 2)
    assert torch.equal(weights["0.bias"], torch.ones(6))
    lesson.fault = "the task loss became nan"
    student.history.new_epoch()
    with pytest.warns(ConvergenceWarning, match="epoch 4; the weights of epoch 2 are"):
        lesson.recover(student)
    assert torch.equal(student.module_[0].bias, torch.ones(6))
    assert len(student.history) == 3


def test_an_epoch_without_a_batch_is_told():
    with pytest.raises(ValueError, match="no batch came to the loss in an epoch. C"):
        lesson_of().end_epoch(net().initialize())


def test_nothing_to_recover_in_the_first_epoch():
    lesson, student = lesson_of(), net().initialize()
    lesson.fault = "the task loss became nan"
    student.history.new_epoch()
    with pytest.raises(ValueError, match="became nan in epoch 1; choose a smaller lr"):
        lesson.recover(student)


def taught(weight, student=None, temperature=2.0, **settings):
    with torch_session(0, 1):
        student = student or net(**settings)
        return train_with_teacher(
            student, X, y, mlp(1), True, weight=weight, temperature=temperature
        )


def test_who_listens_to_nobody_trains_as_ever():
    with torch_session(0, 1):
        plain = train_net(net(), X, y)
    found = taught(0.0)
    assert type(found) is NeuralNetClassifier
    torch.testing.assert_close(
        dict(found.module_.state_dict()), dict(plain.module_.state_dict())
    )
    assert found.history[:, "train_loss"] == pytest.approx(
        plain.history[:, "train_loss"]
    )


def test_who_listens_to_the_teacher_alone_does_not_hear_the_labels():
    with torch_session(0, 1):
        other = train_with_teacher(
            net(), X, (y + 1) % 3, mlp(1), True, weight=1.0, temperature=2.0
        )
    assert same(taught(1.0).module_, other.module_)
    assert not same(taught(0.5).module_, other.module_)


@pytest.mark.parametrize("settings", [
    {"iterator_train__shuffle": True}, {"train_split": ValidSplit(3)},
    {"batch_size": -1},
], ids=["shuffled", "split", "whole"])  # fmt: skip
def test_kept_answers_teach_as_those_that_are_asked_for(settings, monkeypatch):
    kept = taught(0.8, **settings)
    monkeypatch.setattr(_lesson, "CACHE_LIMIT", 0)
    asked = taught(0.8, **settings)
    torch.testing.assert_close(
        dict(kept.module_.state_dict()),
        dict(asked.module_.state_dict()),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_student_of_numbers_learns_their_mean_square():
    targets = X[:, :1] * 2
    teacher = nn.Linear(4, 1)
    student = regressor(
        nn.Linear(4, 1),
        optimizer=torch.optim.SGD,
        lr=0.2,
        max_epochs=60,
        batch_size=-1,
        callbacks=None,
    )
    train_with_teacher(student, X, targets, teacher, False, weight=1.0, temperature=1.0)
    torch.testing.assert_close(
        student.module_.weight, teacher.weight, atol=0.05, rtol=0
    )
    torch.testing.assert_close(student.module_.bias, teacher.bias, atol=0.05, rtol=0)


class Failing(nn.Sequential):
    """Answers are infinite after a number of training steps."""

    n_left = 8

    def forward(self, x):
        self.n_left -= self.training
        return super().forward(x) / (1 if self.n_left > 0 else 0)


def test_a_training_that_breaks_ends_with_the_best_weights():
    # Five batches an epoch: the second breaks.
    student = net(Failing(*mlp()), max_epochs=5)
    with pytest.warns(ConvergenceWarning, match="in epoch 2; the weights of epoch 1"):
        found = taught(0.5, student)
    assert type(found) is NeuralNetClassifier
    assert len(found.history) == 1
    assert all(p.isfinite().all() for p in found.module_.parameters())
    first = Failing(*mlp())
    first.n_left = 2
    with pytest.warns(ConvergenceWarning, match="in the first epoch; choose a smaller"):
        taught(0.5, net(first))
