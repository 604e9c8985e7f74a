"""Pictures of what a student learned from its teacher."""

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.utils.validation import check_is_fitted


class DistillationDisplay:
    """How a student learned, and the features of teacher and student side by side.

    One panel with the losses of every epoch, and one for each network with its
    features of some examples, brought to a plane. It is recommended to make a display
    with :meth:`from_estimator`.

    Parameters
    ----------
    history : dict of str to ndarray of shape (n_epochs,)
        Name of a loss -> its means.
    embeddings : dict of str to ndarray of shape (n_samples, 2)
        Title of a panel -> points.
    labels : array-like of shape (n_samples,), default=None
        Classes, or numbers, that colour the points.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    ax_ : ndarray of matplotlib.axes.Axes
        Losses first, then the embeddings.

    See Also
    --------
    sklcomp.compression.FeatureEmbeddingDistiller : The estimator that it is made for.
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

    def __init__(
        self, *, history: dict[str, np.ndarray], embeddings: dict[str, np.ndarray],
        labels: Any = None,
    ) -> None:  # fmt: skip
        self.history = history
        self.embeddings = embeddings
        self.labels = labels

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, reducer: Any = None,
        n_neighbors: int = 5, figure: Any = None,
    ) -> "DistillationDisplay":  # fmt: skip
        """Draw what a fitted distiller learned.

        Parameters
        ----------
        estimator : FeatureEmbeddingDistiller
            Fitted.
        X : array-like of shape (n_samples, ...)
            Examples, best some that it was not trained on.
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
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one.

        Returns
        -------
        display : DistillationDisplay
            With ``figure_`` and ``ax_``.
        """
        check_is_fitted(estimator)
        teacher, student = estimator.embed(X)
        trust = trustworthiness(teacher, student, n_neighbors=n_neighbors)
        reducer = PCA(2) if reducer is None else reducer
        display = cls(
            history=estimator.history_,
            embeddings={
                f"teacher, {teacher.shape[1]} features": _reduced(reducer, teacher),
                f"student, {student.shape[1]} features, trustworthiness {trust:.3f}":
                    _reduced(reducer, student),
            },
            labels=y,
        )  # fmt: skip
        return display.plot(figure=figure)

    def plot(self, *, figure: Any = None) -> "DistillationDisplay":
        """Draw the panels.

        Parameters
        ----------
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one.

        Returns
        -------
        display : DistillationDisplay
            This object, with ``figure_`` and ``ax_``.
        """
        import matplotlib.pyplot as plt

        n = 1 + len(self.embeddings)
        if figure is None:
            figure = plt.figure(figsize=(4 * n, 3.6), layout="constrained")
        self.figure_ = figure
        self.ax_ = np.atleast_1d(figure.subplots(1, n))
        for name, values in self.history.items():
            epochs = np.arange(1, len(values) + 1)
            self.ax_[0].plot(epochs, values, marker=".", label=name)
        self.ax_[0].set(title="losses", xlabel="epoch", yscale="log")
        self.ax_[0].legend()
        n_points = max(map(len, self.embeddings.values()), default=0)
        labels = np.zeros(n_points) if self.labels is None else self.labels
        classes, colors = np.unique(labels, return_inverse=True)
        are_few = self.labels is not None and len(classes) <= 10
        for ax, (title, points) in zip(
            self.ax_[1:], self.embeddings.items(), strict=True
        ):
            dots = ax.scatter(
                *points.T, c=colors, s=8, cmap="tab10" if are_few else "viridis"
            )
            ax.set(title=title, xticks=[], yticks=[])
        if are_few and self.embeddings:
            handles, _ = dots.legend_elements(num=None)
            figure.legend(handles, list(classes), loc="outside right center")
        return self


def _reduced(reducer: Any, features: np.ndarray) -> np.ndarray:
    """Features as points of a plane."""
    if features.shape[1] == 1:
        return np.column_stack([features, np.zeros(len(features))])
    return clone(reducer).fit_transform(features)
