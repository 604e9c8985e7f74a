"""Run a user's network without a trace of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

# Those that may keep running statistics.
NormWithStatistics = nn.modules.batchnorm._NormBase


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples, dictionaries and plain objects."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    elif not isinstance(value, (list, tuple)) and hasattr(value, "__dict__"):
        value = list(vars(value).values())
    if isinstance(value, (list, tuple)):
        return [tensor for entry in value for tensor in tensors_in(entry)]
    return []


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every part gets its own mode back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def copied(example: Any) -> Any:
    """The same in tensors of its own, for networks that overwrite what they are given.

    Tensors made of a user's array would be that array.
    """
    if isinstance(example, dict):
        return {name: copied(value) for name, value in example.items()}
    if isinstance(example, (tuple, list)):
        return tuple(map(copied, example))
    return example.clone() if torch.is_tensor(example) else example


def call(module: nn.Module, example: Any) -> Any:
    """A forward on one argument, a tuple of several, or a dict of named ones."""
    if isinstance(example, dict):
        return module(**example)
    if isinstance(example, (tuple, list)):
        return module(*example)
    return module(example)


def device_of(module: nn.Module) -> torch.device:
    """Where the weights of a network are; the CPU if it has none."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def takes_channels_last(forward: Callable[[], Any], *modules: nn.Module) -> bool:
    """Lay out networks with channels last, where convolutions are faster on a CPU.

    False, and all as torch lays it out, where the forward fails, such as by a ``view``.
    """
    try:
        for module in modules:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            forward()
    except RuntimeError:
        for module in modules:
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return False
    return True


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any part of a network is a batch norm."""
    return any(isinstance(part, BatchNorm) for part in module.modules())


def use_batch_statistics(module: nn.Module) -> None:
    """Let batch norms, and nothing else, run in training mode from now on."""
    module.eval()
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.train()


def reestimate_batch_norms(module: nn.Module, X: Tensor, batch_size: int = 250) -> None:
    """Give all batch norms the means and variances of these examples, in place.

    As :func:`torch.optim.swa_utils.update_bn`, but dropout stays off.
    """
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    if len(X) < 2 or not any(norm.track_running_stats for norm in norms):
        return
    modes = {part: part.training for part in module.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    use_batch_statistics(module)
    try:
        with torch.no_grad():
            for batch in X.split(batch_size):
                if len(batch) > 1:
                    module(batch.clone())
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for part, mode in modes.items():
            part.training = mode
