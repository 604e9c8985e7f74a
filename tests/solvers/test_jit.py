"""How kernels compile: where no cache is, what a division does, and NaN."""

import numba
import numpy as np
import pytest

from sklcomp.solvers import _jit

compiled = pytest.mark.skipif(
    numba.config.DISABLE_JIT, reason="nothing is compiled then"
)


def divide(values):
    return values[0] / values[1]


def total(values):
    found = 0.0
    for value in values:
        found += value
    return found


@pytest.fixture
def options(monkeypatch):
    """What numba was asked for, one entry a compilation."""
    seen, njit = [], numba.njit

    def spy(*args, **settings):
        seen.append(settings)
        return njit(*args, **settings)

    monkeypatch.setattr(numba, "njit", spy)
    return seen


@compiled
def test_divisions_by_zero_are_those_of_ieee():
    kernel = _jit.njit(divide)
    assert kernel(np.array([1.0, 0.0])) == np.inf
    assert kernel(np.array([-1.0, 0.0])) == -np.inf
    assert np.isnan(kernel(np.array([0.0, 0.0])))
    assert kernel(np.array([1.0, np.inf])) == 0


def test_sums_may_be_reordered_but_keep_nan_and_infinity(rng):
    kernel = _jit.njit(total)
    values = rng.normal(size=1000)
    # Each of the thousand sums is rounded, whatever their order.
    limit = 1000 * np.finfo(float).eps * np.abs(values).sum()
    assert abs(kernel(values) - values.sum()) <= limit
    values[500] = np.inf
    assert kernel(values) == np.inf
    values[600] = -np.inf
    assert np.isnan(kernel(values))
    values[:] = 1.0
    values[3] = np.nan
    assert np.isnan(kernel(values))


def test_kernels_are_cached_unless_it_is_not_wanted(options, monkeypatch):
    monkeypatch.delenv("SKLCOMP_NUMBA_CACHE", raising=False)
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 0)
    _jit.njit(total)
    assert options[-1].get("cache")
    monkeypatch.setenv("SKLCOMP_NUMBA_CACHE", "0")
    _jit.njit(total)
    assert not options[-1].get("cache")
    monkeypatch.setenv("SKLCOMP_NUMBA_CACHE", "1")
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    _jit.njit(total)
    assert not options[-1].get("cache")
    assert len(options) == 3
    # All else is the same, so that results are.
    assert [{**one, "cache": True} for one in options] == 3 * options[:1]


def test_no_kernel_holds_the_gil_or_may_assume_finite_numbers(options):
    _jit.njit(total)
    _jit.inlined()(total)
    _jit.inlined(reassociate=False)(total)
    for one in options:
        assert one["nogil"]
        assert one["error_model"] == "numpy"
        assert not one["fastmath"] & {"nnan", "ninf", "arcp", "afn", "nsz"}
    orders = ["reassoc" in one["fastmath"] for one in options]
    assert orders == [True, True, False]


def test_without_a_folder_for_the_cache_it_compiles_all_the_same(monkeypatch):
    njit, refused = numba.njit, []

    def refuse(*args, cache=False, **settings):
        if cache:
            refused.append(cache)
            raise RuntimeError("cannot cache function: no locator available for file")
        return njit(*args, **settings)

    monkeypatch.delenv("SKLCOMP_NUMBA_CACHE", raising=False)
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 0)
    monkeypatch.setattr(numba, "njit", refuse)
    kernel = _jit.njit(total)
    assert refused
    assert kernel(np.arange(5.0)) == 10


def test_other_errors_of_numba_arrive(monkeypatch):
    def fail(*args, **settings):
        raise RuntimeError("something else")

    monkeypatch.setattr(numba, "njit", fail)
    with pytest.raises(RuntimeError, match="something else"):
        _jit.njit(total)
