"""
============================
Labels that arrive next week
============================

A classifier knows some labels of your data. Now somebody asks for another one, and has
annotated a few dozen examples. :class:`sklcomp.multilabel.StreamingLabelClassifier`
learns the new label from these, with what it knows of the earlier labels as a starting
point; the columns learned before do not change in a single bit.

The picture compares that with learning the new label from scratch on the same
annotations, and with the time that a new fit of all labels would take.
"""

from copy import copy
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

from sklcomp.datasets import make_multilabel_stream
from sklcomp.inspection import LabelStreamDisplay
from sklcomp.multilabel import StreamingLabelClassifier

# %%
# A stream of labels
# ------------------
# Ten labels of examples with a hundred features are there from the start, annotated on
# a thousand of them. Six more arrive, each annotated on 40.
X, y = make_multilabel_stream(
    3000, 100, n_initial=10, n_new=6, dependence=0.9, random_state=0
)
X_train, X_test, y_train, y_test = X[:1000], X[1000:], y[:1000], y[1000:]
model = StreamingLabelClassifier(0.1, random_state=0).fit(X_train, y_train[:, :10])

rng = np.random.default_rng(0)
for label in range(10, 16):
    rows = rng.permutation(1000)[:40]
    model.add_labels(X_train[rows], y_train[rows, label], y_past=y_train[rows, :label])

# %%
# What each new label takes from the earlier ones, how much of it was kept, and how well
# it is predicted; the dashed line is the mean of the first ten labels.
LabelStreamDisplay.from_estimator(model, X_test, y_test)
plt.show()

# %%
# How many annotations a new label needs
# --------------------------------------
# The eleventh label with 20 to 1000 annotated examples, over ten draws of them.
sizes = [20, 40, 80, 160, 320, 1000]
first = StreamingLabelClassifier(0.1, random_state=0).fit(X_train, y_train[:, :10])
found = np.empty((10, len(sizes), 2))
for draw in range(10):
    for k, size in enumerate(sizes):
        rows = np.random.default_rng(draw).permutation(1000)[:size]
        late = copy(first).add_labels(
            X_train[rows], y_train[rows, 10], y_past=y_train[rows, :10]
        )
        alone = LinearSVC(C=0.1, loss="hinge", max_iter=20000).fit(
            X_train[rows], y_train[rows, 10]
        )
        for arm, scores in enumerate(
            (late.decision_function(X_test)[:, 10], alone.decision_function(X_test))
        ):
            found[draw, k, arm] = roc_auc_score(y_test[:, 10], scores)

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for arm, name in enumerate(("with the earlier labels", "from scratch")):
    low, middle, high = np.quantile(found[:, :, arm], (0.1, 0.5, 0.9), axis=0)
    ax.semilogx(sizes, middle, marker="o", label=name)
    ax.fill_between(sizes, low, high, alpha=0.2)
ax.set(xlabel="annotated examples of the new label", ylabel="AUC of the new label")
ax.legend()
plt.show()

# %%
# One more label, or everything again
# -----------------------------------
# All sixteen labels annotated on all rows: adding the last one against a new fit.
known = StreamingLabelClassifier(random_state=0).fit(X_train, y_train[:, :15])
start = perf_counter()
known.add_labels(X_train, y_train[:, 15], y_past=y_train[:, :15])
added = perf_counter() - start
start = perf_counter()
again = StreamingLabelClassifier(random_state=0).fit(X_train, y_train)
refitted = perf_counter() - start
print(f"one more label {1e3 * added:.0f} ms, all labels again {1e3 * refitted:.0f} ms")

# %%
# When it does not help
# ---------------------
# An inherited hypothesis is worth something only if the earlier labels say something
# about the new one. Here they hardly do (``dependence=0``; ten random directions among
# a hundred are a little alike): the prior scales are low, and next to nothing is lost
# against learning from scratch.
X, y = make_multilabel_stream(
    3000, 100, n_initial=10, n_new=6, dependence=0, random_state=0
)
X_train, X_test, y_train, y_test = X[:1000], X[1000:], y[:1000], y[1000:]
stream = StreamingLabelClassifier(0.1, random_state=0).fit(X_train, y_train[:, :10])
stream.add_labels(X_train[:200], y_train[:200, 10:], y_past=y_train[:200, :10])
alone = StreamingLabelClassifier(0.1, random_state=0).fit(
    X_train[:200], y_train[:200, 10:]
)
print("prior scales", np.round(stream.prior_scale_, 2))
for name, scores in {
    "with the earlier labels": stream.decision_function(X_test)[:, 10:],
    "from scratch": alone.decision_function(X_test),
}.items():
    print(f"{name:24} AUC {roc_auc_score(y_test[:, 10:], scores):.3f}")
