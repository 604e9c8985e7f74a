"""Balanced factors of a coefficient matrix."""

import numpy as np
from scipy import linalg


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
    q_left, r_left = linalg.qr(components, mode="economic")
    q_right, r_right = linalg.qr(codes, mode="economic")
    left, values, right = linalg.svd(r_left @ r_right.T, full_matrices=False)
    root = np.sqrt(values)
    rank = components.shape[1]
    found = np.zeros_like(components), np.zeros_like(codes)
    found[0][:, : root.size] = (q_left @ (left * root))[:, :rank]
    found[1][:, : root.size] = (q_right @ (right.T * root))[:, :rank]
    return found
