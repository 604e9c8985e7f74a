"""DCTRegressor: a smooth field on a grid from measurements at scattered places."""

import math
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

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
from sklcomp.utils._messages import show
from sklcomp.utils._sklearn import (
    CallbackSupportMixin,
    Interval,
    IterationReporter,
    StrOptions,
    fit_context,
    with_callbacks,
)
from sklcomp.utils._validation import fill_markers, refuse_masked

# Nodes of a grid whose shape is not given: 64 x 64 in the plane.
DEFAULT_NODES = 4096
# One array of it takes 16 GiB, and a fit several.
MAX_NODES = 2**31

# Parameters that mean what they mean for images.
SHARED = ("axis_scale", "spacing", "clip", "noise", "solver", "tol", "max_iter")


class DCTRegressor(
    MultiOutputMixin, RegressorMixin, CallbackSupportMixin, BaseEstimator
):
    r"""Smooth field on a grid, from measurements at scattered places.

    Each measurement belongs to the nearest node of a grid. Of all fields F on the grid,
    with the measurements' means M at the nodes :math:`\Omega` that have one, it is

    .. math:: \min_F \|W^{1/2} \circ C(F)\|_F^2 \quad \text{s.t.} \quad
              F_\Omega = M_\Omega , \qquad W = \Lambda^q ,

    or, with ``noise``, the balance of both (see :func:`recover_image`). Predictions
    interpolate between the nodes. Unlike the transformer it has targets, so that
    cross-validation over measurements, or over pixels, tunes ``order`` and ``noise``.

    Parameters
    ----------
    grid_shape : tuple of int, default=None
        Nodes along each coordinate. None takes about 4096 in all, as many along each;
        with ``extent="pixels"`` as many as the largest coordinates ask for. No grid
        may have more than 2**31.
    extent : {"data", "pixels"} or sequence of (low, high), default="data"
        Coordinates of the first and the last node of each axis: the range of the fit
        data; 0 and n - 1, so that coordinates are indices of pixels; or numbers in the
        unit of the coordinates. Places outside belong to the nearest node, except for
        pixels, which have to be integers within the grid in ``fit``.
    order : float in (0, 4], default=1.5
        Smoothness :math:`q` of the field.
    noise : float or "auto", default=0.0
        Weight of the DCT norm against the data, whatever the number of nodes; 0 keeps
        the means at the nodes. See :func:`recover_image`. "auto" chooses one for all
        outputs by means that are hidden first.
    nuclear : float, default=0.0
        Weight of the nuclear norm in units of the observed range, for fields of low
        rank on two axes or more.
    axis_scale : array-like of shape (n_features,), default=None
        Smoothness of each axis, per node; None is 1 everywhere.
    spacing : array-like of shape (n_features,), default=None
        Distance of neighbouring nodes along each axis, in any unit; only ratios matter.
        None is 1 everywhere, however the coordinates are scaled.
    clip : {"observed"} or pair (low, high), default=None
        Limits of the field where it is not the data: the range of each output's means
        at the nodes, or two numbers in the unit of y.
    solver : {"auto", "direct", "sparse", "stencil", "pcg", "admm"}, default="auto"
        See :func:`recover_image`.
    tol : float in (0, 1), default=1e-3
        Relative residual at which a solver stops, see :func:`recover_image`.
    max_iter : int, default=200
        Limit on the iterations, see :func:`recover_image`.

    Attributes
    ----------
    grid_ : ndarray of shape (\*grid_shape_,) or (n_outputs, \*grid_shape_)
        The field at the nodes.
    grid_shape_ : tuple of int
        Nodes along each coordinate.
    noise_ : float
        Weight of the DCT norm against the data in use.
    extent_ : ndarray of shape (n_features, 2)
        Coordinates of the first and the last node of each axis.
    n_iter_ : int
        Largest number of iterations over the outputs, at least 1.
    converged_ : bool
        Whether the solver reached ``tol`` for all outputs.
    n_features_in_ : int
        Number of coordinates.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the coordinates; only if X had names that are all strings.

    See Also
    --------
    DCTImputer : Fills the missing pixels of many images.
    sklearn.gaussian_process.GaussianProcessRegressor : With an error of the prediction,
        for up to some thousand measurements.

    References
    ----------
    .. [1] Y. Wang, C. Xu, S. You, D. Tao, C. Xu, "Parts for the Whole: The DCT Norm for
       Extreme Visual Recovery", arXiv:1604.05451, 2016.

    Examples
    --------
    A field of two long waves from 300 places:

    >>> import numpy as np
    >>> from sklcomp.recovery import DCTRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.random((300, 2))
    >>> y = np.sin(5 * X[:, 0]) + np.cos(4 * X[:, 1])
    >>> field = DCTRegressor(order=2).fit(X, y)
    >>> places = rng.uniform(0.1, 0.9, (100, 2))
    >>> truth = np.sin(5 * places[:, 0]) + np.cos(4 * places[:, 1])
    >>> bool(field.score(places, truth) > 0.99)
    True
    """

    _parameter_constraints: dict = {
        **{name: PARAMETER_CONSTRAINTS[name] for name in SHARED},
        "grid_shape": ["array-like", None],
        "extent": [StrOptions({"data", "pixels"}), "array-like"],
        "order": [Interval(Real, 0, 4, closed="right")],
        "nuclear": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        grid_shape: Any = None,
        *,
        extent: Any = "data",
        order: Any = 1.5,
        noise: Any = 0.0,
        nuclear: Any = 0.0,
        axis_scale: Any = None,
        spacing: Any = None,
        clip: Any = None,
        solver: Any = "auto",
        tol: float = 1e-3,
        max_iter: int = 200,
    ) -> None:
        self.grid_shape = grid_shape
        self.extent = extent
        self.order = order
        self.noise = noise
        self.nuclear = nuclear
        self.axis_scale = axis_scale
        self.spacing = spacing
        self.clip = clip
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter

    @refuse_masked
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any) -> "DCTRegressor":
        """Recover the field from measurements.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Coordinates of the measurements.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Measured values; each output is a field of its own.

        Returns
        -------
        self : DCTRegressor
            The fitted regressor.

        Raises
        ------
        ValueError
            If ``grid_shape`` or ``extent`` does not fit the coordinates, or the grid
            would have more than 2**31 nodes.
        """
        X, y = _complete(X, "X"), _complete(y, "y")
        X, y = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True
        )
        shape = self._checked_shape(X)
        # Before anything of that size is made.
        _check_size(shape)
        self.grid_shape_ = shape
        self.extent_ = self._checked_extent(X)
        nodes = np.rint(self._to_nodes(X)).astype(np.intp)
        flat = np.ravel_multi_index(tuple(nodes.T), self.grid_shape_)
        outputs = np.asarray(y, dtype=np.float64).reshape(len(X), -1).T
        means, observed = self._average(flat, outputs)
        spectrum = Spectrum(shape, self.order, None, self.axis_scale, self.spacing)
        limits = check_clip(self.clip)
        self.noise_ = self._choose_noise(means, observed, spectrum)
        reporter = IterationReporter(self, X=X, y=y)
        result = recover_batch(
            means,
            observed,
            callback=reporter,
            spectrum=spectrum,
            solver=self.solver,
            tol=self.tol,
            max_iter=self.max_iter,
            nuclear=self.nuclear,
            noise=self.noise_,
        )
        clip_filled(result.solution, observed, limits, is_noisy=self.noise_ > 0)
        if not reporter.stopped:
            warn_not_converged(result, self.tol)
        self.grid_ = result.solution[0] if np.ndim(y) == 1 else result.solution
        self.n_iter_ = max(1, int(result.n_iter.max()))
        self.converged_ = bool(result.converged.all())
        reporter.finish()
        return self

    @refuse_masked
    def predict(self, X: Any) -> np.ndarray:
        """Values of the field, by linear interpolation between the nodes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Coordinates; outside of the extent the nearest point of its boundary counts.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predicted values.
        """
        check_is_fitted(self)
        X = _complete(X, "X")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        nodes = self._to_nodes(X).T
        if self.grid_.ndim == len(self.grid_shape_):
            return map_coordinates(self.grid_, nodes, order=1, mode="nearest")
        return np.stack(
            [
                map_coordinates(grid, nodes, order=1, mode="nearest")
                for grid in self.grid_
            ],
            axis=1,
        )

    @refuse_masked
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Coefficient of determination R2 of the predictions, the mean over outputs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Coordinates.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        score : float
            At most 1, which is perfect; 0 is no better than the mean of y.
        """
        return super().score(X, _complete(y, "y"), sample_weight)

    def _checked_shape(self, X: Any) -> Any:
        n_axes = X.shape[1]
        if self.grid_shape is None:
            if isinstance(self.extent, str) and self.extent == "pixels":
                # A negative one is refused with the extent, which is checked next.
                return tuple(int(n) + 1 for n in np.maximum(X.max(axis=0), 0))
            n_split = int(np.log2(DEFAULT_NODES))
            if n_axes <= n_split:
                return (round(DEFAULT_NODES ** (1 / n_axes)),) * n_axes
            # Two nodes along each axis would be too many.
            return (2,) * n_split + (1,) * (n_axes - n_split)
        shape = tuple(self.grid_shape)
        if len(shape) != n_axes or not all(
            isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 1
            for n in shape
        ):
            msg = (
                f"grid_shape={show(shape)} must have one integer >= 1 for each of the "
                f"{n_axes} coordinates of X."
            )
            raise ValueError(msg)
        return tuple(int(n) for n in shape)

    def _checked_extent(self, X: Any) -> Any:
        last = np.array(self.grid_shape_) - 1.0
        if not isinstance(self.extent, str):
            try:
                extent = np.array(self.extent, dtype=np.float64)
            except (TypeError, ValueError):  # not numbers, or not pairs
                extent = np.empty(0)
            if extent.shape != (X.shape[1], 2) or not (
                np.isfinite(extent).all() and (extent[:, 0] < extent[:, 1]).all()
            ):
                msg = (
                    f"extent={show(self.extent)} must have one pair (low, high) with "
                    f"low < high for each of the {X.shape[1]} coordinates of X."
                )
                raise ValueError(msg)
            return extent
        if self.extent == "data":
            return np.stack([X.min(axis=0), X.max(axis=0)], axis=1)
        outside = (np.rint(X) != X) | (np.clip(X, 0, last) != X)
        if outside.any():
            msg = (
                f"X holds the coordinate {X[outside][0]}; extent='pixels' takes "
                f"integers from 0 to n - 1 on a grid of shape {self.grid_shape_}. Use "
                "extent='data' for other coordinates."
            )
            raise ValueError(msg)
        return np.stack([np.zeros_like(last), last], axis=1)

    def _to_nodes(self, X: Any) -> Any:
        """Coordinates in units of nodes, moved into the grid."""
        low, high = self.extent_.T
        last = np.array(self.grid_shape_) - 1.0
        # Halves: the difference of the largest numbers would overflow.
        width = high / 2 - low / 2
        share = (np.clip(X, low, high) / 2 - low / 2) / np.where(width > 0, width, 1)
        return share * last

    def _choose_noise(self, means: Any, observed: np.ndarray, spectrum: Any) -> Any:
        """A number in place of "auto"."""
        if self.noise != "auto":
            return self.noise
        settings = {"order": self.order, "noise": "auto", "nuclear": self.nuclear}
        limits = {"solver": self.solver, "tol": self.tol, "max_iter": self.max_iter}
        recover = partial(recover_images, **limits)
        pick = partial(choose_parameters, holdout=0.15, n_repeats=2, random_state=None)
        chosen, _ = pick(means, observed, settings, lambda _: spectrum, recover)
        return chosen["noise"]

    def _average(self, flat: Any, outputs: Any) -> Any:
        """Mean of the values at each node, and which nodes have any."""
        n_nodes = int(np.prod(self.grid_shape_))
        counts = np.bincount(flat, minlength=n_nodes)
        # Shares of each value, since their sum could overflow.
        means = [
            np.bincount(flat, output / counts[flat], minlength=n_nodes)
            for output in outputs
        ]
        shape = (len(outputs), *self.grid_shape_)
        observed = np.broadcast_to(counts.reshape(self.grid_shape_) > 0, shape)
        return np.reshape(means, shape), observed

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # The check behind it has ten coordinates: two nodes along each are no field.
        tags.regressor_tags.poor_score = True
        return tags


def _complete(values: Any, name: str) -> Any:
    """The values with NaN for other markers; raises ValueError where one is missing."""
    values = fill_markers(values, name)
    if values is None or hasattr(values, "toarray"):
        return values  # refused later on
    array = np.asarray(values)
    if array.dtype == object:
        array = fill_markers(array, name)
    missing = array != array
    if missing.any():
        msg = (
            f"{name} contains NaN, or another marker of what is missing, in "
            f"{np.count_nonzero(missing)} of its {missing.size} entries; leave those "
            "measurements out."
        )
        raise ValueError(msg)
    return values


def _check_size(shape: tuple[int, ...]) -> None:
    if math.prod(shape) > MAX_NODES:
        msg = (
            f"A grid of shape {shape} has more than {MAX_NODES} nodes, too many for "
            "memory; give a smaller grid_shape, or extent='data' without grid_shape."
        )
        raise ValueError(msg)
