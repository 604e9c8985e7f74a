import os

# Four libraries bring thread pools of their own (OpenBLAS twice, OpenMP, numba), each
# as wide as the machine; with one pytest process per core they fight for the cores, and
# sums of several threads need not repeat to the last bit. A pool reads its variable
# once, when its library is loaded, so this comes before any import of numpy.
for _name in (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "Agg"

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def rng():
    """A fresh generator for each test, always the same."""
    return np.random.default_rng(0)
