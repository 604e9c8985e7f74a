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

from sklcomp.nn._running import tensors_in
from sklcomp.nn.surgery._identities import Axes, Identities, Ids
from sklcomp.utils._messages import show

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

RULES: dict[str, Callable] = {}
# Names that functions take for the same argument.
ALIASES = {"x": "input", "a": "input", "x1": "input", "tensor": "input", "axis": "dim",
           "keepdims": "keepdim", "x2": "other"}  # fmt: skip


def rule(names: str) -> Callable:
    """Enter a function as the rule of the torch functions of these names."""

    def enter(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return enter


def name_of(func: Callable) -> str:
    """The name of a torch function as rules know it: "add" of ``add_``, ``__add__``."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(func, "__self__", func).__name__
    elif name == "__set__":
        name = "set_" + getattr(func, "__self__", func).__name__
    return name.strip("_")


class ChannelTracer(TorchFunctionMode):
    """Notes, while a module runs, what is known of its channels."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.ids = Identities()
        self.module = module
        self.names = {id(p): name for name, p in module.named_parameters()}
        self.names |= {id(b): name for name, b in module.named_buffers()}
        self.path: list[str] = [""]
        self.ran: set[str] = set()
        # Parameter -> identities along its axes.
        self.slots: dict[str, Axes] = {}
        # Layer -> identities of its output channels.
        self.outputs: dict[str, np.ndarray] = {}
        # (weight, axis along which inputs are summed) -> the modules that do it.
        self.consumers: dict[tuple[str, int], set[str]] = {}
        # (module, attribute) -> identities that it counts.
        self.sizes: dict[tuple[str, str], np.ndarray] = {}
        # (module that runs, weight or "") -> channels that are normalised together.
        self.mixing: dict[tuple[str, str], np.ndarray] = {}
        # Weight -> how often it is applied in the forward.
        self.uses: dict[str, int] = {}
        # Weights of layers, and the bias that is added ("" for none).
        self.biases: set[tuple[str, str]] = set()
        # Weights, and the running means of batch norms that follow directly.
        self.shifts: set[tuple[str, str]] = set()
        # Tensors are held, so that no identity of an object is used twice.
        self._axes: dict[int, tuple[Tensor, Axes]] = {}
        self._made_by: dict[int, str] = {}

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        known = [t for t in tensors_in([args, kwargs]) if self.is_tracked(t)]
        shapes = [t.shape for t in known]
        self.function = func
        result = func(*args, **kwargs)
        if known:
            apply = RULES.get(name_of(func), unknown)
            # Neither what a function writes elsewhere nor what it resizes in place is
            # known to its rule.
            if kwargs.get("out") is not None or shapes != [t.shape for t in known]:
                apply = unknown
            named = {ALIASES.get(name, name): value for name, value in kwargs.items()}
            try:
                apply(self, result, *args, **named)
            except Exception:  # whatever a call of another form makes of a rule
                unknown(self, result, *args, **named)
        return result

    @property
    def here(self) -> str:
        """The module that is running, for messages."""
        return f"in {show(self.path[-1])}" if self.path[-1] else "in forward"

    def is_tracked(self, tensor: Tensor) -> bool:
        """Whether its axes are known; those of every parameter are, once asked for."""
        return id(tensor) in self._axes or id(tensor) in self.names

    def axes(self, tensor: Tensor) -> Axes:
        """Identities along every axis; those of parameters are made when first met."""
        if id(tensor) in self._axes:
            return self._axes[id(tensor)][1]
        if id(tensor) not in self.names:
            return (None,) * tensor.ndim
        # An axis of one entry fits any other, and so belongs to none.
        axes = tuple(self.ids.new(n) if n > 1 else None for n in tensor.shape)
        self.slots[self.names[id(tensor)]] = axes
        self._axes[id(tensor)] = tensor, axes
        return axes

    def set_axes(self, tensor: Tensor, axes: Axes) -> None:
        """Enter what is known of a tensor that a function returned."""
        sizes = [
            n if ids is None else len(ids)
            for ids, n in zip(axes, tensor.shape, strict=True)
        ]
        if sizes != list(tensor.shape):
            msg = f"axes of lengths {sizes} for a tensor of {tuple(tensor.shape)}"
            raise ValueError(msg)
        self._axes[id(tensor)] = tensor, axes
        # It may be the tensor of before, changed in place: no longer what the layer
        # made.
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

    def owner(self, weight: Tensor | None) -> str:
        """The module that describes a call: one that runs, or that holds the weight."""
        running = self.module.get_submodule(self.path[-1])
        own = (*running._parameters.values(), *running._buffers.values())
        name = self.names.get(id(weight))
        if name is None or any(weight is tensor for tensor in own):
            return self.path[-1]
        return name.rpartition(".")[0]

    def set_sizes(self, path: str, **ids: Ids) -> None:
        """Enter the identities that attributes of a module count."""
        module = self.module.get_submodule(path)
        for name, axis in ids.items():
            size = getattr(module, name, None)
            n = None if axis is None else len(axis)
            if isinstance(size, (int, tuple, list)) and size in (n, (n,), [n]):
                before = self.sizes.setdefault((path, name), np.asarray(axis))
                self.ids.tie(before, axis, "")

    def add_layer(
        self, weight: Tensor, bias: Tensor | None, outputs: Ids, result: Tensor
    ) -> None:
        """Enter a layer that makes channels."""
        name = self.names[id(weight)]
        layer = name.removesuffix(".weight")
        if outputs is None:
            outputs = self.ids.new(1)
            self.ids.freeze(outputs, "has one channel")
        # A weight that is used in two ways makes the channels of the first.
        self.outputs.setdefault(layer, outputs)
        self.biases.add((name, self.names.get(id(bias), "")))
        self._made_by[id(result)] = name

    def consume(self, weight: Tensor, axis: int) -> None:
        """Enter an axis of a weight along which the inputs are summed."""
        key = self.names[id(weight)], axis
        self.consumers.setdefault(key, set()).add(self.owner(weight))

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
