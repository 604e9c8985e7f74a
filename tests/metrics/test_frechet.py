import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from sklcomp.metrics import frechet_distance


def distance_by_roots(X, Y):
    """The definition with two symmetric roots: tr (Sx Sy)^1/2 is of (R Sy R)^1/2."""
    gap = X.mean(axis=0) - Y.mean(axis=0)
    cov_x, cov_y = (np.atleast_2d(np.cov(Z, rowvar=False)) for Z in (X, Y))
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    squares = np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)
    return gap @ gap + np.trace(cov_x + cov_y) - 2 * np.sqrt(squares).sum()


def with_moments(rng, n_samples, mean, root):
    """Rows whose sample mean is ``mean`` and sample covariance ``root.T @ root``."""
    Z = rng.standard_normal((n_samples, len(root)))
    Z -= Z.mean(axis=0)
    white = np.linalg.qr(Z)[0] * np.sqrt(n_samples - 1)
    return white @ root + mean


def test_one_feature_compares_means_and_deviations(rng):
    x, y = 3 + 2 * rng.standard_normal(50), rng.standard_normal(70)
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected)
    assert frechet_distance(x[:, None], y[:, None]) == pytest.approx(expected)


def test_diagonal_covariances_add_up_over_features(rng):
    std_x, std_y = rng.random((2, 5))
    std_y[0] = 0
    X = with_moments(rng, 30, np.arange(5), np.diag(std_x))
    Y = with_moments(rng, 40, 1, np.diag(std_y))
    expected = np.sum((np.arange(5) - 1) ** 2 + (std_x - std_y) ** 2)
    assert frechet_distance(X, Y) == pytest.approx(expected)


def test_commuting_covariances_compare_roots_of_eigenvalues(rng):
    rotation = ortho_group.rvs(6, random_state=0)
    std_x, std_y = rng.random((2, 6))
    X = with_moments(rng, 20, 0, std_x[:, None] * rotation)
    Y = with_moments(rng, 25, 0, std_y[:, None] * rotation)
    assert frechet_distance(X, Y) == pytest.approx(np.sum((std_x - std_y) ** 2))


@pytest.mark.parametrize("n_y", [9, 12, 200])
def test_equals_the_definition_with_a_matrix_root(rng, n_y):
    X = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 8))
    Y = rng.standard_normal((n_y, 8)) @ rng.standard_normal((8, 8)) + 1
    gap = X.mean(axis=0) - Y.mean(axis=0)
    cov_x, cov_y = np.cov(X, rowvar=False), np.cov(Y, rowvar=False)
    expected = gap @ gap + np.trace(cov_x + cov_y - 2 * sqrtm(cov_x @ cov_y).real)
    assert frechet_distance(X, Y) == pytest.approx(expected)
    assert distance_by_roots(X, Y) == pytest.approx(expected)


@pytest.mark.parametrize("n_x", [2, 7, 80])
@pytest.mark.parametrize("n_y", [3, 7, 80])
def test_fewer_examples_than_features(rng, n_x, n_y):
    X, Y = rng.standard_normal((n_x, 20)), 2 * rng.standard_normal((n_y, 20))
    # The definition takes roots of eigenvalues that rounding has left at 1e-15.
    assert frechet_distance(X, Y) == pytest.approx(distance_by_roots(X, Y), abs=1e-5)


def test_directions_without_overlap_have_no_common_root(rng):
    X, Y = np.zeros((2, 5, 40))
    X[:, :20], Y[:, 20:] = rng.standard_normal((2, 5, 20))
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    expected = np.sum(X**2) / 4 + np.sum(Y**2) / 4
    assert frechet_distance(X, Y) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(50, 6), (5, 30), (4, 1), (12, 4, 4, 3)])
def test_zero_for_equal_sets_and_never_less(rng, shape):
    X = 100 + rng.standard_normal(shape)
    assert 0 <= frechet_distance(X, X) < 1e-24
    assert 0 <= frechet_distance(X, rng.permutation(X)) < 1e-24
    # Equal moments suffice.
    assert 0 <= frechet_distance(X, 2 * X.mean(axis=0) - X) < 1e-24
    assert frechet_distance(np.ones(shape), np.ones(shape)) == 0


