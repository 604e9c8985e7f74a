import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import scale
from skorch import NeuralNetClassifier

from sklcomp.compression import EvolutionaryPruner
from sklcomp.inspection import CompressionDisplay, EvolutionDisplay


@pytest.fixture(scope="module")
def pruner():
    X, y = load_iris(return_X_y=True)
    net = NeuralNetClassifier(
        torch.nn.Sequential(
            torch.nn.Linear(4, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)
        ),
        criterion=torch.nn.CrossEntropyLoss,
        max_epochs=2,
        verbose=0,
    )
    return EvolutionaryPruner(net, max_params=0.5, random_state=0).fit(scale(X), y)


def test_search_is_drawn_as_it_was(pruner):
    display = EvolutionDisplay.from_estimator(pruner)
    lines = display.ax_[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), pruner.history_["best"])
    np.testing.assert_array_equal(lines[1].get_ydata(), pruner.history_["mean"])
    front, winner = display.ax_[1].lines
    np.testing.assert_array_equal(
        front.get_xdata(), pruner.pareto_front_["n_parameters"]
    )
    assert winner.get_xdata()[0] == pruner.report_.after["parameters"]
    bars = [bar.get_width() for bar in display.ax_[2].patches]
    kept = [len(channels) for channels in pruner.kept_channels_.values()]
    assert bars == [12, 3, *kept]
    labels = [text.get_text() for text in display.ax_[2].get_yticklabels()]
    assert labels == ["0", "2"]


SEARCH = {
    "history": {"best": np.array([-2.0, -1.0]), "mean": np.array([-4.0, -2.0])},
    "widths": {"features.conv1": (3, 8), "features.conv2": (2, 8)},
}


def test_points_of_unknown_fitness_are_not_in_the_front():
    sizes, fitness = np.arange(10, 60, 10), np.array([np.nan, -3, np.inf, -np.inf, -1])
    display = EvolutionDisplay(
        front={"n_parameters": sizes, "fitness": fitness}, best=(50, -1.0), **SEARCH
    ).plot()
    np.testing.assert_array_equal(display.ax_[1].lines[0].get_xdata(), [20, 50])
    np.testing.assert_array_equal(display.ax_[1].lines[0].get_ydata(), [-3, -1])


@pytest.mark.parametrize("as_part", [False, True])
def test_search_is_legible_in_any_figure(as_part):
    figure = plt.figure(figsize=(7, 4))
    part = figure.subfigures(1, 1) if as_part else figure
    front = {"n_parameters": np.array([10]), "fitness": np.array([-1.0])}
    display = EvolutionDisplay(front=front, best=(10, -1.0), **SEARCH)
    axes = display.plot(figure=part).ax_
    figure.draw_without_rendering()
    for left, right in zip(axes, axes[1:], strict=False):
        assert left.get_window_extent().x1 <= right.get_tightbbox().x0


def test_report_is_drawn_as_shares(pruner):
    figure, ax = plt.subplots()
    display = CompressionDisplay.from_estimator(pruner, ax=ax)
    assert display.figure_ is figure
    shares = [bar.get_width() for bar in ax.patches]
    rows = ("parameters", "MACs", "bytes", "latency / ms")
    assert shares == [pruner.report_.ratio(row) for row in rows]
    assert f"{pruner.report_.after['score']:.3f} after" in ax.get_title()


@pytest.mark.parametrize("display", [CompressionDisplay, EvolutionDisplay])
def test_not_fitted(display):
    net = NeuralNetClassifier(torch.nn.Linear(2, 2))
    with pytest.raises(NotFittedError):
        display.from_estimator(EvolutionaryPruner(net))
