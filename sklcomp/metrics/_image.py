"""``psnr``: the quality of recovered images."""

from numbers import Real
from typing import Any

import numpy as np

from sklcomp.utils._sklearn import Interval, validate_params
from sklcomp.utils._validation import as_float_array, check_mask, refuse_masked


@refuse_masked
@validate_params(
    {
        "image_true": ["array-like"],
        "image_test": ["array-like"],
        "data_range": [Interval(Real, 0, None, closed="neither"), None],
        "mask": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def psnr(
    image_true: Any,
    image_test: Any,
    *,
    data_range: float | None = None,
    mask: Any = None,
) -> float:
    r"""Peak signal-to-noise ratio in decibels; higher is better.

    .. math:: 10 \log_{10} \frac{R^2}{\mathrm{mean}((x - \hat x)^2)}

    with the ``data_range`` :math:`R`. For the structural similarity see
    :func:`skimage.metrics.structural_similarity`.

    Parameters
    ----------
    image_true, image_test : array-like of the same shape
        The true and the recovered pixels.
    data_range : float, default=None
        Distance of the largest possible pixel from the smallest. None is the range of
        the type for integer images of up to 16 bits (255 for uint8) and 1 for floats,
        whose values must then lie in [0, 1].
    mask : array-like of bool of the same shape, default=None
        Counts only the pixels where it is True, such as those that were missing.

    Returns
    -------
    psnr : float
        In dB; infinite for equal images.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite, no pixel is counted, or floats
        outside [0, 1] or wide integers come without ``data_range``.

    Examples
    --------
    An error of a tenth of the range everywhere is 20 dB:

    >>> from sklcomp.metrics import psnr
    >>> round(psnr([[0.2, 0.4]], [[0.3, 0.5]]), 6)
    20.0
    """
    dtype = np.asarray(image_true).dtype
    x = as_float_array(image_true, "image_true").astype(np.float64)
    estimate = as_float_array(image_test, "image_test").astype(np.float64)
    if x.shape != estimate.shape:
        msg = (
            f"image_true has shape {x.shape} and image_test {estimate.shape}; they "
            "must be equal."
        )
        raise ValueError(msg)
    if not (np.isfinite(x).all() and np.isfinite(estimate).all()):
        msg = "image_true or image_test contains NaN or infinity; fill it before."
        raise ValueError(msg)
    peak = _default_range(x, dtype) if data_range is None else float(data_range)
    # Halves: the difference of the largest numbers would overflow.
    error = x / 2 - estimate / 2
    if mask is not None:
        error = error[check_mask(mask, x.shape)]
    if error.size == 0:
        msg = "psnr needs at least 1 pixel; image_true or mask is empty."
        raise ValueError(msg)
    largest = np.abs(error).max()
    if largest == 0:
        return float("inf")
    mean = np.mean((error / largest) ** 2)
    # Logarithms are added, since the square of the quotient could overflow.
    return float(20 * (np.log10(peak) - np.log10(2 * largest)) - 10 * np.log10(mean))


def _default_range(image: np.ndarray, dtype: Any) -> float:
    if dtype.kind in "iu":
        if dtype.itemsize > 2:
            msg = (
                f"image_true has dtype {dtype}, whose range says nothing of the pixels'"
                "; pass data_range, such as 255."
            )
            raise ValueError(msg)
        limits = np.iinfo(dtype)
        return float(limits.max) - float(limits.min)
    if dtype.kind != "b" and image.size and (image.min() < 0 or image.max() > 1):
        msg = (
            f"image_true has values in [{image.min():.6g}, {image.max():.6g}], outside "
            "[0, 1]; pass data_range, such as 255."
        )
        raise ValueError(msg)
    return 1.0
