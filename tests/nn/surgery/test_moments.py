import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import collect_covariances, trace_channels
from sklcomp.nn.surgery._moments import (
    MIN_PATCHES,
    ChannelMoments,
    PatchMoments,
    alike,
    at_positions,
    columns_of,
    sums_of,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def pair(first, last, middle=None):
    return nn.Sequential(first, middle or nn.ReLU(), last)


def outputs(net, X):
    with torch.no_grad():
        return net.eval()(X)


def test_covariances_are_those_of_the_patches(generator):
    net = pair(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3, padding=1))
    X = 100 + torch.randn(30, 2, 8, 8, generator=generator)
    graph = trace_channels(net, X)
    found = collect_covariances(net, graph, X, batch_size=7).moments["2.weight"]
    patches = F.unfold(outputs(net[:2], X), 3, padding=1).movedim(1, -1).flatten(0, 1)
    patches = patches.double().numpy()
    np.testing.assert_allclose(found.mean, patches.mean(0), rtol=1e-5)
    want = np.cov(patches.T, bias=True)
    np.testing.assert_allclose(found.covariance, want, atol=1e-4 * want.max())


def test_patches_are_chosen_by_the_seed(generator):
    net, X = pair(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3)), torch.randn(60, 1, 40, 40)
    graph = trace_channels(net, X)

    def covariance(seed):
        found = collect_covariances(net, graph, X, random_state=seed)
        return found.moments["2.weight"].covariance

    assert torch.equal(covariance(1), covariance(1))
    assert not torch.equal(covariance(1), covariance(2))
    assert (covariance(1) - covariance(2)).norm() < 0.05 * covariance(1).norm()


def moments_of(layer, batches, max_dims=1500, **reading):
    sums = PatchMoments(layer, max_dims, 0)
    n = sum(map(len, batches))
    for batch in batches:
        sums.add(batch, len(batch) / n, **reading)
    return sums.finish()


def patches_of(layer, X):
    """Patches by pushing unit kernels through the layer."""
    weight = layer.weight
    unit = torch.eye(weight[0].numel()).reshape(-1, *weight.shape[1:])
    read = type(layer)(
        weight.shape[1],
        len(unit),
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        bias=False,
    )
    read.weight.data = unit
    return outputs(read, X).movedim(1, -1).flatten(0, -2).double().numpy()


def assert_moments(found, rows, rtol=1e-4):
    want = np.cov(rows.T, bias=True).reshape(found.covariance.shape)
    np.testing.assert_allclose(found.covariance, want, atol=rtol * np.abs(want).max())
    scale = np.abs(rows).max()
    np.testing.assert_allclose(found.mean, rows.mean(0), atol=1e-5 * scale)


@pytest.mark.parametrize("shape", [(60, 5), (6, 10, 5), (3, 4, 5, 5)])
def test_moments_of_a_linear_are_those_of_its_rows(shape, generator):
    X = 3 + torch.randn(shape, generator=generator)
    found = moments_of(nn.Linear(5, 2), X.split(2))
    assert not found.is_pooled
    assert_moments(found, X.reshape(-1, 5).double().numpy())


LAYERS = {
    "plain": (nn.Conv2d(2, 1, 3), (20, 2, 7, 7)),
    "one number of zeros": (nn.Conv2d(2, 1, 3, padding=2), (20, 2, 6, 7)),
    "zeros on each axis": (nn.Conv2d(2, 1, (3, 2), padding=(0, 1)), (20, 2, 6, 7)),
    "same, even kernel": (nn.Conv2d(2, 1, (2, 4), padding="same"), (20, 2, 6, 7)),
    "same, dilated": (nn.Conv1d(3, 1, 4, padding="same", dilation=3), (20, 3, 12)),
    "valid": (nn.Conv2d(2, 1, 2, padding="valid"), (20, 2, 6, 7)),
    "strides": (nn.Conv2d(2, 1, 3, stride=(2, 3)), (20, 2, 9, 11)),
    "dilated and padded": (
        nn.Conv2d(2, 1, 2, stride=2, padding=1, dilation=(1, 3)), (20, 2, 8, 9),
    ),
    "three axes": (nn.Conv3d(2, 1, (1, 2, 2), padding=(1, 0, 1)), (9, 2, 3, 4, 5)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", LAYERS)
def test_patches_are_what_the_layer_reads(name, generator):
    layer, shape = LAYERS[name]
    X = torch.randn(shape, generator=generator)
    reading = {key: getattr(layer, key) for key in ("stride", "padding", "dilation")}
    found = moments_of(layer, X.split(4), **reading)
    assert_moments(found, patches_of(layer, X))


def test_an_image_without_an_axis_of_examples_is_one_example(generator):
    layer, X = nn.Conv2d(2, 1, 3), torch.randn(2, 9, 9, generator=generator)
    alone, batch = PatchMoments(layer, 1500, 0), PatchMoments(layer, 1500, 0)
    alone.add(X, 1.0)
    batch.add(X[None], 1.0)
    assert torch.equal(alone.finish().covariance, batch.finish().covariance)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 2, 3), nn.ConvTranspose2d(3, 2, 3)])
