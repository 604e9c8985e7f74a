"""Exact recovery of order 1 and 2 by a sparse factorisation on the missing pixels.

With reflecting boundary the Laplacian L is a stencil, so that ``A_mm`` of order 1 is
``L_mm`` and of order 2 ``L_m^T L_m`` with the columns L_m of the missing pixels: a few
entries a row. Where little is missing (text, scratches), nothing as large as the image
is iterated over.
"""

import numpy as np
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from sklcomp.solvers.dct._stencil import apply_laplacian


def solve_sparse(start, observed, *, order, axis_scale, callback=None, **_):
    """Fill a batch of images that hold zeros at missing pixels; returns their gaps too.

    The residual of a singular system is infinite, that of an image which had no turn
    before the callback asked to stop NaN.
    """
    solution = start.copy()
    gap = np.full(len(start), np.nan)
    for i, (image, known) in enumerate(zip(start, observed, strict=True)):
        missing = np.flatnonzero(~known)
        columns = _laplacian_columns(missing, image.shape, axis_scale)
        laplacian = apply_laplacian(image, axis_scale).ravel()
        if order == 1:
            matrix, right = columns[missing], -laplacian[missing]
        else:
            matrix, right = columns.T @ columns, -(columns.T @ laplacian)
        matrix = csc_array(matrix)
        try:
            # The matrix is positive definite: its diagonal serves as pivots.
            factor = splu(
                matrix,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0,
                options={"SymmetricMode": True},
            )
        except RuntimeError:
            gap[i] = np.inf
            continue
        found = factor.solve(right)
        size = np.linalg.norm(right) or 1.0
        gap[i] = np.linalg.norm(right - matrix @ found) / size
        solution[i].flat[missing] = found
        if callback is not None and callback(i):
            break
    return solution, np.zeros(len(start), dtype=int), gap


def _laplacian_columns(missing, shape, scales):
    """Columns of the Laplacian at missing pixels, of shape (n_pixels, n_missing)."""
    diagonal = np.zeros(len(missing))
    rows, columns, values = [missing], [np.arange(len(missing))], [diagonal]
    stride = 1
    for n, scale in zip(reversed(shape), reversed(scales), strict=True):
        position = missing // stride % n
        for inside, offset in ((position > 0, -stride), (position < n - 1, stride)):
            column = np.flatnonzero(inside)
            diagonal[column] += scale
            rows.append(missing[column] + offset)
            columns.append(column)
            values.append(np.full(len(column), -scale))
        stride *= n
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return csc_array(entries, shape=(np.prod(shape), len(missing)))
