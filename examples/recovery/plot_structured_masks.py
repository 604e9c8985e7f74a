"""
=====================================
Text, scratches, blocks and lost rows
=====================================

What is missing in practice is seldom missing at random. Four kinds of damage are done
to a photograph and repaired with the DCT norm of order 2, which serves thin gaps; with
``order="auto"``, which hides observed pixels in gaps of the same kind and asks them;
and with ``refine="block_dct"``, which asks for sparse blocks afterwards. Biharmonic
inpainting of scikit-image stands beside them.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from skimage.draw import line
from skimage.restoration import inpaint_biharmonic
from skimage.transform import downscale_local_mean
from skimage.util import img_as_float

from sklcomp.metrics import psnr
from sklcomp.recovery import recover_image

# %%
# The photograph and its damage
# -----------------------------
original = downscale_local_mean(img_as_float(data.camera()), (2, 2))
shape = original.shape
rng = np.random.default_rng(0)

text = np.ones(shape, dtype=bool)
letters = data.text() < 90  # a photographed page, its ink
page = np.tile(letters, (2, 1))[: shape[0], : shape[1]]
text[page] = False

scratches = np.ones(shape, dtype=bool)
for start, stop in zip(
    rng.integers(0, 256, (12, 2)), rng.integers(0, 256, (12, 2)), strict=True
):
    rows, columns = line(*start, *stop)
    for shift in (0, 1):
        scratches[np.minimum(rows + shift, 255), columns] = False

blocks = np.ones(shape, dtype=bool)
for top, left in 16 * rng.permutation(np.argwhere(np.ones((16, 16))))[:25]:
    blocks[top : top + 16, left : left + 16] = False

lost_rows = np.ones(shape, dtype=bool)
lost_rows[rng.permutation(shape[0])[: shape[0] // 3]] = False

masks = {
    "text": text,
    "scratches": scratches,
    "blocks of 16": blocks,
    "a third of the rows": lost_rows,
}

# %%
# Repairs
# -------
# The quality is that of the missing pixels alone.
methods = {
    "biharmonic": lambda image, mask: inpaint_biharmonic(image * mask, ~mask),
    "order 2": lambda image, mask: recover_image(image, mask, order=2),
    "auto": lambda image, mask: recover_image(image, mask, order="auto"),
    "auto, refined": lambda image, mask: recover_image(
        image, mask, order="auto", refine="block_dct"
    ),
}
fig, axes = plt.subplots(4, 3, figsize=(9, 12), layout="constrained")
for (name, mask), row in zip(masks.items(), axes, strict=True):
    pictures = {key: repair(original, mask) for key, repair in methods.items()}
    quality = {key: psnr(original, p, mask=~mask) for key, p in pictures.items()}
    order = recover_image(original, mask, order="auto", return_info=True)[1]["order"]
    values = "  ".join(f"{key} {value:.2f}" for key, value in quality.items())
    print(f"{name:20} {1 - mask.mean():.0%} missing, dB: {values}; auto is {order}")
    shown = {
        f"{name}, {1 - mask.mean():.0%} missing": np.where(mask, original, 1),
        f"order {order:g} (auto): {quality['auto']:.2f} dB": pictures["auto"],
        f"refined: {quality['auto, refined']:.2f} dB": pictures["auto, refined"],
    }
    for ax, (title, picture) in zip(row, shown.items(), strict=True):
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=11)
        ax.axis("off")
plt.show()

# %%
# Thin gaps want a high order, wide ones a lower one, and sparse blocks carry edges
# across: the more of a block is left, the better.
