"""The unit of ``noise`` and its search, and pixels that are not square."""

import numpy as np
import pytest
from scipy.fft import dctn

from sklcomp.recovery import DCTImputer, DCTRegressor, recover_image


def wave(shape, k):
    """A product of cosines: an eigenvector of the DCT norm."""
    axes = (
        np.cos(np.pi * k_a * (np.arange(n) + 0.5) / n)
        for k_a, n in zip(k, shape, strict=True)
    )
    return (
        np.prod(np.ix_(*axes), axis=0)
        if len(shape) == 1
        else np.multiply(*np.ix_(*axes))
    )


def kept(image, k, **settings):
    """Share of a wave that is left after smoothing, everything observed."""
    smooth = recover_image(image, **settings)
    return dctn(smooth, norm="ortho")[k] / dctn(image, norm="ortho")[k]


@pytest.mark.parametrize("order", [1, 1.5, 2])
@pytest.mark.parametrize("n", [64, 128, 256])
@pytest.mark.parametrize("noise", [0.1, 1e5])
def test_a_wave_keeps_the_same_share_at_every_resolution(order, n, noise):
    """1 / (1 + noise (|pi k| / 256)^(2 order)), but for the step of the grid."""
    k = (3, 2)
    found = kept(wave((n, n), k), k, noise=noise, order=order, tol=1e-9)
    frequency = np.pi * np.linalg.norm(k) / 256
    expected = 1 / (1 + noise * frequency ** (2 * order))
    assert found == pytest.approx(expected, rel=0.01)


def test_noise_counts_in_pixels_for_a_picture_of_256_a_side(rng):
    image = rng.random((256, 256))
    laplacian = 4 * np.sin(np.pi * np.arange(256) / 512) ** 2
    expected = dctn(image, norm="ortho") / (
        1 + 0.7 * np.add.outer(laplacian, laplacian) ** 1.5
    )
    found = recover_image(image, noise=0.7, tol=1e-9)
    np.testing.assert_allclose(dctn(found, norm="ortho"), expected, atol=1e-6)


@pytest.mark.parametrize("order", [1.5, 2])
@pytest.mark.parametrize("noise", [1e5, 1e6])
def test_the_same_measurements_give_the_same_field_on_a_finer_grid(order, noise):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.random((150, 2))
        y = np.sin(5 * X[:, 0]) + np.cos(4 * X[:, 1]) + 0.2 * rng.normal(size=150)
        coarse, fine = (
            DCTRegressor((n, n), extent=((0, 1), (0, 1)), order=order, noise=noise)
            .fit(X, y)
            .predict(X)
            for n in (48, 96)
        )
        exact = DCTRegressor((96, 96), extent=((0, 1), (0, 1))).fit(X, y).predict(X)
        assert np.std(coarse - fine) < 0.25 * np.std(exact - fine)


def test_tiny_noise_is_none(rng):
    image = np.where(rng.random((20, 20)) < 0.5, np.nan, rng.random((20, 20)))
    np.testing.assert_array_equal(
        recover_image(image, noise=1e-300), recover_image(image)
    )


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_spacing_is_an_axis_scale_of_its_inverse_square(rng, order):
    image = np.where(rng.random((14, 18)) < 0.6, np.nan, rng.random((14, 18)))
    settings = {"order": order, "tol": 1e-9, "max_iter": 2000}
    expected = recover_image(image, axis_scale=(1, 0.25), **settings)
    for spacing in ((1, 2), (0.5, 1), (3e100, 6e100)):
        found = recover_image(image, spacing=spacing, **settings)
        np.testing.assert_allclose(found, expected, atol=1e-7)
        imputer = DCTImputer(spacing=spacing, **settings)
        np.testing.assert_allclose(
            imputer.fit_transform(image[None])[0], expected, atol=1e-7
        )
        known = ~np.isnan(image)
        model = DCTRegressor((14, 18), extent="pixels", spacing=spacing, **settings)
        model.fit(np.argwhere(known), image[known])
        np.testing.assert_allclose(model.grid_, expected, atol=1e-7)
    both = recover_image(image, spacing=(1, 2), axis_scale=(3, 12), **settings)
    np.testing.assert_allclose(both, recover_image(image, **settings), atol=1e-7)


