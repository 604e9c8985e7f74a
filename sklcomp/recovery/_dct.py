"""``recover_image``: arrays with gaps filled, after Wang et al. (arXiv 1604.05451)."""

from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklcomp.recovery._selection import choose_parameters
from sklcomp.recovery._spectrum import NOISE_LIMITS, Spectrum
from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.dct._blocks import refine_block_dct
from sklcomp.solvers.dct._problem import solve_dct
from sklcomp.solvers.dct._regularised import solve_regularised
from sklcomp.utils._messages import show, warn_user
from sklcomp.utils._sklearn import Interval, StrOptions, validate_params
from sklcomp.utils._validation import as_float_array, check_mask, check_unmasked

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


@validate_params(
    {
        **PARAMETER_CONSTRAINTS,
        "img": ["array-like"],
        "mask": ["array-like", None],
        "return_info": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def recover_image(
    img: Any,
    mask: Any = None,
    *,
    order: float | str = 1.5,
    weights: Any = None,
    nuclear: float | str = 0.0,
    noise: float | str = 0.0,
    axis_scale: Any = None,
    spacing: Any = None,
    channel_axis: int | None = None,
    clip: Any = None,
    solver: str = "auto",
    refine: str | None = None,
    tol: float = 1e-3,
    max_iter: int = 200,
    return_info: bool = False,
) -> Any:
    r"""Fill the missing entries of an image, a signal, a volume or any n-d array.

    Among all arrays that agree with the observed entries, the one of smallest DCT norm
    is returned:

    .. math:: \min_X \|W^{1/2} \circ C(X)\|_F^2 \quad \text{s.t.} \quad
              X_\Omega = M_\Omega , \qquad W = \Lambda^q ,

    with the orthonormal DCT-II :math:`C`, the eigenvalues :math:`\Lambda` of the
    Laplacian with reflecting boundary and the ``order`` :math:`q`. A nuclear norm may
    be added, and data that are noisy need not be kept, see Notes.

    Parameters
    ----------
    img : array-like of shape (n_1, ..., n_d) or with one more axis for channels
        Pixel values in any unit. NaN marks a missing entry, and so do None, NaT, the NA
        of pandas and the mask of a masked array. Integers are computed in float64; the
        input is never changed.
    mask : array-like of bool, default=None
        True (or 1) where a pixel is observed, of the shape of ``img`` or, with
        ``channel_axis``, of one channel. Values of ``img`` outside the mask are
        ignored. With None the entries that are not NaN are observed.
    order : float in (0, 4] or "auto", default=1.5
        Smoothness :math:`q`. 1 is the squared total variation (good for large holes), 2
        the thin plate (good for small gaps), 1.25 to 1.5 serve random masks. Far above
        2 few observed pixels do not determine a picture to working precision. "auto"
        chooses among 0.75 to 2 by observed pixels that are hidden first.
    weights : array-like of shape (n_1, ..., n_d), default=None
        Non-negative spectral weights :math:`W` in DCT-II order, in place of ``order``;
        only their ratios matter.
    nuclear : float or "auto", default=0.0
        Weight :math:`\tau` of the nuclear norm, in units of the observed range. Helps
        pictures of low rank (grids, facades), seldom photographs. Images of two axes
        or more; those of three or more by the sum over their unfoldings.
    noise : float or "auto", default=0.0
        Weight :math:`\lambda` of the DCT norm against the mean squared error of the
        data; 0 keeps the data exactly. It does not depend on the resolution, see Notes.
        "auto" begins with small weights and goes on as long as larger ones serve.
    axis_scale : array-like of shape (d,), default=None
        Smoothness :math:`g_a \ge 0` of each axis, in
        :math:`\Lambda = \sum_a g_a 4 \sin^2(\pi k_a / 2 n_a)`; only ratios matter, the
        largest counts as 1. None is 1 everywhere.
    spacing : array-like of shape (d,), default=None
        Distance :math:`h_a > 0` of neighbouring pixels along each axis, in any unit,
        for pixels that are not square: :math:`g_a / h_a^2` in place of :math:`g_a`;
        only ratios matter. None is 1 everywhere.
    channel_axis : int, default=None
        Axis whose slices are recovered one by one, such as -1 for RGB; None for an
        array without channels.
    clip : {"observed"} or pair (low, high), default=None
        Limits of what is filled, and of all pixels with ``noise``: the range of the
        observed pixels of the same channel, or two numbers. (0, 255) makes
        ``recovered.round().astype("uint8")`` safe.
    solver : {"auto", "direct", "sparse", "stencil", "pcg", "admm"}, default="auto"
        "direct" factorises a dense matrix of the size of the smaller side, observed or
        missing, and "sparse" one of the missing pixels for ``order`` 1 and 2; both are
        exact. "stencil" is compiled conjugate gradients for ``order`` 1 and 2 in up to
        three dimensions, "pcg" conjugate gradients with a shifted DCT preconditioner;
        it also serves ``noise``, as "direct" does. "admm" alone serves ``nuclear``,
        without which it is "auto". "auto" takes the cheapest.
    refine : {"block_dct"} or None, default=None
        "block_dct" sharpens a picture (two axes) afterwards by the sparsity of its
        16 x 16 blocks, at ten times the cost. It does nothing where a block has fewer
        than 4 observed pixels in the mean.
    tol : float in (0, 1), default=1e-3
        Stop when the residual has fallen by this factor: for "pcg" in the norm of its
        preconditioner; for "stencil" in the plain norm, at order 2 ten times lower; for
        "admm" when its copies of the image differ, and move, by no more than this share
        of it. The default costs about 0.01 dB. "pcg" holds what few observed pixels, or
        a high order, leave almost free to a finer one, and computes corrections in
        single precision where that is finer than ``tol``.
    max_iter : int, default=200
        Limit on the iterations of "pcg" and "admm"; 25 times that for "stencil".
    return_info : bool, default=False
        Whether to return a dictionary as well.

    Returns
    -------
    recovered : ndarray of the shape of ``img``, float32 or float64
        Observed entries bit for bit (as floats) unless ``noise`` is given, the others
        filled. float32 input gives float32, all other types float64.
    info : dict
        Only with ``return_info``: "n_iter" (int), "gap" (float) and "converged" (bool),
        the worst of all channels, and "order" (None where ``weights`` are given),
        "nuclear" and "noise" as used.

    Raises
    ------
    ValueError
        If nothing is observed, if an observed value is infinite, complex or so large
        that the result overflows, if a shape does not fit, or if "direct" was asked for
        a system that is singular or has more than 20,000 unknowns, if a solver does
        not serve a term, or if ``noise`` is beyond what rounding resolves.

    Warns
    -----
    ConvergenceWarning
        If ``tol`` was not reached, for ``max_iter`` or for rounding; the result is
        usable.

    See Also
    --------
    DCTImputer : The same as a scikit-learn transformer of many images.

    Notes
    -----
    The formulas of the paper could not be had; this is the published idea with our own
    weights. With both further terms the problem is

    .. math:: \min_X \tau \|X\|_* + \tfrac{\mu}{2} \|W^{1/2} \circ C(X)\|_F^2
              + \tfrac12 \|P_\Omega (X - M)\|_F^2 , \qquad
              \mu = \lambda \, \frac{|\Omega|}{N} \Big(\frac{L}{256}\Big)^{2q}

    for pixels that are centred and scaled to the range 1, of which :math:`|\Omega|` of
    :math:`N` are observed, and the geometric mean :math:`L` of the sides in pixels. An
    eigenvalue of the Laplacian falls with the square of the pixel, and a sum over the
    observed pixels grows with their number: with both taken out, :math:`\lambda`
    weighs the same field sampled more densely, or at the same places on a finer grid,
    as before. With ``weights`` there is no :math:`L`; ``spacing`` and ``axis_scale``
    are made relative to the axis where :math:`g_a / h_a^2` is largest, and :math:`L`
    is measured in its pixels. "auto" hides 15 % of the observed pixels twice, the mask
    being the seed; to set that, use DCTImputer.

    With a mask shared by the channels, mixing them linearly before or after
    makes no difference. Where the weights leave a component undetermined (a missing
    plane of an axis with scale 0), it is that of the nearest observed pixels.

    References
    ----------
    .. [1] Y. Wang, C. Xu, S. You, D. Tao, C. Xu, "Parts for the Whole: The DCT Norm for
       Extreme Visual Recovery", arXiv:1604.05451, 2016.

    Examples
    --------
    Order 1 joins the observed neighbours by a line and lies flat beyond them:

    >>> import numpy as np
    >>> from sklcomp.recovery import recover_image
    >>> recover_image([0, np.nan, 2, np.nan, np.nan, 5, np.nan], order=1).round(6)
    array([0., 1., 2., 3., 4., 5., 5.])

    A picture of which one pixel in twenty is left:

    >>> from sklcomp.datasets import make_masked_images
    >>> from sklcomp.metrics import psnr
    >>> X, y = make_masked_images(image_shape=(64, 64), missing=0.95, random_state=0)
    >>> mean_fill = np.full((64, 64), np.nanmean(X[0]))
    >>> psnr(y[0], recover_image(X[0])) > psnr(y[0], mean_fill) + 5
    True
    """
    for name, value in {"weights": weights, "clip": clip}.items():
        check_unmasked(value, name)
    limits = check_clip(clip)
    channels, observed = _read_image(img, mask, channel_axis)
    own_order = order if weights is None else None
    settings: dict[str, Any] = {"order": own_order, "noise": noise, "nuclear": nuclear}
    solving: dict[str, Any] = {"solver": solver, "tol": tol, "max_iter": max_iter}
    scales: dict[str, Any] = {"weights": weights, "axis_scale": axis_scale}
    spectrum: Any = partial(Spectrum, channels.shape[1:], spacing=spacing, **scales)
    if "auto" in settings.values():
        recover = partial(recover_images, **solving)
        hiding: dict[str, Any] = {"holdout": 0.15, "n_repeats": 2, "random_state": None}
        settings, _ = choose_parameters(
            channels, observed, settings, spectrum, recover, **hiding
        )
    terms = {name: settings[name] for name in ("nuclear", "noise")}
    terms["spectrum"] = spectrum(settings["order"])
    result = recover_batch(channels, observed, refine=refine, **terms, **solving)
    warn_not_converged(result, tol)
    recovered = result.solution
    clip_filled(recovered, observed, limits, is_noisy=settings["noise"] > 0)
    if channel_axis is None:
        recovered = recovered[0]
    else:
        recovered = np.ascontiguousarray(np.moveaxis(recovered, 0, channel_axis))
    return (recovered, _describe(result) | settings) if return_info else recovered


def _describe(result: SolverResult) -> dict[str, Any]:
    """How the slowest channel was found."""
    return {
        "n_iter": int(result.n_iter.max()),
        "gap": float(result.gap.max()),
        "converged": bool(result.converged.all()),
    }


def _read_image(
    img: Any, mask: Any, channel_axis: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Channels of a checked image, and which of their pixels are observed."""
    img = as_float_array(img, "img")
    if img.ndim == 0 or img.size == 0:
        msg = f"img has shape {img.shape}; expected at least one axis and one pixel."
        raise ValueError(msg)
    channels = _channels_first(img, channel_axis)
    observed = ~np.isnan(channels)
    if mask is not None:
        observed &= _channel_mask(mask, img, channel_axis)
    check_observed(channels, observed)
    return channels, observed


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
        where = slice(None) if is_noisy else ~known
        image[where] = np.clip(image[where], *low_high)


def _channels_first(img: Any, channel_axis: int | None) -> Any:
    if channel_axis is None:
        return img[np.newaxis]
    if not -img.ndim <= channel_axis < img.ndim or img.ndim < 2:
        msg = (
            f"channel_axis={channel_axis} does not exist beside an image axis in img "
            f"of shape {img.shape}; choose it between {-img.ndim} and {img.ndim - 1}, "
            "or None for an array without channels."
        )
        raise ValueError(msg)
    return np.ascontiguousarray(np.moveaxis(img, channel_axis, 0))


def _channel_mask(mask: Any, img: Any, channel_axis: int | None) -> Any:
    """The mask with channels first; a mask of one channel serves all."""
    shared_shape = _channels_first(img, channel_axis).shape[1:]
    if np.shape(mask) == shared_shape:
        return check_mask(mask, shared_shape)
    return _channels_first(check_mask(mask, img.shape), channel_axis)


def check_observed(images: np.ndarray, observed: np.ndarray) -> None:
    """Raise unless each image has an observed pixel and all of those are finite."""
    for i, (image, known) in enumerate(zip(images, observed, strict=True)):
        if not known.any():
            which = f"channel {i} of img" if len(images) > 1 else "img"
            msg = (
                f"{which} has 0 observed pixels of {known.size}; at least 1 is "
                "needed. A mask is True where a pixel is observed."
            )
            raise ValueError(msg)
        if np.isinf(image[known]).any():
            msg = (
                "img contains infinity at an observed pixel; mark it as missing "
                "(NaN, or False in mask)."
            )
            raise ValueError(msg)


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
