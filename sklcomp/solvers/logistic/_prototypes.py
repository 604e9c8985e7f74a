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
    Y: sparse.csr_array,
    n_prototypes: int,
    weight: np.ndarray,
    rng: np.random.RandomState,
) -> np.ndarray:
    """Prototype of every row, numbered from 0, the commonest first.

    The commonest label sets, each row going to the one that differs from its own in
    the fewest labels; where the sets are too many for that, clusters of the rows of Y
    divided by the root of their number of labels.
    """
    bounds = zip(Y.indptr[:-1], Y.indptr[1:], strict=True)
    keys = np.array([Y.indices[a:b].tobytes() for a, b in bounds], dtype=object)
    _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
    counts = np.bincount(numbers, weights=weight)
    order = np.argsort(-counts, kind="stable")[:n_prototypes]
    rows = Y.astype(np.float64)
    if counts[order].sum() >= COMMON_SHARE * weight.sum():
        common = order[counts[order] >= LEAST_COUNT]
        sets = rows[first[common if len(common) > 1 else order[:2]]]
        # |a - b| of two sets is |a| + |b| - 2 |a and b|; |a| is the same for all b.
        shared = (rows @ sets.T).toarray()
        return _by_size((sets.sum(axis=1) - 2.0 * shared).argmin(axis=1), weight)
    sizes = np.maximum(np.diff(Y.indptr), 1)
    clusters = KMeans(
        min(n_prototypes, len(counts)),
        n_init=1,
        max_iter=KMEANS_ITERATIONS,
        random_state=rng.randint(2**31 - 1),
    ).fit_predict(sparse.diags_array(1.0 / np.sqrt(sizes)) @ rows, sample_weight=weight)
    return _by_size(clusters, weight)


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


def _by_size(numbers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Numbers by falling weight of their rows; those that no row has are left out."""
    _, numbers = np.unique(numbers, return_inverse=True)
    order = np.argsort(-np.bincount(numbers, weights=weight), kind="stable")
    return np.argsort(order)[numbers]
