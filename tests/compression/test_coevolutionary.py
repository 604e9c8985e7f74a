"""Two generators made small together."""

import copy
import hashlib
import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import (
    Callback,
    Checkpoint,
    LoadInitState,
    TrainEndCheckpoint,
)
from torch import nn

from sklcomp.compression import CoEvolutionaryPruner, _coevolutionary
from sklcomp.compression._finetuning import Figures
from sklcomp.compression._pruning import PruningProblem
from sklcomp.compression._translation_fitness import Direction
from sklcomp.datasets import make_unpaired_digits
from sklcomp.inspection import EvolutionDisplay
from sklcomp.nn import (
    CycleGANGenerator,
    PatchDiscriminator,
    count_macs,
    count_parameters,
    prune_channels,
    trace_channels,
)
from sklcomp.translation import CycleGANTranslator

QUICK = {"population_size": 4, "n_generations": 2, "finetune_epochs": 1,
         "random_state": 0}  # fmt: skip
SMALL = {"n_filters": 4, "n_blocks": 1, "batch_size": 8, "max_epochs": 2}


@pytest.fixture(scope="module")
def digits():
    return make_unpaired_digits(40, image_size=8, random_state=0)


@pytest.fixture(scope="module")
def trained(digits):
    translator = CycleGANTranslator(digits.image_shape, random_state=0, **SMALL)
    return translator.fit(digits.data, digits.target)


@pytest.fixture(scope="module")
def pruned(digits, trained):
    pruner = CoEvolutionaryPruner(FrozenEstimator(trained), max_params=0.4, **QUICK)
    return pruner.fit(digits.data, digits.target)


def fingerprint(module):
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest(), module.training


def problem(module, X, **settings):
    settings = {
        "max_params": None, "max_macs": None, "importance": "l1", "compensate": False,
        "ignored_layers": (), "min_channels": 1, "rng": np.random.default_rng(0),
    } | settings  # fmt: skip
    return PruningProblem(module, X, **settings)


def make_pair(seed=0):
    torch.manual_seed(seed)
    modules = CycleGANGenerator(4, 1), CycleGANGenerator(4, 1), PatchDiscriminator(4, 1)
    return *(module.eval() for module in modules), torch.rand(6, 3, 8, 8) * 2 - 1


# --- the generators' channels


def test_channels_last_are_traced_alike():
    net, X = CycleGANGenerator(4, 1).eval(), torch.rand(2, 3, 16, 16)
    last = X.contiguous(memory_format=torch.channels_last)
    expected, found = trace_channels(net, X), trace_channels(net, last)
    assert found.frozen == expected.frozen
    for layer, genes in expected.layers.items():
        np.testing.assert_array_equal(found.layers[layer], genes)


# --- fitness


def test_full_generator_is_judged_by_its_cycle_alone():
    ab, ba, discriminator, X = make_pair()
    problems = problem(ab, X), problem(ba, X)
    fitness = Direction(*problems, discriminator, X, gamma=None, cycle_weight=1.0,
                        train=None)  # fmt: skip
    everything = np.ones(problems[0].graph.n_genes, bool)
    cycle = (ba(ab(X)) - X).square().mean().item()
    assert fitness(everything, None) == pytest.approx(-cycle, rel=1e-5)
    assert fitness(everything, everything) == pytest.approx(-cycle, rel=1e-5)


@pytest.mark.parametrize("has_partner", [False, True])
def test_published_objective(rng, has_partner):
    ab, ba, discriminator, X = make_pair()
    problems = problem(ab, X), problem(ba, X)
    fitness = Direction(*problems, discriminator, X, gamma=7.0, cycle_weight=3.0,
                        train=None)  # fmt: skip
    genome, partner = rng.random((2, problems[0].graph.n_genes)) < 0.7
    small = prune_channels(ab, problems[0].graph, genome)
    back = prune_channels(ba, problems[1].graph, partner)
    with torch.no_grad():
        scores = [discriminator(net(X)).mean((1, 2, 3)) for net in (ab, small)]
        judged = (scores[0] - scores[1]).square().mean().item()
        cycle = (back(small(X)) - X).square().mean().item() if has_partner else 0.0
    share = count_parameters(small) / count_parameters(ab)
    found = fitness(genome, partner if has_partner else None)
    expected = 1 / (share + 7.0 * (judged + 3.0 * cycle))
    assert found == pytest.approx(expected, rel=1e-4)


