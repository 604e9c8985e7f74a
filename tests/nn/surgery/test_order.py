import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.nn import (
    LeNet,
    SmallVGG,
    collect_covariances,
    elimination_order,
    keep_fraction,
    trace_channels,
)
from sklcomp.nn.surgery._compensation import RIDGE, InputCovariances


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def pair(first, last, middle=None):
    return nn.Sequential(first, middle or nn.ReLU(), last)


def brute_force(readers, n_genes):
    """Order of elimination by refitting every layer for every candidate."""
    living, order = list(range(n_genes)), []

    def error(kept):
        total = 0.0
        for rows, second, block in readers:
            second = second + RIDGE * second.diagonal().mean() * torch.eye(len(second))
            at = [gene * block + k for gene in kept for k in range(block)]
            gone = [k for k in range(len(second)) if k not in at]
            schur = second[gone][:, gone] - second[gone][:, at] @ torch.linalg.solve(
                second[at][:, at], second[at][:, gone]
            )
            W = rows[:, gone]
            plain = second - RIDGE / (1 + RIDGE) * second.diagonal().mean() * torch.eye(
                len(second)
            )
            total += float(((W @ schur) * W).sum() / ((rows @ plain) * rows).sum())
        return total

    while len(living) > 1:
        gone = min(living, key=lambda gene: error([g for g in living if g != gene]))
        living.remove(gone)
        order.append(gone)
    return [*order, *living]


@pytest.mark.parametrize("kind", ["linear", "convolution", "flattened", "two readers"])
def test_order_is_that_of_brute_force(kind, generator):
    torch.manual_seed(0)
    if kind == "linear":
        net, shape, block = pair(nn.Linear(5, 9), nn.Linear(9, 3)), (300, 5), 1
    elif kind == "convolution":
        net, shape, block = (
            pair(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 2, 2)),
            (30, 2, 8, 8),
            4,
        )
    elif kind == "flattened":
        middle = nn.Sequential(nn.ReLU(), nn.Flatten())
        net, block = pair(nn.Conv2d(2, 6, 3), nn.Linear(24, 40), middle), 4
        shape = (300, 2, 4, 4)
    else:
        net, shape, block = TwoReaders(), (300, 5), 1
    X = torch.randn(shape, generator=generator)
    graph = trace_channels(net, X)
    found = collect_covariances(net, graph, X)
    read = {name: m for name, m in found.moments.items() if not name.startswith("free")}
    readers = [
        (net.get_parameter(name).detach().double().flatten(1), m.covariance, block)
        for name, m in read.items()
    ]
    order = elimination_order(net, graph, found)[0]
    assert order.tolist() == brute_force(readers, len(order))


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.one, self.two = (
            nn.Linear(5, 8),
            nn.Linear(8, 3),
            nn.Linear(8, 2),
        )

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.one(x), self.two(x)


def test_order_without_covariances_is_that_of_the_norms():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[3.0, -3.0], [0.1, 0.1], [-1.0, 0.0]]))
    graph = trace_channels(net, torch.zeros(1, 2))
    assert elimination_order(net, graph)[0].tolist() == [1, 2, 0]


def test_order_holds_every_gene_once(generator):
    net, X = LeNet((5, 7, 9)), torch.randn(60, 1, 28, 28, generator=generator)
    graph = trace_channels(net, X)
    order = elimination_order(net, graph, collect_covariances(net, graph, X))
    for genes, ordered in zip(graph.segments, order, strict=True):
        assert sorted(ordered) == sorted(genes)
    keep = keep_fraction(graph, order, [0.4, 1.0, 0.01])
    assert [int(keep[genes].sum()) for genes in graph.segments] == [2, 7, 1]
    assert keep[order[0][-2:]].all()
    assert not keep[order[0][:-2]].any()


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, np.nan])
def test_bad_fraction(fraction):
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    graph = trace_channels(net, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
        keep_fraction(graph, elimination_order(net, graph), fraction)


def uncorrelated(n, variances, rng):
    """Examples of these variances whose covariance is exactly diagonal."""
    raw = rng.standard_normal((n, len(variances)))
    basis, _ = np.linalg.qr(raw - raw.mean(0))
    return torch.from_numpy(basis * np.sqrt(n * np.asarray(variances))).float()


def identity_then(weight):
    """A first layer that passes its inputs on, and one that reads them."""
    n_outputs, n = weight.shape
    net = nn.Sequential(nn.Linear(n, n, bias=False), nn.Linear(n, n_outputs))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(n))
        net[1].weight.copy_(torch.as_tensor(weight))
    return net


def order_of(net, X, **settings):
    graph = trace_channels(net, X)
    return elimination_order(net, graph, collect_covariances(net, graph, X), **settings)


@pytest.mark.parametrize("n_outputs", [1, 3, 12])
def test_order_of_a_diagonal_hessian_is_by_saliency(n_outputs, rng):
    # w^2 h, summed over the outputs: an eighth apart, whatever w and h are.
    variances = rng.uniform(0.5, 2, 8)
    saliency = 1.5 ** rng.permutation(8)
    weight = rng.standard_normal((n_outputs, 8))
    weight *= np.sqrt(saliency / variances / (weight**2).sum(0))
    X = uncorrelated(200, variances, rng)
    (order,) = order_of(identity_then(weight), X)
    np.testing.assert_array_equal(order, np.argsort(saliency))


