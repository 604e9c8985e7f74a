"""What users' nets, callbacks and settings can do to a pruning."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import scale
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, LoadInitState, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from sklcomp.compression.search import _evolutionary
from sklcomp.evolution import evolve
from sklcomp.evolution._operators import flip_segment, swap_segment
from sklcomp.inspection import CompressionDisplay
from sklcomp.nn import count_parameters, kd_loss
from sklcomp.training._nets import hold_out
from tests.helpers.nets import Dense, classifier, regressor
from tests.helpers.recipes import QUICK, evolutionary_pruner

X, y = load_iris(return_X_y=True)
X = scale(X).astype(np.float32)


def normed(n_outputs=3):
    """Batch norms whose statistics change much when channels go."""
    layers = []
    for width in (4, 12, 12):
        layers += [nn.Linear(width, 12), nn.BatchNorm1d(12), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(12, n_outputs))


def dense(n_outputs=3, **settings):
    module = nn.Sequential(
        nn.Linear(4, 16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, n_outputs),
    )
    return classifier(module, **settings)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return dense(max_epochs=20).fit(X, y)


@pytest.fixture
def prune(trained):
    def prune(net=trained, X=X, y=y, **settings):
        settings = QUICK | {"max_params": 0.5} | settings
        net = FrozenEstimator(net) if hasattr(net, "module_") else net
        return evolutionary_pruner(net, **settings).fit(X, y)

    return prune


class MakesAnew(Callback):
    def on_train_begin(self, net, X=None, y=None, **kwargs):
        net.set_params(module__n_features=X.shape[1])


def test_callback_that_makes_the_module_anew_is_named(prune):
    net = NeuralNetClassifier(
        Dense,
        module__n_classes=3,
        criterion=nn.CrossEntropyLoss,
        max_epochs=2,
        train_split=None,
        verbose=0,
        callbacks=[MakesAnew()],
    )
    with pytest.raises(ValueError, match="makes its module anew"):
        prune(net)
    pruner = prune(net, finetune=False)
    assert pruner.report_.ratio("parameters") <= 0.5


@pytest.mark.parametrize("change", [
    {"optimizer": torch.optim.SGD}, {"optimizer__betas": (0.5, 0.9)},
    {"criterion__weight": torch.tensor([1.0, 50.0, 1.0])},
    {"train_split": ValidSplit(3)},
    {"callbacks": [LRScheduler(policy="StepLR", step_size=1)]},
], ids=lambda change: next(iter(change)))  # fmt: skip
def test_checkpoint_of_another_training_is_not_taken_up(prune, tmp_path, change):
    torch.manual_seed(0)
    settings = {"finetune": False, "checkpoint": tmp_path, "warm_start": True}
    first = dense(max_epochs=2)
    prune(first, **settings)
    other = classifier(first.module, max_epochs=2).set_params(**change)
    kept = prune(other, **settings).base_estimator_.module_.state_dict()
    fresh = prune(other, finetune=False).base_estimator_.module_.state_dict()
    for name, weights in fresh.items():
        np.testing.assert_array_equal(kept[name], weights)


def count_fitness(module, X, y):
    count_fitness.n_calls += 1
    return -float(count_parameters(module))


def test_search_with_functions_is_taken_up(prune, tmp_path):
    settings = {
        "finetune": False,
        "checkpoint": tmp_path,
        "warm_start": True,
        "fitness": count_fitness,
        "n_polish_steps": 0,
    }
    count_fitness.n_calls = 0
    first = prune(**settings)
    n_first, count_fitness.n_calls = count_fitness.n_calls, 0
    second = prune(**settings)
    assert count_fitness.n_calls < n_first
    np.testing.assert_array_equal(first.best_individual_, second.best_individual_)


def test_warm_start_needs_a_seed(prune, tmp_path):
    with pytest.raises(ValueError, match="give a number as random_state"):
        prune(checkpoint=tmp_path, warm_start=True, random_state=None)


def test_scheduler_with_numbers_of_numpy_is_resumed(prune, tmp_path):
    net = dense(
        lr=np.float64(0.01), callbacks=[LRScheduler(policy="StepLR", step_size=1)]
    )
    settings = {"checkpoint": tmp_path, "warm_start": True}
    first, second = prune(net, **settings), prune(net, **settings)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    # Epochs that were done are not done again: their times are those of then.
    times = [pruner.base_estimator_.history_[:, "dur"] for pruner in (first, second)]
    assert times[0] == times[1]


def split(n=1000):
    """Rows to train on and rows held out, of a fit with random_state=0."""
    return hold_out(y, n, np.random.RandomState(0).randint(2**31 - 1))


class Rows(Callback):
    """Keeps what nets are trained on."""

    seen: list = []

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.seen.append(X)


@pytest.mark.parametrize(("n", "expected"), [(10, 10), (1000, 37)])
def test_fitness_is_of_at_most_a_quarter_that_no_training_sees(prune, n, expected):
    held = []

    def fitness(module, X, y):
        held.append(X.numpy())
        return -float(count_parameters(module))

    Rows.seen.clear()
    prune(
        dense(callbacks=[Rows()]),
        fitness=fitness,
        n_fitness_samples=n,
        distill_weight=0.7,
    )
    train, rows = split(n)
    assert len(rows) == expected
    assert all(np.array_equal(each, X[rows]) for each in held)
    # The net itself, and the fine-tuning.
    assert len(Rows.seen) == 2
    assert all(np.array_equal(each, X[train]) for each in Rows.seen)


@pytest.mark.parametrize(("settings", "weight", "T"), [
    ({"distill_weight": 0.7}, 0.7, 4.0), ({"distill_weight": 0.0}, 0.0, 1.0),
    ({"distill_weight": 0.7, "temperature": 1.0}, 0.7, 1.0),
    ({"distill_weight": 0.3, "finetune_schedule": None}, 0.3, 4.0),
    ({"recipe": "paper"}, 0.0, 1.0),
])  # fmt: skip
def test_fine_tuning_is_the_loop_that_the_settings_say(prune, settings, weight, T):
    torch.manual_seed(0)
    net = dense(max_epochs=3).fit(X, y)
    module = prune(net, finetune=False, **settings).module_
    tuned = prune(net, **settings).module_
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    batches = [*torch.arange(len(X)).split(32)] * 2
    is_falling = settings.keys() <= {"distill_weight", "temperature"}
    for k, rows in enumerate(batches):
        if is_falling:
            share = (1 + math.cos(math.pi * k / len(batches))) / 2
            optimizer.param_groups[0]["lr"] = 0.02 * share
        some = torch.from_numpy(X)[rows]
        output, teacher = module(some), net.module_(some)
        loss = nn.functional.cross_entropy(output, torch.from_numpy(y)[rows])
        loss = (1 - weight) * loss + weight * kd_loss(output, teacher.detach(), T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for found, expected in zip(tuned.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.fixture
def evolved(monkeypatch):
    """What ``evolve`` is called with; it returns the best of the start."""
    calls = []

    def spy(fitness, population, **settings):
        calls.append(settings | {"population": population})
        return evolve(fitness, population, **settings | {"n_generations": 0})

    monkeypatch.setattr(_evolutionary, "evolve", spy)
    return calls


FREE, NESTED, PAPER = (
    {"population_size": size, "n_generations": n, "selection": selection,
     "crossover_rate": cross, "mutation_rate": mutate, "elitism": elitism,
     "n_polish_steps": polish, "child_mutation_rate": child}
    for size, n, selection, cross, mutate, elitism, polish, child in (
        (32, 30, "tournament", 0.5, 0.5, 2, 60, 0.5),
        (16, 12, "tournament", 0.5, 0.5, 2, 40, 0.5),
        (32, 50, "roulette", 0.7, 0.1, 1, 0, 0.0),
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "expected"), [("default", NESTED), ("free", FREE), ("paper", PAPER)]
)
def test_recipes_search_with_their_own_settings(trained, evolved, recipe, expected):
    settings = {"recipe": recipe, "max_params": 0.5, "finetune": False}
    net = FrozenEstimator(trained)
    evolutionary_pruner(net, random_state=0, **settings).fit(X, y)
    found = evolved[0] | {"population_size": len(evolved[0]["population"])}
    assert {name: found[name] for name in expected} == expected
    is_paper = recipe == "paper"
    assert (found["crossover"] is swap_segment) == is_paper
    assert (found["mutation"] is flip_segment) == is_paper
    # What the user says comes first.
    own = {"population_size": 7, "elitism": 3, "mutation_rate": 0.05}
    evolutionary_pruner(net, random_state=0, **settings, **own).fit(X, y)
    assert len(evolved[1]["population"]) == 7
    assert (evolved[1]["elitism"], evolved[1]["mutation_rate"]) == (3, 0.05)


def test_polish_scores_more_and_finds_nothing_worse(prune):
    rough, fine = (
        prune(genes="free", n_polish_steps=n, finetune=False) for n in (0, 40)
    )
    assert fine.n_evaluations_ > rough.n_evaluations_
    assert fine.best_fitness_ >= rough.best_fitness_


def test_batch_norms_of_a_cut_net_know_their_inputs():
    torch.manual_seed(0)
    net = classifier(normed(), max_epochs=10).fit(X, y)
    pruner = evolutionary_pruner(
        FrozenEstimator(net), max_params=0.3, finetune=False, **QUICK
    ).fit(X, y)
    train, held = (torch.from_numpy(X[rows]) for rows in split())
    # In training mode a batch norm takes the statistics of what it is given.
    fresh = copy.deepcopy(pruner.module_).train()
    for k in (1, 4):
        inputs = fresh[:k](train)
        torch.testing.assert_close(pruner.module_[k].running_mean, inputs.mean(0))
        torch.testing.assert_close(pruner.module_[k].running_var, inputs.var(0))
    # So it does in the fitness, with the examples of that.
    with torch.no_grad():
        p, q = net.module_.eval()(held).softmax(1), fresh(held).softmax(1)
    divergence = float((p * (p / q).log()).sum(1).mean())
    assert pruner.best_fitness_ == pytest.approx(-divergence, rel=1e-3)


def gap_of_means(module, X, y):
    """How far the second batch norm is from the mean of what it gets."""
    return -float((module[4].running_mean - module[:4](X).mean(0)).abs().max())


def test_own_fitness_sees_batch_norms_that_know_their_inputs(prune):
    torch.manual_seed(0)
    net = classifier(normed(), max_epochs=10).fit(X, y)
    pruner = prune(net, fitness=gap_of_means, max_params=0.3, finetune=False)
    # Not nothing: the variances of the first are those of a sample.
    assert pruner.history_["mean"].min() > -0.01


def test_more_outputs_than_classes(prune):
    rows = y != 1
    pruner = prune(dense(n_outputs=3), X=X[rows], y=y[rows])
    np.testing.assert_array_equal(pruner.classes_, [0, 1, 2])
    assert pruner.predict_proba(X).shape == (len(X), 3)
    assert pruner.score(X[rows], y[rows]) > 0.9
    names = np.array(["a", "b", "c"])[y]
    with pytest.raises(ValueError, match=r"2 classes.*3 outputs"):
        prune(dense(n_outputs=3), X=X[rows], y=names[rows])


def test_front_keeps_the_least_channels_and_has_nothing_twice(prune):
    pruner = prune(max_params=1.0, min_channels=6, finetune=False)
    genomes = pruner.pareto_front_["genomes"]
    widths = [[g[s].sum() for s in pruner.graph_.segments] for g in genomes]
    assert np.min(widths) == 6
    assert len(np.unique(genomes, axis=0)) == len(genomes)


@pytest.mark.parametrize("settings", [
    {"iterator_train__drop_last": True, "batch_size": 128},
    {"iterator_train__drop_last": True, "iterator_train__batch_size": 128},
])  # fmt: skip
def test_training_without_a_batch_is_named(prune, settings):
    with pytest.raises(ValueError, match="no batch came to the loss"):
        prune(dense(**settings))


def test_a_single_fitness_example_with_batch_norm(prune):
    pruner = prune(classifier(normed(), max_epochs=2), n_fitness_samples=1)
    assert np.isfinite(pruner.best_fitness_)


def test_diverged_nets_are_named(prune):
    with pytest.raises(ValueError, match="has diverged"):
        prune(dense(optimizer=torch.optim.SGD, lr=1e30))


def test_diverging_fine_tuning_keeps_the_cut_net(prune, trained):
    hot = dense(optimizer=torch.optim.SGD, lr=1e30).initialize()
    hot.module_.load_state_dict(trained.module_.state_dict())
    hot.check_data(X, y)
    cut = prune(finetune=False)
    for weight in ("auto", 0.0, 0.7):
        with pytest.warns(ConvergenceWarning, match="smaller lr of the net"):
            tuned = prune(hot, finetune_epochs=3, distill_weight=weight)
        np.testing.assert_array_equal(tuned.predict_proba(X), cut.predict_proba(X))
        assert tuned.distill_weight_ is None
        assert tuned.report_.note.startswith("kept as it was cut")


@pytest.mark.parametrize(("settings", "message"), [
    ({"max_params": 1.5}, "a budget of 1.5"),
    ({"elitism": 6}, "leaves no room"),
    ({"crossover_rate": 0.8}, "sum to more than 1"),
])  # fmt: skip
def test_settings_are_checked_before_the_training(prune, settings, message):
    class Never(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            raise AssertionError("trained")

    with pytest.raises(ValueError, match=message):
        prune(dense(callbacks=[Never()]), **settings)


def test_files_of_the_user_stay_as_they_are(prune, tmp_path):
    torch.manual_seed(0)
    keeper = Checkpoint(dirname=tmp_path, monitor=None)
    net = dense(max_epochs=2, callbacks=[keeper, LoadInitState(keeper)]).fit(X, y)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    pruner = prune(net)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert not pruner.estimator_.callbacks


@pytest.mark.parametrize("kind", [NeuralNetBinaryClassifier, NeuralNet])
def test_other_kinds_of_nets_are_refused(kind):
    net = kind(nn.Linear(4, 3), criterion=nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match="take a NeuralNetClassifier"):
        evolutionary_pruner(net, max_params=0.5).fit(X, y)


def test_regressor_that_cannot_take_X(prune):
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    net = regressor(module, callbacks=None).fit(X[:, :3], X[:, 3:])
    with pytest.raises(ValueError, match=r"cannot take X of shape \(n, 4\)"):
        prune(net, y=X[:, 3])


def test_a_fit_of_the_other_kind_forgets_the_classes(trained):
    pruner = evolutionary_pruner(FrozenEstimator(trained), max_params=0.5, **QUICK)
    pruner.fit(X, y)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    pruner.set_params(estimator=regressor(module, max_epochs=2)).fit(X, X[:, 0])
    assert not hasattr(pruner, "classes_")
    assert pruner.predict(X).shape == (len(X),)


def test_verbose_says_every_generation(prune, capsys):
    history = prune(verbose=1, finetune=False).history_["best"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"generation {k}: best fitness {best:.5g}" for k, best in enumerate(history)
    ]


def test_dropping_a_last_example_leaves_no_setting(prune):
    # 113 examples to train on, in batches of 16.
    pruner = prune(classifier(normed(), batch_size=16, max_epochs=1))
    for net in (pruner.estimator_, pruner.base_estimator_):
        assert "iterator_train__drop_last" not in net.get_params()


def test_front_does_not_follow_a_net_that_is_trained_on(prune):
    torch.manual_seed(0)
    net = dense().fit(X, y)
    pruner = prune(net, finetune=False)
    before = pruner.at(max_params=0.4).predict_proba(X)
    net.partial_fit(X, 2 - y)
    np.testing.assert_array_equal(pruner.at(max_params=0.4).predict_proba(X), before)


def test_global_generator_of_numpy_and_splits(prune):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    net = dense(train_split=ValidSplit(0.2), max_epochs=2)
    torch.manual_seed(0)
    first, second = prune(net), prune(net)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


def test_nothing_of_zero_is_drawn():
    report = {"parameters": 8, "MACs": 0}
    display = CompressionDisplay(report, {"parameters": 2, "MACs": 0}).plot()
    assert [bar.get_width() for bar in display.ax_.patches] == [0.25]


def test_front_of_a_pickled_pruner(prune):
    pruner = prune()
    again = pickle.loads(pickle.dumps(pruner))
    found, expected = (p.at(max_params=0.5).predict_proba(X) for p in (again, pruner))
    np.testing.assert_array_equal(found, expected)
