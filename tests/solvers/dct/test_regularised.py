"""Noise and nuclear norm: closed forms, limits, and equality of two solvers."""

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from sklcomp.solvers.dct._nuclear import shrink_singular_values
from sklcomp.solvers.dct._problem import (
    dct_norm_squared,
    laplacian_eigenvalues,
    solve_dct,
)
from sklcomp.solvers.dct._regularised import solve_regularised
from tests.helpers.grids import dense_operator


def solve(image, observed, *, order=1.5, weights=None, nuclear=0, noise=0, **settings):
    if weights is None:
        weights = laplacian_eigenvalues(image.shape) ** order
    solver = settings.pop("solver", "admm" if nuclear else "pcg")
    result = solve_regularised(
        image[None],
        observed[None],
        weights=weights,
        nuclear=nuclear,
        noise=noise,
        solver=solver,
        **settings,
    )
    assert result.converged.all()
    return result.solution[0]


def case(rng, shape=(14, 11), missing=0.5):
    image = rng.random(shape)
    observed = rng.random(shape) >= missing
    observed.flat[0] = True
    return image, observed


@pytest.mark.parametrize("noise", [0.01, 1, 100])
def test_complete_noisy_image_has_a_closed_form(rng, noise):
    image, observed = case(rng, missing=0)
    weights = laplacian_eigenvalues(image.shape) ** 1.5
    spectrum = dctn(image, norm="ortho") / (1 + noise * weights)
    expected = idctn(spectrum, norm="ortho")
    found = solve(image, observed, noise=noise, tol=1e-9)
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("shape", [(40,), (14, 11), (5, 6, 4)])
@pytest.mark.parametrize("noise", [0.1, 3])
def test_noisy_data_equal_a_dense_solve(rng, shape, noise):
    image, observed = case(rng, shape)
    weights = laplacian_eigenvalues(shape) ** 1.5
    matrix = noise * dense_operator(weights) + np.diag(observed.ravel().astype(float))
    expected = np.linalg.solve(matrix, (observed * image).ravel()).reshape(shape)
    for solver in ("pcg", "admm"):
        found = solve(
            image, observed, noise=noise, tol=1e-9, max_iter=20_000, solver=solver
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_noise_between_exact_data_and_their_mean(rng):
    image, observed = case(rng, (24, 24), 0.7)
    weights = laplacian_eigenvalues(image.shape) ** 1.5
    exact = solve_dct(image[None], observed[None], weights=weights, tol=1e-9).solution
    found = solve(image, observed, noise=1e-7, tol=1e-6, max_iter=2000)
    np.testing.assert_allclose(found, exact[0], atol=1e-4)
    flat = solve(image, observed, noise=1e5, tol=1e-6)
    np.testing.assert_allclose(
        flat, np.full((24, 24), image[observed].mean()), atol=5e-3
    )


def test_noisy_solution_scales_with_the_pixels_and_ignores_missing_ones(rng):
    image, observed = case(rng)
    expected = solve(image, observed, noise=0.5, tol=1e-9)
    found = solve(1e200 * (image + 5), observed, noise=0.5, tol=1e-9)
    np.testing.assert_allclose(found / 1e200 - 5, expected, atol=1e-8)
    junk = np.where(observed, image, 1e9)
    np.testing.assert_array_equal(solve(junk, observed, noise=0.5, tol=1e-9), expected)


def test_batch_with_noise_equals_single_images(rng):
    cases = [case(rng, (16, 12), share) for share in (0, 0.3, 0.9)]
    images, observed = map(np.array, zip(*cases, strict=True))
    weights = laplacian_eigenvalues((16, 12)) ** 1.5
    together = solve_regularised(
        images, observed, weights=weights, nuclear=0, noise=0.3, solver="pcg"
    )
    for (image, known), found in zip(cases, together.solution, strict=True):
        np.testing.assert_allclose(solve(image, known, noise=0.3), found, atol=1e-6)


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_admm_without_nuclear_norm_equals_the_exact_solvers(rng, order):
    image, observed = case(rng)
    weights = laplacian_eigenvalues(image.shape) ** order
    exact = solve_dct(image[None], observed[None], weights=weights, tol=1e-10)
    # Without an order the start is not that of the exact solver's choice.
    found = solve(
        image, observed, weights=weights, solver="admm", tol=1e-9, max_iter=20_000
    )
    np.testing.assert_allclose(found, exact.solution[0], atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 7), (7, 9), (8, 8)])
