"""Iterative stratification of multi-label data.

IterativeStratifiedKFold splits by it, and the privileged classifier holds out by it.
"""

import numpy as np
from scipy import sparse


def stratify(
    Y: sparse.csr_array, n_splits: int, rng: np.random.RandomState
) -> np.ndarray:
    """Fold of every row, so that each fold gets its share of every label.

    The label with the fewest examples left is dealt out first, each example to the
    fold that still wants most of that label, then of examples altogether, then by
    chance (Sechidis et al., ECML PKDD 2011).
    """
    n_samples, n_labels = Y.shape
    columns = Y.tocsc()
    remaining = np.diff(columns.indptr).astype(np.int64)
    wanted = remaining[:, None] / n_splits * np.ones(n_splits)
    wanted_rows = np.full(n_splits, n_samples / n_splits)
    folds = np.full(n_samples, -1, dtype=np.int64)
    never = n_samples + 1
    queue = np.where(remaining > 0, remaining, never)
    while n_labels and queue.min() < never:
        label = int(rng.choice(np.flatnonzero(queue == queue.min())))
        rows = columns.indices[columns.indptr[label] : columns.indptr[label + 1]]
        for row in rng.permutation(rows[folds[rows] < 0]):
            best = _largest(wanted[label], wanted_rows, rng)
            folds[row] = best
            labels = Y.indices[Y.indptr[row] : Y.indptr[row + 1]]
            wanted[labels, best] -= 1
            wanted_rows[best] -= 1
            queue[labels] -= 1
        queue[label] = never
        queue[queue == 0] = never
    for row in rng.permutation(np.flatnonzero(folds < 0)):
        best = _largest(wanted_rows, wanted_rows, rng)
        folds[row] = best
        wanted_rows[best] -= 1
    return folds


def _largest(first: np.ndarray, second: np.ndarray, rng: np.random.RandomState) -> int:
    """Index of the largest by both, ties broken by chance."""
    best = np.flatnonzero(first >= first.max() - 1e-9)
    best = best[second[best] >= second[best].max() - 1e-9]
    return int(best[0] if len(best) == 1 else rng.choice(best))
