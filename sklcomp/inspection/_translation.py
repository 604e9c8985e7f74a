"""TranslationDisplay: images, or points, translated between two domains."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted, check_scalar

from sklcomp.inspection._figures import laid_out
from sklcomp.utils._validation import refuse_masked

ARROW = " → "
# As in the translator: more of them are not taken for the channels of an image.
MAX_CHANNELS = 4
# How the translator's history names a domain, and a direction.
SIDES = {"a": "A", "b": "B", "ab": "A → B", "ba": "B → A"}
# Width of a picture in inches.
CELL = 0.8


class TranslationDisplay:
    """What an unpaired translation makes of examples, and how it was learned.

    One panel with pictures: a row with images of domain A, one with their translation
    and one with what comes back from B; the same for images of B. One more with the
    losses. Of vectors there is a map of both domains and of what is translated instead
    of pictures. It is recommended to make a display with :meth:`from_estimator`.

    Parameters
    ----------
    images : dict of str to ndarray of shape (n_images, height, width[, channels]), \
            default=None
        Title of a row -> images with values in [0, 1]. Above a title without an arrow
        there is more room, as it begins a domain.
    history : dict of str to ndarray of shape (n_epochs,), default=None
        Name of a loss -> its means. The names end in the domain, "_a" or "_b", or in
        the direction, "_ab" or "_ba".
    points : dict of str to ndarray of shape (n_samples, 2), default=None
        What the points are -> points; crosses if there is an arrow in it, else dots.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    ax_ : ndarray of matplotlib.axes.Axes
        Those that there are of pictures, points and losses.

    See Also
    --------
    sklcomp.translation.CycleGANTranslator : The estimator that it is made for.
    CompressionDisplay : What was saved, if it was compressed.

    Examples
    --------
    >>> from sklcomp.datasets import make_unpaired_digits
    >>> from sklcomp.inspection import TranslationDisplay
    >>> from sklcomp.translation import CycleGANTranslator
    >>> digits = make_unpaired_digits(40, image_size=8, random_state=0)
    >>> translator = CycleGANTranslator(
    ...     digits.image_shape, n_filters=4, n_blocks=1, batch_size=8, max_epochs=2,
    ...     random_state=0,
    ... ).fit(digits.data, digits.target)
    >>> display = TranslationDisplay.from_estimator(translator, digits.data_a)
    >>> [text.get_text() for text in display.ax_[0].get_yticklabels()]
    ['A', 'A → B', 'A → B → A']
    """

    @refuse_masked
    def __init__(
        self,
        *,
        images: dict[str, np.ndarray] | None = None,
        history: dict[str, np.ndarray] | None = None,
        points: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.images = images
        self.history = history
        self.points = points

    @classmethod
    @refuse_masked
    def from_estimator(
        cls,
        estimator: Any,
        X_a: Any = None,
        X_b: Any = None,
        *,
        others: dict[str, Any] | None = None,
        n_images: int = 6,
        show_losses: bool = True,
        figure: Any = None,
    ) -> "TranslationDisplay":
        """Translate examples and draw them.

        Parameters
        ----------
        estimator : CycleGANTranslator or CoEvolutionaryPruner
            Fitted.
        X_a : array-like of shape (n_samples, n_features) or (n_samples, ...), \
                default=None
            Examples of domain A: images in [-1, 1] or of dtype uint8, or vectors.
        X_b : array-like of shape (n_samples, n_features) or (n_samples, ...), \
                default=None
            Examples of domain B.
        others : dict of str to estimator, default=None
            Title -> fitted estimator for the same domains, such as the translator
            before it was compressed. What it makes stands below what ``estimator``
            makes.
        n_images : int, default=6
            Images of each domain, evenly spaced rows of ``X_a`` and ``X_b``.
        show_losses : bool, default=True
            Whether to draw the losses, if there are any.
        figure : matplotlib figure or subfigure, default=None
            Where to draw; None makes a new one.

        Returns
        -------
        display : TranslationDisplay
            With ``figure_`` and ``ax_``.

        Raises
        ------
        ValueError
            If there are neither examples of A nor of B, they are images that have not
            1, 3 or 4 channels, or ``n_images`` is below 1.
        """
        check_scalar(n_images, "n_images", Integral, min_val=1)
        given = {"A": X_a, "B": X_b}
        domains = {name: X for name, X in given.items() if X is not None}
        others = others or {}
        for fitted in (estimator, *others.values()):
            check_is_fitted(fitted)
        if not domains:
            msg = "there is nothing to translate; give X_a or X_b, or both."
            raise ValueError(msg)
        translator = getattr(estimator, "estimator_", estimator)
        history = getattr(translator, "history_", None) if show_losses else None
        shape = translator.image_shape_
        rows: dict[str, Any] = {}
        for name, X in domains.items():
            X = X if len(shape) == 1 else _spaced(X, n_images)
            rows |= _translations(estimator, others, name, X)
        if len(shape) == 1:
            display = cls(points=_project(rows, list(domains)), history=history)
        else:
            images = {title: _pictures(X, shape) for title, X in rows.items()}
            display = cls(images=images, history=history)
        return display.plot(figure=figure)

    def plot(self, *, figure: Any = None) -> "TranslationDisplay":
        """Draw the panels.

        Parameters
        ----------
        figure : matplotlib figure or subfigure, default=None
            Where to draw; None makes a new one. One without a layout engine gets the
            constrained one.

        Returns
        -------
        display : TranslationDisplay
            This object, with ``figure_`` and ``ax_``.
        """
        panels: list[tuple[Callable, Any, float]] = []
        height = 3.6
        if self.images:
            picture, centres = _montage(self.images)
            width = CELL * max(map(len, self.images.values()))
            height = max(height, width * len(picture) / picture.shape[1])
            panels.append((_draw_images, (picture, centres), width))
        if self.points:
            panels.append((_draw_points, self.points, 4.0))
        if self.history:
            panels.append((_draw_losses, self.history, 4.0))
        widths = [width for *_, width in panels]
        # Row titles and legends stand beside the axes.
        size = sum(widths) + 1.5 * len(panels), height
        self.figure_ = figure = laid_out(figure, size)
        self.ax_ = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[
            0
        ]
        for ax, (draw, data, _) in zip(self.ax_, panels, strict=True):
            draw(ax, data)
        return self


def _spaced(X: Any, n: int) -> Any:
    """At most n rows; slices, so that frames and lists can be given too."""
    return X[:: max(1, len(X) // n)][:n]


def _translations(
    estimator: Any, others: dict[str, Any], domain: str, X: Any
) -> dict[str, Any]:
    """Title -> rows: of a domain, of the other one, and what comes back."""
    there, back = ("transform", "inverse_transform")[:: 1 if domain == "A" else -1]
    title = domain + ARROW + ("B" if domain == "A" else "A")
    moved = getattr(estimator, there)(X)
    rows = {domain: X, title: moved}
    for name, other in others.items():
        rows[f"{name}: {title}"] = getattr(other, there)(X)
    rows[title + ARROW + domain] = getattr(estimator, back)(moved)
    return rows


def _pictures(X: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Images of shape (n_images, height, width[, channels]) in [0, 1]."""
    values = np.asarray(X)
    values = values / 255 if values.dtype == np.uint8 else (values + 1) / 2
    images = np.clip(values, 0, 1).reshape(len(values), *shape)
    if len(shape) == 2:
        return images
    if shape[0] <= MAX_CHANNELS < shape[2]:
        images = np.moveaxis(images, 1, -1)
    n_channels = images.shape[-1]
    if n_channels not in (1, 3, 4):
        msg = f"images of {n_channels} channels cannot be drawn; expected 1, 3 or 4."
        raise ValueError(msg)
    return images[..., 0] if n_channels == 1 else images


