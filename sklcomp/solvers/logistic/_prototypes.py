"""Prototypes: label sets that a row may be expected to have.

In training the whole label set of a row is known and names its prototype; a gate
learns to expect it from the features.
"""

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans

# Label sets are taken as they are where so large a share of the rows has one of them.
COMMON_SHARE = 0.5
# A set seen once names a row, not a kind of rows.
LEAST_COUNT = 2
KMEANS_ITERATIONS = 30
# Weight, in rows, of the labels' own frequencies in a prototype.
PRIOR_ROWS = 1.0


def assign_prototypes(
    Y: sparse.csr_array, n_prototypes: int, rng: np.random.RandomState
) -> np.ndarray:
    """Prototype of every row, numbered from 0.

    The commonest label sets, each row going to the one that differs from its own in
    the fewest labels; where the sets are too many for that, clusters of the rows of Y
    divided by the root of their number of labels.
    """
    keys = [Y.indices[a:b].tobytes() for a, b in zip(Y.indptr, Y.indptr[1:])]  # noqa: B905
    _, first, counts = np.unique(
        np.array(keys, dtype=object), return_index=True, return_counts=True
    )
    order = np.lexsort((first, -counts))[:n_prototypes]
    if counts[order].sum() >= COMMON_SHARE * Y.shape[0]:
        common = order[counts[order] >= LEAST_COUNT]
        common = common if len(common) > 1 else order[:2]
        sets = Y[first[common]].astype(np.float64)
        rows = Y.astype(np.float64)
        # |a - b| of two sets is |a| + |b| - 2 |a and b|; |a| is the same for all b.
        nearest = (sets.sum(axis=1)[None] - 2.0 * (rows @ sets.T).toarray()).argmin(
            axis=1
        )
        return _renumbered(nearest)
    sizes = np.maximum(np.diff(Y.indptr), 1)
    rows = sparse.csr_array(
        Y.astype(np.float64).multiply(1.0 / np.sqrt(sizes)[:, None])
    )
    clusters = KMeans(
        min(n_prototypes, len(counts)),
        n_init=1,
        max_iter=KMEANS_ITERATIONS,
        random_state=rng.randint(2**31 - 1),
    ).fit_predict(rows)
    return _renumbered(clusters)


def label_shares(
    Y: sparse.csr_array, assigned: np.ndarray, n_prototypes: int, weight: np.ndarray
) -> np.ndarray:
    """Share of each label among the rows of each prototype, drawn to its frequency."""
    rows = np.arange(len(assigned))
    members = sparse.csr_array(
        (weight, (assigned, rows)), shape=(n_prototypes, len(assigned))
    )
    # Half a row of each kind: a label that was not met is rare, not impossible.
    prior = (weight @ Y + 0.5) / (weight.sum() + 1.0)
    counts = np.bincount(assigned, weights=weight, minlength=n_prototypes)
    present = np.asarray((members @ Y.astype(np.float64)).todense())
    return (present + PRIOR_ROWS * prior) / (counts + PRIOR_ROWS)[:, None]


def _renumbered(numbers: np.ndarray) -> np.ndarray:
    """Numbers without those that no row has."""
    return np.unique(numbers, return_inverse=True)[1].ravel()
