"""Independent labels on threads."""

from collections.abc import Callable

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from scipy import sparse


def signs_of(columns: sparse.csc_array, label: int) -> np.ndarray:
    """+1 where an example has the label, else -1."""
    y = np.full(columns.shape[0], -1.0)
    y[columns.indices[columns.indptr[label] : columns.indptr[label + 1]]] = 1.0
    return y


def map_labels(
    solve: Callable[[int], None],
    n_labels: int,
    n_jobs: int | None,
    callback: Callable[[int], bool] | None = None,
) -> None:
    """Call ``solve(j)`` for every label, on threads; kernels release the GIL.

    As soon as the callback answers True, the labels not begun are left alone.
    """

    def solve_some(labels: np.ndarray) -> None:
        for j in labels:
            solve(j)
            if callback is not None and callback(int(j)):
                return

    # A task of joblib costs as much as a small label, so each takes several.
    n_workers = effective_n_jobs(n_jobs)
    n_tasks = 1 if n_workers == 1 else min(n_labels, 16 * n_workers)
    Parallel(n_jobs=n_workers, require="sharedmem")(
        delayed(solve_some)(labels)
        for labels in np.array_split(np.arange(n_labels), n_tasks)
    )
