"""Recovery of an array with missing entries, after Wang et al., arXiv 1604.05451."""

import warnings
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklcomp.recovery._selection import choose_parameters
from sklcomp.solvers._block_dct import refine_block_dct
from sklcomp.solvers._dct import laplacian_eigenvalues, solve_dct, solve_regularised
from sklcomp.solvers._result import SolverResult
from sklcomp.utils._sklearn import Interval, StrOptions, validate_params
from sklcomp.utils._validation import as_float_array, check_mask, check_unmasked

# Of noise times the largest weight.
NOISE_LIMITS = (1e-9, 1e12)
# Checked for the function and for the estimator alike.
PARAMETER_CONSTRAINTS: dict[str, list] = {
    "order": [Interval(Real, 0, 4, closed="right"), StrOptions({"auto"})],
    "nuclear": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    "noise": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    "refine": [StrOptions({"block_dct"}), None],
    "weights": ["array-like", None],
    "axis_scale": ["array-like", None],
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
    channel_axis: int | None = None,
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
        Weight :math:`\lambda` of the DCT norm against the data; 0 keeps the data
        exactly. Values of 0.1 to 3 serve.
    axis_scale : array-like of shape (d,), default=None
        Smoothness :math:`g_a \ge 0` of each axis, in
        :math:`\Lambda = \sum_a g_a 4 \sin^2(\pi k_a / 2 n_a)`; only ratios matter, the
        largest counts as 1. None is 1 everywhere.
    channel_axis : int, default=None
        Axis whose slices are recovered one by one, such as -1 for RGB; None for an
        array without channels.
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
        of it. The default costs about 0.01 dB. "pcg" computes corrections in single
        precision where that is finer than ``tol``.
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

    .. math:: \min_X \tau \|X\|_* + \tfrac{\lambda}{2} \|W^{1/2} \circ C(X)\|_F^2
              + \tfrac12 \|P_\Omega (X - M)\|_F^2

    for pixels that are centred and scaled to the range 1. "auto" hides 15 % of the
    observed pixels twice, the mask being the seed; to set that, use DCTImputer.

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
    img = as_float_array(img, "img")
    if img.ndim == 0 or img.size == 0:
        msg = f"img has shape {img.shape}; expected at least one axis and one pixel."
        raise ValueError(msg)
    channels = _channels_first(img, channel_axis)
    observed = ~np.isnan(channels)
    if mask is not None:
        observed &= _channel_mask(mask, img, channel_axis)
    check_observed(channels, observed)
    settings: dict[str, Any] = {
        "order": order if weights is None else None,
        "noise": noise,
        "nuclear": nuclear,
    }
    limits: dict[str, Any] = {"solver": solver, "tol": tol, "max_iter": max_iter}
    if "auto" in settings.values():
        settings, _ = choose_parameters(
            channels, observed, settings,
            partial(_recover, weights=weights, axis_scale=axis_scale, **limits),
            holdout=0.15, n_repeats=2, random_state=None,
        )  # fmt: skip
    result = recover_batch(
        channels, observed, refine=refine,
        spectrum=Spectrum(channels.shape[1:], settings["order"], weights, axis_scale),
        nuclear=settings["nuclear"], noise=settings["noise"], **limits,
    )  # fmt: skip
    warn_not_converged(result, tol)
    recovered = result.solution
    recovered = (
        recovered[0]
        if channel_axis is None
        else np.ascontiguousarray(np.moveaxis(recovered, 0, channel_axis))
    )
    if not return_info:
        return recovered
    info = {
        "n_iter": int(result.n_iter.max()),
        "gap": float(result.gap.max()),
        "converged": bool(result.converged.all()),
        **settings,
    }
    return recovered, info


def _recover(images, observed, settings, *, weights, axis_scale, **limits):
    """Recovered images of a candidate, for choose_parameters."""
    spectrum = Spectrum(images.shape[1:], settings["order"], weights, axis_scale)
    return recover_batch(
        images, observed, spectrum=spectrum, nuclear=settings["nuclear"],
        noise=settings["noise"], **limits,
    ).solution  # fmt: skip


class Spectrum:
    """Weights of the DCT norm on a grid, checked and ready for the solvers."""

    def __init__(self, shape, order=1.5, weights=None, axis_scale=None):
        self.order = None if weights is not None else order
        self.axis_scale = None
        if axis_scale is not None:
            scale = _non_negative(axis_scale, "axis_scale")
            if scale.shape != (len(shape),):
                msg = (
                    f"axis_scale has shape {scale.shape} for {len(shape)} image axes; "
                    "give one number for each axis."
                )
                raise ValueError(msg)
            # Only ratios matter; a maximum of 1 keeps every power of it in range.
            self.axis_scale = tuple((scale / scale.max()).tolist())
        if weights is None:
            self.weights = laplacian_eigenvalues(shape, self.axis_scale) ** order
        else:
            self.weights = _non_negative(weights, "weights")
            if self.weights.shape != tuple(shape):
                msg = (
                    f"weights has shape {self.weights.shape}; expected {tuple(shape)}, "
                    "one weight per DCT coefficient of the image."
                )
                raise ValueError(msg)


def _non_negative(values, name):
    check_unmasked(values, name)
    array = as_float_array(values, name).astype(np.float64)
    if not np.isfinite(array).all() or (array < 0).any() or not (array > 0).any():
        found = (
            f"its range is [{array.min()}, {array.max()}]"
            if array.size
            else (f"its shape is {array.shape}")
        )
        msg = f"{name} must be finite, non-negative and somewhere positive; {found}."
        raise ValueError(msg)
    return array


def _channels_first(img, channel_axis):
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


def _channel_mask(mask, img, channel_axis):
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
    if refine is not None and images.ndim != 3:
        msg = (
            f"refine='{refine}' serves pictures of 2 axes; these have "
            f"{images.ndim - 1}. Set refine=None, or recover slices."
        )
        raise ValueError(msg)
    settings = {
        "weights": spectrum.weights, "order": spectrum.order,
        "axis_scale": spectrum.axis_scale, "tol": tol, "max_iter": max_iter,
        "workers": workers, "callback": callback,
    }  # fmt: skip
    if solver == "admm" and not nuclear:
        solver = "auto"  # one term has no copies to agree
    if nuclear or noise:
        result = solve_regularised(
            images, observed, nuclear=nuclear, noise=noise,
            solver="admm" if nuclear else solver, **settings,
        )  # fmt: skip
    else:
        result = solve_dct(images, observed, solver=solver, **settings)
    if not np.isfinite(result.solution).all():
        limit = np.finfo(images.dtype).max
        msg = (
            f"The recovered values exceed {limit:.3g}, the limit of {images.dtype}; "
            "rescale the image before, for example to [0, 1]."
        )
        raise ValueError(msg)
    if refine is not None:
        for image, known in zip(result.solution, observed, strict=True):
            image[...] = refine_block_dct(image, known, np.ptp(image[known]))
    return result


def _check_solver(solver, spectrum, nuclear, noise):
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
    strength = noise * float(spectrum.weights.max())
    low, high = NOISE_LIMITS
    # A single pixel has no weight but zero: nothing to smooth.
    if noise and spectrum.weights.any() and not low <= strength <= high:
        msg = (
            f"noise={noise} times the largest weight is {strength:.3g}, outside "
            f"[{low:g}, {high:g}]: the data or the norm would vanish in rounding. Use "
            "noise=0 for exact data, or scale the weights."
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
        warnings.warn(
            f"{(~result.converged).sum()} of {len(result.converged)} images did not "
            f"reach tol={tol} within {result.n_iter.max()} iterations (largest gap "
            f"{result.gap.max():.2g}); the result is usable. Raise max_iter or tol; "
            "a gap that does not fall with max_iter is due to rounding: lower order.",
            ConvergenceWarning,
            stacklevel=3,
        )
