import numpy as np
import pytest
import torch
from skorch.callbacks import LRScheduler
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from sklcomp.nn import CycleGANGenerator, PatchDiscriminator
from sklcomp.translation._unpaired import UnpairedImages
from tests.helpers.translators import (
    Judge,
    Normalize,
    Watch,
    draw,
    draw_domains,
    same,
    translator,
    weights_in,
)

NAMES = ("module_", "generator_ba_", "discriminator_a_", "discriminator_b_")


def make_networks(n_channels=3):
    torch.manual_seed(0)
    generators = [CycleGANGenerator(3, 1, n_channels=n_channels) for _ in range(2)]
    judges = [PatchDiscriminator(3, 1, n_channels) for _ in range(2)]
    return generators, judges


# Adam makes whole steps of gradients that are rounding alone, unless they are small
# beside this; they are up to 100, and rounded by .01.
EPS = 1.0


def published_loop(networks, a, b, n_steps, loss, identity_weight, lr):
    """Six calls of generators in a step, discriminators one by one (cycle_gan_model).

    Returns the losses of every step.
    """
    (ab, ba), (d_a, d_b) = networks
    optimizers = [
        torch.optim.Adam(
            [*x.parameters(), *y.parameters()], lr, betas=(0.5, 0.999), eps=EPS
        )
        for x, y in networks
    ]

    def judged(judge, images, is_true):
        scores = judge(images)
        return loss(scores, torch.full_like(scores, is_true))

    history = []
    for _ in range(n_steps):
        fake_b, fake_a = ab(a), ba(b)
        terms = {
            "cycle_a": 10 * F.l1_loss(ba(fake_b), a),
            "cycle_b": 10 * F.l1_loss(ab(fake_a), b),
            "generator_ab": judged(d_b, fake_b, 1.0),
            "generator_ba": judged(d_a, fake_a, 1.0),
        }
        if identity_weight:
            terms["identity_a"] = identity_weight * F.l1_loss(ba(a), a)
            terms["identity_b"] = identity_weight * F.l1_loss(ab(b), b)
        optimizers[0].zero_grad()
        sum(terms.values()).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        for name, judge, true, fake in (
            ("discriminator_a", d_a, a, fake_a),
            ("discriminator_b", d_b, b, fake_b),
        ):
            terms[name] = judged(judge, true, 1.0) + judged(judge, fake.detach(), 0.0)
            terms[name] = terms[name] / 2
            terms[name].backward()
        optimizers[1].step()
        history.append({name: term.item() for name, term in terms.items()})
    return history


@pytest.mark.parametrize("identity_weight", [0.0, 5.0])
@pytest.mark.parametrize("adversarial", ["lsgan", "vanilla"])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_training_is_the_published_loop(n_channels, adversarial, identity_weight):
    a, b = draw_domains(5, 5, (16, 16, n_channels))
    generators, judges = make_networks(n_channels)
    is_channels_last = []

    def look(net, batch):
        tensors = [*batch[:2], net.generator_ba_.layers[3].weight]
        is_channels_last.append(
            [
                tensor.is_contiguous(memory_format=torch.channels_last)
                for tensor in tensors
            ]
        )

    # All rows are one batch, so that their order has no effect.
    fitted = translator(
        generator=generators,
        discriminator=judges,
        adversarial=adversarial,
        identity_weight=identity_weight,
        pool_size=0,
        batch_size=5,
        lr=1e-3,
        net_params={
            "callbacks": [Watch(after_step=look)],
            "optimizer__eps": EPS,
            "discriminator_optimizer__eps": EPS,
        },
    ).fit(a, b)
    networks = make_networks(n_channels)
    loss = {"lsgan": nn.MSELoss(), "vanilla": nn.BCEWithLogitsLoss()}[adversarial]
    a, b = (torch.from_numpy(images).movedim(-1, 1).contiguous() for images in (a, b))
    steps = published_loop(networks, a, b, 2, loss, identity_weight, lr=1e-3)

    assert is_channels_last == [[True] * 3] * 2
    assert fitted.history_.keys() == steps[0].keys()
    for name, values in fitted.history_.items():
        want = [step[name] for step in steps]
        np.testing.assert_allclose(values, want, rtol=1e-4, err_msg=name)
    starts = make_networks(n_channels)
    for name, start, want in zip(
        NAMES, [*starts[0], *starts[1]], [*networks[0], *networks[1]], strict=True
    ):
        found = getattr(fitted.net_, name)
        assert all(one.is_contiguous() for one in found.parameters())
        start, found, want = (
            parameters_to_vector(net.parameters()) for net in (start, found, want)
        )
        # Rounding moves some pixel over a kink of the losses.
        assert torch.dist(found, want) < 0.1 * torch.dist(want, start), name


