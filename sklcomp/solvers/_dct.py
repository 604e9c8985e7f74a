"""Recovery with the DCT norm, after Wang et al., arXiv 1604.05451.

With the orthonormal DCT-II ``C`` and non-negative weights ``W`` the squared norm is
``|W^(1/2) C x|^2 = <x, A x>`` where ``A = C^T diag(W) C``. The observed pixels are
fixed, so the missing ones solve ``A_mm x_m = -A_mo x_o``. Every solver here starts from
the nearest observed pixel and solves for the correction, whose right-hand side
``r = -(A x)_m`` was computed in double precision; the correction itself may then be
found in single precision without loss at the tolerances in use.

It is assumed that images and masks are already validated.
"""

from collections.abc import Callable

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import distance_transform_edt

from sklcomp.solvers._dct_direct import (
    MAX_UNKNOWNS,
    direct_size,
    has_dual,
    is_banded,
    solve_direct,
)
from sklcomp.solvers._dct_stencil import solve_stencil
from sklcomp.solvers._result import SolverResult

# Rounding limits the gap that iterations can reach to about eps / sqrt(rho), with the
# shift rho relative to the largest weight; a tenth of the digits is kept in reserve.
ROUNDING_RESERVE = 10
# What a factorisation leaves of a residual is no lower than this.
DIRECT_TOL = 1e-8
# A dense factorisation of n unknowns costs n^3 / 3 and the iterations about 500 N for
# N pixels; one number balances the two (measured on grids of 32^2 to 512^2).
DIRECT_COST_RATIO = 4500
DIRECT_SIZE_1D = 2000


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
        The q of ``W = Lambda^q``; None for weights that are no power of the Laplacian.
    axis_scale : sequence of float or None
        Scales of the axes in ``Lambda``, for the stencil; None is 1 everywhere.
    solver : {"auto", "direct", "pcg", "stencil"}
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
    start, residual, unit = _prepare(images, observed, weights, workers)
    n_images = len(images)
    n_iter, gap = np.zeros(n_images, dtype=int), np.zeros(n_images)
    converged = np.ones(n_images, dtype=bool)
    dual = has_dual(weights)
    kinds = np.array([_choose(o, dual, order, solver) for o in observed])
    if not weights.any():
        kinds[:] = "none"  # every fill has the norm 0: the nearest one stays
    order_of = {"weights": weights, "order": order, "axis_scale": axis_scale}
    for kind, solve in SOLVERS.items():
        if kind not in kinds:
            continue
        rows = _rows(kinds == kind)
        correction, n_iter[rows], gap[rows] = solve(
            residual[rows], observed[rows], **order_of,
            max_iter=max_iter, tol=tol, workers=workers, callback=callback,
        )  # fmt: skip
        converged[rows] = gap[rows] <= tol
        if kind == "direct":
            failed = gap[rows] > max(tol, DIRECT_TOL)
            converged[rows] = gap[rows] <= max(tol, DIRECT_TOL)
            correction[failed] = 0
            if solver == "auto":
                kinds[rows] = np.where(failed, "pcg", kind)
            elif failed.any():
                msg = (
                    "solver='direct' met a system that is singular to working "
                    f"precision (residual {gap[rows].max():.2g}): the weights leave a "
                    "component undetermined, or the order is too high for the data. "
                    "Use solver='auto', which falls back on 'pcg'."
                )
                raise ValueError(msg)
        start[rows] += correction
    # Overflow is told by the caller, who sees infinity in the solution.
    with np.errstate(over="ignore"):
        start *= unit[0]
        start += unit[1]
        solution = np.where(observed, images, start).astype(images.dtype, copy=False)
    return SolverResult(solution, n_iter, gap, converged)


def _prepare(images, observed, weights, workers):
    """Nearest fill in units of each image's own spread, and its residual.

    Centring and scaling make the solution independent of the units of the pixels: an
    offset of 1e6 costs no digits and values of 1e-300 do not vanish in the squares.
    """
    start = np.where(observed, images, 0).astype(np.float64)
    axes = tuple(range(1, start.ndim))
    scale = np.abs(start).max(axis=axes, keepdims=True)
    scale[scale == 0] = 1
    start /= scale
    counts = observed.sum(axis=axes, keepdims=True)
    # Weights that penalise the mean make zero a special level: no centring then.
    center = start.sum(axis=axes, keepdims=True) / counts * (weights.flat[0] == 0)
    start -= center
    start[~observed] = 0
    for image, known in zip(start, observed, strict=True):
        if not known.all():
            nearest = distance_transform_edt(
                ~known, return_distances=False, return_indices=True
            )
            image[...] = image[tuple(nearest)]
    residual = -_filter(start, weights, axes, workers)
    residual[observed] = 0
    return start, residual, (scale, center * scale)


def _choose(observed, dual, order, solver):
    """Name of the solver for one image: the cheapest that can serve it."""
    n_missing = observed.size - observed.sum()
    if n_missing == 0:
        return "none"
    size = direct_size(observed, dual)
    banded = is_banded(observed.shape, order)
    if solver == "direct" and size > MAX_UNKNOWNS and not banded:
        msg = (
            f"solver='direct' would factorise a dense matrix of {size} unknowns, more "
            f"than its limit of {MAX_UNKNOWNS}; use solver='auto'."
        )
        raise ValueError(msg)
    if solver != "auto":
        return solver
    if sum(n > 1 for n in observed.shape) <= 1:
        if size <= DIRECT_SIZE_1D or banded:
            return "direct"
    elif size**3 <= DIRECT_COST_RATIO * observed.size:
        return "direct"
    # Order 2 needs many stencil steps where hardly anything is observed; below 3 % the
    # preconditioner wins (measured at 256 x 256).
    has_stencil = order == 1 or (order == 2 and n_missing < 0.97 * observed.size)
    return "stencil" if has_stencil and observed.ndim <= 3 else "pcg"


