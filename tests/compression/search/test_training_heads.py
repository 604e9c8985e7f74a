"""Nets with heads that run in training only, and nets that count their forwards."""

from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import scale
from torch import nn

from tests.helpers.nets import classifier, regressor
from tests.helpers.recipes import evolutionary_pruner

X, y = load_iris(return_X_y=True)
X = scale(X).astype(np.float32)
QUICK = {"population_size": 4, "n_generations": 2, "n_polish_steps": 2,
         "finetune_epochs": 3, "max_params": 0.5, "random_state": 0}  # fmt: skip
Outputs = namedtuple("Outputs", ["logits", "auxiliary"])


class Supervised(nn.Module):
    """An auxiliary head with a norm of its own behind the first layer."""

    def __init__(self, n_outputs=3, width=16):
        super().__init__()
        self.hidden, self.norm = nn.Linear(4, width), nn.BatchNorm1d(width)
        self.inner = nn.Linear(width, width)
        self.output = nn.Linear(width, n_outputs)
        self.side, self.side_norm = nn.Linear(width, 8), nn.BatchNorm1d(8)
        self.auxiliary = nn.Linear(8, n_outputs)

    def forward(self, x):
        x = F.relu(self.norm(self.hidden(x)))
        main = self.output(F.relu(self.inner(x)))
        if not self.training:
            return main
        return main, self.auxiliary(F.relu(self.side_norm(self.side(x))))


class WithNames(Supervised):
    def forward(self, x):
        found = super().forward(x)
        return Outputs(*found) if self.training else found


class Fixed(Supervised):
    """Its head asks for a number of channels that is written down."""

    def forward(self, x):
        x = F.relu(self.norm(self.hidden(x)))
        main = self.output(F.relu(self.inner(x)))
        if not self.training:
            return main
        return main, self.auxiliary(F.relu(self.side(x.reshape(-1, 16))))


class EachOutput(nn.Module):
    """The loss of all outputs, whether there are several or one."""

    def __init__(self, loss=F.cross_entropy):
        super().__init__()
        self.loss = loss

    def forward(self, outputs, target):
        if torch.is_tensor(outputs):
            return self.loss(outputs, target)
        return sum(self.loss(output, target) for output in outputs)


def net_of(make):
    torch.manual_seed(0)
    return classifier(make(), criterion=EachOutput, batch_size=30, max_epochs=10)


@pytest.mark.parametrize("make", [Supervised, WithNames, Fixed])
@pytest.mark.parametrize("distill_weight", [0.0, 0.7, "auto"])
def test_nets_with_heads_of_training_are_pruned_and_tuned(make, distill_weight):
    net = net_of(make)
    pruner = evolutionary_pruner(net, distill_weight=distill_weight, **QUICK)
    pruner.fit(X, y)
    assert pruner.report_.ratio("parameters") <= 0.5
    module = pruner.module_
    assert len(pruner.graph_.genes_of("inner")) == 16
    # The head reads the channels that are left, and has some itself.
    assert module.side.in_features == module.hidden.out_features
    if make is Fixed:
        assert module.hidden.out_features == 16
        assert "in training mode" in pruner.graph_.frozen["hidden"]
    else:
        assert len(pruner.graph_.genes_of("hidden")) == 16
        assert len(pruner.graph_.genes_of("side")) == 8
    before = [p.detach().clone() for p in module.auxiliary.parameters()]
    pruner.estimator_.partial_fit(X, y)
    after = list(module.auxiliary.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert pruner.predict_proba(X).shape == (150, 3)


def test_regression_with_heads_of_training():
    torch.manual_seed(0)
    net = regressor(
        Supervised(1), criterion=EachOutput, criterion__loss=F.mse_loss, callbacks=None
    )
    target = (X @ np.arange(4)).astype(np.float32)
    pruner = evolutionary_pruner(net, **QUICK).fit(X, target)
    assert pruner.module_.side.in_features == pruner.module_.hidden.out_features < 16
    pruner.estimator_.partial_fit(X, target[:, None])


def test_statistics_of_heads_of_training_stay():
    net = net_of(Supervised).fit(X, y)
    pruner = evolutionary_pruner(FrozenEstimator(net), **QUICK | {"finetune": False})
    pruner.fit(X, y)
    kept = pruner.kept_channels_["side"]
    mean = pruner.module_.side_norm.running_mean
    assert mean.abs().sum() > 0
    torch.testing.assert_close(mean, net.module_.side_norm.running_mean[kept])


class Counting(nn.Module):
    """Counts the examples that it has seen, also in evaluation."""

    def __init__(self):
        super().__init__()
        self.hidden, self.output = nn.Linear(4, 16), nn.Linear(16, 3)
        self.register_buffer("n_seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))
        self.n_calls = 0

    def forward(self, x):
        self.n_seen += len(x)
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        self.n_calls += 1
        return self.output(F.relu(self.hidden(x)))


def test_counts_stay_as_they_are():
    torch.manual_seed(0)
    net = classifier(Counting(), max_epochs=2).fit(X, y)
    seen, mean, calls = (
        getattr(net.module_, name) for name in ("n_seen", "mean", "n_calls")
    )
    seen, mean = seen.clone(), mean.clone()

    def fitness(module, X, y):
        return -float(F.cross_entropy(module(X), y))

    for settings in ({}, {"fitness": fitness}, {"compensate": False}):
        pruner = evolutionary_pruner(
            FrozenEstimator(net), **QUICK | {"finetune": False} | settings
        ).fit(X, y)
        for ask in (pruner.predict, pruner.predict_proba):
            ask(X)
        pruner.score(X, y)
        other = pruner.at(max_params=0.9).module_
        for module in (net.module_, pruner.module_, other):
            assert torch.equal(module.n_seen, seen)
            assert torch.equal(module.mean, mean)
            assert module.n_calls == calls
