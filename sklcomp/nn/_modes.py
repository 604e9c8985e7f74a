"""Both modes of a network, held still, so that two forwards can be compared."""

import inspect
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

# What stands for numbers that are drawn.
_MEANS = {
    "rand": 0.5, "rand_like": 0.5, "uniform": 0.5, "randn": 0.0, "randn_like": 0.0,
    "normal": 0.0, "exponential": 1.0,
}  # fmt: skip


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
        name = getattr(func, "__name__", "").strip("_")
        if name.endswith(("dropout", "dropout1d", "dropout2d", "dropout3d")):
            return args[0] if args else kwargs["input"]
        if name in _MEANS or name == "bernoulli":
            return _mean(func, name, args, kwargs)
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


def _mean(func: Callable, name: str, args: Any, kwargs: Any) -> Tensor:
    """What a function draws on average, as often as it is asked."""
    given = [*args, *kwargs.values()]
    is_in_place = func.__name__.endswith("_")
    # The first argument of a function is the mean of each.
    has_means = {"bernoulli": len(given) == 1, "normal": len(given) > 1}
    if not is_in_place and has_means.get(name) and isinstance(given[0], Tensor):
        return given[0].clone()
    value = _MEANS.get(name, 0.5)
    if name == "bernoulli" and len(given) > 1 and not isinstance(given[1], Tensor):
        value = float(given[1] or 0.5)
    with torch.random.fork_rng(devices=[]):
        return func(*args, **kwargs).fill_(value)


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
