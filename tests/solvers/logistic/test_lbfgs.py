"""Many problems at once: each ends where it would alone, and at its optimum."""

import numpy as np
import pytest

from sklcomp.solvers.logistic._lbfgs import minimise_rows


class Squares:
    """Least squares with a ridge, one problem a row: the optimum has a closed form."""

    def __init__(self, A, targets, penalty):
        self.A, self.targets = A, targets
        self.penalty = np.repeat(penalty[:, None], A.shape[1], axis=1)
        self.preconditioner = np.ones_like(self.penalty)

    def start(self, W):
        return self.scores(W)

    def scores(self, W):
        return W @ self.A.T

    def losses(self, Z):
        R = Z - self.targets
        return 0.5 * np.sum(R * R, axis=1), R

    def gradients(self, R):
        return R @ self.A

    def take(self, kept):
        return Squares(self.A, self.targets[kept], self.penalty[kept, 0])

    def optimum(self):
        identity = np.eye(self.A.shape[1])
        return np.array(
            [
                np.linalg.solve(self.A.T @ self.A + p[0] * identity, self.A.T @ t)
                for p, t in zip(self.penalty, self.targets, strict=True)
            ]
        )


@pytest.fixture
def squares(rng):
    """Five problems, penalties from next to nothing to what leaves nothing."""
    A = rng.normal(size=(40, 8))
    return Squares(A, rng.normal(size=(5, 40)), np.geomspace(1e-3, 1e4, 5))


def test_squares_end_at_the_closed_form(squares, rng):
    start = rng.normal(size=(5, 8))
    W, n_iter, converged = minimise_rows(squares, start, tol=1e-8, max_iter=500)
    assert converged.all()
    assert (n_iter > 0).all()
    np.testing.assert_allclose(W, squares.optimum(), atol=1e-6)


def test_a_problem_ends_where_it_would_alone(squares, rng):
    start = rng.normal(size=(5, 8))
    settings = {"tol": 1e-3, "max_iter": 500}
    W, n_iter, _ = minimise_rows(squares, start, **settings)
    for j in range(5):
        alone = minimise_rows(squares.take([j]), start[[j]], **settings)
        np.testing.assert_allclose(alone[0][0], W[j], atol=1e-8)
        assert alone[1][0] == n_iter[j]


def test_nothing_is_left_to_do_at_the_optimum(squares):
    optimum = squares.optimum()
    W, n_iter, converged = minimise_rows(squares, optimum, tol=1e-6, max_iter=9)
    np.testing.assert_array_equal(W, optimum)
    assert converged.all()
    assert not n_iter.any()


def test_too_few_iterations_are_told(squares, rng):
    start = squares.optimum()
    start[1:] += rng.normal(size=(4, 8))
    before = squares.losses(squares.scores(start))[0]
    W, n_iter, converged = minimise_rows(squares, start, tol=1e-9, max_iter=1)
    np.testing.assert_array_equal(converged, [True, False, False, False, False])
    np.testing.assert_array_equal(n_iter, [0, 1, 1, 1, 1])
    ridge = 0.5 * squares.penalty[:, 0]
    after = squares.losses(squares.scores(W))[0] + ridge * np.sum(W**2, axis=1)
    assert (after[1:] < (before + ridge * np.sum(start**2, axis=1))[1:]).all()


def test_the_start_is_not_written_to(squares):
    start = np.zeros((5, 8))
    minimise_rows(squares, start, tol=1e-3, max_iter=50)
    assert not start.any()


def test_steps_that_are_far_too_long_are_shortened(squares, rng):
    # A preconditioner of 1 leads the first step thousands of times too far.
    steep = Squares(10 * squares.A, squares.targets, squares.penalty[:, 0])
    start = rng.normal(size=(5, 8))
    W, _, converged = minimise_rows(steep, start, tol=1e-8, max_iter=500)
    assert converged.all()
    np.testing.assert_allclose(W, steep.optimum(), atol=1e-6)
