import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklcomp.compression import DataFreeDistiller, DataFreeRecipe
from sklcomp.compression.data_free._sources import Inputs, NoiseSource, ReplayBank
from sklcomp.nn import count_parameters
from sklcomp.training._lesson import Teacher
from tests.helpers.nets import (
    Dense,
    Probabilities,
    Residual,
    SlimDense,
    Stop,
    classifier,
    regressor,
)
from tests.helpers.recipes import with_data_free_recipe

# The shape, the range and the moments are all that is told of the digits.
KNOWN = {
    "input_shape": (1, 8, 8), "input_range": (0, 1), "input_mean": 0.31,
    "input_std": 0.38,
}  # fmt: skip
SHORT = {"n_iterations": 3, "student_steps": 2, "random_state": 0}
# Generators that learn for seconds do not make all classes yet.
early = pytest.mark.filterwarnings("ignore:the teacher sees hardly any")


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32)[:900], y[:900]


@pytest.fixture(scope="module")
def trained(digits):
    """A fitted net with batch norm, for those who do not change it."""
    torch.manual_seed(0)
    return classifier(Residual, max_epochs=10, lr=0.01).fit(*digits)


@pytest.fixture(scope="module")
def plain():
    """A trained module without batch norm."""
    X, y = load_digits(return_X_y=True)
    torch.manual_seed(0)
    net = classifier(Dense, max_epochs=10, lr=0.01, module__n_classes=10)
    return net.fit((X / 16).astype(np.float32), y).module_


def student(module=Residual, **settings):
    return classifier(module, **{"module__width": 4} | settings)


def distiller(teacher, **settings):
    settings = {"student": student(), **KNOWN, **SHORT} | settings
    net = settings.pop("student")
    settings = with_data_free_recipe(teacher, settings)
    if isinstance(teacher, NeuralNetClassifier):
        teacher = FrozenEstimator(teacher)
    return DataFreeDistiller(net, teacher, **settings)


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
def test_an_unfitted_teacher_is_trained_first(digits):
    X, y = digits
    names = np.array(["zero", "one", "two"])
    rows = y < 3
    fitted = DataFreeDistiller(
        student(SlimDense),
        classifier(max_epochs=10),
        n_iterations=40,
        random_state=0,
        input_mean=X.mean(axis=0),
        input_std=X.std(axis=0) + 0.01,
    ).fit(X[rows], names[y[rows]])
    assert fitted.classes_.tolist() == ["one", "two", "zero"]
    assert fitted.score(X[rows], names[y[rows]]) > 0.9
    assert fitted.agreement_score(X[rows]) > 0.9
    assert fitted.teacher_.output.weight.shape == (3, 24)
    with pytest.raises(ValueError, match="the teacher is not trained, so X and y"):
        DataFreeDistiller(student(), classifier()).fit()
    with pytest.raises(ValueError, match="requires y to be passed"):
        DataFreeDistiller(student(), classifier()).fit(X)


def test_classes_of_a_trained_teacher(digits, trained):
    X, _ = digits
    letters = np.array(list("abcdefghij"))
    fitted = distiller(trained, classes=letters).fit()
    same = distiller(trained).fit()
    np.testing.assert_array_equal(fitted.predict(X), letters[same.predict(X)])
    with pytest.raises(ValueError, match="classes has 3 entries, the teacher 10"):
        distiller(trained, classes=[0, 1, 2]).fit()


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


def counted(function, calls):
    """The function, with a note of every call."""

    def call(*args):
        calls.append(None)
        return function(*args)

    return call


@pytest.mark.parametrize("recipe", ["fast", "paper-mnist"])
def test_stopped_and_resumed_is_uninterrupted(
    digits, trained, tmp_path, recipe, monkeypatch
):
    X, _ = digits
    settings = {
        "recipe": recipe,
        "n_iterations": 7,
        "reinit_every": 3,
        "replay_size": 200,
        "generator_batch_size": 64,
        "batch_size": 32,
        "generator_width": 8,
    }
    whole = distiller(trained, **settings).fit()
    kept = {"checkpoint": tmp_path, "warm_start": True}
    stopped = distiller(trained, **settings, **kept).set_callbacks(Stop(after=5))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    assert not hasattr(stopped, "estimator_")
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]
    steps = []
    monkeypatch.setattr(ReplayBank, "add", counted(ReplayBank.add, steps))
    rest = distiller(trained, **settings, **kept).fit()
    assert 0 < len(steps) < 7
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))
    for name, values in whole.history_.items():
        np.testing.assert_array_equal(rest.history_[name], values)
    other = distiller(trained, **settings | {"temperature": 7.0}, **kept).fit()
    assert other.n_iter_ == 7
    assert not np.array_equal(other.history_["kd"], whole.history_["kd"])


