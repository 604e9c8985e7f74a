"""``single_blas_thread``: for solvers whose matrices are small.

DCTImputer and the nuclear norm run in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from threadpoolctl import threadpool_limits

_lock = Lock()
_n_inside = 0
_limits = None


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread while any thread of ours is inside.

    Two threads make the decompositions of a 128 x 128 matrix ten times as slow, and
    sums of several need not repeat to the last bit. The limit is one of the process, so
    the last one out lifts it, not each one what it found.
    """
    global _n_inside, _limits
    with _lock:
        if _n_inside == 0:
            _limits = threadpool_limits(1, user_api="blas")
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if _n_inside == 0 and _limits is not None:
                _limits.restore_original_limits()
