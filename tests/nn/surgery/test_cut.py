import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sklcomp.nn import count_parameters, mask_channels, prune_channels, trace_channels
from tests.helpers.zoo import ZOO, assert_same, build, drop, run

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
def test_cut_network_has_true_attributes(name, rng):
    # A second surgery traces the cut network anew and relies on its attributes.
    net, inputs = build(name)
    graph = trace_channels(net, inputs)
    keep = drop(graph, rng)
    pruned = prune_channels(net, graph, keep)
    again = trace_channels(pruned, inputs)
    assert again.n_genes == keep.sum()
    for path, part in pruned.named_modules():
        if isinstance(part, nn.Conv2d):
            shape = part.out_channels, part.in_channels // part.groups
            assert part.weight.shape[:2] == shape, path
        elif isinstance(part, nn.Linear):
            assert part.weight.shape == (part.out_features, part.in_features), path
        elif isinstance(part, nn.LayerNorm):
            assert part.weight.shape == part.normalized_shape


@each_network
def test_tracing_and_surgery_leave_the_network_alone(name, rng):
    net, inputs = build(name)
    net.train()
    list(net.modules())[-1].eval()
    modes = [part.training for part in net.modules()]
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    graph = trace_channels(net, inputs)
    keep = drop(graph, rng)
    pruned, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
    with torch.no_grad():
        for parameter in [*pruned.parameters(), *masked.parameters()]:
            parameter.add_(1.0)
    assert torch.equal(state, torch.get_rng_state())
    assert [part.training for part in net.modules()] == modes
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    for part in net.modules():
        assert not part._forward_hooks
        assert part._forward_pre_hooks.keys() <= {0}  # weight_norm may have one
    for old, new in zip(net.parameters(), pruned.parameters(), strict=True):
        assert old.data_ptr() != new.data_ptr()
        assert old.requires_grad == new.requires_grad


@each_network
def test_keeping_everything_changes_nothing(name):
    net, inputs = build(name)
    graph = trace_channels(net, inputs)
    keep = np.ones(graph.n_genes, bool)
    for other in (prune_channels(net, graph, keep), mask_channels(net, graph, keep)):
        assert_same(other, net, inputs, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("LeNet", "fc2", "output of the network"),
        ("hard-coded view", "conv2", "RuntimeError: mat1 and mat2 shapes"),
        ("recurrent", "conv", "without a rule in 'rnn'"),
        ("parametrized", "conv1", "computed weight"),
        ("ResNet, zero-pad", "blocks.2.conv2", "6 of 12 channels: is joined with"),
    ],
)
def test_what_stays_is_named(name, layer, reason):
    net, inputs = build(name)
    graph = trace_channels(net, inputs)
    assert reason in graph.frozen[layer]
    assert reason in repr(graph)


def test_layer_that_is_not_reached_is_named():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x):
            return (self.a(x) if x.sum() > 0 else self.b(x)).relu().mean(-1)

    graph = trace_channels(Branch(), torch.ones(2, 3))
    assert graph.n_genes == 0
    assert graph.frozen["b"] == "is not reached by example_input"
    assert "summed over the channels" in graph.frozen["a"]


class _Op(nn.Module):
    """One operation between two layers of eight channels."""

    def __init__(self, op):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.LazyConv2d(2, 1)
        self.op = op

    def forward(self, x):
        return self.last(self.op(self.first(x)))


class _Square(torch.autograd.Function):
    """What no mode of torch functions sees; the check of the result must."""

    @staticmethod
    def forward(ctx, x):
        return x * x * torch.arange(8.0).reshape(8, 1, 1)

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError


