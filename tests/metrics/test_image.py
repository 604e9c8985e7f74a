import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from sklcomp.metrics import psnr


def test_equals_scikit_image(rng):
    x, y = rng.random((2, 20, 30))
    assert psnr(x, y) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1))
    a, b = rng.integers(0, 256, (2, 20, 30)).astype(np.uint8)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b))
    assert psnr(a.astype(float), b, data_range=255) == pytest.approx(psnr(a, b))


def test_closed_forms(rng):
    x = rng.random((8, 8)) / 2
    assert psnr(x, x) == np.inf
    assert psnr(x, x + 0.01) == pytest.approx(40)
    mask = np.zeros((8, 8), dtype=bool)
    mask[0] = True
    assert psnr(x, x + 0.1 * ~mask, mask=mask) == np.inf
    assert psnr(x, x + 0.1 * ~mask, mask=~mask) == pytest.approx(20)


@pytest.mark.parametrize("scale", [1e-300, 1e300, 1.7e308])
def test_no_scale_overflows(rng, scale):
    x, y = rng.random((2, 6, 6))
    expected = psnr(x, y, data_range=1)
    found = psnr(x * scale, y * scale, data_range=scale)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "y", "settings", "message"),
    [
        ([[0, 1.0]], [[0.0]], {}, "must be equal"),
        ([[0, 200.0]], [[0, 100.0]], {}, "pass data_range"),
        (np.array([[0, 200]]), [[0, 100]], {}, "int64.*pass data_range"),
        ([[0, np.nan]], [[0, 1.0]], {}, "contains NaN"),
        ([[0, 1.0]], [[0, 1.0]], {"mask": [[0, 0]]}, "at least 1 pixel"),
        ([[0, 1.0]], [[0, 1.0]], {"data_range": 0}, "'data_range' parameter"),
    ],
)
def test_bad_input_is_named(x, y, settings, message):
    with pytest.raises(ValueError, match=message):
        psnr(x, y, **settings)