def test_pooled_moments_are_those_of_single_pixels(layer, generator):
    # Of a convolution whose patches are too wide, and of all transposed ones.
    X = 2 + torch.randn(20, 3, 6, 6, generator=generator)
    is_transposed = isinstance(layer, nn.ConvTranspose2d)
    found = moments_of(layer, X.split(6), max_dims=1500 if is_transposed else 26)
    assert found.is_pooled
    assert_moments(found, X.movedim(1, -1).reshape(-1, 3).double().numpy())


@pytest.mark.parametrize("size", [1, 3, 50])
def test_batches_and_their_order_make_no_difference(size, generator):
    X = torch.randn(50, 4, generator=generator)
    X[:25] += 40  # so that the first batch says little of the others
    layer = nn.Linear(4, 1)
    whole = moments_of(layer, [X])
    for batches in (X.split(size), X.flip(0).split(size)):
        found = moments_of(layer, batches)
        torch.testing.assert_close(found.mean, whole.mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            found.covariance, whole.covariance, rtol=1e-4, atol=1e-4 * 400
        )


def test_covariance_does_not_drown_in_a_large_mean(generator):
    # A float32 of 1e4 has three digits behind the point; squares have none.
    X = torch.randn(400, 3, generator=generator)
    layer = nn.Linear(3, 1)
    near, far = moments_of(layer, X.split(90)), moments_of(layer, (X + 1e4).split(90))
    torch.testing.assert_close(near.covariance, far.covariance, rtol=0, atol=5e-3)


def test_moments_follow_a_linear_map(generator):
    X = torch.randn(200, 4, generator=generator)
    A, b = torch.randn(4, 4, generator=generator), torch.arange(4.0)
    layer = nn.Linear(4, 1)
    plain, mapped = moments_of(layer, [X]), moments_of(layer, [X @ A.T + b])
    A = A.double()
    want = A @ plain.covariance @ A.T
    limit = 1e-5 * float(want.abs().max())
    torch.testing.assert_close(mapped.covariance, want, rtol=0, atol=limit)
    mean = A @ plain.mean + b
    torch.testing.assert_close(mapped.mean, mean, rtol=1e-4, atol=1e-4)


def test_second_moments_are_about_zero(generator):
    X = 2 + torch.randn(100, 4, generator=generator)
    rows = X.double()
    want = rows.T @ rows / len(rows)
    found = moments_of(nn.Linear(4, 1), X.split(30)).about_zero()
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)


def test_large_images_give_as_many_patches_as_are_wanted():
    # Alike in all examples of a batch, none of them twice.
    layer = nn.Conv2d(1, 1, 1)
    X = torch.arange(300.0 * 300).reshape(1, 1, 300, 300)
    sums = PatchMoments(layer, 1500, 0)
    sums.add(X, 1.0)
    assert sums.n == MIN_PATCHES
    sums.add(X, 0.25)
    assert sums.n == 1.25 * MIN_PATCHES
    (rows,) = sums._rows(X, 500).T
    assert len(set(rows.tolist())) == 500
    two = sums._rows(torch.cat([X, -X]), 500).reshape(2, -1)
    assert torch.equal(two[0], -two[1])
    assert two.shape == (2, 250)


