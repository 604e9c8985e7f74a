"""Layers of fewer channels give what is left of the layers with zeros in them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import prune_channels, trace_channels
from tests.helpers.tracing import Tensors, assert_commutes, count_free, follow

# Shapes of tensors, a function of them, and how many of each axis of x may go.
FUNCTIONS = {
    "linear": (
        {"x": (5, 6), "w": (4, 6), "b": (4,)},
        lambda m: F.linear(m.x, m.w, m.b), [5, 6],
    ),
    "linear of three axes": (
        {"x": (3, 5, 6), "w": (4, 6)}, lambda m: F.linear(m.x, m.w), [3, 5, 6],
    ),
    "linear with a bias that stays": (
        {"x": (5, 6), "w": (4, 6)},
        lambda m: F.linear(m.x, m.w, torch.ones(4).double()), [5, 6],
    ),
    "two linears of one weight": (
        {"x": (5, 6), "y": (2, 6), "w": (4, 6)},
        lambda m: torch.cat([F.linear(m.x, m.w), F.linear(m.y, m.w)]), [5, 6],
    ),
    "a weight that is computed": (
        {"x": (5, 6), "w": (4, 6)}, lambda m: F.linear(m.x, 2 * m.w), [0, 0],
    ),
    "convolution": (
        {"x": (3, 6, 4, 4), "w": (5, 6, 3, 3), "b": (5,)},
        lambda m: F.conv2d(m.x, m.w, m.b), [3, 6, 0, 0],
    ),
    "convolution of one example": (
        {"x": (6, 7), "w": (5, 6, 3)}, lambda m: F.conv1d(m.x, m.w), [6, 0],
    ),
    "transposed convolution": (
        {"x": (3, 6, 4), "w": (6, 5, 2), "b": (5,)},
        lambda m: F.conv_transpose1d(m.x, m.w, m.b, 2), [3, 6, 0],
    ),
    "chain": (
        {"x": (3, 6), "w": (5, 6), "b": (5,), "v": (4, 5)},
        lambda m: F.linear(F.linear(m.x, m.w, m.b).relu(), m.v), [3, 6],
    ),
    "residual sum": (
        {"x": (3, 6), "w": (6, 6), "v": (4, 6)},
        lambda m: F.linear(m.x + F.linear(m.x, m.w).relu(), m.v), [3, 6],
    ),
    "one slope each": (
        {"x": (3, 6, 4), "a": (6,)}, lambda m: F.prelu(m.x, m.a), [3, 6, 4],
    ),
    "one slope for all": (
        {"x": (3, 6, 4), "a": (1,)}, lambda m: F.prelu(m.x, m.a), [3, 6, 4],
    ),
    "norm of given statistics": (
        {"x": (3, 6, 4), "mean": (6,), "w": (6,), "b": (6,)},
        lambda m: F.batch_norm(m.x, m.mean, torch.ones_like(m.mean), m.w, m.b),
        [3, 6, 4],
    ),
    "norm of the batch": (
        {"x": (3, 6, 4)}, lambda m: F.batch_norm(m.x, None, None, training=True),
        [0, 6, 0],
    ),
    "norm of the instance": (
        {"x": (3, 6, 4)}, lambda m: F.instance_norm(m.x), [0, 6, 0],
    ),
    "table": (
        {"w": (7, 6), "x": (6,)},
        lambda m: F.embedding(torch.tensor([0, 2, 2]), m.w) * m.x, [6],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FUNCTIONS)
def test_function_commutes_with_the_removal_of_channels(case, rng):
    shapes, function, free = FUNCTIONS[case]
    module = Tensors(**shapes)
    kernels = [name for name in shapes if name == "w" and "convolution" in case]
    assert count_free(follow(module, function)[0], "x") == free
    for _ in range(4):
        assert_commutes(module, function, rng, kernels)


# Layer, shape of an example, what it says of itself, and of how many genes a cut of
# every other one makes what.
SIZES = {
    "linear": (
        lambda: [nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2)], (5, 3),
        {"out_features": 3, "in_features": 4},
    ),
    "convolution": (
        lambda: [nn.Conv2d(1, 8, 1), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 1)],
        (2, 1, 5, 5), {"out_channels": 3, "in_channels": 4},
    ),
    "transposed convolution": (
        lambda: [nn.Conv1d(1, 8, 1), nn.ConvTranspose1d(8, 6, 2), nn.Conv1d(6, 2, 1)],
        (2, 1, 5), {"out_channels": 3, "in_channels": 4},
    ),
    "depthwise convolution": (
        lambda: [nn.Conv1d(1, 8, 1), nn.Conv1d(8, 8, 3, groups=8), nn.Conv1d(8, 2, 1)],
        (2, 1, 5), {"in_channels": 4, "out_channels": 4, "groups": 4},
    ),
    "depthwise convolution that multiplies": (
        lambda: [nn.Conv1d(1, 8, 1), nn.Conv1d(8, 16, 3, groups=8),
                 nn.Conv1d(16, 2, 1)],
        (2, 1, 5), {"in_channels": 4, "out_channels": 8, "groups": 4},
    ),
    "few groups": (
        lambda: [nn.Conv1d(1, 8, 1), nn.Conv1d(8, 8, 3, groups=2), nn.Conv1d(8, 2, 1)],
        (2, 1, 5), {"in_channels": 4, "out_channels": 4, "groups": 2},
    ),
    "batch norm": (
        lambda: [nn.Conv1d(1, 8, 1), nn.BatchNorm1d(8), nn.Conv1d(8, 2, 1)],
        (2, 1, 5), {"num_features": 4},
    ),
    "one group of each": (
        lambda: [nn.Conv1d(1, 8, 1), nn.GroupNorm(8, 8), nn.Conv1d(8, 2, 1)],
        (2, 1, 5), {"num_channels": 4, "num_groups": 4},
    ),
    "groups of two": (
        lambda: [nn.Conv1d(1, 8, 1), nn.GroupNorm(4, 8), nn.Conv1d(8, 2, 1)],
        (2, 1, 5), {"num_channels": 4, "num_groups": 2},
    ),
    "slopes": (
        lambda: [nn.Linear(3, 8), nn.PReLU(8), nn.Linear(8, 2)], (5, 3),
        {"num_parameters": 4},
    ),
    "layer norm": (
        lambda: [nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)], (5, 3),
        {"normalized_shape": (4,)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_attributes_count_what_is_left(name):
    make, shape, want = SIZES[name]
    net, X = nn.Sequential(*make()).eval(), torch.randn(shape)
    graph = trace_channels(net, X)
    keep = np.ones(graph.n_genes, bool)
    for genes in graph.segments:
        keep[genes[::2]] = False
    layer = prune_channels(net, graph, keep)[1]
    for attribute, value in want.items():
        assert getattr(layer, attribute) == value, attribute
    if hasattr(layer, "weight"):
        fresh = type(layer)(
            **{
                name: getattr(layer, name)
                for name in (*want, "kernel_size")
                if hasattr(layer, name)
            }
        )
        assert fresh.weight.shape == layer.weight.shape


@pytest.mark.parametrize(("groups", "inputs", "outputs", "n_genes"), [
    (8, 8, 8, 8),  # each alone
    (8, 8, 24, 8),  # one, and the three that are made of it
    (4, 8, 8, 4),  # whole groups are as fine as offsets within them, and go
    (2, 8, 8, 8),  # the same offsets in both groups: four going in, four out
    (2, 4, 12, 8),  # two going in, six out
    (1, 8, 6, 14),
])  # fmt: skip
def test_of_groups_the_finer_way_is_taken(groups, inputs, outputs, n_genes):
    net = nn.Sequential(
        nn.Conv1d(1, inputs, 1),
        nn.Conv1d(inputs, outputs, 1, groups=groups),
        nn.Conv1d(outputs, 1, 1),
    )
    assert trace_channels(net, torch.randn(2, 1, 3)).n_genes == n_genes


def test_weight_of_two_layers_reads_and_makes_the_same_channels():
    layer = nn.Linear(6, 6)
    net = nn.Sequential(nn.Linear(2, 6), layer, nn.ReLU(), layer, nn.Linear(6, 1))
    graph = trace_channels(net, torch.randn(3, 2))
    assert graph.n_genes == 6
    assert graph.consumers[("1.weight", 1)] == ("1",)
    assert graph.uses == {"0.weight": 1.0, "1.weight": 2.0, "4.weight": 1.0}


class Functional(nn.Module):
    """Weights of a layer that itself never runs."""

    def __init__(self, kind, *sizes, **settings):
        super().__init__()
        self.first = nn.Conv1d(1, 8, 1)
        self.held, self.settings = kind(*sizes), settings
        self.last = nn.Conv1d(8, 2, 1)

    def forward(self, x):
        x = self.first(x)
        bias = self.held.bias
        return self.last(F.conv1d(x, self.held.weight, bias, **self.settings))


def test_layer_whose_weight_is_used_by_another_is_resized_too():
    net, X = Functional(nn.Conv1d, 8, 8, 1), torch.randn(2, 1, 5)
    graph = trace_channels(net, X)
    assert graph.n_genes == 16
    small = prune_channels(net, graph, np.arange(16) % 4 > 0)
    assert (small.held.in_channels, small.held.out_channels) == (6, 6)
    assert small.held.weight.shape == (6, 6, 1)


def test_groups_that_no_attribute_counts_are_not_cut():
    # The number of groups stands in the forward, and would be wrong afterwards.
    net = Functional(nn.Conv1d, 1, 8, 1, groups=8)
    graph = trace_channels(net, torch.randn(2, 1, 5))
    assert graph.n_genes == 0
    assert "without a rule" in graph.frozen["first"]


def test_only_a_norm_with_statistics_is_a_shift_of_the_layer_before_it():
    norms = [
        nn.BatchNorm1d(8),
        nn.BatchNorm1d(8, track_running_stats=False),
        nn.InstanceNorm1d(8),
        nn.Sequential(nn.ReLU(), nn.BatchNorm1d(8)),
    ]
    shifts = []
    for norm in norms:
        net = nn.Sequential(nn.Conv1d(3, 8, 1), norm, nn.Conv1d(8, 2, 1)).eval()
        shifts.append(trace_channels(net, torch.randn(4, 3, 5)).shifts)
    assert shifts == [{"0.weight": "1.running_mean"}, {}, {}, {}]


def test_a_norm_of_places_is_no_shift_of_the_channels():
    # The features of a Linear are on the last axis, those of the norm on the second.
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(5), nn.Linear(8, 2)).eval()
    graph = trace_channels(net, torch.randn(4, 5, 3))
    assert not graph.shifts
    assert len(graph.genes_of("0")) == 8


def test_channels_that_are_normalised_together_are_entered_as_mixed():
    net = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    graph = trace_channels(net, torch.randn(5, 3))
    assert list(graph.mixing) == [("1", "1.weight")]
    np.testing.assert_array_equal(graph.mixing["1", "1.weight"], graph.genes_of("0"))
    net[1] = nn.GroupNorm(8, 8)
    assert not trace_channels(net, torch.randn(5, 3)).mixing


def test_a_norm_along_two_axes_is_not_followed():
    net = nn.Sequential(nn.Conv1d(1, 8, 1), nn.LayerNorm((8, 5)), nn.Conv1d(8, 2, 1))
    graph = trace_channels(net, torch.randn(2, 1, 5))
    assert graph.n_genes == 0
    assert "without a rule in '1'" in graph.frozen["0"]
