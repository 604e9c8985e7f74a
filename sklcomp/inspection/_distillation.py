"""DistillationDisplay: what a student learned from its teacher."""

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.utils.validation import check_is_fitted, check_scalar

from sklcomp.inspection._figures import laid_out
from sklcomp.utils._validation import refuse_masked


class DistillationDisplay:
    """How a student learned, and from what.

    One panel with the losses. With data, one more for each network with its features of
    some examples, brought to a plane; without data, one with the examples that were
    made, a row for each class. It is recommended to make a display with
    :meth:`from_estimator`.

    Parameters
    ----------
    history : dict of str to ndarray of shape (n_epochs,)
        Name of a loss -> its means. With "classes", as a DataFreeDistiller has, they
        are those of iterations.
    embeddings : dict of str to ndarray of shape (n_samples, 2), default=None
        Title of a panel -> points.
    labels : array-like of shape (n_samples,), default=None
        Classes, or numbers, that colour the points.
    images : dict of object to ndarray of shape (n_images, height, width[, channels]), \
            default=None
        Class -> images with values in [0, 1].

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    ax_ : ndarray of matplotlib.axes.Axes
        Losses first, then the embeddings or the images.

    See Also
    --------
    sklcomp.compression.FeatureEmbeddingDistiller : Learns from data.
    sklcomp.compression.DataFreeDistiller : Learns without.
    CompressionDisplay : What was saved.

    Examples
    --------
    >>> import numpy as np
    >>> from sklcomp.inspection import DistillationDisplay
    >>> display = DistillationDisplay(
    ...     history={"task": np.array([2.0, 1.0])},
    ...     embeddings={"teacher": np.eye(2), "student": np.eye(2)}, labels=["a", "b"],
    ... ).plot()
    >>> [ax.get_title() for ax in display.ax_]
    ['losses', 'teacher', 'student']
    """

    @refuse_masked
    def __init__(
        self,
        *,
        history: dict[str, np.ndarray],
        embeddings: dict[str, np.ndarray] | None = None,
        labels: Any = None,
        images: dict[Any, np.ndarray] | None = None,
    ) -> None:
        self.history = history
        self.embeddings = embeddings
        self.labels = labels
        self.images = images

    @classmethod
    @refuse_masked
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        reducer: Any = None,
        n_neighbors: int = 5,
        n_images: int = 8,
        figure: Any = None,
    ) -> "DistillationDisplay":
        """Draw what a fitted distiller learned.

        Parameters
        ----------
        estimator : FeatureEmbeddingDistiller or DataFreeDistiller
            Fitted. The latter makes images itself; of vectors only losses are drawn.
        X : array-like of shape (n_samples, ...), default=None
            For the former: examples, best some that it was not trained on.
        y : array-like of shape (n_samples,), default=None
            Colours.
        reducer : transformer, default=None
            Brings features to two dimensions, for each network anew; None is
            :class:`sklearn.decomposition.PCA`, :class:`sklearn.manifold.TSNE` shows
            more and takes longer.
        n_neighbors : int, default=5
            Neighbours of the :func:`sklearn.manifold.trustworthiness` in the student's
            title: 1 if the neighbours in its features, all of them and not the two
            that are drawn, are neighbours in the teacher's.
        n_images : int, default=8
            Generated images of each class, as many as there are among two hundred for
            each class.
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one.

        Returns
        -------
        display : DistillationDisplay
            With ``figure_`` and ``ax_``.

        Raises
        ------
        ValueError
            If ``n_images`` is below 1, or X is None where it is needed.
        """
        check_scalar(n_images, "n_images", Integral, min_val=1)
        check_is_fitted(estimator)
        if hasattr(estimator, "sample"):
            images = _sorted_images(estimator, n_images)
            return cls(history=estimator.history_, images=images).plot(figure=figure)
        if X is None:
            msg = "X is needed: examples whose features are to be drawn."
            raise ValueError(msg)
        teacher, student = estimator.embed(X)
        trust = trustworthiness(teacher, student, n_neighbors=n_neighbors)
        reducer = PCA(2) if reducer is None else reducer
        n_theirs, n_own = teacher.shape[1], student.shape[1]
        titles = (
            f"teacher\n{n_theirs} features",
            f"student, {n_own} features\ntrustworthiness {trust:.3f}",
        )
        embeddings = {
            title: _reduced(reducer, features)
            for title, features in zip(titles, (teacher, student), strict=True)
        }
        display = cls(history=estimator.history_, embeddings=embeddings, labels=y)
        return display.plot(figure=figure)

    def plot(self, *, figure: Any = None) -> "DistillationDisplay":
        """Draw the panels.

        Parameters
        ----------
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one. One without a layout engine gets the
            constrained one.

        Returns
        -------
        display : DistillationDisplay
            This object, with ``figure_`` and ``ax_``.

        Raises
        ------
        ValueError
            If ``history`` holds no losses.
        """
        losses = {k: v for k, v in self.history.items() if v.ndim == 1 and len(v)}
        if not losses:
            msg = (
                "history holds no losses; give at least one array of shape (n_epochs,)."
            )
            raise ValueError(msg)
        embeddings = self.embeddings or {}
        n = 1 + len(embeddings) + bool(self.images)
        self.figure_ = figure = laid_out(figure, (4 * n, 3.6))
        self.ax_ = np.atleast_1d(figure.subplots(1, n))
        step = "iteration" if "classes" in self.history else "epoch"
        _draw_losses(self.ax_[0], losses, step)
        if embeddings:
            _draw_points(self.ax_[1:], embeddings, self.labels)
        if self.images:
            _draw_images(self.ax_[-1], self.images)
        for ax in self.ax_:
            ax.title.set_fontsize("medium")
        return self


