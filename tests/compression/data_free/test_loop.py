"""A student that learns from what is made while it learns."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.compression import DataFreeRecipe
from sklcomp.compression.data_free._loop import (
    LEAST_RATE,
    N_WARM_UP,
    OPTIMIZERS,
    SCHEDULES,
    DataFreeTraining,
    copy_buffers,
)
from sklcomp.compression.data_free._sources import GeneratorSource, Inputs, NoiseSource
from sklcomp.nn import kd_loss
from sklcomp.training._lesson import Teacher
from sklcomp.training._nets import OutputKind

INPUTS = Inputs((4,), (-1.0, 2.0), 0.2, 0.5)
RECIPE = DataFreeRecipe(
    conditional=True, head="range", entropy_weight=0.0, generator_batch_size=12,
    latent_dim=3, generator_width=2, batch_size=8, replay_size=40, student_steps=2,
    n_iterations=6,
)  # fmt: skip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mlp(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def make(student=None, source="generator", seed=0, **settings):
    torch.manual_seed(seed)
    recipe, rng = RECIPE.replace(**settings), seeded(seed)
    teacher = Teacher(mlp(1), "penultimate", True, INPUTS.noise(9, seeded()), "cpu")
    kind = {"generator": GeneratorSource, "noise": NoiseSource}[source]
    made = kind(teacher, INPUTS, 3, recipe, rng)
    noise = None
    if recipe.noise_share and source == "generator":
        noise = NoiseSource(teacher, INPUTS, 3, recipe, rng)
    return DataFreeTraining(
        student or mlp(2), OutputKind(True), teacher, made, noise, recipe, rng
    )


def weights(module):
    return torch.cat(
        [value.flatten().double() for value in module.state_dict().values()]
    )


def test_schedules():
    rates = [SCHEDULES["cosine"](step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)
    assert (np.diff(rates[50:]) < 0).all()
    steps = [SCHEDULES["steps"](step, 10) for step in range(10)]
    np.testing.assert_allclose(steps, [1] * 4 + [0.1] * 4 + [0.01] * 2)


def test_statistics_of_batch_norms_are_averaged():
    student, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    student(torch.randn(5, 2))
    copy_buffers(student, average)
    assert torch.equal(average.running_mean, torch.zeros(2))
    assert torch.equal(average.running_var, torch.ones(2))
    assert average.num_batches_tracked == 1


@pytest.mark.parametrize("n_steps", [1, 20, 500])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_shares_and_never_rise_after_the_warm_up(name, n_steps):
    rates = [SCHEDULES[name](step, n_steps) for step in range(n_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    after = rates[min(N_WARM_UP, n_steps) - 1 :] if name == "cosine" else rates
    assert (np.diff(after) <= 1e-12).all()
    if name == "cosine" and n_steps > N_WARM_UP:
        # Half way it is half way, and at the end the least is left.
        middle = SCHEDULES[name](n_steps // 2, n_steps)
        assert middle == pytest.approx((1 + LEAST_RATE) / 2)
        assert rates[-1] == pytest.approx(LEAST_RATE, abs=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_those_of_torch(name):
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = OPTIMIZERS[name](mlp().parameters(), 0.25)
    assert type(optimizer) is kinds[name]
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("source", ["generator", "noise"])
@pytest.mark.parametrize("settings", [
    {}, {"averaging": 0.0, "student_batchnorm": False},
    {"student_optimizer": "sgd", "replay_size": 0, "noise_share": 0.0},
], ids=["all", "plain", "sgd"])  # fmt: skip
def test_resumed_is_uninterrupted(source, settings):
    if source == "noise":
        settings = settings | {"replay_size": 40}
    training = make(source=source, **settings)
    for _ in range(3):
        training.step()
    state = copy.deepcopy(training.state())
    want = [training.step() for _ in range(3)]
    other = make(source=source, **settings)
    other.restore(state)
    assert [other.step() for _ in range(3)] == want
    assert torch.equal(weights(other.student), weights(training.student))
    assert torch.equal(weights(other.finish()), weights(training.finish()))
    assert dict(other.history) == dict(training.history)
    assert other.n_iter == 6


def test_a_step_of_the_student_is_written_out():
    # Without augmentation, averaging and features: Adam on the softened scores.
    training = make(
        source="noise",
        averaging=0.0,
        student_batchnorm=False,
        augmentation=0.0,
        feature_weight=0.0,
        student_steps=3,
        schedule="cosine",
        noise_share=0.0,
    )
    student = copy.deepcopy(training.student)
    rng, teacher = seeded(), mlp(1)
    rng.set_state(training.rng.get_state())
    images, bank = training.source.images, torch.empty(0, 4)
    optimizer = torch.optim.Adam(student.parameters())
    for iteration in range(2):
        losses = training.step()
        drawn = images[torch.randint(len(images), (8,), generator=rng)]
        bank = torch.cat([bank, drawn])
        sums = 0.0
        for k in range(3):
            batch = bank[torch.randint(len(bank), (8,), generator=rng)]
            loss = kd_loss(student(batch), teacher(batch), RECIPE.temperature)
            optimizer.param_groups[0]["lr"] = RECIPE.student_lr * SCHEDULES["cosine"](
                3 * iteration + k, 18
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums += loss.item()
        assert losses["kd"] == pytest.approx(sums / 3, rel=1e-4)
    torch.testing.assert_close(weights(training.student), weights(student))


def test_average_is_of_all_weights_so_far_with_a_decay_that_grows():
    training = make(averaging=0.5, student_batchnorm=False, student_steps=1)
    average = weights(training.student)
    for step in range(12):
        training.step()
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights(training.student)
        if step == 0:
            # torch begins with the first weights themselves.
            average = weights(training.average.module)
        torch.testing.assert_close(
            weights(training.average.module), average, rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(
        weights(training.finish()), average, rtol=1e-4, atol=1e-5
    )


def test_norms_that_the_training_needs_are_gone_at_the_end():
    student = mlp(2)
    training = make(student, student_batchnorm=True, averaging=0.0)
    kinds = [type(part) for part in training.student.modules()]
    assert nn.BatchNorm1d in kinds
    for _ in range(2):
        training.step()
    X = torch.randn(7, 4)
    want = training.student.eval()(X)
    found = training.finish()
    assert [type(p) for p in found.modules()] == [type(p) for p in student.modules()]
    torch.testing.assert_close(found(X), want, rtol=1e-4, atol=1e-5)
    assert not found.training


class Breaking(nn.Sequential):
    """Answers are infinite after a number of forwards in training."""

    n_left = 100

    def forward(self, x):
        self.n_left -= self.training
        return super().forward(x) / (1 if self.n_left > 0 else 0)


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_after_a_loss_that_is_not_finite_the_weights_are_good_again(averaging):
    student = Breaking(*mlp(2))
    training = make(
        student,
        averaging=averaging,
        student_batchnorm=False,
        feature_weight=0.0,
        student_steps=2,
        adversarial_weight=0.0,
    )
    training.step()
    before = [weights(net) for net in training._nets()]
    training.step()
    n_kept = len(training.history["kd"])
    student.n_left = 0
    losses = training.step()
    assert not math.isfinite(losses["kd"])
    # The weights before the last iteration whose losses were finite.
    for net, want in zip(training._nets(), before, strict=True):
        assert torch.equal(weights(net), want)
    assert len(training.history["kd"]) == n_kept


def test_history_counts_the_classes_that_the_teacher_sees():
    training = make()
    for _ in range(3):
        training.step()
    counts = np.array(training.history["classes"])
    np.testing.assert_array_equal(counts.sum(axis=1), [12] * 3)
    scores = training.source.scores
    assert counts[-1].tolist() == torch.bincount(scores.argmax(1), minlength=3).tolist()
    assert {len(values) for values in training.history.values()} == {3}


@pytest.mark.parametrize(("share", "n_noise"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_share_of_noise_in_every_batch(share, n_noise, monkeypatch):
    training, drawn = make(noise_share=share, student_steps=1), []
    if training.noise is not None:
        draw = training.noise.draw
        monkeypatch.setattr(
            training.noise, "draw", lambda n: drawn.append(n) or draw(n)
        )
    seen = []
    training.student.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    training.step()
    assert sum(drawn) == n_noise
    assert len(seen[-1]) == 8


def test_networks_tell_fits_apart():
    one, same, other = make().networks(), make().networks(), make(mlp(3)).networks()
    assert one == same
    assert one != other
    assert len(make(source="noise").networks()) == len(one) - 1


def test_buffers_of_what_is_no_norm_are_the_students():
    student, average = (nn.Sequential(nn.Linear(2, 2)) for _ in range(2))
    for net, value in ((student, 3), (average, 0)):
        net[0].register_buffer("running_mean", torch.tensor(value))
    before = weights(student)
    copy_buffers(student, average)
    assert average[0].running_mean == 3
    assert torch.equal(weights(student), before)
