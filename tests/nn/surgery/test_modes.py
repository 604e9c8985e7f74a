"""Two forwards in a mode that is held still are the same."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import trace_channels
from sklcomp.nn.surgery._modes import Recorder, has_training_mode, held


class Own(nn.Module):
    """A network that is another while it is trained."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(4, 3)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        x = self.drop(self.norm(self.conv(x)).relu())
        x = x + 0.1 * torch.randn_like(x) * random.random()
        x = F.dropout(x, 0.5, self.training).mean((2, 3))
        return self.linear(x) if self.training else x


class OwnNorm(nn.BatchNorm2d):
    """A subclass, which does nothing else in training but what norms do."""


class OwnDropout(nn.Dropout):
    """Likewise."""


@pytest.fixture
def X():
    return torch.randn(5, 2, 6, 6)


@pytest.mark.parametrize("training", [False, True])
def test_equal_inputs_give_equal_outputs_and_leave_no_trace(training, X):
    net = Own().train()
    net.drop.eval()
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    outputs = []
    for _ in range(2):
        with held(net, training):
            outputs.append(net(X))
        random.random()
        torch.rand(1)
    assert torch.equal(*outputs)
    assert outputs[0].shape == ((5, 3) if training else (5, 4))
    assert not outputs[0].requires_grad
    assert all(torch.equal(v, buffers[k]) for k, v in net.named_buffers())
    assert net.training
    assert not net.drop.training


def test_generators_are_where_they_were(X):
    net = Own()
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for training in (False, True):
        with held(net, training):
            net(X)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    np.testing.assert_array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@pytest.mark.parametrize("training", [False, True])
def test_modes_come_back_after_an_error(training):
    net = Own().train()
    with pytest.raises(ZeroDivisionError), held(net, training):
        raise ZeroDivisionError
    assert all(part.training for part in net.modules())
    # Draws are draws again.
    assert torch.rand(100).std() > 0.1


def test_only_parts_of_users_know_that_they_are_trained():
    net = nn.Sequential(Own(), nn.Dropout(), OwnNorm(3), OwnDropout())
    with held(net, True):
        modes = {type(part).__name__: part.training for part in net.modules()}
    assert [name for name, mode in modes.items() if mode] == ["Own"]


def test_in_training_norms_and_dropout_are_those_of_evaluation(X):
    # Where nothing of the user's branches, both modes are one.
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout2d(0.9),
        nn.RReLU(),
        nn.AlphaDropout(0.9),
    )
    nn.init.normal_(net[1].running_mean)
    with torch.no_grad():
        want = net.eval()(X)
    for training in (False, True):
        with held(net.train(), training):
            torch.testing.assert_close(net(X), want)


@pytest.mark.parametrize(("function", "value"), [
    (lambda x: torch.rand(3), 0.5), (torch.rand_like, 0.5), (torch.randn_like, 0.0),
    (lambda x: torch.randn(3), 0.0), (lambda x: x.clone().uniform_(), 0.5),
    (lambda x: x.clone().normal_(), 0.0), (lambda x: x.clone().exponential_(), 1.0),
    (lambda x: x.clone().bernoulli_(), 0.5), (lambda x: x.clone().bernoulli_(0.3), 0.3),
    (lambda x: torch.normal(0.0, 1.0, (3,)), 0.0),
])  # fmt: skip
def test_numbers_that_are_drawn_are_one_number(function, value):
    with held(nn.Identity(), True):
        drawn = function(torch.zeros(3))
    assert drawn.tolist() == pytest.approx([value] * 3)


@pytest.mark.parametrize("function", [
    lambda p: torch.bernoulli(p), lambda p: p.bernoulli(),
    lambda p: torch.normal(p, 0.1), lambda p: torch.normal(p, p),
])  # fmt: skip
def test_draws_about_given_means_are_these(function):
    means = torch.tensor([0.1, 0.5, 0.9])
    with held(nn.Identity(), True):
        drawn = function(means)
    assert torch.equal(drawn, means)
    assert drawn is not means


@pytest.mark.parametrize(("draw", "mean"), [
    (lambda x: x.normal_(1, 0.1), 1.0), (lambda x: x.normal_(mean=-2.0), -2.0),
    (lambda x: x.uniform_(2, 4), 3.0), (lambda x: x.uniform_(to=5.0), 2.5),
    (lambda x: x.exponential_(4.0), 0.25), (lambda x: x.geometric_(0.2), 5.0),
    (lambda x: x.log_normal_(0.0, 1.0), np.e**0.5),
    (lambda x: x.bernoulli_(0.3), 0.3), (lambda x: x.bernoulli_(0.0), 0.0),
    (lambda x: x.bernoulli_(torch.full_like(x, 0.9)), 0.9),
    (lambda x: torch.normal(1.5, 0.1, x.shape), 1.5),
    (lambda x: torch.normal(-1.0, torch.ones_like(x)), -1.0),
    (lambda x: torch.poisson(torch.full_like(x, 3.0)), 3.0),
    (lambda x: torch.bernoulli(torch.full_like(x, 0.9), 0.25), 0.25),
    (lambda x: torch.bernoulli(torch.full_like(x, 0.9), p=0.0), 0.0),
])  # fmt: skip
def test_noise_of_any_parameters_is_its_mean(draw, mean):
    with held(nn.Identity(), training=True):
        found = draw(torch.empty(3, 4))
    np.testing.assert_allclose(found, np.full((3, 4), mean), rtol=1e-6)