def test_shrinking_equals_the_svd(rng, shape):
    matrix = rng.normal(size=shape)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    for by in (0.0, 1.0, values[0] + 1):
        expected = (left * np.maximum(values - by, 0)) @ right
        np.testing.assert_allclose(
            shrink_singular_values(matrix, by), expected, atol=1e-9
        )


def test_shrinking_an_unfolding_equals_the_svd_of_it(rng):
    volume = rng.normal(size=(4, 5, 3))
    for mode in range(3):
        unfolded = np.moveaxis(volume, mode, 0).reshape(volume.shape[mode], -1)
        found = shrink_singular_values(volume, 0.7, mode)
        np.testing.assert_allclose(
            np.moveaxis(found, mode, 0).reshape(unfolded.shape),
            shrink_singular_values(unfolded, 0.7),
            atol=1e-12,
        )


def test_complete_noisy_image_with_hardly_any_dct_norm_is_its_shrunk_svd(rng):
    image, observed = case(rng, missing=0)
    weights = np.full(image.shape, 1e-12)
    expected = shrink_singular_values(image, 0.5 * np.ptp(image))
    found = solve(
        image, observed, weights=weights, nuclear=0.5, noise=1, tol=1e-8, max_iter=5000
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("noise", [0, 0.5])
def test_nuclear_solution_is_a_minimum(rng, noise):
    image, observed = case(rng, (12, 12))
    weights = laplacian_eigenvalues(image.shape) ** 1.5
    found = solve(image, observed, nuclear=0.3, noise=noise, tol=1e-9, max_iter=20_000)
    span, center = np.ptp(image[observed]), image[observed].mean()

    def objective(x):
        x = (x - center) / span
        data = ((x - (image - center) / span)[observed] ** 2).sum() / 2
        singular = np.linalg.svd(x, compute_uv=False).sum()
        smooth = dct_norm_squared(x[None], weights)[0] / 2
        return 0.3 * singular + (noise or 1) * smooth + (data if noise else 0)

    best = objective(found)
    for _ in range(20):
        step = rng.normal(size=image.shape) * 1e-3
        assert objective(found + np.where(observed & (noise == 0), 0, step)) > best


def test_nuclear_norm_completes_a_low_rank_matrix_that_smoothness_does_not(rng):
    image = np.outer(rng.normal(size=40), rng.normal(size=40))
    observed = rng.random(image.shape) > 0.3
    plain = solve(image, observed, solver="admm", max_iter=2000)
    found = solve(image, observed, nuclear=30, max_iter=2000)
    error = [np.linalg.norm(x - image) for x in (found, plain)]
    assert error[0] < error[1] / 2


def test_nuclear_norm_of_a_volume_sums_its_unfoldings(rng):
    factors = [rng.normal(size=12) for _ in range(3)]
    volume = np.einsum("i,j,k", *factors)
    observed = rng.random(volume.shape) > 0.4
    plain = solve(volume, observed, solver="admm", max_iter=2000)
    found = solve(volume, observed, nuclear=30, max_iter=2000)
    error = [np.linalg.norm(x - volume) for x in (found, plain)]
    assert error[0] < error[1] / 2


def test_callback_stops_admm(rng):
    image, observed = case(rng)
    result = solve_regularised(
        image[None],
        observed[None],
        nuclear=1,
        noise=0,
        solver="admm",
        weights=laplacian_eigenvalues(image.shape),
        callback=lambda i: i == 2,
        tol=1e-9,
    )
    assert result.n_iter[0] == 3
    assert not result.converged[0]
