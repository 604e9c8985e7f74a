"""Multi-label data that need no download: digits with attributes, and a stream."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch, check_random_state

from sklcomp.utils._sklearn import Interval, validate_params

# What is true of each digit; the names are those of the labels.
ATTRIBUTES = {
    "even": (0, 2, 4, 6, 8),
    "at least five": (5, 6, 7, 8, 9),
    "multiple of three": (0, 3, 6, 9),
    "prime": (2, 3, 5, 7),
    "closed loop": (0, 6, 8, 9),
    "square": (0, 1, 4, 9),
    "straight lines only": (1, 4, 7),
    "power of two": (1, 2, 4, 8),
}


@validate_params(
    {"return_X_y": ["boolean"], "as_frame": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def load_digit_attributes(*, return_X_y: bool = False, as_frame: bool = False) -> Any:
    """Handwritten digits with what is true of each as labels.

    The images are scikit-learn's (:func:`sklearn.datasets.load_digits`); the eight
    labels are properties of the number, such as being even or having a closed loop.
    They depend on each other, and not all of them are linear in the pixels, so that
    they are a small real problem for multi-label learning: the last labels can arrive
    later.

    =================   ==============
    Classes             8 labels
    Samples total       1797
    Labels per sample   3.3 on average
    Dimensionality      64
    Features            integers 0-16
    =================   ==============

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return only ``(data, target)``.
    as_frame : bool, default=False
        Whether ``data`` and ``target`` are pandas frames with named columns.

    Returns
    -------
    data : Bunch
        With ``data`` of shape (1797, 64), float64; ``target`` of shape (1797, 8),
        int64; ``target_names`` and ``feature_names``, lists of str; ``images`` of shape
        (1797, 8, 8); ``digit``, the number itself, of shape (1797,); and ``DESCR``. If
        ``return_X_y``, the tuple (data, target).

    Examples
    --------
    >>> from sklcomp.datasets import load_digit_attributes
    >>> digits = load_digit_attributes()
    >>> digits.target.shape
    (1797, 8)
    >>> seven = digits.target[digits.digit == 7][0]
    >>> [name for name, has in zip(digits.target_names, seven) if has]
    ['at least five', 'prime', 'straight lines only']
    """
    digits = load_digits(as_frame=as_frame)
    number = np.asarray(digits.target)
    names = list(ATTRIBUTES)
    target: Any = np.column_stack(
        [np.isin(number, ATTRIBUTES[name]) for name in names]
    ).astype(np.int64)
    if as_frame:
        target = type(digits.data)(target, columns=names)
    if return_X_y:
        return digits.data, target
    return Bunch(
        data=digits.data,
        target=target,
        target_names=names,
        feature_names=list(digits.feature_names),
        images=digits.images,
        digit=number,
        DESCR=load_digit_attributes.__doc__ + "\n" + digits.DESCR,
    )


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_initial": [Interval(Integral, 1, None, closed="left")],
        "n_new": [Interval(Integral, 0, None, closed="left")],
        "dependence": [Interval(Real, 0, 1, closed="both")],
        "prevalence": [Interval(Real, 0, 1, closed="neither")],
        "flip_y": [Interval(Real, 0, 1, closed="both")],
        "return_coef": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_multilabel_stream(
    n_samples: int = 300,
    n_features: int = 20,
    *,
    n_initial: int = 5,
    n_new: int = 3,
    dependence: float = 0.9,
    prevalence: float = 0.3,
    flip_y: float = 0.01,
    return_coef: bool = False,
    random_state: Any = None,
) -> tuple[np.ndarray, ...]:
    r"""Labels of which the later ones follow from the earlier ones.

    Features are standard normal; example i has label j if :math:`\langle w_j, x_i
    \rangle` is among the largest of the column. The first ``n_initial`` directions
    :math:`w_j` are random, of length 1. Each later one is

    .. math:: w_j = d \, u_j + \sqrt{1 - d^2} \, v_j ,

    with the ``dependence`` d, a unit vector :math:`u_j` that is a random combination
    of the earlier directions, and a random unit vector :math:`v_j` orthogonal to
    :math:`u_j`.

    Parameters
    ----------
    n_samples, n_features : int, default=300, 20
        Numbers of examples and of features.
    n_initial, n_new : int, default=5, 3
        Labels that are there from the start, and that arrive.
    dependence : float in [0, 1], default=0.9
        Cosine between the direction of a new label and what the earlier ones can
        express. With as many earlier labels as features they can express everything.
    prevalence : float in (0, 1), default=0.3
        Share of the examples that have a label, before ``flip_y``; at least one has
        it and, from two examples on, at least one has not.
    flip_y : float in [0, 1], default=0.01
        Share of the entries of y that are inverted at random.
    return_coef : bool, default=False
        Whether to return the directions.
    random_state : int, RandomState instance or None, default=None
        Source of the data.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float64
        Features.
    y : ndarray of shape (n_samples, n_initial + n_new), int64
        Indicator of the labels; the new ones are the last columns.
    coef : ndarray of shape (n_initial + n_new, n_features)
        Directions; only if ``return_coef``.

    See Also
    --------
    sklearn.datasets.make_multilabel_classification : Labels as topics of documents.
    sklcomp.multilabel.StreamingLabelClassifier : The learner that it is made for.

    Examples
    --------
    >>> from sklcomp.datasets import make_multilabel_stream
    >>> X, y = make_multilabel_stream(n_samples=100, random_state=0)
    >>> X.shape, y[:, :5].shape, y[:, 5:].shape
    ((100, 20), (100, 5), (100, 3))
    """
    rng = check_random_state(random_state)
    X = rng.standard_normal((n_samples, n_features))
    coef = np.empty((n_initial + n_new, n_features))
    for j in range(len(coef)):
        fresh = _unit(rng.standard_normal(n_features))
        coef[j] = fresh
        if j >= n_initial:
            mixed = _unit(rng.standard_normal(j) @ coef[:j])
            rest = fresh - (fresh @ mixed) * mixed
            coef[j] = dependence * mixed
            # With one feature nothing is orthogonal.
            if n_features > 1:
                coef[j] += np.sqrt(1.0 - dependence**2) * _unit(rest)
    count = min(max(1, round(prevalence * n_samples)), max(1, n_samples - 1))
    scores = X @ coef.T
    least = np.sort(scores, axis=0)[-count]
    has = scores >= least
    has ^= rng.random_sample(has.shape) < flip_y
    y = has.astype(np.int64)
    return (X, y, coef) if return_coef else (X, y)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
