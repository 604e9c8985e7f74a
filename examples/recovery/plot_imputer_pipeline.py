"""
==============================================
Classification of pictures with missing pixels
==============================================

:class:`sklcomp.recovery.DCTImputer` is a transformer: it stands in a pipeline before a
classifier, and its parameters are searched like any others. Here 60 % of the pixels of
every digit are missing. The imputers of scikit-learn fill a pixel from the same pixel
of other pictures; ours fills it from the other pixels of the same picture, so that it
learns nothing from the training set but also needs nothing from it.
"""

from time import perf_counter

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from sklcomp.datasets import make_masked_images
from sklcomp.inspection import RecoveryDisplay
from sklcomp.recovery import DCTImputer

# %%
# Digits with missing pixels
# --------------------------
# The rows of ``X`` are flattened pictures of 8 x 8 pixels; NaN marks a missing one.
digits = load_digits()
masked, complete = make_masked_images(digits.images / 16, missing=0.6, random_state=0)
X, y = masked.reshape(len(masked), -1), digits.target

# %%
# Which order?
# ------------
# The order of the norm is chosen by the accuracy of the classifier behind it.
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, stratify=y, random_state=0
)
model = make_pipeline(DCTImputer(image_shape=(8, 8)), SVC())
search = GridSearchCV(model, {"dctimputer__order": [0.75, 1.0, 1.5, 2.0]}, cv=3)
search.fit(X_train, y_train)
for order, score in zip(
    search.cv_results_["param_dctimputer__order"],
    search.cv_results_["mean_test_score"],
    strict=True,
):
    print(f"order {order:4}: accuracy {score:.3f}")
print(f"accuracy on the test set: {search.score(X_test, y_test):.3f}")

# %%
# Against the imputers of scikit-learn
# ------------------------------------
# The same folds and the same classifier for all of them; the search for the order is
# repeated inside each fold. The averages differ by about as much as the folds do.
models = {
    "SimpleImputer (mean)": make_pipeline(
        SimpleImputer(keep_empty_features=True), SVC()
    ),
    "KNNImputer": make_pipeline(KNNImputer(keep_empty_features=True), SVC()),
    "DCTImputer (default)": model,
    "DCTImputer (searched)": search,
}
folds = StratifiedKFold(5, shuffle=True, random_state=0)
accuracy = {}
for name, candidate in models.items():
    start = perf_counter()
    accuracy[name] = cross_val_score(candidate, X, y, cv=folds)
    seconds = perf_counter() - start
    print(
        f"{name:24} accuracy {accuracy[name].mean():.3f} "
        f"+- {accuracy[name].std():.3f}  {seconds:5.1f} s"
    )

fig, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
means = [scores.mean() for scores in accuracy.values()]
deviations = [scores.std() for scores in accuracy.values()]
ax.barh(list(accuracy), means, xerr=deviations, color=["0.7", "0.7", "C0", "C0"])
ax.invert_yaxis()
ax.set(xlabel="accuracy, 5-fold cross-validation", xlim=(0, 1))
plt.show()

# %%
# What the classifier sees
# ------------------------
# Purple pixels are missing.
imputer = search.best_estimator_[0]
display = RecoveryDisplay.from_estimator(
    imputer, X, complete.reshape(X.shape), n_images=3
)
plt.show()
