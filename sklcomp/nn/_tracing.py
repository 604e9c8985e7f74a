"""Follow the channels of a network through one real forward.

Every tensor carries the identities of its channels along each of its axes. A torch
function has a rule that says what it does to them; a function without a rule freezes
the identities that enter it, so that what is not understood is never cut.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sklcomp.nn._identities import Axes, Identities, Ids
from sklcomp.nn._running import tensors_in

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

RULES: dict[str, Callable] = {}


def rule(names: str) -> Callable:
    """Enter a function as the rule of the torch functions of these names."""

    def enter(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return enter


class ChannelTracer(TorchFunctionMode):
    """Notes, while a module runs, what is known of its channels."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.ids = Identities()
        self.module = module
        self.names = {id(p): name for name, p in module.named_parameters()}
        self.names |= {id(b): name for name, b in module.named_buffers()}
        self.path: list[str] = [""]
        # Parameter -> identities along its axes.
        self.slots: dict[str, Axes] = {}
        # Layer -> identities of its output channels.
        self.outputs: dict[str, np.ndarray] = {}
        # (weight, axis along which inputs are summed) -> the modules that do it.
        self.consumers: dict[tuple[str, int], set[str]] = {}
        # (module, attribute) -> identities that it counts.
        self.sizes: dict[tuple[str, str], np.ndarray] = {}
        # Modules that normalise over several channels -> identities of their input.
        self.mixing: dict[str, np.ndarray] = {}
        # Weight -> how often it is applied in the forward.
        self.uses: dict[str, int] = {}
        # Weight of a layer -> running mean of the batch norm that follows it directly.
        self.shifts: dict[str, str] = {}
        # Tensors are held, so that no identity of an object is used twice.
        self._axes: dict[int, tuple[Tensor, Axes]] = {}
        self._made_by: dict[int, str] = {}

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        known = [t for t in tensors_in([args, kwargs]) if self.is_tracked(t)]
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            name = getattr(func, "__self__", func).__name__
        self.function = func
        result = func(*args, **kwargs)
        if not known:
            return result
        name = name.strip("_")
        apply = RULES.get(name, unknown)
        try:
            apply(self, result, *args, **kwargs)
        except (TypeError, ValueError, IndexError):
            unknown(self, result, *args, **kwargs)
        return result

    @property
    def here(self) -> str:
        """The module that is running, for messages."""
        return f"in {self.path[-1]!r}" if self.path[-1] else "in forward"

    def is_tracked(self, tensor: Tensor) -> bool:
        """Whether its axes are known; those of every parameter are, once asked for."""
        return id(tensor) in self._axes or id(tensor) in self.names

    def axes(self, tensor: Tensor) -> Axes:
        """Identities along every axis; those of parameters are made when first met."""
        if id(tensor) in self._axes:
            return self._axes[id(tensor)][1]
        if id(tensor) not in self.names:
            return (None,) * tensor.ndim
        axes = tuple(self.ids.new(n) if n > 1 else None for n in tensor.shape)
        self.slots[self.names[id(tensor)]] = axes
        self._axes[id(tensor)] = tensor, axes
        return axes

    def set_axes(self, tensor: Tensor, axes: Axes) -> None:
        """Enter what is known of a tensor that a function returned."""
        self._axes[id(tensor)] = tensor, axes
        self._made_by.pop(id(tensor), None)

    def fixed(self, ids: Ids, n: int) -> np.ndarray:
        """The identities of an axis of n entries, frozen ones if it has none."""
        if ids is None:
            ids = self.ids.new(n)
            self.ids.freeze(ids, f"is joined with a tensor of fixed size {self.here}")
        return ids

    def freeze(self, value: Any, reason: str) -> None:
        """Keep all channels of the tensors in a value."""
        for tensor in tensors_in(value):
            for axis in self.axes(tensor):
                self.ids.freeze(axis, reason)

    def add_layer(self, weight: Tensor, outputs: Ids, result: Tensor) -> None:
        """Enter a layer that makes channels."""
        name = self.names[id(weight)]
        layer = name.removesuffix(".weight")
        if outputs is None:
            outputs = self.ids.new(1)
            self.ids.freeze(outputs, "has one channel")
        # A weight that is used in two ways makes the channels of the first.
        self.outputs.setdefault(layer, outputs)
        self._made_by[id(result)] = name

    def consume(self, weight: Tensor, axis: int) -> None:
        """Enter an axis of a weight along which the inputs are summed."""
        key = self.names[id(weight)], axis
        self.consumers.setdefault(key, set()).add(self.path[-1])

    def count(self, weight: Tensor, n_uses: int) -> None:
        """Enter multiplications: the size of the weight, so many times."""
        name = self.names[id(weight)]
        self.uses[name] = self.uses.get(name, 0) + n_uses

    def maker(self, tensor: Tensor) -> str | None:
        """The weight whose layer made a tensor."""
        return self._made_by.get(id(tensor))


def unknown(trace: ChannelTracer, result: Any, *args: Any, **kwargs: Any) -> None:
    reason = f"enters an operation without a rule {trace.here}"
    trace.freeze([args, kwargs], reason)