def test_repair_is_better_than_plain_cutting(trained, digits):
    a = trained._layout.to_tensor(digits.data_a)
    b = trained._layout.to_tensor(digits.data_b)
    found = []
    for compensate in (False, True):
        problems = [
            problem(net, X, compensate=compensate)
            for net, X in ((trained.generator_ab_, a), (trained.generator_ba_, b))
        ]
        fitness = Direction(*problems, trained.discriminator_b_, a, gamma=None,
                            cycle_weight=1.0, train=None)  # fmt: skip
        half = problems[0].uniform(0.5)
        found.append(fitness(half, half))
    assert found[1] > found[0]


# --- the estimator


def test_budgets_are_kept_by_each_generator(digits, trained, pruned):
    for full, small in (
        (trained.generator_ab_, pruned.estimator_.generator_ab_),
        (trained.generator_ba_, pruned.estimator_.generator_ba_),
    ):
        assert count_parameters(small) <= 0.4 * count_parameters(full)
    settings = {"max_macs": 0.5, **QUICK}
    other = CoEvolutionaryPruner(FrozenEstimator(trained), **settings)
    other.fit(digits.data, digits.target)
    macs = [
        count_macs(translator.generator_ab_, (3, 8, 8))
        for translator in (other.estimator_, trained)
    ]
    assert macs[0] <= 0.5 * macs[1]


def test_result_is_plain(digits, pruned):
    small = pruned.estimator_
    assert type(small) is CycleGANTranslator
    assert type(small.net_).__name__ == "CycleGANNet"
    assert small is pruned.translator_
    assert type(small.generator_ab_) is CycleGANGenerator
    assert not any(part._forward_hooks for part in small.generator_ab_.modules())
    np.testing.assert_array_equal(
        pruned.transform(digits.data_a), small.transform(digits.data_a)
    )
    np.testing.assert_array_equal(
        pruned.inverse_transform(digits.data_b), small.inverse_transform(digits.data_b)
    )
    assert pruned.score(digits.data, digits.target) == small.score(
        digits.data, digits.target
    )


def test_small_translator_learns_on(digits, pruned):
    again = clone(pruned.estimator_).set_params(max_epochs=1)
    again.fit(digits.data, digits.target)
    assert count_parameters(again.generator_ab_) == count_parameters(
        pruned.estimator_.generator_ab_
    )


def test_kept_channels_are_those_of_the_generators(trained, pruned):
    for side in ("ab", "ba"):
        kept = getattr(pruned, f"kept_channels_{side}_")
        small = getattr(pruned.estimator_, f"generator_{side}_")
        full = getattr(trained, f"generator_{side}_")
        assert (
            kept.keys() == trace_channels(full, torch.zeros(1, 3, 8, 8)).layers.keys()
        )
        for layer, channels in kept.items():
            assert small.get_submodule(layer).bias.shape == (len(channels),)


def test_report_is_of_both(digits, trained, pruned):
    both = [
        sum(count_parameters(getattr(t, f"generator_{side}_")) for side in ("ab", "ba"))
        for t in (trained, pruned.estimator_)
    ]
    report = pruned.report_
    assert [report.before["parameters"], report.after["parameters"]] == both
    assert report.ratio("parameters") == both[1] / both[0] <= 0.4
    assert -1 < report.before["training score"] < 0


def test_front_spans_all_sizes(trained, pruned):
    for side, front in pruned.pareto_front_.items():
        full = count_parameters(getattr(trained, f"generator_{side}_"))
        assert front["n_parameters"].min() < 0.3 * full
        assert front["n_parameters"].max() == full


def test_front_is_not_dominated(pruned):
    for front in pruned.pareto_front_.values():
        sizes = np.column_stack([front["n_parameters"], front["n_macs"]])
        for k, fitness in enumerate(front["fitness"]):
            better = (front["fitness"] >= fitness) & (sizes <= sizes[k]).all(axis=1)
            better &= (front["fitness"] > fitness) | (sizes < sizes[k]).any(axis=1)
            assert not better.any()


