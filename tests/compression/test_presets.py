"""Presets say nothing that nobody reads, and leave nothing out."""

import numpy as np
import pytest

from sklcomp.compression import (
    CoEvolutionaryPruner,
    DataFreeDistiller,
    EvolutionaryPruner,
)
from sklcomp.compression._data_free_training import OPTIMIZERS, SCHEDULES
from sklcomp.compression._presets import (
    COEVOLUTION,
    FRONT_SHARES,
    PAPER,
    PAPER_PAIR,
    SEARCH,
    SYNTHESIS,
)
from sklcomp.evolution import coevolve, evolve
from sklcomp.evolution._operators import SELECTIONS
from sklcomp.nn._noise import KINDS
from tests.helpers.estimators import make_instance


def params_of(estimator_class):
    return make_instance(estimator_class).get_params(deep=False).keys()


@pytest.mark.parametrize(("preset", "estimator_class"), [
    *[(preset, EvolutionaryPruner) for preset in (*SEARCH.values(), PAPER)],
    *[(preset, CoEvolutionaryPruner) for preset in (*COEVOLUTION.values(), PAPER_PAIR)],
])  # fmt: skip
def test_presets_of_searches_are_parameters_or_settings_of_the_search(
    preset, estimator_class
):
    known = {"selection", "crossover_rate", "mutation_rate", "elitism"}
    known |= {"child_mutation_rate"} | params_of(estimator_class)
    assert preset.keys() <= known


@pytest.mark.parametrize("presets", [SEARCH, COEVOLUTION], ids=["one", "two"])
def test_rates_selections_and_elites_are_possible(presets):
    first = next(iter(presets.values())).keys()
    for preset in presets.values():
        assert preset.keys() == first
        assert 0 < preset["crossover_rate"] + preset["mutation_rate"] <= 1
        assert preset["selection"] in SELECTIONS
        assert 1 <= preset["elitism"] < preset["population_size"]


@pytest.mark.parametrize("name", SEARCH)
def test_engine_takes_the_presets_of_a_search(name, rng):
    settings = SEARCH[name] | {"n_generations": 1, "n_polish_steps": 1}
    n = settings.pop("population_size")
    result = evolve(np.sum, rng.random((n, 6)) < 0.5, rng=rng, **settings)
    assert result.best_fitness == result.genomes.sum(axis=1).max()


@pytest.mark.parametrize("name", COEVOLUTION)
def test_engine_takes_the_presets_of_two_populations(name, rng):
    settings = COEVOLUTION[name] | {"n_generations": 1}
    n = settings.pop("population_size")
    populations = [rng.random((n, 6)) < 0.5 for _ in range(2)]
    result = coevolve(
        lambda genome, partner: genome.sum(), populations, rng=rng, **settings
    )
    for one, start in zip(result.best, populations, strict=True):
        assert one.sum() >= start.sum(axis=1).max()


def test_uniform_networks_rise_to_the_whole():
    assert (np.diff(FRONT_SHARES) > 0).all()
    assert FRONT_SHARES[0] > 0
    assert FRONT_SHARES[-1] == 1


def test_presets_of_data_free_trainings_have_all_values():
    names = {frozenset(preset) for preset in SYNTHESIS.values()}
    assert len(names) == 1
    # What a user may not give instead: the recipe of the training.
    fixed = {
        "student_optimizer", "schedule", "reinit_every", "augmentation",
        "student_batchnorm", "noise_share", "averaging", "noise_kinds",
    }  # fmt: skip
    assert names.pop() - fixed <= params_of(DataFreeDistiller)


@pytest.mark.parametrize("name", SYNTHESIS)
def test_values_of_data_free_presets_are_known(name):
    preset = SYNTHESIS[name]
    assert preset["student_optimizer"] in OPTIMIZERS
    assert preset["schedule"] in SCHEDULES
    assert preset["noise_kinds"]
    assert set(preset["noise_kinds"]) <= KINDS.keys()
    assert preset["head"] in ("batchnorm", "range")
    # A generator that is not told a class needs another reason to make all of them.
    assert preset["conditional"] or preset["entropy_weight"] > 0
    # Nothing is both averaged and to be remembered for ever.
    assert 0 <= preset["averaging"] < 1
    estimator = make_instance(DataFreeDistiller)
    given = {k: v for k, v in preset.items() if k in params_of(DataFreeDistiller)}
    estimator.set_params(preset=name, **given)._validate_params()


def test_published_form_is_without_what_came_later():
    for name, preset in SYNTHESIS.items():
        if name.startswith("paper"):
            later = (
                "bn_weight", "adversarial_weight", "feature_weight", "replay_size",
                "reinit_every", "augmentation", "averaging", "noise_share",
            )  # fmt: skip
            assert not any(preset[key] for key in later)
            assert preset["temperature"] == preset["student_steps"] == 1
