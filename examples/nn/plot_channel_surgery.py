"""
=====================================
Fewer channels in a network you have
=====================================

A trained network is often wider than it needs to be. Here half and more of the channels
of a residual network are removed, for good: what is left is an ordinary network of the
same class with smaller tensors. No search, no labels, no training after the cut.

Three steps: :func:`~sklcomp.nn.trace_channels` finds out which channels belong
together, :func:`~sklcomp.nn.elimination_order` which are least missed, and
:func:`~sklcomp.nn.prune_channels` cuts them and repairs in closed form what is left.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklcomp.nn import (
    collect_covariances,
    count_macs,
    count_parameters,
    elimination_order,
    keep_fraction,
    measure_latency,
    prune_channels,
    trace_channels,
)


# %%
# A network of your own
# ---------------------
# With a residual sum and a concatenation, so that cutting is not a matter of one layer.
class DigitNet(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)
        self.side = nn.Conv2d(width, width // 2, 3, padding=1)
        self.hidden = nn.Linear((width + width // 2) * 4, 64)
        self.output = nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = x + self.outer(F.relu(self.inner(x)))
        x = torch.cat([x, F.relu(self.side(x))], dim=1)
        return self.output(F.relu(self.hidden(F.max_pool2d(x, 2).flatten(1))))


X, y = load_digits(return_X_y=True)
X = (X.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
torch.manual_seed(0)
model = NeuralNetClassifier(
    DigitNet, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=2e-3,
    max_epochs=15, batch_size=64, train_split=None, verbose=0,
).fit(X_train, y_train)  # fmt: skip
net = model.module_.eval()

# %%
# Which channels belong together
# ------------------------------
# One real forward tells. A *gene* is a class of channels that live or die together: the
# stem and the outer convolution are added, so they share their genes.
images = torch.from_numpy(X_train)
graph = trace_channels(net, images[:2])
print(graph)

# %%
# The picture shows every channel as a square. Squares of one colour in one column are
# one gene; the outputs of the network (grey) cannot go. The batch norm, the columns of
# the layers behind, and each channel's four pixels in the flattened layer follow.
order = elimination_order(net, graph, collect_covariances(net, graph, images))
keep = keep_fraction(graph, order, 0.5)

fig, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
colors = plt.get_cmap("turbo")(np.linspace(0.05, 0.95, graph.n_genes))
for row, genes in enumerate(graph.layers.values()):
    for column, gene in enumerate(genes):
        color = "0.7" if gene < 0 else colors[gene]
        lives = gene < 0 or keep[gene]
        ax.scatter(
            column,
            row,
            s=28,
            marker="s",
            edgecolors=[color],
            facecolors=[color] if lives else "none",
        )
ax.set(yticks=range(len(graph.layers)), yticklabels=graph.layers, xlabel="channel",
       title="genes of the network; hollow: removed")  # fmt: skip
ax.invert_yaxis()
ax.spines[:].set_visible(False)
plt.show()

# %%
# Cut, and cut with repair
# ------------------------
# ``compensate`` takes examples without labels: layers that read removed channels
# predict from the others, by least squares, what the removed ones gave.
small = prune_channels(net, graph, keep, compensate=images)
print(small)


# %%
def accuracy(network):
    with torch.no_grad():
        return (network(torch.from_numpy(X_test)).argmax(1).numpy() == y_test).mean()


for name, network in {"before": net, "after": small}.items():
    latency = measure_latency(network, torch.from_numpy(X_test))
    print(
        f"{name:7} {count_parameters(network):6} parameters, "
        f"{count_macs(network, (1, 8, 8)):7} MACs, {1e3 * latency.median:.2f} ms "
        f"({1e3 * latency.lower:.2f} to {1e3 * latency.upper:.2f}), "
        f"accuracy {accuracy(network):.3f}"
    )

# %%
# How far it goes
# ---------------
# The weights of the filters say little about who is missed; the order of the surgeon
# together with the repair keeps most of the accuracy with a third of the channels.
by_norm = elimination_order(net, graph)
shares = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
arms = {
    "smallest filters cut": (by_norm, None),
    "smallest filters cut, repaired": (by_norm, images),
    "order of the surgeon, repaired": (order, images),
}
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, (ranking, examples) in arms.items():
    found = [
        accuracy(
            prune_channels(net, graph, keep_fraction(graph, ranking, share), examples)
        )
        for share in shares
    ]
    ax.plot(shares, found, marker="o", label=name)
ax.set(xlabel="share of channels kept", ylabel="accuracy, nothing trained again")
ax.invert_xaxis()
ax.legend()
plt.show()