def test_more_steps_of_the_fitted_net_are_those_of_a_longer_fit():
    a, b = draw_domains(5, 5)
    settings = {"pool_size": 0, "batch_size": 5, "decay_start": 1, "lr": 1e-3}
    longer = translator(max_epochs=4, **settings).fit(a, b)
    fitted = translator(max_epochs=2, **settings).fit(a, b)
    data = [torch.from_numpy(images).movedim(-1, 1) for images in (a, b)]
    fitted.net_.fit_loop(UnpairedImages(*data), epochs=2)
    for name in ("cycle_a", "discriminator_b"):
        values = [row[name] for row in fitted.net_.history]
        np.testing.assert_allclose(values, longer.history_[name], rtol=1e-4)


def test_history_is_the_mean_over_examples():
    # So slow that nothing changes: batches of 2, 2 and 1 say what one of 5 says.
    a, b = draw_domains(5, 5)
    settings = {"pool_size": 0, "lr": 1e-12, "max_epochs": 1}
    parts = translator(batch_size=2, **settings).fit(a, b)
    whole = translator(batch_size=5, **settings).fit(a, b)
    for name, values in whole.history_.items():
        np.testing.assert_allclose(parts.history_[name], values, rtol=1e-5)


@pytest.mark.parametrize("decay_start", [0, 0.5, 0.7, 1])
def test_rates_fall_linearly_to_zero(decay_start):
    rates = []

    def note(net, batch):
        groups = net.optimizer_.param_groups + net.discriminator_optimizer_.param_groups
        rates.append([group["lr"] for group in groups])

    translator(
        (8, 8),
        lr=0.01,
        decay_start=decay_start,
        max_epochs=4,
        net_params={"callbacks": [Watch(after_step=note)]},
    ).fit(*draw_domains(10, 3, (8, 8)))
    steps = np.arange(12)
    start = 12 * decay_start
    want = np.where(steps <= start, 1, (12 - steps) / max(12 - start, 1e-9))
    np.testing.assert_allclose(rates, np.column_stack([0.01 * want] * 2), rtol=1e-12)


def test_without_decay_the_rates_are_left_to_callbacks():
    rates = []
    step = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    watch = Watch(
        after_step=lambda net, batch: rates.append(net.optimizer_.param_groups[0]["lr"])
    )
    translator(
        decay_start=1,
        lr=1.0,
        batch_size=9,
        max_epochs=3,
        net_params={"callbacks": [watch, step]},
        generator=Normalize(nn.BatchNorm2d(3)),
    ).fit(*draw_domains())
    np.testing.assert_allclose(rates, [1.0, 0.1, 0.01])


def test_fixed_layers_of_a_discriminator_stay():
    given = Judge()
    fitted = translator(discriminator=given).fit(*draw_domains())
    for judge in (fitted.discriminator_a_, fitted.discriminator_b_):
        assert torch.equal(judge.fixed.weight, given.fixed.weight)
        assert not judge.fixed.weight.requires_grad
        assert judge.score.weight.requires_grad
        assert not torch.equal(judge.score.weight, given.score.weight)
    fixed = Judge().requires_grad_(False)
    fitted = translator(discriminator=fixed).fit(*draw_domains())
    assert torch.equal(fitted.discriminator_a_.score.weight, fixed.score.weight)


@pytest.mark.parametrize(
    ("shape", "norm"), [((8, 8, 3), nn.BatchNorm2d(3)), ((5,), nn.BatchNorm1d(5))]
)
def test_batch_norms_and_a_last_batch_of_one(shape, norm):
    a, b = draw(9, shape, seed=1), draw(4, shape, seed=2)
    fitted = translator(generator=Normalize(norm), max_epochs=1).fit(a, b)
    batches = fitted.net_.history[0]["batches"]
    assert [batch["train_batch_size"] for batch in batches] == [4, 4]
    # Of equal rows, one more changes no mean.
    parts, whole = (
        translator(generator=Normalize(norm), lr=1e-12, pool_size=0).fit(
            np.repeat(a[:1], n, axis=0), np.repeat(b[:1], n, axis=0)
        )
        for n in (9, 8)
    )
    for name, values in whole.history_.items():
        np.testing.assert_allclose(parts.history_[name], values, rtol=1e-5)
    assert all(np.isfinite(values).all() for values in fitted.history_.values())
    assert np.isfinite(fitted.transform(a)).all()


def test_weights_of_a_fit_lie_as_usual_and_networks_are_in_evaluation_mode():
    a, b = draw_domains()
    fitted = translator().fit(a, b)
    for name in NAMES:
        assert not getattr(fitted.net_, name).training
    for optimizer in (fitted.net_.optimizer_, fitted.net_.discriminator_optimizer_):
        for parameter, state in optimizer.state.items():
            assert state["exp_avg"].stride() == parameter.stride()
    assert torch.isfinite(weights_in(fitted)).all()
    assert same(fitted, translator().fit(a, b))
