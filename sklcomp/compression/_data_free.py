"""Student networks without data, after Chen et al. (arXiv 1904.01186)."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch import NeuralNet
from skorch.callbacks import InputShapeSetter
from torch import nn

from sklcomp.compression._base import Compressor
from sklcomp.compression._data_free_settings import (
    check_gradients,
    check_inputs,
    choose_classes,
    count_norms,
    drop_features,
    find_layer,
    has_failed,
    resolve_settings,
    warn_of_collapse,
)
from sklcomp.compression._data_free_training import DataFreeTraining
from sklcomp.compression._presets import SYNTHESIS
from sklcomp.compression._report import CompressionReport, describe
from sklcomp.compression._synthesis import (
    GeneratorSource,
    Inputs,
    NoiseSource,
    draw_judges,
    keep_on_cpu,
)
from sklcomp.nn import kd_loss
from sklcomp.nn._features import PENULTIMATE
from sklcomp.nn._running import device_of, torch_session
from sklcomp.training._checkpoint import Record
from sklcomp.training._fit import TORCH_CONSTRAINTS, Session
from sklcomp.training._lesson import Teacher
from sklcomp.training._loop import naming_memory, train_net
from sklcomp.training._nets import Task, rebuild_net
from sklcomp.utils._messages import show
from sklcomp.utils._sklearn import Interval, StrOptions, fit_context, with_callbacks
from sklcomp.utils._validation import refuse_masked

# Examples that a teacher is tried on, and checkpoints of a fit.
N_PROBES, N_CHECKPOINTS = 64, 20
# What there is to make smaller where memory runs out.
SIZES = "batch_size, generator_batch_size or replay_size"


class Work(NamedTuple):
    """A student's net, the training of its module, and what examples are like."""

    net: Any
    training: DataFreeTraining
    inputs: Inputs


