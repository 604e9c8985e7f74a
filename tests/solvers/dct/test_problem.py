"""The problem itself: its norm, its units, and who solves it."""

import numpy as np
import pytest

from sklcomp.solvers.dct import _problem
from sklcomp.solvers.dct._problem import (
    dct_norm_squared,
    fill_nearest,
    laplacian_eigenvalues,
    normalise,
    solve_dct,
)
from sklcomp.solvers.dct._regularised import solve_regularised
from tests.helpers.grids import dense_operator, dense_solution, random_case

GRIDS = [(1,), (12,), (1, 9), (5, 6), (3, 4, 2)]


def solve(images, observed, order=1.5, **settings):
    weights = laplacian_eigenvalues(images.shape[1:]) ** order
    settings = {"weights": weights, "order": order, "tol": 1e-10} | settings
    return solve_dct(images, observed, **settings)


def batch(rng, shape=(9, 8), shares=(0.1, 0.5, 0.9)):
    cases = [random_case(rng, shape, share) for share in shares]
    images, observed = map(np.array, zip(*cases, strict=True))
    images.flags.writeable = observed.flags.writeable = False
    return images, observed


@pytest.mark.parametrize("shape", GRIDS)
def test_eigenvalues_are_those_of_the_squared_differences(rng, shape):
    scale = tuple(rng.uniform(0.2, 2, len(shape)))
    laplacian = np.zeros((np.prod(shape),) * 2)
    for axis, (n, g) in enumerate(zip(shape, scale, strict=True)):
        steps = np.diff(np.eye(n), axis=0)
        before, after = np.prod(shape[:axis]), np.prod(shape[axis + 1 :])
        along = np.kron(np.eye(int(before)), steps.T @ steps)
        laplacian += g * np.kron(along, np.eye(int(after)))
    found = laplacian_eigenvalues(shape, scale)
    expected = np.linalg.eigvalsh(laplacian)
    np.testing.assert_allclose(np.sort(found, axis=None), expected, atol=1e-12)
    # In the order of the DCT, which makes it the operator and not only its spectrum.
    np.testing.assert_allclose(dense_operator(found), laplacian, atol=1e-12)
    assert found.flat[0] == 0


@pytest.mark.parametrize("shape", GRIDS)
def test_the_norm_is_the_quadratic_form_of_the_operator(rng, shape):
    weights = rng.random(shape)
    images = rng.normal(size=(3, *shape))
    flat = images.reshape(3, -1)
    expected = np.einsum("ij,jk,ik->i", flat, dense_operator(weights), flat)
    found = dct_norm_squared(images, weights)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(dct_norm_squared(-3 * images, weights), 9 * found)
    # All weights one: the transform is orthonormal.
    plain = dct_norm_squared(images, np.ones(shape))
    np.testing.assert_allclose(plain, np.sum(flat**2, axis=1))


@pytest.mark.parametrize("is_centred", [True, False])
@pytest.mark.parametrize("factor", [1e-300, 1.0, 1e300])
def test_units_are_taken_off_and_put_back(rng, is_centred, factor):
    images, observed = batch(rng)
    start, (scale, center) = normalise(factor * images, observed, is_centred=is_centred)
    assert not start[~observed].any()
    back = start * scale + center
    np.testing.assert_allclose(
        back[observed], factor * images[observed], rtol=1e-12, atol=0
    )
    base, _ = normalise(images, observed, is_centred=is_centred)
    np.testing.assert_allclose(start, base, atol=1e-12)
    assert np.abs(start).max() <= 1
    for one, known in zip(start, observed, strict=True):
        if is_centred:
            assert one[known].mean() == pytest.approx(0, abs=1e-14)
        else:
            assert np.abs(one).max() == 1


def test_black_images_have_no_unit(rng):
    observed = batch(rng)[1]
    start, (scale, center) = normalise(np.zeros(observed.shape), observed, is_centred=1)
    assert not start.any()
    assert not center.any()
    np.testing.assert_array_equal(scale, 1)


@pytest.mark.parametrize("shape", [(30,), (7, 9), (4, 3, 5)])
def test_missing_pixels_get_a_nearest_value(rng, shape):
    images, observed = map(np.copy, batch(rng, shape))
    observed[0] = True
    before = images.copy()
    fill_nearest(images, observed)
    np.testing.assert_array_equal(images[observed], before[observed])
    for image, known in zip(images, observed, strict=True):
        points = np.argwhere(known)
        for place in np.argwhere(~known):
            distance = np.sum((points - place) ** 2, axis=1)
            nearest = points[distance == distance.min()]
            assert image[tuple(place)] in image[tuple(nearest.T)]


