import pytest


@pytest.fixture
def labelled(rng):
    """Noisy labels of 60 examples, of which the third is implied by the others."""
    X = rng.normal(size=(60, 5))
    Y = (X @ rng.normal(size=(5, 4)) + rng.normal(size=(60, 4)) > 0.3).astype(int)
    Y[:, 2] = Y[:, 0] | Y[:, 1]
    return X, Y
