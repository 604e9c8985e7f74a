"""RecoveryDisplay: images before and after their recovery."""

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import check_scalar

from sklcomp.inspection._figures import laid_out
from sklcomp.metrics import psnr
from sklcomp.utils._validation import as_float_array, check_unmasked, refuse_masked


class RecoveryDisplay:
    """Images with missing pixels beside what an imputer makes of them.

    One row an image: the observed pixels, the recovered image and, if known, the true
    one. It is recommended to make a display with :meth:`from_estimator`.

    Parameters
    ----------
    observed : ndarray of shape (n_images, height, width[, channels])
        Images with NaN where a pixel is missing.
    recovered : ndarray of the same shape
        Images without missing pixels.
    true : ndarray of the same shape, default=None
        Complete images.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    ax_ : ndarray of shape (n_images, n_columns) of matplotlib.axes.Axes
        One row an image, one column a kind of picture.

    See Also
    --------
    sklcomp.recovery.DCTImputer : The estimator that it is made for.

    Examples
    --------
    >>> from sklcomp.datasets import make_masked_images
    >>> from sklcomp.inspection import RecoveryDisplay
    >>> from sklcomp.recovery import DCTImputer
    >>> X, y = make_masked_images(n_samples=2, random_state=0)
    >>> imputer = DCTImputer().fit(X)
    >>> display = RecoveryDisplay.from_estimator(imputer, X, y)
    >>> display.ax_.shape
    (2, 3)
    """

    @refuse_masked
    def __init__(
        self,
        *,
        observed: np.ndarray,
        recovered: np.ndarray,
        true: np.ndarray | None = None,
    ) -> None:
        self.observed = observed
        self.recovered = recovered
        self.true = true

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        n_images: int = 4,
        image_shape: tuple[int, ...] | None = None,
        figure: Any = None,
    ) -> "RecoveryDisplay":
        """Recover the first images of X and draw them.

        Parameters
        ----------
        estimator : estimator with ``transform``
            Fitted imputer.
        X : array-like of shape (n_samples, n_features) or (n_samples,) + image_shape
            Images, NaN where a pixel is missing.
        y : array-like of the same shape, default=None
            Complete images.
        n_images : int, default=4
            At most so many rows are drawn.
        image_shape : tuple of int, default=None
            (height, width[, channels]); None takes ``estimator.image_shape_`` (and
            ``channel_axis``) where it exists, else the shape of X.
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one.

        Returns
        -------
        display : RecoveryDisplay
            With ``figure_`` and ``ax_``.

        Raises
        ------
        ValueError
            If ``n_images`` is below 1, or the images cannot be drawn.
        """
        check_scalar(n_images, "n_images", Integral, min_val=1)
        check_unmasked(y, "y")
        X = X[:n_images]
        axis = None if image_shape else getattr(estimator, "channel_axis", None)
        shape = image_shape or getattr(estimator, "image_shape_", np.shape(X)[1:])
        observed = _pictures(X, shape, axis)
        marker = getattr(estimator, "missing_values", np.nan)
        observed = np.where(observed == marker, np.nan, observed)
        recovered = _pictures(estimator.transform(X), shape, axis)
        true = None if y is None else _pictures(y[:n_images], shape, axis)
        display = cls(observed=observed, recovered=recovered, true=true)
        return display.plot(figure=figure)

    def plot(self, *, figure: Any = None) -> "RecoveryDisplay":
        """Draw the images.

        Parameters
        ----------
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one. One without a layout engine gets the
            constrained one.

        Returns
        -------
        display : RecoveryDisplay
            This object, with ``figure_`` and ``ax_``.
        """
        import matplotlib.pyplot as plt

        columns = [("observed", self.observed), ("recovered", self.recovered)]
        if self.true is not None:
            columns.append(("true", self.true))
        n_images = len(self.observed)
        size = (2.4 * len(columns), 2.6 * n_images)
        self.figure_ = figure = laid_out(figure, size)
        self.ax_ = figure.subplots(n_images, len(columns), squeeze=False)
        for row, axes in enumerate(self.ax_):
            reference = self.observed if self.true is None else self.true
            if np.isnan(reference[row]).all():
                reference = self.recovered
            low, high = np.nanmin(reference[row]), np.nanmax(reference[row])
            unit = (high - low) or 1.0
            for (name, images), ax in zip(columns, axes, strict=True):
                picture = np.squeeze((images[row] - low) / unit, axis=_gray(images))
                ax.imshow(_opaque(picture), cmap=_gray_map(plt), vmin=0, vmax=1)
                ax.set_axis_off()
                ax.set_title(self._title(name, row, unit), fontsize="small")
        return self

    def _title(self, name: str, row: int, unit: float) -> str:
        if name == "observed":
            known = np.mean(~np.isnan(self.observed[row]))
            return f"observed: {known:.0%}"
        if name == "recovered" and self.true is not None:
            value = psnr(self.true[row], self.recovered[row], data_range=unit)
            return f"recovered: {value:.1f} dB"
        return name


def _pictures(X: Any, shape: Any, channel_axis: int | None) -> Any:
    """Images of shape (n_images, height, width[, channels]) from rows or pictures."""
    images = as_float_array(X, "X").astype(np.float64, copy=False)
    images = images.reshape(len(images), *((1,) * (2 - len(shape))), *shape)
    if channel_axis is not None:
        images = np.moveaxis(images, 1 + channel_axis % len(shape), -1)
    if images.ndim > 4 or (images.ndim == 4 and images.shape[-1] not in (1, 3, 4)):
        msg = (
            f"images of shape {images.shape[1:]} cannot be drawn; expected (height, "
            "width) or 1, 3 or 4 channels. Give slices, and their image_shape."
        )
        raise ValueError(msg)
    return images


def _gray(images: Any) -> Any:
    """Axis of a single channel, which imshow does not take."""
    return -1 if images.ndim == 4 and images.shape[-1] == 1 else ()


def _gray_map(plt: Any) -> Any:
    """Gray levels, with missing pixels in a colour that no gray image has."""
    return plt.get_cmap("gray").with_extremes(bad="#6a51a3")


def _opaque(picture: Any) -> Any:
    """Colours within [0, 1]; missing pixels of a colour image become black."""
    return np.nan_to_num(np.clip(picture, 0, 1)) if picture.ndim == 3 else picture
