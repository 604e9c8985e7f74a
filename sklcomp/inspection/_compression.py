"""EvolutionDisplay and CompressionDisplay: pictures of a search and of its gain."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklcomp.inspection._figures import laid_out
from sklcomp.utils._validation import refuse_masked

SAVED = ("parameters", "MACs", "bytes", "latency / ms")


class EvolutionDisplay:
    """How a genetic search went, and what it offers.

    Three panels: the best and the mean fitness of every generation; the Pareto front,
    fitness against size; the channels that each layer kept. It is recommended to make
    a display with :meth:`from_estimator`.

    Parameters
    ----------
    history : dict of str to ndarray of shape (n_generations + 1,)
        "best" and "mean" fitness.
    front : dict of str to ndarray of shape (n_points,)
        "n_parameters" and "fitness"; points without a finite fitness are not drawn.
    widths : dict of str to tuple of int
        Layer -> channels kept, and channels before.
    best : tuple of (int, float)
        Parameters and fitness of the winner.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    ax_ : ndarray of shape (3,) of matplotlib.axes.Axes
        Fitness, Pareto front, widths.

    See Also
    --------
    sklcomp.compression.EvolutionaryPruner : The estimator that it is made for.
    sklcomp.compression.CoEvolutionaryPruner : The same for two networks.
    CompressionDisplay : What was saved.

    Examples
    --------
    >>> import numpy as np
    >>> from sklcomp.inspection import EvolutionDisplay
    >>> display = EvolutionDisplay(
    ...     history={"best": np.array([-2.0, -1.0]), "mean": np.array([-4.0, -2.0])},
    ...     front={"n_parameters": np.array([10, 20]), "fitness": np.array([-3., -1.])},
    ...     widths={"conv": (3, 8)}, best=(20, -1.0),
    ... ).plot()
    >>> display.ax_.shape
    (3,)
    """

    @refuse_masked
    def __init__(
        self,
        *,
        history: dict[str, np.ndarray],
        front: dict[str, np.ndarray],
        widths: dict[str, tuple[int, int]],
        best: tuple[int, float],
    ) -> None:
        self.history = history
        self.front = front
        self.widths = widths
        self.best = best

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, side: str = "ab", figure: Any = None
    ) -> "EvolutionDisplay":
        """Draw the search of a fitted pruner.

        Parameters
        ----------
        estimator : EvolutionaryPruner or CoEvolutionaryPruner
            Fitted.
        side : {"ab", "ba"}, default="ab"
            Which generator of a CoEvolutionaryPruner.
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one.

        Returns
        -------
        display : EvolutionDisplay
            With ``figure_`` and ``ax_``.
        """
        check_is_fitted(estimator)
        history, front = estimator.history_, estimator.pareto_front_
        if hasattr(estimator, "kept_channels_ab_"):
            graph, kept = (
                getattr(estimator, f"{name}_{side}_")
                for name in ("graph", "kept_channels")
            )
            history = {name: history[f"{name}_{side[0]}"] for name in ("best", "mean")}
            best, front = estimator.winners_[side], front[side]
        else:
            graph, kept = estimator.graph_, estimator.kept_channels_
            best = estimator.report_.after["parameters"], estimator.best_fitness_
        display = cls(
            history=history,
            front=front,
            best=best,
            widths={
                layer: (len(channels), len(graph.layers[layer]))
                for layer, channels in kept.items()
            },
        )
        return display.plot(figure=figure)

    def plot(self, *, figure: Any = None) -> "EvolutionDisplay":
        """Draw the panels.

        Parameters
        ----------
        figure : matplotlib figure, default=None
            Where to draw; None makes a new one. One without a layout engine gets the
            constrained one.

        Returns
        -------
        display : EvolutionDisplay
            This object, with ``figure_`` and ``ax_``.
        """
        height = max(3.0, 1.2 + 0.22 * len(self.widths))
        self.figure_ = figure = laid_out(figure, (10, height))
        self.ax_ = figure.subplots(1, 3)
        for name in ("best", "mean"):
            self.ax_[0].plot(self.history[name], marker=".", label=name)
        self.ax_[0].set(xlabel="generation", ylabel="fitness")
        self.ax_[0].legend()
        # A front in MACs as well has points that a smaller one beats in fitness.
        order = np.lexsort([-self.front["fitness"], self.front["n_parameters"]])
        order = order[np.isfinite(self.front["fitness"][order])]
        sizes, fitness = (self.front[k][order] for k in ("n_parameters", "fitness"))
        is_best = fitness >= np.maximum.accumulate(fitness)
        self.ax_[1].plot(
            sizes[is_best],
            fitness[is_best],
            marker="o",
            drawstyle="steps-post",
            label="Pareto front",
        )
        self.ax_[1].plot(
            *self.best, marker="*", markersize=14, linestyle="none", label="winner"
        )
        self.ax_[1].set(xlabel="parameters", ylabel="fitness")
        self.ax_[1].legend()
        _draw_widths(self.ax_[2], self.widths)
        return self


class CompressionDisplay:
    """What a compression saved: sizes and speed after, as shares of before.

    It is recommended to make a display with :meth:`from_estimator`.

    Parameters
    ----------
    before, after : dict of str to float
        As in :class:`sklcomp.compression.CompressionReport`.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    ax_ : matplotlib.axes.Axes
        One bar for each row of the report, and the scores as a title.

    See Also
    --------
    sklcomp.compression.CompressionReport : The numbers.

    Examples
    --------
    >>> from sklcomp.inspection import CompressionDisplay
    >>> display = CompressionDisplay({"parameters": 200}, {"parameters": 50}).plot()
    >>> float(display.ax_.patches[0].get_width())
    0.25
    """

    def __init__(self, before: dict[str, float], after: dict[str, float]) -> None:
        self.before = before
        self.after = after

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> "CompressionDisplay":
        """Draw the report of a fitted compressor.

        Parameters
        ----------
        estimator : compressor
            Fitted, with ``report_``.
        ax : matplotlib axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : CompressionDisplay
            With ``figure_`` and ``ax_``.
        """
        check_is_fitted(estimator)
        report = estimator.report_
        return cls(report.before, report.after).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "CompressionDisplay":
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : CompressionDisplay
            This object, with ``figure_`` and ``ax_``.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        rows = [row for row in SAVED if self.before.get(row, 0) > 0]
        shares = [self.after[row] / self.before[row] for row in rows]
        bars = ax.barh(rows, shares, color="#4393c3")
        sizes = [
            f"{_shown(self.after[row])} of {_shown(self.before[row])}" for row in rows
        ]
        ax.bar_label(bars, sizes, padding=3, fontsize="small")
        ax.set(xlim=(0, 1.4), xlabel="after / before")
        ax.axvline(1, color="gray", linestyle="--")
        ax.invert_yaxis()
        for row in ("score", "training score"):
            if row in self.before:
                ax.set_title(
                    f"{row} {self.before[row]:.3f} before, {self.after[row]:.3f} after",
                    fontsize="medium",
                )
        return self


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _draw_widths(ax: Any, widths: dict[str, tuple[int, int]]) -> None:
    rows = np.arange(len(widths))
    kept, before = np.array(list(widths.values())).T
    ax.barh(rows, before, color="0.88", label="before")
    ax.barh(rows, kept, color="#4393c3", label="kept")
    ax.set_yticks(rows, list(widths))
    ax.set_xlabel("channels")
    ax.invert_yaxis()
    ax.legend()
