"""
=============================
Which label sets are expected
=============================

In training the whole label set of an example is known, in prediction it is not.
:class:`sklcomp.multilabel.PrivilegedLogisticClassifier` learns to expect it: a gate
gives each *prototype*, a common label set, a probability
(:meth:`~sklcomp.multilabel.PrivilegedLogisticClassifier.prototype_proba`), and what
that says of each label joins the label's own logistic regression.

The data are scikit-learn's handwritten digits with eight attributes of the number as
labels. Each digit has a label set of its own, so that expecting a label set is guessing
the number. An attribute such as being prime is not linear in the pixels; the number
nearly is.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import (
    label_ranking_average_precision_score,
    label_ranking_loss,
    log_loss,
)
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklcomp.datasets import load_digit_attributes
from sklcomp.multilabel import PrivilegedLogisticClassifier

# %%
# Two models that choose their own strength
# -----------------------------------------
# One logistic regression for each label, whose C is chosen by cross-validation, and
# ours, which has nothing to tune.
digits = load_digit_attributes()
names = digits.target_names
X_train, X_test, y_train, y_test, _, images = train_test_split(
    digits.data, digits.target, digits.images, train_size=600, random_state=0
)
ours = make_pipeline(StandardScaler(), PrivilegedLogisticClassifier(random_state=0))
plain = make_pipeline(
    StandardScaler(),
    OneVsRestClassifier(
        LogisticRegressionCV(
            Cs=np.geomspace(1e-3, 10, 8),
            cv=3,
            l1_ratios=(0,),
            scoring="neg_log_loss",
            max_iter=2000,
            use_legacy_attributes=False,
        )
    ),
)
models = {"one logistic regression a label": plain, "with label sets": ours}
found = {
    name: model.fit(X_train, y_train).predict_proba(X_test)
    for name, model in models.items()
}
# Colours that are told apart with any vision, and shapes.
styles = {
    "one logistic regression a label": {"color": "#d55e00", "marker": "s", "mfc": "w"},
    "with label sets": {"color": "#0072b2", "marker": "o"},
}

# %%
# What is expected of three digits
# --------------------------------
# A prototype holds the share of each label in its rows; the labels that most of them
# have are its name. Of the digits of which the plain model gets a label wrong these are
# the one that the gate is surest of, a middling one, and the one that it is least sure
# of.
learner = ours[-1]
expected = learner.prototype_proba(ours[:-1].transform(X_test))


def name_of(prototype):
    present = [name for name, p in zip(names, prototype, strict=True) if p > 0.5]
    lines = (", ".join(part) for part in (present[:2], present[2:]) if part)
    return "\n".join(lines)


is_wrong = ((found["one logistic regression a label"] > 0.5) != y_test).any(axis=1)
order = sorted(np.flatnonzero(is_wrong), key=lambda i: -expected[i].max())
shown = order[0], order[len(order) // 2], order[-1]

fig, axes = plt.subplots(
    3, 3, figsize=(10, 7.6), width_ratios=(0.7, 1, 1.4), layout="constrained"
)
for i, (picture, bars, dots) in zip(shown, axes, strict=True):
    picture.imshow(images[i], cmap="gray_r")
    picture.set_axis_off()

    best = np.argsort(expected[i])[-3:]
    bars.barh(range(3), expected[i, best], color="#999999")
    bars.set_yticks(range(3), [name_of(learner.prototypes_[k]) for k in best])
    bars.set(xlim=(0, 1), ylim=(-0.6, 2.6))

    for name, probabilities in found.items():
        dots.plot(probabilities[i], range(8), ls="", label=name, **styles[name])
    dots.axvline(0.5, color="0.7", linewidth=0.8, zorder=0)
    dots.set_yticks(range(8), names)
    dots.set(xlim=(-0.04, 1.04), ylim=(7.6, -0.6))
    for text, is_true in zip(dots.get_yticklabels(), y_test[i], strict=True):
        text.set_fontweight("bold" if is_true else "normal")
    for ax in (bars, dots):
        ax.tick_params(labelsize="small", labelbottom=i == shown[-1])
axes[0, 1].set_title("label sets expected", fontsize="medium")
axes[0, 2].set_title("labels; true ones are bold", fontsize="medium")
for ax in axes[2, 1:]:
    ax.set_xlabel("probability")
fig.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()

# %%
# Can the probabilities be believed?
# ----------------------------------
# Of the labels of test digits that were given a probability of about p, a share p
# should be there; bars are two standard errors. Both models nearly keep to that. The
# difference is how much they dare to say: with label sets far fewer labels are left in
# the middle.
fig, (curve, counts) = plt.subplots(
    2, 1, figsize=(6, 5.6), height_ratios=(3, 1.3), sharex=True, layout="constrained"
)
curve.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
for name, probabilities in found.items():
    p = probabilities.ravel()
    n, mean, share = (
        np.histogram(p, 10, (0, 1), weights=weights)[0]
        for weights in (np.ones(p.size), p, y_test.ravel())
    )
    mean, share = mean / n, share / n
    error = 2 * np.sqrt(mean * (1 - mean) / n)
    curve.errorbar(mean, share, error, capsize=2, label=name, **styles[name])
    counts.semilogy(mean, n, **styles[name])
curve.set(ylabel="share that has the label", xlim=(0, 1), ylim=(-0.02, 1.02))
curve.legend(loc="upper left")
counts.set(xlabel="probability of a label", ylabel="labels")
plt.show()

# %%
# In numbers
# ----------
# Lower is better, but for LRAP, the label-ranking average precision.
print(f"{'':34}{'ranking loss':>14}{'LRAP':>8}{'log-loss':>10}")
for name, p in found.items():
    print(
        f"{name:34}{label_ranking_loss(y_test, p):14.3f}"
        f"{label_ranking_average_precision_score(y_test, p):8.3f}"
        f"{log_loss(y_test.ravel(), p.ravel()):10.3f}"
    )

# %%
# The guard compares the same on training rows that the models had not seen, (with label
# sets, each label's own), and would have kept the latter if they were clearly better.
for key, value in learner.guard_.items():
    print(f"{key}: {value if isinstance(value, str) else np.round(value, 3)}")
