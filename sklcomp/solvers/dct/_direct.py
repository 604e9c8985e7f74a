"""Exact recovery by one factorisation, on the smaller side of the problem.

Products of cosines are sums of cosines, so the entries of ``A = C^T diag(W) C`` come
from one table: with ``h`` the even, 2n-periodic cosine series of the weights,
``A[x, y] = sum of h(x_a - y_a or x_a + y_a + 1)`` over the two choices for every axis a
(the image and its reflections). Few missing pixels: factorise ``A_mm``. Few observed
pixels: factorise the kernel of the pseudo-inverse between them. Short bands (order 1 or
2 in one dimension): a banded factorisation of any length.
"""

import numpy as np
from scipy.fft import dctn, idctn
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solveh_banded

from sklcomp.solvers._jit import njit

# Unknowns of a dense factorisation; so many take 3 GB.
MAX_UNKNOWNS = 20_000


def has_dual(weights: np.ndarray) -> bool:
    """Whether the pseudo-inverse has at most the constant as null vector."""
    return bool(np.count_nonzero(weights) >= weights.size - (weights.flat[0] == 0))


def direct_size(observed: np.ndarray, dual: bool, noisy: bool = False) -> int:
    """Unknowns of the smaller factorisation that is possible for this mask."""
    n_observed = int(np.count_nonzero(observed))
    if noisy:  # the primal unknowns are all pixels; their matrix is the better one
        return n_observed if dual and 2 * n_observed < observed.size else observed.size
    n_missing = observed.size - n_observed
    return min(n_missing, n_observed) if dual else n_missing


def is_banded(shape: tuple[int, ...], order: float | None) -> bool:
    """Whether the operator is a short band: a stencil on a line."""
    return order in (1, 2) and max(shape) == np.prod(shape)


def solve_direct(residual, observed, *, weights, order, callback=None, **_):
    """Corrections of a batch of images, and the residuals that rounding leaves.

    The residual of a singular system is infinite, that of an image which had no turn
    before the callback asked to stop NaN.
    """
    correction = np.zeros_like(residual)
    gap = np.full(len(residual), np.nan)
    dual = has_dual(weights)
    for i, (image, known) in enumerate(zip(residual, observed, strict=True)):
        size = np.linalg.norm(image)
        if size == 0:
            gap[i] = 0
            continue
        try:
            correction[i] = _solve_one(image, known, weights, order, dual)
        except LinAlgError:
            gap[i] = np.inf
            continue
        spectrum = weights * dctn(correction[i], norm="ortho")
        left = image - idctn(spectrum, norm="ortho")
        gap[i] = np.linalg.norm(left[~known]) / size
        if callback is not None and callback(i):
            break
    return correction, np.zeros(len(residual), dtype=int), gap


def solve_direct_noisy(start, observed, *, weights, noise, order, callback=None):
    """Solve ``(lam A + P) x = P M`` for a batch of images, whose start holds M.

    The gaps are as in :func:`solve_direct`; an image without a turn keeps its start.
    """
    solution = start.copy()
    gap = np.full(len(start), np.nan)
    dual = has_dual(weights)
    for i, (image, known) in enumerate(zip(start, observed, strict=True)):
        data = np.where(known, image, 0)
        try:
            solution[i] = _solve_one_noisy(data, known, weights, noise[i], order, dual)
        except LinAlgError:
            gap[i] = np.inf
            continue
        smooth = idctn(weights * dctn(solution[i], norm="ortho"), norm="ortho")
        left = data - known * solution[i] - noise[i] * smooth
        gap[i] = np.linalg.norm(left) / (np.linalg.norm(data) or 1.0)
        if callback is not None and callback(i):
            break
    return solution, np.zeros(len(start), dtype=int), gap


def _solve_one_noisy(data, observed, weights, noise, order, dual):
    if is_banded(observed.shape, order):
        return _solve_banded(data, observed, weights, int(order), noise)
    if direct_size(observed, dual, noisy=True) < observed.size:
        return _solve_dual_noisy(data, observed, weights, noise)
    matrix = noise * _kernel(weights, np.argwhere(np.ones_like(observed)))
    matrix[np.diag_indices_from(matrix)] += observed.ravel()
    solution = cho_solve(_factorise(matrix), data.ravel())
    return solution.reshape(data.shape)


def _solve_one(residual, observed, weights, order, dual):
    if is_banded(observed.shape, order):
        return _solve_banded(residual, observed, weights, int(order))
    if direct_size(observed, dual) < np.count_nonzero(~observed):
        return _solve_dual(residual, observed, weights)
    return _solve_primal(residual, observed, weights)


def _solve_primal(residual, observed, weights):
    """``A_mm e_m = r_m``."""
    points = np.argwhere(~observed)
    factor = _factorise(_kernel(weights, points))
    correction = np.zeros_like(residual)
    correction[~observed] = cho_solve(factor, residual[~observed])
    return correction


