"""CoEvolutionaryPruner: two generators made small together (arXiv 1907.10804)."""

from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sklcomp.compression._report import CompressionReport
from sklcomp.compression.search._mixin import SearchMixin
from sklcomp.compression.search._pair_fitness import (
    Direction,
    describe_pair,
)
from sklcomp.compression.search._pair_training import (
    both_ways,
    domains_of,
    fitted_translator,
    hold_out_images,
    max_epochs,
    tune_pair,
    weights_of_all,
)
from sklcomp.compression.search._problem import FRONT_SHARES, PruningProblem
from sklcomp.compression.search._recipe import PairRecipe
from sklcomp.compression.search._results import (
    front_of,
    kept_channels,
    with_uniform_pairs,
)
from sklcomp.evolution import CoevolutionResult, coevolve
from sklcomp.training._checkpoint import NOWHERE
from sklcomp.training._fit import TORCH_CONSTRAINTS, Session, TorchFitMixin
from sklcomp.training._state import settings_of
from sklcomp.translation import CycleGANTranslator
from sklcomp.utils._sklearn import Interval, StrOptions, fit_context, with_callbacks
from sklcomp.utils._validation import refuse_masked

# Pixels of the wanted number of patches, at a quarter of the width and height.
MIN_EXAMPLES, N_PIXELS = 16, 16 * 20_000
# What a checkpoint of the search need not agree in.
FREE = ("recipe", "checkpoint", "warm_start", "n_jobs", "verbose", "finetune_epochs",
        "distill_weight")  # fmt: skip
# What of the translator the trainings of individuals do not depend on.
TRANSLATOR_FREE = (*FREE, "device", "max_epochs", "random_state")


class Work(NamedTuple):
    """What a search, and the training of its winners, need of both directions.

    Attributes
    ----------
    base : CycleGANTranslator
        The full translator.
    problems : tuple of two PruningProblem
        Of the generators from A to B and back.
    directions : tuple of two Direction
        Fitness of a genome and its partner.
    domains, train : sequence of two Tensor
        Images of A and of B: all, and those that are not held out.
    rng : numpy.random.Generator
        Source of randomness.
    """

    base: CycleGANTranslator
    problems: tuple[PruningProblem, PruningProblem]
    directions: tuple[Direction, ...]
    domains: list[Tensor]
    train: tuple[Tensor, Tensor]
    rng: np.random.Generator


