import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import mask_channels, prune_channels, trace_channels
from tests.helpers.zoo import build, drop, run


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
