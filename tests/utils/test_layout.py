"""Rows and the images that they are."""

import numpy as np
import pytest

from sklcomp.utils._layout import (
    Channels,
    as_flat_rows,
    as_shape,
    check_examples,
    check_row_length,
)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4, 5), None), ((4, 5, 3), -1), ((3, 4, 5), 0), ((4, 3, 5), 1), ((2, 7), 0)],
)
def test_channels_that_are_split_and_joined_are_the_rows(rng, shape, axis):
    images = rng.random((6, *shape))
    rows = as_flat_rows(images) if len(shape) > 1 else images
    layout = Channels(shape, axis)
    channels = layout.split(rows)
    np.testing.assert_array_equal(layout.join(channels), rows)
    if axis is not None:
        n_channels = shape[axis]
        for k in range(n_channels):
            found = channels.reshape(6, n_channels, *layout.shape_of_one)[:, k]
            np.testing.assert_array_equal(found, images.take(k, axis=axis % 3 + 1))


@pytest.mark.parametrize(("shape", "axis"), [((4, 5), 2), ((4, 5), -3), ((4,), 0)])
def test_an_axis_that_is_not_there_is_refused(shape, axis):
    with pytest.raises(ValueError, match=f"channel_axis={axis} does not exist"):
        Channels(shape, axis)


@pytest.mark.parametrize("given", [(), (0, 3), (2.0, 3), (-1,), "ab"])
def test_a_shape_is_of_positive_integers(given):
    with pytest.raises(ValueError, match=r"image_shape=.* positive integers"):
        as_shape(given, "image_shape")
    with pytest.raises(ValueError, match=r"s=.* integers, such as \(64,\)."):
        as_shape(given, "s", "(64,)")
    assert as_shape(np.array([2, 3]), "image_shape") == (2, 3)


def test_other_shapes_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"2 x 3 = 6 values, but X has 5 features"):
        check_row_length(np.zeros((2, 5)), (2, 3), "image_shape")
    with pytest.raises(ValueError, match=r"y has images of shape \(3, 2\); expected"):
        check_examples((3, 2), (2, 3), "y")
    # Flat rows say nothing of their shape.
    check_examples((6,), (2, 3), "y")
