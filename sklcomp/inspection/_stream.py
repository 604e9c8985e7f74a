"""LabelStreamDisplay: what labels that arrived one by one learned from others."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.utils.validation import check_is_fitted

from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked

SCORES: dict[str, tuple[str, Callable]] = {
    "roc_auc": ("AUC", roc_auc_score),
    "average_precision": ("average precision", average_precision_score),
}


class LabelStreamDisplay:
    """How labels that arrived later follow from those before them.

    One row an arrived label: its coefficients on the earlier labels (the
    self-representation), how much of the inherited hypothesis was kept (the prior
    scale), and, where true labels are given, how well it is predicted. It is
    recommended to make a display with :meth:`from_estimator`.

    Parameters
    ----------
    representation : ndarray of shape (n_new, n_labels)
        Coefficients of the arrived labels; NaN where a label is not earlier.
    prior_scale : ndarray of shape (n_new,)
        Share of the inherited hypothesis in [0, 1]; 0 was learned from scratch.
    label_names : list of str of length n_labels
        Names of all labels; the arrived ones are the last.
    score : ndarray of shape (n_labels,), default=None
        Score of every label, NaN where it is not defined.
    score_name : str, default="score"
        What the scores are.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    ax_ : ndarray of shape (n_panels,) of matplotlib.axes.Axes
        Heat map, prior scales and, where there are any, scores.

    See Also
    --------
    sklcomp.multilabel.StreamingLabelClassifier : The estimator that it is made for.

    Examples
    --------
    >>> from sklcomp.datasets import make_multilabel_stream
    >>> from sklcomp.inspection import LabelStreamDisplay
    >>> from sklcomp.multilabel import StreamingLabelClassifier
    >>> X, y = make_multilabel_stream(random_state=0)
    >>> model = StreamingLabelClassifier(random_state=0).fit(X, y[:, :5])
    >>> _ = model.add_labels(X[:50], y[:50, 5:], y_past=y[:50, :5])
    >>> display = LabelStreamDisplay.from_estimator(model, X[50:], y[50:])
    >>> display.representation.shape, display.ax_.shape
    ((3, 8), (3,))
    """

    @refuse_masked
    def __init__(
        self,
        *,
        representation: np.ndarray,
        prior_scale: np.ndarray,
        label_names: list[str],
        score: np.ndarray | None = None,
        score_name: str = "score",
    ) -> None:
        self.representation = representation
        self.prior_scale = prior_scale
        self.label_names = label_names
        self.score = score
        self.score_name = score_name

    @classmethod
    @refuse_masked
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        scoring: str = "roc_auc",
        figure: Any = None,
    ) -> "LabelStreamDisplay":
        """Draw the labels that were added to a fitted classifier.

        Parameters
        ----------
        estimator : StreamingLabelClassifier
            Fitted, with at least one added label.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Examples to score the labels on, better not those of the fit.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels), default=None
            All their labels; named columns may be in any order.
        scoring : {"roc_auc", "average_precision"}, default="roc_auc"
            Score of each label.
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one.

        Returns
        -------
        display : LabelStreamDisplay
            With ``figure_`` and ``ax_``.

        Raises
        ------
        ValueError
            If no label was added, or ``y`` has not one column for each label.
        """
        check_is_fitted(estimator)
        if scoring not in SCORES:
            msg = (
                f"scoring={show(scoring)} is unknown; choose from {', '.join(SCORES)}."
            )
            raise ValueError(msg)
        n_new, n_labels = len(estimator.representation_), estimator.n_labels_
        if n_new == 0:
            msg = "no label was added to the classifier; call add_labels before."
            raise ValueError(msg)
        representation = np.full((n_new, n_labels), np.nan)
        for row, coef in zip(representation, estimator.representation_, strict=True):
            row[: len(coef)] = coef
        name, metric = SCORES[scoring]
        score = None if y is None else _score(metric, estimator, X, y)
        display = cls(
            representation=representation,
            prior_scale=estimator.prior_scale_,
            label_names=[str(name) for name in estimator.label_names_],
            score=score,
            score_name=name,
        )
        return display.plot(figure=figure)

    def plot(self, *, figure: Any = None) -> "LabelStreamDisplay":
        """Draw the panels.

        Parameters
        ----------
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one.

        Returns
        -------
        display : LabelStreamDisplay
            This object, with ``figure_`` and ``ax_``.
        """
        import matplotlib.pyplot as plt

        n_new, n_labels = self.representation.shape
        n_panels = 2 if self.score is None else 3
        size = (4.5 + 0.25 * min(n_labels, 30), 1.8 + 0.35 * min(n_new, 30))
        if figure is None:
            figure = plt.figure(figsize=size, layout="constrained")
        self.figure_ = figure
        widths = [max(2.0, 0.2 * n_labels), 1.0, 1.0][:n_panels]
        self.ax_ = figure.subplots(1, n_panels, sharey=True, width_ratios=widths)
        self._draw_representation(self.ax_[0], figure)
        rows = np.arange(n_new)
        self._draw_bars(self.ax_[1], rows, self.prior_scale, "prior scale")
        if self.score is not None:
            self._draw_bars(self.ax_[2], rows, self.score[-n_new:], self.score_name)
            if not np.isnan(self.score[:-n_new]).all():
                mean = np.nanmean(self.score[:-n_new])
                self.ax_[2].axvline(mean, color="gray", linestyle="--")
                self.ax_[2].set_title(
                    f"first labels: {mean:.2f}", fontsize="small", color="gray"
                )
        return self

    def _draw_representation(self, ax: Any, figure: Any) -> None:
        n_new, n_labels = self.representation.shape
        # The last label is earlier than no other.
        values = self.representation[:, :-1]
        largest = np.nanmax(np.abs(values)) or 1.0
        image = ax.imshow(
            values,
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
        )
        figure.colorbar(image, ax=ax, label="coefficient", fraction=0.05)
        ax.set_facecolor("0.9")
        ax.set_title("self-representation", fontsize="small")
        # Many names would cover each other.
        step = 1 + (n_labels - 2) // 30
        columns = np.arange(0, n_labels - 1, step)
        ax.set_xticks(columns, [self.label_names[j] for j in columns], rotation=90)
        step = 1 + (n_new - 1) // 30
        rows = np.arange(0, n_new, step)
        names = self.label_names[n_labels - n_new :]
        ax.set_yticks(rows, [names[j] for j in rows])

    @staticmethod
    def _draw_bars(ax: Any, rows: Any, values: Any, name: str) -> None:
        ax.barh(rows, np.nan_to_num(values), color="#4393c3")
        ax.set_xlim(0, 1)
        ax.set_xlabel(name)
        ax.tick_params(labelleft=False)


def _score(metric: Any, estimator: Any, X: Any, y: Any) -> Any:
    """The metric of every label; NaN for those with one class only."""
    y = estimator._encode_again(y).toarray()
    scores = estimator.decision_function(X)
    scores = scores.reshape(len(scores), -1)
    return np.array(
        [
            metric(y[:, j], scores[:, j]) if len(np.unique(y[:, j])) == 2 else np.nan
            for j in range(y.shape[1])
        ]
    )
