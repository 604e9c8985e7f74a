"""Preconditioned conjugate gradients for the DCT norm, exact and noisy data.

With exact data the unknowns are the missing pixels, ``A_mm e_m = r_m``; with noisy data
all pixels are, ``(lam A + P) e = r`` with P the projection on the observed ones. Both
are served by the shifted inverse ``C^T (W + rho)^-1 C`` as preconditioner.
"""

import numpy as np
from scipy.fft import dctn, idctn

# Rounding limits the gap that iterations can reach to about eps / sqrt(rho), with the
# shift rho relative to the largest weight; a tenth of the digits is kept in reserve.
ROUNDING_RESERVE = 10
# Shift, relative to the largest weight, below which <r, z> hides what is left: few
# observed pixels, one axis or a high order leave components that weigh almost nothing.
LIGHT = 1 / 400


def solve_pcg(residual, observed, *, weights, max_iter, tol, workers, callback, **_):
    """Corrections of a batch of images with exact data; the weights' maximum is 1.

    Fixing a fraction f of the samples lifts the lowest eigenvalues of ``A_mm`` to about
    the weight at the sampling frequency; a shift rho of that size, the f/2 quantile of
    the weights, equalises both ends of the spectrum.
    """
    shifts = _sampling_weights(observed, weights)
    return _solve(
        residual,
        observed,
        weights,
        shifts,
        max_iter=max_iter,
        tol=tol,
        workers=workers,
        callback=callback,
    )


def solve_penalised(
    start, observed, *, weights, noise, max_iter, tol, workers, callback, **_
):
    """Solve a batch of images with noisy data, from the nearest observed pixels.

    P acts like its mean, the observed fraction f, on what the samples resolve, and
    hardly beyond: ``lam W + min(f, lam rho / (1 - f))``, with the rho of exact data, is
    the spectrum of the preconditioner. A large lam makes the nearest pixels a bad
    start, beside which any residual looks small: where that is better, they are
    smoothed first.
    """
    axes = tuple(range(1, start.ndim))
    column = (-1,) + (1,) * len(axes)
    fractions = _fractions(observed)
    # Divided by lam, and by the largest weight, the operator is the same for all.
    data_weight = 1 / (noise * weights.max())
    weights = weights / weights.max()
    level = fractions * data_weight
    resolved = np.divide(
        _sampling_weights(observed, weights),
        1 - fractions,
        out=level.copy(),
        where=fractions < 1,
    )
    shifts = np.minimum(level, resolved)
    level, inverse = level.reshape(column), 1 / (weights + shifts.reshape(column))
    smooth = apply_spectrum(start, level / (weights + level), axes, workers)
    residuals = [-apply_spectrum(x, weights, axes, workers) for x in (start, smooth)]
    residuals[1] += data_weight.reshape(column) * observed * (start - smooth)
    rough, fine = (_inner(r, apply_spectrum(r, inverse, axes)) for r in residuals)
    is_better = (fine < rough).reshape(column)
    correction, n_iter, gap = _solve(
        np.where(is_better, residuals[1], residuals[0]),
        observed,
        weights,
        shifts,
        data_weight=data_weight,
        largest=1 + data_weight,
        max_iter=max_iter,
        tol=tol,
        workers=workers,
        callback=callback,
    )
    return np.where(is_better, smooth, start) + correction, n_iter, gap


def _sampling_weights(observed, weights):
    """The weight at the sampling frequency of each mask: the f/2 quantile."""
    ordered = np.sort(weights, axis=None)
    smallest = ordered[np.searchsorted(ordered, 0, side="right")]
    index = (_fractions(observed) / 2 * (ordered.size - 1)).astype(int)
    return np.maximum(ordered[index], smallest)


def _fractions(observed):
    return observed.reshape(len(observed), -1).mean(axis=1)


def _solve(
    residual,
    observed,
    weights,
    shifts,
    *,
    tol,
    data_weight=None,
    largest=1.0,
    **settings,
):
    """Split a batch by the precision that each image needs.

    Single precision is used where its rounding lies below the tolerance: at 256 x 256
    it is 2.5 times as fast. Without weights of the data these are exact, and light
    components are held to a tolerance that is finer by the root of their weight, as
    far as rounding lets it.
    """
    floors = {
        dtype: ROUNDING_RESERVE * np.finfo(dtype).eps / np.sqrt(shifts / largest)
        for dtype in (np.float32, np.float64)
    }
    unit = np.ones(len(residual))
    if data_weight is None:
        # A hair above the floor, so that what reaches it does not count as missed.
        finest = np.minimum(1, (1 + 1e-9) * floors[np.float64] / tol)
        unit = np.clip(np.sqrt(shifts / LIGHT), finest, 1)
        floors = {dtype: floor / unit for dtype, floor in floors.items()}
    is_single = floors[np.float32] <= tol
    correction = np.zeros_like(residual)
    n_iter, gap = np.zeros(len(residual), dtype=int), np.ones(len(residual))
    for dtype, selected in ((np.float32, is_single), (np.float64, ~is_single)):
        if selected.any():
            rows = select_rows(selected)
            noisy = None if data_weight is None else data_weight[rows]
            correction[rows], n_iter[rows], gap[rows] = _iterate(
                residual[rows],
                _pixel_weights(observed[rows], noisy).astype(dtype),
                weights,
                _shifted_inverse(weights, shifts[rows], dtype),
                is_exact=data_weight is None,
                tol=tol * unit[rows],
                **settings,
            )
    gap /= unit
    # A gap below the rounding of double precision would be a claim without proof.
    return correction, n_iter, np.where(gap > 0, np.maximum(gap, floors[np.float64]), 0)


