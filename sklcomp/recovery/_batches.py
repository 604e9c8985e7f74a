"""Images recovered in batches of fixed size, on threads; the imputer calls it."""

from contextlib import nullcontext
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from sklcomp.recovery._dct import recover_batch
from sklcomp.solvers._result import SolverResult
from sklcomp.utils._threads import single_blas_thread

# Pixels of one batch of DCTs: large enough to hide the cost of the calls, small enough
# to stay in the cache. Fixed, so that results cannot depend on n_jobs.
BATCH_PIXELS = 2**17


def recover_batches(
    images: np.ndarray,
    observed: np.ndarray,
    todo: np.ndarray,
    n_jobs: int | None,
    **settings: Any,
) -> tuple[list[np.ndarray], list[SolverResult]]:
    """Indices of the images of each batch, and what ``recover_batch`` makes of them."""
    size = max(1, BATCH_PIXELS // images[0].size)
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]
    n_jobs = effective_n_jobs(n_jobs)
    # Set here, since a limit that a worker sets does not reach its own BLAS calls.
    has_svd = settings["nuclear"] > 0
    with single_blas_thread() if has_svd else nullcontext():
        results = Parallel(n_jobs=n_jobs, require="sharedmem")(
            delayed(recover_batch)(
                images[batch],
                observed[batch],
                workers=n_jobs if len(batches) == 1 else None,
                **settings,
            )
            for batch in batches
        )
    return batches, results
