import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from sklcomp.datasets import make_unpaired_digits
from sklcomp.inspection import TranslationDisplay
from sklcomp.translation import CycleGANTranslator

HISTORY = {
    "identity_a": np.array([3.0, 2.0]), "identity_b": np.array([2.5, 2.0]),
    "generator_ab": np.array([0.5, 0.3]), "generator_ba": np.array([0.6, 0.2]),
    "discriminator_a": np.array([0.2, 0.1]), "discriminator_b": np.array([0.3, 0.4]),
    "cycle_a": np.array([9.0, 5.0]), "cycle_b": np.array([8.0, 4.0]),
}  # fmt: skip


class Stub(BaseEstimator):
    """A translator of known results: factors there and back."""

    def __init__(self, image_shape=(4, 5), there=0.5, back=-0.25, history=None):
        self.image_shape = image_shape
        self.there = there
        self.back = back
        self.history = history

    def fit(self, X=None, y=None):
        self.image_shape_ = self.image_shape
        self.history_ = self.history or {}
        return self

    def transform(self, X):
        return np.asarray(X) * self.there

    def inverse_transform(self, X):
        return np.asarray(X) * self.back


class Flip(Stub):
    """Keeps the dtype: the first pixel becomes the last."""

    def transform(self, X):
        return np.flip(X, axis=tuple(range(1, X.ndim)))

    inverse_transform = transform


class Pruner(BaseEstimator):
    """Holds a translator, and has a history of another kind."""

    def fit(self, X=None, y=None):
        self.estimator_ = Stub(history=HISTORY).fit()
        self.history_ = {"best": np.array([7.0])}
        return self

    def transform(self, X):
        return self.estimator_.transform(X)

    def inverse_transform(self, X):
        return self.estimator_.inverse_transform(X)


@pytest.fixture
def X(rng):
    return rng.uniform(-1, 1, (3, 20))


def titles(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def drawn(ax, title, shape, n_images):
    """The images of a row, cut out of what is drawn, and no less between them."""
    picture = ax.images[0].get_array()
    height, width = shape[:2]
    middle = ax.get_yticks()[titles(ax).index(title)]
    row = picture[round(middle - (height - 1) / 2) :][:height]
    step = width if n_images == 1 else (picture.shape[1] - width) // (n_images - 1)
    assert step > width or n_images == 1
    return np.stack([row[:, i * step :][:, :width] for i in range(n_images)])


def test_rows_stand_in_order_and_show_what_the_estimator_makes(X):
    estimator, other = Stub().fit(), Stub(there=0.1, back=0.2).fit()
    display = TranslationDisplay.from_estimator(
        estimator, X, X[:2] / 2, others={"before": other}
    )
    expected = {
        "A": X,
        "A → B": X / 2,
        "before: A → B": X / 10,
        "A → B → A": X / -8,
        "B": X[:2] / 2,
        "B → A": X[:2] / -8,
        "before: B → A": X[:2] / 10,
        "B → A → B": X[:2] / -16,
    }
    (ax,) = display.ax_
    assert titles(ax) == list(display.images) == list(expected)
    for title, rows in expected.items():
        images = (rows.reshape(-1, 4, 5) + 1) / 2
        np.testing.assert_allclose(display.images[title], images)
        shown = drawn(ax, title, (4, 5), 3)
        np.testing.assert_allclose(shown[: len(rows)], images)
        np.testing.assert_array_equal(shown[len(rows) :], 1)
    assert ax.images[0].get_clim() == (0, 1)
    steps = np.diff(ax.get_yticks())
    assert (steps[[0, 1, 2, 4, 5, 6]] == steps[0]).all()
    assert steps[3] > steps[0]


@pytest.mark.parametrize("domain", ["A", "B"])
def test_one_domain_is_enough(X, domain):
    data = {f"X_{domain.lower()}": X}
    display = TranslationDisplay.from_estimator(Stub().fit(), **data)
    way = "A → B → A" if domain == "A" else "B → A → B"
    assert titles(display.ax_[0]) == [way[:1], way[:5], way]


def test_images_of_a_translator_are_drawn():
    digits = make_unpaired_digits(12, image_size=8, random_state=0)
    translator = CycleGANTranslator(
        digits.image_shape,
        n_filters=2,
        n_blocks=0,
        batch_size=6,
        max_epochs=2,
        random_state=0,
    ).fit(digits.data, digits.target)
    display = TranslationDisplay.from_estimator(
        translator, digits.data_a, digits.data_b, n_images=4
    )
    pictures, losses = display.ax_
    a, b = digits.data_a[::3], digits.data_b[::3]
    for title, rows in {
        "A → B": translator.transform(a),
        "A → B → A": translator.cycle(a),
        "B → A": translator.inverse_transform(b),
    }.items():
        expected = (rows.reshape(-1, 8, 8, 3) + 1) / 2
        shown = drawn(pictures, title, (8, 8), 4)
        np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-6)
    assert len(losses.lines) == len(translator.history_)