@pytest.mark.parametrize("genes", [
    [0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1], [3, 3, 1, 1, 2], [2, -1, 0, -1, 2, 2, 0],
])  # fmt: skip
def test_columns_list_the_inputs_of_every_gene_in_order(genes):
    genes = np.array(genes)
    columns = columns_of(genes)
    names = np.unique(genes[genes >= 0])
    for column, gene in zip(columns.T, names, strict=True):
        places = column[column < len(genes)]
        np.testing.assert_array_equal(places, np.flatnonzero(genes == gene))
        assert (column[len(places) :] == len(genes)).all()


def test_inputs_at_positions_are_zero_where_there_is_none(generator):
    rows = 1 + torch.rand(3, 5, generator=generator)
    columns = columns_of(np.array([0, 1, 0, 0, 1]))
    found = at_positions(rows, columns)
    assert torch.equal(found[:, :, 0], rows[:, [0, 2, 3]])
    assert torch.equal(found[:, :2, 1], rows[:, [1, 4]])
    assert (found[:, 2, 1] == 0).all()


@pytest.mark.parametrize("n", [1, 7, 60])
def test_channels_have_the_mean_covariance_of_their_positions(n, generator):
    # Each input is centred by itself: what differs by place is no variance.
    X = torch.randn(60, 3, 4, generator=generator)
    X += 10 * torch.randn(3, 4, generator=generator)
    genes = np.repeat(np.arange(3), 4)
    sums = ChannelMoments(columns_of(genes))
    for batch in X.flatten(1).split(n):
        sums.add(batch, 1.0)
    found = sums.finish()
    rows = X.double().numpy()
    want = np.mean([np.cov(rows[:, :, k].T, bias=True) for k in range(4)], axis=0)
    np.testing.assert_allclose(found.covariance, want, atol=1e-4)
    np.testing.assert_allclose(found.mean, rows.reshape(60, -1).mean(0), atol=1e-4)
    zero = np.mean([rows[:, :, k].T @ rows[:, :, k] / 60 for k in range(4)], axis=0)
    np.testing.assert_allclose(found.about_zero(), zero, rtol=1e-4, atol=1e-2)


def test_channels_of_unlike_numbers_of_positions_share_nothing(generator):
    columns = columns_of(np.array([0, 0, 1, 1, 2]))
    X = torch.randn(50, 5, generator=generator)
    X[:, 4] = X[:, 0]
    sums = ChannelMoments(columns)
    sums.add(X)
    found = sums.finish().covariance
    assert torch.equal(found != 0, alike(columns, 5).bool())
    assert found[0, 2] == 0


def test_values_of_inputs_go_to_the_dimensions(generator):
    X = torch.randn(30, 2, 4, 4, generator=generator)
    patches = moments_of(nn.Conv2d(2, 1, 3), [X])
    assert patches.by_dimension(np.array([7, 5])).tolist() == [7] * 9 + [5] * 9
    pixels = moments_of(nn.Conv2d(2, 1, 3), [X], max_dims=1)
    assert pixels.by_dimension(np.array([7, 5])).tolist() == [7, 5]
    sums = ChannelMoments(columns_of(np.array([0, 1, 0, 1])))
    sums.add(X.flatten(1)[:, :4])
    assert sums.finish().by_dimension(np.array([7, 5, 7, 5])).tolist() == [7, 5]


def test_only_wide_linears_of_repeated_channels_share_positions():
    layer, genes = nn.Linear(12, 2), np.repeat(np.arange(3), 4)
    assert isinstance(sums_of(layer, genes, 11, 0), ChannelMoments)
    assert isinstance(sums_of(layer, genes, 12, 0), PatchMoments)
    assert isinstance(sums_of(layer, np.arange(12), 11, 0), PatchMoments)
    assert isinstance(sums_of(nn.Conv2d(12, 2, 1), genes, 11, 0), PatchMoments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_gives_float64(dtype, generator):
    X = torch.randn(100, 4, generator=generator).to(dtype)
    found = moments_of(nn.Linear(4, 1), X.split(30))
    assert found.mean.dtype == found.covariance.dtype == torch.float64
    assert_moments(found, X.double().numpy())