@pytest.mark.parametrize("solver", ["auto", "direct", "pcg", "stencil", "sparse"])
def test_solutions_follow_the_pixels(rng, solver):
    images, observed = batch(rng)
    base = solve(images, observed, 2, solver=solver).solution
    np.testing.assert_array_equal(base[observed], images[observed])
    for factor, shift in ((1e-200, 0.0), (-255.0, 1e3), (1e200, -1e200)):
        moved = factor * images + shift
        found = solve(moved, observed, 2, solver=solver).solution
        np.testing.assert_array_equal(found[observed], moved[observed])
        np.testing.assert_allclose((found - shift) / factor, base, atol=1e-7)
    other = rng.normal(size=images.shape)
    both = solve(images + other, observed, 2, solver=solver).solution
    parts = base + solve(other, observed, 2, solver=solver).solution
    np.testing.assert_allclose(both, parts, atol=1e-6)


@pytest.mark.parametrize("solver", ["auto", "direct", "pcg", "stencil", "sparse"])
def test_only_ratios_of_weights_and_observed_pixels_matter(rng, solver):
    images, observed = batch(rng)
    weights = laplacian_eigenvalues((9, 8)) ** 2
    base = solve(images, observed, 2, solver=solver)
    for factor in (1e-3, 1e6):
        found = solve(
            images,
            observed,
            2,
            weights=factor * weights,
            axis_scale=(np.sqrt(factor),) * 2,
            solver=solver,
        )
        np.testing.assert_allclose(found.solution, base.solution, atol=1e-7)
    junk = np.where(observed, images, np.nan)
    found = solve(junk, observed, 2, solver=solver)
    np.testing.assert_array_equal(found.solution, base.solution)
    turned = solve(images[::-1], observed[::-1], 2, solver=solver)
    np.testing.assert_allclose(turned.solution[::-1], base.solution, atol=1e-7)


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_single_precision_gives_the_same_in_its_own_digits(rng, order):
    images, observed = batch(rng)
    images = images.astype(np.float32)
    found = solve(images, observed, order).solution
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[observed], images[observed])
    exact = solve(images.astype(float), observed, order).solution
    assert exact.dtype == np.float64
    np.testing.assert_array_equal(found, exact.astype(np.float32))


def test_what_is_complete_or_costs_nothing_is_not_solved(rng):
    images, observed = map(np.copy, batch(rng))
    observed[1] = True
    result = solve(images, observed, solver="pcg")
    np.testing.assert_array_equal(result.solution[1], images[1])
    assert result.n_iter[1] == result.gap[1] == 0
    assert (result.n_iter[[0, 2]] > 0).all()
    nothing = np.zeros((9, 8))
    result = solve_dct(images, observed, weights=nothing)
    expected = np.where(observed, images, 0)
    fill_nearest(expected, observed)
    np.testing.assert_allclose(result.solution, expected, atol=1e-15)
    assert result.converged.all()
    noisy = solve_regularised(
        images, observed, weights=nothing, nuclear=0, noise=1, solver="auto"
    )
    np.testing.assert_allclose(noisy.solution, expected, atol=1e-15)


@pytest.mark.parametrize("solver", ["auto", "direct", "pcg", "stencil", "sparse"])
@pytest.mark.parametrize("shape", [(2,), (20,), (1, 12), (6, 5), (3, 2, 4)])
def test_one_observed_pixel_makes_a_constant(rng, solver, shape):
    images = rng.random((1, *shape))
    observed = np.zeros(images.shape, dtype=bool)
    observed.flat[rng.integers(images.size)] = True
    found = solve(images, observed, 1, solver=solver).solution
    np.testing.assert_allclose(found, images[observed][0], atol=1e-9)


@pytest.mark.parametrize("solver", ["pcg", "stencil"])
def test_too_few_iterations_are_told(rng, solver):
    images, observed = batch(rng, (40, 40), (0.9, 0.95))
    result = solve(images, observed, 2, solver=solver, max_iter=1)
    assert not result.converged.any()
    assert (result.gap > 1e-10).all()
    np.testing.assert_array_equal(result.n_iter, 25 if solver == "stencil" else 1)
    np.testing.assert_array_equal(result.solution[observed], images[observed])