class Unfollowed(nn.Module):
    """In training, what is copied without being seen hides behind noise of mean 1."""

    def __init__(self, is_noisy):
        super().__init__()
        self.first, self.last, self.is_noisy = (
            nn.Linear(3, 8),
            nn.Linear(8, 2),
            is_noisy,
        )

    def forward(self, x):
        x = self.first(x)
        if self.training:
            if self.is_noisy:
                x = x * torch.empty_like(x).normal_(1, 0.1)
            with torch._C.DisableTorchFunction():
                x = x.copy_(x.flip(1))
        return self.last(x)


@pytest.mark.parametrize("is_noisy", [False, True])
def test_factors_of_mean_one_hide_nothing_from_the_self_check(is_noisy):
    graph = trace_channels(Unfollowed(is_noisy), torch.randn(4, 3))
    assert not graph.genes_of("first").size
    assert "in training mode" in str(graph.frozen)


@pytest.mark.parametrize("function", [
    lambda x: F.dropout(x, 0.9), lambda x: F.dropout(input=x, p=0.9),
    lambda x: F.feature_alpha_dropout(x, 0.9, training=True),
    lambda x: torch.dropout(x, 0.9, True), lambda x: F.dropout2d(x, 0.9),
    lambda x: F.alpha_dropout(x, 0.9, training=True),
])  # fmt: skip
def test_functions_that_drop_keep_everything(function, X):
    with held(nn.Identity(), True):
        assert torch.equal(function(X), X)


@pytest.mark.parametrize("form", ["positional", "keyword"])
def test_attention_keeps_everything_too(form):
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    attend = F.scaled_dot_product_attention
    want = attend(q, k, v, is_causal=True)
    with held(nn.Identity(), True):
        found = (
            attend(q, k, v, None, 0.9, True)
            if form == "positional"
            else attend(q, k, v, dropout_p=0.9, is_causal=True)
        )
    torch.testing.assert_close(found, want)


def test_a_norm_without_statistics_takes_those_of_the_batch(X):
    want = F.batch_norm(X, None, None, training=True)
    with held(nn.Identity(), True):
        torch.testing.assert_close(F.batch_norm(X, None, None, training=True), want)
        mean, var = torch.ones(2), torch.full((2,), 4.0)
        found = F.batch_norm(X, mean, var, training=True)
    torch.testing.assert_close(found, (X - 1) / 2, rtol=1e-4, atol=1e-4)
    assert torch.equal(mean, torch.ones(2))


@pytest.mark.parametrize(("make", "branches"), [
    (lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2)), False),
    (lambda: OwnNorm(3), False), (lambda: OwnDropout(), False),
    (lambda: nn.Sequential(nn.Linear(2, 2), OwnNorm(2)), False), (Own, True),
    (lambda: nn.Sequential(nn.Linear(2, 2), nn.Sequential(Own())), True),
])  # fmt: skip
def test_networks_of_torch_have_no_other_mode(make, branches):
    assert has_training_mode(make()) is branches


def calls_of(net, X):
    recorder = Recorder(net)
    with held(net, False), recorder:
        net(X)
    return recorder.calls


def test_two_forwards_are_made_of_the_same_calls(X):
    net = Own().eval()
    calls = calls_of(net, X)
    assert calls == calls_of(net, torch.randn(5, 2, 6, 6))
    assert len(calls) > 4


def test_calls_on_other_tensors_or_by_other_numbers_are_others():
    net = nn.ParameterDict({"a": torch.ones(3), "b": torch.ones(3)})

    def calls(function):
        recorder = Recorder(net)
        with torch.no_grad(), recorder:
            function(net["a"], net["b"])
        return recorder.calls

    first = calls(lambda a, b: a + b)
    assert first == calls(lambda a, b: a + b)
    for other in (
        lambda a, b: b + a,
        lambda a, b: a + a,
        lambda a, b: a - b,
        lambda a, b: torch.add(a, b, alpha=2),
    ):
        assert calls(other) != first
    twice = calls(lambda a, b: (a + b) + b)
    assert twice != calls(lambda a, b: (a + b) + a)
    assert twice[:1] == first
