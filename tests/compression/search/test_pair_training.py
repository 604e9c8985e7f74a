"""Small generators trained on, beside the full ones."""

import copy

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from sklcomp.compression.search._pair_training import (
    max_epochs,
    start_from,
    train_pair,
    trainable_net,
)
from sklcomp.nn._running import torch_session
from sklcomp.training._checkpoint import Checkpoint
from sklcomp.translation._net import CycleGANNet
from tests.helpers.translators import Convolve, Watch, draw_domains, translator

A, B = draw_domains(9, 7)
TRAIN = tuple(torch.from_numpy(one.transpose(0, 3, 1, 2).copy()) for one in (A, B))


@pytest.fixture(scope="module")
def base():
    return translator().fit(A, B)


def make_pair(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Convolve(3), Convolve(3)


def train(base, pair, n_epochs, seed=3, **settings):
    """As the pruner does it, which seeds the generators."""
    with torch_session(seed, 1):
        return train_pair(base, pair, TRAIN, n_epochs, seed, **settings)


def weights(*modules):
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


def generators(fitted):
    return weights(fitted.generator_ab_, fitted.generator_ba_)


def test_no_epochs_leave_the_pair_as_it_is(base):
    pair = make_pair()
    tuned = train(base, pair, 0)
    assert torch.equal(generators(tuned), weights(*pair))
    full, judges = (
        weights(one.discriminator_a_, one.discriminator_b_) for one in (base, tuned)
    )
    assert torch.equal(full, judges)
    with torch.no_grad():
        want = pair[0](TRAIN[0]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(tuned.transform(A), want, atol=1e-5)


def test_training_leaves_the_full_translator_and_the_pair_alone(base):
    pair = make_pair()
    before = weights(*pair), generators(base), repr(base.get_params())
    judges = weights(base.discriminator_a_, base.discriminator_b_)
    tuned = train(base, pair, 2)
    assert torch.equal(weights(*pair), before[0])
    assert torch.equal(generators(base), before[1])
    assert repr(base.get_params()) == before[2]
    assert torch.equal(weights(base.discriminator_a_, base.discriminator_b_), judges)
    assert not torch.equal(generators(tuned), before[0])


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_same_seed_same_pair(base, weight):
    first, again, other = (
        generators(train(base, make_pair(), 1, seed, weight=weight))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_listening_to_the_full_generators_brings_the_images_nearer(base):
    gaps, quick = [], copy.deepcopy(base).set_params(lr=0.02)
    for weight in (0.0, 1e4):
        tuned = train(quick, make_pair(), 9, weight=weight)
        with torch.no_grad():
            found, wanted = (t.generator_ab_.eval()(TRAIN[0]) for t in (tuned, base))
        gaps.append(float((found - wanted).abs().mean()))
    assert gaps[1] < 0.9 * gaps[0]


def test_a_fit_goes_on_from_the_result(base):
    tuned = train(base, make_pair(), 2)
    assert type(tuned.net_) is CycleGANNet
    assert tuned.max_epochs == base.max_epochs
    assert tuned.checkpoint is None
    assert tuned.generator[0] is not tuned.generator_ab_
    assert torch.equal(weights(*tuned.generator), generators(tuned))
    more = copy.deepcopy(tuned).set_params(lr=1e-12).fit(A, B)
    torch.testing.assert_close(generators(more), generators(tuned), atol=1e-6, rtol=0)


def test_interrupted_and_resumed_is_uninterrupted(base, tmp_path):
    epochs = []

    def stop(net):
        epochs.append(len(net.history))
        if len(net.history) == 2:
            raise KeyboardInterrupt

    stopping = copy.deepcopy(base)
    stopping.set_params(net_params={"callbacks": [Watch(after_epoch=stop)]})
    with pytest.raises(KeyboardInterrupt):
        train(stopping, make_pair(), 4, weight=1.0, checkpoint=Checkpoint(tmp_path))
    saved = Checkpoint(tmp_path, warm_start=True)
    rest = train(base, make_pair(), 4, weight=1.0, checkpoint=saved)
    whole = train(base, make_pair(), 4, weight=1.0)
    assert epochs == [1, 2]
    assert len(rest.net_.history) == 4
    assert torch.equal(generators(rest), generators(whole))


def test_settings_are_those_of_the_full_translator_but_for_the_training(base):
    given = copy.deepcopy(base).set_params(
        net_params={"max_epochs": 7, "module__n": 3, "callbacks": None}, lr=0.5
    )
    pair = make_pair()
    tuned = start_from(given, pair, 4, 9, 2)
    assert tuned.lr == 0.5
    assert tuned.generator is pair
    assert (tuned.max_epochs, tuned.random_state, tuned.n_threads) == (4, 9, 2)
    # What would make modules anew, or train longer, is left out; the rest is a copy.
    assert tuned.net_params == {"callbacks": None}
    assert given.net_params.keys() == {"max_epochs", "module__n", "callbacks"}
    assert tuned.image_shape_ == base.image_shape_
    assert not hasattr(tuned, "generator_ab_")


@pytest.mark.parametrize(("settings", "n"), [
    ({}, 2), ({"max_epochs": 5}, 5), ({"net_params": {"max_epochs": 9}}, 9),
    ({"net_params": {"lr": 1.0}, "max_epochs": 4}, 4),
])  # fmt: skip
def test_epochs_of_the_net_come_before_those_of_the_translator(settings, n):
    assert max_epochs(translator(**settings)) == n


def test_generators_learn_even_if_all_is_frozen(base):
    pair = make_pair()
    for module in pair:
        module.requires_grad_(False)
    net = trainable_net(start_from(base, pair, 1, 0, 1))
    for module in (net.module, net.generator_ba):
        assert all(p.requires_grad for p in module.parameters())
    half = make_pair()
    half[0].conv.bias.requires_grad_(False)
    net = trainable_net(start_from(base, half, 1, 0, 1))
    assert [p.requires_grad for p in net.module.parameters()] == [True, False]


def test_a_training_that_breaks_at_once_leaves_the_pair(base):
    wild = copy.deepcopy(base).set_params(lr=1e30)
    pair = make_pair()
    with pytest.warns(ConvergenceWarning, match="the training of the small generators"):
        tuned = train(wild, pair, 2)
    assert torch.equal(generators(tuned), weights(*pair))