@pytest.mark.parametrize("order", [1, 2])
def test_pixels_that_are_not_square_show_the_same_field(order):
    """Twice as many pixels along one axis, half as far apart."""
    k, noise = (1, 4), 400.0**order
    expected = kept(wave((90, 90), k), k, noise=noise, order=order, tol=1e-9)
    for shape, spacing in (
        ((90, 180), (1, 0.5)),
        ((180, 90), (1, 2)),
        ((45, 90), (2, 1)),
    ):
        found = kept(
            wave(shape, k), k, noise=noise, order=order, spacing=spacing, tol=1e-9
        )
        assert found == pytest.approx(expected, rel=0.02)
    square = kept(wave((90, 180), k), k, noise=noise, order=order, tol=1e-9)
    assert abs(square - expected) > 0.1 * expected


@pytest.mark.parametrize(
    ("spacing", "message"),
    [
        ((1,), r"spacing has shape \(1,\) for 2 image axes"),
        ((0, 1), "spacing must be positive; its smallest is 0.0"),
        ((-1, 1), "spacing must be finite, non-negative"),
        ((np.nan, 1), "spacing must be finite"),
        (np.ma.array([1, 2], mask=[0, 1]), "spacing has 1 of 2 values masked"),
        ("ab", "'spacing' parameter"),
    ],
)
def test_bad_spacing_is_named(spacing, message):
    image = np.eye(3)
    for read in (
        lambda: recover_image(image, spacing=spacing),
        lambda: DCTImputer(spacing=spacing).fit(image[None]),
        lambda: DCTRegressor(spacing=spacing).fit(np.argwhere(image), [1, 2, 3]),
    ):
        with pytest.raises(ValueError, match=message):
            read()


def noisy_field(n, seed=0, sigma=0.3):
    t = (np.arange(n) + 0.5) / n
    truth = np.add.outer(np.sin(5 * t), np.cos(4 * t))
    rng = np.random.default_rng(seed)
    image = truth + rng.normal(scale=sigma, size=truth.shape)
    return truth, np.where(rng.random(truth.shape) < 0.5, np.nan, image)


@pytest.mark.parametrize("n", [160, 224])
def test_auto_goes_on_beyond_its_first_weights(n):
    """A smooth field wants far more than 3 from pixel to pixel, where it began."""
    for seed in range(3):
        truth, image = noisy_field(n, seed)
        found, info = recover_image(image, noise="auto", return_info=True)
        first = 3 / (0.5 * (n / 256) ** 3)
        assert info["noise"] > first
        error, there = (
            np.sqrt(np.mean((x - truth) ** 2))
            for x in (found, recover_image(image, noise=first))
        )
        best = min(
            np.sqrt(np.mean((recover_image(image, noise=w) - truth) ** 2))
            for w in first * 10.0 ** np.arange(0, 5, 0.5)
        )
        assert error < 0.75 * there
        assert error < 1.5 * best


def test_regressor_chooses_as_the_function_does(rng):
    truth, image = noisy_field(40)
    known = ~np.isnan(image)
    _, info = recover_image(image, noise="auto", return_info=True)
    model = DCTRegressor((40, 40), extent="pixels", noise="auto")
    model.fit(np.argwhere(known), image[known])
    assert model.noise_ == info["noise"] > 0
    assert model.noise == "auto"
    exact = DCTRegressor((40, 40), extent="pixels", noise="auto")
    assert exact.fit(np.argwhere(known), truth[known]).noise_ == 0
    # One choice for all outputs.
    both = np.column_stack([image[known], image[known]])
    model.fit(np.argwhere(known), both)
    assert model.noise_ > 0
    np.testing.assert_array_equal(model.grid_[0], model.grid_[1])
    with pytest.raises(ValueError, match="hides none of the 1 observed"):
        DCTRegressor(noise="auto").fit([[1, 2]], [3])
