"""Students of digits and their distillers, as tests without data share them."""

import pytest
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier

from sklcomp.compression import DataFreeDistiller
from tests.helpers.nets import Residual, classifier
from tests.helpers.recipes import with_data_free_recipe

# The shape, the range and the moments are all that is told of the digits.
KNOWN = {
    "input_shape": (1, 8, 8), "input_range": (0, 1), "input_mean": 0.31,
    "input_std": 0.38,
}  # fmt: skip
SHORT = {"n_iterations": 3, "student_steps": 2, "random_state": 0}
# Generators that learn for seconds do not make all classes yet.
early = pytest.mark.filterwarnings("ignore:the teacher sees hardly any")


def student(module=Residual, **settings):
    return classifier(module, **{"module__width": 4} | settings)


def distiller(teacher, **settings):
    settings = {"student": student(), **KNOWN, **SHORT} | settings
    net = settings.pop("student")
    settings = with_data_free_recipe(teacher, settings)
    if isinstance(teacher, NeuralNetClassifier):
        teacher = FrozenEstimator(teacher)
    return DataFreeDistiller(net, teacher, **settings)
