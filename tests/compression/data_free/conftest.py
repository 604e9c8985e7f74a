import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.helpers.nets import Dense, Residual, classifier


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32)[:900], y[:900]


@pytest.fixture(scope="module")
def trained(digits):
    """A fitted net with batch norm, for those who do not change it."""
    torch.manual_seed(0)
    return classifier(Residual, max_epochs=10, lr=0.01).fit(*digits)


@pytest.fixture(scope="module")
def plain():
    """A trained module without batch norm."""
    X, y = load_digits(return_X_y=True)
    torch.manual_seed(0)
    net = classifier(Dense, max_epochs=10, lr=0.01, module__n_classes=10)
    return net.fit((X / 16).astype(np.float32), y).module_