def test_bytes_and_floats_give_the_same_pictures(rng):
    X = rng.integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    estimator = Flip(image_shape=(4, 6, 3)).fit()
    of_bytes = TranslationDisplay.from_estimator(estimator, X, X[::-1])
    floats = X / 127.5 - 1
    of_floats = TranslationDisplay.from_estimator(estimator, floats, floats[::-1])
    np.testing.assert_allclose(of_bytes.images["A"], X / 255)
    assert of_bytes.images.keys() == of_floats.images.keys()
    for title, images in of_bytes.images.items():
        np.testing.assert_allclose(of_floats.images[title], images, atol=1e-12)


@pytest.mark.parametrize("n_channels", [3, 4])
def test_place_of_the_channels_and_flat_rows_do_not_matter(rng, n_channels):
    last = rng.uniform(-1, 1, (2, 5, 6, n_channels))
    first = np.moveaxis(last, -1, 1)
    for X in (last, first):
        estimator = Stub(X.shape[1:]).fit()
        for given in (X, X.reshape(2, -1)):
            images = TranslationDisplay.from_estimator(estimator, given).images
            np.testing.assert_allclose(images["A"], (last + 1) / 2)
            np.testing.assert_allclose(images["A → B"], (last / 2 + 1) / 2)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (1, 5, 6)])
def test_one_channel_is_grey(rng, shape):
    X = rng.uniform(-1, 1, (1, *shape))
    display = TranslationDisplay.from_estimator(Stub(shape).fit(), X)
    shown = drawn(display.ax_[0], "A", (5, 6), 1)
    np.testing.assert_allclose(shown, (X.reshape(1, 5, 6) + 1) / 2)
    assert display.ax_[0].images[0].get_cmap().name == "gray"


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, pd.DataFrame])
def test_images_are_evenly_spaced_rows(form):
    X = np.repeat(np.linspace(-1, 1, 11)[:, None], 20, axis=1)
    display = TranslationDisplay.from_estimator(Stub().fit(), form(X), n_images=3)
    np.testing.assert_allclose(display.images["A"][:, 0, 0], [0, 0.3, 0.6])
    display = TranslationDisplay.from_estimator(Stub().fit(), form(X), n_images=30)
    np.testing.assert_allclose(display.images["A"][:, 0, 0], np.linspace(0, 1, 11))


def test_what_is_out_of_range_is_cut(X):
    display = TranslationDisplay.from_estimator(Stub(there=100).fit(), X)
    expected = (np.clip(100 * X, -1, 1) + 1) / 2
    np.testing.assert_allclose(display.images["A → B"].reshape(3, 20), expected)


def test_losses_have_a_colour_for_each_kind_and_dashes_for_the_second_domain():
    (ax,) = TranslationDisplay(history=HISTORY).plot().ax_
    lines = {line.get_label(): line for line in ax.lines}
    names = {
        "identity A": "identity_a",
        "identity B": "identity_b",
        "generator A → B": "generator_ab",
        "generator B → A": "generator_ba",
        "discriminator A": "discriminator_a",
        "discriminator B": "discriminator_b",
        "cycle A": "cycle_a",
        "cycle B": "cycle_b",
    }
    assert list(lines) == list(names)
    for label, name in names.items():
        np.testing.assert_array_equal(lines[label].get_ydata(), HISTORY[name])
        np.testing.assert_array_equal(lines[label].get_xdata(), [1, 2])
        dashed = name.endswith(("_b", "_ba"))
        assert lines[label].get_linestyle() == ("--" if dashed else "-")
    colors = [line.get_color() for line in lines.values()]
    assert colors[::2] == colors[1::2]
    assert len(set(colors)) == 4
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().texts] == list(names)


def test_losses_of_zero_and_other_names_are_drawn():
    history = {"cycle_a": np.array([1.0, 0.0]), "total": np.array([2.0, 1.0])}
    (ax,) = TranslationDisplay(history=history).plot().ax_
    assert ax.get_yscale() == "symlog"
    assert [line.get_label() for line in ax.lines] == ["cycle A", "total"]


