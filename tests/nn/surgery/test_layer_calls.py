"""Layers that are called otherwise than by ``layer(x)``, or turn what they get."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from sklcomp.nn import (
    collect_covariances,
    elimination_order,
    mask_channels,
    prune_channels,
    trace_channels,
)


class Keyword(nn.Sequential):
    """Its layers are called by keyword."""

    def forward(self, x):
        for part in self:
            x = part(x) if isinstance(part, nn.ReLU) else part(input=x)
        return x


class TurnedLinear(nn.Linear):
    """Reads the second axis of (n, inputs, length)."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class SelfPadded(nn.Conv2d):
    """Pads by itself, as ports of TensorFlow do."""

    def forward(self, x):
        x = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(x, weight=self.weight, bias=self.bias, stride=self.stride)


# A layer in disguise, the layer that it is, and the input of a net that ends so.
DISGUISES = {
    "linear by keyword": (Keyword, lambda: nn.Linear(8, 3), (50, 2, 4, 5)),
    "convolution by keyword": (Keyword, lambda: nn.Conv2d(8, 3, 3), (30, 2, 8, 8)),
    "transposed by keyword": (
        Keyword, lambda: nn.ConvTranspose2d(8, 3, 3), (30, 2, 8, 8),
    ),
    "same": (
        nn.Sequential, lambda: nn.Conv2d(8, 3, (3, 4), padding="same", dilation=2),
        (30, 2, 8, 8),
    ),
    "self-padded": (
        nn.Sequential, lambda: SelfPadded(8, 3, 3, stride=2), (30, 2, 8, 8),
    ),
    "turned": (nn.Sequential, lambda: TurnedLinear(8, 3), (50, 2, 8)),
}  # fmt: skip


