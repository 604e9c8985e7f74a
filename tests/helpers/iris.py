"""Nets that learn three flowers, small and always the same."""

import numpy as np
import torch
from sklearn.datasets import load_iris
from sklearn.preprocessing import scale
from torch import nn

from tests.helpers.nets import classifier

X, y = load_iris(return_X_y=True)
rows = np.random.default_rng(0).permutation(len(X))
X, y = scale(X)[rows].astype(np.float32), y[rows]


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def mlp(width=6, relu=nn.ReLU, drop=0.0):
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(4, width), relu(), nn.Dropout(drop), nn.Linear(width, 3)
        )
    )


def net(module=None, **settings):
    settings = {"optimizer": torch.optim.SGD, "lr": 0.1, "max_epochs": 4} | settings
    return classifier(module or mlp(), **settings)


def assert_same(first, second):
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
