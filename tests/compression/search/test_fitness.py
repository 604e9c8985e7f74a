"""How good a cut network is, by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.compression.search import _fitness
from sklcomp.compression.search._fitness import Fitness
from sklcomp.compression.search._problem import PruningProblem
from sklcomp.nn._running import use_batch_statistics
from sklcomp.training._nets import OutputKind

rng = np.random.default_rng(0)
X = rng.standard_normal((40, 2, 6, 6)).astype(np.float32)
y = rng.integers(0, 3, 40)


def conv_net():
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()
    nn.init.normal_(net[1].running_mean, std=0.1)
    return net


def make(kind="kl", trade_off=0.0, net=None, targets=y, is_classes=True, **settings):
    problem = PruningProblem(
        net or conv_net(),
        torch.from_numpy(X),
        max_params=None,
        max_macs=None,
        importance="l1",
        compensate=False,
        ignored_layers=(),
        min_channels=1,
        rng=np.random.default_rng(0),
        **settings,
    )
    return Fitness(problem, OutputKind(is_classes), X, targets, kind, trade_off)


@pytest.fixture
def genome():
    return np.arange(10) % 3 > 0


@torch.no_grad()
def logits(module):
    return module(torch.from_numpy(X)).double().numpy()


def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def test_kl_is_minus_the_divergence_from_the_whole_network(genome):
    fitness = make()
    p = softmax(logits(fitness.problem.module))
    q = softmax(logits(fitness.problem.decode(genome)))
    want = -(p * np.log(p / q)).sum(axis=1).mean()
    assert fitness(genome) == pytest.approx(want, rel=1e-4)
    assert fitness(genome) < fitness(np.ones(10, bool)) == pytest.approx(0, abs=1e-6)


def test_of_numbers_it_is_minus_the_mean_squared_difference(genome):
    fitness = make(targets=y.astype(np.float32)[:, None], is_classes=False)
    difference = logits(fitness.problem.module) - logits(fitness.problem.decode(genome))
    assert fitness(genome) == pytest.approx(-(difference**2).mean(), rel=1e-4)


def test_accuracy_is_of_the_targets(genome):
    fitness = make("accuracy")
    found = logits(fitness.problem.decode(genome)).argmax(1)
    assert fitness(genome) == pytest.approx((found == y).mean())


@pytest.mark.parametrize("kind", ["kl", "accuracy"])
def test_small_networks_are_rewarded_by_the_trade_off(kind, genome):
    plain, rewarded = make(kind), make(kind, 0.7)
    cost = plain.problem.cost(genome)[0] / plain.problem.full_cost[0]
    assert rewarded(genome) == pytest.approx(plain(genome) + 0.7 * (1 - cost))
    whole = np.ones(10, bool)
    assert rewarded(whole) == pytest.approx(plain(whole), abs=1e-6)


def test_own_function_sees_the_network_examples_and_targets(genome):
    seen = []

    def worth(module, examples, targets):
        seen.append(module.training)
        assert torch.equal(targets, torch.from_numpy(y))
        assert torch.equal(examples, torch.from_numpy(X))
        examples.zero_()  # a copy, which it may write to
        return module(examples + 1).square().mean()

    fitness = make(worth)
    first, again = fitness(genome), fitness(genome)
    assert first == again
    assert seen == [False, False]
    with torch.no_grad():
        module = fitness.problem.decode(genome)
        want = float(module(torch.ones(X.shape)).square().mean())
    assert first == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("n", [1, 7, 39])
def test_size_of_the_batches_makes_no_difference(n, genome, monkeypatch):
    want = make()(genome)
    monkeypatch.setattr(_fitness, "BATCH", n)
    assert make()(genome) == pytest.approx(want, rel=1e-3, abs=1e-6)


class Viewing(nn.Sequential):
    """A view, which images with channels last do not allow."""

    def forward(self, x):
        for part in self:
            x = x.view(len(x), -1) if isinstance(part, nn.Flatten) else part(x)
        return x


def test_order_of_memory_makes_no_difference(genome):
    fast = make()
    slow = make(net=Viewing(*conv_net()).eval())
    assert fast.layout.is_taken
    assert not slow.layout.is_taken
    assert fast(genome) == pytest.approx(slow(genome), rel=1e-3, abs=1e-6)


def test_repaired_networks_are_judged_with_the_statistics_of_the_batch(genome):
    net = conv_net()
    problem = PruningProblem(
        net,
        torch.from_numpy(X),
        max_params=None,
        max_macs=None,
        importance="l1",
        compensate=True,
        ignored_layers=(),
        min_channels=1,
        rng=np.random.default_rng(0),
    )
    fitness = Fitness(problem, OutputKind(True), X, y, "kl", 0.0)
    module = problem.decode(genome)
    use_batch_statistics(module)
    p, q = softmax(logits(net)), softmax(logits(module))
    want = -(p * np.log(p / q)).sum(axis=1).mean()
    assert fitness(genome) == pytest.approx(want, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kind", ["kl", "accuracy", lambda module, X, y: 1.0])
def test_network_and_examples_are_left_alone(kind, genome):
    fitness, before = make(kind), X.copy()
    weights = copy.deepcopy(fitness.problem.module.state_dict())
    fitness(genome)
    for name, value in fitness.problem.module.state_dict().items():
        assert torch.equal(value, weights[name])
    np.testing.assert_array_equal(X, before)