def test_broken_checkpoint_is_named(trained, tmp_path):
    (tmp_path / "training.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"training.pt is no state of a fit"):
        distiller(trained, checkpoint=tmp_path, warm_start=True).fit()


class Scripted(nn.Module):
    """Answers without any layer that can be seen."""

    def __init__(self, module):
        super().__init__()
        example = torch.zeros(2, 1, 8, 8)
        self.inner = torch.jit.trace(module.eval(), example, check_trace=False)

    def forward(self, x):
        return self.inner(x)


class Detached(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, x):
        return self.inner(x).detach()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_teachers_that_show_less(trained):
    module = Scripted(trained.module_)
    with pytest.warns(UserWarning, match=r"teacher shows no features.*feature_weight"):
        fitted = distiller(module, feature_weight=0.3).fit()
    assert fitted.recipe_.feature_weight == 0
    with pytest.raises(ValueError, match=r"no gradients .*structured_noise"):
        distiller(Detached(trained.module_)).fit()
    fitted = distiller(Detached(trained.module_), synthesis="structured_noise").fit()
    assert fitted.history_.keys() == {"kd", "classes"}


def test_probabilities_are_seen_as_such(digits, plain):
    X, _ = digits
    plain = copy.deepcopy(plain)
    with torch.no_grad():  # no probability is so small that it is cut
        plain.output.weight /= 4
        plain.output.bias /= 4
    probable = Probabilities(n_features=64, n_classes=10)
    probable.load_state_dict(plain.state_dict())
    settings = {"input_shape": (64,), "student": student(SlimDense)}
    fits = [
        distiller(module, from_logits=logits, temperature=1.0, **settings).fit()
        for module, logits in ((plain, "auto"), (probable, "auto"), (probable, False))
    ]
    for other in fits[1:]:
        for name in ("kd", "adversarial"):
            np.testing.assert_allclose(
                other.history_[name], fits[0].history_[name], rtol=0.03
            )
    misled = distiller(probable, from_logits=True, temperature=1.0, **settings).fit()
    assert misled.history_["kd"][0] < 0.5 * fits[0].history_["kd"][0]


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
    with pytest.raises(ValueError, match=r"has 64 values, the rows of X have 60"):
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
    ("base", "change"),
    [
        ({}, {"from_logits": False}),
        ({}, {"feature_layer": "outer"}),
        ({}, {"temperature": 2.0}),
        ({}, {"random_state": 1}),
        ({}, {"synthesis": "structured_noise"}),
        ({"synthesis": "structured_noise"}, {"input_range": (0, 0.9)}),
    ],
    ids=lambda value: next(iter(value), ""),
)
def test_another_fit_is_not_resumed(trained, tmp_path, base, change):
    base = {"feature_weight": 0.5} | base
    kept = {"checkpoint": tmp_path, "warm_start": True}
    first = distiller(trained, **base, **kept).fit()
    found = distiller(trained, **base | change, **kept).fit()
    fresh = distiller(trained, **base | change).fit()
    assert found.history_.keys() == fresh.history_.keys()
    for name, values in fresh.history_.items():
        np.testing.assert_array_equal(found.history_[name], values)
    # Else this could not fail.
    assert not all(
        np.array_equal(values, fresh.history_.get(name))
        for name, values in first.history_.items()
    )


class Answering(nn.Module):
    """No weights of its own, and features beside the scores."""

    def __init__(self, net):
        super().__init__()
        self.ask = [net.module_.eval()]

    def forward(self, x):
        scores = self.ask[0](x)
        return scores, x.flatten(1)


class Reading(nn.Module):
    """The forward reads an attribute of a layer."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.hidden = nn.Linear(64, 6)
        self.output = nn.Linear(6, n_classes)

    def forward(self, x):
        return self.output(self.hidden(x.reshape(-1, self.hidden.in_features)).relu())


def test_nets_that_are_written_otherwise(digits, trained):
    X, y = digits
    with pytest.warns(UserWarning, match="hardly any|shows no features"):
        fitted = distiller(
            Answering(trained),
            student=classifier(Reading),
            activation_weight=0.1,
            n_iterations=10,
        ).fit()
    assert fitted.report_.before["parameters"] == 0
    assert type(fitted.module_.hidden) is nn.Linear
    assert fitted.agreement_score(X) == (fitted.predict(X) == trained.predict(X)).mean()


def test_some_classes_of_y_are_enough(digits):
    X, y = digits
    names = np.array([f"class {k}" for k in range(10)])[y]
    torch.manual_seed(0)
    net = classifier(Residual, max_epochs=1).fit(X, y)
    net.classes = np.unique(names)
    rows = y != 3
    fitted = distiller(net).fit(X[rows], names[rows])
    assert fitted.classes_.tolist() == np.unique(names).tolist()
    with pytest.raises(ValueError, match=r"y has 2 classes, .* has 10 outputs"):
        distiller(net.module_).fit(X, np.where(y > 4, "large", "small"))


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


def test_teachers_that_cannot_be_used(digits, trained):
    X, y = digits
    with pytest.raises(ValueError, match="the teacher has 1 output; give one with"):
        distiller(nn.Sequential(nn.Flatten(), nn.Linear(64, 1))).fit()
    with pytest.raises(ValueError, match="and classes=None"):
        DataFreeDistiller(
            student(SlimDense), classifier(max_epochs=1), classes=np.arange(10)
        ).fit(X, y)
    with pytest.raises(ValueError, match="10 outputs for 3 classes of y"):
        DataFreeDistiller(
            student(SlimDense), classifier(max_epochs=1, module__n_classes=10)
        ).fit(X[y < 3], y[y < 3])
    detached = distiller(Detached(trained.module_), synthesis="structured_noise").fit()
    with pytest.raises(ValueError, match="no gradients"):
        detached.data_free_score()
    with pytest.raises(ValueError, match="n=0: ask for at least one"):
        detached.sample(0)


def test_impossible_moments_choose_the_head_that_keeps_the_range(trained):
    with pytest.warns(UserWarning, match="cannot have input_mean=0.0"):
        fitted = distiller(trained, input_mean=0.0, input_std=1.0).fit()
    assert fitted.recipe_.head == "range"
