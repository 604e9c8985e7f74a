"""``make_masked_images``: drawn images with missing pixels, for users of recovery."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.fft import idctn
from sklearn.utils import check_random_state

from sklcomp.utils._messages import show
from sklcomp.utils._sklearn import Interval, StrOptions, validate_params
from sklcomp.utils._validation import as_float_array, refuse_masked


@refuse_masked
@validate_params(
    {
        "images": ["array-like", None],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "image_shape": ["array-like"],
        "missing": [Interval(Real, 0, 1, closed="left")],
        "pattern": [StrOptions({"random", "blocks", "rows"})],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_masked_images(
    images: Any = None,
    *,
    n_samples: int = 10,
    image_shape: tuple[int, int] = (32, 32),
    missing: float = 0.9,
    pattern: str = "random",
    random_state: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Images with missing pixels, and the same images complete.

    Parameters
    ----------
    images : array-like of shape (n_samples, height, width[, channels]), default=None
        Complete images, without NaN or infinity, to take pixels from; a pixel is lost
        in all its channels. None draws smooth random fields with a few sharp-edged
        discs, in [0, 1].
    n_samples : int, default=10
        Number of images to draw; ignored where ``images`` are given.
    image_shape : tuple (height, width), default=(32, 32)
        Shape of the images to draw, in pixels; ignored where ``images`` are given.
    missing : float in [0, 1), default=0.9
        Share of the pixels that is lost, up to rounding; at least one pixel (for
        "rows": one row) remains.
    pattern : {"random", "blocks", "rows"}, default="random"
        Lost are single pixels, squares of an eighth of the shorter side (until the
        share is reached), or whole rows.
    random_state : int, RandomState instance or None, default=None
        Source of the images and of the masks.

    Returns
    -------
    X : ndarray of shape (n_samples, height, width[, channels])
        Images with NaN where a pixel is lost, float32 for float32 ``images``, else
        float64.
    y : ndarray of the same shape
        Complete images.

    Raises
    ------
    ValueError
        If ``images`` has not 3 or 4 axes or holds NaN or infinity, or ``image_shape``
        is not two positive integers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklcomp.datasets import make_masked_images
    >>> X, y = make_masked_images(n_samples=3, missing=0.75, random_state=0)
    >>> X.shape, float(np.isnan(X).mean()), bool(np.isnan(y).any())
    ((3, 32, 32), 0.75, False)
    """
    rng = check_random_state(random_state)
    if images is None:
        shape = tuple(image_shape)
        if len(shape) != 2 or not all(
            isinstance(n, Integral) and not isinstance(n, bool) and n >= 1
            for n in shape
        ):
            msg = (
                f"image_shape={show(shape)} must be two positive integers (height, "
                "width)."
            )
            raise ValueError(msg)
        y = np.stack([_draw_image(shape, rng) for _ in range(n_samples)])
    else:
        y = as_float_array(images, "images").copy()
        if y.ndim not in (3, 4) or y.size == 0:
            msg = (
                f"images has shape {y.shape}; expected (n_samples, height, width) or "
                "(n_samples, height, width, channels). For one image pass image[None]."
            )
            raise ValueError(msg)
        if not np.isfinite(y).all():
            msg = (
                "images contains NaN or infinity; it must be complete, since y holds "
                "what is lost. Fill it or leave out those images."
            )
            raise ValueError(msg)
    X = y.copy()
    for image in X:
        image[_PATTERNS[pattern](image.shape[:2], missing, rng)] = np.nan
    return X, y


def _draw_image(shape: tuple, rng: Any) -> np.ndarray:
    """A field with power spectrum k^-3 and three discs, scaled to [0, 1]."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    frequency = np.hypot(rows / shape[0], columns / shape[1]) * max(shape)
    spectrum = rng.standard_normal(shape) / np.maximum(frequency, 1) ** 1.5
    image = idctn(spectrum, norm="ortho")
    image /= np.abs(image).max() or 1
    for _ in range(3):
        y, x = rng.uniform(0, 1, 2) * shape
        radius = rng.uniform(0.05, 0.25) * min(shape)
        image[np.hypot(rows - y, columns - x) <= radius] += rng.uniform(-1, 1)
    return (image - image.min()) / (np.ptp(image) or 1)


def _random_mask(shape: tuple, missing: float, rng: Any) -> np.ndarray:
    size = shape[0] * shape[1]
    lost = np.zeros(size, dtype=bool)
    count = min(round(missing * size), size - 1)
    lost[rng.permutation(size)[:count]] = True
    return lost.reshape(shape)


def _row_mask(shape: tuple, missing: float, rng: Any) -> np.ndarray:
    lost = np.zeros(shape, dtype=bool)
    count = min(round(missing * shape[0]), shape[0] - 1)
    lost[rng.permutation(shape[0])[:count]] = True
    return lost


def _block_mask(shape: tuple, missing: float, rng: Any) -> np.ndarray:
    """Squares at random places until the share is reached, at most to one pixel."""
    lost = np.zeros(shape, dtype=bool)
    side = max(1, min(shape) // 8)
    target = min(round(missing * lost.size), lost.size - 1)
    while lost.sum() < target:
        top = rng.randint(-side + 1, shape[0])
        left = rng.randint(-side + 1, shape[1])
        block = np.zeros(shape, dtype=bool)
        block[max(top, 0) : top + side, max(left, 0) : left + side] = True
        surplus = (lost | block).sum() - target
        if surplus > 0:
            fresh = np.flatnonzero(block & ~lost)
            block.flat[fresh[len(fresh) - surplus :]] = False
        lost |= block
    return lost


_PATTERNS = {"random": _random_mask, "rows": _row_mask, "blocks": _block_mask}
