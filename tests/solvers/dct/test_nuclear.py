"""The nuclear norm: its proximal map, and the conditions of a minimum."""

import numpy as np
import pytest

from sklcomp.solvers.dct._nuclear import shrink_singular_values, solve_nuclear
from sklcomp.solvers.dct._problem import laplacian_eigenvalues
from tests.helpers.grids import dense_operator, dense_solution, random_case

SHAPES = [(9, 7), (7, 9), (8, 8), (1, 6), (6, 1)]


def trace_norm(matrix):
    return np.linalg.svd(matrix, compute_uv=False).sum()


def spectral_norm(matrix):
    return np.linalg.norm(matrix, 2)


def solve(image, observed, *, nuclear, noise=0.0, weights=None, **settings):
    settings = {"max_iter": 20_000, "tol": 1e-10} | settings
    if weights is None:
        weights = laplacian_eigenvalues(image.shape) ** 1.5
    start = np.where(observed, image, 0)
    start.flags.writeable = False
    found, n_iter, gap = solve_nuclear(
        start[None],
        observed[None],
        weights=weights,
        nuclear=nuclear,
        noise=np.array([float(noise)]),
        **settings,
    )
    return found[0], n_iter[0], gap[0]


def centred_case(rng, shape=(9, 8), missing=0.4):
    image, observed = random_case(rng, shape, missing)
    return image - 0.5, observed


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("by", [0.1, 1.0, 2.5])
def test_what_is_shrunk_away_is_a_subgradient(rng, shape, by):
    matrix = rng.normal(size=shape)
    found = shrink_singular_values(matrix, by)
    gradient = (matrix - found) / by
    assert spectral_norm(gradient) <= 1 + 1e-9
    np.testing.assert_allclose(np.vdot(gradient, found), trace_norm(found), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_shrinking_keeps_what_an_orthogonal_matrix_does(rng, shape):
    matrix = rng.normal(size=shape)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in shape)
    base = shrink_singular_values(matrix, 0.8)
    turned = shrink_singular_values(left @ matrix @ right, 0.8)
    np.testing.assert_allclose(turned, left @ base @ right, atol=1e-9)
    np.testing.assert_allclose(shrink_singular_values(matrix.T, 0.8).T, base, atol=1e-9)
    np.testing.assert_allclose(
        shrink_singular_values(-3 * matrix, 2.4), -3 * base, atol=1e-9
    )


def test_shrinking_brings_no_two_matrices_further_apart(rng):
    for _ in range(20):
        one, two = rng.normal(size=(2, 6, 5))
        before = one - two
        after = shrink_singular_values(one, 0.7) - shrink_singular_values(two, 0.7)
        # Firmly: the square of the distance is at most the inner product.
        assert np.sum(after**2) <= np.vdot(after, before) + 1e-12


def test_shrinking_by_more_than_the_largest_value_leaves_nothing(rng):
    for shape in ((6, 5), (3, 4, 5)):
        array = rng.normal(size=shape)
        for mode in range(array.ndim):
            unfolded = np.moveaxis(array, mode, 0).reshape(shape[mode], -1)
            largest = spectral_norm(unfolded)
            assert not shrink_singular_values(array, largest * 1.001, mode).any()
            left = shrink_singular_values(array, largest * 0.9, mode)
            left = np.moveaxis(left, mode, 0).reshape(shape[mode], -1)
            assert spectral_norm(left) == pytest.approx(0.1 * largest, rel=1e-6)
    zeros = np.zeros((4, 3))
    np.testing.assert_array_equal(shrink_singular_values(zeros, 0.5), zeros)


