"""The sparse factorisation: its columns, its solutions and what it cannot solve."""

import numpy as np
import pytest

from sklcomp.solvers.dct._problem import dct_norm_squared, laplacian_eigenvalues
from sklcomp.solvers.dct._sparse import _laplacian_columns, solve_sparse
from sklcomp.solvers.dct._stencil import apply_laplacian
from tests.helpers.grids import dense_operator, dense_solution, random_case

GRIDS = [(2,), (23,), (1, 9), (9, 1), (6, 7), (3, 4, 5)]


def solve(image, observed, order, scale=None, **settings):
    start = np.where(observed, image, 0)
    start.flags.writeable = False
    scale = np.ones(image.ndim) if scale is None else scale
    found, _, gap = solve_sparse(
        start[None], observed[None], order=order, axis_scale=scale, **settings
    )
    return found[0], gap[0]


@pytest.mark.parametrize("shape", GRIDS)
def test_columns_are_those_of_the_laplacian(rng, shape):
    scale = rng.uniform(0.2, 2, len(shape))
    missing = np.flatnonzero(rng.random(shape) < 0.6)
    columns = _laplacian_columns(missing, shape, scale)
    expected = dense_operator(laplacian_eigenvalues(shape, tuple(scale)))[:, missing]
    np.testing.assert_allclose(columns.toarray(), expected, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("missing", [0.1, 0.9])
def test_solutions_equal_a_dense_solve(rng, shape, order, missing):
    scale = rng.uniform(0.5, 1, len(shape))
    image, observed = random_case(rng, shape, missing)
    found, gap = solve(image, observed, order, scale)
    weights = laplacian_eigenvalues(shape, tuple(scale)) ** order
    expected = dense_solution(image, observed, weights)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_array_equal(found[observed], image[observed])
    assert gap < 1e-8


@pytest.mark.parametrize("shape", [(50,), (16, 15), (6, 7, 5)])
def test_order_1_is_harmonic_and_stays_within_the_data(rng, shape):
    image, observed = random_case(rng, shape)
    scale = rng.uniform(0.2, 1, len(shape))
    found, _ = solve(image, observed, 1, scale)
    left = apply_laplacian(found, scale)
    np.testing.assert_allclose(left[~observed], 0, atol=1e-11)
    least, most = image[observed].min(), image[observed].max()
    # The principle of the maximum, but for rounding.
    assert found.min() >= least - 1e-12
    assert found.max() <= most + 1e-12


@pytest.mark.parametrize("shape", [(50,), (16, 15), (6, 7, 5)])
def test_order_2_is_biharmonic_and_keeps_planes(rng, shape):
    image, observed = random_case(rng, shape, 0.4)
    found, _ = solve(image, observed, 2)
    scale = np.ones(len(shape))
    twice = apply_laplacian(apply_laplacian(found, scale), scale)
    np.testing.assert_allclose(twice[~observed], 0, atol=1e-8)
    # Reflection bends a plane at the border, so that it has to be seen there.
    inside = np.zeros(shape, dtype=bool)
    inside[(slice(2, -2),) * len(shape)] = True
    plane = np.tensordot(rng.normal(size=len(shape)), np.indices(shape), 1)
    found, _ = solve(plane, observed | ~inside, 2)
    np.testing.assert_allclose(found, plane, atol=1e-8)


@pytest.mark.parametrize("order", [1, 2])
def test_nothing_near_is_smoother(rng, order):
    image, observed = random_case(rng, (12, 11))
    weights = laplacian_eigenvalues(image.shape) ** order
    found, _ = solve(image, observed, order)
    least = dct_norm_squared(found[None], weights)[0]
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(10):
            step = np.where(observed, 0, rng.normal(size=image.shape)) * size
            assert dct_norm_squared((found + step)[None], weights)[0] > least


@pytest.mark.parametrize("order", [1, 2])
def test_turned_mirrored_and_rescaled_images_have_such_solutions(rng, order):
    image, observed = random_case(rng, (9, 7))
    scale = np.array([0.4, 1.0])
    base, _ = solve(image, observed, order, scale)
    found, _ = solve(image.T, observed.T, order, scale[::-1])
    np.testing.assert_allclose(found.T, base, atol=1e-9)
    found, _ = solve(image[::-1], observed[::-1], order, scale)
    np.testing.assert_allclose(found[::-1], base, atol=1e-9)
    found, _ = solve(2 - 5 * image, observed, order, 7 * scale)
    np.testing.assert_allclose(found, 2 - 5 * base, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_a_pixel_that_nothing_holds_is_singular(order):
    image = np.array([[1.0], [2.0]])
    observed = np.array([[True], [False]])
    found, gap = solve(image, observed, order, np.array([0.0, 1.0]))
    assert gap == np.inf
    np.testing.assert_array_equal(found, [[1], [0]])


def test_images_without_a_turn_are_left_and_told(rng):
    images, observed = zip(*(random_case(rng, (6, 5)) for _ in range(3)), strict=True)
    start = np.where(observed, images, 0)
    found, n_iter, gap = solve_sparse(
        start,
        np.array(observed),
        order=1,
        axis_scale=np.ones(2),
        callback=lambda i: i == 1,
    )
    assert np.isnan(gap).tolist() == [False, False, True]
    assert not n_iter.any()
    np.testing.assert_array_equal(found[2], start[2])
    for i in range(2):
        alone, _ = solve(images[i], observed[i], 1)
        np.testing.assert_array_equal(found[i], alone)


def test_zeros_around_a_hole_fill_it_with_zeros(rng):
    observed = random_case(rng, (6, 5))[1]
    found, gap = solve(np.zeros((6, 5)), observed, 2)
    assert not found.any()
    assert gap == 0
