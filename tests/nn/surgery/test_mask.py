import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sklcomp.nn import count_parameters, mask_channels, prune_channels, trace_channels
from tests.helpers.zoo import ZOO, assert_same, build, drop

# Channels that can go, and those that cannot: nothing less than this is followed.
FREE = {
    "LeNet": 36,
    "VGG with batch norm": 84,
    "ResNet, projection": 126,
    "ResNet, zero-pad": 90,
    "DenseNet-like": 26,
    "U-Net": 64,
    "MobileNet-like": 32,
    "ConvNeXt-like": 60,
    "squeeze and excite": 18,
    "CycleGAN generator": 108,
    "CycleGAN, affine": 108,
    "data-dependent": 8,
    "hard-coded view": 8,
    "grouped": 16,
    "chunk and shuffle": 34,
    "two inputs": 16,
    "recurrent": 10,
    "parametrized": 12,
    "tokens": 36,
}
each_network = pytest.mark.parametrize("name", ZOO)


@each_network
def test_masked_is_pruned(name, rng):
    net, inputs = build(name)
    graph = trace_channels(net, inputs)
    assert graph.n_genes == FREE[name]
    for share in (0.5, 0.75, None):
        keep = drop(graph, rng, share)
        pruned, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
        assert type(pruned) is type(net)
        assert count_parameters(masked) >= count_parameters(net) - 100
        assert count_parameters(pruned) < count_parameters(net) or keep.all()
        assert_same(pruned, masked, inputs)


@each_network
def test_keeping_everything_changes_nothing(name):
    net, inputs = build(name)
    graph = trace_channels(net, inputs)
    keep = np.ones(graph.n_genes, bool)
    for other in (prune_channels(net, graph, keep), mask_channels(net, graph, keep)):
        assert_same(other, net, inputs, atol=1e-6)


@st.composite
def networks(draw):
    """Chains of layers with residual sums and concatenations, as data."""
    layers = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(
            st.sampled_from(
                ["conv", "bn", "in", "pool", "residual", "concat", "depthwise", "relu"]
            )
        )
        layers.append((kind, draw(st.integers(1, 5))))
    return layers


class Chain(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.kinds, self.parts, n = [], nn.ModuleList(), 3
        for kind, width in [("conv", 4), *layers]:
            part = nn.Identity()
            if kind == "conv":
                part, n = nn.Conv2d(n, width, 3, padding=1), width
            elif kind == "concat":
                part, n = nn.Conv2d(n, width, 1), n + width
            elif kind == "residual":
                part = nn.Conv2d(n, n, 3, padding=1)
            elif kind == "depthwise":
                part = nn.Conv2d(n, n, 3, padding=1, groups=n)
            elif kind == "bn":
                part = nn.BatchNorm2d(n)
                nn.init.normal_(part.running_mean)
                nn.init.normal_(part.bias)
            elif kind == "in":
                part = nn.InstanceNorm2d(n, affine=True)
                nn.init.normal_(part.bias)
            self.kinds.append(kind)
            self.parts.append(part)
        self.hidden, self.head = nn.Linear(n * 16, 7), nn.Linear(7, 2)

    def forward(self, x):
        for kind, part in zip(self.kinds, self.parts, strict=True):
            if kind == "residual":
                x = x + F.relu(part(x))
            elif kind == "concat":
                x = torch.cat([part(x), x], 1)
            elif kind == "pool":
                x = F.max_pool2d(x, 3, 1, 1)
            elif kind == "relu":
                x = F.relu(x)
            else:
                x = part(x)
        x = F.adaptive_avg_pool2d(x, 4).flatten(1)
        return self.head(torch.tanh(self.hidden(x)))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(networks(), st.integers(0, 100))
def test_masked_is_pruned_on_random_networks(layers, seed):
    torch.manual_seed(seed)
    net = Chain(layers).eval()
    x = torch.randn(2, 3, 6, 6)
    graph = trace_channels(net, x)
    made = 4 + 7 + sum(n for kind, n in layers if kind in ("conv", "concat"))
    # Of one channel nothing can go, and it fixes what is added to it.
    assert graph.n_genes <= made
    if all(n > 1 for kind, n in layers if kind in ("conv", "concat")):
        assert graph.n_genes == made
    keep = drop(graph, np.random.default_rng(seed), None)
    assert_same(
        prune_channels(net, graph, keep), mask_channels(net, graph, keep), x, 1e-4
    )


def test_feed_forward_of_a_transformer_can_be_cut():
    # The norms of its twin, none of whose channels go, stay as they are.
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    graph = trace_channels(net, x)
    assert len(graph.genes_of("linear1")) == 16
    keep = np.arange(graph.n_genes) < 7
    with torch.no_grad():
        small = prune_channels(net, graph, keep)(x)
        torch.testing.assert_close(small, mask_channels(net, graph, keep)(x))
