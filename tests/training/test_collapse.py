"""A student whose embedding drowns its task."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale
from torch import nn
from torch.nn import functional as F

from sklcomp.compression import FeatureEmbeddingDistiller
from sklcomp.nn import LocalityPreservingLoss
from sklcomp.training._collapse import Spreads
from tests.helpers.nets import (
    Dense,
    DenseRegression,
    Residual,
    Stop,
    classifier,
    regressor,
)

SEEDS = range(3)


class Convolutions(nn.Module):
    """Ends in a convolution: its 1,024 features are those before."""

    def __init__(self, width=16):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 10, 8)

    def forward(self, x):
        x = F.relu(self.first(x.reshape(-1, 1, 8, 8)))
        return self.last(F.relu(self.second(x))).flatten(1)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32)[:600], y[:600]


@pytest.fixture(scope="module")
def teacher(digits):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return classifier(Residual, max_epochs=8, lr=0.01).fit(*digits).module_


def distil(teacher, digits, seed=0, stop=None, max_epochs=6, **settings):
    net = classifier(
        Convolutions,
        optimizer=torch.optim.SGD,
        lr=0.05,
        max_epochs=max_epochs,
        optimizer__momentum=0.9,
    )
    distiller = FeatureEmbeddingDistiller(
        net, teacher, student_layer="second", random_state=seed, **settings
    )
    if stop is not None:
        distiller.set_callbacks(stop)
    return distiller.fit(*digits)


@pytest.mark.parametrize("seed", SEEDS)
def test_collapse_is_told_and_the_best_weights_are_kept(digits, teacher, seed):
    message = (
        r"embedding loss has drowned the task: in 6 epochs the spread .* fell to .* of "
        r"what it was, and the task loss came from .* Choose a smaller gamma than 1000,"
    )
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        fitted = distil(teacher, digits, seed, gamma=1000.0)
    losses = fitted.history_["task"]
    best = int(losses.argmin()) + 1
    kept = [f"weights of epoch {best} are kept" in str(one.message) for one in caught]
    assert any(kept) == (best < len(losses))
    assert fitted.n_iter_ == len(losses) == 6


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_by_default_nothing_collapses(digits, teacher, seed, gamma):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = distil(teacher, digits, seed, gamma=gamma)
    assert FeatureEmbeddingDistiller(None, None).gamma == 0.1
    assert fitted.score(*digits) > 0.8


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_collapse_of_a_regression_is_told_in_any_unit(unit):
    X, y = load_diabetes(return_X_y=True)
    X, y = scale(X).astype(np.float32), unit * scale(y)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = regressor(DenseRegression, max_epochs=2).fit(
            X, y.astype(np.float32)[:, None]
        )
    net = regressor(DenseRegression, optimizer=torch.optim.Adam, lr=0.01, max_epochs=10)
    with pytest.warns(ConvergenceWarning, match="has drowned the task"):
        FeatureEmbeddingDistiller(
            net, teacher.module_, gamma=1e6 * unit**2, random_state=0
        ).fit(X, y)


def test_collapse_is_told_after_an_interruption(digits, teacher, tmp_path):
    kept = {"checkpoint": tmp_path, "warm_start": True, "gamma": 1000.0}
    with pytest.raises(KeyboardInterrupt):
        distil(teacher, digits, stop=Stop(3), **kept)
    answers = []
    for settings in (kept, {"gamma": 1000.0}):
        with pytest.warns(ConvergenceWarning, match="has drowned the task: in 6 epoc"):
            fitted = distil(teacher, digits, **settings)
        answers.append(fitted.predict_proba(digits[0]))
    np.testing.assert_array_equal(*answers)


def test_what_cannot_be_learned_is_no_collapse():
    # Labels at random: to answer all alike is all that can be learned.
    rng = np.random.default_rng(0)
    X = rng.normal(100, 1, (60, 4)).astype(np.float32)
    net = classifier(Dense, module__n_features=4, max_epochs=15)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = Dense(4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FeatureEmbeddingDistiller(net, teacher, random_state=0).fit(
            X, rng.integers(0, 2, 60)
        )


def test_spreads_are_mean_variances_against_those_of_the_first_batch():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 3, 2, generator=generator)
    answers = torch.randn(40, 5, generator=generator)
    spreads = Spreads()
    assert spreads.shares == (1.0, 1.0)
    spreads.add(features, answers)
    spreads.end_epoch()
    assert spreads.shares == pytest.approx((1.0, 1.0))
    # Offsets do not count; an epoch is the mean of its examples.
    spreads.add(7 + features / 2, (answers / 10, "and more"))
    spreads.add(features[:20], answers[:20])
    spreads.end_epoch()
    first = [one.var(0, correction=0).mean() for one in (features, answers)]
    some = [one[:20].var(0, correction=0).mean() for one in (features, answers)]
    want = [
        (40 * one * part + 20 * other) / 60 / one
        for one, part, other in zip(first, (1 / 4, 1 / 100), some, strict=True)
    ]
    assert spreads.shares == pytest.approx([float(one) for one in want], rel=1e-5)
    assert not spreads.have_collapsed
    for scale_, has in (((0.4, 0.01), False), ((0.01, 0.4), False), ((0.3, 0.3), True)):
        spreads.add(scale_[0] * features, scale_[1] * answers)
        spreads.end_epoch()
        assert spreads.have_collapsed == has


def test_a_weight_means_the_same_whatever_the_width():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(30, 4, generator=generator) for _ in range(2))
    loss = LocalityPreservingLoss()
    wide = student.repeat(1, 50)
    torch.testing.assert_close(loss(wide, teacher), loss(student, teacher))
    images = wide.reshape(30, 2, 10, 10)
    torch.testing.assert_close(loss(images, teacher), loss(student, teacher))
