"""Recover a photograph of which 95 % of the pixels are missing.

Prints the quality of linear interpolation and of the DCT norm, and draws the picture
into examples/output/quickstart.png.
"""

import warnings
from pathlib import Path
from time import perf_counter

import matplotlib as mpl
import numpy as np
from scipy.interpolate import griddata
from skimage import data
from skimage.metrics import structural_similarity
from skimage.util import img_as_float

import sklcomp
from sklcomp.datasets import make_masked_images
from sklcomp.metrics import psnr
from sklcomp.recovery import recover_image

mpl.use("Agg")
import matplotlib.pyplot as plt

MISSING = 0.95
OUTPUT = Path(__file__).resolve().parent / "output" / "quickstart.png"


def interpolate(image):
    """Linear interpolation between the observed pixels, nearest outside their hull."""
    points = np.argwhere(~np.isnan(image))
    values = image[tuple(points.T)]
    grid = tuple(np.indices(image.shape))
    linear = griddata(points, values, grid, method="linear")
    nearest = griddata(points, values, grid, method="nearest")
    return np.where(np.isnan(linear), nearest, linear)


def compare(photograph, observed):
    """Rows (method, PSNR, SSIM, seconds) and the pictures, one for each method."""
    methods = {
        "linear interpolation": interpolate,
        "sklcomp.recovery.recover_image": recover_image,
    }
    rows, pictures = [], []
    for name, recover in methods.items():
        start = perf_counter()
        picture = recover(observed)
        seconds = perf_counter() - start
        ssim = structural_similarity(photograph, picture, data_range=1)
        rows.append((name, psnr(photograph, picture), ssim, seconds))
        pictures.append(picture)
    return rows, pictures


def draw(pictures, path):
    """Titled pictures side by side, one screen pixel for each of theirs."""
    side = next(iter(pictures.values())).shape[0] / 100
    fig, axes = plt.subplots(
        1,
        len(pictures),
        figsize=(len(pictures) * (side + 0.12), side + 0.45),
        dpi=100,
        gridspec_kw={
            "left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.92, "wspace": 0.02
        },
    )  # fmt: skip
    for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
        ax.imshow(np.nan_to_num(picture), cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=16)
        ax.axis("off")
    path.parent.mkdir(exist_ok=True)
    fig.savefig(path)
    plt.close(fig)


def main():
    """Hide, recover, compare, draw."""
    print("Compiling the kernels (seconds, the first time only) ...")
    sklcomp.warmup()
    photograph = img_as_float(data.camera())
    masked, _ = make_masked_images(
        photograph[np.newaxis], missing=MISSING, random_state=0
    )
    observed = masked[0]
    rows, pictures = compare(photograph, observed)

    height, width = photograph.shape
    print(f"\nPhotograph of {height} x {width} pixels, {MISSING:.0%} of them missing\n")
    print(f"{'method':32}{'PSNR/dB':>8}{'SSIM':>8}{'seconds':>9}")
    for name, decibel, ssim, seconds in rows:
        print(f"{name:32}{decibel:8.2f}{ssim:8.3f}{seconds:9.2f}")

    draw(
        {
            "original": photograph,
            f"observed: {1 - MISSING:.0%} of the pixels": observed,
            f"recovered: {rows[-1][1]:.1f} dB": pictures[-1],
        },
        OUTPUT,
    )
    print(f"\nPicture: {OUTPUT}")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main()
