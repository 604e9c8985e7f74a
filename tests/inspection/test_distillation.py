import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.manifold import trustworthiness
from sklearn.preprocessing import scale
from skorch import NeuralNetClassifier

from sklcomp.compression import (
    DataFreeDistiller,
    DataFreeRecipe,
    FeatureEmbeddingDistiller,
)
from sklcomp.inspection import DistillationDisplay

X, y = load_iris(return_X_y=True)
X = scale(X)


def net(width):
    module = torch.nn.Sequential(
        torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 3)
    )
    return NeuralNetClassifier(
        module,
        criterion=torch.nn.CrossEntropyLoss,
        max_epochs=3,
        batch_size=30,
        train_split=None,
        verbose=0,
    )


@pytest.fixture(scope="module")
def distiller():
    return FeatureEmbeddingDistiller(net(3), net(8), random_state=0).fit(X, y)


def test_features_are_those_of_the_penultimate_layers(distiller):
    teacher, student = distiller.embed(X)
    for module, features in (
        (distiller.teacher_, teacher),
        (distiller.module_, student),
    ):
        with torch.no_grad():
            expected = torch.tanh(module[0](torch.from_numpy(X.astype(np.float32))))
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_losses_and_points_are_drawn_as_they_are(distiller):
    display = DistillationDisplay.from_estimator(distiller, X, y)
    lines = {line.get_label(): line.get_ydata() for line in display.ax_[0].lines}
    assert lines.keys() == distiller.history_.keys()
    for name, values in lines.items():
        np.testing.assert_array_equal(values, distiller.history_[name])
    for ax, features in zip(display.ax_[1:], distiller.embed(X), strict=True):
        points = np.asarray(ax.collections[0].get_offsets())
        np.testing.assert_allclose(points, PCA(2).fit_transform(features), atol=1e-5)
        np.testing.assert_array_equal(ax.collections[0].get_array(), y)
    trust = trustworthiness(*distiller.embed(X), n_neighbors=5)
    assert f"{trust:.3f}" in display.ax_[2].get_title()


def test_one_feature_is_a_line(distiller):
    narrow = FeatureEmbeddingDistiller(net(1), net(8), random_state=0).fit(X, y)
    display = DistillationDisplay.from_estimator(narrow, X)
    points = np.asarray(display.ax_[2].collections[0].get_offsets())
    np.testing.assert_array_equal(points[:, 1], 0)
    np.testing.assert_allclose(points[:, 0], narrow.embed(X)[1].ravel())


def test_draws_into_a_figure(distiller):
    figure = plt.figure()
    display = DistillationDisplay.from_estimator(distiller, X, figure=figure)
    assert display.figure_ is figure


@pytest.mark.parametrize("layout", [None, "tight"])
@pytest.mark.parametrize("as_part", [False, True])
def test_nothing_lies_over_the_panels(distiller, layout, as_part):
    figure = plt.figure(layout=layout)
    part = figure.subfigures(1, 1) if as_part and layout is None else figure
    axes = DistillationDisplay.from_estimator(distiller, X, y, figure=part).ax_
    figure.draw_without_rendering()
    legend = axes[-1].get_legend()
    assert [text.get_text() for text in legend.texts] == ["0", "1", "2"]
    assert axes[-1].get_window_extent().x1 <= legend.get_window_extent().x0
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    titles = [ax.title.get_window_extent() for ax in axes]
    assert all(a.x1 < b.x0 for a, b in zip(titles, titles[1:], strict=False))
    assert all(title.y1 <= figure.bbox.y1 for title in titles)


def test_another_layout_is_left_alone(distiller):
    figure = plt.figure(layout="tight")
    engine = figure.get_layout_engine()
    DistillationDisplay.from_estimator(distiller, X, figure=figure)
    assert figure.get_layout_engine() is engine


def test_steps_are_named_for_what_they_are():
    losses = {"task": np.array([2.0, 1.0])}
    for extra, step in (({}, "epoch"), ({"classes": np.eye(2)}, "iteration")):
        display = DistillationDisplay(history=losses | extra).plot()
        assert display.ax_[0].get_xlabel() == step


@pytest.mark.parametrize(
    "history", [{}, {"task": np.array([])}, {"classes": np.eye(2)}]
)  # fmt: skip
def test_a_history_without_losses_is_refused(history):
    with pytest.raises(ValueError, match="history holds no losses; give"):
        DistillationDisplay(history=history).plot()
    assert not plt.get_fignums()


def test_not_fitted():
    with pytest.raises(NotFittedError):
        DistillationDisplay.from_estimator(FeatureEmbeddingDistiller(net(3), net(8)), X)


def test_no_images_are_refused(distiller):
    with pytest.raises(ValueError, match="n_images == 0, must be >= 1"):
        DistillationDisplay.from_estimator(distiller, X, n_images=0)


def digit_net(width):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 3), torch.nn.Flatten(), torch.nn.Linear(36 * width, 3)
    )


def test_generated_images_stand_in_the_row_of_their_class():
    torch.manual_seed(0)
    distiller = DataFreeDistiller(
        NeuralNetClassifier(digit_net(2), criterion=torch.nn.CrossEntropyLoss),
        digit_net(4),
        input_shape=(1, 8, 8),
        input_range=(0, 2),
        input_mean=1.0,
        input_std=0.5,
        classes=["a", "b", "c"],
        n_iterations=2,
        recipe=DataFreeRecipe(student_steps=1),
        random_state=0,
    ).fit()
    display = DistillationDisplay.from_estimator(distiller, n_images=5)
    losses, pictures = display.ax_
    labels = {line.get_label() for line in losses.lines}
    assert labels == distiller.history_.keys() - {"classes"}
    assert [text.get_text() for text in pictures.get_yticklabels()] == ["a", "b", "c"]
    X, y = distiller.sample(600, random_state=0)
    drawn = pictures.images[0].get_array()
    for row, label in enumerate("abc"):
        for column, image in enumerate(X[y == label][:5, 0]):
            part = drawn[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
            np.testing.assert_allclose(part, image / 2, rtol=1e-6)


def test_of_vectors_only_losses_are_drawn():
    torch.manual_seed(0)
    distiller = DataFreeDistiller(
        net(3),
        net(5).initialize().module_,
        input_shape=(4,),
        n_iterations=2,
        random_state=0,
    ).fit()
    assert len(DistillationDisplay.from_estimator(distiller).ax_) == 1
