"""Wide layers behind a flatten, whose channels share a covariance over positions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import (
    collect_covariances,
    elimination_order,
    keep_fraction,
    prune_channels,
    trace_channels,
)
from sklcomp.nn.surgery import _compensation as compensation
from sklcomp.nn.surgery._moments import columns_of

SEEDS = range(10)


def outputs(net, X):
    with torch.no_grad():
        return net.eval()(X)


def flattened(n_channels, n_outputs, size, *, relu=True, bias=True):
    """Channels, which a Linear reads at all of size x size positions."""
    return nn.Sequential(
        nn.Conv2d(2, n_channels, 1),
        nn.ReLU() if relu else nn.Identity(),
        nn.Flatten(),
        nn.Linear(n_channels * size**2, n_outputs, bias=bias),
    )


class Pyramid(nn.Module):
    """A Linear that reads one branch at 16 + 4 positions, one at 4, and raw inputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 1), nn.Conv2d(2, 5, 1)
        self.last = nn.Linear(6 * 20 + 5 * 4 + 2, 3)

    def forward(self, x):
        one, two = torch.relu(self.first(x)), torch.relu(self.second(x))
        parts = [one, F.avg_pool2d(one, 2), F.avg_pool2d(two, 2), x[:, :, 0, 0]]
        return self.last(torch.cat([part.flatten(1) for part in parts], 1))


