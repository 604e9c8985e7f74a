"""Nets of users: rows held out, copies without harm, and what their outputs mean.

The compressors, the distillers' lessons and the fine-tuning call it.
"""

import copy
import inspect
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from skorch.callbacks import (
    Checkpoint,
    InputShapeSetter,
    LoadInitState,
    TrainEndCheckpoint,
)
from torch import Tensor, nn

from sklcomp.nn import kd_loss
from sklcomp.nn._running import NormWithStatistics, device_of, evaluating
from sklcomp.utils._messages import show

# Callbacks that write or read files of parameters.
FILES = (Checkpoint, LoadInitState, TrainEndCheckpoint)
# Examples that tell what the outputs of a network are.
N_TRIED = 64


def hold_out(y: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and at most n and a quarter not to, with a share of classes."""
    n_held = max(1, min(n, len(y) // 4))
    classes = None
    if y.dtype.kind == "i":
        counts = np.unique_counts(y).counts
        # scikit-learn refuses to split a class of one by shares, or more classes than
        # there are places.
        if n_held >= len(counts) and counts.min() > 1:
            classes = y
    return train_test_split(
        np.arange(len(y)), test_size=n_held, random_state=seed, stratify=classes
    )


def rebuild_net(net: Any, module: nn.Module, keeps_files: bool = False) -> Any:
    """A net of the same class and settings around another module.

    Without callbacks that would make the module anew and, unless they are to be kept,
    those that write its parameters to files of the user's, or read them.
    """
    settings = {
        name: value
        for name, value in net.get_params(deep=False).items()
        if not name.startswith("module__") and name != "module"
    }
    kinds = InputShapeSetter if keeps_files else (InputShapeSetter, *FILES)
    settings["callbacks"] = without_callbacks(settings.get("callbacks"), kinds)
    copies: dict[str, Any] = {}
    # One for all: settings may hold each other, and must do so as copies.
    memo: dict[int, Any] = {}
    for name, value in settings.items():
        try:
            copies[name] = copy.deepcopy(value, memo)
        except TypeError as error:
            msg = (
                f"{name} of the {type(net).__name__} cannot be copied: {error}. A "
                "training here is that of a copy: leave it out, by "
                f"net.set_params({name}=None)."
            )
            raise ValueError(msg) from error
    return type(net)(module=module, **copies)


def without_callbacks(callbacks: Any, kinds: Any) -> Any:
    """The callbacks that are of none of these kinds."""
    if not isinstance(callbacks, (list, tuple)):
        return callbacks

    def is_one(entry: Any) -> bool:
        callback = entry[1] if isinstance(entry, tuple) else entry
        kind = callback if inspect.isclass(callback) else type(callback)
        return issubclass(kind, kinds)

    return [entry for entry in callbacks if not is_one(entry)]


def is_finite(module: nn.Module) -> bool:
    """Whether no weight, or running statistic of a norm, is NaN or infinite.

    Other buffers may well be, such as the mask of an attention.
    """
    parts: list[Tensor] = list(module.parameters())
    for part in module.modules():
        if isinstance(part, NormWithStatistics):
            parts += part.buffers()
    return all(bool(torch.isfinite(part).all()) for part in parts)


def check_finite(module: nn.Module, what: str) -> None:
    """Raise if a network has weights that are NaN or infinite."""
    if not is_finite(module):
        msg = (
            f"the {what} has weights that are not finite: its training has diverged. "
            "Train it with a smaller lr."
        )
        raise ValueError(msg)


def check_device(net: Any) -> None:
    """Raise if a net asks for a GPU that is not there."""
    device = getattr(net, "device", "cpu")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        msg = f"device={show(device)} of {type(net).__name__} is not there: no CUDA."
        raise RuntimeError(msg + ' Choose device="cpu".')


class OutputKind:
    """What the outputs of a net mean: classes by logits, or numbers."""

    def __init__(self, is_classes: bool, is_probability: bool = False):
        self.is_classes = is_classes
        self.is_probability = is_probability

    @classmethod
    def of_module(cls, module: nn.Module, X: Tensor, is_classes: bool) -> "OutputKind":
        """Read off what a network answers to the first examples."""
        some = X[:N_TRIED].to(device_of(module), copy=True)
        with evaluating(module):
            return cls.of_outputs(module(some), is_classes)

    @classmethod
    def of_outputs(cls, output: Any, is_classes: bool) -> "OutputKind":
        """Read off answers: rows that sum to one are probabilities."""
        output = first_output(output)
        is_probability = bool((output >= 0).all()) and bool(
            ((output.sum(-1) - 1).abs() < 1e-4).all()
        )
        return cls(is_classes, is_probability)

    def logits(self, output: Any) -> Tensor:
        """Scores that softmax turns into probabilities; regression: the output."""
        output = first_output(output)
        if self.is_classes and self.is_probability:
            # A probability of 0 has no logarithm.
            return torch.log(output.clamp_min(torch.finfo(output.dtype).eps))
        return output

    def divergence(self, teacher: Tensor, student: Tensor, T: float = 1.0) -> Tensor:
        """KL divergence at a temperature, times its square; or mean squared error."""
        if self.is_classes:
            return kd_loss(student, teacher, T)
        return F.mse_loss(student, teacher)

    def score(self, output: Tensor, y: np.ndarray) -> float:
        """Accuracy, or the coefficient of determination."""
        # numpy has no bfloat16.
        values = output.detach().float().cpu().numpy()
        if self.is_classes:
            return float(accuracy_score(y, values.argmax(1)))
        return float(r2_score(y, values))


def first_output(output: Any) -> Tensor:
    """What skorch takes for the prediction."""
    return output[0] if isinstance(output, tuple) else output
