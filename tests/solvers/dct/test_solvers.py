"""Identities of the DCT norm, and equality of all solvers with a dense solve."""

import numpy as np
import pytest

from sklcomp.solvers.dct._problem import (
    dct_norm_squared,
    laplacian_eigenvalues,
    solve_dct,
)
from tests.helpers.grids import dense_solution, random_case

GRIDS = [(30,), (1, 9), (12, 12), (7, 13), (5, 4, 6)]


def solve(image, observed, order=1.5, weights=None, axis_scale=None, **settings):
    if weights is None:
        weights = laplacian_eigenvalues(image.shape, axis_scale) ** order
    result = solve_dct(
        image[None],
        observed[None],
        weights=weights,
        order=order,
        axis_scale=axis_scale,
        **settings,
    )
    return result.solution[0], result


@pytest.mark.parametrize("shape", [(37, 53), (20,), (4, 5, 6)])
def test_order_1_is_the_squared_anisotropic_total_variation(rng, shape):
    image = rng.random(shape)
    scale = tuple(rng.random(len(shape)))
    weights = laplacian_eigenvalues(shape, scale)
    expected = sum(g * (np.diff(image, axis=a) ** 2).sum() for a, g in enumerate(scale))
    found = dct_norm_squared(image[None], weights)[0]
    assert found == pytest.approx(expected, rel=1e-12)


def test_order_2_is_the_squared_laplacian(rng):
    image = rng.random((19, 26))
    padded = np.pad(image, 1, mode="edge")
    laplacian = (
        4 * image
        - padded[:-2, 1:-1]
        - padded[2:, 1:-1]
        - padded[1:-1, :-2]
        - padded[1:-1, 2:]
    )
    weights = laplacian_eigenvalues(image.shape) ** 2
    expected = (laplacian**2).sum()
    assert dct_norm_squared(image[None], weights)[0] == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("order", [0.75, 1, 1.5, 2])
@pytest.mark.parametrize("missing", [0.1, 0.5, 0.9])
def test_default_equals_dense_solve_on_small_grids(rng, shape, order, missing):
    image, observed = random_case(rng, shape, missing)
    weights = laplacian_eigenvalues(shape) ** order
    found, result = solve(image, observed, order)
    np.testing.assert_allclose(
        found, dense_solution(image, observed, weights), atol=1e-9
    )
    assert result.converged.all()


