"""Recipes of the searches: the published numbers, and how searches reach them."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale

from sklcomp.compression import (
    CoEvolutionaryPruner,
    EvolutionaryPruner,
    PairRecipe,
    SearchRecipe,
)
from sklcomp.compression.search._mixin import EVOLVING
from sklcomp.compression.search._problem import FRONT_SHARES
from sklcomp.evolution import coevolve, evolve
from sklcomp.translation import CycleGANTranslator
from tests.helpers.nets import classifier

KINDS = pytest.mark.parametrize("kind", [SearchRecipe, PairRecipe])
# Population, generations, crossover and mutation of the published programs.
PUBLISHED = (32, 50, 0.7, 0.1, 0.0, 1, "roulette", "segments", "free", False)


@KINDS
def test_the_published_recipe_has_the_published_numbers(kind):
    recipe = kind.named("paper")
    found = (
        recipe.population_size,
        recipe.n_generations,
        recipe.crossover_rate,
        recipe.mutation_rate,
        recipe.child_mutation_rate,
        recipe.elitism,
        recipe.selection,
        recipe.operators,
        recipe.genes,
        recipe.compensate,
    )
    assert found == PUBLISHED
    assert recipe.distill_weight == 0
    assert not recipe.needs_budget


@KINDS
def test_every_published_recipe_is_allowed_and_the_default_is_the_default(kind):
    for name in kind._published:
        kind.named(name).check()
    assert kind.named("default") == kind()
    assert kind().needs_budget


@pytest.mark.parametrize("name", SearchRecipe._published)
def test_engine_takes_the_recipes_of_a_search(name, rng):
    recipe = SearchRecipe.named(name)
    settings = {name: getattr(recipe, name) for name in EVOLVING} | {"n_generations": 1}
    start = rng.random((recipe.population_size, 6)) < 0.5
    result = evolve(np.sum, start, n_polish_steps=1, rng=rng, **settings)
    assert result.best_fitness == result.genomes.sum(axis=1).max()


@pytest.mark.parametrize("name", PairRecipe._published)
def test_engine_takes_the_recipes_of_two_populations(name, rng):
    recipe = PairRecipe.named(name)
    settings = {name: getattr(recipe, name) for name in EVOLVING} | {"n_generations": 1}
    starts = [rng.random((recipe.population_size, 6)) < 0.5 for _ in range(2)]
    result = coevolve(lambda genome, partner: genome.sum(), starts, rng=rng, **settings)
    for one, start in zip(result.best, starts, strict=True):
        assert one.sum() >= start.sum(axis=1).max()


def test_uniform_networks_rise_to_the_whole():
    assert (np.diff(FRONT_SHARES) > 0).all()
    assert FRONT_SHARES[0] > 0
    assert FRONT_SHARES[-1] == 1


@pytest.mark.parametrize("name", ["default", "paper"])
def test_a_setting_is_set_in_the_recipe_that_a_name_stands_for(name):
    for pruner, kind in (
        (EvolutionaryPruner(classifier(), recipe=name), SearchRecipe),
        (CoEvolutionaryPruner(CycleGANTranslator(), recipe=name), PairRecipe),
    ):
        other = clone(pruner).set_params(recipe__importance="random")
        assert other.recipe == kind.named(name).replace(importance="random")
        assert pruner.recipe == name


def test_a_grid_search_reaches_the_recipe_and_fit_changes_nothing():
    X, y = load_iris(return_X_y=True)
    X = scale(X).astype(np.float32)
    net = classifier(max_epochs=2)
    recipe = SearchRecipe(n_polish_steps=0)
    pruner = EvolutionaryPruner(
        net,
        max_params=0.5,
        recipe=recipe,
        population_size=3,
        n_generations=1,
        finetune=False,
        random_state=0,
    )
    search = GridSearchCV(
        pruner, {"recipe__importance": ["l1", "obs"], "n_generations": [0, 1]}, cv=2
    ).fit(X, y)
    best = search.best_estimator_
    assert best.recipe_.importance == search.best_params_["recipe__importance"]
    assert best.recipe_.n_generations == search.best_params_["n_generations"]
    assert best.recipe_.population_size == 3
    assert recipe == SearchRecipe(n_polish_steps=0)
    again = clone(best).fit(X, y)
    np.testing.assert_array_equal(again.best_individual_, best.best_individual_)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"recipe": SearchRecipe(crossover_rate=2)},
            "'crossover_rate' parameter of",
        ),
        ({"recipe": SearchRecipe(distill_weight="some")}, "'distill_weight' parameter"),
        ({"recipe": PairRecipe()}, "'recipe' parameter of EvolutionaryPruner"),
        ({"recipe": "quick"}, "'recipe' parameter of EvolutionaryPruner"),
    ],
)
def test_what_is_no_recipe_is_refused_before_a_training(settings, message):
    pruner = EvolutionaryPruner(classifier(max_epochs=1), max_params=0.5, **settings)
    with pytest.raises(ValueError, match=message):
        pruner.fit(np.zeros((8, 4), np.float32), np.arange(8) % 2)
    assert not hasattr(pruner, "estimator_")