def _project(rows: dict[str, Any], domains: list[str]) -> dict[str, np.ndarray]:
    """Points in the plane of the first two principal components of the domains."""
    true = np.concatenate([np.asarray(rows[name]) for name in domains])
    pca = PCA(min(2, *true.shape)).fit(true)
    points = {}
    for title, X in rows.items():
        if title.count(ARROW) < 2:
            scores = pca.transform(np.asarray(X))
            # One feature makes a line.
            points[title] = np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))
    return points


def _montage(images: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
    """All images as one, on white, and title -> middle of the row."""
    first = next(iter(images.values()))
    height, width, *channels = first.shape[1:]
    gap = max(1, width // 16)
    tops: dict[str, int] = {}
    top = 0
    for title in images:
        top += 0 if ARROW in title or not tops else 4 * gap
        tops[title] = top
        top += height + gap
    across = width + gap
    n_columns = max(map(len, images.values()))
    picture = np.ones((top - gap, n_columns * across - gap, *channels))
    for title, row in images.items():
        for i, image in enumerate(row):
            left = i * across
            picture[tops[title] : tops[title] + height, left : left + width] = image
    return picture, {title: top + (height - 1) / 2 for title, top in tops.items()}


def _draw_images(ax: Any, montage: tuple[np.ndarray, dict[str, float]]) -> None:
    picture, centres = montage
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set_yticks(list(centres.values()), list(centres))
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _draw_points(ax: Any, points: dict[str, np.ndarray]) -> None:
    """Pale dots, and over them crosses for what is translated."""
    true, made = {"marker": "o", "alpha": 0.4}, {"marker": "x", "zorder": 2}
    for title, values in points.items():
        look: dict[str, Any] = made if ARROW in title else true
        ax.scatter(*values.T, s=16, linewidths=0.8, label=title, **look)
    ax.set(
        xlabel="first principal component",
        ylabel="second principal component",
        title="examples",
    )
    _add_legend(ax)


def _draw_losses(ax: Any, history: dict[str, np.ndarray]) -> None:
    """A colour for each kind; what belongs to B, or leads to A, is dashed."""
    names = [name.rpartition("_")[::2] for name in history]
    kinds = dict.fromkeys(kind for kind, _ in names)
    colors = {kind: f"C{i}" for i, kind in enumerate(kinds)}
    for (kind, side), values in zip(names, history.values(), strict=True):
        ax.plot(
            np.arange(1, len(values) + 1),
            values,
            color=colors[kind],
            linestyle="--" if side in ("b", "ba") else "-",
            marker="." if len(values) < 50 else "",
            label=f"{kind} {SIDES.get(side, side)}".strip(),
        )
    lowest = min(map(np.min, history.values()))
    ax.set(title="losses", xlabel="epoch", yscale="log" if lowest > 0 else "symlog")
    ax.xaxis.get_major_locator().set_params(integer=True)
    _add_legend(ax)


def _add_legend(ax: Any) -> None:
    """Beside the lines, not over them."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)
