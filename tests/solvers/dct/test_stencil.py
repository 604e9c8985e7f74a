"""The Laplacian as a stencil, and its conjugate gradients."""

import numpy as np
import pytest

from sklcomp.solvers.dct._problem import laplacian_eigenvalues
from sklcomp.solvers.dct._stencil import TOL_FACTOR, apply_laplacian, solve_stencil
from tests.helpers.grids import (
    dense_correction,
    dense_operator,
    random_case,
    random_residual,
)

GRIDS = [(1,), (2,), (23,), (1, 9), (9, 1), (6, 7), (3, 4, 5), (1, 1, 6), (4, 1, 3)]


def solve(residual, masks, order, scale=None, **settings):
    settings = {"max_iter": 1000, "tol": 1e-10, "callback": None} | settings
    scale = np.ones(masks.ndim - 1) if scale is None else scale
    return solve_stencil(residual, masks, order=order, axis_scale=scale, **settings)


@pytest.fixture
def case(rng):
    observed = random_case(rng, (9, 8))[1]
    return (*random_residual(rng, observed, 2), observed)


@pytest.mark.parametrize("shape", GRIDS)
def test_the_stencil_is_the_operator_of_its_eigenvalues(rng, shape):
    scale = rng.uniform(0.2, 2, len(shape))
    operator = dense_operator(laplacian_eigenvalues(shape, tuple(scale)))
    x = rng.normal(size=shape)
    found = apply_laplacian(x, scale)
    expected = (operator @ x.ravel()).reshape(shape)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("shape", GRIDS)
def test_the_stencil_sums_squared_differences(rng, shape):
    scale = rng.uniform(0.2, 2, len(shape))
    x, y = rng.normal(size=(2, *shape))
    energy = sum(
        g * np.sum(np.diff(x, axis=a) * np.diff(y, axis=a)) for a, g in enumerate(scale)
    )
    # Symmetric, since the right side is.
    for left, right in ((x, y), (y, x)):
        product = np.vdot(left, apply_laplacian(right, scale))
        np.testing.assert_allclose(product, energy, atol=1e-11)
    np.testing.assert_allclose(apply_laplacian(x, scale).sum(), 0, atol=1e-11)
    flat = apply_laplacian(np.full(shape, 3.0), scale)
    np.testing.assert_allclose(flat, 0, atol=1e-13)


