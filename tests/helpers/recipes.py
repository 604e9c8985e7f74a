"""Settings of a recipe beside those of its estimator, as tests like to vary them."""

from torch import nn

from sklcomp.compression import DataFreeRecipe


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