def _iterate(
    residual, pixels, weights, inverse, *, is_exact, max_iter, tol, workers, callback
):
    """Preconditioned conjugate gradients of a batch, in the precision of its pixels.

    Stops when the preconditioned residual ``<r, z>`` has fallen by the ``tol^2`` of an
    image.
    """
    axes = tuple(range(1, residual.ndim))
    column, dtype = (-1,) + (1,) * len(axes), pixels.dtype
    peak = np.abs(residual).max(axis=axes, keepdims=True)
    peak[peak == 0] = 1
    r = (residual / peak).astype(dtype)
    operator = weights.astype(dtype)
    correction = np.zeros_like(r)
    n_iter, gap = np.zeros(len(r), dtype=int), np.ones(len(r))
    active = np.arange(len(r))
    p = _precondition(r, inverse, pixels, is_exact, workers)
    rz = _inner(r, p)
    rz_start = rz.copy()
    gap[rz == 0] = 0
    for iteration in range(max_iter):
        # Rounding has the last word where <r, z> is no longer positive.
        go_on = (gap[active] > tol[active]) & (rz > 0)
        if not go_on.all():
            active, r, p = active[go_on], r[go_on], p[go_on]
            pixels, inverse = pixels[go_on], inverse[go_on]
            rz, rz_start = rz[go_on], rz_start[go_on]
        if len(active) == 0:
            break
        product = apply_spectrum(p, operator, axes, workers)
        product = product * pixels if is_exact else product + pixels * p
        curvature = _inner(p, product)
        step = np.divide(rz, curvature, out=np.zeros_like(rz), where=curvature > 0)
        step = step.reshape(column).astype(dtype)
        product *= step
        r -= product
        np.multiply(p, step, out=product)
        correction[active] += product
        z = _precondition(r, inverse, pixels, is_exact, workers)
        rz_new = np.where(curvature > 0, _inner(r, z), 0)
        p *= (rz_new / rz).reshape(column).astype(dtype)
        p += z
        rz = rz_new
        n_iter[active] += 1
        # Below zero, or with a curvature that is not positive, only rounding is left.
        valid = (rz > 0) | (curvature > 0)
        gap[active[valid]] = np.sqrt(np.abs(rz[valid]) / rz_start[valid])
        if callback is not None and callback(iteration):
            break
    return correction * peak, n_iter, gap


def _precondition(residual, inverse, pixels, is_exact, workers):
    """By the spectrum; of exact data, only free pixels move."""
    z = apply_spectrum(residual, inverse, tuple(range(1, residual.ndim)), workers)
    if is_exact:
        z *= pixels
    return z


def _pixel_weights(observed, data_weight):
    """1 where a pixel is free; of noisy data the weight that they have at a pixel."""
    if data_weight is None:
        return ~observed
    column = (-1,) + (1,) * (observed.ndim - 1)
    return data_weight.reshape(column) * observed


def _shifted_inverse(weights, shifts, dtype):
    """``rho / (W + rho)`` for each image: at most 1, so that nothing overflows."""
    unique, where = np.unique(shifts, return_inverse=True)
    unique = unique.reshape((-1,) + (1,) * weights.ndim)
    inverse = (unique / (weights + unique)).astype(dtype)
    # One shared array for equal masks, such as the channels of a picture.
    shared = len(unique) == 1
    shape = (len(shifts), *weights.shape)
    return np.broadcast_to(inverse, shape) if shared else inverse[where]


def select_rows(selected):
    """Index of the selected images: all of them without a copy."""
    return slice(None) if selected.all() else np.flatnonzero(selected)


def apply_spectrum(images, spectrum, axes, workers=None):
    """``C^T diag(spectrum) C`` applied to each image; the input is kept."""
    transformed = dctn(images, axes=axes, norm="ortho", workers=workers)
    transformed *= spectrum
    return idctn(
        transformed, axes=axes, norm="ortho", workers=workers, overwrite_x=True
    )


def _inner(left, right):
    """Inner product of each pair of images, as float64."""
    return np.array([np.vdot(a, b) for a, b in zip(left, right, strict=True)], float)
