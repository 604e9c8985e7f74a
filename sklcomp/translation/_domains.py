"""TwoDomainsMixin: reads two domains as users give them, for CycleGANTranslator.

They come as rows or images, with labels or as two sets.
"""

from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from sklcomp.translation._images import ImageLayout
from sklcomp.utils._layout import as_flat_rows, as_shape, shape_of
from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked

DTYPES = (np.float64, np.float32, np.uint8)


class TwoDomainsMixin:
    """Of an estimator with an ``image_shape`` that learns from two domains."""

    image_shape: Any
    layout_: ImageLayout
    classes_: np.ndarray

    @refuse_masked
    def split_domains(self, X: Any, y: Any) -> Any:
        """Examples of either domain, as this translator knows them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Examples.
        y : array-like of shape (n_samples,), or images
            As in ``fit``; a domain may be missing.

        Returns
        -------
        a, b : ndarray of shape (n, n_features)
            Rows of the first domain, and of the second.
        """
        check_is_fitted(self)
        return self._split_domains(X, y)

    def _split_domains(
        self, X: Any, y: Any, reset: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of A and of B."""
        if y is None:
            msg = (
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None: give the domain of every row, or the images of the other."
            )
            raise ValueError(msg)
        shape = shape_of(y)
        # A column holds labels, unless X has one column too: then it may be the other
        # domain.
        if len(shape) < 2 or shape[1:] == (1,) != shape_of(X)[1:]:
            return self._split(X, column_or_1d(y, warn=True), reset)
        a = self._check_rows(X, reset=reset)
        b = check_array(as_flat_rows(y), dtype=DTYPES, input_name="y", estimator=self)
        if b.shape[1] != a.shape[1]:
            msg = (
                f"X has {a.shape[1]} features and y, the images of the other domain, "
                f"{b.shape[1]}; both must have as many."
            )
            raise ValueError(msg)
        self.layout_.check(b, shape[1:], "y")
        if reset:
            self.classes_ = np.arange(2)
        return a, b

    def _split(
        self, X: Any, y: np.ndarray, reset: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = self._check_rows(X, y, reset=reset)
        classes = np.unique(y)
        if reset and len(classes) < 2:
            msg = (
                f"{type(self).__name__} needs two domains; y has 1 class: "
                f"{show(classes[0])}."
            )
            raise ValueError(msg)
        if reset:
            self.classes_ = classes
        # All other classes are B, so that a target of more classes is no error.
        is_a = y == self.classes_[0]
        return rows[is_a], rows[~is_a]

    def _check_rows(self, X: Any, *y: Any, reset: bool) -> np.ndarray:
        """Flat rows; with reset, the layout of an example is taken from them."""
        shape = shape_of(X)[1:]
        if reset:
            rows = validate_data(
                self,
                as_flat_rows(X),
                *y,
                dtype=DTYPES,
                ensure_min_samples=2 if y else 1,
            )
            self.layout_ = ImageLayout(_image_shape(self.image_shape, shape))
            self.image_shape_ = self.layout_.shape
        else:
            rows = validate_data(self, as_flat_rows(X), *y, dtype=DTYPES, reset=False)
        if y:
            rows, _ = rows
        self.layout_.check(rows, shape)
        return rows


def _image_shape(given: Any, shape: tuple) -> tuple[int, ...]:
    """Shape of an example, from the parameter or the data."""
    if given is None:
        if len(shape) in (0, 1, 2, 3):
            return shape
        msg = f"X has examples of shape {shape}; images have 2 or 3 dimensions."
        raise ValueError(msg)
    found = as_shape(given, "image_shape")
    if len(found) not in (2, 3):
        msg = (
            f"image_shape={show(found)}; expected (height, width), (height, width, "
            "channels) or (channels, height, width)."
        )
        raise ValueError(msg)
    return found