def test_the_layout_in_memory_does_not_matter(rng):
    x, scale = rng.normal(size=(6, 7)), np.array([0.3, 2.0])
    expected = apply_laplacian(x, scale)
    padded = np.zeros((12, 21))
    padded[::2, ::3] = x
    for other in (np.asfortranarray(x), padded[::2, ::3]):
        np.testing.assert_array_equal(apply_laplacian(other, scale), expected)
    turned = apply_laplacian(np.ascontiguousarray(x.T), scale[::-1])
    np.testing.assert_allclose(turned.T, expected, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", [(23,), (6, 7), (3, 4, 5)])
def test_corrections_equal_a_dense_solve(rng, shape, order):
    scale = rng.uniform(0.5, 1, len(shape))
    observed = random_case(rng, shape)[1]
    residual, masks = random_residual(rng, observed, 2)
    found, n_iter, gap = solve(residual, masks, order, scale)
    weights = laplacian_eigenvalues(shape, tuple(scale)) ** order
    for i in range(2):
        expected = dense_correction(residual[i], observed, weights)
        np.testing.assert_allclose(
            found[i], expected, atol=1e-6 * np.abs(expected).max()
        )
        assert not found[i][observed].any()
    assert (n_iter > 0).all()
    assert (gap <= 1e-10).all()


@pytest.mark.parametrize("shape", [(9,), (5, 6), (3, 4, 5)])
def test_one_missing_pixel_is_the_mean_of_its_neighbours(rng, shape):
    image, scale = rng.random(shape), rng.uniform(0.5, 2, len(shape))
    for place in ((0,) * len(shape), tuple(n // 2 for n in shape)):
        observed = np.ones(shape, dtype=bool)
        observed[place] = False
        start = np.where(observed, image, 0)
        residual = np.where(observed, 0, -apply_laplacian(start, scale))
        found, n_iter, _ = solve(residual[None], observed[None], 1, scale)
        total = weight = 0.0
        for axis, g in enumerate(scale):
            for step in (-1, 1):
                other = list(place)
                other[axis] += step
                if 0 <= other[axis] < shape[axis]:
                    total, weight = total + g * image[tuple(other)], weight + g
        assert found[0][place] == pytest.approx(total / weight, rel=1e-10)
        assert n_iter[0] == 1


@pytest.mark.parametrize("order", [1, 2])
def test_as_many_steps_as_unknowns_are_enough(rng, order):
    observed = np.ones((12, 12), dtype=bool)
    observed.flat[rng.choice(144, 5, replace=False)] = False
    residual, masks = random_residual(rng, observed)
    _, n_iter, gap = solve(residual, masks, order, tol=1e-8)
    assert n_iter[0] <= 5
    assert gap[0] <= 1e-8


@pytest.mark.parametrize("order", [1, 2])
def test_the_gap_is_the_residual_in_units_of_the_tolerance(case, order):
    residual, masks, observed = case
    found, n_iter, gap = solve(residual, masks, order, callback=lambda i: i == 4)
    np.testing.assert_array_equal(n_iter, 5)
    operator = dense_operator(laplacian_eigenvalues((9, 8)) ** order)
    for i in range(2):
        left = residual[i] - (operator @ found[i].ravel()).reshape(9, 8)
        share = np.linalg.norm(left[~observed]) / np.linalg.norm(residual[i])
        assert gap[i] == pytest.approx(share / TOL_FACTOR[order], rel=1e-8)


@pytest.mark.parametrize("order", [1, 2])
def test_each_step_comes_nearer_in_the_norm_of_the_operator(case, order):
    residual, masks, observed = case
    weights = laplacian_eigenvalues((9, 8)) ** order
    operator = dense_operator(weights)
    error = dense_correction(residual[0], observed, weights).ravel()
    left = [error @ operator @ error]
    for last in range(8):
        stop = [residual[:1], masks[:1], order]
        found, n_iter, _ = solve(*stop, callback=lambda i, last=last: i == last)
        assert n_iter[0] == last + 1
        away = found[0].ravel() - error
        left.append(away @ operator @ away)
    assert (np.diff(left) < 0).all()


def test_the_limit_is_25_stencil_steps_for_each_iteration(rng):
    observed = np.zeros((30, 30), dtype=bool)
    observed[0, 0] = True
    residual, masks = random_residual(rng, observed)
    for max_iter in (0, 1, 3):
        found, n_iter, gap = solve(residual, masks, 2, max_iter=max_iter)
        assert n_iter[0] == 25 * max_iter
        assert gap[0] > 1e-10
        assert found.any() == (max_iter > 0)


def test_nothing_to_correct_takes_no_step(case):
    _, masks, _ = case
    found, n_iter, gap = solve(np.zeros(masks.shape), masks, 1)
    assert not found.any()
    assert not n_iter.any()
    assert not gap.any()


def test_corrections_follow_the_residual_and_the_reciprocal_of_the_scale(case):
    residual, masks, _ = case
    base, *_ = solve(residual, masks, 1)
    wide, *_ = solve(residual, masks, 1, np.full(2, 4.0))
    np.testing.assert_allclose(4 * wide, base, atol=1e-8)
    large, *_ = solve(7 * residual, masks, 1)
    np.testing.assert_allclose(large, 7 * base, atol=1e-8)
    alone, *_ = solve(residual[1:], masks[1:], 1)
    np.testing.assert_allclose(alone[0], base[1], atol=1e-8)
