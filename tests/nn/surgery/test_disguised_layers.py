"""Layers whose class does not say along which axis they work."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import mask_channels, prune_channels, trace_channels


class LayerNorm2d(nn.LayerNorm):
    """That of ConvNeXt: normalises the channels of an image."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class FlatLayerNorm(nn.LayerNorm):
    """Reshapes to rows and back."""

    def forward(self, x):
        rows = x.movedim(1, -1)
        return (
            super()
            .forward(rows.reshape(-1, rows.shape[-1]))
            .view_as(rows)
            .movedim(-1, 1)
        )


class OwnLayerNorm(nn.Module):
    """No subclass of a norm at all, with its size as a list."""

    def __init__(self, n):
        super().__init__()
        self.normalized_shape = [n]
        self.scale, self.shift = (
            nn.Parameter(torch.ones(n)),
            nn.Parameter(torch.ones(n)),
        )

    def forward(self, x):
        return F.layer_norm(
            input=x.movedim(1, -1),
            normalized_shape=self.normalized_shape,
            weight=self.scale,
            bias=self.shift,
        ).movedim(-1, 1)


class RMSNorm2d(nn.RMSNorm):
    def forward(self, x):
        return super().forward(x.transpose(1, -1)).transpose(-1, 1)


class TwoNorms(nn.LayerNorm):
    """Normalises twice, along the same channels."""

    def forward(self, x):
        x = x.movedim(1, -1)
        x = F.layer_norm(x, self.normalized_shape) + super().forward(x)
        return x.movedim(-1, 1)


class ChannelsLastGroupNorm(nn.GroupNorm):
    """Takes and gives channels on the last axis."""

    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class GlobalNorm(nn.GroupNorm):
    """All channels of a place make one group."""

    def __init__(self, n):
        super().__init__(1, n)

    def forward(self, x):
        n, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1).reshape(-1, c)
        return super().forward(x).reshape(n, h, w, c).permute(0, 3, 1, 2)


class RowBatchNorm(nn.BatchNorm1d):
    """The norm of rows for an image."""

    def forward(self, x):
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, c)
        return super().forward(rows).view(n, h, w, c).permute(0, 3, 1, 2)


class ChannelLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class FlatConv(nn.Conv1d):
    """Sees an image as one line."""

    def forward(self, x):
        return super().forward(x.flatten(2)).unflatten(2, x.shape[2:])


class LastConv(nn.Conv2d):
    """Takes and gives channels on the last axis."""

    def forward(self, x):
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


class Turned(nn.Module):
    """Hands what is inside channels on the last axis."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TorchLayerNorm(nn.LayerNorm):
    """Calls torch itself."""

    def forward(self, x):
        x = x.movedim(1, -1)
        shape = self.normalized_shape
        x = torch.layer_norm(x, shape, self.weight, self.bias, self.eps, False)
        return x.movedim(-1, 1)


class TorchGroupNorm(nn.GroupNorm):
    def forward(self, x):
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Borrowed(nn.Module):
    """Calls the functions of its parts, not the parts."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(12), nn.Conv2d(12, 12, 3, groups=12)
        self.free = nn.LayerNorm(12, elementwise_affine=False)

    def forward(self, x):
        x = F.conv2d(x, self.conv.weight, self.conv.bias, groups=self.conv.groups)
        x = x.movedim(1, -1)
        x = F.layer_norm(x, self.norm.normalized_shape, self.norm.weight)
        return self.free(x).movedim(-1, 1)


