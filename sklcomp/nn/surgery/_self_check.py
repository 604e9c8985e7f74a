"""Whether cut networks do what the masked ones do, and which layer is at fault if not.

``trace_channels`` and ``fold_batchnorm`` call it. What pruning changes is the measure:
an error of a column that is small beside its mean, or beside another output, may be all
that there is.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sklcomp.nn._running import NormWithStatistics, copied, run, tensors_in
from sklcomp.nn.surgery._graph import ChannelGraph, freeze_genes
from sklcomp.nn.surgery._modes import held
from sklcomp.nn.surgery._tracing import CONVOLUTIONS, TRANSPOSED
from sklcomp.utils._messages import show

# A single one may be passed by chance, as ``roll`` by one place may.
N_CUTS = 3
# Of rounding, in units of the precision, and of the change of a column, in units of its
# root: what is no error. Neither is more than a share.
ROUNDING, MAX_ROUNDING = 1000.0, 0.005
SLACK, MAX_SLACK = 10.0, 0.1
LOST_IN_ROUNDING = "what a smaller network changes is lost in rounding"
# Constants are changed by this share, as nothing is seen of what is multiplied by 0.
STIR = 0.1

Cut = Callable[[nn.Module, ChannelGraph, np.ndarray], nn.Module]


class Seen(NamedTuple):
    """Outputs of a forward, and of each run of its layers with stock forwards."""

    outputs: list[Tensor]
    layers: dict[str, list[Tensor]]


class Columns(NamedTuple):
    """Whether columns are other ones, and whether their changes are only rounding."""

    differ: bool
    are_lost: bool


class SelfCheck:
    """Compares cut networks with masked ones.

    Parameters
    ----------
    module : nn.Module
        The network that was traced; it never runs.
    example : Tensor, tuple or dict
        Input of its forward.
    modes : sequence of bool
        Whether it is training, for all modes in which it is to be compared.
    prune, mask : callable
        Make the two networks.
    """

    def __init__(
        self,
        module: nn.Module,
        example: Any,
        modes: Sequence[bool],
        prune: Cut,
        mask: Cut,
    ):
        self.modes, self.prune, self.mask = modes, prune, mask
        # In double precision if the network can, and without constants if it can.
        for dtype, is_stirred in product((torch.float64, None), (True, False)):
            self.module, self.example = prepared(module, example, dtype, is_stirred)
            precision = Precision(self.module, self.example)
            try:
                with precision:
                    self.before = {mode: self._see(self.module, mode) for mode in modes}
            except Exception:
                if dtype is None and not is_stirred:
                    raise
                continue
            if not is_stirred or _are_finite(self.before.values()):
                break
        self.eps = precision.eps

    def __call__(self, graph: ChannelGraph) -> ChannelGraph:
        """The graph without what cannot be cut after all."""
        good: list[np.ndarray] = []
        bad: dict[int, str] = {}
        stack = [graph.segments] if graph.n_genes else []
        while stack:
            segments = stack.pop()
            # All at once, as mostly nothing is wrong; halves where something is, beside
            # those that are good, since faults may need two.
            fault = self.fault(graph, [*good, *segments])
            if fault is None:
                good += segments
            elif len(segments) == 1:
                bad |= dict.fromkeys(segments[0].tolist(), fault)
            else:
                half = len(segments) // 2
                stack += [segments[half:], segments[:half]]
        return freeze_genes(graph, bad) if bad else graph

    def fault(self, graph: ChannelGraph, segments: list[np.ndarray]) -> str | None:
        """What goes wrong when halves of these segments are removed, if anything."""
        n_lost = dict.fromkeys(self.modes, 0)
        for seed in range(N_CUTS):
            keep = _half(graph, segments, np.random.default_rng(seed))
            for mode in self.modes:
                fault = self._fault(graph, keep, mode)
                if fault == LOST_IN_ROUNDING:
                    n_lost[mode] += 1
                    # One cut of which something can be told is enough.
                    if n_lost[mode] < N_CUTS:
                        continue
                if fault is not None:
                    return f"in training mode {fault}" if mode else fault
        return None

    def _fault(self, graph: ChannelGraph, keep: np.ndarray, mode: bool) -> str | None:
        seen = []
        for remove in (self.mask, self.prune):
            module = remove(self.module, graph, keep)
            try:
                seen.append(self._see(module, mode))
            except Exception as error:  # whatever a forward may raise
                text = str(error).strip().partition("\n")[0]
                return f"a smaller network raises {type(error).__name__}: {text}"
        return self._difference(graph, keep, self.before[mode], *seen)

    def _see(self, module: nn.Module, mode: bool) -> Seen:
        with (
            warnings.catch_warnings(),
            held(module, mode),
            _listening(module) as layers,
        ):
            warnings.simplefilter("ignore")
            returned, left = run(module, copied(self.example))
            return Seen([_plain(tensor) for tensor in returned + left], layers)

    def _difference(
        self,
        graph: ChannelGraph,
        keep: np.ndarray,
        before: Seen,
        masked: Seen,
        pruned: Seen,
    ) -> str | None:
        fault = "a smaller network gives other outputs than the masked one"
        outputs = before.outputs, masked.outputs, pruned.outputs
        if len(set(map(len, outputs))) > 1:
            return fault
        is_coarse, is_lost = self.eps > torch.finfo(torch.float64).eps, False
        for old, twin, new in zip(*outputs, strict=True):
            if not (old.shape == twin.shape == new.shape):
                return fault
            if not old.numel():
                continue
            # Units may differ along either axis.
            for axis in {min(1, old.ndim - 1), -1}:
                columns = self._columns(old, twin, new, axis)
                if columns.differ:
                    return fault
            is_lost |= is_coarse and columns.are_lost
        fault_inside = self._inner_difference(graph, keep, before, masked, pruned)
        return fault_inside or (LOST_IN_ROUNDING if is_lost else None)

    def _inner_difference(
        self,
        graph: ChannelGraph,
        keep: np.ndarray,
        before: Seen,
        masked: Seen,
        pruned: Seen,
    ) -> str | None:
        """As of the outputs, which may hide what is wrong, of the layers."""
        alive = np.append(keep, True)
        for name, outputs in pruned.layers.items():
            if name not in graph.layers:
                continue
            left = torch.from_numpy(np.flatnonzero(alive[graph.layers[name]]))
            part = self.module.get_submodule(name)
            runs = before.layers.get(name, []), masked.layers.get(name, []), outputs
            # Branches on the data may run it another number of times.
            for old, twin, new in zip(*runs, strict=False):
                axis = _channel_axis(part, new)
                index = left.to(old.device)
                old, twin = (t.index_select(axis, index) for t in (old, twin))
                if twin.shape != new.shape or not new.numel():
                    continue
                if self._columns(old, twin, new, axis).differ:
                    shown = show(name)
                    return f"a smaller network differs from the masked one in {shown}"
        return None

    def _columns(
        self, before: Tensor, masked: Tensor, pruned: Tensor, axis: int
    ) -> "Columns":
        same = (pruned == masked) | (pruned.isnan() & masked.isnan())
        error = torch.where(same, 0.0, (pruned - masked).abs()).nan_to_num(torch.inf)
        change = (masked - before).abs().nan_to_num(0, 0, 0)
        size = masked.abs().nan_to_num(0, 0, 0)
        error, change, size = (
            columns_of(t, axis).amax(1) for t in (error, change, size)
        )
        rounding = min(ROUNDING * self.eps, MAX_ROUNDING) * size
        slack = min(SLACK * self.eps**0.5, MAX_SLACK) * change
        return Columns(
            differ=bool((error > slack + rounding).any()),
            are_lost=bool(change.any() and (change < 5 * rounding).all()),
        )


def _half(
    graph: ChannelGraph, segments: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """All genes, but for a random half of each of these segments."""
    keep = np.ones(graph.n_genes, bool)
    for genes in segments:
        keep[rng.permutation(genes)[: len(genes) // 2]] = False
        # Half of one is none: it would pass without having been cut.
        if len(genes) == 1:
            keep[genes] = False
            keep[genes] = not _leaves_all(graph, keep)
    return keep


def _leaves_all(graph: ChannelGraph, keep: np.ndarray) -> bool:
    """Whether every layer has a channel left."""
    alive = np.append(keep, True)
    return all(alive[genes].any() for genes in graph.layers.values())


def columns_of(tensor: Tensor, axis: int) -> Tensor:
    """A matrix with a row for each entry along an axis."""
    tensor = torch.atleast_1d(tensor).movedim(axis, 0)
    return tensor.reshape(len(tensor), -1)


def _plain(tensor: Tensor) -> Tensor:
    """A tensor of its own, of real numbers in double precision where these exist."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    has_double = tensor.device.type != "mps"
    return tensor.to(torch.float64 if has_double else torch.float32, copy=True)


