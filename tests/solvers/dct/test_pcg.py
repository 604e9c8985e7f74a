"""Preconditioned conjugate gradients: operators, solutions, and what a gap says."""

import numpy as np
import pytest

from sklcomp.solvers.dct import _pcg
from sklcomp.solvers.dct._pcg import (
    LIGHT,
    apply_spectrum,
    select_rows,
    solve_pcg,
    solve_penalised,
)
from sklcomp.solvers.dct._problem import laplacian_eigenvalues
from tests.helpers.grids import (
    dense_correction,
    dense_operator,
    random_case,
    random_residual,
)

GRIDS = [(1,), (30,), (1, 9), (6, 7), (3, 4, 5)]


def powers(shape, order=1.5):
    """Weights of which the largest is 1, as the solver gets them."""
    weights = laplacian_eigenvalues(shape) ** order
    return weights / weights.max()


def correct(residual, masks, weights, **settings):
    settings = {
        "max_iter": 1000,
        "tol": 1e-10,
        "workers": None,
        "callback": None,
    } | settings
    return solve_pcg(residual, masks, weights=weights, **settings)


def smooth(start, masks, weights, noise, **settings):
    settings = {
        "max_iter": 2000,
        "tol": 1e-9,
        "workers": None,
        "callback": None,
    } | settings
    noise = np.broadcast_to(np.asarray(noise, dtype=float), len(start))
    return solve_penalised(start, masks, weights=weights, noise=noise, **settings)


@pytest.fixture
def case(rng):
    observed = random_case(rng, (9, 8))[1]
    return (*random_residual(rng, observed, 2), observed)


@pytest.mark.parametrize("shape", GRIDS)
def test_a_spectrum_is_applied_like_the_dense_operator(rng, shape):
    first, second = rng.random((2, *shape))
    images = rng.normal(size=(3, *shape))
    images.flags.writeable = False
    axes = tuple(range(1, images.ndim))
    found = apply_spectrum(images, first, axes)
    expected = images.reshape(3, -1) @ dense_operator(first)
    np.testing.assert_allclose(found.reshape(3, -1), expected, atol=1e-12)
    both = apply_spectrum(found, second, axes)
    np.testing.assert_allclose(
        both, apply_spectrum(images, first * second, axes), atol=1e-12
    )
    np.testing.assert_allclose(
        apply_spectrum(images, np.ones(shape), axes), images, atol=1e-12
    )
    np.testing.assert_allclose(
        np.vdot(images[0], found[1]), np.vdot(found[0], images[1]), atol=1e-11
    )


@pytest.mark.parametrize("order", [0.5, 1, 1.5, 2])
@pytest.mark.parametrize("shape", [(30,), (6, 7), (3, 4, 5)])
def test_corrections_equal_a_dense_solve(rng, shape, order):
    weights = powers(shape, order)
    observed = random_case(rng, shape)[1]
    residual, masks = random_residual(rng, observed, 2)
    found, n_iter, gap = correct(residual, masks, weights)
    for i in range(2):
        expected = dense_correction(residual[i], observed, weights)
        np.testing.assert_allclose(
            found[i], expected, atol=1e-6 * np.abs(expected).max()
        )
        assert not found[i][observed].any()
    assert (n_iter > 0).all()
    assert (gap <= 1e-10).all()


def test_as_many_steps_as_unknowns_are_enough(rng):
    observed = np.ones((12, 12), dtype=bool)
    observed.flat[rng.choice(144, 5, replace=False)] = False
    residual, masks = random_residual(rng, observed)
    weights = powers((12, 12))
    found, n_iter, _ = correct(residual, masks, weights, tol=1e-8)
    assert n_iter[0] <= 5
    expected = dense_correction(residual[0], observed, weights)
    np.testing.assert_allclose(found[0], expected, atol=1e-6 * np.abs(expected).max())


def test_equal_weights_take_one_step(case):
    residual, masks, _ = case
    found, n_iter, _ = correct(residual, masks, np.full((9, 8), 0.25))
    np.testing.assert_allclose(found, 4 * residual, atol=1e-10)
    np.testing.assert_array_equal(n_iter, 1)


def test_each_step_comes_nearer_in_the_norm_of_the_operator(case):
    residual, masks, observed = case
    weights = powers((9, 8))
    operator = dense_operator(weights)
    exact = dense_correction(residual[0], observed, weights).ravel()
    left = []
    for max_iter in range(8):
        found, n_iter, _ = correct(residual[:1], masks[:1], weights, max_iter=max_iter)
        assert n_iter[0] == max_iter
        away = found[0].ravel() - exact
        left.append(away @ operator @ away)
    assert (np.diff(left) < 0).all()


