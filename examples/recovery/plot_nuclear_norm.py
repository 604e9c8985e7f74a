"""
================================================
Where the nuclear norm helps, and where it harms
================================================

The paper minimises the DCT norm together with the nuclear norm, which is small for
pictures of low rank: those whose rows are mixtures of few rows. Its weight is swept
over a facade, a brick wall and a photograph, and ``nuclear="auto"`` chooses it without
knowing the truth.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.fft import dctn
from skimage import data
from skimage.transform import downscale_local_mean
from skimage.util import img_as_float

from sklcomp.metrics import psnr
from sklcomp.recovery import recover_image

# %%
# A facade, a brick wall and a photograph
# ---------------------------------------
# The facade is drawn: windows in a regular grid, a cornice above each storey, and a
# light that fades to one side. The others come with scikit-image. The share of the
# variance that an approximation of rank 2 holds is compared with the share of a smooth
# one, by as many of the lowest DCT coefficients as rank 2 has free numbers: what counts
# is not whether a picture is of low rank, but whether it is more so than it is smooth.
place = np.arange(128) % 16
window = (place >= 4) & (place < 12)
storey = np.where(place < 2, 0.95, 0.75)
facade = storey[:, np.newaxis] - 0.5 * np.outer(window, window)
facade *= np.linspace(1, 0.7, 128)
brick = downscale_local_mean(img_as_float(data.brick()), (2, 2))[:128, :128]
pictures = {
    "facade": facade,
    "brick wall": brick,
    "photograph": downscale_local_mean(img_as_float(data.camera()), (4, 4)),
}
rank, n = 2, 128
frequency = np.add.outer(np.arange(n) ** 2, np.arange(n) ** 2)
lowest = np.argsort(frequency, axis=None, kind="stable")[: rank * (2 * n - rank)]
for name, picture in pictures.items():
    centred = picture - picture.mean()
    low_rank = np.linalg.svd(centred, compute_uv=False)[:rank]
    smooth = dctn(centred, norm="ortho").flat[lowest]
    shares = [np.sum(part**2) / np.sum(centred**2) for part in (low_rank, smooth)]
    print(f"{name:10} rank 2 holds {shares[0]:.0%}, a smooth picture {shares[1]:.0%}")

# %%
# The sweep
# ---------
# Zero is the DCT norm alone, a large weight nearly the nuclear norm alone. The quality
# is that of the missing pixels.
missing = 0.93
weights = [0, 0.1, 0.3, 1, 3, 10, 100, 1000]
mask = np.random.default_rng(0).random((128, 128)) > missing
found = {}
fig, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
    recovered = [recover_image(picture, mask, nuclear=weight) for weight in weights]
    quality = [psnr(picture, r, data_range=1, mask=~mask) for r in recovered]
    auto, info = recover_image(picture, mask, nuclear="auto", return_info=True)
    found[name] = {
        "DCT norm alone": recovered[0],
        f"nuclear={info['nuclear']:g} (auto)": auto,
        f"nuclear={weights[-1]}": recovered[-1],
    }
    print(name, dict(zip(weights, np.round(quality, 2).tolist(), strict=True)))
    ax.plot(weights, quality, "o-")
    ax.axvline(info["nuclear"], color="gray", linewidth=0.8)
    ax.set_xscale("symlog", linthresh=0.1, linscale=0.5)
    ax.set_xlim(-0.03, 2000)
    ax.set_xticks([0, 0.1, 1, 10, 100, 1000], ["0", "0.1", "1", "10", "100", "1000"])
    ax.set(title=f"{name}: auto takes {info['nuclear']:g}", xlabel="nuclear")
    ax.grid(alpha=0.3)
axes[0].set_ylabel("PSNR of the missing pixels / dB")
plt.show()

# %%
# The pictures
# ------------
# The facade needs a large weight, the wall one in between, the photograph hardly any:
# there a large weight leaves stripes along rows and columns, since those are what a low
# rank has to offer.
fig, axes = plt.subplots(3, 5, figsize=(12, 8), layout="constrained")
for row, (name, picture) in zip(axes, pictures.items(), strict=True):
    row[0].set_title(name, fontsize=11)
    row[1].set_title(f"observed: {1 - missing:.0%}", fontsize=11)
    for ax, image in zip(row, [picture, np.where(mask, picture, 0)], strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    for ax, (title, image) in zip(row[2:], found[name].items(), strict=True):
        decibel = psnr(picture, image, data_range=1, mask=~mask)
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"{title}\n{decibel:.2f} dB", fontsize=11)
    for ax in row:
        ax.axis("off")
plt.show()
