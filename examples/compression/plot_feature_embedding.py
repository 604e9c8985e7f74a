"""
==============================
A small student and few labels
==============================

A large net knows the digits; only a few of them are at hand with their labels, and the
net that is wanted has a fifteenth of the parameters.
:class:`~sklcomp.compression.FeatureEmbeddingDistiller` trains it to answer the labels
and to keep as neighbours what the teacher's features show as neighbours. No layer
stands between the two nets, so their widths need not agree.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.manifold import TSNE
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklcomp.compression import FeatureEmbeddingDistiller
from sklcomp.inspection import CompressionDisplay, DistillationDisplay


# %%
# The teacher
# -----------
class DigitNet(nn.Module):
    def __init__(self, width=32, hidden=128):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.hidden = nn.Linear(2 * width * 4, hidden)
        self.output = nn.Linear(hidden, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x.reshape(-1, 1, 8, 8))), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.output(F.relu(self.hidden(x.flatten(1))))


def make_net(max_epochs, **module):
    return NeuralNetClassifier(
        DigitNet,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        max_epochs=max_epochs,
        batch_size=64,
        train_split=None,
        verbose=0,
        iterator_train__shuffle=True,
        **module,
    )


X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, stratify=y, random_state=0
)  # fmt: skip
torch.manual_seed(0)
teacher = make_net(20).fit(X_train, y_train)
print(f"teacher: test accuracy {teacher.score(X_test, y_test):.3f}")

# %%
# Students of one to ten percent of the labels
# --------------------------------------------
# One digit of each class is one percent. ``gamma`` weighs the embedding (more than the
# default of 0.1 pays where there are few labels), ``kd_weight`` the teacher's softened
# answers, and with both 0 a student learns from the labels alone. All have the same
# epochs and the same digits; three draws of these.
student = make_net(150, module__width=8, module__hidden=32)
methods = {
    "labels alone": {"gamma": 0.0},
    "embedding": {"gamma": 3.0},
    "answers": {"gamma": 0.0, "kd_weight": 1.0},
    "embedding and answers": {"gamma": 1.0, "kd_weight": 1.0},
}
counts, n_draws = (1, 3, 13), 3
scores = {name: np.zeros((len(counts), n_draws)) for name in methods}
for k, n in enumerate(counts):
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        rows = np.concatenate(
            [rng.permutation(np.flatnonzero(y_train == c))[:n] for c in range(10)]
        )
        for name, weights in methods.items():
            distiller = FeatureEmbeddingDistiller(
                student, FrozenEstimator(teacher), random_state=seed, **weights
            ).fit(X_train[rows], y_train[rows])
            scores[name][k, seed] = distiller.score(X_test, y_test)

fig, ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
labels = [f"{10 * n / len(X_train):.0%}" for n in counts]
for name, found in scores.items():
    ax.errorbar(labels, found.mean(1), found.std(1), marker="o", capsize=3, label=name)
    print(f"{name:24}", *(f"{value:.3f}" for value in found.mean(1)))
ax.axhline(teacher.score(X_test, y_test), color="gray", linestyle="--", label="teacher")
ax.set(xlabel="labels that the student saw", ylabel="test accuracy")
ax.legend()
plt.show()

# %%
# Of the two things that a teacher can say, its answers are worth more here where labels
# are fewest: the neighbours of a digit are looked for in its batch, and in a batch of
# ten they are not near. With batches of 64 the embedding adds to the answers.
#
# What the student keeps of the teacher's features
# -------------------------------------------------
# Each dot is a test digit, coloured by its class. The student has a quarter of the
# teacher's features. A trustworthiness of 1 means that neighbours in its features are
# neighbours in the teacher's.
DistillationDisplay.from_estimator(
    distiller, X_test, y_test, reducer=TSNE(random_state=0)
)
plt.show()

# %%
# The same without the embedding:
alone = FeatureEmbeddingDistiller(
    student, FrozenEstimator(teacher), gamma=0.0, random_state=seed
).fit(X_train[rows], y_train[rows])
DistillationDisplay.from_estimator(alone, X_test, y_test, reducer=TSNE(random_state=0))
plt.show()

# %%
# What was saved
# --------------
CompressionDisplay.from_estimator(distiller)
print(distiller.report_)
plt.show()
