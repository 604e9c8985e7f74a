"""DCTImputer: images with missing pixels, after Wang et al. (arXiv 1604.05451)."""

from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sklcomp.recovery._batch import (
    PARAMETER_CONSTRAINTS,
    check_clip,
    clip_filled,
    recover_in_batches,
    warn_not_converged,
)
from sklcomp.recovery._layout import hint_at_pictures
from sklcomp.recovery._selection import (
    DEFAULTS,
    choose_parameters,
    hide_pixels,
    mask_seed,
)
from sklcomp.recovery._spectrum import Spectrum
from sklcomp.solvers._result import SolverResult
from sklcomp.utils._layout import (
    Channels,
    as_flat_rows,
    as_shape,
    check_examples,
    check_row_length,
    count_axes,
)
from sklcomp.utils._messages import warn_user
from sklcomp.utils._sklearn import (
    CallbackSupportMixin,
    Interval,
    IterationReporter,
    Options,
    StrOptions,
    fit_context,
    transform_output,
    with_callbacks,
)
from sklcomp.utils._validation import check_unmasked, fill_markers


class DCTImputer(
    OneToOneFeatureMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
):
    r"""Fill the missing pixels of images by minimising their DCT norm.

    Each row of X is one flattened image, recovered from its own observed pixels alone:

    .. math:: \min_X \|W^{1/2} \circ C(X)\|_F^2 \quad \text{s.t.} \quad
              X_\Omega = M_\Omega , \qquad W = \Lambda^q ,

    with the orthonormal DCT-II :math:`C`, the eigenvalues :math:`\Lambda` of the
    Laplacian with reflecting boundary and the ``order`` :math:`q`, see
    :func:`recover_image`. New images are recovered as well as those seen in ``fit``.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        Shape of one image, such as (height, width) or (height, width, channels). With
        None it is taken from n-d input, and a row of 2-D input is a 1-D signal; a
        warning tells where the rows look like those of one picture.
    channel_axis : int, default=None
        Axis of ``image_shape`` that holds channels, such as -1, recovered one by one;
        None for images without channels.
    order : float in (0, 4] or "auto", default=1.5
        Smoothness :math:`q`: 1 for large holes, 2 for small gaps, 1.25 to 1.5 for
        random masks. "auto" chooses one order for all images, among 0.75 to 2, by the
        error at observed pixels that are hidden first; what does no better than the
        default by one standard error is not taken.
    nuclear : float or "auto", default=0.0
        Weight of the nuclear norm in units of the observed range, for pictures of low
        rank; see :func:`recover_image`. "auto" chooses among 0 to 1000.
    noise : float or "auto", default=0.0
        Weight of the DCT norm against the data, whatever the resolution; 0 keeps
        observed pixels exactly. See :func:`recover_image`. "auto" chooses one for all
        images.
    weights : array-like of the shape of one channel, default=None
        Non-negative spectral weights :math:`W` in DCT-II order, in place of ``order``,
        which then has no effect.
    axis_scale : array-like of shape (n_image_axes,), default=None
        Smoothness of each axis; None is 1 everywhere.
    spacing : array-like of shape (n_image_axes,), default=None
        Distance of neighbouring pixels along each axis, where they are not square;
        only ratios matter. None is 1 everywhere.
    solver : {"auto", "direct", "sparse", "stencil", "pcg", "admm"}, default="auto"
        See :func:`recover_image`.
    refine : {"block_dct"} or None, default=None
        "block_dct" sharpens pictures afterwards, see :func:`recover_image`.
    holdout : float in (0, 1), default=0.15
        Share of the observed pixels that :meth:`score` and "auto" hide.
    n_repeats : int, default=2
        Draws of hidden pixels for "auto"; up to five times as many where the fit data
        have fewer than 2000 observed pixels.
    tol : float in (0, 1), default=1e-3
        Relative residual at which a solver stops, see :func:`recover_image`.
    max_iter : int, default=200
        Limit on the iterations, see :func:`recover_image`.
    clip : {"observed"} or pair (low, high), default=None
        Limits of the filled pixels: the range of the observed pixels of the same image
        and channel, or two numbers in the unit of the pixels. Observed pixels are not
        clipped, unless ``noise`` has changed them.
    missing_values : float, default=np.nan
        The value that marks a missing pixel. NaN, None, NaT, the NA of pandas and
        masked entries (:mod:`numpy.ma`) always do.
    dtype : {float32, float64}, default=None
        Type of the result; None keeps float32 arrays (and frames of numpy's float32)
        and makes float64 of the rest.
    n_jobs : int, default=None
        Threads; None is 1 unless in a :obj:`joblib.parallel_config`. The result does
        not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws the pixels that :meth:`score` and "auto" hide; with None they follow from
        the mask, so that two scores of the same images agree.

    Attributes
    ----------
    image_shape_ : tuple of int
        Shape of one image.
    order_ : float or None
        Order in use; None where ``weights`` were given.
    nuclear_ : float
        Weight of the nuclear norm in use.
    noise_ : float
        Weight of the DCT norm against the data in use.
    cv_results_ : dict
        Only if "auto" chose a parameter: the candidates ("params", "param_order", ...)
        and "mean_test_score", "std_test_score" and "rank_test_score", where the score
        is minus the mean squared error at hidden pixels.
    weights_ : ndarray of the shape of one channel
        Spectral weights in use.
    fill_value_ : float
        Mean of the observed pixels of the fit data over all channels; fills an image,
        or a channel, without any.
    n_iter_ : int
        Largest number of iterations over the fit data, at least 1.
    converged_ : bool
        Whether all images of the fit data reached ``tol``.
    n_features_in_ : int
        Pixels (times channels) of one image.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns; only if X had names that are all strings.

    See Also
    --------
    recover_image : The same for one array.
    sklearn.impute.KNNImputer : Looks across samples, not across pixels.

    Notes
    -----
    ``fit`` recovers the given images, since ``n_iter_`` and ``converged_`` speak of
    them; ``fit_transform`` does so once. A callback (``set_callbacks``) hears of every
    iteration of a batch of images and stops the fit by returning True; images that had
    no turn yet then hold the nearest observed pixels.

    References
    ----------
    .. [1] Y. Wang, C. Xu, S. You, D. Tao, C. Xu, "Parts for the Whole: The DCT Norm for
       Extreme Visual Recovery", arXiv:1604.05451, 2016.

    Examples
    --------
    Nine of ten pixels are lost; less than a quarter of a mean fill's error remains:

    >>> import numpy as np
    >>> from sklearn.impute import SimpleImputer
    >>> from sklcomp.datasets import make_masked_images
    >>> from sklcomp.recovery import DCTImputer
    >>> images, complete = make_masked_images(n_samples=20, random_state=0)
    >>> X, y = images.reshape(20, -1), complete.reshape(20, -1)
    >>> imputer = DCTImputer(image_shape=(32, 32))
    >>> error = np.mean((imputer.fit_transform(X) - y) ** 2)
    >>> mean_fill = SimpleImputer(keep_empty_features=True).fit_transform(X)
    >>> bool(error < np.mean((mean_fill - y) ** 2) / 4)
    True
    """

    image_shape_: tuple[int, ...]

    _parameter_constraints: dict = {
        **PARAMETER_CONSTRAINTS,
        "image_shape": ["array-like", None],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "holdout": [Interval(Real, 0, 1, closed="neither")],
        "missing_values": [Real],
        "dtype": [
            Options(type, {np.float32, np.float64}),
            StrOptions({"float32", "float64"}),
            None,
        ],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        image_shape: Any = None,
        channel_axis: int | None = None,
        *,
        order: Any = 1.5,
        nuclear: Any = 0.0,
        noise: Any = 0.0,
        weights: Any = None,
        axis_scale: Any = None,
        spacing: Any = None,
        solver: Any = "auto",
        refine: Any = None,
        holdout: Any = 0.15,
        n_repeats: Any = 2,
        tol: float = 1e-3,
        max_iter: int = 200,
        clip: Any = None,
        missing_values: Any = np.nan,
        dtype: Any = None,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.image_shape = image_shape
        self.channel_axis = channel_axis
        self.order = order
        self.nuclear = nuclear
        self.noise = noise
        self.weights = weights
        self.axis_scale = axis_scale
        self.spacing = spacing
        self.solver = solver
        self.refine = refine
        self.holdout = holdout
        self.n_repeats = n_repeats
        self.tol = tol
        self.max_iter = max_iter
        self.clip = clip
        self.missing_values = missing_values
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "DCTImputer":
        """Check the images and recover them, to learn how the solver fares.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples,) + image_shape
            Images, one a row; ``missing_values`` marks what is missing.
        y : None
            Ignored.

        Returns
        -------
        self : DCTImputer
            The fitted imputer.
        """
        self._fit(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and return the recovered images, solving once.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples,) + image_shape
            Images, one a row; ``missing_values`` marks what is missing.
        y : None
            Ignored.

        Returns
        -------
        recovered : ndarray of the shape of X
            Observed pixels bit for bit unless ``noise`` smooths or ``dtype`` rounds
            them, the others filled.
        """
        self._refuse_frame(X)
        return self._fit(X)

    def transform(self, X: Any) -> np.ndarray:
        """Fill the missing pixels of each image.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples,) + image_shape
            Images, one a row; ``missing_values`` marks what is missing.

        Returns
        -------
        recovered : ndarray of the shape of X
            Observed pixels bit for bit unless ``noise`` smooths or ``dtype`` rounds
            them, the others filled. An image without any observed pixel is filled with
            ``fill_value_``, with a warning.
        """
        check_is_fitted(self)
        self._refuse_frame(X)
        rows, layout = self._check_images(X, reset=False)
        result = self._solve(self._layout.split(rows))
        return self._layout.join(result.solution).reshape(layout)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean squared error at observed pixels that are hidden first.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples,) + image_shape
            Images, one a row; ``missing_values`` marks what is missing.
        y : None
            Ignored.

        Returns
        -------
        score : float
            In squared units of the pixels; higher is better, 0 is perfect.
        """
        check_is_fitted(self)
        rows, _ = self._check_images(X, reset=False)
        channels = self._layout.split(rows)
        observed = ~np.isnan(channels)
        seed = self.random_state
        rng = check_random_state(mask_seed(observed) if seed is None else seed)
        # Channel by channel, so that none is hidden whole.
        hidden, scored = hide_pixels(observed, self.holdout, rng)
        result = self._solve(np.where(hidden, np.nan, channels))
        error = (result.solution[scored] - channels[scored]).astype(np.float64)
        with np.errstate(over="ignore"):
            score = -float(np.mean(error**2))
        if not np.isfinite(score):
            msg = (
                f"The squared error of pixels up to {np.nanmax(np.abs(channels)):.3g} "
                "exceeds 1.8e+308; rescale the images before, for example to [0, 1]."
            )
            raise ValueError(msg)
        return score

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X: Any) -> Any:
        for name, value in self.get_params(deep=False).items():
            check_unmasked(value, name)
        rows, layout = self._check_images(X, reset=True)
        self._layout = Channels(self.image_shape_, self.channel_axis)
        shape = self._layout.shape_of_one
        self._clip = check_clip(self.clip)
        channels = self._layout.split(rows)
        chosen = self._choose(channels)
        self.nuclear_, self.noise_ = chosen["nuclear"], chosen["noise"]
        spectrum = self._make_spectrum(shape, chosen["order"])
        self.order_, self.weights_ = spectrum.order, spectrum.weights
        self._spectrum = spectrum
        observed = ~np.isnan(rows)
        scale = np.abs(rows[observed]).max(initial=0) or 1.0
        # A sum of the largest numbers would overflow.
        self.fill_value_ = (
            float(np.mean(rows[observed] / scale, dtype=np.float64) * scale)
            if observed.any()
            else 0.0
        )
        reporter = IterationReporter(self, X=X)
        result = self._solve(channels, reporter)
        # scikit-learn's checks ask for at least one.
        self.n_iter_ = max(1, int(result.n_iter.max(initial=0)))
        self.converged_ = bool(result.converged.all())
        reporter.finish()
        return self._layout.join(result.solution).reshape(layout)

    def _check_images(self, X: Any, *, reset: Any) -> Any:
        """Flat checked rows with NaN where missing, and the layout to give back."""
        layout, is_frame = None, hasattr(X, "columns")
        X = fill_markers(X, "X")
        if count_axes(X) > 2:
            layout = np.shape(X)
            wanted = self.image_shape if reset else self.image_shape_
            if wanted is not None:
                check_examples(layout[1:], tuple(wanted), "X")
            X = as_flat_rows(np.asarray(X))
        dtype = [np.float64, np.float32] if self.dtype is None else self.dtype
        # In a foreign byte order it is not the float32 of the list, and would become
        # the first of it.
        if self.dtype is None and getattr(X, "dtype", None) in (">f4", "<f4"):
            dtype = np.float32
        X = validate_data(
            self, X, reset=reset, dtype=dtype, order="C", ensure_all_finite=False
        )
        # The number as X holds it: 0.1 is not the same in the two precisions.
        with np.errstate(over="ignore"):
            marker = np.array(self.missing_values).astype(X.dtype)
        # A marker beyond the range of the type became infinite: X does not hold it.
        if np.isinf(marker) == np.isinf(self.missing_values) and (marker == X).any():
            X = np.where(marker == X, X.dtype.type(np.nan), X)
        assert_all_finite(
            X, allow_nan=True, estimator_name=type(self).__name__, input_name="X"
        )
        if reset:
            if layout is None and self.image_shape is None and not is_frame:
                hint_at_pictures(X)
            self.image_shape_ = tuple(layout[1:]) if layout else (X.shape[1],)
            if self.image_shape is not None:
                self.image_shape_ = as_shape(self.image_shape, "image_shape")
                check_row_length(X, self.image_shape_, "image_shape")
        return X, layout or X.shape

    def _refuse_frame(self, X: Any) -> None:
        if transform_output(self) != "default" and count_axes(X) > 2:
            msg = (
                f"X has {count_axes(X)} axes, which no data frame can hold; with "
                f"set_output give flat rows instead, X.reshape(len(X), -1), and "
                f"image_shape={np.shape(X)[1:]}."
            )
            raise ValueError(msg)

    def _solve(self, channels: np.ndarray, callback: Any = None) -> Any:
        """Recovered and clipped channels; warns of what is empty or not converged."""
        observed = ~np.isnan(channels)
        counts = observed.reshape(len(channels), -1).sum(axis=1)
        filled = channels.copy()
        filled[counts == 0] = self.fill_value_
        if not counts.all():
            warn_user(
                f"{(counts == 0).sum()} of {len(counts)} images have no observed pixel "
                f"and are filled with fill_value_={self.fill_value_:.6g}, the mean of "
                "the fit data.",
                UserWarning,
            )
        # Noisy images are smoothed even where nothing is missing.
        is_todo = (counts > 0) & ((counts < channels[0].size) | (self.noise_ > 0))
        todo = np.flatnonzero(is_todo)
        batches, results = recover_in_batches(
            channels, observed, todo, self.n_jobs, spectrum=self._spectrum,
            solver=self.solver, tol=self.tol, max_iter=self.max_iter, callback=callback,
            nuclear=self.nuclear_, noise=self.noise_, refine=self.refine,
        )  # fmt: skip
        n_iter, gap = np.zeros(len(channels), dtype=int), np.zeros(len(channels))
        converged = np.ones(len(channels), dtype=bool)
        for batch, result in zip(batches, results, strict=True):
            filled[batch] = result.solution
            n_iter[batch], gap[batch] = result.n_iter, result.gap
            converged[batch] = result.converged
        clip_filled(filled, observed, self._clip, is_noisy=self.noise_ > 0)
        result = SolverResult(filled, n_iter, gap, converged)
        # Who asked to stop knows that it did not converge.
        if callback is None or not callback.stopped:
            warn_not_converged(result, self.tol)
        return result

    def _choose(self, channels: np.ndarray) -> Any:
        """Settings with numbers in place of "auto"; sets cv_results_."""
        order = self.order if self.weights is None else None
        settings = {"order": order, "noise": self.noise, "nuclear": self.nuclear}
        self.__dict__.pop("cv_results_", None)  # of an earlier fit
        if "auto" not in settings.values():
            return settings
        observed = ~np.isnan(channels)
        rows = np.flatnonzero(observed.reshape(len(channels), -1).any(axis=1))
        if len(rows) == 0:
            return {k: DEFAULTS[k] if v == "auto" else v for k, v in settings.items()}

        def recover(images: np.ndarray, known: np.ndarray, **terms: Any) -> Any:
            results = recover_in_batches(
                images,
                known,
                np.arange(len(images)),
                self.n_jobs,
                solver=self.solver,
                tol=self.tol,
                max_iter=self.max_iter,
                **terms,
            )[1]
            return np.concatenate([result.solution for result in results])

        chosen, self.cv_results_ = choose_parameters(
            channels[rows],
            observed[rows],
            settings,
            partial(self._make_spectrum, channels.shape[1:]),
            recover,
            holdout=self.holdout,
            n_repeats=self.n_repeats,
            random_state=self.random_state,
        )
        return chosen

    def _make_spectrum(self, shape: tuple[int, ...], order: Any) -> Any:
        return Spectrum(shape, order, self.weights, self.axis_scale, self.spacing)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
