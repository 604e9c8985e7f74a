"""
==============================================
Choosing the order by a search over the pixels
==============================================

An order of the DCT norm can be chosen without knowing the complete picture: hide some
of the observed pixels, and see which order finds them best. ``order="auto"`` does this
on its own. With :class:`sklcomp.recovery.DCTRegressor`, whose samples are pixels, the
same is an ordinary :class:`sklearn.model_selection.GridSearchCV`, with the folds, the
score and the record that one is used to.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from skimage.transform import downscale_local_mean
from skimage.util import img_as_float
from sklearn.model_selection import GridSearchCV, KFold

from sklcomp.metrics import psnr
from sklcomp.recovery import DCTRegressor, recover_image

# %%
# A photograph of which one pixel in ten is left
# ----------------------------------------------
# The coordinates of an observed pixel are a sample, its value is the target.
original = downscale_local_mean(img_as_float(data.camera()), (2, 2))
mask = np.random.default_rng(0).random(original.shape) > 0.9
X, y = np.argwhere(mask), original[mask]
print(f"{len(X)} observed pixels of {original.size}")

# %%
# The search
# ----------
# Folds are drawn at random, because the missing pixels are missing at random.
orders = [0.75, 1, 1.25, 1.5, 1.75, 2]
search = GridSearchCV(
    DCTRegressor(original.shape, extent="pixels"),
    {"order": orders},
    scoring="neg_mean_squared_error",
    cv=KFold(5, shuffle=True, random_state=0),
).fit(X, y)
print("chosen by cross-validation:", search.best_params_["order"])
_, info = recover_image(original, mask, order="auto", return_info=True)
print('chosen by order="auto":    ', info["order"])

# %%
# What the search sees, and what it cannot see
# --------------------------------------------
# The error at hidden pixels against the error at all missing ones. The search works
# with fewer pixels, so its error is larger; that does not matter, as only the place of
# the minimum does.
error = -search.cv_results_["mean_test_score"]
truth = [
    np.mean((recover_image(original, mask, order=order) - original)[~mask] ** 2)
    for order in orders
]
fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
axes[0].plot(orders, error, "o-", label="cross-validation")
axes[0].plot(orders, truth, "s--", label="missing pixels")
axes[0].axvline(search.best_params_["order"], color="gray", linewidth=0.8)
axes[0].set(xlabel="order", ylabel="mean squared error")
axes[0].legend()
recovered = search.best_estimator_.grid_
quality = psnr(original, recovered, data_range=1)
seen = np.where(mask, original, 0)
axes[1].imshow(seen, cmap="gray", vmin=0, vmax=1)
axes[1].set_title("observed: 10 %")
axes[2].imshow(recovered, cmap="gray", vmin=0, vmax=1)
axes[2].set_title(f"recovered: {quality:.2f} dB")
for ax in axes[1:]:
    ax.axis("off")
plt.show()