def test_the_choice_is_among_those_that_can(rng):
    few = np.ones((300, 300), dtype=bool)
    few[::60, 10:] = False
    half = rng.random((300, 300)) < 0.5
    none = np.ones((5, 5), dtype=bool)

    def choose(observed, order, scale=None, solver="auto", dual=True):
        scale = np.ones(observed.ndim) if scale is None else scale
        return _problem._choose(observed, dual, order, scale, solver)

    assert choose(none, 1) == choose(none, 1, solver="pcg") == "none"
    for order in (1, 2):
        assert choose(few, order) == "sparse"
        assert choose(half, order) == "stencil"
        # Where an axis is free, a factorisation may meet an undetermined pixel.
        assert choose(few, order, np.array([0.0, 1.0])) == "stencil"
        line = rng.random(10**6) < 0.5
        assert choose(line, order) == "direct"
    for order in (None, 0.75, 1.5):
        assert choose(half, order) == "pcg"
        assert choose(line, order) == "pcg"
        assert choose(half[:12, :12], order) == "direct"
        assert choose(half, order, solver="stencil") == "stencil"
    sparse_points = np.zeros((300, 300), dtype=bool)
    sparse_points.flat[rng.choice(90_000, 90, replace=False)] = True
    assert choose(sparse_points, 1.5) == "direct"
    assert choose(sparse_points, 1.5, dual=False) == "pcg"
    four = rng.random((9, 9, 9, 9)) < 0.5
    assert choose(four, 2) == "pcg"


def test_matrices_that_are_too_large_are_refused(rng, monkeypatch):
    monkeypatch.setattr(_problem, "MAX_UNKNOWNS", 10)
    images, observed = batch(rng, (9, 8), (0.5,))
    message = r"solver='direct' would factorise a dense matrix of \d+ unknowns, more "
    with pytest.raises(ValueError, match=message + "than its limit of 10; use solver="):
        solve(images, observed, solver="direct")
    with pytest.raises(ValueError, match=message):
        regularise(images, observed, noise=1, solver="direct")
    # A band has no such limit.
    images, observed = batch(rng, (80,), (0.5,))
    found = solve(images, observed, 2, solver="direct").solution[0]
    weights = laplacian_eigenvalues((80,)) ** 2
    expected = dense_solution(images[0], observed[0], weights)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def regularise(images, observed, **settings):
    weights = laplacian_eigenvalues(images.shape[1:]) ** 1.5
    settings = {
        "weights": weights,
        "nuclear": 0.0,
        "order": 1.5,
        "tol": 1e-9,
        "max_iter": 5000,
    } | settings
    return solve_regularised(images, observed, **settings)


def test_noisy_data_by_factors_and_by_iterations_agree(rng):
    images, observed = batch(rng, shares=(0.1, 0.5, 0.9, 0.97))
    noise = np.array([0.01, 0.3, 3.0, 30.0])
    results = {
        solver: regularise(images, observed, noise=noise, solver=solver)
        for solver in ("direct", "pcg", "auto", "admm")
    }
    base = results["direct"].solution
    for solver, result in results.items():
        np.testing.assert_allclose(result.solution, base, atol=1e-5, err_msg=solver)
        assert result.converged.all()
    assert not results["direct"].n_iter.any()
    # Of one or two pixels the mean may be the solution that it starts from.
    assert results["pcg"].n_iter[:3].all()
    for i in range(4):
        one = np.s_[i : i + 1]
        alone = regularise(images[one], observed[one], noise=noise[i], solver="direct")
        np.testing.assert_allclose(alone.solution[0], base[i], atol=1e-12)


@pytest.mark.parametrize("solver", ["direct", "pcg", "admm"])
def test_noisy_solutions_lie_between_the_data_and_smoothness(rng, solver):
    images, observed = batch(rng, shares=(0.3,))
    weights = laplacian_eigenvalues((9, 8)) ** 1.5
    rough, far = [], []
    for noise in (0.03, 0.3, 3.0):
        result = regularise(images, observed, noise=noise, solver=solver)
        rough.append(dct_norm_squared(result.solution, weights)[0])
        far.append(np.sum((result.solution - images)[observed] ** 2))
        # Constants cost nothing, so that means are kept.
        left = (result.solution - images)[observed].sum()
        assert left == pytest.approx(0, abs=1e-5)
    assert (np.diff(rough) < 0).all()
    assert (np.diff(far) > 0).all()


def test_where_noisy_factors_fail_auto_iterates(rng):
    images, observed = batch(rng, (9, 8), (0.9,))
    weights = laplacian_eigenvalues((9, 8))
    # Columns that are constant cost nothing: two pixels do not say which.
    weights[0] = 0
    settings = {"weights": weights, "order": None, "noise": 1.0}
    observed = np.zeros_like(observed)
    observed[0, [3, 5], [4, 6]] = True
    with pytest.raises(ValueError, match="singular to working precision.*'auto'"):
        regularise(images, observed, solver="direct", **settings)
    result = regularise(images, observed, solver="auto", **settings)
    assert result.n_iter[0] > 0
    np.testing.assert_allclose(result.solution[observed], images[observed], atol=1e-6)