@pytest.mark.parametrize("is_light", [False, True])
def test_the_gap_is_the_residual_in_the_norm_of_the_preconditioner(rng, is_light):
    shape, order, missing = ((200,), 1, 0.98) if is_light else ((9, 8), 0.5, 0.6)
    observed, weights = random_case(rng, shape, missing)[1], powers(shape, order)
    residual, masks = random_residual(rng, observed, 2)
    shift = _pcg._sampling_weights(masks, weights)[0]
    assert (shift < LIGHT / 3) == is_light
    # What weighs almost nothing is held to a finer tolerance: its gap is magnified.
    unit = min(1, np.sqrt(shift / LIGHT))
    found, _, gap = correct(residual, masks, weights, max_iter=3)
    operator, inverse = dense_operator(weights), dense_operator(1 / (weights + shift))
    for i in range(2):
        start = residual[i].ravel()
        left = (start - operator @ found[i].ravel()) * ~observed.ravel()
        share = np.sqrt((left @ inverse @ left) / (start @ inverse @ start))
        assert gap[i] == pytest.approx(share / unit, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coarse_tolerances_are_reached_in_single_precision(case, dtype, monkeypatch):
    residual, masks, observed = case
    kinds, iterate = [], _pcg._iterate

    def spy(residual, pixels, *args, **settings):
        kinds.append(pixels.dtype)
        return iterate(residual, pixels, *args, **settings)

    monkeypatch.setattr(_pcg, "_iterate", spy)
    tol, weights = {np.float32: 1e-3, np.float64: 1e-8}[dtype], powers((9, 8), 1)
    found, _, gap = correct(residual, masks, weights, tol=tol)
    assert kinds == [dtype]
    assert found.dtype == np.float64
    assert (gap <= tol).all()
    expected = dense_correction(residual[0], observed, weights)
    error = np.linalg.norm(found[0] - expected) / np.linalg.norm(expected)
    assert error < 100 * tol


@pytest.mark.parametrize("tol", [1e-3, 1e-10])
def test_the_size_of_the_residual_does_not_matter(case, tol):
    residual, masks, _ = case
    weights = powers((9, 8))
    base, n_iter, gap = correct(residual, masks, weights, tol=tol)
    for factor in (2.0**200, -(2.0**-200)):
        found, *others = correct(factor * residual, masks, weights, tol=tol)
        np.testing.assert_array_equal(found, factor * base)
        np.testing.assert_array_equal(others, [n_iter, gap])


def test_a_batch_is_solved_as_if_each_image_were_alone(rng):
    cases = [random_case(rng, (9, 8), share) for share in (0.1, 0.5, 0.97)]
    masks = np.array([observed for _, observed in cases])
    residual = np.where(masks, 0, rng.normal(size=masks.shape))
    residual[1] = 0
    weights = powers((9, 8))
    found, n_iter, gap = correct(residual, masks, weights)
    assert not found[1].any()
    assert n_iter[1] == gap[1] == 0
    turned, *_ = correct(residual[::-1], masks[::-1], weights)
    np.testing.assert_allclose(turned[::-1], found, atol=1e-6)
    for i in (0, 2):
        alone, *_ = correct(residual[i : i + 1], masks[i : i + 1], weights)
        np.testing.assert_allclose(alone[0], found[i], atol=1e-6)


def test_a_callback_stops_the_batch(case):
    residual, masks, _ = case
    seen = []

    def stop(iteration):
        seen.append(iteration)
        return iteration == 2

    _, n_iter, gap = correct(residual, masks, powers((9, 8)), callback=stop)
    assert seen == [0, 1, 2]
    np.testing.assert_array_equal(n_iter, 3)
    assert (gap > 1e-10).all()


def test_a_gap_below_rounding_is_no_claim(case):
    residual, masks, _ = case
    weights = np.full((9, 8), 0.25)
    _, _, gap = correct(residual, masks, weights, tol=1e-3)
    # One step was exact, and still 2.2e-15 is what double precision vouches for.
    floor = _pcg.ROUNDING_RESERVE * np.finfo(float).eps / 0.5
    assert (gap >= floor * (1 - 1e-9)).all()


def test_the_sampling_weight_rises_with_what_is_observed(rng):
    weights = powers((12, 12))
    shares = np.array([1 / 144, 0.1, 0.3, 0.6, 1])
    masks = np.zeros((5, 144), dtype=bool)
    for mask, share in zip(masks, shares, strict=True):
        mask[: round(144 * share)] = True
    masks = masks.reshape(5, 12, 12)
    found = _pcg._sampling_weights(masks, weights)
    assert (np.diff(found) >= 0).all()
    # From the smallest that is no zero to the median.
    assert found[0] == weights[weights > 0].min()
    assert found[-1] == np.sort(weights, axis=None)[71]
    np.testing.assert_allclose(_pcg._fractions(masks), shares, atol=1 / 288)
    mixed = rng.permutation(masks.reshape(5, -1), axis=1).reshape(masks.shape)
    np.testing.assert_array_equal(_pcg._sampling_weights(mixed, weights), found)


def test_inverses_are_at_most_one_and_shared_by_equal_masks(rng):
    weights = 1e300 * rng.random((6, 7))
    weights.flat[0] = 0
    shifts = np.array([1e-3, 2.0, 1e-3])
    found = _pcg._shifted_inverse(weights, shifts, np.float64)
    for inverse, shift in zip(found, shifts, strict=True):
        np.testing.assert_allclose(inverse, shift / (weights + shift), rtol=1e-12)
    assert found.max() == 1
    same = _pcg._shifted_inverse(weights, np.full(3, 2.0), np.float64)
    np.testing.assert_array_equal(same[2], found[1])
    assert np.shares_memory(same[0], same[2])


def test_all_rows_are_selected_without_a_copy(rng):
    array = rng.random((4, 3))
    for selected in (np.ones(4, dtype=bool), np.array([True, False, True, True])):
        rows = array[select_rows(selected)]
        np.testing.assert_array_equal(rows, array[selected])
        assert np.shares_memory(rows, array) == selected.all()


@pytest.mark.parametrize("shape", [(30,), (6, 7), (3, 4, 5)])
@pytest.mark.parametrize("noise", [1e-3, 1.0, 1e3])
def test_noisy_data_equal_a_dense_solve_from_any_start(rng, shape, noise):
    image, observed = random_case(rng, shape)
    weights = laplacian_eigenvalues(shape) ** 1.5
    matrix = noise * dense_operator(weights) + np.diag(1.0 * observed.ravel())
    expected = np.linalg.solve(matrix, (observed * image).ravel()).reshape(shape)
    fills = np.array([np.where(observed, image, fill) for fill in (0.0, 0.5, 30.0)])
    fills.flags.writeable = False
    masks = np.broadcast_to(observed, fills.shape)
    found, _, gap = smooth(fills, masks, weights, noise)
    for one in found:
        np.testing.assert_allclose(one, expected, atol=1e-5)
    assert (gap <= 1e-9).all()


@pytest.mark.parametrize("noise", [1e-2, 1.0, 1e2])
def test_complete_noisy_images_need_no_step(rng, noise):
    image = rng.random((9, 8))
    weights = laplacian_eigenvalues(image.shape)
    masks = np.ones((1, 9, 8), dtype=bool)
    found, n_iter, _ = smooth(image[None], masks, weights, noise)
    # The smoothed start is the solution already, but for rounding.
    expected = apply_spectrum(image, 1 / (1 + noise * weights), (0, 1))
    np.testing.assert_allclose(found[0], expected, atol=1e-10)
    assert n_iter[0] <= 1


def test_each_image_may_have_a_noise_of_its_own(rng):
    image, observed = random_case(rng, (9, 8))
    weights = laplacian_eigenvalues(image.shape)
    start = np.repeat(np.where(observed, image, 0.5)[None], 3, axis=0)
    masks, noise = np.broadcast_to(observed, start.shape), np.array([0.01, 1, 100])
    together, *_ = smooth(start, masks, weights, noise)
    for i in range(3):
        alone, *_ = smooth(start[i : i + 1], masks[:1], weights, noise[i])
        np.testing.assert_allclose(together[i], alone[0], atol=1e-7)
        # Only the product of noise and weights matters.
        other, *_ = smooth(start[i : i + 1], masks[:1], 8 * weights, noise[i] / 8)
        np.testing.assert_allclose(other[0], alone[0], atol=1e-7)


def test_a_bad_start_hides_nothing(rng):
    # Beside the residual of the nearest pixels any other would look small.
    image, observed = random_case(rng, (16, 15), 0.9)
    weights = laplacian_eigenvalues(image.shape)
    matrix = 1e4 * dense_operator(weights) + np.diag(1.0 * observed.ravel())
    expected = np.linalg.solve(matrix, (observed * image).ravel())
    start = np.where(observed, image, rng.random(image.shape))
    found, *_ = smooth(start[None], observed[None], weights, 1e4, tol=1e-3)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-4)
