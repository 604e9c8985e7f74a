"""Rows of a dense or CSR matrix, as the kernels of the linear models read them."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sklcomp.solvers._jit import inlined

# A linear congruential generator whose high bits are taken; products stay below 2**62.
LCG_FACTOR, LCG_STEP, LCG_MASK = 1103515245, 12345, 2**31 - 1


class Rows(NamedTuple):
    """Examples and a constant feature, whose weight is the last of a weight vector.

    Row i is ``values[indptr[i]:indptr[i + 1]]``, in the columns ``indices`` of the same
    slice (CSR) or, where ``indices`` is empty, in all columns (dense). ``constant`` is
    the value of the constant feature; 0 is no intercept. Kernels unpack it once:
    handing the tuple on costs as much as a short row.
    """

    values: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    constant: float


def as_rows(X: Any, constant: float = 0.0) -> Rows:
    """Rows of a checked C-contiguous array or CSR matrix, without a copy of values."""
    if sparse.issparse(X):
        # Unsigned indices spare the kernels the test for negative ones.
        kind = np.uint32 if X.indices.dtype.itemsize == 4 else np.uint64
        indptr = X.indptr.astype(np.int64)
        return Rows(X.data, X.indices.view(kind), indptr, float(constant))
    indptr = np.arange(len(X) + 1) * X.shape[1]
    return Rows(X.reshape(-1), np.empty(0, np.uint32), indptr, float(constant))


def squared_norms(X: Any, constant: float = 0.0) -> np.ndarray:
    """<x_i, x_i> with the constant feature, in float64."""
    if sparse.issparse(X):
        values = X.data.astype(np.float64) ** 2
        squares = sparse.csr_array((values, X.indices, X.indptr), shape=X.shape)
        total = np.asarray(squares.sum(axis=1)).ravel()
    else:
        total = np.einsum("ij,ij->i", X, X, dtype=np.float64)
    return total + float(constant) ** 2


# Unsigned positions, again, and sums of dense rows that may be reordered (vectorised).
@inlined()
def _dot_dense(values, start, stop, w):
    first = np.uint64(start)
    total = 0.0
    for k in range(np.uint64(stop - start)):
        total += values[first + k] * w[k]
    return total


@inlined()
def _add_dense(values, start, stop, step, w):
    first = np.uint64(start)
    for k in range(np.uint64(stop - start)):
        w[k] += step * values[first + k]


@inlined(reassociate=False)
def dot(values, indices, start, stop, constant, w):
    """<x, w> for the row values[start:stop], with the constant feature."""
    last = constant * w[w.size - 1]
    if indices.size == 0:
        return last + _dot_dense(values, start, stop, w)
    # Gathered one by one, in four sums: LLVM's vector gathers are slower.
    a = b = c = d = 0.0
    quads = start + (stop - start) // 4 * 4
    for k in range(start, quads, 4):
        a += values[k] * w[indices[k]]
        b += values[k + 1] * w[indices[k + 1]]
        c += values[k + 2] * w[indices[k + 2]]
        d += values[k + 3] * w[indices[k + 3]]
    for k in range(quads, stop):
        a += values[k] * w[indices[k]]
    return last + ((a + b) + (c + d))


@inlined()
def add(values, indices, start, stop, constant, step, w):
    """Add step * x to w, for the row values[start:stop]."""
    w[w.size - 1] += step * constant
    if indices.size == 0:
        _add_dense(values, start, stop, step, w)
    else:
        for k in range(start, stop):
            w[indices[k]] += step * values[k]


@inlined()
def draw(state, order, position, stop):
    """Swap a random one of order[position:stop] to position; the next state."""
    state = (state * LCG_FACTOR + LCG_STEP) & LCG_MASK
    other = position + ((state * (stop - position)) >> 31)
    order[position], order[other] = order[other], order[position]
    return state