# What stands between two convolutions of twelve channels -> channels that can go.
PARTS = {
    "LayerNorm2d": (lambda: LayerNorm2d(12), 12),
    "LayerNorm of rows": (lambda: FlatLayerNorm(12), 12),
    "LayerNorm without weights": (lambda: LayerNorm2d(12, 1e-5, False), 12),
    "own LayerNorm": (lambda: OwnLayerNorm(12), 12),
    "RMSNorm": (lambda: RMSNorm2d(12), 12),
    "torch.layer_norm": (lambda: TorchLayerNorm(12), 12),
    "torch.group_norm": (lambda: TorchGroupNorm(3, 12), 4),
    "two norms": (lambda: TwoNorms(12), 12),
    "GroupNorm, last": (lambda: Turned(ChannelsLastGroupNorm(3, 12)), 4),
    "GroupNorm, small groups": (lambda: Turned(ChannelsLastGroupNorm(6, 12)), 6),
    "GroupNorm, one group": (lambda: GlobalNorm(12), 12),
    "BatchNorm": (lambda: RowBatchNorm(12), 12),
    "Linear": (lambda: ChannelLinear(12, 12), 24),
    "Conv1d": (lambda: FlatConv(12, 12, 3, padding=1), 24),
    "depthwise": (lambda: FlatConv(12, 12, 3, padding=1, groups=12), 12),
    "grouped": (lambda: FlatConv(12, 12, 3, padding=1, groups=3), 8),
    "Conv2d, last": (lambda: Turned(LastConv(12, 12, 1)), 24),
    "borrowed functions": (Borrowed, 12),
    "shared norm": (
        lambda: nn.Sequential(*[LayerNorm2d(12)] * 2, nn.Conv2d(12, 12, 1)), 24,
    ),
    "one norm, two places": (
        lambda: nn.Sequential(norm := LayerNorm2d(12), nn.Conv2d(12, 12, 1), norm), 12,
    ),
}  # fmt: skip


def build(name):
    torch.manual_seed(0)
    make, n_free = PARTS[name]
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), make(), nn.ReLU(), nn.Conv2d(12, 5, 3), nn.Flatten()
    ).double()
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.1, 1)
    return net.eval(), torch.randn(4, 3, 9, 9).double(), n_free


@pytest.mark.parametrize("name", PARTS)
def test_masked_is_pruned(name):
    net, x, n_free = build(name)
    graph = trace_channels(net, x)
    assert graph.n_genes == n_free, graph
    rng = np.random.default_rng(0)
    with torch.no_grad():
        whole = net(x)
        for _ in range(3):
            keep = np.zeros(graph.n_genes, bool)
            for genes in graph.segments:
                n = rng.integers(1, len(genes))
                keep[rng.choice(genes, n, replace=False)] = True
            pruned, masked = (
                cut(net, graph, keep)(x) for cut in (prune_channels, mask_channels)
            )
            # Far below what the cut changes.
            scale = (masked - whole).abs().max()
            assert scale > 1e-6
            torch.testing.assert_close(pruned, masked, rtol=0, atol=1e-9 * scale)
        assert torch.equal(net(x), whole)


def test_masked_network_can_be_copied():
    net, x, _ = build("borrowed functions")
    graph = trace_channels(net, x)
    masked = mask_channels(net, graph, np.arange(12) % 2 == 0)
    other = copy.deepcopy(masked)
    with torch.no_grad():
        want = masked(x)
        for parameter in masked.parameters():
            parameter.zero_()
        assert torch.equal(other(x), want)


class Literal(nn.Module):
    """The size of the norm is written in the forward."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(12))

    def forward(self, x):
        return F.layer_norm(x.movedim(1, -1), (12,), self.weight).movedim(-1, 1)


class OwnGroupNorm(nn.Module):
    def __init__(self, n_groups):
        super().__init__()
        self.n_groups = n_groups

    def forward(self, x):
        return F.group_norm(x, self.n_groups)


@pytest.mark.parametrize(
    ("part", "n_free"), [(Literal, 0), (lambda: OwnGroupNorm(6), 2)]
)
def test_sizes_that_cannot_be_set(part, n_free):
    # Groups of two under a number that stays: the same offsets of all groups go.
    net = nn.Sequential(nn.Conv2d(3, 12, 3), part(), nn.Conv2d(12, 5, 3)).double()
    x = torch.randn(2, 3, 8, 8).double()
    graph = trace_channels(net, x)
    assert graph.n_genes == n_free
    if not n_free:
        assert "normalized_shape = [12]" in graph.frozen["0"]
        return
    with torch.no_grad():
        pruned, masked = (
            cut(net, graph, [True, False])(x) for cut in (prune_channels, mask_channels)
        )
    torch.testing.assert_close(pruned, masked)
