"""
===================================
A network that fits into the budget
===================================

You have trained a net, and it must become small: so many parameters, so many
multiplications. :class:`~sklcomp.compression.EvolutionaryPruner` takes the net and the
budget, finds out how many channels each layer needs, removes the others for good,
repairs what is left, and trains it for a few epochs with the full net as a teacher.
What comes out is an ordinary net of your own class.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklcomp.compression import EvolutionaryPruner
from sklcomp.inspection import CompressionDisplay, EvolutionDisplay


# %%
# A trained net
# -------------
class DigitNet(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.third = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.output = nn.Linear(2 * width * 4, 10)

    def forward(self, x):
        x = F.relu(self.first(x.reshape(-1, 1, 8, 8)))
        x = F.max_pool2d(F.relu(self.norm(self.second(x))), 2)
        x = F.max_pool2d(F.relu(x + self.third(x)), 2)
        return self.output(x.flatten(1))


X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
torch.manual_seed(0)
net = NeuralNetClassifier(
    DigitNet, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=2e-3,
    max_epochs=12, batch_size=64, train_split=None, verbose=0,
).fit(X_train, y_train)  # fmt: skip

# %%
# A tenth of its parameters
# -------------------------
# A fitted net goes into :class:`~sklearn.frozen.FrozenEstimator` and stays as it is.
# (An unfitted one would be trained first, which is what a grid search wants.)
pruner = EvolutionaryPruner(
    FrozenEstimator(net), max_params=0.1, finetune_epochs=8, random_state=0
).fit(X_train, y_train)
print(pruner.report_)
print(f"test accuracy: {net.score(X_test, y_test):.3f} before, "
      f"{pruner.score(X_test, y_test):.3f} after")  # fmt: skip

# %%
CompressionDisplay.from_estimator(pruner)
plt.show()

# %%
# What the search found
# ---------------------
# Fitness is minus the divergence between the answers of the full net and of the cut
# one, on examples held out for it; no labels are needed.
EvolutionDisplay.from_estimator(pruner)
plt.show()

# %%
# Other sizes from the same search
# --------------------------------
# Everything that was evaluated is kept; other points of the front are a call away, cut
# and repaired but not trained.
for share in (0.8, 0.5, 0.3):
    smaller = pruner.at(max_params=share)
    print(
        f"{share:.0%} of the parameters: test accuracy "
        f"{smaller.score(X_test, y_test):.3f}"
    )


# %%
# Filters that repeat others go
# -----------------------------
# How alike are two filters? By the absolute correlation of what they answer to the
# images. Those that are kept are no more alike than as many that are drawn by chance.
with torch.no_grad():
    images = torch.from_numpy(X_test).reshape(-1, 1, 8, 8)
    answers = net.module_.second(F.relu(net.module_.first(images)))
alike = np.abs(np.corrcoef(answers.movedim(1, 0).flatten(1).numpy()))
kept = pruner.kept_channels_["second"]


def nearest(chosen):
    """Mean similarity of each filter to the one most like it."""
    shown = alike[np.ix_(chosen, chosen)]
    return (shown - np.eye(len(shown))).max(axis=1).mean()


rng = np.random.default_rng(0)
drawn = [nearest(rng.permutation(len(alike))[: len(kept)]) for _ in range(200)]
print(f"{len(kept)} filters by chance: nearest other {np.mean(drawn):.2f} "
      f"± {np.std(drawn):.2f}")  # fmt: skip

fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, chosen, name in (
    (axes[0], np.arange(len(alike)), "all"),
    (axes[1], kept, "kept"),
):
    image = ax.imshow(alike[np.ix_(chosen, chosen)], vmin=0, vmax=1, cmap="magma")
    ax.set_title(f"{len(chosen)} filters, {name}: nearest other {nearest(chosen):.2f}")
fig.colorbar(image, ax=axes, label="similarity")
plt.show()
