"""Recovery with the DCT norm, after Wang et al., arXiv 1604.05451.

With the orthonormal DCT-II ``C`` and non-negative weights ``W`` the squared norm is
``|W^(1/2) C x|^2 = <x, A x>`` where ``A = C^T diag(W) C``. The observed pixels are
fixed, so the missing ones solve ``A_mm x_m = -A_mo x_o``. Every solver here starts from
the nearest observed pixel and solves for the correction, whose right-hand side
``r = -(A x)_m`` was computed in double precision; the correction itself may then be
found in single precision without loss at the tolerances in use. Only the sparse
factorisation has no use for a start, nor for transforms.

It is assumed that images and masks are already validated.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.fft import dctn
from scipy.ndimage import distance_transform_edt

from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.dct._direct import (
    MAX_UNKNOWNS,
    direct_size,
    has_dual,
    is_banded,
    solve_direct,
)
from sklcomp.solvers.dct._pcg import apply_spectrum, select_rows, solve_pcg
from sklcomp.solvers.dct._sparse import solve_sparse
from sklcomp.solvers.dct._stencil import solve_stencil

# What a factorisation leaves of a residual is no lower than this.
DIRECT_TOL = 1e-8
# A dense factorisation of n unknowns costs n^3 / 3 and the iterations about 500 N for
# N pixels; one number balances the two (measured on grids of 32^2 to 512^2).
DIRECT_COST_RATIO = 4500
DIRECT_SIZE_1D = 2000
# A sparse factorisation wins where at most a fifth is missing (512 x 512: text 18 ms
# against 48 ms of the stencil; half of the pixels at random 600 ms against 40 ms). In
# holes of a mean depth of 8 pixels iterations stop far from the solution, as the hole
# hardly weighs in the residual. The fill grows with the dimension.
SPARSE_SHARE = 0.2
SPARSE_DEPTH = 8
SPARSE_SIZE = {1: 2**17, 2: 2**17, 3: 2**14}


def laplacian_eigenvalues(
    shape: tuple[int, ...], axis_scale: tuple[float, ...] | None = None
) -> np.ndarray:
    """Eigenvalues of the Laplacian with reflecting boundary, in DCT-II order.

    ``sum_a g_a 4 sin^2(pi k_a / 2 n_a)`` with the scale ``g_a`` of each axis.
    """
    scales = axis_scale or (1.0,) * len(shape)
    axes = (
        scale * 4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2
        for n, scale in zip(shape, scales, strict=True)
    )
    return sum(np.ix_(*axes), np.zeros(shape))


def dct_norm_squared(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Squared DCT norm of each image, ``|W^(1/2) o C(x)|_F^2``."""
    axes = tuple(range(1, images.ndim))
    return (weights * dctn(images, axes=axes, norm="ortho") ** 2).sum(axis=axes)


def solve_dct(
    images: np.ndarray,
    observed: np.ndarray,
    *,
    weights: np.ndarray,
    order: float | None = None,
    axis_scale: tuple[float, ...] | None = None,
    solver: str = "auto",
    max_iter: int = 200,
    tol: float = 1e-3,
    workers: int | None = None,
    callback: Callable[[int], bool] | None = None,
) -> SolverResult:
    """Minimise the DCT norm of each image over its missing pixels.

    Parameters
    ----------
    images : ndarray of shape (n_images, *grid), float32 or float64
        Values at missing pixels are ignored.
    observed : ndarray of the same shape, bool
        At least one True per image.
    weights : ndarray of shape grid, float64
        Non-negative spectral weights ``W``; only their ratios matter.
    order : float or None
        The q of ``W = Lambda^q``, where also the size of the weights matters; None for
        weights that are no power of the Laplacian.
    axis_scale : sequence of float or None
        Scales of the axes in ``Lambda``, for the stencil; None is 1 everywhere.
    solver : {"auto", "direct", "pcg", "sparse", "stencil"}
        "auto" decides image by image, and iterates where a factorisation fails.
    max_iter, tol : int, float
        Limits of the iterative solvers, see SolverResult.gap.
    workers : int or None
        Threads of one DCT call.
    callback : callable or None
        Called as ``callback(iteration)`` after each iteration, or each direct solve;
        True stops the batch with what it has reached.

    Returns
    -------
    SolverResult
        With solutions of the images' dtype; observed pixels are kept bit for bit.

    Raises
    ------
    ValueError
        If "direct" was asked for and the system is too large or singular to working
        precision.
    """
    peak = weights.max() or 1.0
    weights = weights / peak
    if order is not None:
        scales = np.ones(images.ndim - 1) if axis_scale is None else axis_scale
        axis_scale = np.asarray(scales) / peak ** (1 / order)
    start, unit = normalise(images, observed, is_centred=weights.flat[0] == 0)
    n_iter, gap = np.zeros(len(images), dtype=int), np.zeros(len(images))
    converged = np.ones(len(images), dtype=bool)
    dual = has_dual(weights)
    kinds = np.array(
        [_choose(o, dual, order, axis_scale, solver) for o in observed], dtype=object
    )
    if not weights.any():
        kinds[:] = "nearest"  # every fill has the norm 0
    settings = {
        "weights": weights,
        "order": order,
        "axis_scale": axis_scale,
        "tol": tol,
        "max_iter": max_iter,
        "workers": workers,
        "callback": callback,
    }
    for kind, solve in SOLVERS.items():
        if kind not in kinds:
            continue
        rows = select_rows(kinds == kind)
        found, n_iter[rows], gap[rows] = solve(start[rows], observed[rows], **settings)
        is_exact = kind in FALLBACKS
        limit = max(tol, DIRECT_TOL) if is_exact else tol
        failed, converged[rows] = gap[rows] > limit, gap[rows] <= limit
        if is_exact and failed.any():
            if solver != "auto":
                raise ValueError(singular(kind, gap[rows].max()))
            kinds[rows] = np.where(failed, FALLBACKS[kind], kind)
        start[rows] = found
    # Overflow is told by the caller, who sees infinity in the solution.
    with np.errstate(over="ignore"):
        start *= unit[0]
        start += unit[1]
        solution = np.where(observed, images, start).astype(images.dtype, copy=False)
    return SolverResult(solution, n_iter, gap, converged)


