"""Two generators made small together."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklcomp.compression.search._pair_fitness import Direction
from sklcomp.datasets import make_unpaired_digits
from sklcomp.inspection import EvolutionDisplay
from sklcomp.nn import (
    CycleGANGenerator,
    count_macs,
    count_parameters,
    prune_channels,
    trace_channels,
)
from sklcomp.translation import CycleGANTranslator
from tests.helpers.pairs import (
    QUICK,
    SMALL,
    fingerprint,
    make_pair,
    problem,
)
from tests.helpers.recipes import coevolutionary_pruner


@pytest.fixture(scope="module")
def digits():
    return make_unpaired_digits(40, image_size=8, random_state=0)


@pytest.fixture(scope="module")
def trained(digits):
    translator = CycleGANTranslator(digits.image_shape, random_state=0, **SMALL)
    return translator.fit(digits.data, digits.target)


@pytest.fixture(scope="module")
def pruned(digits, trained):
    pruner = coevolutionary_pruner(FrozenEstimator(trained), max_params=0.4, **QUICK)
    return pruner.fit(digits.data, digits.target)


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
    fitness = Direction(
        *problems, discriminator, X, gamma=None, cycle_weight=1.0, train=None
    )
    everything = np.ones(problems[0].graph.n_genes, bool)
    cycle = (ba(ab(X)) - X).square().mean().item()
    assert fitness(everything, None) == pytest.approx(-cycle, rel=1e-5)
    assert fitness(everything, everything) == pytest.approx(-cycle, rel=1e-5)


@pytest.mark.parametrize("has_partner", [False, True])
def test_published_objective(rng, has_partner):
    ab, ba, discriminator, X = make_pair()
    problems = problem(ab, X), problem(ba, X)
    fitness = Direction(
        *problems, discriminator, X, gamma=7.0, cycle_weight=3.0, train=None
    )
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
    a = trained.layout_.to_tensor(digits.data_a)
    b = trained.layout_.to_tensor(digits.data_b)
    found = []
    for compensate in (False, True):
        problems = [
            problem(net, X, compensate=compensate)
            for net, X in ((trained.generator_ab_, a), (trained.generator_ba_, b))
        ]
        fitness = Direction(
            *problems,
            trained.discriminator_b_,
            a,
            gamma=None,
            cycle_weight=1.0,
            train=None,
        )
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
    other = coevolutionary_pruner(FrozenEstimator(trained), **settings)
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
    coevolutionary_pruner(FrozenEstimator(trained), max_params=0.5, **QUICK).fit(
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


def test_the_published_recipe_has_its_form(digits, trained):
    settings = {"recipe": "paper", "gamma": 5.0, **QUICK}
    pruner = coevolutionary_pruner(FrozenEstimator(trained), **settings)
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
    pruner = coevolutionary_pruner(translator, max_params=0.5, **QUICK).fit(X, y)
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
    pruner = coevolutionary_pruner(FrozenEstimator(trained), max_params=0.4, **settings)
    pruner.fit(digits.data, digits.target)
    history = pruner.estimator_.history_
    assert len(history["cycle_a"]) == 3
    assert ("distill_ab" in history) == (weight > 0)


def test_worse_by_tuning_is_not_kept(digits, trained, monkeypatch):
    settings = QUICK | {"finetune_epochs": 0}
    plain = coevolutionary_pruner(FrozenEstimator(trained), max_params=0.4, **settings)
    plain.fit(digits.data, digits.target)
    wild = clone(trained).set_params(lr=1.0)
    wild.__dict__.update(
        {k: v for k, v in vars(trained).items() if k.endswith("_") or k == "layout_"}
    )
    pruner = coevolutionary_pruner(FrozenEstimator(wild), max_params=0.4, **QUICK)
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
        pruner = coevolutionary_pruner(
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
    pruner = coevolutionary_pruner(FrozenEstimator(trained), **QUICK)
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
    pruner = coevolutionary_pruner(translator, max_params=0.5, **QUICK)
    pruner.set_params(translator__n_filters=6).fit(digits.data, digits.target)
    first = pruner.base_translator_.generator_ab_.layers[0]
    assert first.out_channels == 6


def test_errors_in_the_fitness_name_the_generation(digits, trained, monkeypatch):
    monkeypatch.setattr(Direction, "_judge", lambda *_: 1 / 0)
    original = Direction.__init__

    def without_judging(self, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(Direction, "_judge", lambda self, X: X.flatten(1).mean(1))
            original(self, *args, **kwargs)

    monkeypatch.setattr(Direction, "__init__", without_judging)
    pruner = coevolutionary_pruner(FrozenEstimator(trained), max_params=0.5, **QUICK)
    with pytest.raises(ZeroDivisionError) as caught:
        pruner.fit(digits.data, digits.target)
    assert caught.value.__notes__ == ["while generation 0 was evaluated"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, 'give a budget, such as max_params=0.3, or take recipe="paper"'),
        ({"max_params": 0.0001}, r"max_params=.* cannot be reached.*are left"),
        ({"max_macs": 3}, "max_macs=3 cannot be reached"),
        ({"max_params": 0.5, "population_size": 1}, "population_size"),
        ({"max_params": 0.5, "crossover_rate": 0.9}, "sum to more than 1"),
    ],
)
def test_bad_settings(digits, trained, settings, message):
    pruner = coevolutionary_pruner(FrozenEstimator(trained), **QUICK | settings)
    with pytest.raises(ValueError, match=message):
        pruner.fit(digits.data, digits.target)
    assert not hasattr(pruner, "estimator_")


def test_unfitted_frozen_translator_is_named(digits):
    frozen = FrozenEstimator(CycleGANTranslator(digits.image_shape))
    pruner = coevolutionary_pruner(frozen, max_params=0.5)
    with pytest.raises(ValueError, match="is no fitted CycleGANTranslator"):
        pruner.fit(digits.data, digits.target)


def test_other_images_than_the_translator_knows(digits, trained):
    pruner = coevolutionary_pruner(FrozenEstimator(trained), max_params=0.5, **QUICK)
    with pytest.raises(ValueError, match="expecting 192 features"):
        pruner.fit(digits.data[:, :100], digits.target)
    with pytest.raises(ValueError, match="NaN"):
        pruner.fit(np.full_like(digits.data, np.nan), digits.target)


def test_one_domain_is_not_enough(digits, trained):
    pruner = coevolutionary_pruner(FrozenEstimator(trained), max_params=0.5, **QUICK)
    with pytest.raises(ValueError, match="1 class"):
        pruner.fit(digits.data_a, np.zeros(len(digits.data_a)))


def test_vectors(rng):
    X = np.r_[rng.normal(0, 1, (60, 5)), rng.normal(3, 1, (60, 5))]
    y = np.repeat(["there", "here"], 60)
    translator = CycleGANTranslator(n_filters=16, batch_size=16, max_epochs=3)
    pruner = coevolutionary_pruner(translator, max_params=0.5, **QUICK).fit(X, y)
    assert pruner.report_.ratio("parameters") <= 0.5
    assert pruner.transform(X).shape == X.shape
