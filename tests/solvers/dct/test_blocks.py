import numpy as np
import pytest
from skimage.data import text

from sklcomp.metrics import psnr
from sklcomp.recovery import recover_image
from sklcomp.solvers.dct._blocks import SIZE, refine_block_dct


def stripes(shape=(96, 80)):
    """Sparse in every block, and far from smooth."""
    i, j = np.indices(shape)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (i + 2 * j) / 9)


def test_observed_pixels_are_kept_and_the_input_is_untouched(rng):
    image = rng.random((40, 33))
    observed = rng.random(image.shape) > 0.5
    before = image.copy()
    found = refine_block_dct(image, observed, 1.0)
    np.testing.assert_array_equal(found[observed], image[observed])
    np.testing.assert_array_equal(image, before)
    assert np.abs(found - image)[~observed].max() > 1e-3


def test_pattern_that_is_sparse_in_blocks_comes_back(rng):
    image = stripes()
    mask = rng.random(image.shape) > 0.8
    smooth = psnr(image, recover_image(image, mask), data_range=1)
    refined = recover_image(image, mask, refine="block_dct")
    assert psnr(image, refined, data_range=1) > smooth + 1


def test_text_over_a_photograph_is_refined(rng):
    image = text() / 255
    mask = np.ones(image.shape, dtype=bool)
    mask[::8] = mask[:, ::8] = False
    smooth = psnr(image, recover_image(image, mask, order=2))
    refined = psnr(image, recover_image(image, mask, order=2, refine="block_dct"))
    assert refined > smooth + 0.5


def test_units_do_not_matter(rng):
    image = stripes()
    mask = rng.random(image.shape) > 0.8
    expected = recover_image(image, mask, refine="block_dct")
    found = recover_image(image * 255 - 1000, mask, refine="block_dct")
    # A coefficient at its threshold falls to either side by rounding.
    assert np.median(np.abs((found + 1000) / 255 - expected)) < 1e-4


def test_nothing_is_refined_where_blocks_are_all_but_empty_or_constant(rng):
    image = rng.random((64, 64))
    observed = rng.random(image.shape) < 3 / SIZE**2
    assert refine_block_dct(image, observed, 1.0) is image
    flat = np.full((20, 20), 2.0)
    flat[3:6, 4:9] = np.nan
    np.testing.assert_array_equal(
        recover_image(flat, refine="block_dct"), np.full((20, 20), 2.0)
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (16, 16), (17, 31)])
def test_any_size(rng, shape):
    image = rng.random(shape)
    mask = rng.random(shape) > 0.5
    mask.flat[0] = True
    found = recover_image(image, mask, refine="block_dct")
    assert found.shape == shape
    assert np.isfinite(found).all()


def test_volumes_are_refused(rng):
    with pytest.raises(ValueError, match="refine='block_dct' serves pictures of 2"):
        recover_image(rng.random((4, 4, 4)), refine="block_dct")
