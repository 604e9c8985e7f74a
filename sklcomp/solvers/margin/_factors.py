r"""Factors of a coefficient matrix: applying them, building and balancing them.

With examples x, codes W and multipliers :math:`\alpha` of pairs of example and label,

.. math:: z_i = D x_i ,                                                     \tag{1}

.. math:: D \leftarrow D + \sum_{ij} \alpha_{ij} y_{ij} w_j x_i^T .         \tag{2}
"""

import numpy as np
from scipy import linalg

from sklcomp.solvers._jit import inlined, njit


@inlined()
def project(values, indices, start, stop, constant, components, out):
    """out = D x (1); ``components`` has shape (n_features + 1, rank)."""
    last = components.shape[0] - 1
    for r in range(out.size):
        out[r] = constant * components[last, r]
    # By features, not by components: what D has of a feature lies in one piece.
    for k in range(start, stop):
        feature = k - start if indices.size == 0 else np.int64(indices[k])
        value = values[k]
        for r in range(out.size):
            out[r] += value * components[feature, r]


@inlined()
def spread(values, indices, start, stop, constant, direction, components):
    """Add the outer product of x and the direction to D."""
    last = components.shape[0] - 1
    for r in range(direction.size):
        components[last, r] += constant * direction[r]
    for k in range(start, stop):
        feature = k - start if indices.size == 0 else np.int64(indices[k])
        value = values[k]
        for r in range(direction.size):
            components[feature, r] += value * direction[r]


@njit
def project_all(rows, components, out):
    """Every row projected, of shape (n_samples, rank)."""
    values, indices, indptr, constant = rows
    for i in range(out.shape[0]):
        start, stop = indptr[i], indptr[i + 1]
        project(values, indices, start, stop, constant, components, out[i])


@njit
def rebuild_components(rows, signs, alpha, codes, components):
    """Add the sum of (2) to D."""
    values, indices, indptr, constant = rows
    direction = np.empty(codes.shape[1])
    for i in range(alpha.shape[0]):
        # The labels of an example first: its features are then gone through once.
        direction[:] = 0.0
        used = False
        for j in range(alpha.shape[1]):
            if alpha[i, j] != 0.0:
                used = True
                step = alpha[i, j] * signs[i, j]
                for r in range(direction.size):
                    direction[r] += step * codes[j, r]
        if used:
            start, stop = indptr[i], indptr[i + 1]
            spread(values, indices, start, stop, constant, direction, components)


def factorise(coef: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Balanced factors of the best approximation of this rank."""
    left, values, right = linalg.svd(coef, full_matrices=False)
    root = np.sqrt(values[:rank])
    components, codes = np.zeros((len(coef), rank)), np.zeros((coef.shape[1], rank))
    components[:, : root.size] = left[:, :rank] * root
    codes[:, : root.size] = right[:rank].T * root
    return components, codes


def balance(components: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the same product with the least sum of squares: its trace norm."""
    # Of the triangles alone, since the product itself may be too large to be formed.
    q_left, r_left = linalg.qr(components, mode="economic")
    q_right, r_right = linalg.qr(codes, mode="economic")
    left, values, right = linalg.svd(r_left @ r_right.T, full_matrices=False)
    root = np.sqrt(values)
    rank = components.shape[1]
    found = np.zeros_like(components), np.zeros_like(codes)
    found[0][:, : root.size] = (q_left @ (left * root))[:, :rank]
    found[1][:, : root.size] = (q_right @ (right.T * root))[:, :rank]
    return found
