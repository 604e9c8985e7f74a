"""
================================================
Where the nuclear norm helps, and where it harms
================================================

The paper minimises the DCT norm together with the nuclear norm, which is small for
pictures of low rank: those whose rows are mixtures of few rows. A weave is one, and a
photograph is not. The weight of the nuclear norm is swept over both, and
``nuclear="auto"`` chooses it without knowing the truth.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from skimage.transform import downscale_local_mean
from skimage.util import img_as_float

from sklcomp.metrics import psnr
from sklcomp.recovery import recover_image

# %%
# A weave and a photograph
# ------------------------
# Threads of random brightness in both directions, under a light that falls off: the
# picture has rank four.
rng = np.random.default_rng(0)
across = np.repeat(rng.normal(size=(2, 16)), 8, axis=1)
down = np.repeat(rng.normal(size=(2, 16)), 8, axis=1)
weave = across.T @ down + 3 * np.add.outer(*(np.hanning(128),) * 2)
weave = (weave - weave.min()) / np.ptp(weave)
photograph = downscale_local_mean(img_as_float(data.camera()), (4, 4))
pictures = {"weave": (weave, 0.8), "photograph": (photograph, 0.8)}
for name, (picture, missing) in pictures.items():
    rank = np.linalg.matrix_rank(picture, tol=1e-6)
    print(f"{name}: rank {rank} of {len(picture)}, {missing:.0%} of it missing")

# %%
# The sweep
# ---------
# Zero is the DCT norm alone, a large weight nearly the nuclear norm alone.
weights = [0, 0.03, 0.1, 0.3, 1, 3, 10, 100]
fig, axes = plt.subplots(2, 4, figsize=(11.5, 5.8), layout="constrained")
for (name, (picture, missing)), row in zip(pictures.items(), axes, strict=True):
    mask = rng.random(picture.shape) > missing
    found = [recover_image(picture, mask, nuclear=weight) for weight in weights]
    quality = [psnr(picture, image, data_range=1) for image in found]
    _, info = recover_image(picture, mask, nuclear="auto", return_info=True)
    auto = recover_image(picture, mask, nuclear=info["nuclear"])
    print(name, dict(zip(weights, np.round(quality, 2).tolist(), strict=True)))
    row[0].plot(np.maximum(weights, 0.01), quality, "o-")
    row[0].axvline(max(info["nuclear"], 0.01), color="gray", linewidth=0.8)
    row[0].set(xscale="log", xlabel="nuclear (0 at the left)", ylabel="PSNR / dB")
    row[0].set_title(f"{name}: auto takes {info['nuclear']:g}", fontsize=11)
    shown = {
        f"observed: {1 - missing:.0%}": np.where(mask, picture, 0),
        f"DCT norm alone: {quality[0]:.2f} dB": found[0],
        f"auto: {psnr(picture, auto, data_range=1):.2f} dB": auto,
    }
    for ax, (title, image) in zip(row[1:], shown.items(), strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=11)
        ax.axis("off")
plt.show()