def test_near_sets_keep_their_digits(rng):
    X = rng.standard_normal((30, 4))
    # A scale 1 + h of centred rows moves each deviation s by h s.
    X -= X.mean(axis=0)
    expected = 1e-8**2 * np.trace(np.cov(X, rowvar=False))
    assert frechet_distance(X, X * (1 + 1e-8)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shapes", [((40, 6), (9, 6)), ((5, 12), (30, 12))])
def test_laws_of_a_squared_distance(rng, shapes):
    X, Y = (rng.standard_normal(shape) for shape in shapes)
    Y = Y * 3 + 1
    distance = frechet_distance(X, Y)
    assert frechet_distance(Y, X) == pytest.approx(distance)
    shift = 10 * rng.standard_normal(X.shape[1])
    assert frechet_distance(X + shift, Y + shift) == pytest.approx(distance)
    rotation = ortho_group.rvs(X.shape[1], random_state=0)
    assert frechet_distance(X @ rotation, Y @ rotation) == pytest.approx(distance)
    assert frechet_distance(-7 * X, -7 * Y) == pytest.approx(49 * distance)
    # A shift of one set alone moves the means only.
    centred = frechet_distance(X - X.mean(axis=0), Y - Y.mean(axis=0))
    gap = X.mean(axis=0) - Y.mean(axis=0)
    assert distance == pytest.approx(centred + gap @ gap)
    assert frechet_distance(X, X + shift) == pytest.approx(shift @ shift)


@pytest.mark.parametrize("scale", [1e-200, 1e-150, 1e150, 1e200])
def test_only_the_result_can_leave_the_range_of_floats(rng, scale):
    X, Y = rng.standard_normal((2, 10, 3))
    expected = frechet_distance(X, Y) * scale * scale
    found = frechet_distance(X * scale, Y * scale)
    assert found == pytest.approx(expected, rel=1e-12, abs=0)


def test_features_are_what_the_callable_returns(rng):
    X, Y = rng.random((20, 4, 4)), rng.random((30, 4, 4))

    def pool(images):
        assert isinstance(images, list)
        return np.asarray(images).mean(axis=1)

    expected = frechet_distance(X.mean(axis=1), Y.mean(axis=1))
    assert frechet_distance(X.tolist(), Y.tolist(), features=pool) == expected
    flat = frechet_distance(X.reshape(20, -1), Y.reshape(30, -1))
    assert frechet_distance(X, Y) == flat


def test_small_types_are_computed_in_double(rng):
    X, Y = rng.integers(0, 256, (2, 30, 8)).astype(np.uint8)
    expected = frechet_distance(X.astype(float), Y.astype(float))
    assert frechet_distance(X, Y) == expected
    assert frechet_distance(X.astype(np.float32), Y.astype(np.float32)) == expected
    assert type(frechet_distance(X, Y)) is float


def test_input_is_not_written_to(rng):
    X, Y = rng.standard_normal((2, 10, 3))
    before = X.copy(), Y.copy()
    frechet_distance(X, Y)
    np.testing.assert_array_equal((X, Y), before)


@pytest.mark.parametrize(
    ("X", "Y", "features", "message"),
    [
        ([[1.0, 2.0]], np.eye(2), None, r"X has shape \(1, 2\).*at least 2.*more"),
        (np.eye(2), np.ones((0, 2)), None, r"Y has shape \(0, 2\).*at least 2"),
        (np.eye(2), np.array(1.0), None, "Y has shape|'Y' parameter"),
        (np.eye(2), np.eye(3), None, "X has 2 features and Y 3; they must be equal"),
        (np.eye(2), np.ones((2, 0)), None, "Y has 0 features"),
        ([[1, np.nan], [np.inf, 1]], np.eye(2), None, "X contains.*2 of 4 values"),
        (np.eye(2), np.ma.masked_less(np.eye(2), 1), None, "Y has 2 of 4 .*masked"),
        (np.eye(2) * 1j, np.eye(2), None, "Complex data not supported: X"),
        (np.eye(2), np.eye(2), np.ravel, r"features\(X\) has shape \(4,\).*2 axes"),
        (np.eye(2), np.eye(2), lambda x: x[:1], r"features\(X\).*at least 2"),
        (np.eye(2), np.eye(2), lambda x: x * np.nan, r"features\(X\) contains NaN"),
        (np.eye(2), np.eye(2), "inception", "'features' parameter"),
    ],
)
def test_bad_input_is_named(X, Y, features, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(X, Y, features=features)
