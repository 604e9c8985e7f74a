"""DataFreeDistiller: student networks without data (arXiv 1904.01186)."""

import math
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import validate_data
from skorch import NeuralNet
from skorch.callbacks import InputShapeSetter
from torch import Generator, nn

from sklcomp.compression._base import Compressor
from sklcomp.compression._report import CompressionReport, describe
from sklcomp.compression.data_free._loop import DataFreeTraining
from sklcomp.compression.data_free._recipe import DataFreeRecipe
from sklcomp.compression.data_free._scores import SyntheticExamples
from sklcomp.compression.data_free._settings import (
    check_gradients,
    check_inputs,
    check_shape,
    choose_classes,
    count_norms,
    find_layer,
    settle_recipe,
    warn_of_collapse,
    without_features,
)
from sklcomp.compression.data_free._sources import (
    GeneratorSource,
    Inputs,
    NoiseSource,
    keep_on_cpu,
)
from sklcomp.nn._features import PENULTIMATE
from sklcomp.nn._running import device_of
from sklcomp.training._fit import TORCH_CONSTRAINTS, Session
from sklcomp.training._lesson import Teacher
from sklcomp.training._loop import naming_memory, train_net
from sklcomp.training._nets import OutputKind, rebuild_net
from sklcomp.utils._messages import show
from sklcomp.utils._recipe import RecipeMixin, recipe_of
from sklcomp.utils._sklearn import Interval, StrOptions, fit_context, with_callbacks
from sklcomp.utils._validation import refuse_masked

# Examples that a teacher is tried on.
N_PROBES = 64
# What there is to make smaller where memory runs out.
SIZES = "batch_size, generator_batch_size or replay_size"


class Work(NamedTuple):
    """A student's net, the training of its module, and what examples are like."""

    net: Any
    training: DataFreeTraining
    inputs: Inputs


