"""Factors of a matrix: their products, and the least of their squares."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers.margin._factors import (
    balance,
    factorise,
    project_all,
    rebuild_components,
)
from sklcomp.solvers.margin._rows import as_rows


@pytest.fixture
def factors(rng):
    return rng.normal(size=(7, 3)), rng.normal(size=(5, 3))


def test_balanced_factors_have_the_product_and_its_trace_norm(factors):
    components, codes = factors
    product = components @ codes.T
    for left, right in (factors, (1e3 * components, 1e-3 * codes)):
        found = balance(left, right)
        np.testing.assert_allclose(found[0] @ found[1].T, product, atol=1e-10)
        trace = np.linalg.svd(product, compute_uv=False).sum()
        assert sum(np.sum(one**2) for one in found) == pytest.approx(2 * trace)
        # It is a lower bound for all factors.
        assert sum(np.sum(one**2) for one in (left, right)) >= 2 * trace


def test_more_columns_than_the_rank_are_zero(factors):
    components = np.column_stack([factors[0], factors[0]])
    codes = np.column_stack([factors[1], factors[1]])
    found = balance(components, codes)
    assert found[0].shape == (7, 6)
    np.testing.assert_allclose(found[0] @ found[1].T, components @ codes.T, atol=1e-10)
    assert all(np.abs(one[:, 3:]).max() < 1e-6 for one in found)


@pytest.mark.parametrize("rank", [1, 3, 5, 9])
def test_the_best_approximation_of_a_rank(rng, rank):
    matrix = rng.normal(size=(7, 5))
    components, codes = factorise(matrix, rank)
    assert (components.shape, codes.shape) == ((7, rank), (5, rank))
    error = np.linalg.norm(components @ codes.T - matrix)
    # Eckart and Young: what is left are the smaller singular values.
    values = np.linalg.svd(matrix, compute_uv=False)
    assert error == pytest.approx(np.linalg.norm(values[rank:]), abs=1e-10)
    np.testing.assert_allclose(np.sum(components**2), np.sum(codes**2))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_rows_are_projected_and_gathered(rng, factors, kind):
    components, codes = factors
    X = rng.normal(size=(20, 6)) * (rng.random((20, 6)) < 0.5)
    design = np.column_stack([X, np.full(20, 2.0)])
    rows, projected = as_rows(kind(X), 2.0), np.empty((20, 3))
    project_all(rows, components, projected)
    np.testing.assert_allclose(projected, design @ components, atol=1e-12)
    alpha = rng.random((20, 5)) * (rng.random((20, 5)) < 0.4)
    signs = rng.choice([-1, 1], (20, 5)).astype(np.int8)
    total = components.copy()
    rebuild_components(rows, signs, alpha, codes, total)
    expected = components + design.T @ (alpha * signs) @ codes
    np.testing.assert_allclose(total, expected, atol=1e-12)


def test_projecting_and_gathering_are_adjoint(rng, factors):
    components, codes = factors
    rows = as_rows(rng.normal(size=(20, 6)), 1.5)
    alpha, signs = rng.normal(size=(20, 5)), np.ones((20, 5), np.int8)
    projected, gathered = np.empty((20, 3)), np.zeros((7, 3))
    project_all(rows, components, projected)
    rebuild_components(rows, signs, alpha, codes, gathered)
    # <X D, A W> = <D, X' A W>
    left = np.vdot(projected, alpha @ codes)
    assert left == pytest.approx(np.vdot(components, gathered), rel=1e-10)


def test_balanced_factors_are_balanced_again_to_themselves(factors):
    once = balance(*factors)
    twice = balance(*once)
    np.testing.assert_allclose(twice[0] @ twice[1].T, once[0] @ once[1].T, atol=1e-10)
    for found in (once, twice):
        # Both have the singular values of the product as squares of their columns.
        left, right = (one.T @ one for one in found)
        np.testing.assert_allclose(left, right, atol=1e-10)
        np.testing.assert_allclose(left, np.diag(np.diag(left)), atol=1e-10)


def test_factors_are_those_that_balancing_would_find(rng):
    matrix = rng.normal(size=(7, 5))
    for rank in (1, 3, 5, 9):
        factors = factorise(matrix, rank)
        for one, two in zip(balance(*factors), factors, strict=True):
            np.testing.assert_allclose(one @ one.T, two @ two.T, atol=1e-9)


def test_nothing_has_factors_of_nothing():
    for found in (
        balance(np.zeros((7, 3)), np.zeros((5, 3))),
        factorise(np.zeros((7, 5)), 3),
    ):
        assert [one.shape for one in found] == [(7, 3), (5, 3)]
        assert not any(one.any() for one in found)