def _solve_dual(residual, observed, weights):
    """``A e = r + P_o^T l`` with ``e_o = 0``: solve for l on the observed pixels.

    Where W is zero at the constant, ``l`` balances the sum of ``r`` and a constant is
    left free; a positive level in place of that zero makes the kernel definite and
    changes nothing else.
    """
    with_constant = weights.flat[0] == 0
    inverse = _pseudo_inverse(weights)
    points = np.argwhere(observed)
    factor = _factorise(_kernel(inverse, points))
    particular = idctn(inverse * dctn(residual, norm="ortho"), norm="ortho")
    multiplier = cho_solve(factor, -particular[observed])
    constant = 0.0
    if with_constant:
        ones = cho_solve(factor, np.ones(len(points)))
        constant = (multiplier.sum() + residual.sum()) / ones.sum()
        multiplier -= constant * ones
    source = residual.copy()
    source[observed] += multiplier
    correction = idctn(inverse * dctn(source, norm="ortho"), norm="ortho") + constant
    correction[observed] = 0
    return correction


def _solve_dual_noisy(data, observed, weights, noise):
    """``x = K P_o^T a + c`` with ``(K_oo + lam) a + c = M_o``, and a of sum zero.

    K is the inverse of A, the constant c free where W is zero at it, as above.
    """
    inverse = _pseudo_inverse(weights)
    points = np.argwhere(observed)
    matrix = _kernel(inverse, points)
    matrix[np.diag_indices_from(matrix)] += noise
    factor = _factorise(matrix)
    multiplier = cho_solve(factor, data[observed])
    constant = 0.0
    if weights.flat[0] == 0:
        ones = cho_solve(factor, np.ones(len(points)))
        constant = multiplier.sum() / ones.sum()
        multiplier -= constant * ones
    source = np.zeros_like(data)
    source[observed] = multiplier
    return idctn(inverse * dctn(source, norm="ortho"), norm="ortho") + constant


def _pseudo_inverse(weights):
    """1 / W, with a positive level where W is zero at the constant."""
    inverse = np.empty_like(weights)
    inverse.flat[1:] = 1 / weights.flat[1:]
    with_constant = weights.flat[0] == 0
    inverse.flat[0] = inverse.flat[1] if with_constant else 1 / weights.flat[0]
    return inverse


def _factorise(matrix):
    """Cholesky factor; rounding may let a singular matrix pass, its pivots tell."""
    if not np.isfinite(matrix).all():
        raise LinAlgError("the weights span more than double precision")
    factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    pivots = np.diag(factor[0])
    if pivots.min() <= 1e-6 * pivots.max():
        raise LinAlgError("singular to working precision")
    return factor


def _solve_banded(right, observed, weights, bandwidth, noise=0.0):
    """``A_mm e_m = r_m`` for a stencil on a line: compressing keeps the band.

    With noise ``(noise A + P) x = P M`` on all pixels.
    """
    line, known = right.ravel(), observed.ravel()
    table = _cosine_table(weights.ravel())
    unknown = np.arange(line.size) if noise else np.flatnonzero(~known)
    # LAPACK knows no band that is wider than the matrix.
    width = min(bandwidth, len(unknown) - 1)
    bands = np.zeros((width + 1, len(unknown)))
    for offset in range(width + 1):
        first, second = unknown[: len(unknown) - offset], unknown[offset:]
        mirrored = _reflect(first + second + 1, line.size)
        bands[width - offset, offset:] = np.where(
            second - first <= bandwidth, table[second - first] + table[mirrored], 0
        )
    if noise:
        bands *= noise
        bands[-1] += known
    solution = np.zeros_like(line)
    solution[unknown] = solveh_banded(bands, line[unknown], overwrite_ab=True)
    return solution.reshape(right.shape)


def _cosine_table(weights):
    """h of the module docstring at distances 0..n of every axis, by one DCT-I."""
    padded = np.pad(weights, [(0, 1)] * weights.ndim)
    return dctn(padded, type=1) / np.prod([2 * n for n in weights.shape])


def _reflect(distance, n):
    return np.where(distance > n, 2 * n - distance, distance)


def _kernel(weights, points):
    """``A`` between the given pixels, as a symmetric matrix (lower part filled)."""
    table = _cosine_table(weights)
    strides = np.array(table.strides) // table.itemsize
    return _gather(
        np.ascontiguousarray(points), np.array(weights.shape), strides, table.ravel()
    )


@njit
def _gather(points, shape, strides, table):
    """Lower triangle of the sum of the table over all reflections."""
    n_points, n_axes = points.shape
    out = np.zeros((n_points, n_points))
    offsets = np.empty(2 * n_axes, np.int64)
    for i in range(n_points):
        for j in range(i + 1):
            for a in range(n_axes):
                plain = abs(points[i, a] - points[j, a])
                mirrored = points[i, a] + points[j, a] + 1
                if mirrored > shape[a]:
                    mirrored = 2 * shape[a] - mirrored
                offsets[2 * a] = plain * strides[a]
                offsets[2 * a + 1] = mirrored * strides[a]
            total = 0.0
            for choice in range(1 << n_axes):
                position = 0
                for a in range(n_axes):
                    position += offsets[2 * a + ((choice >> a) & 1)]
                total += table[position]
            out[i, j] = total
    return out
