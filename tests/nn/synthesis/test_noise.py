import math

import numpy as np
import pytest
import torch

from sklcomp.nn import structured_noise
from sklcomp.nn.synthesis import _noise
from sklcomp.nn.synthesis._noise import (
    KINDS,
    _distance_to_curve,
    _draw_curve,
    _draw_ellipse,
    _paint,
    _unit,
)

SHAPES = [
    (1, 1, 1), (2, 3, 2), (1, 5, 7), (3, 8, 8), (5, 13, 30), (1, 28, 28), (1,), (7,)
]  # fmt: skip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
def test_structured_noise_stays_in_the_range(shape):
    low, high = [0.1] * shape[0], [0.7 + k for k in range(shape[0])]
    images = structured_noise(200, shape, (low, high), seeded())
    assert images.shape == (200, *shape)
    images = images.transpose(0, 1).flatten(1)
    assert (images >= torch.tensor(low)[:, None]).all()
    assert (images <= torch.tensor(high)[:, None]).all()
    # And it uses the range: nine tenths of it at least.
    width = torch.tensor(high) - torch.tensor(low)
    assert (images.amax(1) - images.amin(1) > 0.9 * width).all()


@pytest.mark.parametrize("shape", [(2, 9, 9), (4,)])
@pytest.mark.parametrize("limits", [None, (0, 1)])
def test_noise_comes_from_the_generator_alone(shape, limits):
    state = torch.get_rng_state()
    first, again, other = (
        structured_noise(9, shape, limits, seeded(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # No image is another one's twin.
    assert torch.pdist(first.flatten(1)).min() > 1e-3
    assert torch.equal(torch.get_rng_state(), state)


def test_neighbors_in_structured_noise_are_alike():
    images = structured_noise(500, (1, 28, 28), (0, 1), seeded())
    step = images.diff(dim=3).square().mean()
    shuffled = images[..., torch.randperm(28, generator=seeded())]
    # Independent pixels would differ as shuffled ones do.
    assert step < shuffled.diff(dim=3).square().mean() / 4


def test_images_without_a_range_are_symmetric_about_zero():
    images = structured_noise(4000, (1, 8, 8), None, seeded())
    assert images.abs().max() <= 2
    assert float(images.mean()) == pytest.approx(0, abs=0.05)


def test_noise_of_vectors_is_normal():
    x = structured_noise(20000, (3,), None, seeded())
    np.testing.assert_allclose(np.cov(x.T), np.eye(3), atol=0.05)
    # Two standard deviations reach the limits, so 4.6 % are on them.
    x = structured_noise(20000, (3,), (2, 6), seeded())
    assert float(x.mean()) == pytest.approx(4, abs=0.02)
    on_limits = ((x == 2) | (x == 6)).float().mean()
    assert float(on_limits) == pytest.approx(0.0455, abs=0.005)


@pytest.mark.parametrize("kind", ["lines", "strokes"])
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (20, 33), (1, 1)])
def test_ink_is_on_a_ground_of_the_least_value(kind, size):
    images = structured_noise(300, (1, *size), (-1, 3), seeded(), (kind,))
    assert images.min() >= -1
    assert images.max() <= 3
    if min(size) > 8:
        # Most of a picture is ground, and every picture has some ink.
        assert (images.flatten(1).median(1).values < -0.9).double().mean() > 0.8
        assert (images.flatten(1).amax(1) > 1).double().mean() > 0.8


def test_kinds_share_the_images():
    kinds = ("strokes", "blobs")
    both = structured_noise(7, (1, 9, 9), (0, 1), seeded(), kinds)
    strokes = structured_noise(4, (1, 9, 9), (0, 1), seeded(), kinds[:1])
    torch.testing.assert_close(both[:4], strokes)
    for wrong in ((), ("blobs", "dots")):
        with pytest.raises(ValueError, match="choose some of blobs, lines, strokes"):
            structured_noise(2, (1, 9, 9), (0, 1), seeded(), wrong)


def test_strokes_are_curves_of_even_width():
    """Ink near the curve is full, and none is where the curve is far."""
    distance = _distance_to_curve(50, (32, 32), seeded())
    # A curve is as long as it is dense: no pixel on it is far from a point.
    steps = [(distance - distance.roll(1, axis)).abs()[:, 1:, 1:] for axis in (1, 2)]
    # Distances to a set change by no more than the way that one goes.
    assert all((step <= 1 + 1e-4).all() for step in steps)
    assert (distance.flatten(1).amin(1) < 1).all()


def test_colours_are_random():
    images = structured_noise(60, (3, 16, 16), (0, 1), seeded(), ("lines",))
    corners = images[:, :, 0, 0]
    assert corners.std(0).min() > 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_limits_stretch_the_same_images(kind, n_channels):
    shape = (n_channels, 12, 12)
    unit, wide = (
        structured_noise(9, shape, limits, seeded(), (kind,))
        for limits in ((0, 1), (-3, 5))
    )
    torch.testing.assert_close(wide, 8 * unit - 3)
    lows, highs = list(range(n_channels)), [2 * k + 7 for k in range(n_channels)]
    each = structured_noise(9, shape, (lows, highs), seeded(), (kind,))
    for k in range(n_channels):
        torch.testing.assert_close(each[:, k], k + (k + 7) * unit[:, k])


@pytest.mark.parametrize("kinds", [("blobs",), ("lines",), ("strokes",), (*KINDS,)])
def test_there_may_be_no_images(kinds):
    both = structured_noise(1, (2, 9, 9), (0, 1), seeded(), kinds)
    none = structured_noise(0, (2, 9, 9), (0, 1), seeded(), kinds)
    assert none.shape == (0, *both.shape[1:])
    assert torch.isfinite(both).all()


@pytest.mark.parametrize("n", [7, 9, 10])
def test_every_kind_has_its_share(n, monkeypatch):
    # Rounded, so that none is left out and together they are all.
    drawn = dict.fromkeys(KINDS, 0)

    def counting(kind, draw):
        def count(m, *args):
            drawn[kind] += m
            return draw(m, *args)

        return count

    for kind, draw in list(KINDS.items()):
        monkeypatch.setitem(KINDS, kind, counting(kind, draw))
    structured_noise(n, (1, 8, 8), (0, 1), seeded(), ("lines", "lines", "blobs"))
    assert sum(drawn.values()) == n
    assert abs(drawn["blobs"] - n / 3) < 0.51
    assert not drawn["strokes"]


def test_strokes_are_drawn_chunk_by_chunk(monkeypatch):
    monkeypatch.setattr(_noise, "CHUNK", 4)
    many = structured_noise(9, (1, 12, 12), (0, 1), seeded(), ("strokes",))
    few = structured_noise(4, (1, 12, 12), (0, 1), seeded(), ("strokes",))
    assert torch.equal(many[:4], few)
    assert torch.pdist(many.flatten(1)).min() > 1e-3


def test_of_small_images_one_cell_of_noise_is_left():
    # No blob is finer than two pixels, so three by three pixels have one value.
    images = structured_noise(50, (2, 3, 3), (0, 1), seeded()).flatten(2)
    torch.testing.assert_close(images, images[:, :, :1].expand_as(images))
    assert images[:, :, 0].std(0).min() > 0.1


def test_vectors_and_their_limits():
    # A range moves and stretches normal noise by a quarter, and clips it.
    plain = structured_noise(500, (4,), None, seeded())
    ranged = structured_noise(500, (4,), (2, 6), seeded())
    torch.testing.assert_close(ranged, (4 + plain).clamp(2, 6))


def test_distance_is_that_to_the_nearest_point():
    points = _draw_curve(20, seeded())
    points = points * torch.tensor([0.62 * 4.5, 0.5 * 6]) + torch.tensor([4.5, 6.0])
    pixels = torch.cartesian_prod(torch.arange(10.0), torch.arange(13.0))
    want = torch.cdist(pixels.expand(20, -1, -1), points).amin(2).reshape(20, 10, 13)
    found = _distance_to_curve(20, (10, 13), seeded())
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3)