@pytest.mark.parametrize("side", ["ab", "ba"])
def test_display_shows_a_generator(pruned, side):
    display = EvolutionDisplay.from_estimator(pruned, side=side)
    best = display.ax_[0].lines[0].get_ydata()
    np.testing.assert_array_equal(best, pruned.history_[f"best_{side[0]}"])
    small = getattr(pruned.estimator_, f"generator_{side}_")
    assert display.best[0] == count_parameters(small)
    assert display.widths["layers.0"] == (small.layers[0].out_channels, 4)


def test_teacher_stays_as_it_is(digits, trained):
    names = "generator_ab_", "generator_ba_", "discriminator_a_", "discriminator_b_"
    before = [fingerprint(getattr(trained, name)) for name in names]
    X = digits.data.copy()
    X.setflags(write=False)
    state = torch.get_rng_state()
    CoEvolutionaryPruner(FrozenEstimator(trained), max_params=0.5, **QUICK).fit(
        X, digits.target
    )
    assert [fingerprint(getattr(trained, name)) for name in names] == before
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(X, digits.data)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_same_seed_same_result(digits, trained, pruned, n_jobs):
    again = clone(pruned).set_params(n_jobs=n_jobs).fit(digits.data, digits.target)
    np.testing.assert_array_equal(
        again.transform(digits.data_a), pruned.transform(digits.data_a)
    )


def test_paper_preset_sets_its_form(digits, trained):
    settings = {"preset": "paper", "gamma": 5.0, **QUICK}
    pruner = CoEvolutionaryPruner(FrozenEstimator(trained), **settings)
    pruner.fit(digits.data, digits.target)
    # One width for the trunk and its branches, and no distillation.
    widths = {
        len(channels)
        for layer, channels in pruner.kept_channels_ab_.items()
        if "body" in layer or layer == "layers.6"
    }
    assert len(widths) == 1
    assert not any(name.startswith("distill") for name in pruner.estimator_.history_)


def test_unfitted_translator_is_trained_first(digits):
    X, y = digits.data, digits.target
    translator = CycleGANTranslator(digits.image_shape, random_state=3, **SMALL)
    pruner = CoEvolutionaryPruner(translator, max_params=0.5, **QUICK).fit(X, y)
    assert not hasattr(translator, "net_")
    expected = clone(translator).fit(X, y).transform(digits.data_a)
    np.testing.assert_array_equal(
        pruner.base_translator_.transform(digits.data_a), expected
    )


def test_images_of_both_domains(digits, trained, pruned):
    again = clone(pruned).fit(digits.data_a, digits.data_b)
    np.testing.assert_array_equal(
        again.transform(digits.data_a), pruned.transform(digits.data_a)
    )


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_tuning_listens_to_the_full_generators(digits, trained, weight):
    settings = QUICK | {"distill_weight": weight, "finetune_epochs": 3}
    pruner = CoEvolutionaryPruner(FrozenEstimator(trained), max_params=0.4, **settings)
    pruner.fit(digits.data, digits.target)
    history = pruner.estimator_.history_
    assert len(history["cycle_a"]) == 3
    assert ("distill_ab" in history) == (weight > 0)


def test_worse_by_tuning_is_not_kept(digits, trained, monkeypatch):
    settings = QUICK | {"finetune_epochs": 0}
    plain = CoEvolutionaryPruner(FrozenEstimator(trained), max_params=0.4, **settings)
    plain.fit(digits.data, digits.target)
    wild = clone(trained).set_params(lr=1.0)
    wild.__dict__.update(
        {k: v for k, v in vars(trained).items() if k.endswith("_") or k == "_layout"}
    )
    pruner = CoEvolutionaryPruner(FrozenEstimator(wild), max_params=0.4, **QUICK)
    with pytest.warns(ConvergenceWarning, match=r"made them worse: error of .* -> "):
        pruner.fit(digits.data, digits.target)
    assert pruner.report_.note.startswith("kept as they were cut: error of cycles")
    assert plain.report_.note == ""
    np.testing.assert_array_equal(
        pruner.transform(digits.data_a), plain.transform(digits.data_a)
    )