def reference(last, x):
    """Rows that a layer reads, found without code of ours."""
    if isinstance(last, TurnedLinear):
        return x.transpose(1, 2).flatten(0, 1)
    if isinstance(last, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    if isinstance(last, nn.ConvTranspose2d):
        return x.movedim(1, -1).flatten(0, 2)
    unit = torch.eye(last.weight[0].numel()).reshape(-1, *last.weight.shape[1:])
    padding = 1 if isinstance(last, SelfPadded) else last.padding
    patches = F.conv2d(x, unit, None, last.stride, padding, last.dilation)
    return patches.movedim(1, -1).flatten(0, 2)


@pytest.mark.parametrize("name", DISGUISES)
def test_covariances_are_of_what_the_function_reads(name):
    torch.manual_seed(0)
    container, make, shape = DISGUISES[name]
    last = make()
    first = nn.Conv1d(2, 8, 1) if name == "turned" else nn.Conv2d(2, 8, 1)
    if name == "linear by keyword":
        first = nn.Linear(5, 8)
    net, X = container(first, nn.ReLU(), last), torch.randn(shape)
    found = collect_covariances(net, trace_channels(net, X[:2]), X).moments["2.weight"]
    with torch.no_grad():
        rows = reference(last, first(X).relu()).double().numpy()
    np.testing.assert_allclose(found.mean, rows.mean(0), atol=1e-5)
    want = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(found.covariance, want, atol=1e-5 * want.max())


class Branches(nn.Module):
    """The first layer is read only where the examples are small."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 4), nn.Linear(4, 2)
        self.direct = nn.Linear(3, 4)

    def forward(self, x):
        return self.c(self.direct(x) if x.mean() > 100 else self.b(self.a(x).relu()))


def test_layer_that_the_examples_do_not_reach_is_named_and_not_repaired():
    torch.manual_seed(0)
    net, X = Branches(), torch.randn(50, 3)
    graph = trace_channels(net, X)
    with pytest.warns(UserWarning, match=r"X does not reach b\.weight"):
        found = collect_covariances(net, graph, X + 1000)
    assert found.moments.keys() == {"c.weight"}
    keep = np.arange(graph.n_genes) != 2
    cut, plain = (prune_channels(net, graph, keep, how) for how in (found, None))
    assert torch.equal(cut.b.weight, plain.b.weight)
    # Where nothing is known of the readers, the norms decide.
    orders = [elimination_order(net, graph, how)[0] for how in (found, None)]
    assert np.array_equal(*orders)


class Middle(nn.Module):
    """Two layers, and what the middle one makes of their channels."""

    def __init__(self, middle, call=None):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, 6), middle, nn.Linear(6, 2)
        self.call = call or (lambda part, x: part(x))

    def forward(self, x):
        return self.last(self.call(self.middle, self.first(x)))


def with_shared_weight(part, x):
    return part[1](part[0](x))


class Idle(nn.Linear):
    """Does not use its weight."""

    def forward(self, x):
        return x


def shared():
    parts = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
    parts[1].weight = parts[0].weight
    return parts


def grouped():
    return nn.ConvTranspose1d(6, 6, 3, groups=2)


def checkpointed(part, x, **kwargs):
    return torch.utils.checkpoint.checkpoint(part, x, **kwargs)


def on_each(part, x):
    return torch.vmap(part)(x)


def called_functionally(part, x):
    return torch.func.functional_call(part, dict(part.named_parameters()), (x,))


def computed(part, x):
    weight = {name: 2 * p for name, p in part.named_parameters()}
    return torch.func.functional_call(part, weight, (x,))


# What is done with a layer of six channels -> what is said of it, and its genes.
REASONS = {
    "shared": (shared, with_shared_weight, "middle.1", "the weight of 'middle.0'", 6),
    "transposed in groups": (
        grouped, lambda part, x: part(x[..., None]).mean(-1), "middle",
        "without a rule in 'middle'", 0,
    ),
    "vectorised": (
        lambda: nn.Linear(6, 6), on_each, "middle", "a smaller network raises", 0,
    ),
    "idle": (lambda: Idle(6, 6), lambda part, x: part(x), "middle", "no trace sees", 6),
    "computed": (lambda: nn.Linear(6, 6), computed, "middle", "", 0),
    "function": (
        lambda: nn.Linear(6, 6), lambda part, x: F.linear(x, part.weight, part.bias),
        "middle", "", 12,
    ),
    "forward": (
        lambda: nn.Linear(6, 6), lambda part, x: part.forward(input=x), "middle", "",
        12,
    ),
    "functional call": (
        lambda: nn.Linear(6, 6), called_functionally, "middle", "", 12,
    ),
    "checkpoint": (
        lambda: nn.Linear(6, 6),
        lambda part, x: checkpointed(part, x, use_reentrant=False), "middle", "", 12,
    ),
    "reentrant checkpoint": (
        lambda: nn.Linear(6, 6),
        lambda part, x: checkpointed(part, x, use_reentrant=True), "middle", "", 12,
    ),
    "not at all": (
        lambda: nn.Linear(6, 6), lambda part, x: x, "middle", "is not reached by", 6,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of torch, that inputs have no gradients
@pytest.mark.parametrize("name", REASONS)
def test_what_is_said_of_a_layer_is_true(name):
    torch.manual_seed(0)
    make, call, layer, reason, n_genes = REASONS[name]
    net, X = Middle(make(), call), torch.randn(20, 3)
    graph = trace_channels(net, X)
    assert graph.n_genes == n_genes, graph
    said = graph.frozen.get(layer, "")
    assert reason in said
    assert "not reached" not in said or name == "not at all"
    keep = np.arange(n_genes) % 3 > 0
    with torch.no_grad():
        pruned, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
        torch.testing.assert_close(pruned(X), masked(X))
        repaired = prune_channels(net, graph, keep, compensate=X)
        if name != "shared":  # one weight cannot be the best of two runs
            error = (repaired(X) - net(X)).square().mean()
            assert error <= (pruned(X) - net(X)).square().mean()


@pytest.mark.parametrize("has_bias", [True, False])
def test_shift_goes_only_to_a_bias_that_is_added(has_bias):
    # The weight is used without the bias of its layer, which serves elsewhere.
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            y = F.linear(self.a(x), self.b.weight, self.b.bias if has_bias else None)
            return y, x.sum() + self.b.bias

    torch.manual_seed(0)
    net, X = Net(), torch.randn(50, 3) + 3
    graph = trace_channels(net, X)
    assert graph.biases.get("b.weight") == ("b.bias" if has_bias else None)
    pruned = prune_channels(net, graph, np.arange(6) > 1, compensate=X)
    same = torch.equal(pruned.b.bias, net.b.bias)
    assert same != has_bias


def test_mean_of_a_norm_along_another_axis_is_left_alone():
    # A linear layer makes eight features of eight places; the norm reads the places.
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 5),
        nn.Linear(5, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.Flatten(),
        nn.Linear(64, 2),
    ).eval()
    X = torch.randn(20, 8, 3)
    graph = trace_channels(net, X)
    assert not graph.shifts
    pruned = prune_channels(net, graph, np.arange(graph.n_genes) > 1, compensate=X)
    assert torch.equal(pruned[2].running_mean, net[2].running_mean)


class TiedConvolutions(nn.Module):
    """A weight is used in both directions, another only in that of another kind."""

    def __init__(self):
        super().__init__()
        self.first, self.tied = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 9, 1)
        self.up, self.last = nn.Conv2d(6, 5, 2), nn.Conv2d(5, 2, 1)

    def forward(self, x):
        x = F.conv_transpose2d(F.relu(self.tied(self.first(x))), self.tied.weight)
        x = F.conv_transpose2d(F.relu(x), self.up.weight.transpose(0, 1))
        return self.last(x)


class Backwards(nn.Module):
    """A convolution whose weight is only used the other way round."""

    def __init__(self):
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 6, 1), nn.Conv2d(5, 6, 2)
        self.last = nn.Conv2d(5, 2, 1)

    def forward(self, x):
        return self.last(F.conv_transpose2d(F.relu(self.first(x)), self.up.weight))


@pytest.mark.parametrize("make", [TiedConvolutions, Backwards])
def test_weights_that_are_used_the_other_way_round_are_not_repaired(make):
    torch.manual_seed(0)
    net, X = make().double(), torch.randn(30, 3, 6, 6).double()
    graph = trace_channels(net, X)
    assert graph.n_genes >= 6
    rng = np.random.default_rng(0)
    covariances = collect_covariances(net, graph, X)
    assert covariances.moments.keys() <= {"last.weight"}
    for _ in range(3):
        keep = np.zeros(graph.n_genes, bool)
        for genes in graph.segments:
            keep[rng.choice(genes, len(genes) - 2, replace=False)] = True
        plain, masked, repaired = (
            prune_channels(net, graph, keep),
            mask_channels(net, graph, keep),
            prune_channels(net, graph, keep, covariances),
        )
        with torch.no_grad():
            torch.testing.assert_close(plain(X), masked(X))
        for name, weight in plain.state_dict().items():
            if not name.startswith("last"):
                assert torch.equal(weight, repaired.state_dict()[name])
