"""recover_image: what it keeps, what it commutes with, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import griddata
from skimage.data import astronaut, camera
from sklearn.exceptions import ConvergenceWarning

from sklcomp.metrics import psnr
from sklcomp.recovery import recover_image


def with_gaps(rng, image, missing=0.7):
    return np.where(rng.random(image.shape) < missing, np.nan, image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["auto", "direct", "pcg", "stencil"])
def test_observed_pixels_are_kept_bit_for_bit(rng, dtype, solver):
    image = with_gaps(rng, rng.normal(size=(33, 21)).astype(dtype) * 1e3)
    before = image.copy()
    recovered = recover_image(image, order=2, solver=solver)
    known = ~np.isnan(image)
    assert recovered.dtype == dtype
    assert np.array_equal(recovered[known], image[known])
    assert np.isfinite(recovered).all()
    assert np.array_equal(image, before, equal_nan=True)


def test_mask_and_nan_say_the_same(rng):
    image = rng.random((15, 14))
    mask = rng.random(image.shape) > 0.5
    expected = recover_image(np.where(mask, image, np.nan))
    np.testing.assert_array_equal(recover_image(image, mask), expected)
    np.testing.assert_array_equal(recover_image(image, mask.astype(int)), expected)
    # Values outside the mask do not matter, not even infinite ones.
    junk = np.where(mask, image, np.inf)
    np.testing.assert_array_equal(recover_image(junk, mask), expected)
    # Both at once: observed is what neither excludes.
    half = image.copy()
    half[:, ::2] = np.nan
    both = recover_image(np.where(mask, half, np.nan))
    np.testing.assert_array_equal(recover_image(half, mask), both)


def test_constant_image_and_single_pixel_and_nothing_missing():
    image = np.full((9, 11), 7.5)
    image[2:5, 3:9] = np.nan
    np.testing.assert_array_equal(recover_image(image), np.full((9, 11), 7.5))
    lonely = np.full((6, 5), np.nan)
    lonely[2, 2] = -3.0
    np.testing.assert_allclose(recover_image(lonely), np.full((6, 5), -3.0))
    complete = np.arange(12.0).reshape(3, 4)
    result = recover_image(complete)
    np.testing.assert_array_equal(result, complete)
    assert not np.shares_memory(result, complete)


def test_order_1_interpolates_linearly_in_one_dimension(rng):
    signal = np.full(5000, np.nan)
    places = np.r_[0, np.sort(rng.choice(4998, 40, replace=False)) + 1, 4999]
    signal[places] = rng.random(len(places))
    expected = np.interp(np.arange(5000), places, signal[places])
    np.testing.assert_allclose(recover_image(signal, order=1), expected, atol=1e-9)


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_flips_and_transposition_commute(rng, order):
    image = with_gaps(rng, rng.random((40, 30)), 0.8)
    exact = {"order": order, "tol": 1e-9, "max_iter": 1000}
    recovered = recover_image(image, **exact)
    for move in (
        np.flipud,
        np.fliplr,
        np.transpose,
        lambda x: np.rot90(x, axes=(1, 0)),
    ):
        np.testing.assert_allclose(
            recover_image(move(image), **exact), move(recovered), atol=1e-6
        )


@given(
    scale=st.floats(1e-150, 1e150),
    shift=st.floats(-10, 10),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, derandomize=True, max_examples=25)
def test_units_of_the_pixels_do_not_matter(scale, shift, seed):
    rng = np.random.default_rng(seed)
    image = with_gaps(rng, rng.random((30, 20)))
    image[0, 0] = 0.5
    expected = (recover_image(image) + shift) * scale
    found = recover_image((image + shift) * scale)
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("channel_axis", [0, 1, -1])
def test_colour_equals_channel_by_channel(rng, channel_axis):
    picture = astronaut()[::8, ::8] / 255
    mask = rng.random(picture.shape[:2]) > 0.8
    channels = [recover_image(picture[..., c], mask) for c in range(3)]
    expected = np.stack(channels, axis=channel_axis)
    moved = np.moveaxis(picture, -1, channel_axis)
    found = recover_image(moved, mask, channel_axis=channel_axis)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    own_masks = np.stack([mask, np.roll(mask, 1, 0), np.roll(mask, 1, 1)], channel_axis)
    found = recover_image(moved, own_masks, channel_axis=channel_axis)
    second = np.take(own_masks, 1, axis=channel_axis)
    np.testing.assert_allclose(
        np.take(found, 1, axis=channel_axis),
        recover_image(picture[..., 1], second),
        atol=1e-6,
    )


def test_mixing_channels_that_share_a_mask_commutes(rng):
    picture = astronaut()[::8, ::8] / 255
    mask = rng.random(picture.shape[:2]) > 0.8
    mixing = rng.random((3, 3))
    exact = {"channel_axis": -1, "tol": 1e-9}
    np.testing.assert_allclose(
        recover_image(picture @ mixing, mask, **exact),
        recover_image(picture, mask, **exact) @ mixing,
        atol=1e-6,
    )


def test_axis_of_scale_zero_separates_its_slices(rng):
    volume = with_gaps(rng, rng.random((3, 12, 10)), 0.5)
    found = recover_image(volume, axis_scale=(0, 1, 1), tol=1e-9, max_iter=2000)
    for plane, expected in zip(found, volume, strict=True):
        np.testing.assert_allclose(plane, recover_image(expected), atol=1e-6)


def test_weights_of_an_order_give_that_order(rng):
    image = with_gaps(rng, rng.random((20, 20)))
    axis = 4 * np.sin(np.pi * np.arange(20) / 40) ** 2
    weights = np.add.outer(axis, axis) ** 1.5
    expected = recover_image(image, order=1.5)
    np.testing.assert_allclose(recover_image(image, weights=weights), expected)
    # Only their ratios matter.
    for solver in ("direct", "pcg"):
        found, expected = (
            recover_image(image, solver=solver, tol=2e-4, **settings)
            for settings in ({"weights": 1e-200 * weights}, {"order": 1.5})
        )
        np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("missing", [0.9, 0.95])
def test_beats_linear_interpolation_on_a_photograph(rng, missing):
    image = camera()[::2, ::2] / 255
    mask = rng.random(image.shape) > missing
    grid = np.indices(image.shape).reshape(2, -1).T
    points, values = np.argwhere(mask), image[mask]
    linear = griddata(points, values, grid, method="linear")
    nearest = griddata(points, values, grid, method="nearest")
    linear = np.where(np.isnan(linear), nearest, linear).reshape(image.shape)
    assert psnr(image, recover_image(image, mask)) > psnr(image, linear) + 0.15


def test_return_info_and_convergence_warning(rng):
    image = with_gaps(rng, rng.random((64, 64)), 0.95)
    _, info = recover_image(image, return_info=True, solver="pcg")
    assert info["converged"]
    assert 0 < info["n_iter"] < 60
    assert 0 < info["gap"] <= 1e-3
    with pytest.warns(ConvergenceWarning, match="within 2 iterations") as record:
        recovered = recover_image(image, solver="pcg", max_iter=2)
    assert len(record) == 1
    assert np.isfinite(recovered).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_only_ratios_of_axis_scale_and_weights_matter(rng, scale):
    image = with_gaps(rng, rng.random((40, 40)))
    axis = 4 * np.sin(np.pi * np.arange(40) / 80) ** 2
    weights = np.add.outer(axis, axis) ** 1.5
    for order, solver in ((1.5, "pcg"), (1.5, "direct"), (2, "pcg"), (2, "stencil")):
        settings = {"order": order, "solver": solver}
        np.testing.assert_allclose(
            recover_image(image, axis_scale=(scale, scale), **settings),
            recover_image(image, **settings),
            rtol=1e-9,
        )
    for solver in ("pcg", "direct"):
        np.testing.assert_allclose(
            recover_image(image, weights=weights * scale, solver=solver),
            recover_image(image, weights=weights, solver=solver),
            rtol=1e-4,
        )


@pytest.mark.parametrize("solver", ["auto", "pcg", "direct"])
def test_where_every_fill_has_norm_zero_the_nearest_pixels_stay(solver):
    found = recover_image([[1, np.nan, 3]], axis_scale=(1, 0), solver=solver)
    assert found[0, 1] in (1, 3)


@pytest.mark.parametrize("seed", range(6))
def test_what_rounding_forbids_is_not_called_converged(seed):
    """Order 4 on 10,000 points spans 31 digits; order 2 proves the norm reachable."""
    rng = np.random.default_rng(seed)
    signal = np.full(10_000, np.nan)
    signal[rng.choice(10_000, 3, replace=False)] = [0, 1, 5]
    with pytest.warns(ConvergenceWarning, match="due to rounding"):
        found, info = recover_image(signal, order=4, return_info=True)
    assert not info["converged"]
    assert np.isfinite(found).all()


def test_direct_names_the_size_it_cannot_take():
    image = np.ones((512, 512))
    image[::2] = np.nan
    with pytest.raises(ValueError, match="131072 unknowns.*20000.*'auto'"):
        recover_image(image, solver="direct")
    # A line of order 2 is banded: no limit there.
    assert recover_image(image.ravel(), order=2, solver="direct").max() <= 1.001


def test_direct_converges_at_any_tolerance(rng):
    image = with_gaps(rng, rng.random((20, 20)))
    _, info = recover_image(image, solver="direct", tol=1e-15, return_info=True)
    assert info["converged"]


def test_masked_arrays_keep_their_mask(rng):
    image = rng.random((9, 9))
    mask = rng.random((9, 9)) > 0.5
    expected = recover_image(image, mask)
    np.testing.assert_array_equal(
        recover_image(np.ma.array(image, mask=~mask)), expected
    )
    whole = np.ma.array(np.arange(81).reshape(9, 9), mask=~mask)
    np.testing.assert_array_equal(
        recover_image(whole), recover_image(whole.data.astype(float), mask)
    )


def test_iterations_hardly_grow_with_the_missing_share(rng):
    image = camera()[::2, ::2] / 255
    counts = []
    for missing in (0.95, 0.99):
        mask = rng.random(image.shape) > missing
        _, info = recover_image(image, mask, solver="pcg", return_info=True)
        counts.append(info["n_iter"])
    assert counts[1] <= 2 * counts[0] <= 80


@pytest.mark.parametrize(
    ("img", "settings", "message"),
    [
        (np.full((3, 3), np.nan), {}, "0 observed pixels of 9"),
        (np.ones((3, 3)), {"mask": np.zeros((3, 3))}, "0 observed pixels of 9"),
        (np.ones((3, 3)), {"mask": np.ones((3, 4))}, r"shape \(3, 4\); expected"),
        (np.ones((3, 3)), {"mask": np.full((3, 3), 255)}, "holds the value 255"),
        ([[1, np.inf]], {}, "infinity at an observed pixel"),
        ([[1j, 2]], {}, "Complex data not supported"),
        ([["a", "b"]], {}, "cannot be read as numbers"),
        (np.ones((0, 3)), {}, "at least one axis and one pixel"),
        (np.ones((3, 3)), {"channel_axis": 2}, "channel_axis=2 does not exist"),
        (np.ones(3), {"channel_axis": 0}, "channel_axis=0 does not exist"),
        (np.ones((3, 3)), {"weights": np.ones((3, 4))}, "weights has shape"),
        (np.ones((3, 3)), {"weights": -np.ones((3, 3))}, "non-negative"),
        (np.ones((3, 3)), {"weights": np.zeros((3, 3))}, "somewhere positive"),
        (np.ones((3, 3)), {"weights": []}, "its shape is"),
        (np.ones((3, 3)), {"axis_scale": (1,)}, "shape .1,. for 2 image axes"),
        (np.ones((3, 3)), {"axis_scale": (np.inf, 1)}, "must be finite"),
        (np.ones((3, 3)), {"order": 5}, "'order' parameter"),
        (np.ones((3, 3)), {"solver": "stencil"}, "serves order 1 and 2"),
        (np.ones((3, 3)), {"order": 0}, "'order' parameter"),
        (np.ones((3, 3)), {"order": np.nan}, "'order' parameter"),
        (np.ones((3, 3)), {"tol": 0}, "'tol' parameter"),
        (np.ones((3, 3)), {"max_iter": 0}, "'max_iter' parameter"),
        (np.ones((3, 3)), {"solver": "magic"}, "'solver' parameter"),
    ],
)
def test_bad_input_is_named(img, settings, message):
    with pytest.raises(ValueError, match=message):
        recover_image(img, **settings)
