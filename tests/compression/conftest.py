import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator

from sklcomp.compression import FeatureEmbeddingDistiller
from tests.helpers import iris
from tests.helpers.iris import mlp, net, seeded
from tests.helpers.nets import Residual, classifier


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32)[:600], y[:600]


@pytest.fixture(scope="module")
def trained(digits):
    """A fitted net, for those who do not change it."""
    torch.manual_seed(0)
    return classifier(Residual, max_epochs=8, lr=0.01).fit(*digits)


@pytest.fixture(scope="module")
def trained_on_iris():
    return seeded(lambda: net(mlp(8), max_epochs=20).fit(iris.X, iris.y))


@pytest.fixture
def distil(trained_on_iris):
    def distil(student=None, teacher=None, stop=None, X=iris.X, y=iris.y, **settings):
        settings = {"random_state": 0} | settings
        distiller = FeatureEmbeddingDistiller(
            student or net(), teacher or FrozenEstimator(trained_on_iris), **settings
        )
        if stop is not None:
            distiller.set_callbacks(stop)
        return distiller.fit(X, y)

    return distil
