"""Settings that are refused, and losses and memory that run away."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import nn

from sklcomp.compression.data_free._sources import ReplayBank
from tests.helpers.data_free import distiller, early, student
from tests.helpers.nets import Residual, SlimDense, regressor


class Exploding(Residual):
    """Answers are infinite after a number of training steps."""

    n_left = 7

    def forward(self, x):
        if self.training:
            self.n_left -= 1
        answer = super().forward(x)
        return answer if self.n_left > 0 else answer / 0


def test_infinite_losses(digits, trained):
    with pytest.warns(ConvergenceWarning, match="the kd loss became nan in iteration"):
        fitted = distiller(trained, student=student(Exploding), n_iterations=20).fit()
    assert 1 < fitted.n_iter_ < 20
    assert all(p.isfinite().all() for p in fitted.module_.parameters())
    with pytest.raises(
        ValueError, match=r"in iteration 1; choose a smaller student_lr"
    ):
        distiller(trained, student_lr=1e30, averaging=0.0, student_steps=9).fit()


@early
def test_ruin_in_the_midst_of_steps_keeps_the_last_good_weights(trained):
    settings = {
        "recipe": "paper-cifar10",
        "student_steps": 5,
        "generator_batch_size": 40,
        "batch_size": 40,
        "generator_width": 4,
    }
    with pytest.warns(
        ConvergenceWarning, match="in iteration 2; the last good weights"
    ):
        fitted = distiller(
            trained, student=student(Exploding), n_iterations=9, **settings
        ).fit()
    assert fitted.n_iter_ == 1
    assert all(p.isfinite().all() for p in fitted.module_.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": None}, "input_shape=None: without X"),
        ({"input_shape": (8, 8)}, r"input_shape=\(8, 8\): give \(channels"),
        ({"input_shape": (1, 7, 8)}, "teacher Residual cannot take X of shape"),
        ({"input_range": (1, 0)}, r"input_range=\(1, 0\): give two values, the sm"),
        ({"input_mean": [0.1, 0.2]}, "input_mean has 2 values: give one, or 1"),
        ({"input_std": [0.0]}, "input_std=0.0: all must be positive; add a little"),
        ({"feature_layer": "stm"}, "feature_layer='stm' is no layer of Residual"),
        ({"student": student(module__n_classes=9)}, "student has 9 outputs, the"),
        ({"temperature": 0.0}, "'temperature' parameter"),
        ({"student": regressor()}, "is no classifier"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_bad_settings(trained, settings, message):
    with pytest.raises(ValueError, match=message):
        distiller(trained, **settings).fit()


def test_input_shape_must_be_that_of_the_rows(digits, trained):
    with pytest.raises(ValueError, match="8 x 8 = 64 values, but X has 60 features"):
        distiller(trained).fit(digits[0][:, :60])


def test_absent_gpu_is_named(trained):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="device='cuda' of DataFreeDistiller"):
        distiller(trained, device="cuda").fit()


def test_memory_that_runs_out(trained, monkeypatch):
    def exhausted(*args):
        raise MemoryError

    monkeypatch.setattr(ReplayBank, "add", exhausted)
    model = distiller(trained)
    with pytest.raises(MemoryError, match="choose a smaller batch_size"):
        model.fit()
    with pytest.raises(NotFittedError):
        model.predict(np.zeros((2, 64)))


def test_warnings(plain, trained):
    flat = {"input_shape": (64,), "student": student(SlimDense)}
    with pytest.warns(UserWarning, match="bn_weight=2.0 .* the Dense has none"):
        distiller(plain, bn_weight=2.0, **flat).fit()
    with pytest.warns(UserWarning, match="cannot have input_mean=0.0 and input_std=1"):
        distiller(trained, input_mean=0.0, input_std=1.0, head="range").fit()
    # One class is all that this generator makes.
    own = nn.Sequential(nn.Linear(64, 64), nn.Sigmoid())
    nn.init.zeros_(own[0].weight)
    with pytest.warns(UserWarning, match="hardly any of the classes"):
        distiller(
            plain,
            generator=own,
            conditional=False,
            n_iterations=12,
            generator_lr=1e-9,
            **flat,
        ).fit()