def test_trained_candidates(digits, trained):
    settings = QUICK | {"population_size": 2, "n_generations": 1, "finetune_epochs": 0}

    def best(lr=trained.lr, n_jobs=1, **more):
        base = copy.deepcopy(trained).set_params(lr=lr)
        pruner = CoEvolutionaryPruner(
            FrozenEstimator(base), max_params=0.4, n_jobs=n_jobs, **settings, **more
        ).fit(digits.data, digits.target)
        return np.stack([pruner.history_[f"best_{side}"] for side in "ab"], axis=1)

    plain, learned = best(), best(fitness_epochs=1)
    np.testing.assert_array_equal(best(fitness_epochs=1, n_jobs=2), learned)
    # The first generation has no partners to be trained with; the second is of the
    # same genomes, trained or not. Steps of no length change nothing.
    np.testing.assert_allclose(learned[0], plain[0], rtol=1e-5)
    assert (np.abs(learned[1] / plain[1] - 1) > 1e-4).all()
    np.testing.assert_allclose(best(fitness_epochs=1, lr=1e-30), plain, rtol=1e-5)


def test_pipeline_grid_search_and_pickle(digits, trained):
    pruner = CoEvolutionaryPruner(FrozenEstimator(trained), **QUICK)
    pipeline = make_pipeline(FunctionTransformer(), pruner)
    grid = {"coevolutionarypruner__max_params": [0.3, 0.6]}
    search = GridSearchCV(pipeline, grid, cv=StratifiedKFold(2), error_score="raise")
    search.fit(digits.data, digits.target)
    assert search.best_params_["coevolutionarypruner__max_params"] in (0.3, 0.6)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(
        again.transform(digits.data_a), search.transform(digits.data_a)
    )
    with pytest.raises(NotFittedError):
        clone(search.best_estimator_[-1]).transform(digits.data_a)


def test_nested_parameters_reach_the_translator(digits):
    translator = CycleGANTranslator(digits.image_shape, **SMALL)
    pruner = CoEvolutionaryPruner(translator, max_params=0.5, **QUICK)
    pruner.set_params(translator__n_filters=6).fit(digits.data, digits.target)
    first = pruner.base_translator_.generator_ab_.layers[0]
    assert first.out_channels == 6


@pytest.mark.parametrize("phase", ["base", "search", "tuning"])
def test_interrupted_and_resumed_is_uninterrupted(digits, tmp_path, phase, monkeypatch):
    X, y = digits.data, digits.target
    translator = CycleGANTranslator(digits.image_shape, random_state=1, **SMALL)
    settings = {"max_params": 0.5, **QUICK, "finetune_epochs": 2}
    whole = CoEvolutionaryPruner(translator, **settings).fit(X, y)
    saved = CoEvolutionaryPruner(
        translator, checkpoint=tmp_path, warm_start=True, **settings
    )
    with monkeypatch.context() as patch:
        calls = []
        target, at = {
            "base": ((CycleGANTranslator, "_name_results"), 1),
            "search": ((Direction, "__call__"), 14),
            "tuning": ((CycleGANTranslator, "_name_results"), 2),
        }[phase]
        original = getattr(*target)

        def interrupting(*args, **kwargs):
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        patch.setattr(*target, interrupting)
        with pytest.raises(KeyboardInterrupt):
            saved.fit(X, y)
        assert not hasattr(saved, "estimator_")
    rest = clone(saved).fit(X, y)
    np.testing.assert_array_equal(
        rest.transform(digits.data_a), whole.transform(digits.data_a)
    )
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "search.npz", "training.pt", "training.pt",
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_broken_checkpoint_is_named(digits, trained, tmp_path, content):
    (tmp_path / "search.npz").write_bytes(content)
    pruner = CoEvolutionaryPruner(
        FrozenEstimator(trained), max_params=0.5, checkpoint=tmp_path, warm_start=True,
        **QUICK,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"search.npz is no state of a fit"):
        pruner.fit(digits.data, digits.target)


def test_unwritable_checkpoint_is_found_before_the_training(digits, trained, tmp_path):
    (tmp_path / "file").write_text("")
    pruner = CoEvolutionaryPruner(
        FrozenEstimator(trained), max_params=0.5, checkpoint=tmp_path / "file", **QUICK
    )
    with pytest.raises(OSError, match="file"):
        pruner.fit(digits.data, digits.target)