class CoEvolutionaryPruner(
    SearchMixin,
    TorchFitMixin,
    MetaEstimatorMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    BaseEstimator,
):
    r"""Make both generators of an unpaired translation small, together.

    Two populations of bit strings, one for each generator, evolve side by side. A bit
    stands for a channel, and channels that are added up share one. Each individual is
    cut out of its generator and scored with the best of the other population, a
    generation before, as the way back:

    .. math::
        f(p) = -\frac{1}{m} \sum_i \left( D(G(x_i)) - D(G_p(x_i)) \right)^2
        - \frac{1}{m} \sum_i \| F_q(G_p(x_i)) - x_i \|^2
        - \frac{5}{m} \sum_i \| G_p(x_i) - G(x_i) \|^2

    with the discriminator's mean answer D to an image, the full generator G, the cut
    one :math:`G_p`, the other population's best :math:`F_q` and mean squares over
    pixels. The last term is ours: without it, a generator that does less is rewarded,
    as its cycles are shorter. ``recipe="paper"`` is the published form,
    :math:`1 / (N(p) + \gamma(D + \lambda C))` with the first two terms D and C and the
    share N of parameters that is left. The best pair is built with truly smaller
    tensors and trained on, listening to the full generators.

    Parameters
    ----------
    translator : CycleGANTranslator
        Unfitted, it is trained first, on the data of ``fit``. A fitted one goes into
        ``sklearn.frozen.FrozenEstimator`` and stays as it is. Its skorch callbacks take
        part in the trainings of small generators, except those that write or read files
        of parameters.
    max_params : float in (0, 1] or int, default=None
        Budget of parameters of each generator: a share, or a number.
    max_macs : float in (0, 1] or int, default=None
        Budget of multiply-accumulate operations of each: a share, or a number. At least
        one budget is needed, except with ``recipe="paper"``.
    recipe : {"default", "paper"} or PairRecipe, default="default"
        How the search is done and the best pair is trained; see :class:`PairRecipe`.
        "paper" is the published form.
    population_size : int, default=None
        Individuals of each population; None is what the recipe says.
    n_generations : int, default=None
        Generations after the start; None is what the recipe says.
    n_fitness_samples : int, default=16
        Images of each domain that are held out for the fitness, at most a quarter. Of
        fewer than four images none is, and all are used for both. An unfitted
        translator is trained on all images.
    fitness_epochs : int, default=0
        Epochs for which a pair is trained before it is scored. The published search has
        10, which takes thousands of times as long.
    finetune_epochs : int, default=None
        Epochs for which the best pair is trained; None is the ``max_epochs`` of the
        translator, 0 none. The pair stays as it was cut, with a warning, if training
        made it worse on the held-out images: farther from those of the full generators,
        and with worse cycles. Rates fall as ``decay_start`` of the translator says.
    n_jobs : int, default=None
        Evaluations at a time; the result does not depend on it.
    checkpoint : str or path, default=None
        Folder in which the states of the search and of both trainings are kept.
    warm_start : bool, default=False
        Go on from the checkpoint, if there is one of the same fit; ``random_state``
        must be set.
    n_threads : int, default=1
        Threads of torch within a training or an evaluation.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is drawn.
    verbose : int, default=0
        Positive prints the best fitness of each generation.

    Attributes
    ----------
    estimator_ : CycleGANTranslator
        The small translator, plain and fitted; its ``fit`` trains it on.
    translator_ : CycleGANTranslator
        The same.
    base_translator_ : CycleGANTranslator
        The translator before compression.
    kept_channels_ab_ : dict of str to ndarray of int
        Layer -> indices of the channels that the generator from A to B kept.
    kept_channels_ba_ : dict of str to ndarray of int
        The same of the generator from B to A.
    graph_ab_ : sklcomp.nn.ChannelGraph
        Which channels of the generator from A to B belong together.
    graph_ba_ : sklcomp.nn.ChannelGraph
        The same of the generator from B to A.
    recipe_ : PairRecipe
        The values that were used.
    winners_ : dict of str to tuple of (int, float)
        For "ab" and "ba": parameters and fitness of the best.
    history_ : dict of str to ndarray
        "best_a", "mean_a" (generators from A to B), "best_b", "mean_b" fitness and
        "n_evaluations" of every generation.
    pareto_front_ : dict of str to dict
        For "ab" and "ba": "genomes", "fitness" (with the last partner that they met),
        "n_parameters" and "n_macs" of all that were scored and that nothing smaller
        beats.
    report_ : CompressionReport
        Sizes, speed and "training score" of both generators together, before and after,
        and which pair was kept and why. The score is minus the error of the cycles of
        images that the small generators, but maybe not the full ones, have not seen.
    n_evaluations_ : int
        Networks that were built and scored.
    n_features_in_ : int
        Numbers that make an example.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    sklcomp.translation.CycleGANTranslator : What is compressed.
    PairRecipe : All settings of the search and of the training behind it.
    EvolutionaryPruner : The same for one network with labels.

    Notes
    -----
    The published program trains every individual for ten epochs from its second
    generation on, and applies its masks to the wrong layers. Here a closed-form repair
    does more than that training, in milliseconds. Its partner is the best of the
    present generation; in the paper, and here, it is that of the generation before.

    References
    ----------
    .. [1] H. Shu, Y. Wang, X. Jia, K. Han, H. Chen, C. Xu, Q. Tian and C. Xu,
       "Co-Evolutionary Compression for Unpaired Image Translation", arXiv:1907.10804.

    Examples
    --------
    >>> from sklcomp.compression import CoEvolutionaryPruner
    >>> from sklcomp.datasets import make_unpaired_digits
    >>> from sklcomp.translation import CycleGANTranslator
    >>> digits = make_unpaired_digits(40, image_size=8, random_state=0)
    >>> pruner = CoEvolutionaryPruner(
    ...     CycleGANTranslator(
    ...         digits.image_shape, n_filters=4, n_blocks=1, batch_size=8, max_epochs=2
    ...     ),
    ...     max_params=0.4, n_generations=2, random_state=0,
    ... ).fit(digits.data, digits.target)
    >>> pruner.report_.ratio("parameters") <= 0.4
    True
    >>> pruner.transform(digits.data_a).shape
    (40, 192)
    """

    _parameter_constraints: dict[str, list] = {
        "translator": [CycleGANTranslator, FrozenEstimator],
        "max_params": [Interval(Real, 0, None, closed="neither"), None],
        "max_macs": [Interval(Real, 0, None, closed="neither"), None],
        "recipe": [StrOptions({"default", "paper"}), PairRecipe],
        "population_size": [Interval(Integral, 2, None, closed="left"), None],
        "n_generations": [Interval(Integral, 0, None, closed="left"), None],
        "n_fitness_samples": [Interval(Integral, 1, None, closed="left")],
        "fitness_epochs": [Interval(Integral, 0, None, closed="left")],
        "finetune_epochs": [Interval(Integral, 0, None, closed="left"), None],
        "n_jobs": [Integral, None],
        **TORCH_CONSTRAINTS,
    }

    _recipe_type = PairRecipe

    _fitted_names = ("estimator_", "translator_")

    def __init__(
        self,
        translator: Any,
        *,
        max_params: Any = None,
        max_macs: Any = None,
        recipe: Any = "default",
        population_size: Any = None,
        n_generations: Any = None,
        n_fitness_samples: Any = 16,
        fitness_epochs: Any = 0,
        finetune_epochs: Any = None,
        n_jobs: int | None = None,
        checkpoint: Any = None,
        warm_start: bool = False,
        n_threads: Any = 1,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.translator = translator
        self.max_params = max_params
        self.max_macs = max_macs
        self.recipe = recipe
        self.population_size = population_size
        self.n_generations = n_generations
        self.n_fitness_samples = n_fitness_samples
        self.fitness_epochs = fitness_epochs
        self.finetune_epochs = finetune_epochs
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.warm_start = warm_start
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    @refuse_masked
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any) -> Self:
        """Search, cut and train on.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Examples, as the translator's ``fit`` takes them.
        y : array-like of shape (n_samples,), or images
            The domain of every row, or the examples of domain B.

        Returns
        -------
        self : CoEvolutionaryPruner
            Fitted.
        """
        return self._fit(X, y)

    def _check(self, X: Any, y: Any) -> tuple[Any, Any]:
        self._check_search()
        return X, y

    def _prepare(self, data: tuple, session: Session) -> Work:
        """The trained pair, as two problems of which genomes are scored."""
        X, y = data
        base = fitted_translator(self, X, y, session)
        domains = domains_of(self, base, X, y)
        for name in ("n_features_in_", "feature_names_in_"):
            # Those of an earlier fit must not outlive data without names.
            self.__dict__.pop(name, None)
            if hasattr(base, name):
                setattr(self, name, getattr(base, name))
        rng = np.random.default_rng(session.seed)
        parts = [hold_out_images(x, self.n_fitness_samples, rng) for x in domains]
        train, held = zip(*parts, strict=True)
        problems = self._problems(base, train, rng)
        directions = self._directions(base, problems, train, held, session.seed)
        return Work(base, problems, directions, domains, train, rng)

    def _run(self, work: Work, session: Session) -> tuple:
        """Search, then train the best pair."""
        result = self._search(work, session)
        return work, result, *self._tune(work, result, session)

    def _problems(
        self, base: CycleGANTranslator, train: Any, rng: np.random.Generator
    ) -> tuple[PruningProblem, PruningProblem]:
        generators = base.generator_ab_, base.generator_ba_
        first, second = (
            PruningProblem(
                module,
                images,
                max_params=self.max_params,
                max_macs=self.max_macs,
                importance=self.recipe_.importance,
                compensate=self.recipe_.compensate,
                ignored_layers=(),
                min_channels=1,
                rng=rng,
                inner_width=self.recipe_.inner_width,
                n_examples=max(MIN_EXAMPLES, N_PIXELS // images[0, 0].numel()),
            )
            for module, images in zip(generators, train, strict=True)
        )
        return first, second

    def _directions(
        self, base: CycleGANTranslator, problems: Any, train: Any, held: Any, seed: int
    ) -> tuple[Direction, ...]:
        learn: Any = (None, None)
        if self.fitness_epochs:
            learn = both_ways(base, train, self.fitness_epochs, seed, self.n_threads)
        # What is made from A is of B, so the judge of B looks at it.
        judges = base.discriminator_b_, base.discriminator_a_
        loss = {"gamma": self.recipe_.gamma, "cycle_weight": self.recipe_.cycle_weight}
        return tuple(
            Direction(
                problems[k], problems[1 - k], judges[k], held[k], train=learn[k], **loss
            )
            for k in range(2)
        )

    def _search(self, work: Work, session: Session) -> CoevolutionResult:
        """Evolve, and keep the state of every generation where that is wanted."""
        starts, operators, values = self._start_of(work.problems, work.rng)

        def describe_start() -> list:
            images = [one.numpy(force=True) for one in work.domains]
            settings = [settings_of(self, self.recipe_, but=FREE)]
            if self.fitness_epochs:
                # How the translator trains matters only where individuals train.
                settings.append(settings_of(work.base, but=TRANSLATOR_FREE))
            return [images, session.seed, weights_of_all(work.base), settings]

        record = session.checkpoint.record("search", describe_start)
        result = coevolve(
            work.directions,
            starts,
            rng=work.rng,
            state=record.load(),
            callback=self._after_generation(record, session),
            # All trainings share one generator of random numbers; None might be more.
            n_jobs=1 if self.fitness_epochs else self.n_jobs,
            **operators,
            **values,
        )
        self._tell_best({f"best_{k}": result.history[f"best_{k}"] for k in "ab"})
        if not work.problems[0].has_budget:
            return result
        return with_uniform_pairs(work.problems, work.directions, result)

    def _tune(
        self, work: Work, result: CoevolutionResult, session: Session
    ) -> tuple[CycleGANTranslator, str]:
        """Build the best pair and train it; the better of before and after."""
        base = work.base
        pair = tuple(
            problem.finish(best)
            for problem, best in zip(work.problems, result.best, strict=True)
        )
        n_epochs = self.finetune_epochs
        n_epochs = max_epochs(base) if n_epochs is None else n_epochs
        settings = {
            "weight": self.recipe_.distill_weight,
            "n_threads": self.n_threads,
            "checkpoint": session.checkpoint.inside("tuning") if n_epochs else NOWHERE,
        }
        train, seed = work.train, session.seed
        return tune_pair(base, pair, train, n_epochs, seed, work.directions, settings)

    def _name_results(self, result: tuple) -> None:
        work, found, tuned, note = result
        self.base_translator_ = base = work.base
        self.history_ = found.history
        n_uniform = 2 * len(FRONT_SHARES) if work.problems[0].has_budget else 0
        self.n_evaluations_ = int(found.history["n_evaluations"][-1]) + n_uniform
        self.pareto_front_, self.winners_ = {}, {}
        for k, side in enumerate(("ab", "ba")):
            problem = work.problems[k]
            self.pareto_front_[side] = front_of(
                problem, found.genomes[k], found.fitness[k]
            )
            kept = kept_channels(problem.graph, found.best[k])
            setattr(self, f"kept_channels_{side}_", kept)
            setattr(self, f"graph_{side}_", problem.graph)
            n_parameters = problem.cost(found.best[k])[0]
            self.winners_[side] = n_parameters, found.best_fitness[k]
        self.estimator_ = self.translator_ = tuned
        full = base.generator_ab_, base.generator_ba_
        small = tuned.generator_ab_, tuned.generator_ba_
        sides = [
            describe_pair(one, work.directions, base.layout_) for one in (full, small)
        ]
        self.report_ = CompressionReport(sides[0], sides[1], note)

    @refuse_masked
    def transform(self, X: Any) -> np.ndarray:
        """Translate from the first domain to the second, with the small generator.

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
        return self.estimator_.transform(X)

    @refuse_masked
    def inverse_transform(self, X: Any) -> np.ndarray:
        """Translate from the second domain to the first, with the small generator.

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
        return self.estimator_.inverse_transform(X)

    @refuse_masked
    def score(self, X: Any, y: Any = None) -> float:
        """Negative error of the cycles of both domains.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Examples.
        y : array-like, default=None
            As in ``fit``; a domain may be missing, and without y all of X is taken for
            the first.

        Returns
        -------
        score : float
            Negative mean absolute difference. Zero is best.
        """
        check_is_fitted(self)
        return self.estimator_.score(X, y)

    def __sklearn_is_fitted__(self) -> Any:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.non_deterministic = False
        return tags
