import pytest
from sklearn.frozen import FrozenEstimator

from sklcomp.compression import FeatureEmbeddingDistiller
from tests.helpers import iris
from tests.helpers.iris import mlp, net, seeded


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
