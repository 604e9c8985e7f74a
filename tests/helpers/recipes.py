"""Estimators by one table of settings, as tests vary them: a recipe gets its own."""

from dataclasses import fields

from torch import nn

from sklcomp.compression import (
    CoEvolutionaryPruner,
    DataFreeRecipe,
    EvolutionaryPruner,
    PairRecipe,
    SearchRecipe,
)

# Of an EvolutionaryPruner that takes a second.
QUICK = {
    "population_size": 6,
    "n_generations": 3,
    "n_polish_steps": 3,
    "finetune_epochs": 2,
    "random_state": 0,
}
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


def with_data_free_recipe(teacher, settings):
    """Arguments of a DataFreeDistiller; ``recipe`` may name where the rest begins."""
    parts = getattr(teacher, "module_", teacher).modules()
    has_norms = any(isinstance(p, nn.BatchNorm1d | nn.BatchNorm2d) for p in parts)
    settings = {"recipe": "fast-bn" if has_norms else "fast"} | settings
    recipe = DataFreeRecipe.named(settings.pop("recipe"))
    # The number of iterations is a parameter of both; that of the distiller is set.
    names = recipe.get_params().keys() - {"n_iterations"}
    changes = {name: settings.pop(name) for name in names & settings.keys()}
    return settings | {"recipe": recipe.replace(**changes)}