@pytest.mark.parametrize("order", [1, 1.25, 1.5, 2])
@pytest.mark.parametrize("observed_share", [0.01, 0.3])
def test_one_dimension_equals_dense_solve(rng, order, observed_share):
    image, observed = random_case(rng, (1000,), 1 - observed_share)
    weights = laplacian_eigenvalues(image.shape) ** order
    expected = dense_solution(image, observed, weights)
    found, _ = solve(image, observed, order)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_iterations_converge_to_the_dense_solve(rng, shape, order):
    image, observed = random_case(rng, shape)
    scale = tuple(rng.uniform(0.2, 1, len(shape)))
    weights = laplacian_eigenvalues(shape, scale) ** order
    expected = dense_solution(image, observed, weights)
    names = ("pcg", "stencil", "sparse") if order in (1, 2) else ("pcg",)
    for solver in names:
        found, result = solve(
            image, observed, order, axis_scale=scale, solver=solver, tol=1e-10
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert result.converged.all()


def test_free_weights_equal_dense_solve_by_both_direct_forms_and_pcg(rng):
    image, observed = random_case(rng, (9, 8), 0.8)
    positive = rng.random((9, 8)) + 0.1  # penalises the mean as well
    gaps = positive.copy()
    gaps[0, :2] = 0  # two free modes: no pseudo-inverse with one null vector
    for weights in (positive, gaps):
        expected = dense_solution(image, observed, weights)
        for solver in ("auto", "direct", "pcg"):
            found, _ = solve(
                image,
                observed,
                None,
                weights=weights,
                solver=solver,
                tol=1e-11,
                max_iter=2000,
            )
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_solution_is_a_minimum(rng):
    image, observed = random_case(rng, (24, 24), 0.9)
    weights = laplacian_eigenvalues(image.shape) ** 1.5
    found, _ = solve(image, observed, solver="pcg", tol=1e-9)
    best = dct_norm_squared(found[None], weights)[0]
    for _ in range(5):
        step = np.where(observed, 0, rng.normal(size=image.shape)) * 1e-3
        assert dct_norm_squared((found + step)[None], weights)[0] > best


@pytest.mark.parametrize("missing", [0.5, 0.9, 0.95, 0.99])
def test_default_tolerance_reaches_the_minimum_to_a_permille(rng, missing):
    from skimage.data import camera

    image = camera()[::4, ::4] / 255
    observed = rng.random(image.shape) > missing
    for order in (1, 1.5, 2):
        weights = laplacian_eigenvalues(image.shape) ** order
        exact, _ = solve(image, observed, order, solver="pcg", tol=1e-9, max_iter=2000)
        best = dct_norm_squared(exact[None], weights)[0]
        for solver in ("auto", "pcg"):
            found, result = solve(image, observed, order, solver=solver)
            assert dct_norm_squared(found[None], weights)[0] <= best * (1 + 1e-3)
            assert result.converged.all()


def test_single_precision_inside_loses_nothing_at_an_offset(rng):
    image, observed = random_case(rng, (40, 40), 0.5)
    plain, _ = solve(image, observed, solver="pcg")
    shifted, _ = solve(image + 1e6, observed, solver="pcg")
    np.testing.assert_allclose(shifted - 1e6, plain, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("end", [80, 110])
def test_large_hole_is_solved_exactly(rng, order, end):
    """Where the stencil needs thousands of steps: a plane goes on across the hole."""
    plane = np.add.outer(np.arange(128.0), 3 * np.arange(128))
    observed = np.ones(plane.shape, dtype=bool)
    observed[20:end, 30:end] = False
    found, result = solve(plane, observed, order)
    np.testing.assert_allclose(found, plane, atol=1e-6)
    assert result.n_iter[0] == 0


@pytest.mark.parametrize("solver", ["direct", "pcg", "stencil", "sparse"])
def test_batch_equals_single_images(rng, solver):
    cases = [random_case(rng, (16, 12), share) for share in (0.1, 0.5, 0.9, 0.95)]
    images, observed = map(np.array, zip(*cases, strict=True))
    weights = laplacian_eigenvalues((16, 12)) ** 2
    together = solve_dct(images, observed, weights=weights, order=2, solver=solver)
    for i, (image, known) in enumerate(cases):
        alone, _ = solve(image, known, 2, solver=solver)
        np.testing.assert_allclose(together.solution[i], alone, rtol=0, atol=1e-6)


def test_callback_stops_the_iterations(rng):
    image, observed = random_case(rng, (64, 64), 0.9)
    seen = []

    def stop_at_third(iteration):
        seen.append(iteration)
        return iteration == 2

    found, result = solve(image, observed, solver="pcg", callback=stop_at_third)
    assert seen == [0, 1, 2]
    assert result.n_iter[0] == 3
    assert not result.converged[0]
    assert np.isfinite(found).all()


def test_callback_stops_direct_solves_between_images(rng):
    cases = [random_case(rng, (8, 8)) for _ in range(3)]
    images, observed = map(np.array, zip(*cases, strict=True))
    weights = laplacian_eigenvalues((8, 8)) ** 1.5
    result = solve_dct(
        images, observed, weights=weights, callback=lambda i: i == 1, solver="direct"
    )
    assert result.converged.tolist() == [True, True, False]
    for i in range(2):
        expected = dense_solution(images[i], observed[i], weights)
        np.testing.assert_allclose(result.solution[i], expected, atol=1e-9)
    assert np.isfinite(result.solution).all()


@pytest.mark.parametrize("order", [3, 6])
def test_where_a_factorisation_fails_auto_iterates(rng, order):
    """High orders make the kernel between 200 points of a line singular."""
    image, observed = random_case(rng, (2000,), 0.9)
    with pytest.raises(ValueError, match="singular to working precision.*'auto'"):
        solve(image, observed, order, solver="direct")
    found, result = solve(image, observed, order, max_iter=5000)
    assert result.n_iter[0] > 0
    assert np.isfinite(found).all()


def test_undetermined_slice_is_that_of_the_nearest_pixels(rng):
    image = rng.random((3, 6, 5))
    observed = np.ones(image.shape, dtype=bool)
    observed[2] = False
    found, _ = solve(image, observed, 1, axis_scale=(0, 1, 1), tol=1e-9)
    # The smoothest plane is a constant; which one, the data do not say.
    np.testing.assert_allclose(found[2], image[1].mean(), atol=1e-6)
