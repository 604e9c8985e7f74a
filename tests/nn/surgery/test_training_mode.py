"""Heads and branches that run while a network is trained."""

import random
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import (
    collect_covariances,
    count_macs,
    mask_channels,
    prune_channels,
    trace_channels,
)
from sklcomp.nn._running import copied, run
from sklcomp.nn.surgery._cost import ChannelCost
from sklcomp.nn.surgery._modes import held

Outputs = namedtuple("Outputs", ["logits", "auxiliary"])


class Body(nn.Module):
    """Two layers, and an auxiliary head behind the first."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 4)
        self.side = nn.Conv2d(8, 5, 3)
        self.side_norm = nn.BatchNorm2d(5)
        self.auxiliary = nn.Linear(5, 4)
        nn.init.normal_(self.norm.running_mean)

    def trunk(self, x):
        return F.relu(self.norm(self.first(x)))

    def main(self, x):
        x = self.drop(F.relu(self.second(x)).mean((2, 3)))
        return self.head(F.dropout(x, 0.5, self.training))

    def aside(self, x):
        return self.auxiliary(F.relu(self.side_norm(self.side(x))).mean((2, 3)))

    def forward(self, x):
        x = self.trunk(x)
        return (self.main(x), self.aside(x)) if self.training else self.main(x)


class Named(Body):
    def forward(self, x):
        x = self.trunk(x)
        aside = self.aside(x) if self.training else None
        return Outputs(self.main(x), aside) if self.training else self.main(x)


class Kept(Body):
    """The loss finds it in an attribute."""

    def forward(self, x):
        x = self.trunk(x)
        if self.training:
            self.aside_ = [self.aside(x)]
        return self.main(x)


class Inside(Body):
    """A part has the head."""

    class Part(nn.Module):
        def __init__(self, auxiliary):
            super().__init__()
            self.auxiliary, self.out = auxiliary, []

        def forward(self, x):
            return self.auxiliary(x) if self.training else None

    def __init__(self):
        super().__init__()
        self.part = Inside.Part(nn.Sequential(nn.Flatten(), nn.Linear(8 * 64, 3)))

    def forward(self, x):
        x = self.trunk(x)
        return self.main(x), self.part(x), self.aside(x)


class Noisy(Body):
    """Numbers of many kinds are drawn."""

    def forward(self, x):
        x = self.trunk(x)
        if not self.training:
            return self.main(x)
        x = x + torch.randn_like(x) * torch.rand_like(x) * torch.rand(1)
        x = x * torch.bernoulli(torch.full_like(x, 0.8))
        x = x + torch.empty_like(x).normal_() + torch.zeros_like(x).uniform_(-1, 1)
        x = x + torch.zeros_like(x).exponential_() + torch.normal(x, 0.1)
        x = F.dropout2d(F.alpha_dropout(x, training=True), training=True)
        if random.random() < 0.5 or np.random.random() < 0.5:  # noqa: NPY002
            x = F.rrelu(x, training=True)
        return self.main(x), self.aside(x)


class Momentum(Body):
    """What is trained without gradients changes in the forward."""

    def __init__(self):
        super().__init__()
        self.register_buffer("n_calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.n_calls += 1
            self.head.bias.data.add_(1)
        x = self.trunk(x)
        return (self.main(x), self.aside(x)) if self.training else self.main(x)


@pytest.fixture
def x():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def halves(graph, seed=0):
    keep = np.ones(graph.n_genes, bool)
    rng = np.random.default_rng(seed)
    for genes in graph.segments:
        keep[rng.permutation(genes)[: len(genes) // 2]] = False
    return keep


def outputs(net, x, training):
    with held(net, training):
        returned, left = run(net, copied(x))
    return [tensor.clone() for tensor in returned + left]


@pytest.mark.parametrize("make", [Body, Named, Kept, Inside, Noisy, Momentum])
def test_masked_is_pruned_in_both_modes(make, x):
    torch.manual_seed(0)
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    graph = trace_channels(net, x)
    assert graph.n_genes == 8 + 6 + 5
    assert "output" in graph.frozen["head"]
    assert "network" in graph.frozen["auxiliary"]
    free = [len(graph.genes_of(name)) for name in ("first", "second", "side")]
    assert free == [8, 6, 5]
    keep = halves(graph)
    small, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
    for training in (False, True):
        pairs = zip(
            outputs(small, x, training), outputs(masked, x, training), strict=True
        )
        for one, two in pairs:
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    small.train()(x)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_costs_are_those_of_evaluation(x):
    torch.manual_seed(0)
    net = Body()
    graph = trace_channels(net, x)
    keep = halves(graph)
    small = prune_channels(net, graph, keep)
    cost = ChannelCost(net, graph, x[:1])
    n_parameters = sum(p.numel() for p in small.parameters())
    assert cost(keep) == (n_parameters, count_macs(small, (3, 8, 8)))


def test_heads_of_training_are_repaired_too(x):
    torch.manual_seed(0)
    net = Body()
    graph = trace_channels(net, x)
    found = collect_covariances(net, graph, x)
    assert "side.weight" in found.moments
    keep = np.ones(graph.n_genes, bool)
    keep[graph.genes_of("first")[0]] = False
    # A channel that is another one's double can be predicted.
    twin = graph.genes_of("first")[1]
    with torch.no_grad():
        for part in (net.first.weight, net.first.bias, net.norm.running_mean):
            part[0] = part[1]
    assert keep[twin]
    many = torch.randn(200, 3, 8, 8)
    errors = []
    for compensate in (None, many):
        small = prune_channels(net, graph, keep, compensate)
        pair = outputs(net, x, True)[1], outputs(small, x, True)[1]
        errors.append(float((pair[0] - pair[1]).abs().max()))
    assert errors[1] < 0.05 * errors[0]


def draw_path(x):
    return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.8).div_(0.8)


def mix_up(x):
    share = torch.distributions.Beta(1.0, 1.0).sample()
    return share * x + (1 - share) * x[torch.randperm(len(x))]


def cut_out(x):
    k, x = random.randint(0, 3), x.clone()
    x[:, :, k : k + 2] = 0
    return x


def drop_block(x):
    holes = (torch.rand(len(x), *x.shape[2:]) < 0.1).float()
    left = 1 - F.max_pool2d(holes[:, None], 3, 1, 1)
    return x * left * left.numel() / left.sum()


# What networks do to channels while they are trained, and then only.
REGULARISERS = {
    "path": draw_path,
    "path by an image": lambda x: x * (0.8 + torch.rand(len(x), 1, 1, 1)).floor_(),
    "layer": lambda x: x if random.random() < 0.5 else torch.zeros_like(x),
    "noise": lambda x: x + 0.1 * torch.randn(x.shape),
    "noise of its size": lambda x: x + torch.randn_like(x) * x.std(),
    "factors": lambda x: x * torch.empty_like(x).normal_(1, 0.1),
    "normal": lambda x: x * (1 + torch.normal(torch.zeros_like(x), 0.1)),
    "distribution": lambda x: torch.distributions.Normal(x, 1.0).rsample(),
    "mask": lambda x: x * torch.bernoulli(torch.full_like(x, 0.8)),
    "blocks": drop_block,
    "mixing": mix_up,
    "holes": cut_out,
    "channels": lambda x: F.dropout2d(F.feature_alpha_dropout(x, training=True)),
    "parts": lambda x: nn.Dropout2d(0.3)(nn.AlphaDropout()(x)) + nn.RReLU()(x),
}


@pytest.mark.parametrize("name", REGULARISERS)
def test_regularisers_of_training_freeze_nothing(name, x):
    class Regularised(Body):
        def forward(self, x):
            x = self.trunk(x)
            if not self.training:
                return self.main(x)
            return self.main(REGULARISERS[name](x)), self.aside(x)

    torch.manual_seed(0)
    net = Regularised()
    graph = trace_channels(net, x)
    assert len(graph.genes_of("first")) == 8
    assert len(graph.genes_of("second")) == 6
    small = prune_channels(net, graph, halves(graph)).train()
    sum(output.mean() for output in small(x)).backward()


class HardCoded(Body):
    """A head that takes a number of channels that is written down."""

    def __init__(self):
        super().__init__()
        self.fixed = nn.Linear(8 * 64, 3)

    def forward(self, x):
        x = self.trunk(x)
        if not self.training:
            return self.main(x)
        return self.main(x), self.fixed(x.reshape(-1, 8 * 64))


def test_what_cannot_be_cut_in_training_is_frozen_and_named(x):
    torch.manual_seed(0)
    net = HardCoded()
    graph = trace_channels(net, x)
    assert "in training mode a smaller network raises" in graph.frozen["first"]
    assert len(graph.genes_of("second")) == 6
    small = prune_channels(net, graph, halves(graph))
    small.train()(x)


class Targets(Body):
    """Its training needs what an example has not."""

    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("targets")
        return super().forward(x)


class Later(Body):
    """It raises when much of it has run."""

    def forward(self, x):
        x = self.trunk(x)
        if self.training:
            self.aside(x.flip(1))
            raise RuntimeError("targets")
        return self.main(x)


def test_what_ran_before_training_stopped_freezes_nothing(x):
    graph = trace_channels(Later(), x)
    assert len(graph.genes_of("first")) == 8


def test_training_that_cannot_run_is_named(x):
    graph = trace_channels(Targets(), x)
    reason = "is not reached by example_input; in training mode the network raises "
    assert graph.frozen["side"] == reason + "ValueError"
    graph = trace_channels(Targets(), {"x": x, "targets": 1})
    assert len(graph.genes_of("side")) == 5


class OwnMode(Body):
    """Other functions in training, of the same layers."""

    def forward(self, x):
        x = self.first(x)
        if self.training:
            with torch._C.DisableTorchFunction():
                x = x.copy_(x.flip(1))
        return self.main(F.relu(self.norm(x)))


def test_errors_of_training_are_seen(x):
    graph = trace_channels(OwnMode(), x)
    assert len(graph.genes_of("first")) == 0
    assert "in training mode" in graph.frozen["first"]


def test_generators_are_left_alone(x):
    net = Noisy()
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    trace_channels(net, x)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    np.testing.assert_array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002
