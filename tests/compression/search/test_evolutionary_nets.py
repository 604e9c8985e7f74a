"""Nets of users that are out of the ordinary, and what a pruning makes of them."""

import threading

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import scale
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from sklcomp.inspection import EvolutionDisplay
from sklcomp.nn import count_macs, count_parameters
from sklcomp.training._lesson import Teacher, TeacherLoss
from sklcomp.training._nets import OutputKind, check_finite, hold_out
from tests.helpers.nets import Dense, classifier, regressor
from tests.helpers.recipes import evolutionary_pruner

X, y = load_iris(return_X_y=True)
X = scale(X).astype(np.float32)
QUICK = {"population_size": 4, "n_generations": 2, "n_polish_steps": 2,
         "finetune_epochs": 2, "random_state": 0}  # fmt: skip


class Body(nn.Module):
    """Dense layers, and something before or behind them."""

    def __init__(self, width=16, n_outputs=3):
        super().__init__()
        self.hidden = nn.Linear(4, width)
        self.inner = nn.Linear(width, width)
        self.output = nn.Linear(width, n_outputs)

    def forward(self, x):
        return self.output(F.relu(self.inner(F.relu(self.hidden(x)))))


class Multiplying(Body):
    """Most multiplications are those of a parameter that is no layer's."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        for _ in range(20):
            x = torch.tanh(x @ self.w)
        return super().forward(x)


class Recurrent(Body):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 4, batch_first=True)

    def forward(self, x):
        return super().forward(self.rnn(x[:, None])[0][:, 0])


class Centring(Body):
    """Overwrites what it is given."""

    def forward(self, x):
        x -= 0.5
        return super().forward(x)


class Softmax(Body):
    def forward(self, x):
        return super().forward(x).softmax(-1)


class LogSoftmax(Body):
    def forward(self, x):
        return super().forward(x).log_softmax(-1)


class LogLikelihood(nn.Module):
    """Of probabilities."""

    def forward(self, p, target):
        return F.nll_loss((p + 1e-7).log(), target)


class Locked(Callback):
    """Holds what cannot be copied, as a writer of logs does."""

    def __init__(self):
        self.lock = threading.Lock()


class AsItIs(NeuralNetClassifier):
    """Takes its loss of the outputs as they are."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return self.criterion_(y_pred, y_true)


@pytest.fixture
def prune():
    def prune(module=None, X=X, y=y, net=None, **settings):
        torch.manual_seed(0)
        net = net or classifier(module or Body()).fit(X.copy(), y)
        settings = {"max_params": 0.5, "finetune": False} | QUICK | settings
        return evolutionary_pruner(FrozenEstimator(net), **settings).fit(X, y)

    return prune


@pytest.mark.parametrize("make", [Multiplying, Recurrent])
def test_multiplications_that_stay_count_too(prune, make):
    pruner = prune(make(), max_params=None, max_macs=0.8)
    assert pruner.report_.ratio("MACs") <= 0.8
    for n in pruner.pareto_front_["n_macs"].tolist():
        assert count_macs(pruner.at(max_macs=n).module_, (4,)) == n
    with pytest.raises(ValueError, match=r"max_macs=0\.05 cannot .* of [\d,]+ are"):
        prune(make(), max_params=None, max_macs=0.05)


