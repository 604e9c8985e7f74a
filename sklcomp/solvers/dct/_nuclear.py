"""DCT norm plus nuclear norm by consensus ADMM, after Wang et al., arXiv 1604.05451.

    minimise  tau sum_j |X_(j)|_* + lam/2 |X|_DCT^2 + 1/2 |P(X - M)|^2

over the unfoldings X_(j) (a matrix has one); exact data are the limit P(X) = P(M), with
lam = 1. Each term has its own copy of X: singular values are shrunk in one, the
spectrum in another, and the average of all is tied to the data.
"""

import numpy as np
from scipy.linalg import eigh

from sklcomp.solvers.dct._pcg import apply_spectrum
from sklcomp.utils._threads import single_blas_thread

RELAXATION = 1.6


def solve_nuclear(
    start, observed, *, weights, nuclear, noise, max_iter, tol, callback=None
):
    """Minimise for each image of a batch, image by image.

    Parameters
    ----------
    start : ndarray of shape (n_images, *grid), float64
        Images of range about 1, centred; the data where observed.
    observed : ndarray of the same shape, bool
    weights : ndarray of shape grid
    nuclear : float
        tau.
    noise : ndarray of shape (n_images,)
        lam; 0 keeps the data exactly.
    max_iter, tol : int, float
        Stop when the copies agree, and have ceased to move, to this share of X.
    callback : callable or None
        As in solve_dct.

    Returns
    -------
    solution, n_iter, gap
        Arrays with one entry per image; the gap is the larger of the two shares.
    """
    solution = start.copy()
    n_iter, gap = np.zeros(len(start), dtype=int), np.ones(len(start))
    with single_blas_thread():
        for i, known in enumerate(observed):
            solution[i], n_iter[i], gap[i] = _solve_one(
                start[i], known, weights, nuclear, noise[i], max_iter, tol, callback
            )
    return solution, n_iter, gap


def _solve_one(data, observed, weights, tau, lam, max_iter, tol, callback):
    """Relaxed ADMM on one image."""
    strength = lam or 1.0
    axes = tuple(range(data.ndim))
    modes = range(data.ndim) if data.ndim > 2 else range(1 if tau else 0)
    n_copies = len(modes) + 1
    # One penalty for all copies: of six pairs the one with the fewest iterations for
    # images of range 1. It grows with tau, else a large one takes thousands.
    penalty = max(1.0, tau)
    damping = penalty / (strength * weights + penalty)
    x = data.copy()
    duals = [np.zeros_like(x) for _ in range(n_copies)]
    n_iter, gap = 0, 1.0
    while gap > tol and n_iter < max_iter:
        copies = [
            shrink_singular_values(x - dual, tau / penalty, mode)
            for mode, dual in zip(modes, duals, strict=False)
        ]
        copies.append(apply_spectrum(x - duals[-1], damping, axes))
        relaxed = [RELAXATION * copy + (1 - RELAXATION) * x for copy in copies]
        average = penalty * (sum(relaxed) + sum(duals))
        if lam:
            average = (average + observed * data) / (n_copies * penalty + observed)
        else:
            average = np.where(observed, data, average / (n_copies * penalty))
        size = float(np.linalg.norm(average)) or 1.0
        moved = float(np.linalg.norm(average - x)) / size
        x = average
        for copy, dual in zip(relaxed, duals, strict=True):
            dual += copy - x
        apart = float(max(np.linalg.norm(copy - x) for copy in copies)) / size
        gap = max(apart, moved)
        n_iter += 1
        if callback is not None and callback(n_iter - 1):
            break
    return x, n_iter, gap


def shrink_singular_values(array: np.ndarray, by: float, mode: int = 0) -> np.ndarray:
    """Proximal map of the nuclear norm of one unfolding: ``U max(S - by, 0) V^T``.

    The left vectors come from the smaller Gram matrix, which loses digits only below
    1e-8 of the largest singular value.
    """
    unfolded = np.moveaxis(array, mode, 0)
    matrix = unfolded.reshape(len(unfolded), -1)
    is_wide = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if is_wide else matrix.T @ matrix
    squares, vectors = eigh(gram, overwrite_a=True, check_finite=False)
    kept = squares > by**2
    vectors = vectors[:, kept]
    shares = 1 - by / np.sqrt(squares[kept])
    shrunk = (
        (vectors * shares) @ (vectors.T @ matrix)
        if is_wide
        else ((matrix @ vectors) * shares) @ vectors.T
    )
    return np.moveaxis(shrunk.reshape(unfolded.shape), 0, mode)
