"""Train nets reproducibly, and know what their outputs mean."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from skorch.callbacks import EarlyStopping, InputShapeSetter
from torch import Tensor, nn

from sklcomp.nn import kd_loss
from sklcomp.nn._running import has_batch_norm


@contextmanager
def torch_session(seed: int, n_threads: int) -> Iterator[None]:
    """A seeded generator and a fixed number of threads; both are restored.

    Sums of one and of two threads differ in the last bits.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def hold_out(y: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and at most n and a quarter not to, with a share of classes."""
    n_held = max(1, min(n, len(y) // 4))
    classes = None
    if y.dtype.kind == "i":
        counts = np.unique_counts(y).counts
        if n_held >= len(counts) and counts.min() > 1:
            classes = y
    return train_test_split(
        np.arange(len(y)), test_size=n_held, random_state=seed, stratify=classes
    )


class StopTraining(Exception):
    """Ends a training after the epoch in which it is raised."""


def train_net(net: Any, X: np.ndarray, y: np.ndarray,
              before: Callable[[], None] | None = None) -> Any:  # fmt: skip
    """``net.fit``, but an interrupt is not swallowed, nor a last batch of one trained.

    A batch norm cannot take the statistics of a single row. ``before`` is called
    when all is initialised; epochs that are in the history then are not done again.
    """
    try:
        net.initialize()
        n_rows = len(net.get_split_datasets(X, y)[0])
        if n_rows % net.batch_size == 1 and has_batch_norm(net.module_):
            # set_params would make the module anew.
            vars(net)["iterator_train__drop_last"] = True
        net.check_data(X, y)
        net.notify("on_train_begin", X=X, y=y)
        if before is not None:
            before()
        try:
            net.fit_loop(X, y, epochs=max(net.max_epochs - len(net.history), 0))
        except StopTraining:
            pass
        except KeyboardInterrupt:
            if not _is_stopped_early(net):
                raise
        net.notify("on_train_end", X=X, y=y)
    except (MemoryError, torch.OutOfMemoryError) as error:
        msg = (
            f"training ran out of memory with batch_size={net.batch_size}; choose a "
            "smaller batch_size."
        )
        raise MemoryError(msg) from error
    return net


def _is_stopped_early(net: Any) -> bool:
    """Whether the interrupt is skorch's way of stopping, not the user's."""
    return any(
        isinstance(callback, EarlyStopping) and callback.misses_ == callback.patience
        for _, callback in net.callbacks_
    )


def check_device(net: Any) -> None:
    """Raise if a net asks for a GPU that is not there."""
    device = getattr(net, "device", "cpu")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        msg = f"device={device!r} of {type(net).__name__} is not there: no CUDA."
        raise RuntimeError(msg + ' Choose device="cpu".')


def rebuild_net(net: Any, module: nn.Module, net_class: type | None = None) -> Any:
    """A net of the same class and settings around another module."""
    settings = {
        name: value
        for name, value in net.get_params(deep=False).items()
        if not name.startswith("module__") and name != "module"
    }
    settings["callbacks"] = _without_shape_setters(settings.get("callbacks"))
    return (net_class or type(net))(module=module, **copy.deepcopy(settings))


def _without_shape_setters(callbacks: Any) -> Any:
    """Callbacks but those that would make the module anew."""
    if not isinstance(callbacks, (list, tuple)):
        return callbacks

    def sets_shape(entry: Any) -> bool:
        callback = entry[1] if isinstance(entry, tuple) else entry
        kind = callback if inspect.isclass(callback) else type(callback)
        return issubclass(kind, InputShapeSetter)

    return [entry for entry in callbacks if not sets_shape(entry)]


class Task:
    """What the outputs of a net mean: classes by logits, or numbers."""

    def __init__(self, is_classes: bool, is_probability: bool = False):
        self.is_classes = is_classes
        self.is_probability = is_probability

    @classmethod
    def of_net(cls, net: Any, is_classes: bool) -> "Task":
        """By the loss that an initialised net is trained with."""
        return cls(is_classes, isinstance(net.criterion_, nn.NLLLoss))

    @classmethod
    def of_outputs(cls, output: Any, is_classes: bool) -> "Task":
        """By what a net answers: rows that sum to one are probabilities."""
        output = first_output(output)
        is_probability = bool((output >= 0).all()) and bool(
            ((output.sum(-1) - 1).abs() < 1e-4).all()
        )
        return cls(is_classes, is_probability)

    def logits(self, output: Any) -> Tensor:
        """Scores that softmax turns into probabilities; regression: the output."""
        output = first_output(output)
        if self.is_classes and self.is_probability:
            return torch.log(output.clamp_min(torch.finfo(output.dtype).eps))
        return output

    def divergence(self, teacher: Tensor, student: Tensor, T: float = 1.0) -> Tensor:
        """KL divergence at a temperature, times its square; or mean squared error."""
        if self.is_classes:
            return kd_loss(student, teacher, T)
        return F.mse_loss(student, teacher)

    def check_outputs(self, output: Tensor, y: np.ndarray, what: str = "net") -> None:
        """Raise if a net does not give what y asks for."""
        n = int(y.max()) + 1 if self.is_classes else y.shape[1]
        if output.ndim != 2 or (
            output.shape[1] < n if self.is_classes else output.shape[1] != n
        ):
            unit = "classes" if self.is_classes else "outputs"
            msg = (
                f"the {what} gives outputs of shape {tuple(output.shape)} for "
                f"{len(y)} examples, y has {n} {unit}: expected ({len(y)}, {n})."
            )
            raise ValueError(msg)

    def score(self, output: Tensor, y: np.ndarray) -> float:
        """Accuracy, or the coefficient of determination."""
        values = output.detach().cpu().numpy()
        if self.is_classes:
            return float(accuracy_score(y, values.argmax(1)))
        return float(r2_score(y, values))


def first_output(output: Any) -> Tensor:
    """What skorch takes for the prediction."""
    return output[0] if isinstance(output, tuple) else output
