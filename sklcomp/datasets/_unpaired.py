"""``make_unpaired_digits``: two domains of images, and the true map between them."""

from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from sklearn.utils import Bunch, check_random_state

from sklcomp.utils._sklearn import Interval, validate_params
from sklcomp.utils._validation import as_float_array, refuse_masked

# Colours of the background and of the strokes, in [-1, 1]. In the second domain the
# strokes are the darker ones, so that a shift of the brightness cannot translate.
GREY = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
INK = ((0.9, 0.7, 0.4), (-0.8, -0.7, -0.2))


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left"), None],
        "image_size": [Interval(Integral, 8, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_unpaired_digits(
    n_samples: int | None = None, *, image_size: int = 16, random_state: Any = None
) -> Bunch:
    r"""Digits in white on black and others in ink on sand, with the true translator.

    The images are scikit-learn's (:func:`sklearn.datasets.load_digits`), enlarged by
    cubic interpolation. Either domain has its own half of them, so that no image of one
    is the translation of an image of the other: a problem for learners without pairs,
    whose answer is known. A pixel of brightness v in [-1, 1] is (v, v, v) in domain A
    and in domain B

    .. math:: (1 - t) \, b + t \, s, \qquad t = (v + 1) / 2 ,

    with the colours b of the background, a light sand, and s of the strokes, a dark
    blue.

    Parameters
    ----------
    n_samples : int, default=None
        Images of each domain, at most 898; None takes all.
    image_size : int, default=16
        Height and width in pixels, at least the 8 of the originals.
    random_state : int, RandomState instance or None, default=None
        Source of the halves and of their order.

    Returns
    -------
    data : Bunch
        With the attributes

        - data : ndarray of shape (2 * n_samples, 3 * image_size ** 2), float32, the
          flattened images of A, then of B, in [-1, 1], with the channels last;
        - target : ndarray of shape (2 * n_samples,), int64, 0 for A and 1 for B;
        - data_a, data_b : the two halves of ``data``, as views;
        - image_shape : tuple (image_size, image_size, 3);
        - digit_a, digit_b : ndarray of shape (n_samples,), int64, the digits shown;
        - translate, translate_back : callables that take images of A to what they are
          in B, and back. They accept rows as in ``data`` and also images with the
          channels last. A colour that the domain lacks is first replaced by the nearest
          that it has;
        - DESCR : str.

    Raises
    ------
    ValueError
        If ``n_samples`` exceeds 898 or ``image_size`` is less than 8.

    See Also
    --------
    sklcomp.metrics.frechet_distance : Compares translated images with those of B.

    Notes
    -----
    Every digit has as many images in either domain, up to one. The rows come in rounds
    of one image of each digit, in random order, until a digit has none left; so the
    first rows are a balanced part, the same whatever ``n_samples`` is.

    Examples
    --------
    >>> import numpy as np
    >>> from sklcomp.datasets import make_unpaired_digits
    >>> digits = make_unpaired_digits(n_samples=20, random_state=0)
    >>> digits.data.shape, digits.image_shape, np.bincount(digits.digit_a).tolist()
    ((40, 768), (16, 16, 3), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    >>> translated = digits.translate(digits.data_a)
    >>> bool(np.allclose(digits.translate_back(translated), digits.data_a, atol=1e-6))
    True
    """
    digits = load_digits()
    half = len(digits.target) // 2
    count = half if n_samples is None else n_samples
    if count > half:
        msg = (
            f"n_samples={n_samples} exceeds the {half} images of each domain; choose "
            f"n_samples <= {half}."
        )
        raise ValueError(msg)
    rows = _draw_halves(digits.target, check_random_state(random_state))
    rows_a, rows_b = (half_rows[:count] for half_rows in rows)
    grey = _enlarge(digits.images[np.concatenate([rows_a, rows_b])], image_size)
    translate = partial(_recolour, source=GREY, target=INK)
    data = np.concatenate([grey[:count], translate(grey[count:])])
    return Bunch(
        data=data,
        target=np.repeat(np.arange(2, dtype=np.int64), count),
        data_a=data[:count],
        data_b=data[count:],
        image_shape=(image_size, image_size, 3),
        digit_a=digits.target[rows_a].astype(np.int64),
        digit_b=digits.target[rows_b].astype(np.int64),
        translate=translate,
        translate_back=partial(_recolour, source=INK, target=GREY),
        DESCR=f"{make_unpaired_digits.__doc__}\n{digits.DESCR}",
    )


def _draw_halves(digit: np.ndarray, rng: Any) -> list[np.ndarray]:
    """Indices of two disjoint halves, in rounds of one image of each digit."""
    shuffled = rng.permutation(len(digit))
    by_digit = shuffled[np.argsort(digit[shuffled], kind="stable")]
    # Every second one of the sorted digits: no digit is split worse than by one. Of an
    # odd number one is left out.
    even = len(digit) // 2 * 2
    return [_order_in_rounds(by_digit[i:even:2], digit, rng) for i in range(2)]


def _order_in_rounds(rows: Any, digit: np.ndarray, rng: Any) -> np.ndarray:
    """Reordered rows that are sorted by digit."""
    counts = np.bincount(digit[rows])
    turn = np.concatenate([np.arange(count) for count in counts])
    return rows[np.lexsort((rng.random_sample(len(rows)), turn))]


def _enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Flattened grey images of three channels in [-1, 1] from pixels in [0, 16]."""
    factor = size / images.shape[1]
    enlarge = partial(zoom, zoom=factor, order=3, mode="nearest", grid_mode=True)
    large = np.stack([enlarge(image) for image in images])
    # Cubic splines overshoot at edges.
    brightness = np.clip(large, 0, 16) / 8 - 1
    return np.repeat(brightness.reshape(len(images), -1), 3, axis=1).astype(np.float32)


@refuse_masked
def _recolour(X: Any, *, source: Any, target: Any) -> np.ndarray:
    """Nearest points on the segment of two colours, moved to another segment."""
    images = as_float_array(X, "X")
    if images.ndim == 0 or images.shape[-1] % 3:
        msg = (
            f"X has shape {images.shape}; its last axis must be a multiple of the 3 "
            "channels. Pass flattened images or images with the channels last."
        )
        raise ValueError(msg)
    pixels = images.astype(np.float64).reshape(-1, 3)
    background, stroke = np.asarray(source)
    across = stroke - background
    share = np.clip((pixels - background) @ across / (across @ across), 0, 1)
    background, stroke = np.asarray(target)
    # Not background + share * across: the ends are to be hit exactly.
    recoloured = np.outer(1 - share, background) + np.outer(share, stroke)
    return recoloured.reshape(images.shape).astype(images.dtype)
