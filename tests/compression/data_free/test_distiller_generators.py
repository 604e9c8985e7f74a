"""Where the examples come from: generators, noise, ranges."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.compression import DataFreeRecipe
from sklcomp.compression.data_free._sources import Inputs, NoiseSource
from sklcomp.training._lesson import Teacher
from tests.helpers.data_free import distiller, student
from tests.helpers.nets import SlimDense


def test_examples_are_in_range_and_named_by_the_teacher(trained):
    fitted = distiller(trained, head="range").fit()
    X, y = fitted.sample(70, random_state=3)
    assert X.shape == (70, 1, 8, 8)
    assert X.dtype == np.float32
    assert X.min() >= 0
    assert X.max() <= 1
    np.testing.assert_array_equal(y, trained.predict(X))
    again, _ = fitted.sample(70, random_state=3)
    np.testing.assert_array_equal(X, again)
    noise, _ = distiller(trained, synthesis="structured_noise").fit().sample(4)
    assert noise.shape == (4, 1, 8, 8)


def test_impossible_moments_choose_the_head_that_keeps_the_range(trained):
    with pytest.warns(UserWarning, match="cannot have input_mean=0.0"):
        fitted = distiller(trained, input_mean=0.0, input_std=1.0).fit()
    assert fitted.recipe_.head == "range"


def test_noise_is_kept_of_all_classes_alike(plain):
    rng = torch.Generator().manual_seed(0)
    inputs = Inputs((64,), (0.0, 1.0), 0.3, 0.4)
    teacher = Teacher(plain, None, True, inputs.noise(64, rng), "cpu")
    recipe = DataFreeRecipe(noise_kinds=("blobs",), replay_size=500, batch_size=20)
    source = NoiseSource(teacher, inputs, 10, recipe, rng)
    found = torch.bincount(teacher(source.images)[1].argmax(1), minlength=10)
    answers = teacher(inputs.noise(20_000, rng))[1].argmax(1)
    counts = torch.bincount(answers, minlength=10)
    assert set(found.tolist()) <= {0, 50}
    assert (found[counts > 1000] == 50).all()
    assert len(source.step(plain, teacher.task)[0]) == 20


def test_own_generators(plain):
    flat = {"input_shape": (64,), "student": student(SlimDense)}
    own = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    own[0].requires_grad_(False)
    fitted = distiller(plain, generator=own, **flat).fit()
    assert not fitted.recipe_.conditional
    assert fitted.recipe_.entropy_weight == 5
    torch.testing.assert_close(fitted.generator_[0].weight, own[0].weight)
    before = copy.deepcopy(fitted.generator_.state_dict())
    fitted.sample(9)
    after = fitted.generator_.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(ValueError, match=r"examples of shape \(60,\); input_shape="):
        distiller(plain, generator=nn.Linear(64, 60), **flat).fit()


def test_a_generator_without_losses_stays_as_it_began(plain):
    flat = {"input_shape": (64,), "student": student(SlimDense)}
    own = nn.Sequential(nn.Linear(64, 64), nn.Tanh())
    fitted = distiller(
        plain,
        generator=own,
        onehot_weight=0.0,
        entropy_weight=0.0,
        adversarial_weight=0.0,
        **flat,
    ).fit()
    torch.testing.assert_close(fitted.generator_.state_dict(), own.state_dict())
