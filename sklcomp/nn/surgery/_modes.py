"""Both modes of a network, held still, so that two of its forwards can be compared.

The self-check, the cut and the repair run networks in it.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sklcomp.nn._running import (
    NormWithStatistics,
    evaluating,
    tensors_in,
    torch_session,
)

# Parameters of what is drawn in place, with their defaults, and its mean.
_DRAWN_IN_PLACE: dict[str, tuple[dict[str, float], Callable]] = {
    "uniform": ({"from": 0.0, "to": 1.0}, lambda low, high: (low + high) / 2),
    "normal": ({"mean": 0.0, "std": 1.0}, lambda mean, std: mean),
    "log_normal": (
        {"mean": 1.0, "std": 2.0}, lambda mean, std: math.exp(mean + std * std / 2)
    ),
    "exponential": ({"lambd": 1.0}, lambda rate: 1 / rate),
    "geometric": ({"p": 1.0}, lambda p: 1 / p),
    "bernoulli": ({"p": 0.5}, lambda p: p),
}  # fmt: skip
# Of tensors that are made.
_DRAWN = {"rand": 0.5, "rand_like": 0.5, "randn": 0.0, "randn_like": 0.0}
_DRAWN_ABOUT = ("bernoulli", "normal", "poisson")


def has_training_mode(module: nn.Module) -> bool:
    """Whether any part may do something else while it is trained."""
    return any(map(_may_branch, module.modules()))


def _may_branch(part: nn.Module) -> bool:
    # Parts of torch do nothing else but to normalise and drop otherwise.
    is_known = type(part).__module__.startswith("torch.")
    return not is_known and not isinstance(part, (NormWithStatistics, _DropoutNd))


@contextmanager
def held(module: nn.Module, training: bool) -> Iterator[None]:
    """A mode, without gradients, in which equal inputs give equal outputs.

    While training is on, norms keep their statistics, dropout keeps everything, and
    noise is its mean. Generators are seeded, and restored.
    """
    with torch_session(0, torch.get_num_threads()), evaluating(module):
        if not training:
            yield
            return
        for part in module.modules():
            part.training = _may_branch(part)
        with _Still():
            yield


class _Still(TorchFunctionMode):
    """Functions of torch do what they do in evaluation, and draw nothing."""

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        own_name = getattr(func, "__name__", "")
        name = own_name.strip("_")
        if name.endswith(("dropout", "dropout1d", "dropout2d", "dropout3d")):
            return args[0] if args else kwargs["input"]
        if own_name.endswith("_") and name in _DRAWN_IN_PLACE:
            return _fill_with_mean(name, *args, **kwargs)
        if own_name in _DRAWN or own_name in _DRAWN_ABOUT:
            return _mean(func, own_name, args, kwargs)
        if name == "scaled_dot_product_attention":
            args, kwargs = args[:4], kwargs | _named(args[4:], "dropout_p", "is_causal")
            return func(*args, **kwargs | {"dropout_p": 0.0})
        signature = _signature(func)
        if signature is not None:
            bound = signature.bind(*args, **kwargs)
            # A norm without statistics takes those of the batch in any mode.
            if bound.arguments.get("running_mean", func) is not None:
                bound.arguments["training"] = False
            args, kwargs = bound.args, bound.kwargs
        return func(*args, **kwargs)


def _named(values: Any, *names: str) -> dict[str, Any]:
    return dict(zip(names, values, strict=False))


@cache
def _signature(func: Callable) -> inspect.Signature | None:
    """Of a function that asks for the mode."""
    if not inspect.isfunction(func):
        return None
    signature = inspect.signature(func)
    return signature if "training" in signature.parameters else None


def _fill_with_mean(name: str, drawn: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A tensor that numbers are drawn into, with their mean in it instead."""
    parameters, mean = _DRAWN_IN_PLACE[name]
    given = parameters | dict(zip(parameters, args, strict=False)) | kwargs
    value = mean(*(given[parameter] for parameter in parameters))
    return drawn.copy_(value) if isinstance(value, Tensor) else drawn.fill_(value)


def _mean(func: Callable, name: str, args: Any, kwargs: Any) -> Tensor:
    """What a function draws on average, as often as it is asked."""
    given = [*args, *kwargs.values()]
    value = _DRAWN.get(name)
    if value is None:
        # The first argument is the mean of each; a probability may come behind.
        has_share = name == "bernoulli" and len(given) > 1
        value = given[1] if has_share else given[0]
    # Called for shape and type alone.
    with torch.random.fork_rng(devices=[]):
        drawn = func(*args, **kwargs)
    return drawn.copy_(value) if isinstance(value, Tensor) else drawn.fill_(value)


class Recorder(TorchDispatchMode):
    """Which operations a forward is made of, and on what."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.calls: list[tuple] = []
        # Tensors are held, so that no identity of an object is used twice.
        self._seen: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        self._number([*module.parameters(), *module.buffers()])

    def _number(self, value: Any) -> list[int]:
        tensors = tensors_in(value)
        for tensor in tensors:
            if id(tensor) not in self._numbers:
                self._numbers[id(tensor)] = len(self._seen)
                self._seen.append(tensor)
        return [self._numbers[id(tensor)] for tensor in tensors]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        plain = [a for a in (*args, *kwargs.items()) if not tensors_in(a)]
        self.calls.append((func, repr(plain), self._number([args, kwargs])))
        result = func(*args, **kwargs)
        self._number(result)
        return result