def test_errors_in_the_fitness_name_the_generation(digits, trained, monkeypatch):
    monkeypatch.setattr(Direction, "_judge", lambda *_: 1 / 0)
    original = Direction.__init__

    def without_judging(self, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(Direction, "_judge", lambda self, X: X.flatten(1).mean(1))
            original(self, *args, **kwargs)

    monkeypatch.setattr(Direction, "__init__", without_judging)
    pruner = CoEvolutionaryPruner(FrozenEstimator(trained), max_params=0.5, **QUICK)
    with pytest.raises(ZeroDivisionError) as caught:
        pruner.fit(digits.data, digits.target)
    assert caught.value.__notes__ == ["while generation 0 was evaluated"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, 'give a budget, such as max_params=0.3, or take preset="paper"'),
        ({"max_params": 0.0001}, r"max_params=.* cannot be reached.*are left"),
        ({"max_macs": 3}, "max_macs=3 cannot be reached"),
        ({"max_params": 0.5, "population_size": 1}, "population_size"),
        ({"max_params": 0.5, "crossover_rate": 0.9}, "sum to more than 1"),
    ],
)
def test_bad_settings(digits, trained, settings, message):
    pruner = CoEvolutionaryPruner(FrozenEstimator(trained), **QUICK | settings)
    with pytest.raises(ValueError, match=message):
        pruner.fit(digits.data, digits.target)
    assert not hasattr(pruner, "estimator_")


def test_unfitted_frozen_translator_is_named(digits):
    frozen = FrozenEstimator(CycleGANTranslator(digits.image_shape))
    pruner = CoEvolutionaryPruner(frozen, max_params=0.5)
    with pytest.raises(ValueError, match="is no fitted CycleGANTranslator"):
        pruner.fit(digits.data, digits.target)


def test_other_images_than_the_translator_knows(digits, trained):
    pruner = CoEvolutionaryPruner(FrozenEstimator(trained), max_params=0.5, **QUICK)
    with pytest.raises(ValueError, match="expecting 192 features"):
        pruner.fit(digits.data[:, :100], digits.target)
    with pytest.raises(ValueError, match="NaN"):
        pruner.fit(np.full_like(digits.data, np.nan), digits.target)


def test_one_domain_is_not_enough(digits, trained):
    pruner = CoEvolutionaryPruner(FrozenEstimator(trained), max_params=0.5, **QUICK)
    with pytest.raises(ValueError, match="1 class"):
        pruner.fit(digits.data_a, np.zeros(len(digits.data_a)))


def test_vectors(rng):
    X = np.r_[rng.normal(0, 1, (60, 5)), rng.normal(3, 1, (60, 5))]
    y = np.repeat(["there", "here"], 60)
    translator = CycleGANTranslator(n_filters=16, batch_size=16, max_epochs=3)
    pruner = CoEvolutionaryPruner(translator, max_params=0.5, **QUICK).fit(X, y)
    assert pruner.report_.ratio("parameters") <= 0.5
    assert pruner.transform(X).shape == X.shape


# --- networks, translators and settings of users


class ViewingDiscriminator(nn.Module):
    """Takes no images with channels last."""

    def __init__(self, n_channels):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, 4, 3, padding=1)
        self.score = nn.Linear(256, 1)

    def forward(self, x):
        return self.score(self.conv(x).view(len(x), -1))


class FlatDiscriminator(ViewingDiscriminator):
    """Gives a number for each image, without an axis for it."""

    def forward(self, x):
        return self.score(self.conv(x).flatten(1)).squeeze(1)


class NormedDiscriminator(nn.Sequential):
    def __init__(self, n_channels):
        super().__init__(
            nn.Conv2d(n_channels, 4, 3), nn.BatchNorm2d(4), nn.Dropout(),
            nn.Conv2d(4, 1, 3),
        )  # fmt: skip


class NormedGenerator(nn.Sequential):
    def __init__(self, n_channels=3):
        super().__init__(
            nn.Conv2d(n_channels, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, n_channels, 3, padding=1), nn.Tanh(),
        )  # fmt: skip


class CountEpochs(Callback):
    n_seen = 0

    def on_epoch_end(self, net, **kwargs):
        self.n_seen += 1


def fit_translator(digits, **settings):
    translator = CycleGANTranslator(digits.image_shape, random_state=0, **SMALL)
    return translator.set_params(**settings).fit(digits.data, digits.target)