class DataFreeDistiller(RecipeMixin, SyntheticExamples, Compressor):
    r"""Train a small network from a trained one without any data.

    A generator learns to make examples that the teacher takes for typical ones, and the
    student learns to answer them as the teacher does. Nothing is seen of the data that
    the teacher was trained on: at most the range, mean and standard deviation of its
    values are told. The generator minimises

    .. math::
        w_{oh} \, CE(t, \arg\max t) + w_{ie} \sum_j \bar p_j \log_{10} \bar p_j
        - w_a \, \overline{|f|}

    with scores t, features f and mean probabilities :math:`\bar p` of the teacher, and
    whatever else the weights of the recipe ask for; the student minimises the
    divergence of its softened answers from the teacher's.

    Parameters
    ----------
    student : skorch.NeuralNetClassifier
        Your small net, not fitted. Its module is used; its own lr, optimizer, batch
        size and epochs are not: those are in the recipe. Nor is its loss, which only
        tells skorch whether ``predict_proba`` needs a softmax. If its module has a
        parameter ``n_classes`` that is not set, it is set to what is needed.
    teacher : nn.Module or skorch net
        A trained module, or a fitted net in ``sklearn.frozen.FrozenEstimator``, is used
        as it is, and the data given to ``fit`` are not looked at. An unfitted net is
        first trained on them. Gradients go through it, and it never changes.
    recipe : str or DataFreeRecipe, default="auto"
        Losses, rates, sizes and all else of the training: a :class:`DataFreeRecipe`, or
        the name of a published one. "auto" is "fast-bn" if the teacher has batch norms,
        else "fast"; "paper-mnist", "paper-cifar10" and "paper-cifar100" are those of
        the authors' code, made for hours of a GPU. A search reaches a setting as
        ``recipe__entropy_weight``, unless the recipe is "auto".
    input_shape : tuple of int, default=None
        (channels, height, width), or (n_features,), of one example. None takes it from
        X.
    input_range : tuple of two values, default=None
        Least and greatest value of an example, in the units that the teacher sees; each
        a number or one for each channel. Noise stays within it, and so does what a
        generator with the head "range" makes.
    input_mean : float or sequence of float, default=0.0
        Mean of the values, one for all or one for each channel. For vectors, one for
        each feature is worth much. A generator with the head "batchnorm" gives its
        batches this mean.
    input_std : float or sequence of float, default=1.0
        Standard deviation of the values, given like the mean.
    classes : array-like of shape (n_classes,), default=None
        What the outputs of a trained teacher stand for. None takes its own, those of y
        if it knows others, or numbers from 0.
    feature_layer : str, default="penultimate"
        Name of a part of the teacher's module whose output is the features, or
        "penultimate": the input of the Linear that runs last.
    from_logits : bool or "auto", default="auto"
        Whether the outputs of the teacher are scores before softmax. "auto" looks
        whether they are positive and add up to one.
    generator : nn.Module, default=None
        A generator of your own: takes noise (n, ``latent_dim``), and int64 labels (n,)
        if the recipe says ``conditional=True``, and gives examples.
    synthesis : {"generator", "structured_noise"}, default="generator"
        "structured_noise" draws random shapes instead, see
        :func:`sklcomp.nn.structured_noise`: a control that any generator has to beat,
        and a way for a teacher through which no gradients go.
    n_iterations : int, default=None
        Steps of the generator. None takes as many as the recipe says.
    device : str, default="cpu"
        Where the training is computed. What is kept of it is on the CPU, so that it can
        be loaded without a GPU; so are ``sample`` and ``data_free_score``.
    checkpoint : str or path, default=None
        Folder in which the state of the training is kept, up to twenty times in a fit.
    warm_start : bool, default=False
        Go on from the checkpoint, if there is one of the same fit; ``random_state``
        must be set.
    n_threads : int, default=1
        Threads that torch may use.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is drawn: same number, same result.
    verbose : int, default=0
        Positive prints the losses every ``verbose`` iterations.

    Attributes
    ----------
    estimator_ : skorch net
        The fitted student: a plain net of your own class.
    student_ : skorch net
        The same.
    module_ : nn.Module
        Its module.
    teacher_ : nn.Module
        The teacher's module: a copy on the CPU, in evaluation mode.
    generator_ : nn.Module or None
        The generator, as it was in the end.
    recipe_ : DataFreeRecipe
        The recipe that was used: yours, or the published one, with ``n_iterations``,
        what "auto" became, and without the losses that these networks do not have.
    history_ : dict of str to ndarray of shape (n_iterations,)
        Losses of the generator by name, those of the student ("kd", "feature"), and
        "classes" of shape (n_iterations, n_classes): how many new examples the teacher
        put into each class.
    report_ : CompressionReport
        Sizes and speed of the teacher (before) and the student (after).
    classes_ : ndarray of shape (n_classes,)
        Classes.
    n_iter_ : int
        Steps of the generator that were taken.
    n_features_in_ : int
        Length of the second axis of X, if ``fit`` was given any.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    DataFreeRecipe : All settings of the training.
    FeatureEmbeddingDistiller : Trains a student with data.
    sklcomp.inspection.DistillationDisplay : Draws losses and generated images.

    Notes
    -----
    ``fit`` takes no data, so that no test set can choose the best epoch, as the
    published script does: the result is the last iterate, or the average. To choose
    hyper-parameters, a few real examples are best, labelled or not (``score``,
    ``agreement_score``); without any, ``data_free_score`` is what there is. In a grid
    search X and y serve for scoring alone.

    The losses have the forms of the authors' code, to which the published weights
    belong. The recipes "fast" and "fast-bn" are ours: structured noise beside the
    generator, several student steps from a bank of examples, augmentation that the
    teacher labels anew, a moving average, and batch norms that vanish in the end.

    References
    ----------
    .. [1] H. Chen, Y. Wang, C. Xu, Z. Yang, C. Liu, B. Shi, C. Xu, C. Xu and Q. Tian,
       "Data-Free Learning of Student Networks", arXiv:1904.01186.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from sklcomp.compression import DataFreeDistiller
    >>> X, y = load_iris(return_X_y=True)
    >>> X = torch.tensor(scale(X), dtype=torch.float32)
    >>> def net(width):
    ...     return torch.nn.Sequential(
    ...         torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 3)
    ...     )
    >>> _ = torch.manual_seed(0)
    >>> teacher = net(50)
    >>> optimizer = torch.optim.Adam(teacher.parameters(), 0.01)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     torch.nn.functional.cross_entropy(teacher(X), torch.tensor(y)).backward()
    ...     optimizer.step()
    >>> student = NeuralNetClassifier(net(8), criterion=torch.nn.CrossEntropyLoss)
    >>> distiller = DataFreeDistiller(
    ...     student, teacher, input_shape=(4,), n_iterations=40, random_state=0
    ... ).fit()
    >>> distiller.score(X, y) > 0.85
    True
    """

    teacher_: nn.Module
    _recipe_type = DataFreeRecipe
    _net_name = "student"
    _source_name = "teacher"
    _fitted_names = ("estimator_", "classes_", "n_features_in_", "feature_names_in_")

    _parameter_constraints: dict[str, list] = {
        "student": [NeuralNet],
        "teacher": [NeuralNet, FrozenEstimator, nn.Module],
        "recipe": [StrOptions({"auto", *DataFreeRecipe._published}), DataFreeRecipe],
        "input_shape": ["array-like", None],
        "input_range": ["array-like", None],
        "input_mean": [Real, "array-like"],
        "input_std": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "classes": ["array-like", None],
        "feature_layer": [str],
        "from_logits": ["boolean", StrOptions({"auto"})],
        "generator": [nn.Module, None],
        "synthesis": [StrOptions({"generator", "structured_noise"})],
        "n_iterations": [Interval(Integral, 1, None, closed="left"), None],
        "device": [str],
        **TORCH_CONSTRAINTS,
    }

    def __init__(
        self,
        student: Any,
        teacher: Any,
        *,
        recipe: Any = "auto",
        input_shape: Any = None,
        input_range: Any = None,
        input_mean: Any = 0.0,
        input_std: Any = 1.0,
        classes: Any = None,
        feature_layer: Any = "penultimate",
        from_logits: Any = "auto",
        generator: Any = None,
        synthesis: Any = "generator",
        n_iterations: Any = None,
        device: Any = "cpu",
        checkpoint: Any = None,
        warm_start: bool = False,
        n_threads: Any = 1,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.recipe = recipe
        self.input_shape = input_shape
        self.input_range = input_range
        self.input_mean = input_mean
        self.input_std = input_std
        self.classes = classes
        self.feature_layer = feature_layer
        self.from_logits = from_logits
        self.generator = generator
        self.synthesis = synthesis
        self.n_iterations = n_iterations
        self.device = device
        self.checkpoint = checkpoint
        self.warm_start = warm_start
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    @property
    def student_(self) -> Any:
        """The fitted student, as ``estimator_``."""
        return self.estimator_

    @property
    def module_(self) -> nn.Module:
        """Its module."""
        return self.estimator_.module_

    @refuse_masked
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Train the student.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            Needed to train a teacher that is not trained yet. A trained one learns
            nothing from it; ``input_shape`` may be taken from its shape.
        y : array-like of shape (n_samples,), default=None
            Classes of the rows of X, needed where X is.

        Returns
        -------
        self : DataFreeDistiller
            Fitted.

        Raises
        ------
        ValueError
            If teacher, student, shapes and ranges do not fit together, if no gradients
            come through the teacher, or if a loss is not finite in the first iteration.
        RuntimeError
            If the device is not there.
        MemoryError
            With what to make smaller.
        """
        return self._fit(X, y)

    def _check(self, X: Any, y: Any) -> tuple[Any, Any]:
        """X and y as far as they are given and needed."""
        if not is_classifier(self._prototype):
            msg = (
                f"student={show(self.student)} is no classifier; answers are classes "
                "here."
            )
            raise ValueError(msg)
        self._check_kinds()
        # Which one "auto" is the teacher says later; neither can be wrong.
        recipe_of(self, DataFreeRecipe, auto="fast")
        if self._ready_module() is None:
            if X is None:
                msg = (
                    "the teacher is not trained, so X and y are needed; or give a "
                    "trained one as nn.Module, or inside FrozenEstimator."
                )
                raise ValueError(msg)
            return self._check_fit_data(X, y)
        if X is not None:
            X = validate_data(self, X, dtype=np.float32, allow_nd=True)
        return X, y

    def _prepare(self, data: tuple, session: Session) -> Work:
        """The teacher as a judge, a source of examples and a student to train."""
        X, y = data
        module = self._ready_module()
        if module is None:
            module = train_net(self._untrained("teacher", y), X, y).module_
        self.teacher_ = module
        # One generator for noise, latent draws and batches. The order in which it is
        # drawn from must stay, or a seed would give another student.
        rng = Generator(self.device).manual_seed(session.seed)
        inputs = check_inputs(self.get_params(deep=False), X)
        self._shape_in = inputs.shape
        teacher, recipe = self._make_judge(inputs, rng, y)
        with naming_memory("out of memory", SIZES):
            net, training = self._make_training(teacher, inputs, recipe, rng)
        return Work(net, training, inputs)

    def _make_judge(
        self, inputs: Inputs, rng: Generator, y: Any
    ) -> tuple[Teacher, DataFreeRecipe]:
        """The teacher as a judge, and the recipe for it."""
        # There are no data to try a teacher on; noise of the right shape and range will
        # do.
        probes = inputs.noise(N_PROBES, rng)
        n_outputs = self._count_outputs(self.teacher_, probes.cpu().numpy(), "teacher")
        if n_outputs < 2:
            msg = "the teacher has 1 output; give one with an output for each class."
            raise ValueError(msg)
        if self._ready_module() is not None:
            self.classes_ = choose_classes(self.classes, self.teacher, y, n_outputs)
        elif self.classes is not None or n_outputs != len(self.classes_):
            msg = (
                f"the teacher that was trained on y has {n_outputs} outputs for "
                f"{len(self.classes_)} classes of y; these name them, so give its "
                "module as many, and classes=None."
            )
            raise ValueError(msg)
        examples = probes.to(device_of(self.teacher_))
        n_norms = count_norms(self.teacher_, examples)
        recipe = recipe_of(self, DataFreeRecipe, "fast-bn" if n_norms else "fast")
        params = self.get_params(deep=False)
        recipe = settle_recipe(
            recipe, params, self.teacher_, inputs, n_outputs, n_norms
        )
        is_needed = bool(recipe.activation_weight or recipe.feature_weight)
        layer = find_layer(self.teacher_, self.feature_layer, examples, is_needed)
        teacher = Teacher(self.teacher_, layer, True, probes, self.device)
        if self.from_logits != "auto":
            teacher.task = OutputKind(True, is_probability=not self.from_logits)
        if layer is None:
            recipe = without_features(
                recipe, "teacher", ("activation_weight", "feature_weight")
            )
        # Noise needs no gradients: it is the way out for teachers without them.
        if self.synthesis == "generator":
            check_gradients(teacher.module, probes)
        return teacher, recipe

    def _make_training(
        self, teacher: Teacher, inputs: Inputs, recipe: DataFreeRecipe, rng: Generator
    ) -> tuple[Any, DataFreeTraining]:
        """The untrained student, and a training that has not begun."""
        net = self._untrained("student", np.zeros(1, np.int64)).initialize()
        probes = inputs.noise(N_PROBES, rng)
        for _, callback in net.callbacks_:
            if isinstance(callback, InputShapeSetter):
                callback.on_train_begin(net, X=probes.cpu().numpy(), y=None)
        n_outputs = self._count_outputs(net.module_, probes.cpu().numpy(), "student")
        if n_outputs != len(self.classes_):
            msg = (
                f"the student has {n_outputs} outputs, the teacher "
                f"{len(self.classes_)}; give its module as many."
            )
            raise ValueError(msg)
        student = net.module_.to(self.device)
        if recipe.feature_weight and not find_layer(
            student, PENULTIMATE, probes, is_needed=False
        ):
            recipe = without_features(recipe, "student", ("feature_weight",))
        source: Any = None
        noise = None
        if self.synthesis == "structured_noise" or recipe.noise_share:
            source = noise = NoiseSource(teacher, inputs, n_outputs, recipe, rng)
        if self.synthesis == "generator":
            source = GeneratorSource(
                teacher, inputs, n_outputs, recipe, rng, self.generator
            )
            check_shape(source.sample(2), inputs)
        self.recipe_ = recipe
        task = OutputKind.of_module(student, probes, True)
        return net, DataFreeTraining(student, task, teacher, source, noise, recipe, rng)

    def _run(self, work: Work, session: Session) -> Work:
        """All iterations that are left."""
        _, training, inputs = work

        def describe_start() -> list:
            own = self.synthesis, self.feature_layer, self.from_logits, self.device
            return [training.networks(), session.seed, inputs, self.recipe_, *own]

        with naming_memory("out of memory", SIZES):
            record = session.checkpoint.record("training", describe_start)
            if (state := record.load()) is not None:
                training.restore(state)
            training.run(record, session.reporter, int(self.verbose))
        return work

    def _name_results(self, result: Work) -> None:
        net, training, inputs = result
        # No test set has chosen among epochs, as the published script does with real
        # labels: the result is the last iterate, or the average.
        history = training.history
        net = rebuild_net(net, training.finish()).initialize()
        net.module_.eval()
        net.classes_inferred_ = np.arange(len(self.classes_))
        self.n_iter_ = len(history["classes"])
        self.history_ = {name: np.array(values) for name, values in history.items()}
        self.generator_ = getattr(training.source, "generator", None)
        keep_on_cpu(training.source)
        self._source, self._inputs = training.source, inputs
        self._task, self._teacher = training.task, training.teacher
        self.teacher_ = self._teacher.module
        if self.generator_ is not None:
            warn_of_collapse(self.history_["classes"], self.classes_)
        example = training.source.sample(2)[:1]
        self.report_ = CompressionReport(
            describe(self.teacher_, example), describe(net.module_, example)
        )
        self.estimator_ = net

    def _check_X(self, X: Any) -> np.ndarray:
        """In the shape that the student has learnt; rows may be flat."""
        X, shape = super()._check_X(X), self._shape_in
        is_flat = X.ndim == 2 or len(shape) == 1
        if is_flat and X[0].size == math.prod(shape):
            return X.reshape(-1, *shape)
        return X

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = isinstance(self.teacher, NeuralNet)
        tags.classifier_tags.poor_score = True
        return tags