def test_losses_are_left_out_if_there_are_none_or_unwanted(X):
    assert len(TranslationDisplay.from_estimator(Stub().fit(), X).ax_) == 1
    learned = Stub(history=HISTORY).fit()
    assert len(TranslationDisplay.from_estimator(learned, X).ax_) == 2
    display = TranslationDisplay.from_estimator(learned, X, show_losses=False)
    assert len(display.ax_) == 1


def test_layout_and_losses_of_a_pruner_are_those_of_its_translator(X):
    display = TranslationDisplay.from_estimator(Pruner().fit(), X)
    assert display.images["A → B"].shape == (3, 4, 5)
    assert display.history is HISTORY


def test_draws_into_a_figure_or_a_part_of_one(X):
    figure = plt.figure(layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    for given in (upper, lower):
        display = TranslationDisplay.from_estimator(Stub().fit(), X, figure=given)
        assert display.figure_ is given
        assert given.axes == list(display.ax_)
    display.plot(figure=figure)
    assert display.figure_ is figure
    assert plt.get_fignums() == [figure.number]


def test_titles_lie_beside_the_pictures_and_not_over_each_other(X):
    others = {f"translator {i}": Stub().fit() for i in range(3)}
    figure = TranslationDisplay.from_estimator(
        Stub(history=HISTORY).fit(), X, X, others=others
    ).figure_
    figure.draw_without_rendering()
    pictures, losses = figure.axes
    boxes = [text.get_window_extent() for text in pictures.get_yticklabels()]
    edge = pictures.get_window_extent().x0
    assert all(0 <= box.x0 < box.x1 <= edge for box in boxes)
    assert all(low.y1 <= high.y0 for high, low in zip(boxes, boxes[1:], strict=False))
    legend = losses.get_legend().get_window_extent()
    assert losses.get_window_extent().x1 <= legend.x0
    assert legend.x1 <= figure.bbox.x1


def test_vectors_are_drawn_in_the_plane_of_both_domains(rng):
    a, b = rng.normal(size=(9, 4)), rng.normal(size=(7, 4)) + 3
    estimator, other = Stub((4,)).fit(), Stub((4,), there=2, back=3).fit()
    display = TranslationDisplay.from_estimator(
        estimator, pd.DataFrame(a), b, others={"before": other}
    )
    (ax,) = display.ax_
    plane = PCA(2).fit(np.vstack([a, b]))
    expected = {
        "A": a,
        "A → B": a / 2,
        "before: A → B": a * 2,
        "B": b,
        "B → A": b / -4,
        "before: B → A": b * 3,
    }
    clouds = {cloud.get_label(): cloud.get_offsets() for cloud in ax.collections}
    assert list(clouds) == list(expected)
    assert [text.get_text() for text in ax.get_legend().texts] == list(expected)
    for title, rows in expected.items():
        np.testing.assert_allclose(clouds[title], plane.transform(rows), atol=1e-10)


def test_vectors_of_one_domain_and_one_feature_lie_on_a_line(rng):
    b = rng.normal(size=(6, 1))
    display = TranslationDisplay.from_estimator(Stub((1,)).fit(), X_b=b)
    assert list(display.points) == ["B", "B → A"]
    centred = display.points["B"]
    np.testing.assert_array_equal(centred[:, 1], 0)
    np.testing.assert_allclose(np.abs(centred[:, 0]), np.abs(b - b.mean()).ravel())


def test_nothing_to_draw():
    for shape in ((4, 5), (4,)):
        with pytest.raises(ValueError, match="give X_a or X_b"):
            TranslationDisplay.from_estimator(Stub(shape).fit())


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="n_images == 0, must be >= 1"):
        TranslationDisplay.from_estimator(Stub((4, 5)).fit(), n_images=0)


def test_not_fitted(X):
    with pytest.raises(NotFittedError):
        TranslationDisplay.from_estimator(Stub(), X)
    with pytest.raises(NotFittedError):
        TranslationDisplay.from_estimator(CycleGANTranslator(), X)
    with pytest.raises(NotFittedError):
        TranslationDisplay.from_estimator(Stub().fit(), X, others={"before": Stub()})


@pytest.mark.parametrize("shape", [(2, 5, 6), (5, 6, 2), (6, 7, 5)])
def test_channels_that_are_no_colours(rng, shape):
    X = rng.uniform(-1, 1, (2, *shape))
    with pytest.raises(ValueError, match=r"of (2|5) channels cannot be drawn"):
        TranslationDisplay.from_estimator(Stub(shape).fit(), X)