def prune(digits, translator, **settings):
    """A pruner that is fitted to a frozen translator."""
    settings = {"max_params": 0.4, **QUICK} | settings
    pruner = CoEvolutionaryPruner(FrozenEstimator(translator), **settings)
    return pruner.fit(digits.data, digits.target)


@pytest.mark.parametrize("kind", [ViewingDiscriminator, FlatDiscriminator])
def test_discriminators_of_users(digits, kind):
    pruner = prune(digits, fit_translator(digits, discriminator=kind))
    assert pruner.report_.ratio("parameters") <= 0.4


def test_fitness_is_that_of_the_finished_network(rng):
    torch.manual_seed(0)
    X = torch.rand(6, 3, 8, 8) * 2 - 1
    problems = [
        problem(NormedGenerator().eval(), X, compensate=True, importance="group")
        for _ in range(2)
    ]
    fitness = Direction(*problems, PatchDiscriminator(4, 1), X, gamma=None,
                        cycle_weight=1.0, train=None)  # fmt: skip
    half = problems[0].uniform(0.5)
    torch.testing.assert_close(
        fitness._decode(problems[0], half)(X), problems[0].finish(half)(X)
    )


def test_discriminators_in_training_are_left_alone(digits):
    translator = fit_translator(digits, discriminator=NormedDiscriminator)
    expected = prune(digits, translator, finetune_epochs=0).history_
    translator.discriminator_a_.train()
    translator.generator_ba_.train()
    before = fingerprint(translator.discriminator_a_)
    threads = prune(digits, translator, n_jobs=8, population_size=12, finetune_epochs=0)
    assert fingerprint(translator.discriminator_a_) == before
    assert all(part.training for part in translator.discriminator_a_.modules())
    assert all(part.training for part in translator.generator_ba_.modules())
    again = prune(digits, translator, finetune_epochs=0)
    np.testing.assert_array_equal(again.history_["best_b"], expected["best_b"])
    assert np.isfinite(threads.history_["best_b"]).all()


def test_settings_of_modules_do_not_make_them_anew(digits):
    # skorch makes a network again if it has arguments for it.
    settings = {"module__n_filters": 6, "module__n_blocks": 1}
    translator = fit_translator(digits, net_params=settings)
    small = prune(digits, translator).estimator_
    sizes = [count_parameters(t.generator_ab_) for t in (small, translator)]
    assert sizes[0] <= 0.4 * sizes[1]


def test_epochs_of_the_tuning_are_not_those_of_the_net(digits):
    translator = fit_translator(digits, max_epochs=9, net_params={"max_epochs": 2})
    assert translator.n_iter_ == 2
    small = prune(digits, translator, finetune_epochs=0).estimator_
    assert small.n_iter_ == 0
    assert small.fit(digits.data, digits.target).n_iter_ == 2


@pytest.mark.parametrize("settings", [{}, {"fitness_epochs": 1, "n_generations": 1}])
def test_callbacks_of_the_translator_are_its_own(digits, settings):
    counter = CountEpochs()
    translator = fit_translator(digits, net_params={"callbacks": [("n", counter)]})
    assert counter.n_seen == 2
    prune(digits, translator, **settings)
    assert counter.n_seen == 2


@pytest.mark.parametrize("settings", [{}, {"fitness_epochs": 1, "n_generations": 1}])
def test_files_of_the_user_are_left_alone(digits, tmp_path, settings):
    kept = Checkpoint(dirname=tmp_path / "best", monitor=None)
    callbacks = [kept, LoadInitState(kept), TrainEndCheckpoint(dirname=tmp_path)]
    translator = fit_translator(digits, net_params={"callbacks": callbacks})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = [path.read_bytes() for path in files]
    small = prune(digits, translator, **settings).estimator_
    small.fit(digits.data, digits.target)
    assert [path.read_bytes() for path in files] == before
    assert len(files) == 8
    assert len(translator.net_params["callbacks"]) == 3


class Halving(nn.Module):
    """A network that may begin by overwriting what it is given."""

    def __init__(self, network, overwrites):
        super().__init__()
        self.network, self.overwrites = network, overwrites

    def forward(self, x):
        return self.network(x.mul_(0.5) if self.overwrites else x * 0.5)


