"""Rows of dense and sparse matrices: the products that the kernels are made of."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers._jit import njit
from sklcomp.solvers.margin._rows import add, as_rows, dot, draw, squared_norms


@njit
def products(rows, w):
    values, indices, indptr, constant = rows
    found = np.empty(indptr.size - 1)
    for i in range(found.size):
        found[i] = dot(values, indices, indptr[i], indptr[i + 1], constant, w)
    return found


@njit
def combine(rows, steps, w):
    values, indices, indptr, constant = rows
    for i in range(steps.size):
        add(values, indices, indptr[i], indptr[i + 1], constant, steps[i], w)


@njit
def shuffle(order, state):
    for position in range(order.size):
        state = draw(state, order, position, order.size)
    return state


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def example(rng, request):
    """Rows of zero to eleven entries, so that every remainder of four occurs."""
    X = rng.normal(size=(30, 11)).astype(request.param)
    X[rng.random(X.shape) < rng.random((30, 1))] = 0
    return X


@pytest.fixture(params=[np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def stored(example, request):
    return request.param(example)


@pytest.mark.parametrize("constant", [0.0, 2.5])
def test_products_are_those_of_the_matrix(stored, example, constant, rng):
    w, steps = rng.normal(size=12), rng.normal(size=30)
    design = np.column_stack([example.astype(float), np.full(30, constant)])
    rows = as_rows(stored, constant)
    np.testing.assert_allclose(products(rows, w), design @ w, atol=1e-12)
    total = w.copy()
    combine(rows, steps, total)
    np.testing.assert_allclose(total, w + steps @ design, atol=1e-12)
    np.testing.assert_allclose(
        squared_norms(stored, constant), np.sum(design**2, axis=1), rtol=1e-12
    )


def test_values_are_not_copied(stored):
    values = stored.data if sparse.issparse(stored) else stored
    assert np.shares_memory(as_rows(stored).values, values)


def test_norms_of_large_single_precision_do_not_overflow():
    X = np.full((2, 3), 1e25, np.float32)
    np.testing.assert_allclose(squared_norms(X), 3e50, rtol=1e-6)


def test_an_order_is_shuffled_alike_from_the_same_state():
    orders = [np.arange(1000) for _ in range(3)]
    ends = [shuffle(order, seed) for order, seed in zip(orders, (1, 1, 2), strict=True)]
    assert ends[0] == ends[1] != ends[2]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).mean() > 0.9
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))


def test_every_place_is_drawn_alike():
    places = np.array([shuffled(4, seed).argmin() for seed in range(8000)])
    counts = np.bincount(places, minlength=4)
    # Five standard deviations of a count.
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(8000 * 0.25 * 0.75)


def shuffled(n, seed):
    order = np.arange(n)
    shuffle(order, seed * 7919 + 1)
    return order
