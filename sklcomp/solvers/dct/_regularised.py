"""Recovery with the DCT norm and a nuclear norm, a data term, or both.

Without them it is ``solve_dct`` of ``_problem``, which says what the norm is.
"""

from collections.abc import Callable

import numpy as np

from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.dct._direct import (
    direct_size,
    has_dual,
    is_banded,
    solve_direct_noisy,
)
from sklcomp.solvers.dct._nuclear import solve_nuclear
from sklcomp.solvers.dct._pcg import select_rows, solve_penalised
from sklcomp.solvers.dct._problem import (
    DIRECT_TOL,
    check_unknowns,
    fill_nearest,
    is_cheap,
    normalise,
    singular,
    solve_dct,
)


def solve_regularised(
    images: np.ndarray,
    observed: np.ndarray,
    *,
    weights: np.ndarray,
    nuclear: float,
    noise: float | np.ndarray,
    solver: str,
    order: float | None = None,
    axis_scale: tuple[float, ...] | None = None,
    max_iter: int = 200,
    tol: float = 1e-3,
    workers: int | None = None,
    callback: Callable[[int], bool] | None = None,
) -> SolverResult:
    """Minimise the DCT norm with a nuclear norm, a data term, or both.

    ``nuclear`` is in units of the observed range, ``noise`` the weight lam of the DCT
    norm against the data, one for all images or one each, 0 for exact data; the others
    as in :func:`solve_dct`.
    """
    noise = np.broadcast_to(np.asarray(noise, dtype=np.float64), len(images))
    start, (scale, center) = normalise(
        images, observed, is_centred=weights.flat[0] == 0
    )
    n_iter, gap = np.zeros(len(start), dtype=int), np.zeros(len(start))
    converged = np.ones(len(start), dtype=bool)
    settings = {
        "weights": weights,
        "noise": noise,
        "order": order,
        "max_iter": max_iter,
        "tol": tol,
        "workers": workers,
        "callback": callback,
    }
    if not weights.any() and not nuclear:
        fill_nearest(start, observed)  # the data at no cost
    elif solver == "admm":
        start, n_iter, gap = _solve_by_copies(
            start, observed, nuclear=nuclear, axis_scale=axis_scale, **settings
        )
        converged = gap <= tol
    else:
        fill_nearest(start, observed)
        start, n_iter, gap, converged = _solve_noisy(
            start, observed, solver=solver, **settings
        )
    with np.errstate(over="ignore"):
        found = start * scale + center
        if not noise.any():
            found = np.where(observed, images, found)
        solution = found.astype(images.dtype, copy=False)
    return SolverResult(solution, n_iter, gap, converged)


def _solve_by_copies(
    start, observed, *, weights, noise, nuclear, order, axis_scale, workers, **limits
):
    """ADMM on normalised images, from the smoothest fill."""
    span = np.ptp(start, axis=tuple(range(1, start.ndim)), keepdims=True)
    span[span == 0] = 1
    smooth = solve_dct(
        start / span,
        observed,
        weights=weights,
        order=order,
        axis_scale=axis_scale,
        max_iter=limits["max_iter"],
        tol=limits["tol"],
        workers=workers,
    ).solution
    found, n_iter, gap = solve_nuclear(
        smooth, observed, weights=weights, nuclear=nuclear, noise=noise, **limits
    )
    return found * span, n_iter, gap


def _solve_noisy(start, observed, *, weights, noise, order, solver, tol, **settings):
    """Noisy data without a nuclear norm: a factorisation or iterations."""
    n_iter, gap = np.zeros(len(start), dtype=int), np.zeros(len(start))
    dual = has_dual(weights)
    direct = np.array([_is_direct(o, dual, order, solver) for o in observed])
    failed = np.zeros_like(direct)
    if direct.any():
        rows = select_rows(direct)
        found, _, gap[rows] = solve_direct_noisy(
            start[rows],
            observed[rows],
            weights=weights,
            noise=noise[rows],
            order=order,
            callback=settings["callback"],
        )
        failed = direct & (gap > max(tol, DIRECT_TOL))
        if failed.any() and solver == "direct":
            raise ValueError(singular(solver, gap[failed].max()))
        start[direct & ~failed] = found[~failed[rows]]
    direct &= ~failed
    if not direct.all():
        rows = select_rows(~direct)
        start[rows], n_iter[rows], gap[rows] = solve_penalised(
            start[rows],
            observed[rows],
            weights=weights,
            noise=noise[rows],
            tol=tol,
            **settings,
        )
    converged = gap <= np.where(direct, max(tol, DIRECT_TOL), tol)
    return start, n_iter, gap, converged


def _is_direct(observed, dual, order, solver):
    """Whether a factorisation serves an image with noisy data."""
    if solver == "pcg":
        return False
    banded = is_banded(observed.shape, order)
    size = direct_size(observed, dual, noisy=True)
    if solver == "direct":
        check_unknowns(size, banded)
        return True
    return is_cheap(size, observed.shape, banded)