@pytest.mark.parametrize(
    ("make", "criterion"),
    [(Softmax, nn.NLLLoss), (Softmax, LogLikelihood), (Body, nn.CrossEntropyLoss)],
)
def test_a_net_has_nothing_to_learn_from_itself(make, criterion):
    torch.manual_seed(0)
    net = classifier(make(), criterion=criterion).fit(X, y)
    examples = torch.from_numpy(X)
    teacher = Teacher(net.module_, None, True, examples, "cpu")
    lesson = TeacherLoss(teacher, kd_weight=1, temperature=4, task_weight=0, X=X)
    with torch.no_grad():
        loss = lesson.loss(torch.tensor(0.0), net.module_(examples), examples)
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_outputs_say_what_they_are():
    some = torch.from_numpy(X)
    logits = Body()
    found = []
    for make in (Body, Softmax, LogSoftmax):
        module = make()
        module.load_state_dict(logits.state_dict())
        task = OutputKind.of_module(module, some, True)
        found.append(task.logits(module(some)).softmax(-1))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_a_net_that_overwrites_its_input(prune):
    given = X.copy()
    pruner = prune(Centring(), X=given)
    np.testing.assert_array_equal(given, X)
    # As a net that subtracts into a tensor of its own.
    seen = torch.from_numpy(X[hold_out(y, 1000, _seed())[1]])
    with torch.no_grad():
        target = pruner.base_estimator_.module_(seen.clone())
        answers = pruner.module_(seen.clone())
        divergence = OutputKind(True).divergence(target, answers)
    assert pruner.best_fitness_ == pytest.approx(-float(divergence), rel=1e-4)


def _seed():
    return np.random.RandomState(0).randint(2**31 - 1)


def test_fine_tuning_is_judged_by_the_nets_own_loss(prune):
    labels = np.eye(3, dtype=np.float32)[y]
    net = regressor(Body(), criterion=nn.BCEWithLogitsLoss, callbacks=None)
    net.fit(X, labels)
    losses = []
    for finetune in (False, True):
        pruner = prune(
            net=net, y=labels, max_params=0.1, finetune=finetune, finetune_epochs=20
        )
        held = hold_out(labels, 1000, _seed())[1]
        with torch.no_grad():
            answers = pruner.module_(torch.from_numpy(X[held]))
        target = torch.from_numpy(labels[held])
        losses.append(float(F.binary_cross_entropy_with_logits(answers, target)))
    assert len(pruner.estimator_.history) == 20
    assert losses[1] < losses[0]


def test_networks_without_a_fitness_are_not_on_the_front(prune):
    def fitness(module, X, y):
        n = count_parameters(module)
        return np.nan if n < 150 else -float(n)

    pruner = prune(fitness=fitness)
    assert np.isfinite(pruner.pareto_front_["fitness"]).all()
    assert count_parameters(pruner.at(max_params=0.9).module_) >= 150
    axes = EvolutionDisplay.from_estimator(pruner).ax_
    assert len(axes[1].lines[0].get_xdata())


def test_settings_of_a_module_that_is_an_instance():
    net = NeuralNetClassifier(
        Body(16),
        module__width=24,
        criterion=nn.CrossEntropyLoss,
        max_epochs=1,
        train_split=None,
        verbose=0,
    )
    pruner = evolutionary_pruner(net, max_params=0.5, finetune=False, **QUICK).fit(X, y)
    assert pruner.base_estimator_.module_.hidden.out_features == 24


def test_what_cannot_be_copied_is_named_before_the_search(prune):
    net = classifier(Body(), callbacks=[Locked()]).fit(X, y)

    def fitness(*_):
        raise AssertionError("searched")

    with pytest.raises(ValueError, match=r"callbacks of the NeuralNet.*set_params\("):
        prune(net=net, fitness=fitness)
    prune(net=net.set_params(callbacks=None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ignored_layers": ["stm"]}, "no layer 'stm'"),
        ({"max_params": 0.001}, r"max_params=0\.001 cannot be reached"),
        ({"min_channels": 30}, r"max_params=0\.3 cannot be reached: with 30"),
        ({"n_jobs": 0}, "n_jobs == 0"),
    ],
)
def test_settings_that_cannot_be_met_are_told_before_the_training(settings, message):
    class Untrainable(NeuralNetClassifier):
        def run_single_epoch(self, *args, **kwargs):
            raise AssertionError("trained")

    net = Untrainable(
        Dense, module__n_features=4, criterion=nn.CrossEntropyLoss, train_split=None
    )
    settings = {"max_params": 0.3} | QUICK | settings
    with pytest.raises(ValueError, match=message):
        evolutionary_pruner(net, **settings).fit(X, y)