def normalise(images, observed, *, is_centred):
    """Images in units of their own spread with zeros at missing pixels, and the unit.

    The solution becomes independent of the units of the pixels: an offset of 1e6 costs
    no digits and values of 1e-300 do not vanish in the squares. Weights that penalise
    the mean make zero a special level: no centring then.
    """
    start = np.where(observed, images, 0).astype(np.float64)
    axes = tuple(range(1, start.ndim))
    scale = np.abs(start).max(axis=axes, keepdims=True)
    scale[scale == 0] = 1
    start /= scale
    counts = observed.sum(axis=axes, keepdims=True)
    center = start.sum(axis=axes, keepdims=True) / counts * is_centred
    start -= center
    start[~observed] = 0
    return start, (scale, center * scale)


def fill_nearest(start, observed):
    """Give missing pixels the value of the nearest observed one, in place."""
    for image, known in zip(start, observed, strict=True):
        if not known.all():
            nearest = distance_transform_edt(
                ~known, return_distances=False, return_indices=True
            )
            image[...] = image[tuple(nearest)]


def singular(solver, gap):
    """What is said of a factorisation that failed."""
    return (
        f"solver='{solver}' met a system that is singular to working precision "
        f"(residual {gap:.2g}): the weights leave a component undetermined, or the "
        "order is too high for the data. Use solver='auto', which falls back on "
        "iterations."
    )


def check_unknowns(size, banded):
    """Refuse a dense factorisation that is too large."""
    if size > MAX_UNKNOWNS and not banded:
        msg = (
            f"solver='direct' would factorise a dense matrix of {size} unknowns, more "
            f"than its limit of {MAX_UNKNOWNS}; use solver='auto'."
        )
        raise ValueError(msg)


def is_cheap(size, shape, banded):
    """Whether a factorisation of so many unknowns costs less than iterations."""
    if sum(n > 1 for n in shape) <= 1:
        return banded or size <= DIRECT_SIZE_1D
    return size**3 <= DIRECT_COST_RATIO * math.prod(shape)


def _choose(observed, dual, order, axis_scale, solver):
    """Name of the solver for one image: the cheapest that can serve it."""
    n_missing = observed.size - observed.sum()
    if n_missing == 0:
        return "none"
    size = direct_size(observed, dual)
    banded = is_banded(observed.shape, order)
    if solver == "direct":
        check_unknowns(size, banded)
    if solver != "auto":
        return solver
    if is_cheap(size, observed.shape, banded):
        return "direct"
    has_stencil = order in (1, 2) and observed.ndim <= 3
    is_small = has_stencil and n_missing <= SPARSE_SIZE[observed.ndim]
    if is_small and np.all(axis_scale):
        if n_missing <= SPARSE_SHARE * observed.size:
            return "sparse"
        if distance_transform_edt(~observed)[~observed].mean() >= SPARSE_DEPTH:
            return "sparse"
    # Order 2 needs many stencil steps where hardly anything is observed; below 3 % the
    # preconditioner wins (measured at 256 x 256).
    few_steps = order == 1 or n_missing < 0.97 * observed.size
    return "stencil" if has_stencil and few_steps else "pcg"


def _from_nearest(solve):
    """A solver of corrections as one that starts from the nearest observed pixels."""

    def run(start, observed, *, weights, workers, **settings):
        fill_nearest(start, observed)
        axes = tuple(range(1, start.ndim))
        residual = -apply_spectrum(start, weights, axes, workers)
        residual[observed] = 0
        correction, n_iter, gap = solve(
            residual, observed, weights=weights, workers=workers, **settings
        )
        start += correction
        return start, n_iter, gap

    return run


def _nearest(residual, observed, **_):
    return 0, 0, 0


# Each fills the missing pixels of normalised images, which hold zeros or the failure of
# another solver; a fallback comes after what it serves.
SOLVERS: dict[str, Callable] = {
    "nearest": _from_nearest(_nearest),
    "sparse": solve_sparse,
    "direct": _from_nearest(solve_direct),
    "stencil": _from_nearest(solve_stencil),
    "pcg": _from_nearest(solve_pcg),
}
# What "auto" does where a factorisation fails.
FALLBACKS = {"sparse": "stencil", "direct": "pcg"}
