"""Every public estimator, in a form that fits in a moment."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from sklearn.base import BaseEstimator

import sklcomp
from sklcomp.compression import DataFreeRecipe, SearchRecipe
from sklcomp.translation import CycleGANTranslator
from tests.helpers.nets import SlimDense, classifier

# Small constructor arguments by class name, where the defaults are slow.
INIT_PARAMS = {
    "CoEvolutionaryPruner": {
        "translator": CycleGANTranslator(n_filters=8, batch_size=8, max_epochs=2),
        "max_params": 0.5,
        "population_size": 4,
        "n_generations": 2,
        "random_state": 0,
    },
    "CycleGANTranslator": {
        "n_filters": 4,
        "batch_size": 8,
        "max_epochs": 2,
        "random_state": 0,
    },
    "DataFreeDistiller": {
        "student": classifier(SlimDense, module__dtype=torch.float64),
        "teacher": classifier(module__dtype=torch.float64),
        "n_iterations": 3,
        "recipe": DataFreeRecipe(student_steps=2),
        "random_state": 0,
    },
    # Predictions in float32 depend on the place in a batch, in the seventh digit.
    "EvolutionaryPruner": {
        "estimator": classifier(module__dtype=torch.float64),
        "max_params": 0.5,
        "population_size": 4,
        "n_generations": 2,
        "recipe": SearchRecipe(n_polish_steps=2),
        "finetune_epochs": 4,
        "random_state": 0,
    },
    "FeatureEmbeddingDistiller": {
        "student": classifier(SlimDense, module__dtype=torch.float64),
        "teacher": classifier(module__dtype=torch.float64),
        "kd_weight": 0.5,
        "random_state": 0,
    },
    # The checks of equal weights compare solutions to seven digits.
    "PrivilegedLogisticClassifier": {
        "Cs": [0.1, 1.0],
        "tol": 1e-8,
        "max_iter": 10000,
    },
    "PrivilegedMultiLabelClassifier": {"tol": 1e-13, "max_iter": 4000},
    "StreamingLabelClassifier": {"tol": 1e-13, "max_iter": 100000},
}


def all_estimators():
    """Public estimator classes of all subpackages, by name."""
    found = {}
    for module in pkgutil.iter_modules(sklcomp.__path__, "sklcomp."):
        if module.name.startswith("sklcomp._"):
            continue
        public = importlib.import_module(module.name)
        for name in getattr(public, "__all__", ()):
            value = getattr(public, name)
            if inspect.isclass(value) and issubclass(value, BaseEstimator):
                found[name] = value
    return [found[name] for name in sorted(found)]


def make_instance(estimator_class):
    return estimator_class(**INIT_PARAMS.get(estimator_class.__name__, {}))


ESTIMATORS = all_estimators()
each_estimator = pytest.mark.parametrize("estimator_class", ESTIMATORS)
