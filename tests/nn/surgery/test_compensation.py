import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.nn import (
    LeNet,
    collect_covariances,
    prune_channels,
    trace_channels,
)
from sklcomp.nn.surgery._compensation import Repairs
from sklcomp.nn.surgery._cut import prune_remembering


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def outputs(net, X):
    with torch.no_grad():
        return net.eval()(X)


def pair(first, last, middle=None):
    return nn.Sequential(first, middle or nn.ReLU(), last)


# Two layers, and examples that the second reads through the first.
CASES = {
    "linear": (lambda: pair(nn.Linear(5, 8), nn.Linear(8, 3)), (400, 5)),
    "convolution": (
        lambda: pair(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 3)),
        (40, 2, 9, 9),
    ),
    "padded, strided, dilated": (
        lambda: pair(
            nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 3, stride=2, padding=2, dilation=2)
        ),
        (40, 2, 9, 9),
    ),
    "reflected": (
        lambda: pair(
            nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 3, padding=1, padding_mode="reflect")
        ),
        (40, 2, 9, 9),
    ),
    "one dimension": (
        lambda: pair(nn.Conv1d(2, 8, 3), nn.Conv1d(8, 3, 3)),
        (60, 2, 20),
    ),
    "three dimensions": (
        lambda: pair(nn.Conv3d(2, 6, 2), nn.Conv3d(6, 3, 2)),
        (40, 2, 5, 5, 5),
    ),
    "flattened": (
        lambda: pair(
            nn.Conv2d(2, 8, 3), nn.Linear(72, 3), nn.Sequential(nn.ReLU(), nn.Flatten())
        ),
        (600, 2, 5, 5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_repair_is_the_least_squares_fit(name, generator):
    # Of the old output on the kept inputs; the ridge moves it a little.
    torch.manual_seed(0)
    make, shape = CASES[name]
    net, X = make(), torch.randn(shape, generator=generator)
    graph = trace_channels(net, X)
    keep = np.arange(graph.n_genes) % 3 > 0
    plain = prune_channels(net, graph, keep)
    repaired = prune_channels(net, graph, keep, compensate=X)
    target = outputs(net, X).movedim(1, -1).reshape(-1, 3).double()

    read = {}
    hook = plain[2].register_forward_pre_hook(lambda _, args: read.update(x=args[0]))
    outputs(plain, X)
    hook.remove()
    # Patches by pushing unit kernels through the layer: no code of ours.
    if isinstance(plain[2], nn.Linear):
        patches = read["x"]
    else:
        weight = plain[2].weight
        unit = torch.eye(weight[0].numel()).reshape(-1, *weight.shape[1:])
        probe = type(plain[2])(
            weight.shape[1],
            len(unit),
            plain[2].kernel_size,
            plain[2].stride,
            plain[2].padding,
            plain[2].dilation,
            bias=False,
            padding_mode=plain[2].padding_mode,
        )
        probe.weight.data = unit
        patches = outputs(probe, read["x"]).movedim(1, -1).reshape(-1, len(unit))
    design = torch.cat([patches.double(), torch.ones(len(patches), 1)], 1)
    best = design @ torch.linalg.lstsq(design, target).solution

    def error(value):
        return (value - target).square().mean().item()

    ours = error(outputs(repaired, X).movedim(1, -1).reshape(-1, 3).double())
    before = error(outputs(plain, X).movedim(1, -1).reshape(-1, 3).double())
    assert error(best) <= ours <= 1.02 * error(best) + 1e-12
    assert ours < 0.7 * before


def test_repair_keeps_everything_when_nothing_is_removed(generator):
    net, X = LeNet((4, 6, 8)), torch.randn(50, 1, 28, 28, generator=generator)
    graph = trace_channels(net, X)
    keep = np.ones(graph.n_genes, bool)
    same = prune_channels(net, graph, keep, compensate=X)
    for old, new in zip(net.parameters(), same.parameters(), strict=True):
        assert torch.equal(old, new)


def test_copies_are_removed_for_nothing(generator):
    # Channels that are sums of others are predicted exactly but for the ridge.
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        net[0].weight[2] = net[0].weight[0]
        net[0].weight[3] = net[0].weight[1] - 2 * net[0].weight[0]
    X = torch.randn(50, 1, 8, 8, generator=generator)
    graph = trace_channels(net, X)
    keep = np.array([True, True, False, False])
    want = outputs(net, X)
    error = outputs(prune_channels(net, graph, keep, compensate=X), X) - want
    assert error.abs().max() < 1e-2 * want.abs().max()
    plain = outputs(prune_channels(net, graph, keep), X) - want
    assert plain.abs().max() > 0.1 * want.abs().max()


def test_shift_goes_to_the_batch_norm_behind(generator):
    # Removing a channel of constant value moves the mean of the next layer only.
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
    )
    with torch.no_grad():
        net[0].weight[1] = 0
        net[0].bias[1] = 5.0
        net[3].running_mean.normal_()
    X = torch.randn(40, 1, 8, 8, generator=generator)
    graph = trace_channels(net, X)
    assert graph.shifts == {"2.weight": "3.running_mean"}
    pruned = prune_channels(net, graph, [True, False, True], compensate=X)
    torch.testing.assert_close(
        outputs(pruned, X), outputs(net, X), rtol=1e-3, atol=1e-3
    )


def test_layer_without_bias_or_norm_predicts_through_zero(generator):
    torch.manual_seed(0)
    net = pair(nn.Linear(5, 8), nn.Linear(8, 3, bias=False))
    X = torch.randn(500, 5, generator=generator)
    graph = trace_channels(net, X)
    keep = np.arange(8) < 5
    target = outputs(net, X).double()
    H = outputs(net[:2], X).double()[:, :5]
    best = H @ torch.linalg.lstsq(H, target).solution
    ours = outputs(prune_channels(net, graph, keep, compensate=X), X).double()
    ratio = (ours - target).square().sum() / (best - target).square().sum()
    assert 1 <= ratio < 1.01


def test_transposed_convolution_is_repaired(generator):
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(8, 2, 4, stride=2, padding=1)
    net, X = pair(nn.Conv2d(2, 8, 1), up), torch.randn(60, 2, 8, 8, generator=generator)
    graph = trace_channels(net, X)
    keep = np.arange(8) % 3 > 0
    want = outputs(net, X)
    plain, repaired = (
        (outputs(prune_channels(net, graph, keep, how), X) - want).square().mean()
        for how in (None, X)
    )
    assert repaired < 0.7 * plain


def test_wide_layers_share_the_covariance_of_pixels(generator):
    torch.manual_seed(0)
    net = pair(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 3))
    X = torch.randn(60, 2, 9, 9, generator=generator)
    graph = trace_channels(net, X)
    keep = np.arange(8) % 3 > 0
    found = collect_covariances(net, graph, X, max_dims=10)
    assert found.moments["2.weight"].covariance.shape == (8, 8)
    want = outputs(net, X)
    plain, pixels, patches = (
        (outputs(prune_channels(net, graph, keep, how), X) - want).square().mean()
        for how in (None, found, X)
    )
    assert patches < pixels < 0.8 * plain


def test_no_examples_is_an_error():
    net = pair(nn.Linear(5, 8), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="X holds 0 examples"):
        collect_covariances(
            net, trace_channels(net, torch.zeros(1, 5)), torch.zeros(0, 5)
        )


def test_remembered_repairs_are_those_of_a_single_cut():
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 16, 3),
    )
    X = torch.randn(50, 1, 8, 8)
    graph = trace_channels(net, X[:2])
    covariances = collect_covariances(net, graph, X)
    repairs, calls = Repairs(), []
    first = np.arange(graph.n_genes) != 0
    # The second cut leaves the second layer the same inputs, and fewer outputs.
    for keep in (first, first & (np.arange(graph.n_genes) != 8)):
        alone = prune_channels(net, graph, keep, covariances)
        again = prune_remembering(net, graph, keep, covariances, repairs)
        calls.append(len(repairs._found))
        for name, weight in alone.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], weight)
    assert calls == [1, 2]
    assert not pickle.loads(pickle.dumps(repairs))._found
