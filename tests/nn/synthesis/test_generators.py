import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sklcomp.nn import (
    DAFLGenerator,
    DenseGenerator,
    count_parameters,
)
from sklcomp.nn.synthesis._generators import moment_penalty, random_affine


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed))


def make(shape, *args, **settings):
    """A generator of images or of vectors, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if len(shape) == 1:
            return DenseGenerator(shape[0], *args, **settings)
        return DAFLGenerator(shape, *args, **settings)


def wild(generator):
    """The same generator with weights that drive it to its limits."""
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(50)
    return generator


def moments(x):
    rows = x.detach().transpose(0, 1).flatten(1)
    return rows.mean(1), rows.std(1, correction=0)


def test_the_published_layers_one_by_one():
    generator = make((3, 8, 12), 5, 6)
    first, _, norm1, _, conv1, norm2, _, _, conv2, norm3, _, conv3 = generator.body
    z = noise(4, 5)

    def norm(x, part, eps):
        return F.batch_norm(x, None, None, part.weight, part.bias, True, eps=eps)

    def conv(x, part):
        return F.conv2d(x, part.weight, part.bias, padding=1)

    x = F.linear(z, first.weight, first.bias).reshape(4, 6, 2, 3)
    x = norm(x, norm1, 1e-5).repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = F.leaky_relu(norm(conv(x, conv1), norm2, 0.8), 0.2)
    x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = F.leaky_relu(norm(conv(x, conv2), norm3, 0.8), 0.2)
    x = F.batch_norm(torch.tanh(conv(x, conv3)), None, None, training=True)
    torch.testing.assert_close(generator(z), x)


def test_published_size():
    convolutions = (1152 + 1) * 128 + (1152 + 1) * 64 + (576 + 1) * 1
    norms = 2 * (128 + 128 + 64)
    assert count_parameters(DAFLGenerator()) == 101 * 128 * 64 + convolutions + norms


SHAPES = [
    (1, 1, 1), (2, 3, 2), (1, 5, 7), (3, 8, 8), (5, 13, 30), (1, 28, 28), (1,), (7,)
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_standard_head_gives_the_moments_of_the_inputs(shape):
    mean, std = np.linspace(-1, 3, shape[0]), np.linspace(2, 0.5, shape[0])
    generator = wild(make(shape, 6, 32, input_mean=list(mean), input_std=list(std)))
    images = generator(noise(64, 6))
    assert images.shape == (64, *shape)
    found = moments(images)
    np.testing.assert_allclose(found[0], mean, atol=1e-5)
    np.testing.assert_allclose(found[1], std, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_range_head_keeps_every_pixel_between_the_limits(shape):
    # As one float, 0.1 + (0.7 - 0.1) exceeds 0.7.
    low, high = [0.1] * shape[0], [0.7 + k for k in range(shape[0])]
    generator = wild(make(shape, 6, 8, input_range=(low, high)))
    images = generator(noise(64, 6)).detach()
    assert images.shape == (64, *shape)
    images = images.transpose(0, 1).flatten(1)
    assert (images >= torch.tensor(low)[:, None]).all()
    assert (images <= torch.tensor(high)[:, None]).all()
    np.testing.assert_allclose(images.amin(1), low, rtol=1e-6)
    np.testing.assert_allclose(images.amax(1), high, rtol=1e-6)


def test_range_head_begins_with_the_mean_of_the_inputs():
    means = [0.1, 0.5, 0.8, -3.0, 2.0]
    head = make((5,), 6, 8, input_range=(-1, 1), input_mean=means).head
    found, _ = moments(head(noise(5000, 5)))
    # The last two are outside the range.
    np.testing.assert_allclose(found, [0.1, 0.5, 0.8, 0, 0], atol=0.02)


@pytest.mark.parametrize("shape", [(2, 6, 6), (4,)])
@pytest.mark.parametrize("settings", [{}, {"input_range": (0, 1)}])
def test_a_generator_has_no_memory(shape, settings):
    generator = make(shape, 6, 8, **settings)
    before = copy.deepcopy(generator.state_dict())
    first, second = noise(2, 5, 6)
    want = generator(first)
    generator(second)
    torch.testing.assert_close(generator(first), want, rtol=0, atol=0)
    torch.testing.assert_close(generator.eval()(first), want, rtol=0, atol=0)
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())


@pytest.mark.parametrize("shape", [(2, 6, 6), (4,)])
def test_classes_are_inputs_of_the_first_layer(shape):
    generator, z = make(shape, 6, 8, n_classes=3), noise(5, 6)
    labels = torch.tensor([0, 1, 2, 2, 1])
    assert (generator(z, labels) - generator(z, labels.flip(0))).abs().max() > 1e-3
    onehot = torch.eye(3)[labels]
    want = generator.head(generator.body(torch.cat([z, onehot], 1)))
    torch.testing.assert_close(generator(z, labels), want)


@pytest.mark.parametrize("shape", [(2, 6, 6), (4,)])
@pytest.mark.parametrize("head", ["batchnorm", "range"])
def test_every_weight_learns(shape, head):
    generator = make(shape, 6, 8, n_classes=2, input_range=(-1, 1), head=head)
    z, target = noise(8, 6), noise(8, *shape, seed=1)
    (generator(z, torch.arange(8) % 2) * target).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_head_follows_the_range():
    z = noise(9, 6)
    for settings in ({}, {"input_range": (0, 1), "head": "batchnorm"}):
        mean, _ = moments(make((2, 6, 6), 6, 8, **settings)(z))
        np.testing.assert_allclose(mean, 0, atol=1e-5)
    images = make((2, 6, 6), 6, 8, input_range=(0, 1))(z)
    assert images.min() > 0


@pytest.mark.parametrize("shape", [(3, 6, 6), (3,)])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "tanh"}, "head='tanh' is unknown"),
        ({"head": "range"}, "input_range, which is None"),
        ({"input_range": (1, 0)}, "must be the smaller one"),
        ({"input_range": ([0, 0, 1], 1)}, "must be the smaller one"),
        ({"input_range": (0, [1, 1])}, "has 2 entries; give one, or .* the 3 channels"),
        ({"input_mean": [1, 2]}, "input_mean=.* has 2 entries"),
        ({"input_std": [1, 2, 3, 4]}, "input_std=.* has 4 entries"),
    ],
)
def test_bad_settings(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        make(shape, 6, 8, **settings)


def test_labels_without_classes_and_classes_without_labels():
    with pytest.raises(ValueError, match="n_classes=None, but"):
        make((4,), 6, 8)(noise(2, 6), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="n_classes=2, but labels=None"):
        make((4,), 6, 8, n_classes=2)(noise(2, 6))


@pytest.mark.parametrize("shape", [(8, 3, 2, 2), (8, 3)])
def test_moment_penalty_closed_forms(shape):
    x = noise(*shape).double()
    # For one value, mean 5 and no deviation: ((5 - 2) / 2) ** 2 + 1.
    constant = torch.full(shape, 5.0)
    assert float(moment_penalty(constant, 2.0, 2.0)) == pytest.approx(2.25 + 1)
    assert float(moment_penalty(x, x.mean(), x.std(correction=0))) < 1e-12
    mean, std = moments(x)
    assert float(moment_penalty(x, mean.tolist(), std.tolist())) < 1e-12
    # One value for each channel is asked of each channel.
    want = ((mean - 1) ** 2 + (std - 1) ** 2).mean()
    torch.testing.assert_close(moment_penalty(x, [1.0] * 3, 1.0), want)
    want = (x.mean() - 1) ** 2 + (x.std(correction=0) - 1) ** 2
    torch.testing.assert_close(moment_penalty(x, 1.0, 1.0), want)


def test_moment_penalty_has_gradients():
    x = noise(4, 2, 3, 3).double().requires_grad_()
    for values in ((0.3, 2.0), ([0.3, -0.2], [2.0, 1.0])):
        assert torch.autograd.gradcheck(lambda x, v=values: moment_penalty(x, *v), [x])
    constant = torch.ones(4, 2, requires_grad=True)
    moment_penalty(constant).backward()
    assert torch.isfinite(constant.grad).all()


def test_no_strength_changes_nothing():
    images = noise(3, 2, 5, 5)
    assert random_affine(images, 0, seeded()) is images
    almost = random_affine(images, 1e-6, seeded())
    torch.testing.assert_close(almost, images, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (7, 12)])
def test_constant_images_stay(shape):
    images = noise(6, 2, 1, 1).expand(6, 2, *shape)
    torch.testing.assert_close(random_affine(images, 3.0, seeded()), images)


def test_changes_come_from_the_generator_alone():
    images = noise(1, 2, 8, 8).expand(9, 2, 8, 8)
    state = torch.get_rng_state()
    first, again, other = (random_affine(images, 1.0, seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Every image in its own way.
    assert torch.pdist(first.flatten(1)).min() > 1e-3
    assert torch.equal(torch.get_rng_state(), state)


def test_changed_images_pass_gradients_on():
    images = noise(2, 1, 4, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: random_affine(x, 1.0, seeded()), [images])


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("size", [(90, 90), (60, 120)])
def test_changes_are_as_large_as_they_say(strength, size):
    """Where pixels hold their own coordinates, the result says where they came from."""
    h, w = size
    rows, columns = torch.meshgrid(
        torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij"
    )
    images = torch.stack([columns, rows]).double().expand(400, 2, h, w)
    middle = np.s_[..., h // 2 - 8 : h // 2 + 8, w // 2 - 8 : w // 2 + 8]
    sources = random_affine(images, strength, seeded())[middle].flatten(2).numpy()
    here = images[0][middle].flatten(1).numpy()
    design = np.vstack([here, np.ones(here.shape[1])]).T
    found = np.linalg.lstsq(design, np.hstack(list(sources.swapaxes(1, 2))), rcond=None)
    # (image, source x or y, its dependence on x, on y, and its shift).
    maps = found[0].T.reshape(400, 2, 3)
    scale = np.hypot(maps[:, 0, 0], maps[:, 1, 0])
    angle = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    shear = np.sum(maps[:, :, 0] * maps[:, :, 1], axis=1) / scale**2
    largest = {
        "angle": (angle, 20),
        "shear": (shear, 0.3),
        "scale": (np.log(scale) / np.log(1.25), 1),
        "x": (maps[:, 0, 2], w / 8),
        "y": (maps[:, 1, 2], h / 8),
    }
    for name, (values, limit) in largest.items():
        extreme = np.abs(values).max() / (strength * limit)
        assert 0.97 < extreme < 1 + 1e-6, name
        assert abs(values.mean()) < 0.1 * strength * limit, name
