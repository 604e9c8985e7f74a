"""Labels one by one: signs, threads and thresholds, for the linear classifiers."""

from collections.abc import Callable
from threading import Lock

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from scipy import sparse


def signs_of(columns: sparse.csc_array, label: int) -> np.ndarray:
    """+1 where an example has the label, else -1."""
    y = np.full(columns.shape[0], -1.0)
    y[columns.indices[columns.indptr[label] : columns.indptr[label + 1]]] = 1.0
    return y


class _Progress:
    """Asks a callback about solved labels in their order, from any thread."""

    def __init__(self, callback: Callable[[int], bool] | None) -> None:
        self.callback, self.lock = callback, Lock()
        self.solved: set[int] = set()
        self.n_kept, self.stopped = 0, False

    def report(self, label: int) -> None:
        with self.lock:
            self.solved.add(label)
            while self.n_kept in self.solved and not self.stopped:
                self.n_kept += 1
                if self.callback is not None:
                    self.stopped = self.callback(self.n_kept - 1)


def map_labels(
    solve: Callable[[int], None],
    n_labels: int,
    n_jobs: int | None,
    callback: Callable[[int], bool] | None = None,
) -> int:
    """Call ``solve(j)`` for every label, on threads; kernels release the GIL.

    The callback is asked about each label in their order. Once it answers True, no
    further label is begun. Returned is the number of labels up to that one: what
    threads have solved of the others the caller has to forget, so that results do not
    depend on ``n_jobs``.
    """
    progress = _Progress(callback)

    def solve_some(labels: np.ndarray) -> None:
        for j in map(int, labels):
            # What other threads are at goes on to its end, and is forgotten.
            if progress.stopped:
                return
            solve(j)
            progress.report(j)

    # A task of joblib costs as much as a small label, so each takes several.
    n_workers = effective_n_jobs(n_jobs)
    n_tasks = 1 if n_workers == 1 else min(n_labels, 16 * n_workers)
    Parallel(n_jobs=n_workers, require="sharedmem")(
        delayed(solve_some)(labels)
        for labels in np.array_split(np.arange(n_labels), n_tasks)
    )
    return progress.n_kept


def best_thresholds(
    Y: sparse.csr_array, scores: np.ndarray, most: np.ndarray | None = None
) -> np.ndarray:
    """Score of highest F1 for each label, half-way to the next lower one.

    At most ``most`` rows of each label are above it: where scores say nothing, the
    highest F1 is that of having all.
    """
    thresholds = np.zeros(Y.shape[1])
    columns = Y.tocsc()
    for j in range(Y.shape[1]):
        present = signs_of(columns, j) > 0
        order = np.argsort(-scores[:, j], kind="stable")
        hits = np.cumsum(present[order])
        f1 = 2.0 * hits / (np.arange(1, len(order) + 1) + present.sum())
        ordered = scores[order, j]
        # Equal scores are predicted alike: only the last of them is a cut.
        f1[:-1][ordered[:-1] == ordered[1:]] = -1.0
        best = int(np.argmax(f1 if most is None else f1[: most[j]]))
        below = ordered[best + 1] if best + 1 < len(ordered) else ordered[best] - 1.0
        thresholds[j] = 0.5 * (ordered[best] + below)
    return thresholds
