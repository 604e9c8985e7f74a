"""Nets of the tests; a module of their own, so that they can be pickled."""

import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import InputShapeSetter
from torch import nn
from torch.nn import functional as F


class FeatureSetter(InputShapeSetter):
    """With a repr that is the same in all processes, for the names of tests."""

    def __repr__(self):
        return "FeatureSetter()"


class Dense(nn.Module):
    """Two hidden layers; the number of features is set by a callback."""

    def __init__(self, n_features=2, n_classes=2, width=24, dtype=torch.float32):
        super().__init__()
        self.hidden = nn.Linear(n_features, width)
        self.inner = nn.Linear(width, width)
        self.output = nn.Linear(width, n_classes)
        self.to(dtype)

    def forward(self, x):
        x = x.to(self.output.weight.dtype)
        return self.output(F.relu(self.inner(F.relu(self.hidden(x)))))


class SlimDense(Dense):
    def __init__(self, n_features=2, n_classes=2, width=8, dtype=torch.float32):
        super().__init__(n_features, n_classes, width, dtype)


class DenseRegression(Dense):
    def __init__(self, n_features=2, n_outputs=1, width=24, dtype=torch.float32):
        super().__init__(n_features, n_outputs, width, dtype)


class Probabilities(Dense):
    def forward(self, x):
        return super().forward(x).softmax(-1)


class Residual(nn.Module):
    """Batch norm, a residual sum, and digits of 8 x 8 pixels."""

    def __init__(self, width=8, n_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)
        self.drop = nn.Dropout(0.1)
        self.output = nn.Linear(width * 4, n_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x.reshape(-1, 1, 8, 8)))), 2)
        x = x + self.outer(F.relu(self.inner(x)))
        return self.output(self.drop(F.max_pool2d(F.relu(x), 2).flatten(1)))


class Viewing(nn.Module):
    """A view, which images with channels last do not allow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.output = nn.Linear(6 * 36, 10)

    def forward(self, x):
        return self.output(F.relu(self.conv(x)).view(len(x), -1))


def classifier(module=Dense, **settings):
    """A classifier that adapts to any number of features."""
    is_dense = isinstance(module, type) and issubclass(module, Dense)
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": 0.02,
        "max_epochs": 15,
        "batch_size": 32,
        "train_split": None,
        "verbose": 0,
        "callbacks": [FeatureSetter(param_name="n_features")] if is_dense else None,
    } | settings
    return NeuralNetClassifier(module, **settings)


def regressor(module=DenseRegression, **settings):
    settings = {
        "optimizer": torch.optim.Adam,
        "lr": 0.02,
        "max_epochs": 15,
        "batch_size": 32,
        "train_split": None,
        "verbose": 0,
        "callbacks": [FeatureSetter(param_name="n_features")],
    } | settings
    return NeuralNetRegressor(module, **settings)


class Stop:
    """A callback of scikit-learn that interrupts after an iteration."""

    def __init__(self, after):
        self.after = after

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context, **_): ...

    def on_fit_task_end(self, estimator, context, **_):
        self.after -= 1
        if not self.after:
            raise KeyboardInterrupt
