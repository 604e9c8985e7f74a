"""Factorisations: every matrix against the dense one, and what is refused."""

import numpy as np
import pytest
from scipy.linalg import LinAlgError

from sklcomp.solvers.dct import _direct
from sklcomp.solvers.dct._direct import (
    direct_size,
    has_dual,
    is_banded,
    solve_direct,
    solve_direct_noisy,
)
from sklcomp.solvers.dct._problem import laplacian_eigenvalues
from tests.helpers.grids import (
    dense_correction,
    dense_operator,
    random_case,
    random_residual,
)

GRIDS = [(1,), (17,), (1, 9), (6, 7), (3, 4, 5), (2, 1, 3, 3)]
LINES = [(40,), (1, 40), (40, 1), (1, 40, 1)]


def spectrum(rng, shape, kind):
    """Weights of the Laplacian, or such as penalise the mean as well."""
    if kind == "laplacian":
        return laplacian_eigenvalues(shape) ** 1.5
    return rng.uniform(0.1, 1, shape)


@pytest.mark.parametrize("shape", GRIDS)
def test_the_kernel_is_the_operator_between_pixels(rng, shape):
    weights = rng.random(shape)
    points = np.argwhere(rng.random(shape) < 0.7)
    found = _direct._kernel(weights, points)
    places = np.ravel_multi_index(tuple(points.T), shape)
    expected = dense_operator(weights)[np.ix_(places, places)]
    np.testing.assert_allclose(found, np.tril(expected), atol=1e-12)


def test_the_table_is_an_even_and_periodic_cosine_series(rng):
    weights, n = rng.random(9), 9
    distance = np.arange(n + 1)[:, None]
    waves = weights[1:] * np.cos(np.pi * distance * np.arange(1, n) / n)
    expected = (weights[0] + 2 * waves.sum(axis=1)) / (2 * n)
    np.testing.assert_allclose(_direct._cosine_table(weights), expected, atol=1e-12)
    distances = np.arange(2 * n)
    angles = np.cos(np.pi * distances / n)
    mirrored = np.cos(np.pi * _direct._reflect(distances, n) / n)
    np.testing.assert_allclose(mirrored, angles, atol=1e-12)


@pytest.mark.parametrize("kind", ["laplacian", "free"])
@pytest.mark.parametrize("shape", [(30,), (6, 7), (3, 4, 5)])
def test_both_sides_of_the_problem_have_the_dense_solution(rng, shape, kind):
    weights = spectrum(rng, shape, kind)
    observed = random_case(rng, shape)[1]
    (residual,), _ = random_residual(rng, observed)
    expected = dense_correction(residual, observed, weights)
    for solve in (_direct._solve_primal, _direct._solve_dual):
        found = solve(residual, observed, weights)
        np.testing.assert_allclose(found, expected, atol=1e-8 * np.abs(expected).max())
        assert not found[observed].any()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", LINES)
@pytest.mark.parametrize("n_missing", [1, 2, 20, 39])
def test_a_short_band_has_the_dense_solution(rng, shape, order, n_missing):
    observed = np.ones(shape, dtype=bool)
    observed.flat[rng.choice(40, n_missing, replace=False)] = False
    weights = laplacian_eigenvalues(shape) ** order
    (residual,), _ = random_residual(rng, observed)
    found = _direct._solve_banded(residual, observed, weights, order)
    expected = dense_correction(residual, observed, weights)
    np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("order", [1, 2])
def test_a_band_is_all_that_the_operator_has(order):
    for shape in LINES:
        operator = dense_operator(laplacian_eigenvalues(shape) ** order)
        far = np.abs(np.subtract.outer(np.arange(40), np.arange(40))) > order
        assert np.abs(operator[far]).max() < 1e-12
        assert is_banded(shape, order)
    assert not is_banded((8, 5), order)
    assert not is_banded((40,), order + 0.5)
    assert not is_banded((40,), None)


