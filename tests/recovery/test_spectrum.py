import numpy as np
import pytest
from scipy.fft import dctn

from sklcomp.recovery._spectrum import NOISE_LIMITS, NOISE_SIDE, Spectrum


def laplacian_of(shape, scale):
    """Eigenvalues of the Laplacian, by its effect on every wave of the DCT."""
    found = np.empty(shape)
    for k in np.ndindex(*shape):
        axes = (
            np.cos(np.pi * k_a * (np.arange(n) + 0.5) / n)
            for k_a, n in zip(k, shape, strict=True)
        )
        image = 1.0
        for axis, values in enumerate(axes):
            image = image * values.reshape(
                [-1 if a == axis else 1 for a in range(len(shape))]
            )
        result = np.zeros(shape)
        for axis, factor in enumerate(scale):
            padded = np.pad(
                image,
                [(int(a == axis),) * 2 for a in range(len(shape))],
                mode="symmetric",
            )
            result -= factor * np.diff(padded, 2, axis=axis)
        found[k] = dctn(result, norm="ortho")[k] / dctn(image, norm="ortho")[k]
    return found


@pytest.mark.parametrize(("shape", "scale"), [
    ((5,), (1.0,)), ((3, 4), (1.0, 0.25)), ((2, 3, 2), (0.5, 1.0, 0.25)),
])  # fmt: skip
@pytest.mark.parametrize("order", [0.5, 1, 2])
def test_weights_are_powers_of_the_laplacian(shape, scale, order):
    found = Spectrum(shape, order, axis_scale=scale).weights
    want = np.abs(laplacian_of(shape, scale)) ** order
    np.testing.assert_allclose(found, want, atol=1e-6)
    assert found.flat[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("factor", [1e-200, 0.5, 7.0, 1e200])
def test_only_ratios_of_scales_and_spacings_count(factor):
    one = Spectrum((6, 9), 1.5, axis_scale=(1, 4), spacing=(2, 3))
    other = Spectrum(
        (6, 9), 1.5, axis_scale=(factor, 4 * factor), spacing=(2 * factor, 3 * factor)
    )
    np.testing.assert_allclose(other.weights, one.weights, rtol=1e-12)
    assert other.noise_unit == pytest.approx(one.noise_unit, rel=1e-12)
    assert other.axis_scale == pytest.approx(one.axis_scale)


def test_spacing_is_a_scale_of_its_inverse_square():
    for spacing, scale in (((1, 2), (1, 0.25)), ((0.3, 0.1), (1 / 9, 1))):
        one = Spectrum((6, 9), 1.5, spacing=spacing)
        other = Spectrum((6, 9), 1.5, axis_scale=scale)
        ratio = one.weights.max() / other.weights.max()
        np.testing.assert_allclose(one.weights, ratio * other.weights, rtol=1e-9)


def test_equal_scales_and_spacings_are_none_at_all():
    plain = Spectrum((6, 9), 1.5)
    for settings in ({"axis_scale": (3, 3)}, {"spacing": (0.1, 0.1)}):
        other = Spectrum((6, 9), 1.5, **settings)
        np.testing.assert_allclose(other.weights, plain.weights, rtol=1e-12)
        assert other.noise_unit == pytest.approx(plain.noise_unit)
        assert other.axis_scale == (1, 1)
    assert plain.axis_scale is None


@pytest.mark.parametrize("order", [1, 1.5, 3])
def test_noise_is_counted_in_pixels_of_a_picture_of_256_a_side(order):
    assert Spectrum((NOISE_SIDE, NOISE_SIDE), order).noise_unit == pytest.approx(1)
    # The mean extent is that of a square of the same area.
    assert Spectrum((64, 1024), order).noise_unit == pytest.approx(1)
    half = Spectrum((128, 128), order).noise_unit
    assert half == pytest.approx(0.25**order)
    # Axes of one pixel have no extent.
    flat = Spectrum((1, 128), order).noise_unit
    assert flat == pytest.approx(Spectrum((128,), order).noise_unit)
    assert Spectrum((1, 1), order).noise_unit == pytest.approx(
        NOISE_SIDE ** (-2 * order)
    )


def test_more_pixels_on_the_same_field_change_nothing():
    # Of a wave of the field the weight times its unit stays, but for the grid's step.
    products = []
    for n in (200, 400, 800):
        spectrum = Spectrum((n,), 1.5)
        products.append(spectrum.weights[3] * spectrum.noise_unit)
    np.testing.assert_allclose(products, products[-1], rtol=1e-3)


def test_own_weights_are_taken_as_they_are():
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    spectrum = Spectrum((2, 3), weights=weights)
    np.testing.assert_array_equal(spectrum.weights, weights)
    assert spectrum.weights.dtype == np.float64
    assert spectrum.order is None
    assert spectrum.noise_unit == 1
    spectrum.weights[0] = -1
    assert weights[0, 1] == 1


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_range_of_the_search_is_in_units_of_the_weights(share):
    spectrum = Spectrum((20, 30), 1.5)
    low, high = spectrum.noise_range(share)
    unit = spectrum.noise_unit * share
    assert low * unit == pytest.approx(0.1)
    assert high * unit * spectrum.weights.max() == pytest.approx(NOISE_LIMITS[1])
    assert low < high
    # Weights that are zero everywhere but at one end have one as their largest.
    low, high = Spectrum((1,), 1.5).noise_range(1.0)
    assert np.isfinite([low, high]).all()


@pytest.mark.parametrize(("settings", "message"), [
    ({"axis_scale": (1, 2, 3)}, r"axis_scale has shape \(3,\) for 2 image axes; give"),
    ({"axis_scale": (0, 0)}, "axis_scale must be finite, non-negative and somewhere"),
    ({"axis_scale": (1, np.inf)}, r"positive; its range is \[1.0, inf\]"),
    ({"axis_scale": []}, r"its shape is \(0,\)"),
    ({"spacing": (1, 0)}, "spacing must be positive; its smallest is 0.0"),
    ({"spacing": (1, -1)}, r"spacing must be finite, non-negative .* \[-1.0, 1.0\]"),
    ({"weights": np.ones((3, 2))}, r"weights has shape \(3, 2\); expected \(2, 3\)"),
    ({"weights": -np.ones((2, 3))}, r"weights must be finite, .* \[-1.0, -1.0\]"),
    ({"weights": np.ma.masked_equal(np.eye(2, 3), 1)}, "weights has 2 of 6 values"),
    ({"spacing": ("a", "b")}, "spacing of dtype <U1 cannot be read as numbers"),
])  # fmt: skip
def test_what_is_no_spectrum_is_refused_by_its_values(settings, message):
    with pytest.raises(ValueError, match=message):
        Spectrum((2, 3), **settings)


def test_an_axis_may_have_no_weight():
    spectrum = Spectrum((3, 4), 1, axis_scale=(0, 1))
    np.testing.assert_array_equal(
        spectrum.weights, np.tile(spectrum.weights[:1], (3, 1))
    )
    assert spectrum.noise_unit == pytest.approx((4 / NOISE_SIDE) ** 2)
