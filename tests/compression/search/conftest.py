import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.helpers.nets import Residual, classifier


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32)[:900], y[:900]


@pytest.fixture(scope="module")
def trained(digits):
    """A fitted net, for those who do not change it."""
    torch.manual_seed(0)
    return classifier(Residual, max_epochs=8, lr=0.01).fit(*digits)