@pytest.mark.parametrize("kind", ["laplacian", "free"])
@pytest.mark.parametrize("noise", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("missing", [0.1, 0.8])
def test_noisy_data_by_either_side_equal_the_dense_solution(rng, kind, noise, missing):
    shape = (6, 7)
    weights = spectrum(rng, shape, kind)
    image, observed = random_case(rng, shape, missing)
    data = np.where(observed, image, 0)
    matrix = noise * dense_operator(weights) + np.diag(1.0 * observed.ravel())
    expected = np.linalg.solve(matrix, data.ravel()).reshape(shape)
    for dual in (False, True):
        found = _direct._solve_one_noisy(data, observed, weights, noise, None, dual)
        np.testing.assert_allclose(found, expected, atol=1e-8)
    found = _direct._solve_dual_noisy(data, observed, weights, noise)
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", LINES)
def test_a_noisy_line_is_a_whittaker_smoother(rng, shape, order):
    image, observed = random_case(rng, shape)
    weights = laplacian_eigenvalues(shape) ** order
    data = np.where(observed, image, 0)
    found, _, gap = solve_direct_noisy(
        data[None], observed[None], weights=weights, noise=np.array([3.0]), order=order
    )
    # Squared differences of a line that is reflected at its ends.
    steps = np.diff(np.eye(40), axis=0)
    laplacian = steps.T @ steps
    penalty = laplacian if order == 1 else laplacian @ laplacian
    expected = np.linalg.solve(
        3 * penalty + np.diag(1.0 * observed.ravel()), data.ravel()
    )
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-9)
    assert gap[0] < 1e-10


def test_order_1_of_a_line_interpolates_linearly(rng):
    line = rng.random(100_000)
    known = np.sort(rng.choice(line.size, 300, replace=False))
    observed = np.zeros(line.shape, dtype=bool)
    observed[known] = True
    expected = np.interp(np.arange(line.size), known, line[known])
    # A correction of zeros at missing pixels: its residual is that of the data.
    start = np.where(observed, line, 0)
    padded = np.pad(start, 1, mode="edge")
    residual = np.where(observed, 0, padded[:-2] + padded[2:] - 2 * start)
    correction, n_iter, gap = solve_direct(
        residual[None],
        observed[None],
        weights=laplacian_eigenvalues(line.shape),
        order=1,
    )
    np.testing.assert_allclose(start + correction[0], expected, atol=1e-8)
    assert n_iter[0] == 0
    assert gap[0] < 1e-9


@pytest.mark.parametrize(
    ("zeros", "expected"), [([], True), ([0], True), ([1], False), ([0, 1], False)]
)
def test_a_dual_needs_an_operator_that_forgets_the_mean_alone(rng, zeros, expected):
    weights = rng.uniform(0.5, 1, (4, 5))
    weights.flat[zeros] = 0
    assert has_dual(weights) == expected
    values, vectors = np.linalg.eigh(dense_operator(weights))
    null = vectors[:, values < 1e-9]
    flat = np.ones(20) / np.sqrt(20)
    # The constant spans whatever is sent to zero.
    rest = null - np.outer(flat, flat @ null)
    assert (np.linalg.norm(rest) < 1e-9) == expected


