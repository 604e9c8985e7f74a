import os
import sys

# Four libraries bring thread pools of their own (OpenBLAS twice, OpenMP, numba), each
# as wide as the machine; with one pytest process per core they fight for the cores. So
# each has one thread, or OMP_NUM_THREADS. A pool reads its variable once, when its
# library is loaded; a plugin may have loaded numpy before, whose pool is set below.
_n_threads = os.environ.get("OMP_NUM_THREADS", "1")
for _name in (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
):
    os.environ[_name] = _n_threads
os.environ["MPLBACKEND"] = "Agg"

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

threadpool_limits(int(_n_threads))


class _SeededTorch:
    """Networks made by a test do not depend on which tests were run before it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self):
        self._seed()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self):
        self._seed()

    def _seed(self):
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(0)


def pytest_configure(config):
    # Hooks of this file itself are not called for the doctests outside tests/.
    config.pluginmanager.register(_SeededTorch())


@pytest.fixture
def rng():
    """A fresh generator for each test, always the same."""
    return np.random.default_rng(0)
