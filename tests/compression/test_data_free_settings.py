"""What a training without data is told, and what it finds out itself."""

import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklcomp.compression._data_free_settings import (
    check_gradients,
    check_inputs,
    choose_classes,
    count_norms,
    drop_features,
    find_layer,
    has_failed,
    resolve_settings,
    warn_of_collapse,
)
from sklcomp.compression._presets import SYNTHESIS
from sklcomp.compression._synthesis import Inputs
from tests.helpers.nets import classifier

GIVEN = {
    "preset": "auto", "generator": None, "conditional": None, "synthesis": "generator",
}  # fmt: skip
BOUNDED = Inputs((4,), (0.0, 1.0), 0.5, 0.3)


def resolve(inputs=BOUNDED, n_classes=3, n_norms=0, **params):
    return resolve_settings(GIVEN | params, nn.Linear(4, 3), inputs, n_classes, n_norms)


@pytest.mark.parametrize("preset", SYNTHESIS)
def test_values_are_those_of_the_preset_unless_they_are_given(preset):
    found = resolve(preset=preset, n_norms=1, n_classes=2)
    assert found == SYNTHESIS[preset] | {"preset": preset}
    mine = {"entropy_weight": 0.25, "batch_size": 7, "averaging": 0.0}
    found = resolve(preset=preset, n_norms=1, n_classes=2, **mine)
    assert found == SYNTHESIS[preset] | {"preset": preset} | mine
    # None is not given.
    assert resolve(preset=preset, n_norms=1, n_classes=2, batch_size=None) == (
        SYNTHESIS[preset] | {"preset": preset}
    )


def test_resolving_changes_no_preset():
    before = {name: dict(preset) for name, preset in SYNTHESIS.items()}
    resolve(synthesis="structured_noise", n_norms=1)["latent_dim"] = -1
    assert before == SYNTHESIS


@pytest.mark.parametrize(("n_norms", "preset"), [(0, "fast"), (2, "fast-bn")])
def test_auto_is_what_the_teacher_can_say(n_norms, preset):
    assert resolve(n_norms=n_norms)["preset"] == preset


def test_head_is_that_of_what_is_known_of_the_values():
    unbounded = Inputs((4,), None, 0.5, 0.3)
    assert resolve(unbounded)["head"] == "batchnorm"
    assert resolve(preset="paper-mnist")["head"] == "batchnorm"
    impossible = Inputs((4,), (0.0, 1.0), 0.5, 0.9)
    with pytest.warns(UserWarning, match="have input_mean=0.5 and input_std=0.9"):
        found = resolve(impossible, preset="paper-mnist")
    assert found["head"] == "range"


def test_without_classes_to_make_all_are_asked_for_otherwise():
    assert resolve()["entropy_weight"] == 0
    for params in ({"conditional": False}, {"generator": nn.Linear(2, 4)}):
        found = resolve(**params)
        assert found["entropy_weight"] > 0
        assert not found["conditional"]
    assert resolve(conditional=False, entropy_weight=0.1)["entropy_weight"] == 0.1


def test_structured_noise_is_all_of_every_batch():
    assert resolve(synthesis="structured_noise")["noise_share"] == 1


def test_norms_that_are_not_there_cannot_be_compared_with():
    with pytest.warns(UserWarning, match="bn_weight=2.0 .* Linear has none that runs"):
        assert resolve(bn_weight=2.0)["bn_weight"] == 0
    assert resolve(bn_weight=2.0, n_norms=1)["bn_weight"] == 2


def test_batches_must_hold_all_classes():
    message = "generator_batch_size=39 is too small to hold all of 10 classes.* 40 or m"
    with pytest.warns(UserWarning, match=message):
        resolve(n_norms=1, n_classes=10, generator_batch_size=39)
    resolve(n_norms=1, n_classes=10, generator_batch_size=40)
    resolve(n_classes=10, generator_batch_size=39)  # told which class to make
    resolve(n_norms=1, n_classes=10, generator_batch_size=39,
            synthesis="structured_noise")  # fmt: skip


KNOWN = {"input_shape": (2, 3, 3), "input_range": None, "input_mean": 0.0,
         "input_std": 1.0}  # fmt: skip


def test_inputs_are_plain_numbers():
    found = check_inputs(
        {"input_shape": np.array([2, 3, 3]), "input_range": (np.float32(-1), [1, 2]),
         "input_mean": np.array([0.5]), "input_std": [1, np.float64(2)]}, None,
    )  # fmt: skip
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
    ({"input_shape": (2, 0, 3)}, None, r"input_shape=\(2, 0, 3\): give"),
    ({"input_shape": (2, 3.0, 3)}, None, r"input_shape=\(2, 3.0, 3\): give"),
    ({}, np.zeros((5, 17)), r"\(2, 3, 3\) has 18 values, the rows of X have 17: give"),
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
    settings = {"activation_weight": 0.1, "feature_weight": 0.0, "bn_weight": 1.0}
    names = ("activation_weight", "feature_weight")
    with pytest.warns(UserWarning, match="the teacher shows no features.*: activation"):
        drop_features(settings, "teacher", names)
    assert settings == {"activation_weight": 0, "feature_weight": 0, "bn_weight": 1}
    drop_features(settings, "teacher", names)  # nothing is lost, so nothing is said


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
