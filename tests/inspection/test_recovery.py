import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sklcomp.datasets import make_masked_images
from sklcomp.inspection import RecoveryDisplay
from sklcomp.metrics import psnr
from sklcomp.recovery import DCTImputer


def test_draws_what_the_estimator_returns():
    X, y = make_masked_images(n_samples=3, random_state=0)
    imputer = DCTImputer().fit(X)
    display = RecoveryDisplay.from_estimator(imputer, X, y, n_images=2)
    recovered = imputer.transform(X)
    assert display.ax_.shape == (2, 3)
    assert display.figure_ is display.ax_[0, 0].figure
    shown = display.ax_[1, 1].images[0].get_array()
    np.testing.assert_allclose(shown, recovered[1], atol=1e-6)
    title = display.ax_[1, 1].get_title()
    assert title == f"recovered: {psnr(y[1], recovered[1]):.1f} dB"
    assert np.ma.getmaskarray(display.ax_[0, 0].images[0].get_array()).sum() == round(
        0.9 * 1024
    )


def test_flat_rows_colour_and_own_figure(rng):
    X, y = make_masked_images(rng.random((1, 8, 9, 3)), missing=0.5, random_state=0)
    rows = X.reshape(1, -1)
    imputer = DCTImputer((8, 9, 3), channel_axis=-1).fit(rows)
    figure = plt.figure()
    display = RecoveryDisplay.from_estimator(imputer, rows, figure=figure)
    assert display.figure_ is figure
    assert display.ax_.shape == (1, 2)
    assert display.ax_[0, 1].images[0].get_array().shape == (8, 9, 3)
    low, high = np.nanmin(X), np.nanmax(X)
    expected = np.clip((imputer.transform(X)[0] - low) / (high - low), 0, 1)
    np.testing.assert_allclose(display.ax_[0, 1].images[0].get_array(), expected)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5)])
def test_volumes_are_refused(shape):
    X = np.ones((1, *shape))
    with pytest.raises(ValueError, match="cannot be drawn"):
        RecoveryDisplay.from_estimator(DCTImputer().fit(X), X)


def test_no_images_are_refused():
    X = np.ones((1, 4, 5))
    with pytest.raises(ValueError, match="n_images == 0, must be >= 1"):
        RecoveryDisplay.from_estimator(DCTImputer().fit(X), X, n_images=0)


def test_frames_markers_and_channels_first(rng):
    X, _ = make_masked_images(rng.random((2, 6, 8, 3)), missing=0.5, random_state=0)
    first = np.moveaxis(X, -1, 1)
    frame = pd.DataFrame(first.reshape(2, -1)).add_prefix("pixel")
    imputer = DCTImputer((3, 6, 8), channel_axis=0).fit(frame)
    display = RecoveryDisplay.from_estimator(imputer, frame)
    np.testing.assert_array_equal(display.observed, X)
    recovered = imputer.transform(frame).reshape(2, 3, 6, 8)
    np.testing.assert_array_equal(display.recovered, np.moveaxis(recovered, 1, -1))

    marked = np.nan_to_num(first, nan=-1)
    imputer = DCTImputer(channel_axis=0, missing_values=-1).fit(marked)
    display = RecoveryDisplay.from_estimator(imputer, marked)
    np.testing.assert_array_equal(display.observed, X)


def test_image_without_observed_pixels_is_drawn():
    X = np.full((2, 4, 4), np.nan)
    X[1, 1] = [1, 2, 3, 4]
    with pytest.warns(UserWarning, match="no observed pixel"):
        imputer = DCTImputer().fit(X)
    with pytest.warns(UserWarning, match="no observed pixel"):
        display = RecoveryDisplay.from_estimator(imputer, X)
    assert (display.recovered[0] == imputer.fill_value_).all()
