"""Fine-tuning of what was cut: rates, weights of the teacher, and which net stays."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader

from sklcomp.compression.search import _evolutionary, _finetuning
from sklcomp.compression.search._finetuning import Figures, Judge, finetune
from sklcomp.training._checkpoint import Record
from sklcomp.training._nets import OutputKind, hold_out
from tests.helpers.nets import Residual, classifier, regressor
from tests.helpers.recipes import evolutionary_pruner

X, y = load_iris(return_X_y=True)
X = scale(X).astype(np.float32)
X_val, y_val = X[::5] + np.float32(0.1), y[::5]
QUICK = {"max_params": 0.5, "population_size": 4, "n_generations": 1, "elitism": 1,
         "n_polish_steps": 0, "finetune_epochs": 2, "random_state": 0}  # fmt: skip


def dense(**settings):
    layers = nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    settings = {"optimizer": SGD, "lr": 0.1, "optimizer__momentum": 0.9} | settings
    return classifier(nn.Sequential(*layers), **settings)


def trained(**settings):
    torch.manual_seed(0)
    return FrozenEstimator(dense(**settings).fit(X, y))


def prune(net=None, X=X, y=y, X_val=None, y_val=None, **settings):
    pruner = evolutionary_pruner(net or trained(), **(QUICK | settings))
    return pruner.fit(X, y, X_val=X_val, y_val=y_val)


def cross_entropy(pruner, X, y):
    p = pruner.predict_proba(X)[np.arange(len(y)), y]
    return -np.log(p).mean()


class Rates(Callback):
    """Keeps the rate of every step, of all nets."""

    seen: list[float] = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.seen.append(net.optimizer_.param_groups[0]["lr"])


class Halving(Callback):
    """A schedule of the user's that is no LRScheduler."""

    def on_epoch_end(self, net, **kwargs):
        for group in net.optimizer_.param_groups:
            group["lr"] /= 2


def rates_of(callbacks=(), iterator_train=DataLoader, **settings):
    net = trained(callbacks=[*callbacks, Rates()], iterator_train=iterator_train)
    Rates.seen.clear()
    prune(net, finetune_epochs=3, distill_weight=0.3, **settings)
    return Rates.seen.copy()


# 150 examples in batches of 32.
N_STEPS = 5 * 3


def test_rates_are_those_of_the_cosine():
    cosine = 0.1 * (1 + np.cos(np.pi * np.arange(N_STEPS) / N_STEPS)) / 2
    np.testing.assert_allclose(rates_of(), cosine)
    np.testing.assert_allclose(rates_of(finetune_schedule=None), 0.1)
    np.testing.assert_allclose(rates_of(recipe="paper"), 0.1)


class NoLength:
    """Batches of which nobody knows the number."""

    def __init__(self, dataset, batch_size, **kwargs):
        self.loader = DataLoader(dataset, batch_size, **kwargs)

    def __iter__(self):
        return iter(self.loader)


def test_rates_fall_by_epochs_where_batches_have_no_number():
    expected = 0.1 * (1 + np.cos(np.pi * np.arange(3) / 3)) / 2
    np.testing.assert_allclose(
        rates_of(iterator_train=NoLength), np.repeat(expected, 5)
    )


def test_cosine_is_that_of_torch():
    falling = LRScheduler("CosineAnnealingLR", step_every="batch", T_max=N_STEPS)
    settings = {"finetune_epochs": 3, "distill_weight": 0.0}
    ours = prune(**settings)
    net = trained()
    net.estimator.callbacks = [falling]
    theirs = prune(net, finetune_schedule=None, **settings)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), 1e-5)


