from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sklcomp.utils._threads import single_blas_thread


def blas_threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return {
        pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
    }


@pytest.fixture
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        if blas_threads() != {2}:
            pytest.skip("this BLAS has no threads to be limited")
        yield


@pytest.mark.usefixtures("two_threads")
def test_limit_holds_for_all_threads_inside_and_is_lifted_at_the_end():
    def stay(seconds):
        with single_blas_thread():
            sleep(seconds)
            return blas_threads()

    with single_blas_thread(), ThreadPoolExecutor(3) as pool:
        inside = list(pool.map(stay, (0.02, 0.06, 0.04)))
        assert inside == [{1}, {1}, {1}]
        assert blas_threads() == {1}
    assert blas_threads() == {2}


@pytest.mark.usefixtures("two_threads")
def test_limit_is_lifted_after_an_error():
    with pytest.raises(ZeroDivisionError), single_blas_thread():
        1 / 0  # noqa: B018
    assert blas_threads() == {2}
