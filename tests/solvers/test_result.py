"""What every solver promises of its result."""

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.dct._problem import (
    laplacian_eigenvalues,
    solve_dct,
)
from sklcomp.solvers.dct._regularised import solve_regularised
from sklcomp.solvers.margin._hinge import solve_hinge
from sklcomp.solvers.margin._privileged import solve_privileged


def dct(rng, tol, max_iter, solver="pcg", order=1):
    images = rng.random((3, 30, 28))
    weights = laplacian_eigenvalues((30, 28)) ** order
    observed = rng.random(images.shape) < 0.05
    observed[:, 0, 0] = True
    return solve_dct(
        images, observed, weights=weights, order=order, solver=solver, tol=tol,
        max_iter=max_iter,
    )  # fmt: skip


def stencil(rng, tol, max_iter):
    # 25 steps of the stencil are one iteration: order 2 needs more than that.
    return dct(rng, tol, max_iter, "stencil", 2)


def regularised(rng, tol, max_iter, solver="pcg", nuclear=0.0):
    images = rng.random((3, 12, 11))
    observed = rng.random(images.shape) < 0.5
    return solve_regularised(
        images, observed, weights=laplacian_eigenvalues((12, 11)), nuclear=nuclear,
        noise=0.1, solver=solver, tol=tol, max_iter=max_iter,
    )  # fmt: skip


def nuclear(rng, tol, max_iter):
    return regularised(rng, tol, max_iter, "admm", 0.3)


def labelled(rng):
    X = rng.normal(size=(30, 4))
    Y = (X @ rng.normal(size=(4, 3)) + rng.normal(size=(30, 3)) > 0).astype(int)
    Y[:2] = [[1], [0]]
    seeds, constant = np.arange(3) + 1, 1.0
    return X, sparse.csr_array(Y), {"seeds": seeds, "constant": constant}


def hinge(rng, tol, max_iter, squared=False):
    X, Y, settings = labelled(rng)
    return solve_hinge(
        X, Y, cost=np.ones(30), squared=squared, start=np.zeros((3, 5)), tol=tol,
        max_iter=max_iter, **settings,
    )  # fmt: skip


def squared_hinge(rng, tol, max_iter):
    return hinge(rng, tol, max_iter, squared=True)


def privileged(rng, tol, max_iter):
    X, Y, settings = labelled(rng)
    return solve_privileged(
        X, Y, cost=np.ones(30), class_weight=None, gamma=5.0, slack_cap=2.0,
        coding="signed", n_jobs=None, tol=tol, max_iter=max_iter, **settings,
    )  # fmt: skip


SOLVERS = [dct, stencil, regularised, nuclear, hinge, squared_hinge, privileged]


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize(("tol", "max_iter"), [(1e-2, 1), (1e-5, 20_000)])
def test_converged_is_a_gap_of_at_most_the_tolerance(rng, solve, tol, max_iter):
    result = solve(rng, tol, max_iter)
    np.testing.assert_array_equal(result.converged, result.gap <= tol)
    steps = 25 * max_iter if solve is stencil else max_iter
    assert (result.n_iter <= steps).all()
    # With iterations to spare all arrive, with one not all do.
    assert result.converged.all() == (max_iter > 1)
    assert np.isfinite(result.solution).all()
    for one in fields(SolverResult):
        assert len(getattr(result, one.name)) == 3


@pytest.mark.parametrize("solve", SOLVERS)
def test_the_same_arguments_give_the_same_result(solve):
    results = [solve(np.random.default_rng(5), 1e-4, 1000) for _ in range(2)]
    for one in fields(SolverResult):
        first, second = (getattr(result, one.name) for result in results)
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("solve", SOLVERS)
def test_what_has_converged_is_within_its_tolerance(solve):
    for tol in (1e-2, 1e-6):
        result = solve(np.random.default_rng(5), tol, 20_000)
        assert result.converged.all()
        assert (result.gap <= tol).all()


def test_a_result_is_not_changed_afterwards(rng):
    result = dct(rng, 1e-3, 100)
    with pytest.raises(FrozenInstanceError):
        result.gap = np.zeros(3)