# Operation -> genes that are left of eight.
OPERATIONS = {
    "flip": (lambda x: x.flip(1), 0),
    "flip of rows": (lambda x: x.flip(2), 8),
    "softmax over channels": (lambda x: x.softmax(1), 0),
    "softmax over pixels": (lambda x: x.flatten(2).softmax(-1).view_as(x), 8),
    "cumsum": (lambda x: x.cumsum(1), 0),
    "normalize": (lambda x: F.normalize(x, dim=1), 0),
    "normalize rows": (lambda x: F.normalize(x, p=2, dim=3), 8),
    "response norm": (lambda x: F.local_response_norm(x, 3), 0),
    "matmul": (lambda x: x @ x.transpose(2, 3), 0),
    "fixed slice": (lambda x: x[:, :3], 0),
    "half": (lambda x: x[:, : x.shape[1] // 2], 4),
    "fixed half": (lambda x: x[:, :4], 0),
    "every second": (lambda x: x[:, ::2], 0),
    "by number": (lambda x: x[:, 2][:, None], 0),
    "by list": (lambda x: x[:, [1, 0]], 0),
    "new axis": (lambda x: x[:, None].squeeze(1), 8),
    "ellipsis": (lambda x: x[..., 1:-1, :], 8),
    "fixed tensor": (lambda x: x + torch.arange(8.0).reshape(8, 1, 1), 0),
    "number": (lambda x: 1 - x / 3, 8),
    # A smaller network draws other noise, so nothing can be checked.
    "noise of its shape": (lambda x: x + torch.randn_like(x), 0),
    "noise of an image": (lambda x: x + torch.randn(len(x), 1, *x.shape[2:]), 8),
    "where": (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), 8),
    "mean over channels": (lambda x: x - x.mean(1, keepdim=True), 0),
    "mean over pixels": (lambda x: x - x.mean((2, 3), keepdim=True), 8),
    "norm over pixels": (lambda x: x / (1 + x.norm(2, (2, 3), keepdim=True)), 8),
    "max": (lambda x: x.max(dim=3, keepdim=True)[0] + x, 8),
    "maximum": (lambda x: torch.max(x, -x), 8),
    "stack": (lambda x: torch.stack([x, -x], 0).sum(0), 8),
    "unbind": (lambda x: torch.stack(x.unbind(1), 1), 0),
    "cat with fixed": (lambda x: torch.cat([x, torch.ones(2, 3, 8, 8)], 1), 8),
    "reflect channels": (lambda x: F.pad(x[None], (0, 0, 0, 0, 1, 1), "reflect")[0], 0),
    "crop channels": (lambda x: F.pad(x, (0, 0, 0, 0, -1, 0)), 0),
    "reflect pixels": (lambda x: F.pad(x, (1, 1, 2, 2), "reflect"), 8),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), 8),
    "pools": (lambda x: F.max_pool2d(F.avg_pool2d(x, 2), 2), 8),
    "channels last": (lambda x: x.permute(0, 2, 3, 1).relu().movedim(-1, 1), 8),
    "in place": (lambda x: x.mul_(2).relu_().add_(1), 8),
    "numpy": (lambda x: torch.from_numpy(x.detach().numpy() ** 2), 0),
    "own function": (_Square.apply, 0),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), 0),
    "expand": (lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1, -1).flatten(2, 3), 8),
    "einsum": (lambda x: torch.einsum("nchw,nchv->ncwv", x, x), 0),
    "double": (lambda x: x.double().float().clone().detach(), 8),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_operation(name, rng):
    op, free = OPERATIONS[name]
    x = torch.randn(2, 3, 8, 8)
    net = _Op(op).eval()
    net(x)
    graph = trace_channels(net, x)
    assert graph.n_genes == free, graph
    keep = drop(graph, rng)
    pruned = run(prune_channels(net, graph, keep), x)[0]
    masked = run(mask_channels(net, graph, keep), x)[0]
    if "noise" not in name:
        torch.testing.assert_close(pruned, masked, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("cut", [prune_channels, mask_channels])
@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (np.ones(35, bool), r"keep of shape \(35,\).*expected 36 values"),
        (np.full(36, 0.5), "dtype float64; expected 36 values False or True"),
        (np.arange(36) >= 6, "removes all 6 channels of layer 'conv1'"),
        (np.zeros(36, bool), "keep at least one"),
    ],
)
def test_bad_keep(cut, keep, message):
    net, inputs = build("LeNet")
    graph = trace_channels(net, inputs)
    with pytest.raises(ValueError, match=message):
        cut(net, graph, keep)


def test_graph_of_another_network_is_refused():
    net, inputs = build("LeNet")
    other, other_inputs = build("U-Net")
    graph = trace_channels(net, inputs)
    with pytest.raises(ValueError, match="trace the network that is to be pruned"):
        prune_channels(other, graph, np.ones(36, bool))


class OwnConvolution(nn.Conv2d):
    """Subclasses are cut as what they are."""


def test_subclasses_of_layers_get_their_attributes(rng):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), OwnConvolution(8, 8, 3, groups=8), OwnConvolution(8, 2, 1)
    )
    x = torch.randn(2, 3, 8, 8)
    graph = trace_channels(net, x)
    assert graph.n_genes == 8
    keep = drop(graph, rng)
    pruned = prune_channels(net, graph, keep)
    assert (pruned[1].groups, pruned[1].in_channels, pruned[2].in_channels) == (4, 4, 4)
    assert_same(pruned, mask_channels(net, graph, keep), x)


def test_pruned_network_learns(rng):
    net, inputs = build("CycleGAN, affine")
    graph = trace_channels(net, inputs)
    pruned = prune_channels(net, graph, drop(graph, rng)).train()
    pruned(*inputs).square().mean().backward()
    assert all(
        p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters()
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
