"""Layers that are called in other ways than ``layer(x)``, or that turn what they get."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import (
    collect_covariances,
    elimination_order,
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