def test_magnitude_alone_is_not_what_counts(rng):
    # The largest weight reads what hardly varies, so it goes first.
    weight = np.array([[10.0, 1.0, 2.0]])
    X = uncorrelated(200, [1e-3, 1.0, 1.0], rng)
    (order,) = order_of(identity_then(weight), X)
    assert order.tolist() == [0, 1, 2]
    net = identity_then(weight)
    by_weight = elimination_order(net, trace_channels(net, X), norm="group")
    assert by_weight[0].tolist() == [1, 2, 0]


def test_of_two_equal_channels_one_goes_first_and_the_other_last(rng):
    # The second then stands for both: its weight is twice that of any other.
    X = uncorrelated(200, np.ones(5), rng)
    net = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Linear(6, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(5)[[0, 1, 2, 3, 1, 4]])
        net[1].weight.fill_(1.0)
    (order,) = order_of(net, X)
    assert {int(order[0]), int(order[-1])} == {1, 4}


@pytest.mark.parametrize("norm", [None, "l1", "group"])
def test_order_follows_a_permutation_of_the_channels(norm, generator):
    X = torch.randn(300, 5, generator=generator)
    net = pair(nn.Linear(5, 9), nn.Linear(9, 3))
    places = torch.randperm(9, generator=generator)
    moved = copy.deepcopy(net)
    with torch.no_grad():
        moved[0].weight.copy_(net[0].weight[places])
        moved[0].bias.copy_(net[0].bias[places])
        moved[2].weight.copy_(net[2].weight[:, places])

    def order(net):
        if norm is None:
            return order_of(net, X)[0]
        return elimination_order(net, trace_channels(net, X), norm=norm)[0]

    np.testing.assert_array_equal(places.numpy()[order(moved)], order(net))


@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_errors_are_in_units_of_the_output(factor, generator):
    # So a reader with larger weights has no more to say.
    X = torch.randn(300, 5, generator=generator)
    net = TwoReaders()
    want = order_of(net, X)[0]
    with torch.no_grad():
        net.two.weight.mul_(factor)
    np.testing.assert_array_equal(order_of(net, X)[0], want)


def test_units_of_the_channels_make_no_difference(generator):
    # With a rectifier between, f(a x) = a f(x); the next layer divides by a.
    X = torch.randn(300, 5, generator=generator)
    net = pair(nn.Linear(5, 7), nn.Linear(7, 3))
    want = order_of(net, X)[0]
    with torch.no_grad():
        net[0].weight.mul_(16.0)
        net[0].bias.mul_(16.0)
        net[2].weight.div_(16.0)
    np.testing.assert_array_equal(order_of(net, X)[0], want)


@pytest.mark.parametrize("norm", ["l1", "group"])
def test_norms_are_in_units_of_each_layer(norm):
    # The trunk of a residual network is made by several layers: each counts alike.
    net, X = SmallVGG(3), torch.zeros(2, 3, 16, 16)
    graph = trace_channels(net, X)
    want = elimination_order(net, graph, norm=norm)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.mul_(64.0)
    for found, genes in zip(
        elimination_order(net, graph, norm=norm), want, strict=True
    ):
        np.testing.assert_array_equal(found, genes)


def test_group_norm_is_of_all_that_goes_with_a_gene():
    net = pair(nn.Linear(2, 4), nn.Linear(4, 3))
    rows, bias = net[0].weight.detach(), net[0].bias.detach()
    columns = net[2].weight.detach().T
    square = sum(
        part.square().reshape(4, -1).mean(1) / part.square().mean()
        for part in (rows, bias, columns)
    )
    graph = trace_channels(net, torch.zeros(1, 2))
    (order,) = elimination_order(net, graph, norm="group")
    np.testing.assert_array_equal(order, square.argsort())


def test_segments_that_no_covariance_covers_are_ordered_by_the_norm(generator):
    net, X = LeNet((5, 7, 9)), torch.randn(60, 1, 28, 28, generator=generator)
    graph = trace_channels(net, X)
    found = collect_covariances(net, graph, X)
    part = {k: v for k, v in found.moments.items() if k != "conv2.weight"}
    assert len(part) == 2
    mixed = elimination_order(net, graph, InputCovariances(part), norm="group")
    norms, surgeon = (
        elimination_order(net, graph, how, norm="group") for how in (None, found)
    )
    np.testing.assert_array_equal(mixed[0], norms[0])
    for k in (1, 2):
        np.testing.assert_array_equal(mixed[k], surgeon[k])


def test_order_leaves_the_network_and_the_covariances_alone(generator):
    X = torch.randn(100, 5, generator=generator)
    net = pair(nn.Linear(5, 6), nn.Linear(6, 3))
    graph = trace_channels(net, X)
    found = collect_covariances(net, graph, X)
    weights = copy.deepcopy(net.state_dict())
    moments = copy.deepcopy(found.moments)
    first, second = (elimination_order(net, graph, found) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name])
    for name, value in found.moments.items():
        assert torch.equal(value.covariance, moments[name].covariance)


def test_what_is_kept_of_a_smaller_share_is_kept_of_a_larger(generator):
    net, X = LeNet((5, 7, 9)), torch.zeros(2, 1, 28, 28)
    graph = trace_channels(net, X)
    order = elimination_order(net, graph)
    before = keep_fraction(graph, order, 1e-9)
    assert [before[genes].sum() for genes in order] == [1, 1, 1]
    for share in np.linspace(0.05, 1, 20):
        keep = keep_fraction(graph, order, share)
        assert (keep >= before).all()
        for genes in order:
            assert keep[genes].sum() == max(1, round(share * len(genes)))
        before = keep
    assert before.all()
