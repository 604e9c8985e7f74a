"""Pruners by one table of settings: those of a recipe go into it."""

from dataclasses import fields

from sklcomp.compression import (
    CoEvolutionaryPruner,
    EvolutionaryPruner,
    PairRecipe,
    SearchRecipe,
)

DIRECT = {"population_size", "n_generations"}


def with_recipe(kind, settings):
    """The settings of an estimator, those of its recipe gathered in one."""
    names = {field.name for field in fields(kind)} - DIRECT
    own = {name: value for name, value in settings.items() if name in names}
    rest = {name: value for name, value in settings.items() if name not in names}
    if own:
        rest["recipe"] = kind.named(rest.get("recipe", "default")).replace(**own)
    return rest


def evolutionary_pruner(net, **settings):
    return EvolutionaryPruner(net, **with_recipe(SearchRecipe, settings))


def coevolutionary_pruner(translator, **settings):
    return CoEvolutionaryPruner(translator, **with_recipe(PairRecipe, settings))
