"""Recovery of order 1 and 2 by conjugate gradients on the Laplacian stencil.

With reflecting boundary the Laplacian of the grid is diagonal in the DCT-II, so that
``W = Lambda`` is one application of its 3-, 5- or 7-point stencil and ``W = Lambda^2``
are two. A compiled stencil costs about a sixteenth of a pair of DCTs.
"""

import numpy as np

from sklcomp.solvers._jit import njit

# At equal relative residual the objective gap of order 2 is about ten times that of
# order 1 (its condition number is the square), hence the tighter stop.
TOL_FACTOR = {1: 1.0, 2: 0.1}


def solve_stencil(
    residual, observed, *, order, axis_scale, max_iter, tol, callback, **_
):
    """Corrections of a batch of images, image by image.

    Stops when ``|r| <= factor tol |r_0|``. The limit on iterations is 25 times
    ``max_iter``: an iteration costs that much less than one of the DCT solver.
    """
    n_images = len(residual)
    shape, scale = _as_volume(residual.shape[1:], axis_scale)
    correction = np.zeros_like(residual)
    n_iter, gap = np.zeros(n_images, dtype=int), np.zeros(n_images)
    for i in range(n_images):
        found, n_iter[i], gap[i] = _solve_one(
            residual[i].reshape(shape),
            observed[i].reshape(shape),
            scale,
            int(order),
            25 * max_iter,
            tol,
            callback,
        )
        correction[i] = found.reshape(residual.shape[1:])
    return correction, n_iter, gap


def apply_laplacian(image: np.ndarray, axis_scale: np.ndarray) -> np.ndarray:
    """``sum_a g_a (D_a^T D_a) x`` of an image of up to three axes."""
    shape, scale = _as_volume(image.shape, axis_scale)
    out = np.empty(shape)
    _laplacian(np.ascontiguousarray(image).reshape(shape), scale, out)
    return out.reshape(image.shape)


def _as_volume(shape, axis_scale):
    """Shape and scales with leading axes added up to three."""
    scale = np.ones(3)
    scale[3 - len(shape) :] = axis_scale
    return (1,) * (3 - len(shape)) + tuple(shape), scale


def _solve_one(residual, observed, scale, order, max_iter, tol, callback):
    """Masked conjugate gradients on a volume of three axes (leading ones added)."""
    correction = np.zeros_like(residual)
    r, p = residual.copy(), residual.copy()
    product, inner = np.empty_like(r), np.empty_like(r)
    rr = rr_start = np.vdot(r, r)
    if rr_start == 0:
        return correction, 0, 0.0
    stop = (TOL_FACTOR[order] * tol) ** 2 * rr_start
    n_iter = 0
    while rr > stop and n_iter < max_iter:
        if order == 2:
            _laplacian(p, scale, inner)
            _laplacian(inner, scale, product)
        else:
            _laplacian(p, scale, product)
        rr = _advance(correction, r, p, product, observed, rr)
        n_iter += 1
        if callback is not None and callback(n_iter - 1):
            break
    gap = np.sqrt(rr / rr_start) / TOL_FACTOR[order]
    return correction, n_iter, gap


@njit
def _laplacian(x, scale, out):
    """``sum_a g_a (D_a^T D_a) x`` with differences that end at the boundary."""
    n0, n1, n2 = x.shape
    for i in range(n0):
        for j in range(n1):
            row, target = x[i, j], out[i, j]
            diagonal = 0.0
            if i > 0:
                diagonal += scale[0]
            if i < n0 - 1:
                diagonal += scale[0]
            if j > 0:
                diagonal += scale[1]
            if j < n1 - 1:
                diagonal += scale[1]
            for k in range(n2):
                target[k] = diagonal * row[k]
            for k in range(1, n2):
                target[k] += scale[2] * (row[k] - row[k - 1])
            for k in range(n2 - 1):
                target[k] += scale[2] * (row[k] - row[k + 1])
            if i > 0:
                for k in range(n2):
                    target[k] -= scale[0] * x[i - 1, j, k]
            if i < n0 - 1:
                for k in range(n2):
                    target[k] -= scale[0] * x[i + 1, j, k]
            if j > 0:
                for k in range(n2):
                    target[k] -= scale[1] * x[i, j - 1, k]
            if j < n1 - 1:
                for k in range(n2):
                    target[k] -= scale[1] * x[i, j + 1, k]


@njit
def _advance(correction, r, p, product, observed, rr):
    """One step of conjugate gradients on the missing pixels; returns ``<r, r>``."""
    n0, n1, n2 = r.shape
    curvature = 0.0
    for i in range(n0):
        for j in range(n1):
            for k in range(n2):
                if observed[i, j, k]:
                    product[i, j, k] = 0
                curvature += p[i, j, k] * product[i, j, k]
    step = rr / curvature if curvature > 0 else 0.0
    rr_new = 0.0
    for i in range(n0):
        for j in range(n1):
            for k in range(n2):
                correction[i, j, k] += step * p[i, j, k]
                r[i, j, k] -= step * product[i, j, k]
                rr_new += r[i, j, k] * r[i, j, k]
    ratio = rr_new / rr
    for i in range(n0):
        for j in range(n1):
            for k in range(n2):
                p[i, j, k] = r[i, j, k] + ratio * p[i, j, k]
    return rr_new