def _draw_losses(ax: Any, losses: dict[str, np.ndarray], step: str) -> None:
    for name, values in losses.items():
        steps = np.arange(1, len(values) + 1)
        ax.plot(steps, values, marker="." if len(values) < 50 else "", label=name)
    scale = "log" if min(map(np.min, losses.values())) > 0 else "symlog"
    ax.set(title="losses", xlabel=step, yscale=scale)
    ax.legend()


def _draw_points(axes: Any, embeddings: dict[str, np.ndarray], labels: Any) -> None:
    """A panel for each embedding; few classes are named beside the last."""
    some = next(iter(embeddings.values()))
    classes, colors = np.unique(
        np.zeros(len(some)) if labels is None else labels, return_inverse=True
    )
    are_few = labels is not None and len(classes) <= 10
    for ax, (title, points) in zip(axes, embeddings.items(), strict=False):
        dots = ax.scatter(
            *points.T, c=colors, s=8, cmap="tab10" if are_few else "viridis"
        )
        ax.set(title=title, xticks=[], yticks=[])
    if are_few:
        handles, _ = dots.legend_elements(num=None)
        ax.legend(handles, list(classes), loc="center left", bbox_to_anchor=(1, 0.5))


def _sorted_images(estimator: Any, n_images: int) -> dict[Any, np.ndarray] | None:
    """Class -> examples that the estimator makes, in [0, 1]; None of vectors."""
    classes = estimator.classes_
    X, y = estimator.sample(200 * len(classes), random_state=0)
    if X.ndim != 4 or X.shape[1] not in (1, 3):
        return None
    low, high = X.min(axis=(0, 2, 3)), X.max(axis=(0, 2, 3))
    if estimator.input_range is not None:
        low, high = (np.asarray(side, float) for side in estimator.input_range)
    shown = (np.moveaxis(X, 1, -1) - low) / (high - low)
    shown = shown[..., 0] if X.shape[1] == 1 else shown
    return {label: shown[y == label][:n_images] for label in classes}


def _draw_images(ax: Any, images: dict[Any, np.ndarray]) -> None:
    """A row for each class, as one picture; what is missing stays grey."""
    rows = [row for row in images.values() if len(row)]
    n_columns = max(map(len, images.values()))
    height, width, *channels = rows[0].shape[1:]
    step, across = height + 1, width + 1
    picture = np.full((len(images) * step, n_columns * across, *channels), 0.6)
    for i, row in enumerate(images.values()):
        for j, image in enumerate(row):
            top, left = i * step, j * across
            picture[top : top + height, left : left + width] = image
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set(title="generated", xticks=[])
    ax.set_yticks(step * np.arange(len(images)) + height / 2, list(images))


def _reduced(reducer: Any, features: np.ndarray) -> np.ndarray:
    """Features as points of a plane."""
    if features.shape[1] == 1:
        return np.column_stack([features, np.zeros(len(features))])
    return clone(reducer).fit_transform(features)
