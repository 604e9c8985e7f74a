"""
=========================================
Which examples the other labels call hard
=========================================

:class:`sklcomp.multilabel.PrivilegedMultiLabelClassifier` learns for each label a
*correcting function*: how large a slack the other labels of an example ask for. A
large value says that examples with these other labels are hard for this label. This
needs the labels only, so it is known for every annotated example.

Here the labels are eight attributes of handwritten digits. Two digits with the same
attributes share their corrections, so the picture has one row a digit.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.preprocessing import StandardScaler

from sklcomp.datasets import load_digit_attributes
from sklcomp.multilabel import PrivilegedMultiLabelClassifier

# %%
# Slack that the other labels allow
# ---------------------------------
# Some attributes are not linear in the pixels; their errors are excused for the digits
# where they pile up. A strong regularisation leaves enough errors to tell.
digits = load_digit_attributes()
X = StandardScaler().fit_transform(digits.data)
y, names = digits.target, digits.target_names
model = PrivilegedMultiLabelClassifier(C=0.003, random_state=0).fit(X, y)
slack = model.correcting_function(y)

table = np.array([slack[digits.digit == d].mean(axis=0) for d in range(10)])
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
image = ax.imshow(table, cmap="viridis", aspect="auto")
ax.set_xticks(range(8), names, rotation=30, ha="right")
ax.set_yticks(range(10))
ax.set_ylabel("digit")
fig.colorbar(image, label="slack that the other labels allow")
plt.show()

# %%
# Is it true?
# -----------
# The share of each digit's examples that a plain hinge model (``slack_cap=1``), fitted
# on one half, gets wrong on the other, against the slack that the labels alone had
# predicted.
half = np.arange(len(X)) % 2 == 0
fresh = PrivilegedMultiLabelClassifier(C=0.1, slack_cap=1, random_state=0)
wrong = np.empty(y.shape)
for part in (half, ~half):
    wrong[part] = fresh.fit(X[~part], y[~part]).predict(X[part]) != y[part]
errors = np.array([wrong[digits.digit == d].mean(axis=0) for d in range(10)])

fig, axes = plt.subplots(2, 4, figsize=(9, 4.4), layout="constrained")
for ax, name, a, b in zip(axes.flat, names, table.T, errors.T, strict=True):
    ax.scatter(a, 100 * b, s=12)
    for digit in np.argsort(b)[-2:]:
        ax.annotate(
            str(digit),
            (a[digit], 100 * b[digit]),
            fontsize="small",
            xytext=(3, -3),
            textcoords="offset points",
        )
    ax.set_title(f"{name}: r = {np.corrcoef(a, b)[0, 1]:.2f}", fontsize="small")
fig.supxlabel("slack that the other labels allow")
fig.supylabel("errors / %")
plt.show()
