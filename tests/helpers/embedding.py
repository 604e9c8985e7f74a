"""Students of digits and their distillers, as tests of the embedding share them."""

import torch
from sklearn.frozen import FrozenEstimator

from sklcomp.compression import FeatureEmbeddingDistiller
from tests.helpers.nets import Residual, classifier


def student(**settings):
    settings = {"module__width": 2, "max_epochs": 3, "lr": 0.01} | settings
    return classifier(Residual, **settings)


def smooth_student(**settings):
    """Whose training does not magnify rounding.

    A bias before a batch norm has no gradient but rounding, of which Adam makes a step.
    """
    return student(optimizer=torch.optim.SGD, lr=0.05, **settings)


def distiller(trained, **settings):
    settings = {"student": student(), "random_state": 0} | settings
    return FeatureEmbeddingDistiller(teacher=FrozenEstimator(trained), **settings)