def test_a_schedule_of_the_net_is_left_alone():
    halving = LRScheduler("StepLR", step_size=1, gamma=0.5)
    expected = 0.1 * 0.5 ** (np.arange(N_STEPS) // 5)
    np.testing.assert_allclose(rates_of([halving]), expected)
    # What another callback has set is not taken back.
    rates = rates_of([Halving()])
    assert rates[5:] == [rates[5]] * 5 + [rates[5] / 2] * 5
    assert rates[5] == rates[4] / 2


def test_auto_of_one_weight_is_that_weight(monkeypatch):
    monkeypatch.setattr(_evolutionary, "WEIGHTS", (0.3,))
    auto, fixed = prune(), prune(distill_weight=0.3)
    assert auto.distill_weight_ == fixed.distill_weight_ == 0.3
    np.testing.assert_array_equal(auto.predict_proba(X), fixed.predict_proba(X))


@pytest.mark.parametrize("n_epochs", [1, 8])
def test_auto_goes_on_with_the_least_loss(n_epochs):
    data = {"X_val": X_val, "y_val": y_val}
    n_tried = max(1, n_epochs // 4)
    losses = {
        weight: cross_entropy(
            prune(distill_weight=weight, finetune_epochs=n_tried, **data), X_val, y_val
        )
        for weight in _finetuning.WEIGHTS
    }
    best = min(losses, key=losses.get)
    auto = prune(finetune_epochs=n_epochs, **data)
    assert auto.distill_weight_ == best
    expected = prune(distill_weight=best, finetune_epochs=n_epochs, **data)
    np.testing.assert_array_equal(auto.predict_proba(X), expected.predict_proba(X))


def test_auto_does_not_listen_to_a_teacher_that_knows_nothing():
    # It has never been trained.
    net = dense(max_epochs=0).fit(X, y)
    pruner = prune(FrozenEstimator(net), finetune_epochs=20)
    assert pruner.distill_weight_ == 0
    assert pruner.score(X, y) > 0.9


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_same_seed_same_choice(n_jobs):
    nets = [prune(n_jobs=n) for n in (None, n_jobs)]
    assert nets[0].distill_weight_ == nets[1].distill_weight_
    np.testing.assert_array_equal(*(net.predict_proba(X) for net in nets))


@pytest.mark.parametrize("at", [1, 2, 4])
def test_interrupted_while_tuning_and_resumed(tmp_path, monkeypatch, at):
    # Also the base net is trained here, and dropout draws from torch's generator.
    settings = {"finetune_epochs": 4, "checkpoint": tmp_path, "warm_start": True}
    torch.manual_seed(0)
    net = classifier(Residual, max_epochs=2, module__n_classes=3)
    X = np.repeat(globals()["X"], 16, axis=1)
    whole = prune(net, X, finetune_epochs=4)
    calls, train = [], _finetuning.Tuner.__call__

    def interrupting(self, *args):
        calls.append(args)
        if len(calls) == at:
            raise KeyboardInterrupt
        return train(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(_finetuning.Tuner, "__call__", interrupting)
        with pytest.raises(KeyboardInterrupt):
            prune(net, X, **settings)
    rest = prune(net, X, **settings)
    assert rest.distill_weight_ == whole.distill_weight_
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))


def test_another_fine_tuning_takes_up_the_search(tmp_path, monkeypatch):
    settings = {"checkpoint": tmp_path, "warm_start": True}
    first = prune(**settings)
    found, load = [], Record.load
    monkeypatch.setattr(
        Record, "load", lambda self: found.append(load(self)) or found[-1]
    )
    second = prune(distill_weight=0.3, finetune_schedule=None, **settings)
    assert found[-1]["generation"] == QUICK["n_generations"]
    np.testing.assert_array_equal(first.best_individual_, second.best_individual_)


def test_no_epochs_are_no_fine_tuning():
    none, off = prune(finetune_epochs=0), prune(finetune=False)
    np.testing.assert_array_equal(none.predict_proba(X), off.predict_proba(X))
    assert none.distill_weight_ is off.distill_weight_ is None
    assert none.report_.note == off.report_.note == ""
    assert len(none.estimator_.history) == 0


class Table(nn.Module):
    """Knows an answer to every example by its number."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, x):
        return self.logits[x[:, 0].long()]


def decide(cut, tuned, is_unseen):
    """What stays of two tables of the answers to 40 examples."""
    numbers = np.arange(40, dtype=np.float32)[:, None]
    labels = np.arange(40) % 2
    net = NeuralNetClassifier(Table(cut), criterion=nn.CrossEntropyLoss).initialize()
    judge = Judge(net, OutputKind(True), numbers, labels)
    cut, tuned = Table(cut), Table(tuned)
    found = SimpleNamespace(module_=tuned, history_=[])
    tuner = SimpleNamespace(best_of=lambda *args: (found, 0.3))
    return finetune(tuner, cut, (0.3,), judge, is_unseen), cut, tuned


def answers(n_wrong, scale=4.0):
    logits = scale * np.eye(2)[np.arange(40) % 2]
    logits[:n_wrong] = logits[:n_wrong, ::-1]
    return logits


def test_memory_of_training_examples_does_not_win():
    # The cut net knows all by heart, and the tuned one has lost a little of that.
    outcome, _, tuned = decide(answers(0), answers(1), is_unseen=False)
    assert outcome.module is tuned
    assert outcome.weight == 0.3
    assert "fine-tuned with distill_weight=0.3" in outcome.note
    assert "on training examples: loss 0.0181, score 1.000 -> " in outcome.note
    with pytest.warns(ConvergenceWarning, match="on training examples"):
        outcome, cut, _ = decide(answers(0), answers(5), is_unseen=False)
    assert outcome.module is cut


def test_what_is_worse_on_unseen_examples_is_not_kept():
    with pytest.warns(
        ConvergenceWarning, match=r"net worse on validation .* -> .*0.850"
    ):
        outcome, cut, _ = decide(answers(0), answers(6), is_unseen=True)
    assert outcome.module is cut
    assert outcome.weight is None
    assert outcome.note.startswith("kept as it was cut: the fine-tuning made")


def test_what_is_better_in_loss_or_in_score_is_kept():
    # Too sure of itself: fewer errors, and a greater loss.
    sure = decide(answers(6, 1.0), answers(4, 40.0), is_unseen=True)
    # Less sure of what is wrong: a lesser loss.
    modest = decide(answers(4, 40.0), answers(6, 1.0), is_unseen=True)
    for outcome, _, tuned in (sure, modest):
        assert outcome.module is tuned


@pytest.mark.parametrize("is_unseen", [True, False])
@pytest.mark.parametrize("tuned", [
    answers(0) * np.nan, answers(0) * 0, answers(40),
])  # fmt: skip
def test_what_has_diverged_is_not_kept(is_unseen, tuned):
    with pytest.warns(ConvergenceWarning, match="Choose a smaller lr of the net"):
        outcome, cut, _ = decide(answers(2), tuned, is_unseen)
    assert outcome.module is cut


def test_nan_is_worse_than_anything():
    bad, good = Figures(np.nan, np.nan), Figures(5.0, 0.0)
    assert bad.is_worse(good)
    assert bad.is_worse(bad)
    assert not good.is_worse(bad)
    assert Figures(np.inf, 1.0).is_worse(good)


def test_a_net_that_memorised_noise_is_tuned():
    # A fifth of the labels is wrong, and the net knows most of them by heart.
    X, clean = make_classification(
        120, 4, n_informative=4, n_redundant=0, class_sep=2.0, random_state=0
    )
    X, rng = scale(X).astype(np.float32), np.random.default_rng(0)
    noisy = np.where(rng.random(120) < 0.2, 1 - clean, clean)
    torch.manual_seed(0)
    layers = nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU()
    net = classifier(nn.Sequential(*layers, nn.Linear(100, 2)), max_epochs=80)
    assert net.fit(X, noisy).score(X, noisy) > 0.83
    tuned = prune(FrozenEstimator(net), X, noisy, max_params=0.6, finetune_epochs=8)
    assert tuned.distill_weight_ is not None
    assert tuned.report_.note.startswith("fine-tuned")


def test_report_says_whose_examples_its_score_is_of():
    frozen = prune()
    held = hold_out(y, 1000, np.random.RandomState(0).randint(2**31 - 1))[1]
    assert frozen.report_.after["training score"] == frozen.score(X[held], y[held])
    assert "score" not in frozen.report_.after
    given = prune(X_val=X_val, y_val=y_val)
    assert given.report_.after["score"] == given.score(X_val, y_val)
    assert "on validation examples" in repr(given.report_)
    here = prune(dense())
    assert here.report_.after["score"] == here.score(X[held], y[held])
    assert "training score" not in here.report_.after
    assert "-&gt;" in here.report_._repr_html_()


def test_validation_data_change_nothing_of_the_search():
    plain, given = prune(), prune(X_val=X_val, y_val=y_val)
    for name, values in plain.history_.items():
        np.testing.assert_array_equal(values, given.history_[name])


def test_validation_data_of_any_form():
    names = np.array(["c", "a", "b"])
    net = dense()
    pruners = [
        prune(net, y=names[y], X_val=values, y_val=own)
        for values, own in (
            (X_val.tolist(), names[y_val].tolist()),
            (X_val.astype(np.float64), names[y_val].astype(object)),
        )
    ]
    np.testing.assert_array_equal(*(p.predict_proba(X) for p in pruners))
    assert pruners[0].report_.after["score"] == pruners[0].score(X_val, names[y_val])
    Y = np.column_stack([X[:, 0] + X[:, 1], X[:, 2]])
    net = regressor(module__n_outputs=2, criterion=nn.MSELoss)
    pruner = prune(net, y=Y, X_val=X[::5], y_val=Y[::5])
    assert pruner.report_.after["score"] == pytest.approx(pruner.score(X[::5], Y[::5]))


def test_validation_data_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), evolutionary_pruner(trained(), **QUICK))
    pipeline.fit(X, y, evolutionarypruner__X_val=X_val, evolutionarypruner__y_val=y_val)
    assert "score" in pipeline[-1].report_.after


@pytest.fixture(scope="module")
def untouched():
    return trained()


@pytest.mark.parametrize(("X_val", "y_val", "message"), [
    (X_val, None, "y_val=None: X_val and y_val belong together"),
    (None, y_val, "X_val=None: X_val and y_val belong together"),
    (X_val[:, :3], y_val, "like X and y: X has 3 features"),
    (X_val[:, :, None], y_val, r"X_val has shape \(n, 4, 1\), X has \(n, 4\)"),
    (X_val * np.nan, y_val, "like X and y: Input X contains NaN"),
    (X_val, y_val[1:], "like X and y: .*inconsistent numbers of samples"),
    (X_val, y_val + 1, r"y_val contains 3, and the classes are \[0, 1, 2\]"),
    (X_val, y_val.astype(str), "y_val contains '0', and the classes are"),
    (X_val[:0], y_val[:0], "like X and y: .*0 sample"),
    (np.full(X_val.shape, "a"), y_val, "like X and y: could not convert"),
    (np.ma.masked_greater(X_val, 1), y_val, "X_val has .* values masked"),
])  # fmt: skip
def test_validation_data_that_do_not_fit(untouched, X_val, y_val, message):
    with pytest.raises(ValueError, match=message):
        prune(untouched, X_val=X_val, y_val=y_val)


def test_validation_targets_of_another_number():
    with pytest.raises(ValueError, match="y_val has 1 outputs, y has 2; give it as"):
        prune(regressor(), y=X[:, :2], X_val=X, y_val=X[:, 0])


def test_losses_are_those_of_the_net():
    pruner = prune()
    found = Judge(pruner.base_estimator_, OutputKind(True), X_val, y_val)(
        pruner.module_
    )
    with torch.no_grad():
        answers = pruner.module_(torch.from_numpy(X_val))
    want = F.cross_entropy(answers, torch.from_numpy(y_val))
    assert found.loss == pytest.approx(float(want), rel=1e-5)
    assert found.score == pruner.score(X_val, y_val)


@pytest.mark.parametrize(("net", "data", "n_trial", "n_last"), [
    ("frozen", {}, 113, 150), ("frozen", {"X_val": X_val, "y_val": y_val}, 150, 150),
    ("fresh", {}, 113, 113), ("fresh", {"X_val": X_val, "y_val": y_val}, 150, 150),
])  # fmt: skip
def test_only_judges_are_held_out(monkeypatch, net, data, n_trial, n_last):
    seen, train = [], _finetuning.train_net
    monkeypatch.setattr(
        _finetuning,
        "train_net",
        lambda net, X, *args: seen.append(len(X)) or train(net, X, *args),
    )
    monkeypatch.setattr(_evolutionary, "WEIGHTS", (0.0, 0.0))
    given = trained() if net == "frozen" else dense(max_epochs=2)
    prune(given, finetune_epochs=8, **data)
    assert seen == [n_trial, n_trial, n_last]
