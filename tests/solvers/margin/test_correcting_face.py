"""Conjugate gradients on a face: the matrix that they never form, and the bounds."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers.margin import _correcting_face
from sklcomp.solvers.margin._correcting_face import Face, accelerate
from sklcomp.solvers.margin._descent import CG_TOL
from tests.helpers.labels import PrivilegedCase

CODINGS = ["signed", "binary", "constant"]


@pytest.fixture(params=CODINGS)
def case(request, rng):
    """Label 1 of four, in twenty examples of which some have equal labels."""
    X = rng.normal(size=(20, 6))
    Y = (rng.random((20, 4)) < 0.4).astype(int)
    Y[:2], Y[2:4] = 1, 0
    return PrivilegedCase(X, Y, 1, rng.uniform(0.5, 1.5, 20), request.param)


@pytest.fixture
def inner(case, rng):
    """Multipliers of which a third lies on each bound and the rest between."""
    alpha = rng.uniform(0.1, 0.9, 20) * case.cap * case.cost
    alpha[::3], alpha[1::3] = 0, case.cap * case.cost[1::3]
    beta = rng.uniform(0.1, 1, case.n_sets)
    beta[1::2] = 0
    return alpha, beta


def face_of(case, alpha, beta):
    is_free = (alpha > 0) & (alpha < case.cap * case.cost)
    return Face(np.flatnonzero(is_free), np.flatnonzero(beta > 0))


def matrix(case, face):
    """The Gram matrix of the multipliers of a face: the Hessian of the dual."""
    rows = case.y[face.rows, None] * case.design[face.rows]
    rows = np.vstack([rows, np.zeros((len(face.sets), rows.shape[1]))])
    features = np.vstack([case.features[face.rows], case.set_features[face.sets]])
    return rows @ rows.T + features @ features.T / case.gamma


def slopes(case, face, weights):
    found = np.empty(len(face.rows) + len(face.sets))
    args = case.problem, case.privilege, case.label, face, weights, found
    _correcting_face._slopes(*args)
    return found


def assert_consistent(case, multipliers, weights):
    """Weights are those that follow from the multipliers."""
    _, expected = case.state(*multipliers)
    np.testing.assert_allclose(weights.w, expected.w, atol=1e-10)
    np.testing.assert_allclose(
        case.correcting(weights), case.correcting(expected), atol=1e-10
    )


def test_slopes_of_what_is_applied_are_the_hessian(case, inner, rng):
    face = face_of(case, *inner)
    hessian = matrix(case, face)
    (alpha, beta), weights = case.state(*inner)
    before = slopes(case, face, weights)
    vector = rng.normal(size=len(hessian))
    args = case.problem, case.privilege, case.label, face, vector, weights
    _correcting_face._apply(*args)
    after = slopes(case, face, weights)
    np.testing.assert_allclose(after - before, hessian @ vector, atol=1e-11)
    alpha[face.rows] += vector[: len(face.rows)]
    beta[face.sets] += vector[len(face.rows) :]
    assert_consistent(case, (alpha, beta), weights)
    diagonal = _correcting_face._curvatures(*args[:4], weights)
    np.testing.assert_allclose(diagonal, np.diag(hessian), atol=1e-12)


def test_slopes_are_the_differences_of_the_dual(case, inner):
    (alpha, beta), weights = case.state(*inner)
    face = Face(np.arange(20), np.arange(case.n_sets))
    found = slopes(case, face, weights)
    found[:20] -= 1
    h = 1e-4
    for place, slope in enumerate(found):
        values = []
        for sign in (1, -1):
            one, two = alpha.copy(), beta.copy()
            if place < 20:
                one[place] += sign * h
            else:
                two[place - 20] += sign * h
            values.append(case.dual(one, two))
        # Central differences of a quadratic are exact.
        assert (values[1] - values[0]) / (2 * h) == pytest.approx(slope, abs=1e-8)


def test_a_step_leads_towards_the_minimum_of_the_face(case, inner):
    face = face_of(case, *inner)
    hessian = matrix(case, face)
    _, weights = case.state(*inner)
    right = -slopes(case, face, weights)
    right[: len(face.rows)] += 1
    args = case.problem, case.privilege, case.label, weights, face
    diagonal = np.diag(hessian)

    def objective(step):
        return 0.5 * step @ hessian @ step - right @ step

    least = objective(np.linalg.lstsq(hessian, right)[0])
    values = []
    for max_iter in range(8):
        step, n_iter = _correcting_face._find_face_minimum(*args, max_iter)
        assert n_iter <= max_iter
        values.append(objective(step))
        residual = right - hessian @ step
        left = np.sum(residual**2 / diagonal) / np.sum(right**2 / diagonal)
        # It goes on until the residual is small, and no further.
        assert n_iter == max_iter or left <= CG_TOL * (1 + 1e-6)
    assert values[0] == 0
    assert (np.diff(values) <= 1e-12).all()
    assert values[-1] >= least - 1e-9
    np.testing.assert_allclose(weights.w, case.state(*inner)[1].w, atol=1e-12)


def test_one_multiplier_is_solved_in_one_step(case, inner):
    (alpha, beta), weights = case.state(*inner)
    face = Face(np.array([5]), np.array([], dtype=int))
    args = case.problem, case.privilege, case.label, weights, face
    step, n_iter = _correcting_face._find_face_minimum(*args, 10)
    slope = slopes(case, face, weights)[0] - 1
    assert n_iter == 1
    assert step[0] == pytest.approx(-slope / matrix(case, face)[0, 0], rel=1e-10)


def test_the_first_bound_is_the_share_that_just_fits(case, inner, rng):
    (alpha, beta), _ = case.state(*inner)
    face = face_of(case, alpha, beta)
    m = len(face.rows)
    for size in (1e-6, 1.0, 100.0):
        step = size * rng.normal(size=m + len(face.sets))
        share = _correcting_face._first_bound(case.problem, (alpha, beta), face, step)
        ends = alpha[face.rows] + share * step[:m]
        sums = beta[face.sets] + share * step[m:]
        room = np.concatenate([ends, case.cap * case.cost[face.rows] - ends, sums])
        assert room.min() >= -1e-12
        assert 0 < share <= 1
        if share < 1:
            assert room.min() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_search_raises_the_dual_within_the_bounds_or_does_nothing(
    case, inner, rng, size
):
    face = face_of(case, *inner)
    m = len(face.rows)
    _, weights = case.state(*inner)
    right = -slopes(case, face, weights)
    right[:m] += 1
    before = case.dual(*inner)
    for step in (size * right, -size * right, size * rng.normal(size=right.shape)):
        multipliers, weights = case.state(*inner)
        args = case.problem, case.privilege, case.label, multipliers, weights
        _correcting_face._search_projected(*args, face, step)
        alpha, beta = multipliers
        assert_consistent(case, multipliers, weights)
        assert alpha.min() >= 0
        assert beta.min() >= 0
        assert (alpha <= case.cap * case.cost).all()
        has_moved = (alpha != inner[0]).any() or (beta != inner[1]).any()
        assert (case.dual(alpha, beta) > before) == has_moved
    # A short step along the slope must have been taken.
    multipliers, weights = case.state(*inner)
    args = case.problem, case.privilege, case.label, multipliers, weights
    _correcting_face._search_projected(*args, face, 1e-3 * right)
    assert case.dual(*multipliers) > before


def test_free_multipliers_reach_the_maximum_of_their_face(case, inner):
    multipliers, weights = case.state(*inner)
    before = case.dual(*multipliers)
    args = case.problem, case.privilege, case.label, multipliers, weights
    for _ in range(20):
        accelerate(*args, np.arange(20), 1000, 20)
    alpha, beta = multipliers
    assert_consistent(case, multipliers, weights)
    assert case.dual(alpha, beta) > before
    # What was on a bound stays there, since only the others may move.
    for bound in (0, case.cap * case.cost):
        held = inner[0] == bound
        np.testing.assert_array_equal(alpha[held], inner[0][held])
    assert not beta[inner[1] == 0].any()
    face = face_of(case, alpha, beta)
    left = slopes(case, face, weights)
    left[: len(face.rows)] -= 1
    np.testing.assert_allclose(left, 0, atol=1e-6)


def test_too_many_free_rows_or_no_budget_leave_all_as_it_is(case, inner):
    for budget, most_free in ((0, 20), (1000, 0)):
        multipliers, weights = case.state(*inner)
        args = case.problem, case.privilege, case.label, multipliers, weights
        accelerate(*args, np.arange(20), budget, most_free)
        for found, expected in zip(multipliers, inner, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_rows_that_are_put_aside_do_not_move(case, inner):
    multipliers, weights = case.state(*inner)
    args = case.problem, case.privilege, case.label, multipliers, weights
    accelerate(*args, np.array([2, 5]), 1000, 20)
    others = np.setdiff1d(np.arange(20), [2, 5])
    np.testing.assert_array_equal(multipliers.alpha[others], inner[0][others])
    assert (multipliers.alpha[[2, 5]] != inner[0][[2, 5]]).any()


def test_sparse_rows_have_the_same_slopes(case, inner, rng):
    X = np.where(rng.random((20, 6)) < 0.5, 0, case.design[:, :-1])
    Y = (rng.random((20, 4)) < 0.4).astype(int)
    found = []
    for kind in (np.asarray, sparse.csr_array):
        one = PrivilegedCase(kind(X), Y, 1, case.cost)
        _, weights = one.state(inner[0])
        face = Face(np.arange(20), np.arange(one.n_sets))
        found.append(slopes(one, face, weights))
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)
