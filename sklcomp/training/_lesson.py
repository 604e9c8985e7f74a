"""Teacher and TeacherLoss: what a student learns from beside its own loss.

The distillers train with them, and the fine-tuning of ``EvolutionaryPruner`` does.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.dataset import Dataset as SkorchDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sklcomp.nn._features import capturing
from sklcomp.nn._forms import plain_copy
from sklcomp.training._checkpoint import NOWHERE
from sklcomp.training._collapse import STUCK, Spreads
from sklcomp.training._listening import listening
from sklcomp.training._loop import StopTraining, acting_as, train_net
from sklcomp.training._nets import OutputKind, is_finite
from sklcomp.training._state import weights_of
from sklcomp.utils._messages import warn_user

# Examples that a teacher answers at once, and bytes that its kept answers may take.
BATCH, CACHE_LIMIT = 256, 2**30
OWN_STEP = (
    "a training step of your own must call infer(X) and get_loss(y_pred, y, X=X, "
    "training=True)."
)


class Teacher:
    """Features and scores of a trained network; of a copy, so that it never changes.

    Without a layer the features have no columns.
    """

    def __init__(
        self,
        module: nn.Module,
        layer: str | None,
        is_classes: bool,
        X: Tensor,
        device: Any,
    ):
        self.module = plain_copy(module).to(device).eval()
        for parameter in self.module.parameters():
            # Gradients that nobody uses would only take time.
            parameter.requires_grad_(False)
        self.layer, self.device = layer, device
        self.task = OutputKind.of_module(self.module, X, is_classes)

    def answer(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d) and scores (n, k), through which gradients go."""
        # Of a copy: a network may overwrite what it is given.
        X = X.to(self.device, copy=True)
        if self.layer is None:
            scores = self.task.logits(self.module(X))
            return scores.new_empty(len(X), 0), scores
        with capturing(self.module, self.layer, len(X)) as seen:
            output = self.module(X)
        return seen[0], self.task.logits(output)

    @torch.no_grad()
    def __call__(self, X: Tensor) -> tuple[Tensor, Tensor]:
        return self.answer(X)

    def answer_all(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d) and scores (n, k) of many examples."""
        answers = [self(batch) for batch in X.split(BATCH)]
        features, logits = (torch.cat(parts) for parts in zip(*answers, strict=True))
        return features, logits

    def state(self, X: Tensor) -> Any:
        """What tells this teacher of these examples from another."""
        return weights_of(self.module)

    def takes_little_room(self, X: Tensor) -> bool:
        """Whether the answers to all examples can be kept."""
        n_bytes = sum(part.nbytes for part in self(X[:2])) * len(X) / 2
        return n_bytes <= CACHE_LIMIT


def may_augment(net: Any) -> bool:
    """Whether a net may show its module an example in another form each time."""
    hooks = ("get_dataset", "train_step", "train_step_single", "infer")
    return (
        any(getattr(type(net), name) is not getattr(NeuralNet, name) for name in hooks)
        or net.dataset is not SkorchDataset
        or makes_batches(net)
    )


def makes_batches(net: Any) -> bool:
    """Whether a net puts examples together in a way of its own."""
    return (
        type(net).get_iterator is not NeuralNet.get_iterator
        or net.iterator_train is not DataLoader
        or "iterator_train__collate_fn" in net.get_params(deep=False)
    )


class TeacherLoss:
    """What is added to a student's loss, and what became of it.

    Parameters
    ----------
    teacher : Teacher
        Who is asked in every step, unless ``answers`` holds what it says of all.
    embedding : callable
        Loss of the features (student, teacher).
    gamma, kd_weight, temperature : float
        Weight of that loss, weight of the divergence from the teacher's scores, and the
        temperature by which the scores are softened.
    clip_grad_norm : float or None
        Largest norm of all gradients together.
    layer : str
        Name of the layer that gives the student's features.
    task_weight : float
        Weight of the student's own loss.
    X : ndarray
        All examples.
    after_epoch : callable
        Called with the net when an epoch is done.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        embedding: Any = None,
        gamma: float = 0.0,
        kd_weight: float,
        temperature: float,
        clip_grad_norm: float | None = None,
        layer: str = "",
        task_weight: float = 1.0,
        X: np.ndarray,
        after_epoch: Callable[[Any], Any] = lambda net: None,
    ):
        self.teacher, self.embedding, self.gamma = teacher, embedding, gamma
        self.kd_weight, self.temperature = kd_weight, temperature
        self.clip_grad_norm, self.layer = clip_grad_norm, layer
        self.task_weight, self.X, self.after_epoch = task_weight, X, after_epoch
        # What the student's outputs mean in training is read off the first of them.
        self.task: OutputKind | None = None
        # Of the fit, once the student is known.
        self.record = NOWHERE.record("training", list)
        self.answers: tuple[Tensor, Tensor] | None = None
        self.rows: Any = None
        self.features: list[Tensor] = []
        self.valid_rows: np.ndarray | None = None
        self.history: dict[str, list[float]] = {}
        self.fault = ""
        self._sums: dict[str, float] = {}
        # Least loss, its epoch, and the weights after it. Without the embedding, which
        # is least where all features are one point.
        self.best: tuple[float, int, dict] = (math.inf, 0, {})
        self.spreads = Spreads()
        # Of the net's history, once an epoch is done.
        self.n_epochs = 0

    @property
    def needs_teacher(self) -> bool:
        """Whether anything of the teacher enters the loss."""
        return bool(self.gamma or self.kd_weight)

    def ask_once(self, net: Any, X: Tensor, is_cached: Any = "auto") -> None:
        """Let the teacher answer all examples now, if that may and can be done."""
        if is_cached == "auto":
            is_cached = not may_augment(net) and self.teacher.takes_little_room(X)
        if is_cached and self.needs_teacher:
            if makes_batches(net):
                msg = (
                    "cache_teacher=True, and the student puts batches together by a "
                    "collate function or an iterator of its own, of which the places "
                    'of examples are not known: take cache_teacher="auto" or False.'
                )
                raise ValueError(msg)
            self.answers = self.teacher.answer_all(X)

    def state(self) -> dict[str, Any]:
        """What of it a training that goes on needs."""
        return {
            "losses": self.history,
            "best": self.best,
            "spreads": vars(self.spreads),
        }

    def restore(self, net: Any, state: dict[str, Any]) -> None:
        """Take up an earlier state, as the net already has."""
        self.history, self.best = state["losses"], state["best"]
        vars(self.spreads).update(state["spreads"])
        self.n_epochs = len(net.history)

    def keep_rows(self, rows: Tensor) -> None:
        """Remember which examples the next batch has."""
        self.rows = rows

    def loss(self, loss: Tensor, output: Any, X: Any) -> Tensor:
        """The student's loss of a batch with all terms that are added to it."""
        if X is None or (self.gamma and not self.features):
            raise ValueError(OWN_STEP)
        terms = {"task": loss}
        if self.needs_teacher:
            features, scores = self._ask(X)
            if self.gamma:
                terms["embedding"] = self.embedding(self.features[0], features)
                self.spreads.add(self.features[0], output)
            if self.kd_weight:
                if self.task is None:
                    is_classes = self.teacher.task.is_classes
                    self.task = OutputKind.of_outputs(output, is_classes)
                student = self.task.logits(output)
                terms["kd"] = self.task.divergence(scores, student, self.temperature)
        values = {name: float(term.detach()) for name, term in terms.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                self.fault = f"the {name} loss became {value}"
                raise StopTraining
            self._sums[name] = self._sums.get(name, 0.0) + len(X) * value
        self._sums["n"] = self._sums.get("n", 0.0) + len(X)
        return self._total(terms)

    def _total(self, terms: dict[str, Any]) -> Any:
        weights = {
            "task": self.task_weight,
            "embedding": self.gamma,
            "kd": self.kd_weight,
        }
        return sum(weights[name] * term for name, term in terms.items())

    def _ask(self, X: Any) -> tuple[Tensor, Tensor]:
        if self.answers is None or self.rows is None:
            return self.teacher(X)
        rows = self.rows.to(self.answers[0].device)
        return self.answers[0][rows], self.answers[1][rows]

    def end_epoch(self, net: Any) -> None:
        """Record the means of an epoch, and its weights if they are the best so far."""
        if not self._sums:
            msg = (
                "no batch came to the loss in an epoch. Choose a smaller batch_size if "
                f"drop_last leaves none; {OWN_STEP}"
            )
            raise ValueError(msg)
        n = self._sums.pop("n")
        means = {name: value / n for name, value in self._sums.items()}
        self._sums = {}
        for name, value in means.items():
            self.history.setdefault(name, []).append(value)
        self.spreads.end_epoch()
        self.n_epochs = len(net.history)
        means.pop("embedding", None)
        total = float(self._total(means))
        if total < self.best[0] and is_finite(net.module_):
            # A state_dict holds the tensors that the next step changes.
            weights = copy.deepcopy(net.module_.state_dict())
            self.best = (total, self.n_epochs, weights)

    @property
    def has_collapsed(self) -> bool:
        """Whether the student answers all alike, and has learned nothing of the task.

        Where nothing can be learned it may answer all alike, and lose less than before.
        """
        losses = self.history.get("task", [])
        is_stuck = bool(losses) and losses[-1] > STUCK * losses[0]
        return is_stuck and self.spreads.have_collapsed

    def warn_of_collapse(self, net: Any) -> None:
        """Give a net that answers all alike the weights of its best epoch, and warn."""
        losses, epoch = self.history["task"], self.best[1]
        kept = ""
        if 0 < epoch < len(losses):
            net.module_.load_state_dict(self.best[2])
            kept = f" The weights of epoch {epoch} are kept."
        warn_user(
            f"the embedding loss has drowned the task: in {len(losses)} epochs the "
            f"spread of the student's features fell to {self.spreads.shares[0]:.2g} of "
            f"what it was, and the task loss came from {losses[0]:.4g} to "
            f"{losses[-1]:.4g}.{kept} Choose a smaller gamma than {self.gamma:g}, or a "
            "smaller lr of the student.",
            ConvergenceWarning,
        )

    def recover(self, net: Any) -> None:
        """Give a net whose loss became infinite the weights of its best epoch."""
        _, epoch, weights = self.best
        what = f"{self.fault} in epoch {len(net.history)}"
        cure = "choose a smaller lr of the student, gamma or kd_weight."
        if not 0 < epoch < len(net.history):
            msg = f"{what}; {cure}"
            raise ValueError(msg)
        warn_user(
            f"{what}; the weights of epoch {epoch} are kept: {cure}", ConvergenceWarning
        )
        # Rows of epochs that broke have no losses.
        del net.history[self.n_epochs :]
        net.module_.load_state_dict(weights)


def train_with_teacher(
    net: Any,
    X: np.ndarray,
    y: np.ndarray,
    teacher: nn.Module,
    is_classes: bool,
    *,
    weight: float,
    temperature: float,
    before: Callable[[], None] | None = None,
) -> Any:
    """Train a net by its own loss and, to a share, by a teacher's softened scores.

    A loss that becomes infinite ends it, with a warning and the best weights so far.
    """
    examples = torch.from_numpy(X)
    lesson = TeacherLoss(
        Teacher(teacher, None, is_classes, examples, net.device),
        kd_weight=weight,
        task_weight=1 - weight,
        temperature=temperature,
        X=X,
    )
    lesson.ask_once(net, examples)
    with acting_as(net, listening(type(net), lesson)):
        train_net(net, X, y, before)
    if lesson.fault and lesson.best[1]:
        lesson.recover(net)
    elif lesson.fault:
        msg = f"{lesson.fault} in the first epoch; choose a smaller lr of the net."
        warn_user(msg, ConvergenceWarning)
    return net
