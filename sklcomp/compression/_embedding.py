"""FeatureEmbeddingDistiller: students by feature embedding (arXiv 1812.06597)."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from torch import nn

from sklcomp.compression._answers import AnsweringTeacher, answers_of, check_answers
from sklcomp.compression._base import Compressor
from sklcomp.compression._report import CompressionReport, describe
from sklcomp.nn import LocalityPreservingLoss
from sklcomp.nn._features import check_layer
from sklcomp.training._fit import TORCH_CONSTRAINTS, Session
from sklcomp.training._lesson import Teacher, TeacherLoss
from sklcomp.training._listening import listening
from sklcomp.training._loop import StopTraining, acting_as, train_batch_size, train_net
from sklcomp.training._nets import check_finite, first_output
from sklcomp.training._state import (
    restore_training,
    settings_of,
    training_state,
    weights_of,
)
from sklcomp.utils._messages import warn_user
from sklcomp.utils._sklearn import Interval, StrOptions, fit_context, with_callbacks
from sklcomp.utils._validation import refuse_masked

# Examples that the report's score is taken of when none were held out.
N_SCORED = 2000

# What a checkpoint need not agree in.
FREE = ("max_epochs", "verbose", "checkpoint", "warm_start")


class FeatureEmbeddingDistiller(Compressor):
    r"""Train a small network to embed examples as a large one does.

    The student learns its task, and to keep as neighbours what are neighbours in the
    teacher's features:

    .. math::
        L_{task}(y, s) + \gamma \, \frac{1}{2 m d} \sum_i \sum_{j \in N(i)}
        e^{-\|f^t_i - f^t_j\|^2 / \sigma^2} \, \|f^s_i - f^s_j\|^2
        + w \, T^2 \operatorname{KL}(t / T \,\|\, s / T)

    over batches of m examples with features f, scores t of the teacher and s of the
    student, and d the number of the student's features. Nothing is trained between the
    two: their layers may have any widths. The last term, the teacher's softened
    answers, is optional, and worth a try.

    Parameters
    ----------
    student : skorch.NeuralNetClassifier or skorch.NeuralNetRegressor
        Your small net, not fitted; its loss, optimizer, epochs and callbacks are used,
        of which only EarlyStopping may stop by KeyboardInterrupt. If its module has a
        parameter ``n_classes`` (regression: ``n_outputs``) that is not set, it is set
        to what is needed.
    teacher : nn.Module, skorch net or FrozenEstimator
        A trained module, or a fitted net in ``sklearn.frozen.FrozenEstimator``, is used
        as it is and never changed. An unfitted net is trained first, on the data of
        ``fit``. Any other fitted estimator in FrozenEstimator, such as a pipeline or a
        forest, teaches by its answers alone: by ``predict_proba`` (for regression
        ``predict``), with ``gamma=0`` and a ``kd_weight``.
    teacher_layer : str, default="penultimate"
        Name of a part of the teacher's module, whose output is the features, or
        "penultimate": the input of the Linear that runs last.
    student_layer : str, default="penultimate"
        The same for the module of the student.
    gamma : float, default=0.1
        Weight of the embedding; 0 leaves it out. Too large a weight lets all features
        collapse into a point, which is warned about.
    n_neighbors : int, default=5
        Neighbours of an example, looked for in its batch. Batches should be about ten
        times as large.
    sigma : float or "auto", default="auto"
        Scale of distances between the teacher's features. "auto" takes it from every
        batch; see :class:`sklcomp.nn.LocalityPreservingLoss`.
    kd_weight : float, default=0.0
        w in the formula, the weight of the teacher's answers. For regression they are
        compared by their squared difference.
    temperature : float, default=4.0
        T in the formula, by which the scores of both nets are softened.
    cache_teacher : bool or "auto", default="auto"
        Ask the teacher once for every example, instead of in every step. "auto" does so
        unless your net may show examples in another form each time (its own data set,
        collate function, iterator or training step), or the answers take more than
        1 GiB. A callback that changes batches in place needs False.
    clip_grad_norm : float or None, default=1.0
        Largest norm of all gradients of a step together.
    checkpoint : str or path, default=None
        Folder in which the state of the training is kept after every epoch. The
        training of an unfitted teacher is not kept: it is done again.
    warm_start : bool, default=False
        Go on from the checkpoint, if there is one of the same fit; ``random_state``
        must be set. A larger ``max_epochs`` is the same fit.
    n_threads : int, default=1
        Threads that torch may use.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is drawn: same number, same result.
    verbose : int, default=0
        1 prints the losses of every epoch.

    Attributes
    ----------
    estimator_ : skorch net
        The fitted student: a plain net of your own class, without teacher or hooks.
    student_ : skorch net
        The same.
    module_ : nn.Module
        Its module.
    teacher_ : nn.Module or estimator
        The teacher's module; of a frozen estimator that has none, itself.
    history_ : dict of str to ndarray of shape (n_epochs,)
        Means of the losses "task", "embedding" and "kd", without their weights.
    report_ : CompressionReport
        The teacher before (of an estimator without module the score alone), the student
        after; "score" is taken of the examples that the student's ``train_split`` held
        out, "training score" where it held out none: of all, or of 2,000 at equal
        distances in X.
    n_iter_ : int
        Epochs.
    classes_ : ndarray of shape (n_classes,)
        Classes; absent for regression. With a trained teacher all that it knows: its
        own ``classes_`` in their order, or, of a net whose labels were numbered
        outside, y in sorted order if there are as many as outputs, else output k is
        the class k.
    n_features_in_ : int
        Length of the second axis of X.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    sklcomp.nn.LocalityPreservingLoss : The loss alone, for loops of your own.
    EvolutionaryPruner : Makes a net small without a student to be designed.

    Notes
    -----
    Values of k, sigma and gamma that the paper used are not known; the defaults are
    ours. On MNIST the embedding helped much where there were labels alone, and nothing
    beside the teacher's answers; see the user guide. A fixed sigma depends on the scale
    of the teacher's features: a few hundred ReLU features lie so far apart that the
    often quoted :math:`\sigma = \sqrt 2` makes the loss vanish, which is warned about.

    References
    ----------
    .. [1] H. Chen, Y. Wang, C. Xu, C. Xu and D. Tao, "Learning Student Networks via
       Feature Embedding", IEEE Transactions on Neural Networks and Learning Systems
       32(1), 2021, arXiv:1812.06597.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from sklcomp.compression import FeatureEmbeddingDistiller
    >>> X, y = load_iris(return_X_y=True)
    >>> def layers(width):
    ...     return torch.nn.Sequential(
    ...         torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 3)
    ...     )
    >>> def net(width):
    ...     return NeuralNetClassifier(
    ...         layers, module__width=width, criterion=torch.nn.CrossEntropyLoss,
    ...         lr=0.1, batch_size=32, max_epochs=80, train_split=None, verbose=0,
    ...     )
    >>> distiller = FeatureEmbeddingDistiller(
    ...     net(4), teacher=net(50), kd_weight=1.0, random_state=0
    ... ).fit(scale(X), y)
    >>> distiller.report_.ratio("parameters") < 0.1
    True
    >>> distiller.score(scale(X), y) > 0.85
    True
    """

    teacher_: Any
    _net_name = "student"
    _source_name = "teacher"

    _parameter_constraints: dict[str, list] = {
        "student": [NeuralNet],
        "teacher": [NeuralNet, FrozenEstimator, nn.Module],
        "teacher_layer": [str],
        "student_layer": [str],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "kd_weight": [Interval(Real, 0, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "cache_teacher": ["boolean", StrOptions({"auto"})],
        "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        **TORCH_CONSTRAINTS,
    }

    def __init__(
        self,
        student: Any,
        teacher: Any,
        *,
        teacher_layer: Any = "penultimate",
        student_layer: Any = "penultimate",
        gamma: Any = 0.1,
        n_neighbors: Any = 5,
        sigma: Any = "auto",
        kd_weight: Any = 0.0,
        temperature: Any = 4.0,
        cache_teacher: Any = "auto",
        clip_grad_norm: Any = 1.0,
        checkpoint: Any = None,
        warm_start: bool = False,
        n_threads: Any = 1,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.teacher_layer = teacher_layer
        self.student_layer = student_layer
        self.gamma = gamma
        self.n_neighbors = n_neighbors
        self.sigma = sigma
        self.kd_weight = kd_weight
        self.temperature = temperature
        self.cache_teacher = cache_teacher
        self.clip_grad_norm = clip_grad_norm
        self.checkpoint = checkpoint
        self.warm_start = warm_start
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    @property
    def student_(self) -> Any:
        """The fitted student, as ``estimator_``."""
        return self.estimator_

    @refuse_masked
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any) -> Self:
        """Train the student.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            What both nets take: flat rows, or images (n, channels, height, width).
            Used as float32.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes of any kind, or numbers.

        Returns
        -------
        self : FeatureEmbeddingDistiller
            Fitted.
        """
        return self._fit(X, y)

    def _check(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        self._check_features()
        return self._check_fit_data(X, y)

    def _prepare(self, data: tuple, session: Session) -> tuple[Any, TeacherLoss, tuple]:
        """The untrained student, and what it is to hear from the teacher."""
        X, y = data
        # The student first: what is wrong with it is said before a teacher is trained.
        net = self._untrained("student", y)
        self.teacher_ = self._ready_module()
        if self.teacher_ is None:
            self.teacher_ = train_net(self._untrained("teacher", y), X, y).module_
        return net, self._lesson(net, X, y, session.reporter), data

    def _run(self, work: tuple, session: Session) -> tuple[Any, TeacherLoss, tuple]:
        net, lesson, (X, y) = work

        def begin() -> None:
            self._take_up(net, lesson, (X, y), session)

        with acting_as(net, listening(type(net), lesson)):
            train_net(net, X, y, begin)
        return work

    def _check_features(self) -> None:
        """Raise if features are wanted of a teacher that has none."""
        teacher = self._estimator_without_module()
        if teacher is not None and self.gamma:
            msg = (
                f"gamma={self.gamma} compares features, and the frozen teacher, a "
                f"{type(teacher).__name__}, holds no module_ that has some. Take "
                "gamma=0 and kd_weight=1.0 to learn from its answers, or give a fitted "
                "skorch net or a module."
            )
            raise ValueError(msg)

    def _estimator_without_module(self) -> Any:
        """A frozen teacher that is no network; None if it is one."""
        if not isinstance(self.teacher, FrozenEstimator):
            return None
        net = self.teacher.estimator
        is_net = isinstance(net, (NeuralNet, Compressor)) or hasattr(net, "module_")
        return None if is_net else net

    def _ready_module(self) -> Any:
        """The teacher's module, or the estimator that has none; None to be trained."""
        teacher = self._estimator_without_module()
        return super()._ready_module() if teacher is None else teacher

    def _count_outputs(self, module: Any, X: np.ndarray, what: str) -> int:
        if isinstance(module, nn.Module):
            return super()._count_outputs(module, X, what)
        is_classes = is_classifier(self.student)
        check_answers(module, is_classes)
        some = torch.from_numpy(X[:2])
        return answers_of(module, some, is_classes, self._names).shape[1]

    @property
    def _names(self) -> Any:
        return getattr(self, "feature_names_in_", None)

    def _lesson(
        self, net: Any, X: np.ndarray, y: np.ndarray, reporter: Callable[[int], bool]
    ) -> TeacherLoss:
        """What the student is to hear from the teacher."""
        # Without the embedding a teacher that shows no features can teach.
        layer = self.teacher_layer if self.gamma else None
        if self.gamma:
            check_layer(self.teacher_, self.teacher_layer, "teacher_layer")
        self._check_n_outputs(self.teacher_, X, y, "teacher")
        examples = torch.from_numpy(X)
        is_classes = hasattr(self, "classes_")
        if isinstance(self.teacher_, nn.Module):
            check_finite(self.teacher_, "teacher")
            teacher = Teacher(self.teacher_, layer, is_classes, examples, net.device)
        else:
            teacher = AnsweringTeacher(
                self.teacher_, is_classes, self._names, net.device
            )
        # As many as a batch of the training has, for neighbours are looked for in one.
        features, _ = teacher(examples[: max(train_batch_size(net, len(X)), 2)])
        embedding = LocalityPreservingLoss(self.n_neighbors, self.sigma)
        if self.gamma:
            self._check_graph(net, embedding, features, len(X))
        lesson = TeacherLoss(
            teacher,
            embedding=embedding,
            gamma=self.gamma,
            kd_weight=self.kd_weight,
            temperature=self.temperature,
            clip_grad_norm=self.clip_grad_norm,
            layer=self.student_layer,
            X=X,
            after_epoch=lambda net: self._end_epoch(net, lesson, reporter),
        )
        lesson.ask_once(net, examples, self.cache_teacher)
        return lesson

    def _check_graph(
        self,
        net: Any,
        embedding: LocalityPreservingLoss,
        features: torch.Tensor,
        n_rows: int,
    ) -> None:
        """Warn if the neighbours of a batch say nothing."""
        # In a small batch the k-th neighbour is a stranger; ten times k will do.
        if len(features) <= self.n_neighbors < n_rows - 1:
            warn_user(
                f"batch_size={net.batch_size} of the student leaves no choice of "
                f"n_neighbors={self.n_neighbors}; choose a batch_size of about "
                f"{10 * self.n_neighbors}."
            )
        # The often quoted sigma of sqrt(2) does this: on a LeNet with 500 ReLU features
        # the median squared distance of neighbours was 168, and its weight is 4e-37.
        if embedding.weigh_neighbors(features)[1].max() < 1e-6:
            warn_user(
                f"sigma={self.sigma} is so small beside the distances between the "
                'teacher\'s features that all weights vanish; choose sigma="auto".'
            )

    def _take_up(
        self, net: Any, lesson: TeacherLoss, data: tuple, session: Session
    ) -> None:
        """Check an initialised student; take up the work of an earlier fit."""
        X, y = data
        if self.gamma:
            check_layer(net.module_, self.student_layer, "student_layer")
        self._check_n_outputs(net.module_, X, y, "student")

        def describe() -> list:
            teacher = lesson.teacher.state(torch.from_numpy(X))
            weights = [weights_of(net.module_), teacher]
            return [X, y, session.seed, weights, settings_of(net, self, but=FREE)]

        lesson.record = session.checkpoint.record("training", describe)
        state = lesson.record.load()
        # A state beyond the epochs that are asked for cannot be gone back in.
        if state is not None and len(state["losses"]["task"]) <= net.max_epochs:
            restore_training(net, state)
            lesson.restore(net, state)
            # A callback ended that fit: it is over unless more epochs are wanted.
            if state["max_epochs_when_stopped"] == net.max_epochs:
                raise StopTraining

    def _end_epoch(
        self, net: Any, lesson: TeacherLoss, reporter: Callable[[int], bool]
    ) -> None:
        """Keep the state; a stopped training does not go on within its epochs."""

        def state(max_epochs_when_stopped: int = 0) -> dict[str, Any]:
            stopped = {"max_epochs_when_stopped": max_epochs_when_stopped}
            return training_state(net) | lesson.state() | stopped

        # Before the callbacks are asked: one of them may raise.
        lesson.record.save(state)
        if self.verbose:
            losses = (
                f"{name} {values[-1]:.5g}" for name, values in lesson.history.items()
            )
            print(f"epoch {len(net.history)}: {', '.join(losses)}")  # noqa: T201
        if reporter(len(net.history)):
            lesson.record.save(lambda: state(net.max_epochs))
            raise StopTraining

    def _name_results(self, result: tuple[Any, TeacherLoss, tuple]) -> None:
        """Of a training that may have failed late."""
        net, lesson, (X, y) = result
        rows, name = lesson.valid_rows, "score"
        if rows is None:
            n = min(len(X), N_SCORED)
            # At equal distances, as X may be sorted by class.
            rows, name = np.linspace(0, len(X) - 1, n, dtype=int), "training score"
        some, y = torch.from_numpy(X[rows]), y[rows]
        answers = first_output(net.forward(some))
        # No loss has seen what the last step did to the weights.
        if not lesson.fault and not torch.isfinite(answers).all():
            lesson.fault = "the student's answers became infinite"
        if lesson.fault:
            lesson.recover(net)
            answers = first_output(net.forward(some))
        elif lesson.has_collapsed:
            lesson.warn_of_collapse(net)
            answers = first_output(net.forward(some))
        net.module_.eval()
        self.estimator_ = net
        self.module_ = net.module_
        self.n_iter_ = len(lesson.history.get("task", ()))
        self.history_ = {
            name: np.array(values) for name, values in lesson.history.items()
        }
        score = lesson.teacher.task.score
        # An estimator that has no module has no sizes.
        before = dict.fromkeys(describe(self.module_, some[:1]), float("nan"))
        if isinstance(self.teacher_, nn.Module):
            before = describe(self.teacher_, some[:1])
        self.report_ = CompressionReport(
            before | {name: score(lesson.teacher.answer_all(some)[1], y)},
            describe(self.module_, some[:1]) | {name: score(answers, y)},
        )

    @refuse_masked
    def embed(self, X: Any) -> tuple:
        """Features of both networks, by which they can be compared.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            What both nets take.

        Returns
        -------
        teacher_features : ndarray of float32, shape (n_samples, n_teacher_features)
            Those of ``teacher_layer``, flattened.
        student_features : ndarray of float32, shape (n_samples, n_student_features)
            Those of ``student_layer``.
        """
        some = torch.from_numpy(self._check_X(X))
        if not isinstance(self.teacher_, nn.Module):
            msg = (
                f"the teacher {type(self.teacher_).__name__} has no features to be "
                "compared with the student's; only networks have."
            )
            raise ValueError(msg)
        check_layer(self.teacher_, self.teacher_layer, "teacher_layer")
        check_layer(self.module_, self.student_layer, "student_layer")
        return tuple(
            Teacher(module, layer, hasattr(self, "classes_"), some, "cpu")
            .answer_all(some)[0]
            .float()
            .numpy()
            for module, layer in (
                (self.teacher_, self.teacher_layer),
                (self.module_, self.student_layer),
            )
        )
