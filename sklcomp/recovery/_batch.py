"""A batch of images recovered and limited, for the function and both estimators."""

from contextlib import nullcontext
from numbers import Integral, Real
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.exceptions import ConvergenceWarning

from sklcomp.recovery._spectrum import NOISE_LIMITS, Spectrum
from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.dct._blocks import refine_block_dct
from sklcomp.solvers.dct._problem import solve_dct
from sklcomp.solvers.dct._regularised import solve_regularised
from sklcomp.utils._messages import show, warn_user
from sklcomp.utils._sklearn import Interval, StrOptions
from sklcomp.utils._threads import single_blas_thread
from sklcomp.utils._validation import as_float_array

# Pixels of one batch of DCTs: large enough to hide the cost of the calls, small enough
# to stay in the cache. Fixed, so that results cannot depend on n_jobs.
BATCH_PIXELS = 2**17
# Checked for the function and for the estimator alike.
PARAMETER_CONSTRAINTS: dict[str, list] = {
    "order": [Interval(Real, 0, 4, closed="right"), StrOptions({"auto"})],
    "nuclear": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    "noise": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    "refine": [StrOptions({"block_dct"}), None],
    "weights": ["array-like", None],
    "axis_scale": ["array-like", None],
    "spacing": ["array-like", None],
    "clip": ["array-like", StrOptions({"observed"}), None],
    "channel_axis": [Integral, None],
    "solver": [StrOptions({"auto", "direct", "sparse", "pcg", "stencil", "admm"})],
    "tol": [Interval(Real, 0, 1, closed="neither")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
}


def recover_batch(
    images: np.ndarray,
    observed: np.ndarray,
    *,
    spectrum: Spectrum,
    solver: str,
    tol: float,
    max_iter: int,
    nuclear: float = 0.0,
    noise: float = 0.0,
    refine: str | None = None,
    workers: int | None = None,
    callback: Any = None,
) -> SolverResult:
    """Solve for a batch of checked images; refuse what overflows."""
    _check_solver(solver, spectrum, nuclear, noise)
    _check_refine(refine, images)
    settings = {
        "weights": spectrum.weights,
        "order": spectrum.order,
        "axis_scale": spectrum.axis_scale,
        "tol": tol,
        "max_iter": max_iter,
        "workers": workers,
        "callback": callback,
    }
    if solver == "admm" and not nuclear:
        solver = "auto"  # one term has no copies to agree
    strength = noise * spectrum.noise_unit
    # What lies below is lost in rounding beside the data, which then are exact.
    if nuclear or strength * spectrum.weights.max() >= NOISE_LIMITS[0]:
        share = observed.reshape(len(observed), -1).mean(axis=1)
        result = solve_regularised(
            images,
            observed,
            nuclear=nuclear,
            # A product that underflows to 0 would ask for exact data.
            noise=np.maximum(strength * share, np.finfo(float).tiny * (noise > 0)),
            solver="admm" if nuclear else solver,
            **settings,
        )
    else:
        result = solve_dct(images, observed, solver=solver, **settings)
    _check_limits(result.solution, images.dtype)
    if refine is not None:
        for image, known in zip(result.solution, observed, strict=True):
            image[...] = refine_block_dct(image, known, np.ptp(image[known]))
    return result


def recover_images(images: np.ndarray, observed: np.ndarray, **settings: Any) -> Any:
    """The solutions of recover_batch."""
    return recover_batch(images, observed, **settings).solution


def recover_in_batches(
    images: np.ndarray,
    observed: np.ndarray,
    todo: np.ndarray,
    n_jobs: int | None,
    *,
    nuclear: float,
    **settings: Any,
) -> tuple[list[np.ndarray], list[SolverResult]]:
    """Batches of fixed size of some of the images, and what recover_batch gives."""
    size = max(1, BATCH_PIXELS // images[0].size)
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]
    n_jobs = effective_n_jobs(n_jobs)
    # Set here, since a limit that a worker sets does not reach its own BLAS calls.
    with single_blas_thread() if nuclear > 0 else nullcontext():
        # Threads, so that no image is copied for another process. A single batch has
        # no other to run beside it, so its transforms share the threads.
        results = Parallel(n_jobs=n_jobs, require="sharedmem")(
            delayed(recover_batch)(
                images[batch],
                observed[batch],
                workers=n_jobs if len(batches) == 1 else None,
                nuclear=nuclear,
                **settings,
            )
            for batch in batches
        )
    return batches, results


def _check_refine(refine: str | None, images: np.ndarray) -> None:
    """Raise unless blocks of pictures can be refined."""
    if refine is not None and images.ndim != 3:
        msg = (
            f"refine='{refine}' serves pictures of 2 axes; these have "
            f"{images.ndim - 1}. Set refine=None, or recover slices."
        )
        raise ValueError(msg)


def _check_limits(solution: np.ndarray, dtype: Any) -> None:
    """Raise for values that have left the range of a type."""
    if not np.isfinite(solution).all():
        limit = np.finfo(dtype).max
        msg = (
            f"The recovered values exceed {limit:.3g}, the limit of {dtype}; "
            "rescale the image before, for example to [0, 1]."
        )
        raise ValueError(msg)


def _check_solver(solver: Any, spectrum: Any, nuclear: Any, noise: Any) -> None:
    """Raise unless the solver can serve these terms."""
    n_axes = spectrum.weights.ndim
    if nuclear and n_axes < 2:
        msg = (
            f"nuclear={nuclear} needs images of at least 2 axes, not signals; set "
            "nuclear=0."
        )
        raise ValueError(msg)
    allowed = ("auto", "admm") if nuclear else ("auto", "direct", "pcg", "admm")
    if (nuclear or noise) and solver not in allowed:
        msg = (
            f"solver='{solver}' serves neither the nuclear norm (nuclear={nuclear}) nor"
            f" noisy data (noise={noise}) as asked; use one of {allowed}."
        )
        raise ValueError(msg)
    strength = noise * spectrum.noise_unit * float(spectrum.weights.max())
    if strength > NOISE_LIMITS[1]:
        msg = (
            f"noise={noise} makes the DCT norm {strength:.3g} times as heavy as the "
            f"data, more than the {NOISE_LIMITS[1]:g} that rounding resolves: nothing "
            "would be left but a mean. Use a smaller one."
        )
        raise ValueError(msg)
    if solver in ("stencil", "sparse") and (spectrum.order not in (1, 2) or n_axes > 3):
        msg = (
            f"solver='{solver}' serves order 1 and 2 without weights in up to 3 "
            f"dimensions; got order={spectrum.order} (None: weights were given) in "
            f"{n_axes} dimensions. Use solver='auto'."
        )
        raise ValueError(msg)


def warn_not_converged(result: SolverResult, tol: float) -> None:
    """Warn once for a batch of which an image was left above the tolerance."""
    if not result.converged.all():
        warn_user(
            f"{(~result.converged).sum()} of {len(result.converged)} images did not "
            f"reach tol={tol} within {result.n_iter.max()} iterations (largest gap "
            f"{result.gap.max():.2g}); the result is usable. Raise max_iter or tol; "
            "a gap that does not fall with max_iter is due to rounding: lower order.",
            ConvergenceWarning,
        )


def check_clip(clip: Any) -> Any:
    """None, "observed" or two floats; raises ValueError for other limits."""
    if clip is None or isinstance(clip, str):
        return clip
    try:
        limits = as_float_array(clip, "clip")
    except ValueError:  # not numbers
        limits = np.empty(0)
    if limits.shape != (2,) or not limits[0] < limits[1]:
        msg = f"clip={show(clip)} must be two numbers (low, high) with low < high."
        raise ValueError(msg)
    return tuple(limits.tolist())


def clip_filled(
    images: np.ndarray, observed: np.ndarray, limits: Any, *, is_noisy: bool
) -> None:
    """Limit the filled pixels, of noisy images all, in place."""
    if limits is None:
        return
    for image, known in zip(images, observed, strict=True):
        low_high = limits
        if limits == "observed":
            if not known.any():
                continue
            low_high = image[known].min(), image[known].max()
        # Exact data stay bit for bit, whatever the limits.
        where = slice(None) if is_noisy else ~known
        image[where] = np.clip(image[where], *low_high)