def _rows(selected):
    """Index of the selected images: all of them without a copy."""
    return slice(None) if selected.all() else np.flatnonzero(selected)


def _filter(images, spectrum, axes, workers=None):
    """``C^T diag(spectrum) C`` applied to each image; the input is kept."""
    transformed = dctn(images, axes=axes, norm="ortho", workers=workers)
    transformed *= spectrum
    return idctn(
        transformed, axes=axes, norm="ortho", workers=workers, overwrite_x=True
    )


def _inner(left, right):
    """Inner product of each pair of images, as float64."""
    return np.array([np.vdot(a, b) for a, b in zip(left, right, strict=True)], float)


def _solve_pcg(residual, observed, *, weights, max_iter, tol, workers, callback, **_):
    """Conjugate gradients with the shifted inverse ``C^T (W + rho)^-1 C``.

    Fixing a fraction f of the samples lifts the lowest eigenvalues of ``A_mm`` to about
    the weight at the sampling frequency; a shift rho of that size, the f/2 quantile of
    the weights, equalises both ends of the spectrum. Stops when the preconditioned
    residual ``<r, z>`` has fallen by ``tol^2``. Single precision is used where its
    rounding lies below the tolerance: at 256 x 256 it is 2.5 times as fast.
    """
    shifts = _shifts(weights, observed)
    floors = {t: ROUNDING_RESERVE * np.finfo(t).eps / np.sqrt(shifts)
              for t in (np.float32, np.float64)}  # fmt: skip
    is_single = floors[np.float32] <= tol
    correction = np.zeros_like(residual)
    n_iter, gap = np.zeros(len(residual), dtype=int), np.ones(len(residual))
    for dtype, rows in ((np.float32, is_single), (np.float64, ~is_single)):
        if rows.any():
            rows = _rows(rows)
            correction[rows], n_iter[rows], gap[rows] = _iterate(
                residual[rows], observed[rows], weights, shifts[rows],
                dtype=dtype, max_iter=max_iter, tol=tol, workers=workers,
                callback=callback,
            )  # fmt: skip
    # A gap below the rounding of double precision would be a claim without proof.
    return correction, n_iter, np.where(gap > 0, np.maximum(gap, floors[np.float64]), 0)


def _iterate(
    residual, observed, weights, shifts, *, dtype, max_iter, tol, workers, callback
):
    """Preconditioned conjugate gradients of a batch in one precision."""
    axes = tuple(range(1, residual.ndim))
    column = (-1,) + (1,) * len(axes)
    peak = np.abs(residual).max(axis=axes, keepdims=True)
    peak[peak == 0] = 1
    r = (residual / peak).astype(dtype)
    missing = (~observed).astype(dtype)
    operator = weights.astype(dtype)
    inverse = _shifted_inverse(weights, shifts, dtype)
    correction = np.zeros_like(r)
    n_iter, gap = np.zeros(len(r), dtype=int), np.ones(len(r))

    active = np.arange(len(r))
    p = _filter(r, inverse, axes, workers)
    p *= missing
    rz = _inner(r, p)
    rz_start = rz.copy()
    gap[rz == 0] = 0
    for iteration in range(max_iter):
        # Rounding has the last word where <r, z> is no longer positive.
        go_on = (gap[active] > tol) & (rz > 0)
        if not go_on.all():
            active, r, p = active[go_on], r[go_on], p[go_on]
            missing, inverse = missing[go_on], inverse[go_on]
            rz, rz_start = rz[go_on], rz_start[go_on]
        if len(active) == 0:
            break
        product = _filter(p, operator, axes, workers)
        product *= missing
        curvature = _inner(p, product)
        step = np.divide(rz, curvature, out=np.zeros_like(rz), where=curvature > 0)
        step = step.reshape(column).astype(dtype)
        product *= step
        r -= product
        np.multiply(p, step, out=product)
        correction[active] += product
        z = _filter(r, inverse, axes, workers)
        z *= missing
        rz_new = np.where(curvature > 0, _inner(r, z), 0)
        p *= (rz_new / rz).reshape(column).astype(dtype)
        p += z
        rz = rz_new
        n_iter[active] += 1
        valid = rz > 0
        gap[active[valid]] = np.sqrt(rz[valid] / rz_start[valid])
        if callback is not None and callback(iteration):
            break
    return correction * peak, n_iter, gap


def _shifts(weights, observed):
    """rho of each image from its observed fraction; weights have the maximum 1."""
    ordered = np.sort(weights, axis=None)
    smallest = ordered[np.searchsorted(ordered, 0, side="right")]
    fractions = observed.reshape(len(observed), -1).mean(axis=1)
    index = (fractions / 2 * (ordered.size - 1)).astype(int)
    return np.maximum(ordered[index], smallest)


def _shifted_inverse(weights, shifts, dtype):
    """``rho / (W + rho)`` for each image: at most 1, so that nothing overflows."""
    unique, where = np.unique(shifts, return_inverse=True)
    unique = unique.reshape((-1,) + (1,) * weights.ndim)
    inverse = (unique / (weights + unique)).astype(dtype)
    # One shared array for equal masks, such as the channels of a picture.
    shared = len(unique) == 1
    shape = (len(shifts), *weights.shape)
    return np.broadcast_to(inverse, shape) if shared else inverse[where]


SOLVERS: dict[str, Callable] = {
    "direct": solve_direct,
    "stencil": solve_stencil,
    "pcg": _solve_pcg,
}
