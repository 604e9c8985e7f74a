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
sigma = 0.1
original = downscale_local_mean(img_as_float(data.camera()), (2, 2))
rng = np.random.default_rng(0)
noisy = original + rng.normal(scale=sigma, size=original.shape)
masks = {missing: rng.random(original.shape) > missing for missing in (0.5, 0.95)}

# %%
# Exact, or believed in part
# --------------------------
# The titles give the quality of the missing pixels. The observed ones gain as well.


def quality(picture, where):
    """PSNR against the picture without noise, at some of the pixels."""
    return psnr(original, picture, data_range=1, mask=where)


fig, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
for (missing, mask), row in zip(masks.items(), axes, strict=True):
    exact = recover_image(noisy, mask)
    smooth, info = recover_image(noisy, mask, noise="auto", return_info=True)
    auto = info["noise"]
    for name, picture in (("0", exact), (f"{auto:g} (auto)", smooth)):
        print(
            f"{missing:.0%} missing, noise={name:10}"
            f" missing pixels {quality(picture, ~mask):.2f} dB,"
            f" observed pixels {quality(picture, mask):.2f} dB"
        )
    shown = {
        f"observed: {1 - missing:.0%}, noisy": np.where(mask, noisy, 0),
        f"noise=0: {quality(exact, ~mask):.2f} dB": exact,
        f"noise={auto:g} (auto): {quality(smooth, ~mask):.2f} dB": smooth,
    }
    for ax, (title, picture) in zip(row, shown.items(), strict=True):
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=11)
        ax.axis("off")
plt.show()

# %%
# How much noise to allow for
# ---------------------------
# The lower curves are the quality, which nobody knows outside of an example. The upper
# ones are what "auto" sees: the errors at the hidden pixels, which
# :class:`sklcomp.recovery.DCTImputer` keeps in ``cv_results_``. They hold the noise of
# the hidden pixels too, so that its variance (dotted) remains at any weight.
weights = [0, 0.03, 0.1, 0.3, 1, 3, 10, 30]
fig, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained")
for (missing, mask), (above, below) in zip(masks.items(), axes.T, strict=True):
    X = np.where(mask, noisy, np.nan)[np.newaxis]
    imputer = DCTImputer(noise="auto").fit(X)
    results = imputer.cv_results_
    tried, error = results["param_noise"], -results["mean_test_score"]
    truth = [quality(recover_image(noisy, mask, noise=w), ~mask) for w in weights]
    print(f"{missing:.0%} missing, auto takes {imputer.noise_:g}")
    for weight, value in zip(tried, error, strict=True):
        print(f"  noise={weight:<4g} squared error at hidden pixels {value:.5f}")
    for weight, value in zip(weights, truth, strict=True):
        print(f"  noise={weight:<4g} PSNR of the missing pixels {value:.2f} dB")
    above.plot(tried, error, "s--", color="C1")
    above.axhline(sigma**2, color="gray", linewidth=0.8, linestyle=":")
    above.set_title(f"{missing:.0%} missing")
    below.plot(weights, truth, "o-")
    for ax in (above, below):
        ax.axvline(imputer.noise_, color="gray", linewidth=0.8)
        ax.set_xscale("symlog", linthresh=0.03, linscale=0.5)
        ax.grid(alpha=0.3)
    below.set_xticks(weights, [f"{weight:g}" for weight in weights])
    below.set_xlabel("noise")
axes[0, 0].set_ylabel("squared error, hidden pixels")
axes[1, 0].set_ylabel("PSNR, missing pixels / dB")
plt.show()

# %%
# The vertical line is the choice. "auto" takes the smallest weight whose error exceeds
# the least one by no more than one standard error. It therefore rather smooths too
# little than too much, and the more so the fewer pixels there are to ask.
