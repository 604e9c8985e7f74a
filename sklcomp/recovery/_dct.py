"""``recover_image``: arrays with gaps filled, after Wang et al. (arXiv 1604.05451)."""

from functools import partial
from typing import Any

import numpy as np

from sklcomp.recovery._batch import (
    PARAMETER_CONSTRAINTS,
    check_clip,
    clip_filled,
    recover_batch,
    recover_images,
    warn_not_converged,
)
from sklcomp.recovery._selection import choose_parameters
from sklcomp.recovery._spectrum import Spectrum
from sklcomp.solvers._result import SolverResult
from sklcomp.utils._sklearn import validate_params
from sklcomp.utils._validation import as_float_array, check_mask, check_unmasked


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
    _check_observed(channels, observed)
    return channels, observed


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


def _check_observed(images: np.ndarray, observed: np.ndarray) -> None:
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
