"""Errors that the check of a graph must see, however small beside the outputs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import mask_channels, prune_channels, trace_channels


def unseen(x, function):
    """Change channels in place, which no mode of torch functions sees."""
    with torch._C.DisableTorchFunction():
        return x.copy_(function(x))


# What a cut network does otherwise than the masked one.
WRONG = {
    "roll": lambda x: x.roll(1, 1),
    "flip": lambda x: x.flip(1),
    "numbered": lambda x: x * torch.linspace(1, 2, x.shape[1])[:, None, None],
    "count": lambda x: x / x.shape[1],
    "neighbours": lambda x: x + 0.1 * x.roll(1, 1),
    "small": lambda x: x + 1e-4 * x.flip(1),
}
# What stands behind it, so that its error is small in the output, or not there yet.
ENDS = {
    "plain": lambda x: x,
    "offset": lambda x: x + 1e6,
    "large offset": lambda x: x + 1e9,
    "units of columns": lambda x: x * torch.tensor([1e6, 1.0]).to(x),
    "units of outputs": lambda x: (x, 1e8 * x.mean((0, 1)) + 1e9),
    "units of rows": lambda x: x[:, None] * torch.tensor([[1e6], [1.0]]).to(x),
    "constant beside": lambda x: torch.cat([x, torch.full_like(x, 1e8)], 1),
    "scaled": lambda x: 1e-12 * x,
    "probabilities": lambda x: (8 * x).softmax(1),
}


class Wrong(nn.Module):
    """Three layers, the second behind something that is wrong once channels go."""

    def __init__(self, function, end):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 2)
        self.function, self.end = function, end

    def forward(self, x):
        x = unseen(F.relu(self.first(x)), self.function)
        return self.end(self.head(F.relu(self.second(x)).mean((2, 3))))


class SinglePrecision(Wrong):
    """Refuses all but float32."""

    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError(f"expected float32, not {x.dtype}")
        return super().forward(x)


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def free_of(net, x):
    """Genes of the first layer and of the second, with wrong ones not seen."""
    graph = trace_channels(net.eval(), x)
    return len(graph.genes_of("first")), len(graph.genes_of("second"))


@pytest.mark.parametrize("function", WRONG)
@pytest.mark.parametrize("end", ENDS)
def test_errors_are_seen_behind_anything(function, end, x):
    torch.manual_seed(0)
    net = Wrong(WRONG[function], ENDS[end])
    assert free_of(net, x) == (0, 6)


@pytest.mark.parametrize("end", ENDS)
def test_what_is_right_stays_free_behind_anything(end, x):
    torch.manual_seed(0)
    assert free_of(Wrong(lambda x: 2 * x, ENDS[end]), x) == (8, 6)


@pytest.mark.parametrize("function", ["roll", "flip", "numbered", "count"])
@pytest.mark.parametrize("end", ["plain", "offset", "units of columns"])
def test_networks_of_single_precision(function, end, x):
    torch.manual_seed(0)
    net = SinglePrecision(WRONG[function], ENDS[end])
    assert free_of(net, x)[0] == 0
    net = SinglePrecision(lambda x: 2 * x, ENDS[end])
    # What is lost in rounding cannot be told, and stays.
    assert free_of(net, x) == ((0, 0) if end == "offset" else (8, 6))


class Half(Wrong):
    def forward(self, x):
        return super().forward(x.half().to(self.head.weight.dtype))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (Half, torch.float64),
        (Half, torch.float32),
        (Wrong, torch.float64),
        (Wrong, torch.bfloat16),
    ],
)
def test_precision_is_that_of_the_numbers(kind, dtype, x):
    torch.manual_seed(0)
    net = kind(lambda x: 2 * x, ENDS["plain"]).to(dtype)
    assert free_of(net, x.to(dtype)) == (8, 6)
    net = kind(WRONG["flip"], ENDS["plain"]).to(dtype)
    assert free_of(net, x.to(dtype)) == (0, 6)


class Gated(Wrong):
    """A residual branch that does nothing yet, and is wrong."""

    def __init__(self, gate):
        super().__init__(WRONG["flip"], ENDS["plain"])
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Parameter(torch.full(gate, 0.0))

    def forward(self, x):
        x = F.relu(self.first(x))
        x = x + self.gate * self.third(unseen(x.clone(), self.function))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


@pytest.mark.parametrize("gate", [(), (1,), (8, 1, 1)])
def test_what_is_multiplied_by_nothing_is_checked_too(gate, x):
    torch.manual_seed(0)
    assert free_of(Gated(gate), x) == (0, 6)
    net = Wrong(WRONG["flip"], ENDS["plain"])
    nn.init.zeros_(net.head.weight)
    assert free_of(net, x) == (0, 6)
    net = Wrong(WRONG["flip"], ENDS["plain"])
    assert free_of(net, torch.zeros_like(x)) == (0, 6)


def test_the_check_leaves_networks_and_input_alone(x):
    torch.manual_seed(0)
    net, given = Gated(()), torch.zeros_like(x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trace_channels(net, given)
    assert not given.any()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_of_many_segments_only_those_to_blame_stay():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))

        def forward(self, x):
            for k, layer in enumerate(self.layers):
                x = torch.tanh(layer(x))
                if k in (2, 7):
                    x = unseen(x, lambda x: x.roll(1, 1))
            return x

    torch.manual_seed(0)
    graph = trace_channels(Chain(), torch.randn(4, 6))
    free = [len(graph.genes_of(f"layers.{k}")) for k in range(11)]
    assert free == [0 if k in (2, 7) else 6 for k in range(11)]
    keep = np.arange(graph.n_genes) % 3 > 0
    small, masked = (f(Chain(), graph, keep) for f in (prune_channels, mask_channels))
    assert small.layers[0].out_features == 4
    assert masked.layers[0].out_features == 6
