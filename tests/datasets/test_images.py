import numpy as np
import pytest

from sklcomp.datasets import make_masked_images


@pytest.mark.parametrize("pattern", ["random", "blocks", "rows"])
@pytest.mark.parametrize("missing", [0, 0.3, 0.95, 0.9999])
def test_share_and_pixels(pattern, missing):
    X, y = make_masked_images(
        n_samples=3,
        image_shape=(20, 24),
        missing=missing,
        pattern=pattern,
        random_state=0,
    )
    lost = np.isnan(X)
    assert X.shape == y.shape == (3, 20, 24)
    assert y.min() == 0
    assert y.max() == 1
    assert np.array_equal(X[~lost], y[~lost])
    one = 20 if pattern == "rows" else 480
    expected = min(round(missing * one), one - 1) / one
    np.testing.assert_allclose(lost.mean(axis=(1, 2)), expected)
    if pattern == "rows":
        assert (lost == lost[:, :, :1]).all()


def test_own_images_lose_a_pixel_in_all_channels(rng):
    images = rng.random((2, 9, 8, 3)).astype(np.float32)
    X, y = make_masked_images(images, missing=0.5, random_state=0)
    assert X.dtype == y.dtype == np.float32
    assert np.array_equal(y, images)
    lost = np.isnan(X)
    assert (lost == lost[..., :1]).all()
    assert lost.mean() == 0.5
    assert not np.shares_memory(y, images)


def test_same_seed_same_images_and_the_global_generator_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = make_masked_images(random_state=3)
    second = make_masked_images(random_state=3)
    other = make_masked_images(random_state=4)
    for a, b, c in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c, equal_nan=True)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": np.ones((4, 4))}, r"pass image\[None\]"),
        ({"image_shape": (3,)}, "two positive integers"),
        ({"image_shape": (3, 0)}, "two positive integers"),
        ({"image_shape": (4.0, 4.0)}, "two positive integers"),
        ({"image_shape": ("a", "b")}, "two positive integers"),
        ({"image_shape": (True, 4)}, "two positive integers"),
        ({"images": np.full((1, 4, 4), np.nan)}, "contains NaN.*must be complete"),
        ({"missing": 1.0}, "'missing' parameter"),
        ({"pattern": "stars"}, "'pattern' parameter"),
    ],
)
def test_bad_input_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_masked_images(**settings)
