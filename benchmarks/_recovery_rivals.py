"""Rivals of the recovery benchmark: ``rival(image, mask)``, mask True where observed.

Packages that users have, and methods written here after their papers where no package
offers them. The values of ``image`` outside the mask are never read.
"""

import numpy as np
from scipy.fft import dctn, idctn
from scipy.interpolate import griddata
from scipy.ndimage import distance_transform_edt
from skimage.restoration import inpaint_biharmonic


def nearest(image, mask):
    """The nearest observed pixel, by a distance transform."""
    where = distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return image[tuple(where)]


def linear(image, mask):
    """Linear interpolation; nearest only where that gives nothing."""
    points, values = np.argwhere(mask), image[mask]
    grid = tuple(np.indices(image.shape))
    filled = griddata(points, values, grid, method="linear")
    outside = np.isnan(filled)
    if outside.any():
        filled[outside] = griddata(
            points, values, np.argwhere(outside), method="nearest"
        )
    return filled


def griddata_nearest(image, mask):
    grid = tuple(np.indices(image.shape))
    return griddata(np.argwhere(mask), image[mask], grid, method="nearest")


def biharmonic(image, mask):
    return inpaint_biharmonic(np.where(mask, image, 0), ~mask)


def opencv():
    """OpenCV's two methods by name; none where it is not installed."""
    try:
        import cv2
    except ImportError:
        print("opencv is not installed (extra bench): its rows are left out")
        return {}

    def inpaint(image, mask, method):
        levels = np.round(np.where(mask, image, 0) * 255).astype(np.uint8)
        return cv2.inpaint(levels, (~mask).astype(np.uint8), 3, method) / 255

    return {
        "cv2 Telea": lambda image, mask: inpaint(image, mask, cv2.INPAINT_TELEA),
        "cv2 NS": lambda image, mask: inpaint(image, mask, cv2.INPAINT_NS),
    }


def smoothn(image, mask, *, n_iter=100, relaxation=2.0):
    """Garcia, "Robust smoothing of gridded data", 2010, as used for missing data.

    Penalised thin plate by fixed-point iterations from the nearest fill, with a
    smoothness that falls from 1e3 to 1e-6.
    """
    energy = _laplacian(image.shape) ** 2
    filled = nearest(image, mask)
    data = np.where(mask, image, 0)
    for s in np.logspace(3, -6, n_iter):
        target = np.where(mask, data, filled)
        smooth = idctn(dctn(target, norm="ortho") / (1 + s * energy), norm="ortho")
        filled = relaxation * smooth + (1 - relaxation) * filled
    return np.where(mask, image, filled)


def total_variation(image, mask, *, n_iter=300):
    """Isotropic l1 total variation (Rudin, Osher, Fatemi 1992), observed pixels kept.

    ADMM with a DCT solve in each step. Of the penalties 10 to 100 and Chambolle-Pock
    with four step sizes this comes closest to the minimum in 300 iterations.
    """
    return _admm(image, mask, tv=1.0, penalty=30.0, n_iter=n_iter)


def nuclear_norm(image, mask, *, n_iter=300):
    """Matrix completion (Candes, Recht 2009) by ADMM, centred, observed pixels kept."""
    return _admm(image, mask, nuclear=1.0, penalty=1.0, n_iter=n_iter)


def low_rank_tv(image, mask, *, n_iter=300):
    """Nuclear norm and l1 total variation, as in LRTV (He et al. 2016), by ADMM."""
    return _admm(image, mask, tv=1.0, nuclear=1.0, penalty=10.0, n_iter=n_iter)


def _admm(image, mask, *, tv=0.0, nuclear=0.0, penalty, n_iter):
    """Least ``tv * TV(x) + nuclear * ||x - mean||_*`` among x = image on the mask.

    x is split into copies: ``kept`` with the observed pixels, ``slope`` of its
    gradient, ``low`` of low rank; each is updated from 1.6 times the new x.
    """
    centre = image[mask].mean()
    data = np.where(mask, image - centre, 0)
    kept = nearest(data, mask)
    low, slope = kept, _gradient(kept)
    u_kept, u_low, u_slope = np.zeros_like(kept), np.zeros_like(low), 0 * slope
    system = 1 + (nuclear > 0) + (tv > 0) * _laplacian(image.shape)
    for _ in range(n_iter):
        total = kept - u_kept
        if nuclear:
            total = total + low - u_low
        if tv:
            total = total + _gradient_transposed(slope - u_slope)
            x = idctn(dctn(total, norm="ortho") / system, norm="ortho")
            moved = 1.6 * _gradient(x) - 0.6 * slope + u_slope
            length = np.maximum(np.sqrt((moved**2).sum(axis=0)), 1e-12)
            slope = moved * np.maximum(1 - tv / penalty / length, 0)
            u_slope = moved - slope
        else:
            x = total / system
        if nuclear:
            moved = 1.6 * x - 0.6 * low + u_low
            low = _shrink_singular_values(moved, nuclear / penalty)
            u_low = moved - low
        moved = 1.6 * x - 0.6 * kept + u_kept
        kept = np.where(mask, data, moved)
        u_kept = moved - kept
    return kept + centre


def _laplacian(shape):
    """Eigenvalues in the DCT of minus the Laplacian with reflecting boundary."""
    parts = [4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2 for n in shape]
    return np.add.outer(*parts)


def _gradient(x):
    slope = np.zeros((2, *x.shape))
    slope[0, :-1] = np.diff(x, axis=0)
    slope[1, :, :-1] = np.diff(x, axis=1)
    return slope


def _gradient_transposed(slope):
    """Of what ``_gradient`` gives: zero in the last row and column."""
    x = -slope.sum(axis=0)
    x[1:] += slope[0, :-1]
    x[:, 1:] += slope[1, :, :-1]
    return x


def _shrink_singular_values(x, threshold):
    """By the eigenvectors of the smaller Gram matrix, faster than an SVD."""
    if len(x) > x.shape[1]:
        return _shrink_singular_values(x.T, threshold).T
    values, vectors = np.linalg.eigh(x @ x.T)
    values = np.sqrt(np.maximum(values, 0))
    left = values > threshold
    vectors = vectors[:, left]
    return (vectors * (1 - threshold / values[left])) @ (vectors.T @ x)
