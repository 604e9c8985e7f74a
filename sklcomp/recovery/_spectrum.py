"""Spectrum: weights of the DCT norm on a grid, and the unit of ``noise``.

The estimators and ``recover_image`` make one from their parameters.
"""

from typing import Any

import numpy as np

from sklcomp.solvers.dct._problem import laplacian_eigenvalues
from sklcomp.utils._validation import as_float_array, check_unmasked

# Of the weight of the DCT norm against the data times the largest of its weights.
NOISE_LIMITS = (1e-9, 1e12)
# Pixels a side of the picture, nothing missing, whose noise is counted in pixels.
NOISE_SIDE = 256


class Spectrum:
    """Weights of the DCT norm on a grid, checked and ready for the solvers.

    ``noise_unit`` times ``noise``, and times the observed share of an image, is the
    weight of the DCT norm against the squared errors of the data.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        order: Any = 1.5,
        weights: Any = None,
        axis_scale: Any = None,
        spacing: Any = None,
    ) -> None:
        self.order = None if weights is not None else order
        self.noise_unit = 1.0
        scale = _one_per_axis(axis_scale, "axis_scale", shape)
        width = _one_per_axis(spacing, "spacing", shape)
        if (width <= 0).any():
            msg = f"spacing must be positive; its smallest is {float(width.min())}."
            raise ValueError(msg)
        # Only ratios matter; a maximum of 1 keeps every power of them in range.
        width = width / width.min()
        scale = scale / scale.max() / width**2
        peak = scale.max()
        is_plain = axis_scale is None and spacing is None
        self.axis_scale = None if is_plain else tuple((scale / peak).tolist())
        if weights is None:
            self.weights = laplacian_eigenvalues(shape, self.axis_scale) ** order
            # The Laplacian of the field with one length for all: its mean extent.
            # An axis of one pixel, or of scale 0, has no part in it.
            extents = [
                n * h
                for n, h, g in zip(shape, width, scale, strict=True)
                if n > 1 and g > 0
            ]
            extent = np.exp(np.mean(np.log(extents))) if extents else 1.0
            # An eigenvalue falls with the square of a pixel: with that taken out the
            # same field wants the same noise on any grid.
            self.noise_unit = float(((extent / NOISE_SIDE) ** 2 * peak) ** order)
        else:
            self.weights = _non_negative(weights, "weights")
            if self.weights.shape != tuple(shape):
                msg = (
                    f"weights has shape {self.weights.shape}; expected {tuple(shape)}, "
                    "one weight per DCT coefficient of the image."
                )
                raise ValueError(msg)

    def noise_range(self, share: Any) -> Any:
        """A small ``noise`` to begin a search with, and the largest that is resolved.

        Small is a weight of 0.1 from pixel to pixel, whatever the size of the image.
        """
        unit = self.noise_unit * share
        peak = float(self.weights.max()) or 1.0
        return 0.1 / unit, NOISE_LIMITS[1] / (unit * peak)


def _one_per_axis(values: Any, name: str, shape: tuple[int, ...]) -> Any:
    """Numbers of the axes as an array, ones for None."""
    if values is None:
        return np.ones(len(shape))
    array = _non_negative(values, name)
    if array.shape != (len(shape),):
        msg = (
            f"{name} has shape {array.shape} for {len(shape)} image axes; give one "
            "number for each axis."
        )
        raise ValueError(msg)
    return array


def _non_negative(values: Any, name: str) -> Any:
    check_unmasked(values, name)
    array = as_float_array(values, name).astype(np.float64)
    if not np.isfinite(array).all() or (array < 0).any() or not (array > 0).any():
        found = (
            f"its range is [{array.min()}, {array.max()}]"
            if array.size
            else (f"its shape is {array.shape}")
        )
        msg = f"{name} must be finite, non-negative and somewhere positive; {found}."
        raise ValueError(msg)
    return array
