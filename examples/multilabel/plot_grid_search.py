"""
=============================================
Tuning a multi-label classifier in a pipeline
=============================================

:class:`sklcomp.multilabel.PrivilegedMultiLabelClassifier` in a pipeline with a scaler,
tuned by :class:`~sklearn.model_selection.GridSearchCV` on folds that hold a share of
every label. The data are scikit-learn's handwritten digits with eight attributes of
the number as labels: even, prime, at least five, and so on.

The search answers two questions: how strongly to regularise, and how far the other
labels of an example may excuse its margin (``slack_cap``; 1 is the hinge loss).
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sklcomp.datasets import load_digit_attributes
from sklcomp.metrics import normalized_coverage, one_error, precision_at_k
from sklcomp.model_selection import IterativeStratifiedKFold
from sklcomp.multilabel import PrivilegedMultiLabelClassifier

# %%
# The data
# --------
digits = load_digit_attributes()
X_train, X_test, y_train, y_test = train_test_split(
    digits.data, digits.target, train_size=600, random_state=0
)
print("\n".join(f"{name:20} {share:5.0%}" for name, share in zip(
    digits.target_names, digits.target.mean(axis=0), strict=True
)))  # fmt: skip

# %%
# The search
# ----------
# Scored by the mean AUC of the labels, on folds that are stratified for all labels at
# once.
pipeline = make_pipeline(
    StandardScaler(), PrivilegedMultiLabelClassifier(random_state=0)
)
costs, caps = np.geomspace(1e-3, 1, 7), [1, 1.5, 3]
search = GridSearchCV(
    pipeline,
    {
        "privilegedmultilabelclassifier__C": costs,
        "privilegedmultilabelclassifier__slack_cap": caps,
    },
    scoring="roc_auc",
    cv=IterativeStratifiedKFold(3, random_state=0),
).fit(X_train, y_train)
print(search.best_params_)

scores = search.cv_results_["mean_test_score"].reshape(len(costs), len(caps))
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for cap, column in zip(caps, scores.T, strict=True):
    ax.semilogx(costs, column, marker="o", label=f"slack_cap={cap:g}")
ax.set(xlabel="C", ylabel="AUC, mean over folds and labels")
ax.legend()
plt.show()

# %%
# On data not seen before
# -----------------------
# The same search over the cost of one hinge SVM for each label.
rival = GridSearchCV(
    make_pipeline(
        StandardScaler(), OneVsRestClassifier(LinearSVC(loss="hinge", max_iter=20000))
    ),
    {"onevsrestclassifier__estimator__C": np.geomspace(1e-3, 1, 21)},
    scoring="roc_auc",
    cv=IterativeStratifiedKFold(3, random_state=0),
).fit(X_train, y_train)

print(f"{'':16}{'one-error':>12}{'coverage':>12}{'precision@3':>14}")
for name, model in {"PrML": search, "one-vs-rest SVM": rival}.items():
    found = model.decision_function(X_test)
    measures = [
        one_error(y_test, found),
        normalized_coverage(y_test, found),
        precision_at_k(y_test, found, k=3),
    ]
    print(f"{name:16}{measures[0]:12.3f}{measures[1]:12.3f}{measures[2]:14.3f}")
