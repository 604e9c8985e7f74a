"""
========================
A student without data
========================

A network for digits is there, the digits that it was trained on are not.
:class:`~sklcomp.compression.DataFreeDistiller` makes up images that the network takes
for digits, and trains a small net by what the network says of them.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklcomp.compression import DataFreeDistiller, DataFreeRecipe
from sklcomp.inspection import CompressionDisplay, DistillationDisplay


# %%
# The teacher
# -----------
# Its batch norms remember means and variances of what passed through it, which is the
# best that is left of the data.
class DigitNet(nn.Module):
    def __init__(self, width=32, hidden=64, norm=nn.BatchNorm2d):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.norm1 = norm(width)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm2 = norm(2 * width)
        self.hidden = nn.Linear(2 * width * 4, hidden)
        self.output = nn.Linear(hidden, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.first(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.second(x))), 2)
        return self.output(F.relu(self.hidden(x.flatten(1))))


X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=540, stratify=y, random_state=0
)
torch.manual_seed(0)
net = NeuralNetClassifier(
    DigitNet, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=2e-3,
    max_epochs=20, batch_size=64, train_split=None, verbose=0,
    iterator_train__shuffle=True,
).fit(X_train, y_train)  # fmt: skip
teacher = net.module_
print(f"teacher: test accuracy {net.score(X_test, y_test):.3f}")

# %%
# Known are the shape of a picture, and range, mean and deviation of its pixels.
known = {
    "input_shape": (1, 8, 8), "input_range": (0, 1),
    "input_mean": float(X_train.mean()), "input_std": float(X_train.std()),
}  # fmt: skip
student = NeuralNetClassifier(
    DigitNet, module__width=6, module__hidden=24, module__norm=nn.Identity,
    criterion=nn.CrossEntropyLoss,
)  # fmt: skip

# %%
# No data
# -------
# ``fit`` is called without an argument. The real digits serve for the last line only.
# The recipe is that for teachers with batch norms; fewer iterations are enough here.
recipe = DataFreeRecipe.named("fast-bn")
settings = {"recipe": recipe, "n_iterations": 200, "random_state": 0} | known
distiller = DataFreeDistiller(student, teacher, **settings).fit()
print(f"without data: {distiller.score(X_test, y_test):.3f}")

# %%
# What it learned from: losses of the generator and of the student, and generated
# images, sorted by what the teacher takes them for.
DistillationDisplay.from_estimator(distiller)
plt.show()

# %%
# The control
# -----------
# Random shapes need no generator. For these digits they teach less; for larger ones
# they can teach as much, and for teachers without batch norm half of each batch is
# such noise.
control = DataFreeDistiller(
    student, teacher, synthesis="structured_noise", **settings
).fit()
print(f"structured noise: {control.score(X_test, y_test):.3f}")
DistillationDisplay.from_estimator(control)
plt.show()

# %%
# What was saved
# --------------
CompressionDisplay.from_estimator(distiller)
print(distiller.report_)
plt.show()
