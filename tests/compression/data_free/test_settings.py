"""What a training without data is told, and what it finds out itself."""

import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklcomp.compression import DataFreeRecipe
from sklcomp.compression.data_free._loop import OPTIMIZERS, SCHEDULES
from sklcomp.compression.data_free._settings import (
    check_gradients,
    check_inputs,
    choose_classes,
    count_norms,
    find_layer,
    has_failed,
    settle_recipe,
    warn_of_collapse,
    without_features,
)
from sklcomp.compression.data_free._sources import Inputs
from sklcomp.nn.synthesis._noise import KINDS
from tests.helpers.nets import classifier

PARAMS = {"generator": None, "synthesis": "generator", "n_iterations": None}
BOUNDED = Inputs((4,), (0.0, 1.0), 0.5, 0.3)
NAMES = sorted(DataFreeRecipe._published)
NOISE = {"synthesis": "structured_noise"}


def settle(name="fast", inputs=BOUNDED, n_classes=3, n_norms=0, params=(), **changes):
    recipe = DataFreeRecipe.named(name).replace(**changes)
    before = recipe.replace()
    found = settle_recipe(
        recipe, PARAMS | dict(params), nn.Linear(4, 3), inputs, n_classes, n_norms
    )
    assert recipe == before
    return found


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_recipe(name):
    found = settle(name, n_norms=1, n_classes=2).get_params()
    wanted = DataFreeRecipe.named(name).get_params()
    assert {k for k in wanted if found[k] != wanted[k]} == {
        k for k, value in wanted.items() if value == "auto"
    }
    mine = {"entropy_weight": 0.25, "batch_size": 7, "averaging": 0.0}
    found = settle(name, n_norms=1, n_classes=2, **mine).get_params()
    assert found.items() >= mine.items()
    more = settle(name, n_norms=1, n_classes=2, params={"n_iterations": 9})
    assert more.n_iterations == 9


@pytest.mark.parametrize("name", NAMES)
def test_values_of_published_recipes_are_known(name):
    recipe = settle(name, n_norms=1, n_classes=2)
    recipe.check()
    assert recipe.student_optimizer in OPTIMIZERS
    assert recipe.schedule in SCHEDULES
    assert recipe.noise_kinds
    assert set(recipe.noise_kinds) <= KINDS.keys()
    # A generator that is not told a class needs another reason to make all of them.
    assert recipe.conditional or recipe.entropy_weight > 0


def test_head_is_that_of_what_is_known_of_the_values():
    assert settle(inputs=Inputs((4,), None, 0.5, 0.3)).head == "batchnorm"
    assert settle().head == "range"
    assert settle("paper-mnist").head == "batchnorm"
    impossible = Inputs((4,), (0.0, 1.0), 0.5, 0.9)
    with pytest.warns(UserWarning, match="have input_mean=0.5 and input_std=0.9"):
        found = settle("paper-mnist", impossible)
    assert found.head == "range"


def test_without_classes_to_make_all_are_asked_for_otherwise():
    assert settle().entropy_weight == 0
    for found in (
        settle(conditional=False),
        settle(params={"generator": nn.Linear(2, 4)}),
    ):
        assert found.entropy_weight > 0
        assert not found.conditional
    assert settle(conditional=False, entropy_weight=0.1).entropy_weight == 0.1


def test_structured_noise_is_all_of_every_batch():
    assert settle(params=NOISE).noise_share == 1


def test_norms_that_are_not_there_cannot_be_compared_with():
    with pytest.warns(UserWarning, match="bn_weight=2.0 .* Linear has none that runs"):
        assert settle(bn_weight=2.0).bn_weight == 0
    assert settle(bn_weight=2.0, n_norms=1).bn_weight == 2


def test_batches_must_hold_all_classes():
    message = "generator_batch_size=39 is too small to hold all of 10 classes.* 40 or m"
    with pytest.warns(UserWarning, match=message):
        settle("fast-bn", n_norms=1, n_classes=10, generator_batch_size=39)
    settle("fast-bn", n_norms=1, n_classes=10, generator_batch_size=40)
    settle(n_classes=10, generator_batch_size=39)  # told which class to make
    settle("fast-bn", params=NOISE, n_norms=1, n_classes=10, generator_batch_size=39)


KNOWN = {"input_shape": (2, 3, 3), "input_range": None, "input_mean": 0.0,
         "input_std": 1.0}  # fmt: skip


def test_inputs_are_plain_numbers():
    found = check_inputs(
        {
            "input_shape": np.array([2, 3, 3]),
            "input_range": (np.float32(-1), [1, 2]),
            "input_mean": np.array([0.5]),
            "input_std": [1, np.float64(2)],
        },
        None,
    )
    assert found == Inputs((2, 3, 3), ([-1.0, -1.0], [1.0, 2.0]), 0.5, [1.0, 2.0])
    assert all(type(side) is int for side in found.shape)


def test_shape_is_that_of_the_rows_if_it_is_not_told():
    X = np.zeros((5, 2, 3, 3))
    assert check_inputs(KNOWN | {"input_shape": None}, X).shape == (2, 3, 3)
    flat = X.reshape(5, 18)
    assert check_inputs(KNOWN | {"input_shape": None}, flat).shape == (18,)
    assert check_inputs(KNOWN, flat).shape == (2, 3, 3)