@pytest.mark.parametrize("nuclear", [0.1, 1.0])
@pytest.mark.parametrize("noise", [0.3, 2.0])
@pytest.mark.parametrize("shape", [(9, 8), (5, 12)])
def test_the_gradient_of_the_rest_is_a_subgradient_at_the_minimum(
    rng, shape, nuclear, noise
):
    image, observed = centred_case(rng, shape)
    # Below a spectral norm of ``nuclear`` zero is the minimum, see the next test.
    image *= 4.0 / spectral_norm(observed * image)
    weights = laplacian_eigenvalues(shape) ** 1.5
    found, _, gap = solve(image, observed, nuclear=nuclear, noise=noise)
    assert gap <= 1e-10
    smooth = (dense_operator(weights) @ found.ravel()).reshape(shape)
    gradient = -(noise * smooth + observed * (found - image)) / nuclear
    assert spectral_norm(gradient) <= 1 + 1e-6
    np.testing.assert_allclose(np.vdot(gradient, found), trace_norm(found), atol=1e-6)


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_zero_is_the_minimum_from_the_spectral_norm_of_the_data_on(rng, noise):
    image, observed = centred_case(rng)
    largest = spectral_norm(observed * image)
    for share, is_zero in ((1.2, True), (0.7, False)):
        # Shares of nothing are never small, so that only the iterations end it.
        found, *_ = solve(
            image, observed, nuclear=share * largest, noise=noise, max_iter=600
        )
        assert (np.abs(found).max() < 1e-4) == is_zero


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_equal_weights_of_a_complete_image_shrink_and_scale_it(rng, level):
    image = rng.normal(size=(9, 8))
    observed = np.ones(image.shape, dtype=bool)
    weights = np.full(image.shape, level)
    found, *_ = solve(image, observed, nuclear=0.6, noise=2.0, weights=weights)
    expected = shrink_singular_values(image, 0.6) / (1 + 2 * level)
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("shape", [(40,), (9, 8), (3, 4, 5)])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_without_a_nuclear_norm_it_is_the_dense_solution(rng, shape, noise):
    image, observed = centred_case(rng, shape)
    weights = laplacian_eigenvalues(shape) ** 0.75
    found, *_ = solve(image, observed, nuclear=0.0, noise=noise, weights=weights)
    if noise:
        matrix = noise * dense_operator(weights) + np.diag(1.0 * observed.ravel())
        expected = np.linalg.solve(matrix, (observed * image).ravel()).reshape(shape)
    else:
        expected = dense_solution(image, observed, weights)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_exact_data_are_the_limit_of_noisy_ones(rng):
    image, observed = centred_case(rng)
    exact, *_ = solve(image, observed, nuclear=0.2)
    np.testing.assert_array_equal(exact[observed], image[observed])
    # The ratio of the two norms is kept, and both become small.
    errors = []
    for noise in (0.04, 0.01):
        noisy, *_ = solve(image, observed, nuclear=0.2 * noise, noise=noise, tol=1e-8)
        errors.append(np.linalg.norm(noisy - exact) / np.linalg.norm(exact))
    assert errors[0] < 0.6
    assert errors[1] < errors[0] / 2


def test_volumes_shrink_in_all_unfoldings_at_once(rng):
    volume, observed = centred_case(rng, (4, 3, 5))
    weights = laplacian_eigenvalues(volume.shape)
    found, *_ = solve(volume, observed, nuclear=0.2, noise=0.5, weights=weights)

    def objective(x):
        unfolded = (np.moveaxis(x, m, 0).reshape(x.shape[m], -1) for m in range(3))
        smooth = x.ravel() @ dense_operator(weights) @ x.ravel()
        data = np.sum(observed * (x - volume) ** 2)
        return 0.2 * sum(map(trace_norm, unfolded)) + 0.25 * smooth + 0.5 * data

    least = objective(found)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(10):
            step = size * rng.normal(size=volume.shape)
            assert objective(found + step) > least - 1e-9
    # Axes have no order.
    turned, *_ = solve(
        volume.transpose(2, 0, 1),
        observed.transpose(2, 0, 1),
        nuclear=0.2,
        noise=0.5,
        weights=weights.transpose(2, 0, 1),
    )
    np.testing.assert_allclose(turned, found.transpose(2, 0, 1), atol=1e-8)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_turned_and_negated_images_have_such_solutions(rng, noise):
    image, observed = centred_case(rng)
    base, *_ = solve(image, observed, nuclear=0.4, noise=noise)
    found, *_ = solve(image.T, observed.T, nuclear=0.4, noise=noise)
    np.testing.assert_allclose(found.T, base, atol=1e-8)
    found, *_ = solve(-image, observed, nuclear=0.4, noise=noise)
    np.testing.assert_allclose(found, -base, atol=1e-8)


def test_a_fit_that_is_stopped_says_how_far_it_got(rng):
    image, observed = centred_case(rng)
    _, n_iter, gap = solve(image, observed, nuclear=0.4, max_iter=3)
    assert n_iter == 3
    assert gap > 1e-10
    _, other, same = solve(image, observed, nuclear=0.4, callback=lambda i: i == 2)
    assert (other, same) == (n_iter, gap)
    found, n_iter, gap = solve(image, observed, nuclear=0.4, max_iter=0)
    np.testing.assert_array_equal(found, np.where(observed, image, 0))
    assert (n_iter, gap) == (0, 1)


def test_a_batch_is_solved_image_by_image(rng):
    images, masks = map(
        np.array, zip(*(centred_case(rng) for _ in range(3)), strict=True)
    )
    noise = np.array([0.0, 0.1, 2.0])
    start = np.where(masks, images, 0)
    weights = laplacian_eigenvalues((9, 8)) ** 1.5
    found, n_iter, gap = solve_nuclear(
        start,
        masks,
        weights=weights,
        nuclear=0.3,
        noise=noise,
        max_iter=500,
        tol=1e-6,
    )
    for i in range(3):
        alone = solve(
            images[i], masks[i], nuclear=0.3, noise=noise[i], max_iter=500, tol=1e-6
        )
        np.testing.assert_allclose(found[i], alone[0], atol=1e-10)
        assert n_iter[i] == alone[1]
        assert gap[i] == pytest.approx(alone[2])
