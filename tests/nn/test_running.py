"""Networks run without a trace."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import (
    collect_covariances,
    count_macs,
    elimination_order,
    fold_batchnorm,
    mask_channels,
    measure_latency,
    prune_channels,
    trace_channels,
)
from sklcomp.nn._running import (
    FastLayout,
    evaluating,
    reestimate_batch_norms,
    restoring,
)
from sklcomp.nn.surgery._folding import insert_batch_norms


class Counting(nn.Module):
    """Changes what it has, in evaluation too, in all the ways that there are."""

    def __init__(self):
        super().__init__()
        self.hidden, self.norm = nn.Linear(3, 8), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 2)
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("bound_anew", torch.ones(2))
        self.register_buffer("of_data", torch.ones(2))
        self.register_buffer("resized", torch.ones(2))
        self.register_buffer("with_nan", torch.full((2,), torch.nan))
        self.register_buffer("unsaved", torch.zeros(3, dtype=torch.long), False)
        self.register_buffer("absent", None)
        self.n_calls, self.last = 0, None

    def forward(self, x):
        self.in_place += 1
        self.bound_anew = self.bound_anew * 2
        self.of_data.data.mul_(3)
        self.resized.data = torch.ones(2 + len(x))
        self.with_nan[0] = float(x.sum())
        self.unsaved[1] -= 1
        self.absent = x.mean(0)
        if not hasattr(self, "lazy"):
            self.register_buffer("lazy", torch.ones(1))
        self.n_calls += 1
        self.last = self.new = x
        return self.head(F.relu(self.norm(self.hidden(x))))


def everything(module):
    """Modes, values of parameters and buffers, and attributes."""
    found = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, dict):
                continue
            found[path, name] = value
        for name, value in [*part._buffers.items(), *part._parameters.items()]:
            found[path, name] = None if value is None else value.detach().clone()
    return found


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key, old in before.items():
        if torch.is_tensor(old):
            torch.testing.assert_close(
                after[key], old, rtol=0, atol=0, equal_nan=True, msg=str(key)
            )
        else:
            assert after[key] is old, key


X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
HALF = np.arange(8) % 2 == 0
# All public functions that run a network, or make another one of it.
CALLS = {
    "trace_channels": lambda net: trace_channels(net, X),
    "prune_channels": lambda net: prune_channels(net, trace_channels(net, X), HALF),
    "with compensation": lambda net: prune_channels(
        net, trace_channels(net, X), HALF, compensate=X
    ),
    "mask_channels": lambda net: mask_channels(net, trace_channels(net, X), HALF),
    "collect_covariances": lambda net: collect_covariances(
        net, trace_channels(net, X), X
    ),
    "elimination_order": lambda net: elimination_order(net, trace_channels(net, X)),
    "count_macs": lambda net: count_macs(net, (3,)),
    "measure_latency": lambda net: measure_latency(net, X, n_repeats=2),
    "fold_batchnorm": lambda net: fold_batchnorm(net, X),
    "insert_batch_norms": lambda net: insert_batch_norms(net, X),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("training", [False, True])
def test_networks_are_left_as_they_were(name, training):
    net = Counting().train(training)
    net.head.train(not training)
    before, buffers = everything(net), dict(net.named_buffers())
    made = CALLS[name](net)
    assert_same(before, everything(net))
    for name, buffer in net.named_buffers():
        assert buffer is buffers[name]
    if isinstance(made, Counting):
        # What is made of it has the same counts.
        assert made.n_calls == made.in_place == 0
        assert made.resized.shape == (2,)
        assert made.absent is None
        assert not hasattr(made, "lazy")


def test_statistics_of_norms_are_all_that_is_estimated():
    net = Counting()
    expected = copy.deepcopy(net)
    reestimate_batch_norms(net, X)
    assert net.norm.num_batches_tracked == 1
    assert not torch.equal(net.norm.running_mean, expected.norm.running_mean)
    net.norm = expected.norm
    before, after = everything(expected), everything(net)
    assert_same(
        {key: value for key, value in before.items() if torch.is_tensor(value)},
        {key: value for key, value in after.items() if torch.is_tensor(value)},
    )
    assert net.n_calls == 0


def test_norms_that_do_not_run_keep_their_statistics():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
            nn.init.normal_(self.side.running_mean)

        def forward(self, x):
            return (self.main(x), self.side(x)) if self.training else self.main(x)

    net = Auxiliary()
    before = net.side.running_mean.clone()
    reestimate_batch_norms(net, X)
    assert torch.equal(net.side.running_mean, before)
    torch.testing.assert_close(net.main.running_mean, X.mean(0))


def test_a_forward_that_raises_is_put_back_too():
    class Raising(Counting):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("stop")

    net = Raising()
    before = everything(net)
    with pytest.raises(RuntimeError, match="stop"), evaluating(net):
        net(X)
    assert_same(before, everything(net))


def test_buffers_that_stay_the_same_are_not_written():
    # A backward of what was computed before needs them as they are.
    net = nn.BatchNorm1d(3).eval()
    loss = net(X.clone().requires_grad_()).square().sum()
    versions = [buffer._version for buffer in net.buffers()]
    with restoring(net):
        net(X)
    assert [buffer._version for buffer in net.buffers()] == versions
    loss.backward()


def test_batch_norms_take_the_statistics_of_the_examples():
    norm, X = nn.BatchNorm1d(3), torch.randn(40, 3) * 2 + 1
    reestimate_batch_norms(norm, X)
    torch.testing.assert_close(norm.running_mean, X.mean(0))
    torch.testing.assert_close(norm.running_var, X.var(0))
    assert norm.momentum == 0.1
    assert norm.training


def test_a_single_example_has_no_variance():
    norm = nn.BatchNorm1d(3)
    reestimate_batch_norms(norm, torch.randn(40, 3) * 2 + 1)
    before = norm.running_var.clone()
    reestimate_batch_norms(norm, torch.zeros(1, 3))
    torch.testing.assert_close(norm.running_var, before)


def test_only_images_and_networks_that_take_it_have_channels_last():
    images, rows = torch.rand(3, 2, 4, 4), torch.rand(3, 5)
    conv = nn.Conv2d(2, 3, 3)
    layout = FastLayout(conv, images, conv)
    assert layout.is_taken
    for value in (layout(images), conv.weight):
        assert value.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layout(images), images)
    assert layout(rows) is rows

    def view(X):
        return conv(X).view(3, -1)

    layout = FastLayout(view, images, conv)
    assert not layout.is_taken
    assert layout(images) is images
    assert conv.weight.is_contiguous()