def test_curves_are_smooth_and_three_in_ten_are_closed():
    curves = _draw_curve(3000, seeded())
    # Weights of four knots: -1/16 and 9/16 at most, so a quarter beyond them.
    assert curves.abs().max() <= 1.25
    steps = curves.diff(dim=1).norm(dim=2)
    bends = curves.diff(dim=1, n=2).norm(dim=2)
    assert steps.max() < 0.5
    assert bends.mean() < 0.3 * steps.mean()
    ends = (curves[:, 0] - curves[:, -1]).norm(dim=1)
    is_closed = ends < 1e-5
    assert abs(float(is_closed.double().mean()) - 0.3) < 6 * math.sqrt(0.21 / 3000)
    assert ends[~is_closed].median() > 0.3


def test_ellipses_are_one_inside_and_fall_outwards():
    ellipses = _draw_ellipse(200, (41, 41), seeded())
    assert ((ellipses >= 0) & (ellipses <= 1)).all()
    # Of each the parts above a level are convex: no row has a gap.
    rows = (ellipses > 0.5).squeeze(1).flatten(0, 1).int()
    edges = torch.nn.functional.pad(rows, (1, 1)).diff(dim=1).abs().sum(1)
    assert edges.max() == 2
    # The middle is within, a corner never is.
    assert (ellipses[:, 0, 20, 20] > 0.5).all()
    assert (ellipses[:, 0, 0, 0] < 0.5).all()


@pytest.mark.parametrize(
    ("size", "unit"), [((32, 32), 1), ((128, 5), 2), ((8, 8), 0.5)]
)
def test_a_pen_has_a_pixel_in_32_and_four_times_the_pixels_double_it(size, unit):
    assert _unit(size) == unit


def test_colours_are_mixed_by_the_ink():
    ink = torch.rand(20, 1, 6, 6, generator=seeded())
    assert _paint(ink, 1, seeded()) is ink
    ends = torch.cat([torch.zeros(20, 1, 1, 1), torch.ones(20, 1, 1, 1)], 3)
    ground, colour = _paint(ends, 3, seeded()).unbind(3)
    want = ground[..., None] + (colour - ground)[..., None] * ink
    torch.testing.assert_close(_paint(ink, 3, seeded()), want)
    assert ((want >= 0) & (want <= 1)).all()


def test_masked_limits_and_unknown_kinds_are_refused():
    masked = np.ma.masked_array([0.0, 1.0], [True, False])
    with pytest.raises(ValueError, match="input_range has 1 of 2 values masked"):
        structured_noise(2, (2, 4, 4), (masked, masked + 1), seeded())
    with pytest.raises(ValueError, match=r"kinds=\('dots',\): choose some of blobs"):
        structured_noise(2, (2, 4, 4), (0, 1), seeded(), ("dots",))