@pytest.mark.parametrize(("change", "X", "message"), [
    ({"input_shape": None}, None, "input_shape=None: without X, give the shape of one"),
    ({"input_shape": (3, 3)}, None, r"input_shape=\(3, 3\): give \(channels, height"),
    ({"input_shape": (2, 0, 3)}, None, r"input_shape=\(2, 0, 3\) must consist of pos"),
    ({"input_shape": (2, 3.0, 3)}, None, r"\(2, 3.0, 3\) .*, such as \(3, 32, 32\)"),
    ({}, np.zeros((5, 17)), r"\(2, 3, 3\) has 2 x 3 x 3 = 18 values, but X has 17"),
    ({"input_range": (1, 1)}, None, r"input_range=\(1, 1\): give two values, the sma"),
    ({"input_range": (0, [1, -1])}, None, r"input_range=\(0, \[1, -1\]\): give two"),
    ({"input_range": (0, 1, 2)}, None, "give two values"),
    ({"input_mean": [1, 2, 3]}, None, "input_mean has 3 values: give one, or 2"),
    ({"input_mean": math.inf}, None, "input_mean holds inf: all must be finite"),
    ({"input_std": [1, 0]}, None, r"input_std=\[1.0, 0.0\]: all must be positive; add"),
])  # fmt: skip
def test_inputs_that_cannot_be_are_named(change, X, message):
    with pytest.raises(ValueError, match=message):
        check_inputs(KNOWN | change, X)


def test_classes_are_those_that_are_named_or_the_teachers_own():
    names = np.array(["a", "b", "c"])
    np.testing.assert_array_equal(choose_classes(names, None, None, 3), names)
    with pytest.raises(ValueError, match="classes has 3 entries, the teacher 4"):
        choose_classes(names, None, None, 4)
    X = np.zeros((6, 4), np.float32)
    net = classifier(nn.Linear(4, 3), max_epochs=1).fit(X, np.arange(6) % 3)
    np.testing.assert_array_equal(choose_classes(None, net, None, 3), [0, 1, 2])


class Spare(nn.Module):
    """A norm that maybe runs."""

    def __init__(self, runs):
        super().__init__()
        self.norm, self.output, self.runs = nn.BatchNorm1d(4), nn.Linear(4, 3), runs

    def forward(self, x):
        return self.output(self.norm(x) if self.runs else x)


@pytest.mark.parametrize(("module", "n"), [
    (Spare(True), 1), (Spare(False), 0), (nn.Linear(4, 3), 0),
    (nn.Sequential(nn.BatchNorm1d(4), Spare(True)), 2),
])  # fmt: skip
def test_norms_are_counted_where_they_run(module, n):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert count_norms(module.train(), torch.randn(5, 4)) == n
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


class Patches(nn.Module):
    """The Linear that runs last takes two rows for each example."""

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(2, 3)

    def forward(self, x):
        return self.output(x.reshape(-1, 2)).reshape(len(x), -1, 3).mean(1)


def test_layer_of_the_features_is_found_or_none():
    X = torch.randn(5, 4)
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    assert find_layer(plain, "penultimate", X, True) == "penultimate"
    assert find_layer(plain, "1", X, True) == "1"
    with pytest.raises(ValueError, match="feature_layer='9' is no layer of Sequential"):
        find_layer(plain, "9", X, False)
    assert find_layer(nn.Softmax(-1), "penultimate", X, True) is None
    assert find_layer(Patches(), "penultimate", X, False) is None
    with pytest.raises(ValueError, match="name a layer that keeps the examples"):
        find_layer(Patches(), "penultimate", X, True)


def test_losses_of_features_that_are_not_there_are_left_out():
    recipe = DataFreeRecipe(activation_weight=0.1, feature_weight=0.0, bn_weight=1.0)
    names = ("activation_weight", "feature_weight")
    with pytest.warns(UserWarning, match="the teacher shows no features.*: activation"):
        found = without_features(recipe, "teacher", names)
    assert found == recipe.replace(activation_weight=0.0)
    # Nothing is lost, so nothing is said.
    assert without_features(found, "teacher", names) == found


class Rounded(nn.Module):
    def forward(self, x):
        return x.detach() + 1


def test_teachers_without_gradients_are_named():
    X = torch.randn(5, 4)
    with pytest.raises(ValueError, match="no gradients come through the teacher Ro"):
        check_gradients(Rounded(), X)
    module = nn.Linear(4, 3).requires_grad_(False)
    with torch.no_grad():
        check_gradients(module, X)
    assert not X.requires_grad
    assert module.weight.grad is None


@pytest.mark.parametrize(("n_iter", "rare", "warns"), [
    (20, 0, True), (20, 3, True), (20, 30, False), (9, 0, False),
])  # fmt: skip
def test_classes_that_are_hardly_made_are_named(n_iter, rare, warns, recwarn):
    # A fifth of an equal share, in the last quarter, is hardly any.
    counts = np.tile([60 - rare, 60, rare], (n_iter, 1))
    counts[: n_iter // 2] = 40
    warn_of_collapse(counts, np.array(["a", "b", "c"]))
    assert len(recwarn) == warns
    if warns:
        assert "hardly any of the classes c in" in str(recwarn[0].message)


def test_a_training_fails_with_its_first_loss_that_is_not_finite():
    assert not has_failed({"kd": 1.0, "onehot": 0.0}, 1)
    with pytest.warns(ConvergenceWarning, match="kd loss became inf in iteration 7"):
        assert has_failed({"bn": 1.0, "kd": math.inf, "onehot": math.nan}, 7)
    with pytest.raises(ValueError, match="bn loss became nan in iteration 1; choose"):
        has_failed({"bn": math.nan}, 1)
