import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

from sklcomp.solvers.margin._arriving import LabelLearner, solve_arriving


@pytest.fixture
def problem(rng):
    """Examples, earlier labels with their coefficients, and two new labels."""
    X = rng.normal(size=(60, 4))
    W = rng.normal(size=(3, 5))
    past = sparse.csr_array((X @ W[:, :-1].T + W[:, -1] > 0).astype(np.int8))
    new = sparse.csr_array((X[:, :2] + 0.3 * rng.normal(size=(60, 2)) > 0) * np.int8(1))
    return X, W, past, new


def learner_of(X, C=1.0, loss="hinge", fit_intercept=True):
    rng = np.random.RandomState(0)
    cost = np.full(len(X), C)
    return LabelLearner(X, cost, loss, fit_intercept, 1e-8, 5000, None, rng)


def arrive(learner, new, past, W, prior_scale="auto", constant=(0.0, 0.0)):
    return solve_arriving(
        learner,
        new,
        past,
        W,
        np.ones(len(learner.X)),
        alpha=2.0,
        prior_scale=prior_scale,
        constant_scores=np.array(constant),
    )


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_squared_errors_are_a_ridge_regression_around_the_start(
    problem, fit_intercept, rng
):
    X, _, _, new = problem
    start = rng.normal(size=(2, 5)) * [1, 1, 1, 1, fit_intercept]
    found = learner_of(X, 3.0, "squared_error", fit_intercept).solve(new, start)
    design = np.column_stack([X, np.full(60, float(fit_intercept))])
    ridge = Ridge(alpha=1 / 3.0, fit_intercept=False)
    ridge.fit(design, 2.0 * new.toarray() - 1.0 - design @ start.T)
    np.testing.assert_allclose(found.solution, start + ridge.coef_, atol=1e-10)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "squared_error"])
@pytest.mark.parametrize("has_past", [True, False])
def test_without_losses_the_inherited_hypothesis_stays(problem, loss, has_past):
    X, W, past, new = problem
    learner = learner_of(X, 1e-12, loss)
    found = arrive(learner, new, past if has_past else None, W, prior_scale=0.7)
    known = W
    for s, result in zip(found.representation, found.results, strict=True):
        inherited = 0.7 * s @ known
        # The intercept of the representation comes on top.
        np.testing.assert_allclose(result.solution[0, :-1], inherited[:-1], atol=1e-9)
        known = np.vstack([known, result.solution])
    assert list(map(len, found.representation)) == [3, 4]


def test_a_scale_of_zero_is_learning_from_scratch(problem):
    X, W, past, new = problem
    found = arrive(learner_of(X), new, past, W, prior_scale=0.0)
    alone = learner_of(X).solve(new, np.zeros((2, 5)))
    solution = np.vstack([result.solution for result in found.results])
    np.testing.assert_allclose(solution, alone.solution, atol=1e-5)


def test_a_constant_label_has_its_score_and_teaches_the_next(problem):
    X, W, past, new = problem
    found = arrive(learner_of(X), new, past, W, constant=(-1.0, 0.0))
    np.testing.assert_array_equal(found.results[0].solution, [[0, 0, 0, 0, -1.0]])
    np.testing.assert_array_equal(found.representation[0], np.zeros(3))
    assert found.scale[0] == 0.0
    assert len(found.representation[1]) == 4
