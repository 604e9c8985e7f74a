"""The training of a cut network, and the choice between the cut and the tuned one.

``EvolutionaryPruner`` calls it with the winner of its search. Examples that the full
network was trained on cannot make that choice: the cut network still remembers them.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback, LRScheduler
from torch import Tensor, nn

from sklcomp.nn._running import device_of, evaluating, torch_session
from sklcomp.training._lesson import train_with_teacher
from sklcomp.training._loop import train_net
from sklcomp.training._nets import OutputKind, is_finite, rebuild_net
from sklcomp.utils._messages import warn_user

# Weights of the teacher that "auto" tries, and the share of the epochs for each.
WEIGHTS, SHARE = (0.0, 0.3, 0.7), 0.25
# Examples in a forward.
BATCH = 125
# Of what a network knew of examples that it was trained on, the share that a training
# has to lose to have failed. Less may be what the full network knew by heart.
LOST = 0.1


class Figures(NamedTuple):
    """Loss and score of a network on one set of examples."""

    loss: float
    score: float

    def __str__(self) -> str:
        return f"loss {self.loss:.3g}, score {self.score:.3f}"

    def is_worse(self, than: "Figures", margin: float = 0.0) -> bool:
        """By the loss, and by the score too, as either may deceive; NaN is worse."""
        if not (math.isfinite(self.loss) and math.isfinite(than.loss)):
            return not math.isfinite(self.loss)
        return self.loss >= than.loss and not self.score >= than.score - margin


class Judge:
    """Measures loss and score of networks on one set of examples.

    Parameters
    ----------
    net : skorch net
        An initialised net, whose own loss is taken.
    task : OutputKind
        What the outputs of the networks mean.
    X : ndarray of shape (n_samples, ...)
        Examples.
    y : ndarray
        Their targets.
    """

    def __init__(self, net: Any, task: OutputKind, X: np.ndarray, y: np.ndarray):
        self.net, self.task, self.X, self.y = net, task, torch.from_numpy(X), y

    def __call__(self, module: nn.Module) -> Figures:
        if not is_finite(module):
            return Figures(math.inf, -math.inf)
        return Figures(self.loss(module), self.score(module))

    def loss(self, module: nn.Module) -> float:
        """Mean of the net's own loss.

        Cross entropy, or squared error, where that loss cannot be taken of y.
        """
        try:
            return self._own_loss(module)
        # The training step of a user may give its loss other targets than y.
        except (RuntimeError, ValueError, TypeError, IndexError):
            loss = F.cross_entropy if self.task.is_classes else F.mse_loss
            return float(loss(self._answers(module), torch.from_numpy(self.y)))

    def _own_loss(self, module: nn.Module) -> float:
        total, device = 0.0, device_of(module)
        with evaluating(module):
            for X, y in zip(
                self.X.split(BATCH), torch.from_numpy(self.y).split(BATCH), strict=True
            ):
                X = X.to(device)
                output = module(X.clone())
                loss = self.net.get_loss(output, y.to(device), X=X, training=False)
                total += len(X) * float(loss)
        return total / len(self.X)

    def score(self, module: nn.Module) -> float:
        """Accuracy, or the coefficient of determination."""
        answers = self._answers(module)
        if not answers.isfinite().all():
            return -math.inf
        return self.task.score(answers, self.y)

    def _answers(self, module: nn.Module) -> Tensor:
        device = device_of(module)
        with evaluating(module):
            answers = [
                self.task.logits(module(X.to(device, copy=True))).cpu()
                for X in self.X.split(BATCH)
            ]
        return torch.cat(answers)

    def score_of_nothing(self) -> float:
        """Score of an answer that is the same for all examples."""
        if not self.task.is_classes:
            return 0.0
        return float(np.unique_counts(self.y).counts.max() / len(self.y))


class FallingRate(Callback):
    """Lets the rates of a training fall to zero, batch by batch, as half a cosine.

    A rate that somebody else changes is left to them from then on.
    """

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Forget what was set before.

        Parameters
        ----------
        net : skorch net
            In training.
        **kwargs
            Not used.
        """
        self.rates_: dict[int, float] = {}

    def on_epoch_begin(
        self, net: Any, dataset_train: Any = None, **kwargs: Any
    ) -> None:
        """Count the steps of an epoch.

        Parameters
        ----------
        net : skorch net
            In training.
        dataset_train : Dataset
            What is trained on.
        **kwargs
            Not used.
        """
        try:
            n_steps: float = len(net.get_iterator(dataset_train, training=True))
        except TypeError:  # nobody knows; the rate falls from epoch to epoch
            n_steps = math.inf
        self.done_ = (len(net.history) - 1) / net.max_epochs
        self.step_ = 1 / (net.max_epochs * n_steps) if n_steps else 0.0

    def on_batch_begin(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Set the rates of a step.

        Parameters
        ----------
        net : skorch net
            In training.
        training : bool
            Whether it is a step of the training.
        **kwargs
            Not used.
        """
        if not training:
            return
        share = (1 + math.cos(math.pi * self.done_)) / 2
        self.done_ += self.step_
        optimizers = [getattr(net, f"{name}_") for name in net._optimizers]
        for group in (group for each in optimizers for group in each.param_groups):
            first = group.setdefault("initial_lr", group["lr"])
            if self.rates_.get(id(group), group["lr"]) == group["lr"]:
                group["lr"] = self.rates_[id(group)] = first * share


@dataclass(frozen=True)
class Tuner:
    """Trains copies of cut networks, always in the same order of the examples.

    Parameters
    ----------
    base : skorch net
        The full net: settings of the training, and the teacher.
    is_classes : bool
        Whether its outputs are classes; if not, they are numbers.
    X, y : ndarray
        Examples to train on.
    rows : ndarray of int
        Those of them that are trained on while the weight of the teacher is chosen.
    temperature : float
        Temperature by which the answers of the teacher are softened.
    n_epochs : int
        Epochs of a whole training.
    is_falling : bool
        Whether rates fall to zero if the net has no scheduler of its own.
    seed, n_threads : int
        Seed and number of threads of torch.
    """

    base: Any
    is_classes: bool
    X: np.ndarray
    y: np.ndarray
    rows: np.ndarray
    temperature: float
    n_epochs: int
    is_falling: bool
    seed: int
    n_threads: int

    def __call__(
        self, module: nn.Module, weight: float, n_epochs: int, rows: Any = slice(None)
    ) -> Any:
        """A net with a trained copy of a network."""
        X, y = self.X[rows], self.y[rows]
        module = copy.deepcopy(module)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            # The full net's weights were frozen; those of the small one learn.
            module.requires_grad_()
        net = rebuild_net(self.base, module).set_params(max_epochs=n_epochs)

        def before() -> None:
            check_module(net, module)
            kinds = [type(callback) for _, callback in net.callbacks_]
            if self.is_falling and not any(issubclass(k, LRScheduler) for k in kinds):
                rate = FallingRate()
                rate.on_train_begin(net)
                net.callbacks_.append(("falling_rate", rate))

        # A search that was resumed has drawn less.
        with torch_session(self.seed, self.n_threads):
            if not weight:
                return train_net(net, X, y, before)
            return train_with_teacher(
                net,
                X,
                y,
                self.base.module_,
                self.is_classes,
                weight=weight,
                temperature=self.temperature,
                before=before,
            )

    def best_of(self, module: nn.Module, weights: Any, judge: Judge) -> tuple:
        """The net tuned with the best of some weights, and that weight.

        Each is tried for a share of the epochs; the best then has all of them.
        """
        if len(weights) == 1:
            return self(module, weights[0], self.n_epochs), weights[0]
        n_epochs = max(1, round(SHARE * self.n_epochs))
        tried = [self(module, weight, n_epochs, self.rows) for weight in weights]
        losses = [judge(net.module_).loss for net in tried]
        # argmin would take a NaN for the least.
        best = int(np.nan_to_num(losses, nan=np.inf).argmin())
        # It had all epochs and all rows: another training would give the same net.
        if n_epochs == self.n_epochs and len(self.rows) == len(self.X):
            return tried[best], weights[best]
        return self(module, weights[best], self.n_epochs), weights[best]


def check_module(net: Any, module: nn.Module) -> None:
    """Raise if a net in training has another module than it was given."""
    if net.module_ is not module:
        msg = (
            f"a callback of the {type(net).__name__} makes its module anew, "
            "such as by set_params(module__...), which gives the removed "
            "channels back. Leave it out, or take finetune=False."
        )
        raise ValueError(msg)


class Outcome(NamedTuple):
    """What a fine-tuning ended in; weight and history are None of a cut network."""

    module: nn.Module
    weight: float | None
    history: Any
    note: str


def finetune(
    tuner: Tuner, cut: nn.Module, weights: Any, judge: Judge, is_unseen: bool
) -> Outcome:
    """Tune a cut network, and say which of both stays, and why.

    On examples that no training has seen, the cut one stays if the tuned one is worse
    by its loss and by its score. On others it may be better by what it remembers: there
    the tuned one stays, unless it has lost much of what both were trained on.
    """
    net, weight = tuner.best_of(cut, weights, judge)
    before, after = judge(cut), judge(net.module_)
    what, margin = "on validation examples", 0.0
    if not is_unseen:
        what = "on training examples"
        margin = LOST * max(before.score - judge.score_of_nothing(), 0.0)
    has_failed = after.is_worse(before, margin)
    if has_failed:
        said = f"the fine-tuning made the net worse {what}: {before} -> {after}"
        warn_user(
            f"{said}; the cut net is kept. Choose a smaller lr of the net, or "
            "finetune_epochs=0.",
            ConvergenceWarning,
        )
        return Outcome(cut, None, None, f"kept as it was cut: {said}")
    note = f"fine-tuned with distill_weight={weight:g}; {what}: {before} -> {after}"
    return Outcome(net.module_, weight, net.history_, note)
