"""Where examples come from that nobody has taken."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.compression import DataFreeRecipe
from sklcomp.compression.data_free._sources import (
    GeneratorSource,
    Inputs,
    NoiseSource,
    ReplayBank,
    keep_on_cpu,
)
from sklcomp.nn import entropy_loss, onehot_loss
from sklcomp.training._lesson import Teacher
from sklcomp.training._nets import OutputKind

RECIPE = DataFreeRecipe(
    conditional=True, head="range", entropy_weight=0.0, generator_batch_size=12,
    latent_dim=3, generator_width=2, reinit_every=0, batch_size=6, replay_size=40,
)  # fmt: skip
OFF = {
    f"{name}_weight": 0.0
    for name in ("onehot", "entropy", "activation", "bn", "adversarial")
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mlp(seed=0, *first):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*first, nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


INPUTS = Inputs((4,), (-1.0, 2.0), 0.2, 0.5)


def teacher_of(module=None):
    return Teacher(
        module or mlp(1), "penultimate", True, INPUTS.noise(9, seeded()), "cpu"
    )


def make_source(prototype=None, teacher=None, seed=0, **settings):
    torch.manual_seed(seed)
    return GeneratorSource(
        teacher or teacher_of(),
        INPUTS,
        3,
        RECIPE.replace(**settings),
        seeded(seed),
        prototype,
    )


def weights(module):
    return torch.cat([value.flatten() for value in module.state_dict().values()])


def test_values_and_their_moments():
    # Half of the values at either end is the widest distribution.
    assert Inputs((1,), (0.0, 1.0), 0.5, 0.5).has_possible_moments
    assert not Inputs((1,), (0.0, 1.0), 0.5, 0.51).has_possible_moments
    assert not Inputs((2,), ([0.0, 0], [1.0, 1]), [0.5, 2], 0.1).has_possible_moments
    rng = torch.Generator().manual_seed(0)
    noise = Inputs((3,), None, [5.0, 0, 0], [1.0, 2, 3]).noise(4000, rng)
    torch.testing.assert_close(
        noise.mean(0), torch.tensor([5.0, 0, 0]), atol=0.2, rtol=0
    )
    torch.testing.assert_close(
        noise.std(0), torch.tensor([1.0, 2, 3]), atol=0.2, rtol=0
    )
    images = Inputs((1, 8, 8), None, 5.0, 0.5).noise(50, rng)
    assert images.min() >= 4
    assert images.max() <= 6


def test_bank_keeps_the_latest():
    rng = torch.Generator().manual_seed(0)
    bank = ReplayBank(5, rng)
    for start in (0, 3):
        bank.add(torch.arange(start, start + 3.0)[:, None])
    kept = set(bank.draw(200).flatten().tolist())
    assert kept == {1, 2, 3, 4, 5}
    again = ReplayBank(5, rng)
    again.restore(bank.state())
    again.add(torch.tensor([[6.0]]))
    assert set(again.draw(200).flatten().tolist()) == {2, 3, 4, 5, 6}
    latest = ReplayBank(0, rng)
    latest.add(torch.zeros(2, 1))
    latest.add(torch.ones(3, 1))
    np.testing.assert_array_equal(latest.draw(9), np.ones((3, 1)))
    assert len(latest.draw(2)) == 2


def test_ink_is_dark_on_bright_paper():
    rng = torch.Generator().manual_seed(0)
    for mean, is_dark in ((0.9, True), (0.1, False)):
        noise = Inputs((1, 32, 32), (0.0, 1.0), mean).noise(50, rng, ("strokes",))
        assert (noise.median() > 0.9) == is_dark
        assert noise.min() >= 0
        assert noise.max() <= 1


@pytest.mark.parametrize("size", [3, 5, 8])
@pytest.mark.parametrize("batches", [[2, 2, 2], [7], [1, 9, 1], [3, 5, 8]])
def test_bank_is_a_window_of_what_came(size, batches):
    bank, came = ReplayBank(size, seeded()), []
    for n in batches:
        new = torch.arange(len(came), len(came) + n)[:, None]
        came += new.flatten().tolist()
        bank.add(new)
    kept = sorted(bank.state()["bank"].flatten().tolist())
    assert kept == came[-size:]
    assert set(bank.draw(400).flatten().tolist()) <= set(kept)


@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("n", [2, 9])
def test_bank_goes_on_where_it_was(size, n):
    one, two = ReplayBank(size, seeded(1)), ReplayBank(size, seeded(1))
    one.add(torch.randn(n, 4))
    state = one.state()
    two.restore(state)
    for _ in range(3):
        new = torch.randn(2, 4)
        one.add(new)
        two.add(new)
        assert torch.equal(one.draw(6), two.draw(6))
    # The state is of its own.
    assert torch.equal(state["bank"].sum(), state["bank"].clone().sum())
    assert len(state["bank"]) == (min(n, size) if size else n)


@pytest.mark.parametrize("size", [0, 5])
def test_what_is_drawn_may_be_overwritten(size):
    bank = ReplayBank(size, seeded())
    bank.add(torch.ones(4, 2))
    bank.draw(4).zero_()
    assert (bank.draw(4) == 1).all()


@pytest.mark.parametrize(("limits", "mean", "std", "is_possible"), [
    (None, 100.0, 3.0, True), ((0.0, 4.0), 1.0, 3**0.5, True),
    ((0.0, 4.0), 1.0, 3**0.5 * 1.01, False), ((0.0, 4.0), 4.0, 1e-6, False),
    (([0.0, 0.0], [1.0, 2.0]), [0.5, 1.0], [0.5, 1.0], True),
])  # fmt: skip
def test_moments_that_values_within_limits_can_have(limits, mean, std, is_possible):
    # The variance is (mean - low) (high - mean) at most.
    assert Inputs((2,), limits, mean, std).has_possible_moments is is_possible


def test_noise_is_turned_over_on_bright_paper():
    dark, bright = (
        Inputs((1, 9, 9), (0.0, 3.0), mean).noise(7, seeded(), ("strokes",))
        for mean in (1.0, 2.0)
    )
    torch.testing.assert_close(bright, 3 - dark)
    colour = [
        Inputs((3, 9, 9), (0.0, 3.0), mean).noise(7, seeded()) for mean in (1.0, 2.0)
    ]
    assert torch.equal(*colour)


def test_noise_of_images_without_limits_is_within_two_deviations():
    noise = Inputs((2, 6, 6), None, [1.0, -5.0], [0.5, 2.0]).noise(50, seeded())
    low, high = torch.tensor([0.0, -9.0]), torch.tensor([2.0, -1.0])
    assert (noise.amin((0, 2, 3)) >= low).all()
    assert (noise.amax((0, 2, 3)) <= high).all()


def test_noise_source_has_as_many_of_each_class_that_is_seen():
    teacher = teacher_of()
    recipe = RECIPE.replace(replay_size=60)
    source = NoiseSource(teacher, INPUTS, 3, recipe, seeded())
    seen = set(teacher(INPUTS.noise(120, seeded()))[1].argmax(1).tolist())
    counts = torch.bincount(teacher(source.images)[1].argmax(1), minlength=3)
    assert {k for k, n in enumerate(counts.tolist()) if n} == seen
    assert {n for n in counts.tolist() if n} == {20}
    images, losses = source.step(mlp(), OutputKind(True))
    assert losses == {}
    torch.testing.assert_close(source.scores, teacher(images)[1])
    rows = {tuple(row) for row in source.images.tolist()}
    assert {tuple(row) for row in images.tolist()} <= rows


def test_noise_that_is_sampled_is_new():
    source = NoiseSource(teacher_of(), INPUTS, 3, RECIPE, seeded())
    first, second = source.sample(30), source.sample(30)
    kept = {tuple(row) for row in source.images.tolist()}
    assert not kept & {tuple(row) for row in torch.cat([first, second]).tolist()}
    assert not torch.equal(first, second)
    again = NoiseSource(teacher_of(), INPUTS, 3, RECIPE, seeded())
    assert torch.equal(again.sample(30), first)


def test_a_generator_without_losses_learns_nothing():
    source = make_source(**OFF, head="batchnorm")
    before = [p.clone() for p in source.generator.parameters()]
    images, losses = source.step(mlp(), OutputKind(True))
    assert losses == {}
    assert len(images) == 12
    for old, new in zip(before, source.generator.parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("conditional", [True, False])
def test_losses_are_of_the_images_that_the_step_gives(conditional):
    source = make_source(
        **OFF | {"onehot_weight": 1.0, "entropy_weight": 2.0}, conditional=conditional
    )
    images, losses = source.step(mlp(), OutputKind(True))
    scores = teacher_of()(images)[1]
    torch.testing.assert_close(source.scores, scores)
    assert losses["entropy"] == pytest.approx(float(entropy_loss(scores)), rel=1e-5)
    onehot = float(onehot_loss(scores))
    # Told which class to make, it is held against that, not the likeliest.
    if conditional:
        assert losses["onehot"] >= onehot - 1e-6
    else:
        assert losses["onehot"] == pytest.approx(onehot, rel=1e-5)
    assert not images.requires_grad


def test_a_step_is_that_of_adam_on_the_weighted_losses():
    settings = OFF | {"onehot_weight": 0.3, "entropy_weight": 2.0}
    prototype = nn.Linear(3, 4)
    source = make_source(prototype, conditional=False, **settings)
    generator = copy.deepcopy(prototype)
    optimizer = torch.optim.Adam(generator.parameters(), RECIPE.generator_lr)
    rng, teacher = seeded(), mlp(1)
    for _ in range(3):
        source.step(mlp(), OutputKind(True))
        scores = teacher(generator(torch.randn(12, 3, generator=rng)))
        loss = 0.3 * onehot_loss(scores) + 2 * entropy_loss(scores)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(weights(source.generator), weights(generator))


def test_teacher_and_student_are_left_as_they_are():
    teacher, student = teacher_of(nn.Sequential(nn.BatchNorm1d(4), *mlp(1))), mlp(2)
    source = make_source(teacher=teacher, bn_weight=1.0)
    before = weights(teacher.module), weights(student)
    student.train()
    for _ in range(3):
        _, losses = source.step(student, OutputKind(True))
    assert losses.keys() >= {"bn", "adversarial", "onehot", "moments"}
    assert torch.equal(weights(teacher.module), before[0])
    assert torch.equal(weights(student), before[1])
    assert student.training
    assert all(p.grad is None for p in student.parameters())


def test_infinite_losses_change_no_weight():
    source = make_source(onehot_weight=float("inf"))
    before = [p.clone() for p in source.generator.parameters()]
    source.step(mlp(), OutputKind(True))
    for old, new in zip(before, source.generator.parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("conditional", [True, False])
def test_source_goes_on_where_it_was(conditional):
    source, student = make_source(conditional=conditional), mlp(2)
    for _ in range(3):
        source.step(student, OutputKind(True))
    state, place = copy.deepcopy(source.state()), source.rng.get_state()
    want = [source.step(student, OutputKind(True)) for _ in range(3)]
    other = make_source(conditional=conditional, seed=5)
    other.restore(state)
    other.rng.set_state(place)
    for images, losses in want:
        found = other.step(student, OutputKind(True))
        torch.testing.assert_close(found[0], images, rtol=0, atol=0)
        assert found[1] == losses


@pytest.mark.parametrize("prototype", [None, nn.Linear(3, 4)])
def test_generator_begins_anew_every_few_steps(prototype):
    settings = OFF | {"onehot_weight": 1.0, "conditional": False}
    source = make_source(prototype, reinit_every=3, generator_lr=1e-9, **settings)
    found = []
    for _ in range(7):
        source.step(mlp(), OutputKind(True))
        found.append(next(source.generator.parameters()).detach().clone())
    # A step changes hardly anything, a renewal all.
    steps = torch.stack(found).diff(dim=0).abs().flatten(1).amax(1)
    assert (steps > 1e-3).tolist() == [False, False, True] * 2
    if prototype is not None:
        # And the user's own begins as it is given, and is never changed.
        torch.testing.assert_close(found[0], prototype.weight.detach())


@pytest.mark.parametrize("n", [1, 12, 30])
def test_samples_are_as_many_as_wanted_and_change_nothing(n):
    source = make_source()
    before = weights(source.generator)
    images = source.sample(n)
    assert images.shape == (n, 4)
    assert not images.requires_grad
    assert torch.equal(weights(source.generator), before)
    assert not torch.equal(source.sample(n), images)
    # Within the limits, which the head keeps.
    assert images.min() >= -1
    assert images.max() <= 2


def test_moments_are_asked_for_where_they_are_possible():
    assert make_source().weights["moments"] == 1
    assert make_source(head="batchnorm").weights["moments"] == 0
    assert make_source(nn.Linear(3, 4), conditional=False).weights["moments"] == 0


@pytest.mark.parametrize("make", [
    make_source, lambda: NoiseSource(teacher_of(), INPUTS, 3, RECIPE, seeded()),
])  # fmt: skip
def test_what_is_kept_of_a_source_can_still_sample(make):
    source = make()
    source.step(mlp(), OutputKind(True))
    keep_on_cpu(source)
    assert not {"images", "scores", "optimizer"} & vars(source).keys()
    source.rng.manual_seed(3)
    assert np.isfinite(source.sample(5).numpy()).all()
    assert source.rng.device == torch.device("cpu")