def test_two_budgets_that_no_network_keeps(prune):
    pruner = prune()
    n_parameters = pruner.pareto_front_["n_parameters"][0]
    with pytest.raises(ValueError, match=rf"max_macs=1 .* max_params={n_parameters}: "):
        pruner.at(max_params=int(n_parameters), max_macs=1)


class Doubles(Body):
    def __init__(self):
        super().__init__()
        self.double()


class Images(Body):
    """Nothing but images."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x):
        return super().forward(self.norm(x).flatten(1))


@pytest.mark.parametrize("make", [Doubles, Images])
def test_networks_that_cannot_take_X(make):
    with pytest.raises(ValueError, match=r"cannot take X of shape \(n, 4\) and dtype"):
        evolutionary_pruner(classifier(make()), max_params=0.5, **QUICK).fit(X, y)


def test_images_of_another_size():
    images = np.random.default_rng(0).normal(size=(40, 1, 2, 2)).astype(np.float32)
    pruner = evolutionary_pruner(
        classifier(Images(), max_epochs=1), max_params=0.5, **QUICK
    ).fit(images, np.arange(40) % 3)
    with pytest.raises(ValueError, match=r"\(n, 1, 3, 3\).*fitted on \(n, 1, 2, 2\)"):
        pruner.predict(np.zeros((5, 1, 3, 3), np.float32))


def test_compressors_and_compiled_nets_are_refused(prune):
    with pytest.raises(ValueError, match="EvolutionaryPruner is not supported"):
        prune(net=prune())
    net = classifier(Body(), compile=True)
    with pytest.raises(ValueError, match="compile=True"):
        evolutionary_pruner(net, max_params=0.5).fit(X, y)


def test_masks_of_infinities_are_no_divergence():
    module = Body()
    module.register_buffer("mask", torch.full((2, 2), -torch.inf))
    check_finite(module, "net")
    module.norm = nn.BatchNorm1d(3)
    module.norm.running_mean += torch.inf
    with pytest.raises(ValueError, match="not finite"):
        check_finite(module, "net")


def test_making_a_module_may_draw_from_numpy():
    class Drawing(Dense):
        def __init__(self, n_features=4, n_classes=3):
            super().__init__(n_features, n_classes)
            self.hidden.bias.data += float(np.random.normal())  # noqa: NPY002

    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1]  # noqa: NPY002
    net = classifier(Drawing, module__n_classes=3, max_epochs=1)
    evolutionary_pruner(net, max_params=0.5, finetune=False, **QUICK).fit(X, y)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


class EvaluatingSoftmax(Body):
    """Logits while it is trained, and else probabilities."""

    def forward(self, x):
        scores = super().forward(x)
        return scores if self.training else scores.softmax(-1)


def test_outputs_in_training_may_be_of_another_kind(prune):
    nets = []
    for make in (Body, EvaluatingSoftmax):
        torch.manual_seed(0)
        nets.append(classifier(make(), max_epochs=5).fit(X, y))
    tuned = [prune(net=net, finetune=True, distill_weight=0.3).module_ for net in nets]
    with torch.no_grad():
        logits, probabilities = (one.eval()(torch.from_numpy(X)) for one in tuned)
    torch.testing.assert_close(logits.softmax(-1), probabilities)


class Squares(nn.Module):
    def forward(self, scores, target):
        return (scores - target).square().mean()


def test_a_loss_that_takes_other_targets(prune):
    class OneHot(NeuralNetClassifier):
        def train_step_single(self, batch, **fit_params):
            inputs, labels = batch
            return super().train_step_single(
                (inputs, F.one_hot(labels, 3).float()), **fit_params
            )

    net = OneHot(
        Body(),
        criterion=Squares,
        max_epochs=2,
        train_split=None,
        verbose=0,
    ).fit(X, y)
    assert prune(net=net, finetune=True, distill_weight=0.0).score(X, y) > 0


def test_answers_leave_all_generators_alone(prune):
    pruner = prune()
    before = torch.get_rng_state()
    pruner.predict(X)
    assert torch.equal(torch.get_rng_state(), before)
