"""Limits of what is filled, and settings that no solver serves."""

import numpy as np
import pytest

from sklcomp.recovery import DCTImputer, DCTRegressor, recover_image


@pytest.mark.parametrize("noise", [0, 1e3])
@pytest.mark.parametrize(
    "clip", ["observed", (20, 200), [20, 200], np.array([20, 200])]
)
def test_all_doors_clip_alike(noise, clip):
    # Behind an edge the recovered values overshoot.
    image = np.where(np.arange(20) < 10, 10.0, 240.0) * np.ones((24, 1))
    image[:, 8::2] = np.nan
    known = ~np.isnan(image)
    free = recover_image(image, order=2, noise=noise)
    low, high = (
        (image[known].min(), image[known].max()) if isinstance(clip, str) else clip
    )
    if noise and isinstance(clip, str):
        low, high = free[known].min(), free[known].max()
    expected = np.clip(free, low, high)
    if not noise:
        assert free.max() > high
        expected[known] = image[known]
    settings = {"order": 2, "noise": noise, "clip": clip}
    np.testing.assert_array_equal(recover_image(image, **settings), expected)
    found = DCTImputer(**settings).fit_transform(image[None])[0]
    np.testing.assert_array_equal(found, expected)
    model = DCTRegressor(image.shape, extent="pixels", **settings)
    model.fit(np.argwhere(known), image[known])
    np.testing.assert_array_equal(model.grid_, expected)


def test_clipped_pictures_of_bytes_do_not_wrap(rng):
    picture = (np.indices((32, 32)) // 8).sum(axis=0) % 2 * np.uint8(255)
    mask = rng.random(picture.shape) > 0.6
    free = recover_image(picture, mask, order=2)
    assert free.min() < -5
    assert free.max() > 260
    found = recover_image(picture, mask, order=2, clip=(0, 255))
    whole = found.round().astype(np.uint8)
    np.testing.assert_allclose(whole, found, atol=0.5)
    np.testing.assert_array_equal(whole[mask], picture[mask])


@pytest.mark.parametrize("clip", [(1, 0), (1, 1), (None, 1), "ab", ["a", 1], (1,), 3])
def test_bad_limits_are_named(clip):
    X = np.array([[0, 1.0, np.nan]])
    for read in (
        lambda: recover_image(X, clip=clip),
        lambda: DCTImputer(clip=clip).fit(X),
        lambda: DCTRegressor(clip=clip).fit([[0], [1]], [0, 1]),
    ):
        with pytest.raises(ValueError, match="clip=.*low < high|'clip' parameter"):
            read()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nuclear": 1.0, "solver": "pcg"}, "solver='pcg' serves neither"),
        ({"noise": 1.0, "solver": "stencil"}, "solver='stencil' serves neither"),
        ({"nuclear": -1.0}, "'nuclear' parameter"),
        ({"noise": np.nan}, "'noise' parameter"),
        ({"noise": "some"}, "'noise' parameter"),
        ({"noise": 1e300}, "heavy as the data, more than the 1e.12.*a smaller one"),
        ({"refine": "magic"}, "'refine' parameter"),
        ({"solver": "sparse"}, "serves order 1 and 2"),
    ],
)
def test_bad_settings_are_named(settings, message):
    image = np.eye(6)
    image[2, 3] = np.nan
    for recover in (recover_image, lambda x, **s: DCTImputer(**s).fit(x[None])):
        with pytest.raises(ValueError, match=message):
            recover(image, **settings)


def test_nuclear_norm_of_signals_is_refused():
    with pytest.raises(ValueError, match="needs images of at least 2 axes"):
        recover_image([1, np.nan, 2], nuclear=1)