class DataFreeDistiller(Compressor):
    r"""Train a small network from a trained one without any data.

    A generator learns to make examples that the teacher takes for typical ones, and the
    student learns to answer them as the teacher does. Nothing is seen of the data that
    the teacher was trained on: at most the range, mean and standard deviation of its
    values are told. The generator minimises

    .. math::
        w_{oh} \, CE(t, \arg\max t) + w_{ie} \sum_j \bar p_j \log_{10} \bar p_j
        - w_a \, \overline{|f|}

    with scores t, features f and mean probabilities :math:`\bar p` of the teacher, and
    whatever else the weights below ask for; the student minimises the divergence of its
    softened answers from the teacher's.

    Parameters
    ----------
    student : skorch.NeuralNetClassifier
        Your small net, not fitted. Its module is used; its own lr, optimizer, batch
        size and epochs are not: those are parameters here. Nor is its loss, which only
        tells skorch whether ``predict_proba`` needs a softmax. If its module has a
        parameter ``n_classes`` that is not set, it is set to what is needed.
    teacher : nn.Module or skorch net
        A trained module, or a fitted net in ``sklearn.frozen.FrozenEstimator``, is used
        as it is, and the data given to ``fit`` are not looked at. An unfitted net is
        first trained on them. Gradients go through it, and it never changes.
    preset : str, default="auto"
        Values of everything below that is None. "auto" is "fast-bn" if the teacher has
        batch norms, else "fast"; "paper-mnist", "paper-cifar10" and "paper-cifar100"
        are the published settings, made for hours of a GPU.
    input_shape : tuple of int, default=None
        (channels, height, width), or (n_features,), of one example. None takes it from
        X.
    input_range : tuple of two values, default=None
        Least and greatest value of an example, in the units that the teacher sees; each
        a number or one for each channel. Noise stays within it, and so does what a
        generator with the head "range" makes.
    input_mean : float or sequence of float, default=0.0
        Mean of the values, likewise. Of vectors, one for each feature is worth much. A
        generator with the head "batchnorm" gives its batches this mean.
    input_std : float or sequence of float, default=1.0
        Standard deviation of the values, likewise.
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
        if ``conditional=True``, and gives examples.
    synthesis : {"generator", "structured_noise"}, default="generator"
        "structured_noise" draws random shapes instead, see
        :func:`sklcomp.nn.structured_noise`: a control that any generator has to beat,
        and a way for a teacher through which no gradients go.
    conditional : bool, default=None
        Whether the generator is told the class that it has to make.
    head : {"range", "batchnorm"}, default=None
        Last layer of the generator. "batchnorm" if there is no ``input_range``, "range"
        if mean and deviation are none that values within it can have.
    generator_width : int, default=None
        Channels of the generator.
    latent_dim : int, default=None
        Length of its noise.
    onehot_weight : float, default=None
        Weight of making what the teacher is sure of.
    entropy_weight : float, default=None
        Weight of making all classes equally often.
    activation_weight : float, default=None
        Weight of large features of the teacher.
    bn_weight : float, default=None
        Weight of the distance from the statistics in the teacher's batch norms.
    adversarial_weight : float, default=None
        Weight of making what the student gets wrong.
    feature_weight : float, default=None
        Weight, for the student, of finding alike what the teacher finds alike.
    noise_share : float in [0, 1], default=None
        Share of structured noise in the student's batches, beside generated examples.
    noise_kinds : sequence of {"blobs", "lines", "strokes"}, default=None
        Kinds of shapes; a name may come twice.
    temperature : float, default=None
        Of the answers that the student learns.
    replay_size : int, default=None
        Examples that are kept for the student; 0 keeps only the latest batch.
    student_steps : int, default=None
        Steps of the student for each of the generator.
    reinit_every : int, default=None
        Steps after which a new generator begins; 0 for never.
    augmentation : float, default=None
        Strength of random affine maps of images, which the teacher labels anew: 1 is up
        to 20 degrees, a quarter of the size and an eighth of the side.
    generator_batch_size : int, default=None
        Examples in a step of the generator.
    batch_size : int, default=None
        Examples in a step of the student.
    generator_lr : float, default=None
        Learning rate of the generator (Adam).
    student_lr : float, default=None
        Learning rate of the student.
    averaging : float in [0, 1), default=None
        Decay of the moving average of the student's weights, which is the result.
    student_batchnorm : bool, default=None
        Whether the student has a batch norm behind each layer while it learns; in the
        end they are multiplied into the layers.
    n_iterations : int, default=None
        Steps of the generator.
    device : str, default="cpu"
        Where the training is computed. What is kept of it is on the CPU, so that it can
        be loaded without a GPU; so are ``sample`` and ``data_free_score``.
    checkpoint : str or path, default=None
        Folder in which the state of the training is kept, up to twenty times in a fit.
    warm_start : bool, default=False
        Go on from the checkpoint, if there is one of the same fit; ``random_state``
        must be set.
    n_threads : int, default=1
        Threads of torch.
    random_state : int, RandomState instance or None, default=None
        Same number, same result.
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
    params_ : dict
        All values used, those of the preset and yours.
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
        Names of the features, if X had some.

    See Also
    --------
    FeatureEmbeddingDistiller : With some data.
    sklcomp.inspection.DistillationDisplay : Draws losses and generated images.

    Notes
    -----
    ``fit`` takes no data, so that no test set can choose the best epoch, as the
    published script does: the result is the last iterate, or the average. To choose
    hyper-parameters, a few real examples are best, labelled or not (``score``,
    ``agreement_score``); without any, ``data_free_score`` is what there is. In a grid
    search X and y serve for scoring alone.

    The losses have the forms of the authors' code, to which the published weights
    belong. The presets "fast" and "fast-bn" are ours: structured noise beside the
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
    _net_name = "student"
    _source_name = "teacher"
    _fitted_names = ("estimator_", "classes_", "n_features_in_", "feature_names_in_")

    _parameter_constraints: dict[str, list] = {
        "student": [NeuralNet],
        "teacher": [NeuralNet, FrozenEstimator, nn.Module],
        "preset": [StrOptions({"auto", *SYNTHESIS})],
        "input_shape": ["array-like", None],
        "input_range": ["array-like", None],
        "input_mean": [Real, "array-like"],
        "input_std": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "classes": ["array-like", None],
        "feature_layer": [str],
        "from_logits": ["boolean", StrOptions({"auto"})],
        "generator": [nn.Module, None],
        "synthesis": [StrOptions({"generator", "structured_noise"})],
        "conditional": ["boolean", None],
        "head": [StrOptions({"range", "batchnorm"}), None],
        "generator_width": [Interval(Integral, 1, None, closed="left"), None],
        "latent_dim": [Interval(Integral, 1, None, closed="left"), None],
        "onehot_weight": [Interval(Real, 0, None, closed="left"), None],
        "entropy_weight": [Interval(Real, 0, None, closed="left"), None],
        "activation_weight": [Interval(Real, 0, None, closed="left"), None],
        "bn_weight": [Interval(Real, 0, None, closed="left"), None],
        "adversarial_weight": [Interval(Real, 0, None, closed="left"), None],
        "feature_weight": [Interval(Real, 0, None, closed="left"), None],
        "noise_share": [Interval(Real, 0, 1, closed="both"), None],
        "noise_kinds": ["array-like", None],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "replay_size": [Interval(Integral, 0, None, closed="left"), None],
        "student_steps": [Interval(Integral, 1, None, closed="left"), None],
        "reinit_every": [Interval(Integral, 0, None, closed="left"), None],
        "augmentation": [Interval(Real, 0, None, closed="left"), None],
        "generator_batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "generator_lr": [Interval(Real, 0, None, closed="neither"), None],
        "student_lr": [Interval(Real, 0, None, closed="neither"), None],
        "averaging": [Interval(Real, 0, 1, closed="left"), None],
        "student_batchnorm": ["boolean", None],
        "n_iterations": [Interval(Integral, 1, None, closed="left"), None],
        "device": [str],
        **TORCH_CONSTRAINTS,
    }

    def __init__(
        self,
        student,
        teacher,
        *,
        preset="auto",
        input_shape=None,
        input_range=None,
        input_mean=0.0,
        input_std=1.0,
        classes=None,
        feature_layer="penultimate",
        from_logits="auto",
        generator=None,
        synthesis="generator",
        conditional=None,
        head=None,
        generator_width=None,
        latent_dim=None,
        onehot_weight=None,
        entropy_weight=None,
        activation_weight=None,
        bn_weight=None,
        adversarial_weight=None,
        feature_weight=None,
        noise_share=None,
        noise_kinds=None,
        temperature=None,
        replay_size=None,
        student_steps=None,
        reinit_every=None,
        augmentation=None,
        generator_batch_size=None,
        batch_size=None,
        generator_lr=None,
        student_lr=None,
        averaging=None,
        student_batchnorm=None,
        n_iterations=None,
        device="cpu",
        checkpoint=None,
        warm_start=False,
        n_threads=1,
        random_state=None,
        verbose=0,
    ):
        self.student = student
        self.teacher = teacher
        self.preset = preset
        self.input_shape = input_shape
        self.input_range = input_range
        self.input_mean = input_mean
        self.input_std = input_std
        self.classes = classes
        self.feature_layer = feature_layer
        self.from_logits = from_logits
        self.generator = generator
        self.synthesis = synthesis
        self.conditional = conditional
        self.head = head
        self.generator_width = generator_width
        self.latent_dim = latent_dim
        self.onehot_weight = onehot_weight
        self.entropy_weight = entropy_weight
        self.activation_weight = activation_weight
        self.bn_weight = bn_weight
        self.adversarial_weight = adversarial_weight
        self.feature_weight = feature_weight
        self.noise_share = noise_share
        self.noise_kinds = noise_kinds
        self.temperature = temperature
        self.replay_size = replay_size
        self.student_steps = student_steps
        self.reinit_every = reinit_every
        self.augmentation = augmentation
        self.generator_batch_size = generator_batch_size
        self.batch_size = batch_size
        self.generator_lr = generator_lr
        self.student_lr = student_lr
        self.averaging = averaging
        self.student_batchnorm = student_batchnorm
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
    def fit(self, X=None, y=None):
        """Train the student.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            Needed to train a teacher that is not trained yet. A trained one learns
            nothing from it; ``input_shape`` may be taken from its shape.
        y : array-like of shape (n_samples,), default=None
            Classes, likewise.

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
        rng = torch.Generator(self.device).manual_seed(session.seed)
        inputs = check_inputs(self.get_params(deep=False), X)
        self._shape_in = inputs.shape
        teacher, settings = self._make_judge(inputs, rng, y)
        with naming_memory("out of memory", SIZES):
            net, training = self._make_training(teacher, inputs, settings, rng)
        return Work(net, training, inputs)

    def _make_judge(
        self, inputs: Inputs, rng: torch.Generator, y: Any
    ) -> tuple[Teacher, dict[str, Any]]:
        """The teacher as a judge, and all values used."""
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
        settings = resolve_settings(
            self.get_params(deep=False), self.teacher_, inputs, n_outputs,
            count_norms(self.teacher_, examples),
        )  # fmt: skip
        is_needed = bool(settings["activation_weight"] or settings["feature_weight"])
        layer = find_layer(self.teacher_, self.feature_layer, examples, is_needed)
        teacher = Teacher(self.teacher_, layer, True, probes, self.device)
        if self.from_logits != "auto":
            teacher.task = Task(True, is_probability=not self.from_logits)
        if layer is None:
            drop_features(settings, "teacher", ("activation_weight", "feature_weight"))
        if self.synthesis == "generator":
            check_gradients(teacher.module, probes)
        return teacher, settings

    def _make_training(
        self, teacher: Teacher, inputs: Inputs, settings: dict[str, Any],
        rng: torch.Generator,
    ) -> tuple[Any, DataFreeTraining]:  # fmt: skip
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
        if settings["feature_weight"] and not find_layer(
            student, PENULTIMATE, probes, is_needed=False
        ):
            drop_features(settings, "student", ("feature_weight",))
        source: Any = None
        noise = None
        if self.synthesis == "structured_noise" or settings["noise_share"]:
            source = noise = NoiseSource(teacher, inputs, n_outputs, settings, rng)
        if self.synthesis == "generator":
            source = GeneratorSource(
                teacher, inputs, n_outputs, settings, rng, self.generator
            )
            self._check_shape(source.sample(2), inputs)
        self.params_ = settings
        task = Task.of_module(student, probes, True)
        return net, DataFreeTraining(
            student, task, teacher, source, noise, settings, rng
        )

    def _check_shape(self, examples: torch.Tensor, inputs: Inputs) -> None:
        if self.generator is not None and examples[0].shape != inputs.shape:
            msg = (
                f"the generator makes examples of shape {tuple(examples[0].shape)}; "
                f"input_shape={inputs.shape}: make one fit the other."
            )
            raise ValueError(msg)

    def _run(self, work: Work, session: Session) -> Work:
        """All iterations that are left."""
        _, training, inputs = work

        def describe_start() -> list:
            return [
                training.networks(), session.seed, inputs, self.params_,
                self.synthesis, self.feature_layer, self.from_logits, self.device,
            ]  # fmt: skip

        with naming_memory("out of memory", SIZES):
            record = session.checkpoint.record("training", describe_start)
            if (state := record.load()) is not None:
                training.restore(state)
            self._iterate(training, record, session.reporter)
        return work

    def _iterate(
        self, training: DataFreeTraining, record: Record,
        reporter: Callable[[int], bool],
    ) -> None:  # fmt: skip
        n_iterations = self.params_["n_iterations"]
        every = -(-n_iterations // N_CHECKPOINTS)
        while training.n_iter < n_iterations:
            losses = training.step()
            if has_failed(losses, training.n_iter):
                return
            if not training.n_iter % every:
                record.save(training.state)
            if self.verbose and not training.n_iter % int(self.verbose):
                shown = ", ".join(f"{k} {v:.4g}" for k, v in losses.items())
                print(f"iteration {training.n_iter}: {shown}")  # noqa: T201
            if reporter(training.n_iter):
                return

    def _name_results(self, result: Work) -> None:
        net, training, inputs = result
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

    def sample(self, n=10, *, random_state=None):
        """Make examples as the student learned from.

        Parameters
        ----------
        n : int, default=10
            How many.
        random_state : int, RandomState instance or None, default=None
            Same number, same examples.

        Returns
        -------
        X : ndarray of float32, shape (n, ...)
            Examples of the generator as it was in the end, or structured noise.
        y : ndarray of shape (n,)
            What the teacher takes them for.

        Raises
        ------
        ValueError
            If n is less than 1.
        """
        check_is_fitted(self)
        _check_n(n)
        seed = _as_seed(random_state)
        self._source.rng.manual_seed(seed)
        with torch_session(seed, self.n_threads):
            X = self._source.sample(n)
        return X.numpy(), self.classes_[self._teacher(X)[1].argmax(1)]

    @refuse_masked
    def agreement_score(self, X):
        """Share of examples that student and teacher put into the same class.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Real examples; labels are not needed.

        Returns
        -------
        score : float
            In [0, 1].
        """
        X = self._check_X(X)
        student = self._ask("predict_proba", X).argmax(axis=1)
        teacher = self._teacher.answer_all(torch.from_numpy(X))[1].argmax(1).numpy()
        return float((student == teacher).mean())

    def data_free_score(self, n=1200, *, random_state=0):
        """How closely the student follows the teacher on images of new generators.

        Three generators that were not used in training are trained by the published
        losses, so that students of the same teacher are judged by the same images.
        It can choose between settings where there is no real example at all. How well
        was measured for teachers without batch norm only.

        Parameters
        ----------
        n : int, default=1200
            Images.
        random_state : int, RandomState instance or None, default=0
            Seed of the generators.

        Returns
        -------
        score : float
            Minus the divergence at temperature 4; at most 0.

        Raises
        ------
        ValueError
            If n is less than 1, or no gradients come through the teacher.
        """
        check_is_fitted(self)
        _check_n(n)
        seed = _as_seed(random_state)
        with torch_session(seed, self.n_threads):
            rng = torch.Generator().manual_seed(seed)
            check_gradients(self._teacher.module, self._inputs.noise(2, rng))
            X = draw_judges(self._teacher, self._inputs, len(self.classes_), n, rng)
            student = self._task.logits(self.estimator_.forward(X))
            scores = self._teacher.answer_all(X)[1]
        return -float(kd_loss(student.cpu(), scores, 4.0))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = isinstance(self.teacher, NeuralNet)
        tags.classifier_tags.poor_score = True
        return tags


def _check_n(n: int) -> None:
    if n < 1:
        msg = f"n={n}: ask for at least one example."
        raise ValueError(msg)


def _as_seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))