@pytest.mark.parametrize("where", ["generator", "discriminator"])
def test_networks_may_overwrite_what_they_are_given(where):
    # Of images with one channel, those with channels last share the memory.
    digits = make_unpaired_digits(20, image_size=8, random_state=0)
    digits.data, digits.image_shape = digits.data[:, :64], (8, 8)
    torch.manual_seed(0)
    network = {
        "generator": CycleGANGenerator(4, 1, n_channels=1),
        "discriminator": PatchDiscriminator(4, 1, 1),
    }[where]
    found, want = (
        prune(digits, fit_translator(digits, **{where: Halving(network, overwrites)}))
        for overwrites in (True, False)
    )
    for name in ("best_a", "best_b"):
        np.testing.assert_array_equal(found.history_[name], want.history_[name])
    X = digits.data
    np.testing.assert_array_equal(found.transform(X), want.transform(X))
    for side in ("before", "after"):
        scores = [getattr(one.report_, side)["training score"] for one in (found, want)]
        assert scores[0] == scores[1]


def test_frozen_weights_can_be_trained_on(digits, trained):
    frozen = copy.deepcopy(trained)
    for side in ("ab", "ba"):
        getattr(frozen, f"generator_{side}_").requires_grad_(False)
    np.testing.assert_array_equal(
        prune(digits, frozen).transform(digits.data_a),
        prune(digits, trained).transform(digits.data_a),
    )
    assert not any(p.requires_grad for p in frozen.generator_ab_.parameters())


def test_parameters_of_the_result_are_copies(digits, trained):
    small = prune(digits, trained).estimator_
    with torch.no_grad():
        small.generator_ab_.layers[0].weight.zero_()
        small.discriminator_b_.layers[0].weight.zero_()
    assert small.generator[0].layers[0].weight.all()
    assert small.discriminator[1].layers[0].weight.all()


def test_training_that_breaks_leaves_the_pair(digits, trained):
    wild = copy.deepcopy(trained).set_params(lr=1e30)
    with pytest.warns(ConvergenceWarning, match=r"became nan.*choose a smaller lr"):
        pruner = prune(digits, wild)
    assert pruner.report_.note == "kept as they were cut: the training has diverged"
    plain = prune(digits, trained, finetune_epochs=0)
    np.testing.assert_array_equal(
        pruner.transform(digits.data_a), plain.transform(digits.data_a)
    )
    # An individual is scored as it was cut.
    tuned = prune(digits, wild, fitness_epochs=1, finetune_epochs=0)
    np.testing.assert_array_equal(tuned.history_["best_a"], plain.history_["best_a"])


def test_unknown_closeness_is_not_kept(digits, trained, monkeypatch):
    plain = prune(digits, trained, finetune_epochs=0)
    unknown = Figures(np.nan, np.nan)
    monkeypatch.setattr(_coevolutionary, "closeness", lambda *_: unknown)
    with pytest.warns(ConvergenceWarning, match="left as they were cut"):
        pruner = prune(digits, trained)
    np.testing.assert_array_equal(
        pruner.transform(digits.data_a), plain.transform(digits.data_a)
    )


@pytest.mark.parametrize("after", [Figures(2.0, -0.4), Figures(0.9, -0.6)])
def test_pair_that_is_better_in_one_way_is_kept(digits, trained, monkeypatch, after):
    figures = iter([Figures(1.0, -0.5), after])
    monkeypatch.setattr(_coevolutionary, "closeness", lambda *_: next(figures))
    pruner = prune(digits, trained)
    assert pruner.estimator_.n_iter_ == 1
    assert pruner.report_.note.startswith("fine-tuned: error of cycles")


def test_trained_candidates_in_a_parallel_context(digits, trained):
    settings = {"fitness_epochs": 1, "n_generations": 1, "finetune_epochs": 0}
    with joblib.parallel_config("threading", n_jobs=4):
        first = prune(digits, trained, **settings).history_
    second = prune(digits, trained, **settings).history_
    np.testing.assert_array_equal(first["best_a"], second["best_a"])


