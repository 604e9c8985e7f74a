import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklcomp.compression import DataFreeDistiller, DataFreeRecipe
from sklcomp.compression.data_free._sources import Inputs
from sklcomp.nn import count_parameters
from tests.helpers.data_free import distiller, early
from tests.helpers.nets import Residual, SlimDense, classifier


def conv_net(width, norm):
    layers, inputs = [], 1
    for outputs in (width, 2 * width):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            norm(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width, 10))


@early
def test_a_student_learns_without_data_what_noise_does_not_teach(digits):
    X, y = digits[0].reshape(-1, 1, 8, 8), digits[1]
    torch.manual_seed(0)
    teacher = classifier(conv_net(24, nn.BatchNorm2d), lr=0.005).fit(X[:600], y[:600])
    net = classifier(conv_net(6, nn.Identity))
    settings = {"n_iterations": 100, "student_steps": 6}
    learned, control = (
        distiller(teacher, student=net, synthesis=synthesis, **settings).fit()
        for synthesis in ("generator", "structured_noise")
    )
    assert learned.score(X[600:], y[600:]) > 0.75
    assert learned.agreement_score(X) > control.agreement_score(X)


def test_one_joint_step_is_what_the_paper_says(plain):
    """The published step, written out, with a generator and a student of our own."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(5, 64), nn.Tanh())
    module = nn.Sequential(nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))
    settings = {
        "input_shape": (64,),
        "generator": generator,
        "n_iterations": 2,
        "random_state": 0,
        "recipe": DataFreeRecipe.named("paper-mnist").replace(
            latent_dim=5,
            generator_batch_size=32,
            batch_size=32,
            generator_lr=0.02,
            student_lr=0.01,
        ),
    }
    net = NeuralNetClassifier(copy.deepcopy(module), criterion=nn.CrossEntropyLoss)
    with pytest.warns(UserWarning, match="generator_batch_size=32 is too small"):
        fitted = DataFreeDistiller(net, plain, **settings).fit()

    rng = torch.Generator()
    rng.manual_seed(int(np.random.RandomState(0).randint(2**31 - 1)))
    for _ in range(2):
        Inputs((64,)).noise(64, rng)  # what the two nets are tried on
    torch.randn(32, 5, generator=rng)  # and how the shape of examples is seen
    optimizers = [
        torch.optim.Adam(generator.parameters(), 0.02),
        torch.optim.Adam(module.parameters(), 0.01),
    ]
    for k in range(2):
        images = generator(torch.randn(32, 5, generator=rng))
        features = F.relu(plain.inner(F.relu(plain.hidden(images))))
        scores = plain.output(features)
        mean = scores.softmax(1).mean(0)
        onehot = F.cross_entropy(scores, scores.argmax(1))
        entropy = (mean * mean.log10()).sum()
        activation = -features.abs().mean()
        answer = module(images.detach())
        kd = F.kl_div(
            answer.log_softmax(1), scores.detach().softmax(1), reduction="batchmean"
        )
        for name, value in (
            ("onehot", onehot),
            ("entropy", entropy),
            ("activation", activation),
            ("kd", kd),
        ):
            np.testing.assert_allclose(fitted.history_[name][k], value.item(), 1e-4)
        counts = torch.bincount(scores.argmax(1), minlength=10)
        np.testing.assert_array_equal(fitted.history_["classes"][k], counts)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (onehot + 5 * entropy + 0.1 * activation + kd).backward()
        for optimizer in optimizers:
            optimizer.step()
    for found, want in zip(
        [*fitted.module_.parameters(), *fitted.generator_.parameters()],
        [*module.parameters(), *generator.parameters()],
        strict=True,
    ):
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-5)


def test_weights_choose_the_losses(trained, plain):
    fitted = distiller(
        trained,
        bn_weight=0.5,
        adversarial_weight=0.2,
        feature_weight=0.3,
        entropy_weight=1.0,
        activation_weight=0.1,
        head="range",
    ).fit()
    assert fitted.history_.keys() == {
        "bn",
        "onehot",
        "entropy",
        "activation",
        "adversarial",
        "moments",
        "kd",
        "feature",
        "classes",
    }
    assert all(len(values) == 3 for values in fitted.history_.values())
    assert (fitted.history_["classes"].sum(axis=1) == 64).all()


def test_what_comes_out_is_a_plain_net(digits, trained):
    X, _ = digits
    fitted = distiller(trained).fit()
    net = fitted.estimator_
    assert type(net) is NeuralNetClassifier
    assert fitted.student_ is net
    assert fitted.module_ is net.module_
    assert not fitted.module_.training
    # Batch norms that helped in training are gone, and nothing was added.
    fresh = Residual(width=4)
    assert fitted.module_.state_dict().keys() == fresh.state_dict().keys()
    assert [type(part) for part in fitted.module_.modules()] == [
        type(part) for part in fresh.modules()
    ]
    for module in (net.module_, fitted._teacher.module):
        for part in module.modules():
            assert not part._forward_hooks
            assert not part._forward_pre_hooks
    np.testing.assert_array_equal(fitted.predict(X), net.predict(X))
    assert b"sklcomp" not in pickle.dumps(net)
    before, after = fitted.report_.before, fitted.report_.after
    assert before["parameters"] == count_parameters(trained.module_)
    assert after["parameters"] == count_parameters(fresh)


def test_teacher_and_generators_stay_untouched(digits):
    net = classifier(Residual, max_epochs=1).fit(*digits)
    module = net.module_.train()
    module.zero_grad()
    next(module.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in module.parameters()]
    own = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    before = copy.deepcopy([module.state_dict(), own.state_dict()])
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    distiller(module, generator=own, conditional=False, input_shape=(64,)).fit()
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    assert all(part.training for part in module.modules())
    assert flags == [p.requires_grad for p in module.parameters()]
    assert all(p.grad is None for p in module.parameters())
    for old, new in zip(before, (module, own), strict=True):
        after = new.state_dict()
        assert all(torch.equal(old[key], after[key]) for key in old)


def test_same_seed_same_student_and_data_are_not_looked_at(digits, trained):
    X, y = digits
    fits = [
        distiller(trained).fit(*data)
        for data in ((), (X,), (X, y), (np.zeros_like(X), y))
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.predict_proba(X), fits[0].predict_proba(X))
    other = distiller(trained, random_state=1).fit()
    assert not np.array_equal(other.predict_proba(X), fits[0].predict_proba(X))


@early
def test_scores(digits, trained):
    X, y = digits
    short = distiller(trained).fit()
    long = distiller(trained, n_iterations=30, student_steps=8).fit()
    assert short.data_free_score(90) < long.data_free_score(90) <= 0
    assert long.data_free_score(90) == long.data_free_score(90)
    agreement = (long.predict(X) == trained.predict(X)).mean()
    assert long.agreement_score(X) == pytest.approx(agreement)
    with pytest.raises(NotFittedError):
        clone(short).sample()


def test_pipeline_grid_search_and_pickle(digits):
    X, y = digits
    model = make_pipeline(
        MinMaxScaler(),
        DataFreeDistiller(
            classifier(SlimDense),
            classifier(max_epochs=2),
            input_range=(0, 1),
            input_mean=0.31,
            input_std=0.38,
            recipe=DataFreeRecipe(student_steps=2),
            n_iterations=3,
            random_state=0,
        ),
    )
    grid = {
        "datafreedistiller__recipe__temperature": [1.0, 4.0],
        "datafreedistiller__student__module__width": [4, 8],
    }
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
