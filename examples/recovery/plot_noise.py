"""
==================================
Pixels that are missing, and noisy
==================================

Without further word the observed pixels are kept bit for bit. If they are noisy, their
noise is not only kept but also spread over the missing ones. ``noise`` weighs the DCT
norm against the data instead; ``noise="auto"`` finds the weight by observed pixels that
are hidden first, noisy as they are.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from skimage.transform import downscale_local_mean
from skimage.util import img_as_float

from sklcomp.metrics import psnr
from sklcomp.recovery import DCTImputer, recover_image

# %%
# The picture
# -----------
# Noise with a standard deviation of a tenth of the range, and half, or 95 %, of the
# pixels missing.
original = downscale_local_mean(img_as_float(data.camera()), (2, 2))
rng = np.random.default_rng(0)
noisy = original + rng.normal(scale=0.1, size=original.shape)
masks = {missing: rng.random(original.shape) > missing for missing in (0.5, 0.95)}

# %%
# Exact or believed in part
# -------------------------
fig, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
for (missing, mask), row in zip(masks.items(), axes, strict=True):
    exact = recover_image(noisy, mask)
    smooth, info = recover_image(noisy, mask, noise="auto", return_info=True)
    shown = {
        f"observed: {1 - missing:.0%}, noisy": np.where(mask, noisy, 0),
        f"noise=0: {psnr(original, exact):.2f} dB": exact,
        f"noise={info['noise']:g} (auto): {psnr(original, smooth):.2f} dB": smooth,
    }
    for ax, (title, picture) in zip(row, shown.items(), strict=True):
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=11)
        ax.axis("off")
        print(f"{missing:.0%} missing: {title}")
plt.show()

# %%
# What "auto" sees
# ----------------
# The error at hidden pixels holds their own noise as well, so its minimum is flatter
# than that of the true error; it lies at nearly the same weight.
grid = np.array([0, 0.03, 0.1, 0.3, 1, 3, 10])
places = np.maximum(grid, 0.01)  # zero on a logarithmic axis
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, (missing, mask) in zip(axes, masks.items(), strict=True):
    truth = [
        np.mean((recover_image(noisy, mask, noise=weight) - original) ** 2)
        for weight in grid
    ]
    X = np.where(mask, noisy, np.nan)[np.newaxis]
    results = DCTImputer(noise="auto").fit(X).cv_results_
    ax.plot(places, truth, "o-", label="true error")
    ax.plot(
        np.maximum(results["param_noise"], 0.01), -results["mean_test_score"] - 0.01,
        "s--", label="at hidden pixels, less the noise",
    )  # fmt: skip
    ax.set(xscale="log", xlabel="noise (0 at the left)", title=f"{missing:.0%} missing")
axes[0].set_ylabel("mean squared error")
axes[0].legend()
plt.show()