def test_report_has_the_score_of_images_without_padding():
    # Three images are too few to hold any out.
    digits = make_unpaired_digits(3, image_size=9, random_state=0)
    translator = fit_translator(digits)
    pruner = prune(digits, translator)
    for row, one in (
        (pruner.report_.before, translator), (pruner.report_.after, pruner)
    ):  # fmt: skip
        score = one.score(digits.data, digits.target)
        assert row["training score"] == pytest.approx(score, rel=1e-5)
        assert "score" not in row


def test_names_of_features_are_those_of_the_last_fit(digits):
    pd = pytest.importorskip("pandas")
    translator = CycleGANTranslator(digits.image_shape, random_state=0, **SMALL)
    pruner = CoEvolutionaryPruner(translator, max_params=0.5, **QUICK)
    names = [f"pixel{k}" for k in range(digits.data.shape[1])]
    pruner.fit(pd.DataFrame(digits.data, columns=names), digits.target)
    assert list(pruner.feature_names_in_) == names
    pruner.fit(digits.data, digits.target)
    assert not hasattr(pruner, "feature_names_in_")


def test_failed_fit_leaves_nothing_to_use(digits, trained):
    pruner = prune(digits, trained, finetune_epochs=0)
    with pytest.raises(ValueError, match="cannot be reached"):
        pruner.set_params(max_params=1e-6).fit(digits.data, digits.target)
    assert not hasattr(pruner, "estimator_")
    assert not hasattr(pruner, "translator_")


def test_translators_that_cannot_be_used(digits, trained):
    X, y = digits.data, digits.target
    with pytest.raises(ValueError, match=r"is a fitted .*FrozenEstimator\(translator"):
        CoEvolutionaryPruner(trained, max_params=0.5).fit(X, y)
    if not torch.cuda.is_available():
        moved = copy.deepcopy(trained).set_params(device="cuda")
        with pytest.raises(RuntimeError, match="device='cuda'.*Choose device=\"cpu\""):
            CoEvolutionaryPruner(FrozenEstimator(moved), max_params=0.5).fit(X, y)
    with pytest.raises(ValueError, match=r"2 classes: .*Domain A is "):
        prune(digits, trained, max_params=0.5).fit(X, np.where(y == y[0], "p", "q"))


# --- checkpoints of another fit


def resumed_and_fresh(digits, tmp_path, before, after, settings):
    """Fit with a first translator and settings, then another on its checkpoint."""
    saved = {"checkpoint": tmp_path, "warm_start": True}
    prune(digits, before[0], **settings, **before[1], **saved)
    return (
        prune(digits, after[0], **settings, **after[1], **kwargs)
        for kwargs in (saved, {})
    )


def test_checkpoint_of_another_distillation(digits, trained, tmp_path):
    first, second = resumed_and_fresh(
        digits, tmp_path, (trained, {"distill_weight": 10.0}),
        (trained, {"distill_weight": 0.0}), {"finetune_epochs": 3},
    )  # fmt: skip
    assert first.estimator_.history_.keys() == second.estimator_.history_.keys()


def test_checkpoint_of_other_discriminators(digits, trained, tmp_path):
    other = copy.deepcopy(trained)
    with torch.no_grad():
        for parameter in other.discriminator_b_.parameters():
            parameter.mul_(3)
    first, second = resumed_and_fresh(
        digits, tmp_path, (trained, {}), (other, {}), {"finetune_epochs": 0}
    )
    np.testing.assert_array_equal(first.history_["best_a"], second.history_["best_a"])


def test_checkpoint_of_other_trainings_of_individuals(digits, trained, tmp_path):
    other = copy.deepcopy(trained).set_params(lr=5e-3)
    settings = {"finetune_epochs": 0, "fitness_epochs": 1}
    first, second = resumed_and_fresh(
        digits, tmp_path, (trained, {}), (other, {}), settings
    )
    np.testing.assert_array_equal(first.history_["best_a"], second.history_["best_a"])


def test_checkpoint_of_the_pruner_is_no_setting_of_its_translators(digits, tmp_path):
    translator = CycleGANTranslator(digits.image_shape, **SMALL)
    pruner = CoEvolutionaryPruner(
        translator, max_params=0.5, checkpoint=tmp_path, warm_start=True, **QUICK
    ).fit(digits.data, digits.target)
    for one in (pruner.base_translator_, pruner.estimator_):
        assert one.checkpoint is None
        assert not one.warm_start