def _channel_axis(part: Any, output: Tensor) -> int:
    is_convolution = isinstance(part, (*CONVOLUTIONS, *TRANSPOSED))
    return output.ndim - 1 - len(part.kernel_size) if is_convolution else -1


@contextmanager
def _listening(module: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """What layers give whose forward is that of torch, in every run."""
    kinds = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
    forwards = {kind.forward for kind in kinds}
    seen: dict[str, list[Tensor]] = {}
    handles = []
    for name, part in module.named_modules():
        if not isinstance(part, kinds) or type(part).forward not in forwards:
            continue

        def note(layer: Any, inputs: Any, output: Any, name: str = name) -> None:
            seen.setdefault(name, []).append(_plain(output))

        # Before hooks of the user's, which may change it.
        handles.append(part.register_forward_hook(note, prepend=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def prepared(
    module: nn.Module, example: Any, dtype: torch.dtype | None, is_stirred: bool
) -> tuple[nn.Module, Any]:
    """A copy, and the example, in a dtype; constants become other numbers."""
    with torch.no_grad():  # scripted parts record how they are copied
        module = copy.deepcopy(module)
        if dtype is not None:
            module = module.to(dtype)

    def change(tensor: Tensor) -> Tensor:
        is_cast = dtype is not None and tensor.is_floating_point()
        return tensor.to(dtype, copy=True) if is_cast else tensor.clone()

    with torch.no_grad():
        example = copied(example, change)
        if is_stirred:
            parts = [*module.parameters(), *tensors_in(example)]
            for part in module.modules():
                if isinstance(part, NormWithStatistics):
                    parts += part.buffers(recurse=False)
            rng = torch.Generator().manual_seed(0)
            for tensor in parts:
                _stir(tensor, rng)
    return module, example


def _stir(tensor: Tensor, rng: torch.Generator) -> None:
    """Make different numbers of equal ones, in place."""
    if not tensor.is_floating_point() or not tensor.numel():
        return
    value = tensor.flatten()[0]
    if bool((tensor == value).all()) and bool(value.isfinite()):
        noise = torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
        size = value.abs() if value else torch.ones_like(value)
        tensor.add_(STIR * size * noise.to(tensor))


def _are_finite(seen: Any) -> bool:
    return all(bool(t.isfinite().all()) for one in seen for t in one.outputs)


class Precision(TorchDispatchMode):
    """The coarsest precision of the numbers that go through a network."""

    def __init__(self, module: nn.Module, example: Any):
        super().__init__()
        kinds = [t.dtype for t in (*module.parameters(), *tensors_in(example))]
        self.eps = max([_eps(kind) for kind in kinds] or [_eps(torch.float64)])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        casts = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if func in casts and any(t.is_floating_point() for t in tensors_in(args)):
            self.eps = max(self.eps, _eps(result.dtype))
        return result


def _eps(dtype: torch.dtype) -> float:
    is_real = dtype.is_floating_point or dtype.is_complex
    return torch.finfo(dtype if is_real else torch.float64).eps