def smooth(n, size, seed):
    """Images whose neighbouring pixels are alike, and whose positions differ."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 2, size + 2, size + 2, generator=generator)
    ramp = torch.linspace(0.5, 2, size)
    return F.avg_pool2d(X, 3, 1) * ramp + ramp[:, None]


def independent(n, n_channels, size, generator):
    """Examples whose moments are exactly those of independent, equal positions."""
    X = torch.randn(n, n_channels * size**2, generator=generator, dtype=torch.float64)
    X = X - X.mean(0)
    X = X @ torch.linalg.inv(torch.linalg.cholesky(X.T @ X / n)).T
    mix = torch.randn(n_channels, n_channels, generator=generator, dtype=torch.float64)
    X = torch.einsum("ncp,cd->ndp", X.reshape(n, n_channels, -1), mix)
    return X.reshape(n, n_channels, size, size)


def test_columns_of_every_layout():
    channels_first = np.repeat([4, 7, 5], 2)
    want = [[0, 4, 2], [1, 5, 3]]
    np.testing.assert_array_equal(columns_of(channels_first), want)
    channels_last = np.tile([4, 7, 5], 2)
    want = [[0, 2, 1], [3, 5, 4]]
    np.testing.assert_array_equal(columns_of(channels_last), want)
    # Inputs that stay, and a channel with a position less: its second is none.
    mixed = np.array([-1, 3, 3, 1, -1])
    np.testing.assert_array_equal(columns_of(mixed), [[3, 1], [5, 2]])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bias", [True, False])
def test_independent_equal_positions_give_the_full_form(seed, bias):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = flattened(6, 4, 3, relu=False, bias=bias).double()
    net[0] = nn.Conv2d(6, 6, 1, bias=False).double()
    net[0].weight.data = torch.eye(6).double()[:, :, None, None]
    X = independent(300, 6, 3, generator)
    graph = trace_channels(net, X[:2])
    full, shared = (collect_covariances(net, graph, X, max_dims=n) for n in (10**4, 53))
    keep = np.arange(6) % 3 > 0
    one, two = (prune_channels(net, graph, keep, found)[3] for found in (full, shared))
    torch.testing.assert_close(one.weight, two.weight, rtol=1e-4, atol=1e-5)
    if bias:
        torch.testing.assert_close(one.bias, two.bias, rtol=1e-4, atol=1e-5)
    orders = [elimination_order(net, graph, found)[0] for found in (full, shared)]
    np.testing.assert_array_equal(*orders)


def test_max_dims_is_the_widest_full_form():
    net, X = flattened(6, 4, 4), smooth(40, 4, 0)
    graph = trace_channels(net, X[:2])
    for max_dims, shape in ((96, (96, 96)), (95, (6, 6))):
        found = collect_covariances(net, graph, X, max_dims=max_dims)
        assert found.moments["3.weight"].covariance.shape == shape


def test_what_is_kept_grows_with_channels_squared_and_inputs():
    # Not with inputs squared: 25,088 inputs, that is 5 GB.
    net, X = flattened(512, 2, 7), smooth(8, 7, 0)
    graph = trace_channels(net, X[:2])
    moments = collect_covariances(net, graph, X).moments["3.weight"]
    assert moments.covariance.shape == (512, 512)
    assert moments.mean.shape == (512 * 49,)
    assert moments.columns.shape == (49, 512)


def moments_by_hand(net, X, n_channels):
    """Values (n, channel, position), centred at every position, and their moments."""
    values = outputs(net[:3], X).double().unflatten(1, (n_channels, -1))
    centred = values - values.mean(0)
    channels = torch.einsum("ncp,ndp->cd", centred, centred)
    return values, channels / len(X) / values.shape[2]


@pytest.mark.parametrize("batch_size", [7, 500])
def test_moments_are_those_of_every_position(batch_size):
    net, X = flattened(6, 4, 4, relu=False), 100 + smooth(60, 4, 0)
    graph = trace_channels(net, X[:2])
    found = collect_covariances(net, graph, X, batch_size=batch_size, max_dims=20)
    moments = found.moments["3.weight"]
    values, channels = moments_by_hand(net, X, 6)
    torch.testing.assert_close(
        moments.mean, values.mean(0).flatten(), rtol=1e-5, atol=1e-5
    )
    scale = float(channels.max())
    torch.testing.assert_close(
        moments.covariance, channels, rtol=1e-3, atol=1e-4 * scale
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("is_centred", [True, False])
def test_repair_is_the_best_map_of_channels_at_all_positions(seed, is_centred):
    torch.manual_seed(seed)
    net, X = flattened(6, 4, 4, bias=is_centred), smooth(200, 4, seed)
    graph = trace_channels(net, X[:2])
    found = collect_covariances(net, graph, X, max_dims=20)
    keep = np.arange(6) % 3 > 0
    small = prune_channels(net, graph, keep, found)[3]
    values, channels = moments_by_hand(net, X, 6)
    centred = values - values.mean(0) if is_centred else values
    # The ridge is a thousandth of the mean variance, here as further examples.
    ridge = 1e-3 * centred.square().mean() * centred[:, 0].numel()
    design = centred.movedim(1, 2).flatten(0, 1)
    kept, gone = design[:, keep], design[:, ~keep]
    more = ridge.sqrt() * torch.eye(4).double()
    predict = torch.linalg.lstsq(
        torch.cat([kept, more]), torch.cat([gone, torch.zeros(4, 2)])
    ).solution
    weight = net[3].weight.detach().double().unflatten(1, (6, -1))
    want = weight[:, keep] + torch.einsum("kg,ogp->okp", predict, weight[:, ~keep])
    torch.testing.assert_close(
        small.weight.double(), want.flatten(1), rtol=1e-3, atol=1e-4
    )
    if is_centred:
        # As an intercept does, the bias keeps the mean of every output.
        found, want = (
            outputs(net, X).mean(0)
            for net in (prune_channels(net, graph, keep, found), net)
        )
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_order_is_that_of_brute_force(seed):
    torch.manual_seed(seed)
    net, X = flattened(6, 4, 4), smooth(200, 4, seed)
    graph = trace_channels(net, X[:2])
    order = elimination_order(
        net, graph, collect_covariances(net, graph, X, max_dims=20)
    )[0]
    _, channels = moments_by_hand(net, X, 6)
    weight = net[3].weight.detach().double().unflatten(1, (6, -1))
    products = torch.einsum("ocp,odp->cd", weight, weight)
    second = channels + 1e-3 * channels.diagonal().mean() * torch.eye(6)

    def error(kept):
        gone = [k for k in range(6) if k not in kept]
        schur = second[gone][:, gone] - second[gone][:, kept] @ torch.linalg.solve(
            second[kept][:, kept], second[kept][:, gone]
        )
        return float((products[gone][:, gone] * schur).sum())

    living, want = list(range(6)), []
    while len(living) > 1:
        gone = min(living, key=lambda c: error([k for k in living if k != c]))
        living.remove(gone)
        want.append(gone)
    assert order.tolist() == [*want, *living]


@pytest.mark.parametrize("make", [lambda: flattened(6, 4, 4), Pyramid])
def test_repair_keeps_everything_when_nothing_is_removed(make):
    net, X = make(), smooth(60, 4, 0)
    graph = trace_channels(net, X[:2])
    found = collect_covariances(net, graph, X, max_dims=20)
    same = prune_channels(net, graph, np.ones(graph.n_genes, bool), found)
    for old, new in zip(net.parameters(), same.parameters(), strict=True):
        assert torch.equal(old, new)


def half_of_a_pyramid(seed):
    """Network, images, and the halves of it, cut and repaired."""
    torch.manual_seed(seed)
    net, X = Pyramid(), smooth(300, 4, seed)
    graph = trace_channels(net, X[:2])
    found = collect_covariances(net, graph, X, max_dims=20)
    moments = found.moments["last.weight"]
    assert moments.columns.shape == (20, 11)
    # Channels of the two branches say nothing of each other.
    assert (moments.covariance[:6, 6:] == 0).all()
    keep = keep_fraction(graph, elimination_order(net, graph, found), 0.5)
    return net, X, *(prune_channels(net, graph, keep, how) for how in (None, found))


@pytest.mark.parametrize("seed", SEEDS)
def test_channels_with_unlike_positions_and_inputs_that_stay(seed):
    net, X, _, repaired = half_of_a_pyramid(seed)
    torch.testing.assert_close(
        outputs(repaired, X).mean(0), outputs(net, X).mean(0), rtol=1e-4, atol=1e-4
    )
    # What was raw stays as it was.
    assert torch.equal(repaired.last.weight[:, -2:], net.last.weight[:, -2:])


def test_repair_of_unlike_positions_lessens_the_error():
    shares = []
    for seed in SEEDS:
        net, X, *small = half_of_a_pyramid(seed)
        plain, repaired = ((outputs(one, X) - outputs(net, X)).var() for one in small)
        shares.append(float(repaired / plain))
    assert np.median(shares) < 0.5


def test_a_channel_that_others_make_is_removed_for_nothing():
    net = flattened(4, 3, 4, relu=False)
    with torch.no_grad():
        net[0].weight[2] = net[0].weight[0]
        net[0].weight[3] = net[0].weight[1] - 2 * net[0].weight[0]
    X = smooth(60, 4, 0)
    graph = trace_channels(net, X[:2])
    found = collect_covariances(net, graph, X, max_dims=20)
    keep = np.array([True, True, False, False])
    want = outputs(net, X)
    error = outputs(prune_channels(net, graph, keep, found), X) - want
    plain = outputs(prune_channels(net, graph, keep), X) - want
    assert error.abs().max() < 0.02 * plain.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_parts_of_a_weight_are_as_the_whole(dtype, monkeypatch):
    torch.manual_seed(0)
    net, X = flattened(6, 5, 4), smooth(60, 4, 0)
    graph = trace_channels(net, X[:2])
    found = collect_covariances(net, graph, X, max_dims=20)
    net = net.to(dtype)
    keep = np.arange(6) > 1
    want = prune_channels(net, graph, keep, found)[3].weight
    order = elimination_order(net, graph, found)[0]
    monkeypatch.setattr(compensation, "MAX_NUMBERS", 200)  # two rows at once
    part = prune_channels(net, graph, keep, found)[3].weight
    assert part.dtype == want.dtype == dtype
    torch.testing.assert_close(part, want)
    np.testing.assert_array_equal(elimination_order(net, graph, found)[0], order)