@pytest.mark.parametrize("n_observed", [1, 5, 21, 37, 41])
@pytest.mark.parametrize("kind", ["laplacian", "free"])
def test_the_smaller_matrix_is_factorised(rng, n_observed, kind, monkeypatch):
    sizes, factorise = [], _direct._factorise

    def spy(matrix):
        sizes.append(len(matrix))
        return factorise(matrix)

    monkeypatch.setattr(_direct, "_factorise", spy)
    weights = spectrum(rng, (6, 7), kind)
    observed = np.zeros((6, 7), dtype=bool)
    observed.flat[rng.choice(42, n_observed, replace=False)] = True
    residual, masks = random_residual(rng, observed)
    solve_direct(residual, masks, weights=weights, order=None)
    assert sizes == [min(n_observed, 42 - n_observed)] == [direct_size(observed, True)]
    assert direct_size(observed, False) == 42 - n_observed
    noise = np.ones(1)
    solve_direct_noisy(residual, masks, weights=weights, noise=noise, order=None)
    # With noise the primal unknowns are all pixels, and half of them is the limit.
    expected = n_observed if n_observed < 21 else 42
    assert sizes[1:] == [expected] == [direct_size(observed, True, noisy=True)]
    assert direct_size(observed, False, noisy=True) == 42


def test_singular_systems_are_told(rng):
    weights = laplacian_eigenvalues((5, 6))
    weights[0, 1] = 0
    observed = np.zeros((5, 6), dtype=bool)
    observed[2, 3] = True
    residual, masks = random_residual(rng, observed, 2)
    correction, _, gap = solve_direct(residual, masks, weights=weights, order=None)
    assert np.isposinf(gap).all()
    assert not correction.any()
    start = np.where(observed, 1.0, 0.5)[None]
    found, _, gap = solve_direct_noisy(
        start, masks[:1], weights=weights, noise=np.ones(1), order=None
    )
    assert np.isposinf(gap).all()
    np.testing.assert_array_equal(found, start)


def test_matrices_that_are_no_numbers_or_all_but_singular_are_not_factorised():
    with pytest.raises(LinAlgError, match="weights span more than double precision"):
        _direct._factorise(np.array([[1.0, 0.0], [np.inf, 1.0]]))
    with pytest.raises(LinAlgError, match="singular to working precision"):
        _direct._factorise(np.diag([1.0, 1e-13]))
    factor, is_lower = _direct._factorise(np.diag([4.0, 9.0]))
    assert is_lower
    np.testing.assert_allclose(np.diag(factor), [2, 3])


def test_an_image_without_a_residual_needs_no_correction(rng):
    observed = random_case(rng, (5, 6))[1]
    residual, masks = random_residual(rng, observed, 2)
    residual = residual * np.array([0, 1])[:, None, None]
    seen = []
    correction, n_iter, gap = solve_direct(
        residual,
        masks,
        weights=laplacian_eigenvalues((5, 6)),
        order=None,
        callback=seen.append,
    )
    assert seen == [1]
    assert not correction[0].any()
    assert gap[0] == 0
    assert 0 < gap[1] < 1e-10
    assert not n_iter.any()


def test_the_gap_is_the_residual_that_is_left(rng, monkeypatch):
    observed = random_case(rng, (5, 6))[1]
    residual, masks = random_residual(rng, observed)
    weights = laplacian_eigenvalues((5, 6))
    exact = dense_correction(residual, observed, weights)
    monkeypatch.setattr(_direct, "_solve_one", lambda *_: 0.75 * exact)
    _, _, gap = solve_direct(residual, masks, weights=weights, order=None)
    assert gap[0] == pytest.approx(0.25, rel=1e-9)


def test_a_callback_stops_both_between_images(rng):
    observed = random_case(rng, (5, 6))[1]
    residual, masks = random_residual(rng, observed, 3)
    settings = {
        "weights": laplacian_eigenvalues((5, 6)),
        "order": None,
        "callback": lambda i: i == 1,
    }
    correction, _, gap = solve_direct(residual, masks, **settings)
    assert np.isnan(gap).tolist() == [False, False, True]
    assert not correction[2].any()
    start = np.where(masks, rng.random(residual.shape), 7)
    found, _, gap = solve_direct_noisy(start, masks, noise=np.ones(3), **settings)
    assert np.isnan(gap).tolist() == [False, False, True]
    np.testing.assert_array_equal(found[2], start[2])
    for i in range(2):
        assert np.abs(found[i] - start[i]).max() > 1e-3
