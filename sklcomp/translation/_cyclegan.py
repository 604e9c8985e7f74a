"""CycleGANTranslator: translation without pairs, as Zhu et al. (arXiv 1703.10593)."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklcomp.nn._running import torch_session
from sklcomp.training._fit import TORCH_CONSTRAINTS, Session, TorchFitMixin
from sklcomp.translation._domains import TwoDomainsMixin
from sklcomp.translation._net import MODULES, CycleGANNet, run
from sklcomp.translation._training import make_net, train
from sklcomp.translation._unpaired import UnpairedImages
from sklcomp.utils._layout import shape_of
from sklcomp.utils._sklearn import Interval, StrOptions, fit_context, with_callbacks
from sklcomp.utils._validation import refuse_masked

# The last is of the trainings of CoEvolutionaryPruner alone.
LOSSES = ("cycle", "identity", "generator", "discriminator", "distill")


class CycleGANTranslator(
    TwoDomainsMixin,
    TorchFitMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    BaseEstimator,
):
    r"""Translate examples of one domain to another, learned without pairs.

    Two generators, G from A to B and F back, are trained with two discriminators, which
    tell what is true of a domain from what was made:

    .. math::
        \ell(D_B(G(a)), 1) + \ell(D_A(F(b)), 1)
        + \lambda_{cyc} \left( \|F(G(a)) - a\|_1 + \|G(F(b)) - b\|_1 \right)
        + \lambda_{id} \left( \|G(b) - b\|_1 + \|F(a) - a\|_1 \right)

    with mean absolute differences. ``transform`` is G and takes every row for one of A,
    ``inverse_transform`` is F and takes every row for one of B.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        Shape of one image that comes as a flat row: (height, width), (height, width,
        channels), or (channels, height, width) where only the first is 4 or less. With
        None, flat rows are plain vectors, translated by small dense networks, and
        arrays of images have the shape that they come in.
    generator : nn.Module, callable or pair of those, default=None
        Network from images (n, channels, height, width) in [-1, 1] to images of the
        same shape and range. A module is copied, and training goes on from its weights.
        A callable, for example a class, makes one (with ``n_channels`` if it has that
        argument). A pair holds the network from A to B and that from B to A. None:
        :class:`sklcomp.nn.CycleGANGenerator`.
    discriminator : nn.Module, callable or pair of those, default=None
        Network from images to scores of any shape. A pair holds that of A and that of
        B. None: :class:`sklcomp.nn.PatchDiscriminator` with as many layers as the
        images allow, at most 3.
    n_filters : int, default=64
        Width of the default networks.
    n_blocks : int, default=9
        Residual blocks of the default generators.
    cycle_weight : float, default=10.0
        Weight of the error of the cycles.
    identity_weight : float, default=5.0
        Weight of the change that a generator makes to examples which are of its target
        domain already. With 0 the generators have a third less to do.
    adversarial : {"lsgan", "vanilla"}, default="lsgan"
        Loss of the discriminators' scores: squared error, or cross entropy.
    pool_size : int, default=50
        Earlier images of each generator that are kept: half of those that a
        discriminator is shown are drawn from them. 0 keeps none.
    lr : float, default=2e-4
        Learning rate of all networks.
    batch_size : int, default=1
        Images of each domain in a step.
    max_epochs : int, default=200
        Passes through the larger domain.
    decay_start : float in [0, 1], default=0.5
        Share of the training after which the rates fall linearly to zero; 1 leaves them
        to callbacks.
    device : str, default="cpu"
        Where the training runs, for example "cuda".
    net_params : dict, default=None
        More settings of the skorch net, for example ``{"callbacks": [...]}`` or
        ``{"optimizer__betas": (0.9, 0.999)}``, where Adam has (0.5, 0.999) here;
        ``set_params(net__callbacks=...)`` sets them too.
    checkpoint : str or path, default=None
        Folder in which the state of the training is kept after every epoch.
    warm_start : bool, default=False
        Go on from the checkpoint, if there is one of the same fit; ``random_state``
        must be set.
    n_threads : int, default=1
        Threads that torch may use.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is drawn.
    verbose : int, default=0
        Positive prints the losses of every epoch.

    Attributes
    ----------
    generator_ab_ : nn.Module
        The generator from A to B.
    generator_ba_ : nn.Module
        The generator from B to A.
    discriminator_a_ : nn.Module
        The network that tells true examples of A from made ones.
    discriminator_b_ : nn.Module
        The network that tells true examples of B from made ones.
    net_ : skorch net
        The net that was trained, with all four networks, their optimizers and history.
    history_ : dict of str to ndarray of shape (n_epochs,)
        Mean of every weighted loss in every epoch: "cycle_a", "cycle_b", "identity_a",
        "identity_b", "generator_ab", "generator_ba" (adversarial), "discriminator_a",
        "discriminator_b".
    n_iter_ : int
        Epochs.
    classes_ : ndarray
        Labels of the domains; the first is A. 0 and 1 if y held images.
    image_shape_ : tuple of int
        Shape of one example.
    layout_ : object
        How rows become tensors of networks and back.
    n_features_in_ : int
        Numbers that make an example.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    sklcomp.compression.CoEvolutionaryPruner : Makes both generators small.

    Notes
    -----
    Images are uint8 in 0 to 255, or floats in [-1, 1]; what comes out has the layout,
    dtype and range of what went in. They are padded to a multiple of 4 pixels, at least
    8, and cropped afterwards.

    The score says how well a cycle closes, and nothing of how a translation looks: a
    translator that changes nothing has the best score.

    What does not wait for the other generator goes through a network in one call, the
    discriminators' weights get no gradients while generators learn, and weights lie
    with channels last: the same losses as in the published loop, in less time. (Batch
    norms, which the default networks do not have, see more images at once than there.)

    References
    ----------
    .. [1] J.-Y. Zhu, T. Park, P. Isola and A. A. Efros, "Unpaired Image-to-Image
       Translation using Cycle-Consistent Adversarial Networks", arXiv:1703.10593.

    Examples
    --------
    >>> from sklcomp.datasets import make_unpaired_digits
    >>> from sklcomp.translation import CycleGANTranslator
    >>> digits = make_unpaired_digits(40, image_size=8, random_state=0)
    >>> translator = CycleGANTranslator(
    ...     digits.image_shape, n_filters=4, n_blocks=1, batch_size=8, max_epochs=2,
    ...     random_state=0,
    ... )
    >>> translator.fit(digits.data, digits.target).transform(digits.data_a).shape
    (40, 192)
    """

    _parameter_constraints: dict[str, list] = {
        "image_shape": ["array-like", None],
        "generator": [nn.Module, callable, tuple, list, None],
        "discriminator": [nn.Module, callable, tuple, list, None],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
        "cycle_weight": [Interval(Real, 0, None, closed="left")],
        "identity_weight": [Interval(Real, 0, None, closed="left")],
        "adversarial": [StrOptions({"lsgan", "vanilla"})],
        "pool_size": [Interval(Integral, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "decay_start": [Interval(Real, 0, 1, closed="both")],
        "device": [str, torch.device],
        "net_params": [dict, None],
        **TORCH_CONSTRAINTS,
    }

    _fitted_names = ("net_",)

    def __init__(
        self,
        image_shape: Any = None,
        *,
        generator: Any = None,
        discriminator: Any = None,
        n_filters: Any = 64,
        n_blocks: Any = 9,
        cycle_weight: Any = 10.0,
        identity_weight: Any = 5.0,
        adversarial: Any = "lsgan",
        pool_size: Any = 50,
        lr: Any = 2e-4,
        batch_size: Any = 1,
        max_epochs: Any = 200,
        decay_start: Any = 0.5,
        device: Any = "cpu",
        net_params: Any = None,
        checkpoint: Any = None,
        warm_start: bool = False,
        n_threads: Any = 1,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.image_shape = image_shape
        self.generator = generator
        self.discriminator = discriminator
        self.n_filters = n_filters
        self.n_blocks = n_blocks
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight
        self.adversarial = adversarial
        self.pool_size = pool_size
        self.lr = lr
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.decay_start = decay_start
        self.device = device
        self.net_params = net_params
        self.checkpoint = checkpoint
        self.warm_start = warm_start
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    def get_params(self, deep: Any = True) -> Any:
        """Parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to list what is in ``net_params``, as ``net__<name>``.

        Returns
        -------
        params : dict
            Name -> value.
        """
        params = super().get_params(deep=deep)
        if deep and isinstance(self.net_params, dict):
            more = self.net_params.items()
            params |= {f"net__{name}": value for name, value in more}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator.

        Parameters
        ----------
        **params
            Name -> value; ``net__<name>`` goes into ``net_params``.

        Returns
        -------
        self : CycleGANTranslator
            This estimator.
        """
        inner = {
            name.removeprefix("net__"): params.pop(name)
            for name in list(params)
            if name.startswith("net__")
        }
        super().set_params(**params)
        if inner:
            self.net_params = {**(self.net_params or {}), **inner}
        return self

    @refuse_masked
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any) -> Self:
        """Train both generators.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Examples: flat rows, or images.
        y : array-like of shape (n_samples,), or images
            Domain of every row of X: those of the first class, in sorted order, are A,
            all others B; the form that cross-validation can split. Or the examples of
            domain B, as many as there are; then all of X is A.

        Returns
        -------
        self : CycleGANTranslator
            Fitted.
        """
        return self._fit(X, y)

    def _check(self, X: Any, y: Any) -> tuple[Any, Any, tuple]:
        return X, y, self._split_domains(X, y, reset=True)

    def _prepare(self, data: tuple, session: Session) -> tuple:
        a, b = map(self.layout_.to_tensor, data[2])
        return make_net(self), UnpairedImages(a, b)

    def _run(self, work: tuple, session: Session) -> CycleGANNet:
        net, images = work
        return train(self, net, images, session)

    def _name_results(self, net: CycleGANNet) -> None:
        for name in MODULES:
            getattr(net, f"{name}_").eval()
        self.net_ = net
        self.n_iter_ = len(net.history)
        self.history_ = {
            name: np.array([row[name] for row in net.history])
            for name in (net.history[0] if net.history else ())
            if name.startswith(LOSSES)
        }

    # Properties, so that a pickle has every network once and a GPU's loads without one.
    @property
    def generator_ab_(self) -> Any:
        """The generator from A to B."""
        return self.net_.module_

    @property
    def generator_ba_(self) -> Any:
        """The generator from B to A."""
        return self.net_.generator_ba_

    @property
    def discriminator_a_(self) -> Any:
        """The network that tells true examples of A from made ones."""
        return self.net_.discriminator_a_

    @property
    def discriminator_b_(self) -> Any:
        """The network that tells true examples of B from made ones."""
        return self.net_.discriminator_b_

    def _made(self, rows: np.ndarray, *generators: nn.Module) -> torch.Tensor:
        """What generators make of rows, one after the other."""
        images = self.layout_.to_tensor(rows)
        with torch_session(0, self.n_threads):
            for generator in generators:
                # Padded anew for each: what was made of the edges is no part of an
                # image.
                images = run(generator, self.layout_.pad(images))
        return images

    def _translate(self, X: Any, *generators: nn.Module) -> np.ndarray:
        """What generators make of X, in the form of X."""
        rows = self._check_rows(X, reset=False)
        dtype = rows.dtype
        # The translation of small whole numbers may leave 0 to 255, and need not be
        # whole.
        if dtype == np.uint8 and not self.layout_.is_image:
            dtype = np.dtype(np.float64)
        made = self.layout_.to_rows(self._made(rows, *generators), dtype)
        return made.reshape(len(made), *shape_of(X)[1:])

    @refuse_masked
    def transform(self, X: Any) -> np.ndarray:
        """Translate from the first domain to the second.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Examples; every row is taken for one of the first domain.

        Returns
        -------
        X_b : ndarray of the shape, dtype and range of X
            The translation.
        """
        check_is_fitted(self)
        return self._translate(X, self.generator_ab_)

    @refuse_masked
    def inverse_transform(self, X: Any) -> np.ndarray:
        """Translate from the second domain to the first.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Examples; every row is taken for one of the second domain.

        Returns
        -------
        X_a : ndarray of the shape, dtype and range of X
            The translation.
        """
        check_is_fitted(self)
        return self._translate(X, self.generator_ba_)

    @refuse_masked
    def cycle(self, X: Any) -> np.ndarray:
        """Translate from the first domain to the second and back.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Examples of the first domain.

        Returns
        -------
        X_a : ndarray of the shape, dtype and range of X
            X, if the generators were perfect.
        """
        check_is_fitted(self)
        return self._translate(X, self.generator_ab_, self.generator_ba_)

    @refuse_masked
    def score(self, X: Any, y: Any = None) -> float:
        """Negative error of the cycles of both domains.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Examples.
        y : array-like of shape (n_samples,), or images, default=None
            As in ``fit``; a domain may be missing, and without y all of X is taken for
            the first.

        Returns
        -------
        score : float
            Negative mean absolute difference, in units in which images lie in
            [-1, 1]; the mean over domains. Zero is best.
        """
        check_is_fitted(self)
        if y is None:
            a = self._check_rows(X, reset=False)
            domains = a, a[:0]
        else:
            domains = self._split_domains(X, y)
        pair = self.generator_ab_, self.generator_ba_
        errors = []
        for rows, generators in zip(domains, (pair, pair[::-1]), strict=True):
            if len(rows):
                # As rows, so that what was padded does not count.
                images, again = (
                    self.layout_.to_rows(self._made(rows, *path), np.float64)
                    for path in ((), generators)
                )
                errors.append(np.abs(again - images).mean())
        return -float(np.mean(errors))

    def __sklearn_is_fitted__(self) -> Any:
        # layout_ and others are set before the training, which may fail.
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.non_deterministic = False
        return tags
