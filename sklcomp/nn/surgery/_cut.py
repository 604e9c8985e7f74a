"""``trace_channels``, ``prune_channels`` and ``mask_channels``: channels removed.

Users and the pruners call them. The mask is the twin that a real cut is checked
against.
"""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import sklcomp.nn.surgery._layer_rules  # (enters its rules)
import sklcomp.nn.surgery._operation_rules  # noqa: F401
from sklcomp.nn._forms import check_form, eagerly
from sklcomp.nn._running import copied, run, tensors_in
from sklcomp.nn.surgery._compensation import (
    InputCovariances,
    Repairs,
    collect_covariances,
    compensate_layers,
)
from sklcomp.nn.surgery._graph import ChannelGraph, build_graph
from sklcomp.nn.surgery._modes import Recorder, has_training_mode, held
from sklcomp.nn.surgery._self_check import SelfCheck
from sklcomp.nn.surgery._tracing import CONVOLUTIONS, TRANSPOSED, ChannelTracer
from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked

# Layers whose channels could be removed if the forward came past them.
LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
UNREACHED = "is not reached by example_input"


@refuse_masked
def trace_channels(module: nn.Module, example_input: Any) -> ChannelGraph:
    """Find out which channels of a network belong together, by a real forward.

    What the rules of the tracer do not cover stays as it is and is named in
    ``graph.frozen``. The result is checked: a network with half of its channels
    removed must give what the masked one gives, or the layers to blame are frozen.
    Errors are held against what the removal changes, column by column.

    Parameters
    ----------
    module : nn.Module
        Any network. A copy of it runs without gradients, in evaluation mode and in
        training mode, in which norms, dropout and noise stand still: heads that run
        in training only are cut too.
    example_input : Tensor, tuple or dict
        Input of a forward; a tuple holds several arguments, a dict named ones. It
        must reach every layer that is to be pruned.

    Returns
    -------
    graph : ChannelGraph
        Genes, layers, and what is frozen and why.

    Raises
    ------
    ValueError
        If no tensor is found in what the network returns, or it cannot be copied.
    TypeError
        If example_input cannot be copied, as generators cannot.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import trace_channels
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(),
    ...     torch.nn.Linear(144, 10),
    ... )
    >>> trace_channels(net, torch.zeros(1, 1, 8, 8))
    ChannelGraph: 4 genes in 2 layers
      0  4 of 4 can go
      3  0 of 10 can go  is an output of the network
    """
    check_form(module, f"the module {type(module).__name__}", "cut")
    with eagerly():
        return _checked(module, example_input)


def _checked(module: nn.Module, example_input: Any) -> ChannelGraph:
    try:
        # Training mode may change parameters too.
        with torch.no_grad():
            twin = copy.deepcopy(module)
    except (TypeError, RuntimeError) as error:
        msg = f"{type(module).__name__} cannot be copied, and so not be cut: {error}"
        raise ValueError(msg) from error
    trace = ChannelTracer(twin)
    calls, fault, modes = _follow(trace, example_input, training=False), "", [False]
    if has_training_mode(twin):
        uses = dict(trace.uses)
        try:
            if _follow(trace, example_input, training=True) != calls:
                modes.append(True)
        except Exception as error:  # whatever a forward may raise
            fault = f"; in training mode the network raises {type(error).__name__}"
        # Costs are those of evaluation.
        trace.uses = uses
    skipped = {
        name: _why_skipped(trace, name, part) or UNREACHED + fault
        for name, part in twin.named_modules()
        if isinstance(part, (*LAYERS, torch.jit.ScriptModule))
        and name not in trace.outputs
    }
    batches = [tensor for tensor in tensors_in(example_input) if tensor.ndim]
    graph = build_graph(trace, skipped, len(batches[0]) if batches else 1)
    check = SelfCheck(module, example_input, modes, prune_channels, mask_channels)
    return check(graph)


def _follow(trace: ChannelTracer, example: Any, training: bool) -> list[tuple]:
    """One forward that is traced; which functions it called, and on what."""
    module, example = trace.module, copied(example)
    record, mark = Recorder(module), trace.ids.mark()
    trace.path[:] = [""]
    try:
        with _paths(trace), held(module, training), trace, record:
            returned, left = run(module, example)
    finally:
        if training:
            # What has no rule there, such as noise, the check decides on.
            trace.ids.free_again(mark)
    trace.freeze(returned, "is an output of the network")
    trace.freeze(left, "is kept in an attribute of the network")
    if not returned:
        msg = (
            f"no tensor is found in what {type(module).__name__} returns. Return "
            "tensors, alone or in tuples, dictionaries, dataclasses or other objects."
        )
        raise ValueError(msg)
    return record.calls


@contextmanager
def _paths(trace: ChannelTracer) -> Iterator[None]:
    """Keep the names of the modules that run on the stack of a trace."""
    stack = trace.path
    handles = []

    def enter(name: str) -> None:
        stack.append(name)
        trace.ran.add(name)

    for name, part in trace.module.named_modules():
        if isinstance(part, torch.jit.ScriptModule) or not name:
            continue
        handles += [
            part.register_forward_pre_hook(
                lambda *_, name=name: enter(name), prepend=True
            ),
            part.register_forward_hook(lambda *_: _drop(stack), always_call=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _drop(stack: list[str]) -> None:
    # A hook that returned something would replace the output.
    stack.pop()


def _why_skipped(trace: ChannelTracer, name: str, part: Any) -> str | None:
    """Why a layer that runs makes no channels that are known of."""
    if isinstance(part, torch.jit.ScriptModule):
        return "is scripted, which fixes its code"
    weight = trace.names.get(id(part.weight))
    if weight is None:
        return "has a computed weight"
    if weight != f"{name}.weight":
        return f"has the weight of {show(weight.removesuffix('.weight'))}"
    reasons = map(trace.ids.reason, trace.slots.get(weight, ()))
    reason = next(filter(None, reasons), None)
    if reason is None and name in trace.ran:
        return "runs, but no trace sees it use its weight"
    return reason


@refuse_masked
def prune_channels(
    module: nn.Module,
    graph: ChannelGraph,
    keep: Any,
    compensate: InputCovariances | Any = None,
) -> nn.Module:
    r"""A really smaller network of the same class.

    Parameters
    ----------
    module : nn.Module
        The network that was traced; it is not changed.
    graph : ChannelGraph
        Its graph.
    keep : array-like of bool, shape (n_genes,)
        Genes that stay.
    compensate : InputCovariances, Tensor or tuple, default=None
        Repair the layers that read removed channels in closed form: they predict from
        the channels that stay what the removed ones gave. Needs the covariances of
        their inputs, from :func:`collect_covariances`, or examples to collect them on
        (a batch without labels; some hundreds). None cuts only.

    Returns
    -------
    pruned : nn.Module
        A copy with smaller parameters and buffers; parameters that the cut does not
        touch are copied too.

    Raises
    ------
    ValueError
        If keep has another length than the graph has genes, removes all channels of
        a layer, or the graph was made of another network.

    See Also
    --------
    mask_channels : The same function in a network of the old size.

    Notes
    -----
    With inputs of covariance C and mean :math:`\mu` in the unpruned network, W the
    weights of a layer that reads them, S the kept and R the removed inputs, the repair
    is

    .. math::
        W' = W_S + W_R C_{RS} (C_{SS} + \lambda I)^{-1}, \quad
        b' = b + W \mu - W' \mu_S,

    the least-squares prediction of the old output; removing nothing changes nothing.
    A layer without bias moves the running mean of the batch norm behind it instead;
    without either, moments about zero take the place of the covariance. The ridge
    :math:`\lambda` is a thousandth of the mean variance.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklcomp.nn import prune_channels, trace_channels
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    ... )
    >>> X = torch.randn(100, 3)
    >>> graph = trace_channels(net, X)
    >>> prune_channels(net, graph, np.arange(8) < 5, compensate=X)
    Sequential(
      (0): Linear(in_features=3, out_features=5, bias=True)
      (1): ReLU()
      (2): Linear(in_features=5, out_features=2, bias=True)
    )
    """
    return prune_remembering(module, graph, keep, compensate, Repairs())


def prune_remembering(
    module: nn.Module, graph: ChannelGraph, keep: Any, compensate: Any, repairs: Repairs
) -> nn.Module:
    """``prune_channels`` for many cuts, which remembers the repairs of layers."""
    keep = graph.check_keep(keep)
    alive = np.append(keep, True)
    memo: dict[int, Any] = {}
    for name, axes in graph.slots.items():
        old = _tensor(module, name, axes)
        new = old.detach()
        for axis, genes in enumerate(axes):
            if genes is not None and not alive[genes].all():
                left = torch.from_numpy(np.flatnonzero(alive[genes])).to(new.device)
                new = new.index_select(axis, left)
        if new.shape != old.shape:
            # deepcopy takes what it finds in its memo, so nothing is copied twice.
            memo[id(old)] = _like(old, new)
    # A scripted part copies its weights by operations that would be recorded.
    with torch.no_grad():
        pruned = copy.deepcopy(module, memo)
    for (path, name), genes in graph.sizes.items():
        part, number = pruned.get_submodule(path), int(alive[genes].sum())
        old = getattr(part, name)
        setattr(part, name, number if isinstance(old, int) else type(old)([number]))
    if compensate is not None:
        if not isinstance(compensate, InputCovariances):
            compensate = collect_covariances(module, graph, compensate)
        compensate_layers(pruned, module, graph, keep, compensate, repairs)
    return pruned


def _tensor(module: nn.Module, name: str, axes: tuple) -> Tensor:
    """A parameter or buffer whose sizes are those of the graph."""
    path, _, leaf = name.rpartition(".")
    try:
        tensor = getattr(module.get_submodule(path), leaf)
    except AttributeError:
        tensor = torch.empty(0)
    sizes = [None if genes is None else len(genes) for genes in axes]
    fits = len(sizes) == tensor.ndim and all(
        size in (None, n) for size, n in zip(sizes, tensor.shape, strict=True)
    )
    if not fits:
        msg = (
            f"the graph knows {show(name)} with axes of length {sizes}, the network "
            f"has {tuple(tensor.shape)}; trace the network that is to be pruned."
        )
        raise ValueError(msg)
    return tensor


def _like(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new


# Those of torch may be told not to use cuDNN.
NORMS = {
    F.layer_norm: F.layer_norm, F.rms_norm: F.rms_norm, F.group_norm: F.group_norm,
    torch.layer_norm: F.layer_norm, torch.rms_norm: F.rms_norm,
    torch.group_norm: F.group_norm,
}  # fmt: skip


class _KeptOnly(TorchFunctionMode):
    """Normalise the channels that live by their own statistics, as after surgery.

    At the function, not at the module, which may turn what it is given.
    """

    def __init__(self, kept: list[tuple[Tensor | None, Tensor]]):
        super().__init__()
        self.kept = kept

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in NORMS:
            return func(*args, **kwargs)
        func, args = NORMS[func], args[:5]
        kwargs = {name: v for name, v in kwargs.items() if "cudnn" not in name}
        given = inspect.signature(func).bind(*args, **kwargs).arguments
        weight = given.get("weight")
        left = next((left for one, left in self.kept if one is weight), None)
        return func(*args, **kwargs) if left is None else _normalized(func, given, left)


def _normalized(func: Any, given: dict[str, Any], left: Tensor) -> Tensor:
    """What a norm makes of the channels that are left, among zeros."""
    x = given["input"]
    left = left.to(x.device)
    axis = 1 if func is F.group_norm else x.ndim - 1
    given["input"] = x.index_select(axis, left)
    for name in ("weight", "bias"):
        if given.get(name) is not None:
            given[name] = given[name].index_select(0, left)
    if func is not F.group_norm:
        given["normalized_shape"] = (len(left),)
    living = func(**given)
    return torch.zeros_like(x, dtype=living.dtype).index_copy(axis, left, living)


def _forward_masked(
    forward: Any, kept: list[tuple[Tensor | None, Tensor]], *args: Any, **kwargs: Any
) -> Any:
    with _KeptOnly(kept):
        return forward(*args, **kwargs)


@refuse_masked
def mask_channels(module: nn.Module, graph: ChannelGraph, keep: Any) -> nn.Module:
    """The exact twin of the pruned network, in its old size.

    The columns by which layers read removed channels are zero. (Zeroed filters would
    not do: a bias or a normalisation behind them makes something of nothing.)
    Normalisations over several channels, such as LayerNorm, are replaced by ones that
    count the kept channels only.

    Parameters
    ----------
    module : nn.Module
        The network that was traced; it is not changed.
    graph : ChannelGraph
        Its graph.
    keep : array-like of bool, shape (n_genes,)
        Genes that stay.

    Returns
    -------
    masked : nn.Module
        A copy that computes what ``prune_channels(module, graph, keep)`` computes.

    Raises
    ------
    ValueError
        As :func:`prune_channels` does.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import mask_channels, prune_channels, trace_channels
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 2, 1))
    >>> x = torch.randn(5, 1, 8, 8)
    >>> graph = trace_channels(net, x)
    >>> keep = [True, False, True, False]
    >>> small, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
    >>> torch.allclose(small(x), masked(x), atol=1e-6)
    True
    """
    keep = graph.check_keep(keep)
    alive = np.append(keep, True)
    with torch.no_grad():
        masked = copy.deepcopy(module)
        for weight, axis in graph.consumers:
            genes = graph.slots.get(weight, (None, None))[axis]
            if genes is not None:
                dead = torch.from_numpy(np.flatnonzero(~alive[genes]))
                tensor = _tensor(masked, weight, graph.slots[weight])
                tensor.index_fill_(axis, dead.to(tensor.device), 0)
    kept: dict[str, list[tuple[Tensor | None, Tensor]]] = {}
    for (path, weight), genes in graph.mixing.items():
        if not alive[genes].all():
            left = torch.from_numpy(np.flatnonzero(alive[genes]))
            norm = attrgetter(weight)(masked) if weight else None
            kept.setdefault(path, []).append((norm, left))
    for path, pairs in kept.items():
        part: Any = masked.get_submodule(path)
        part.forward = partial(_forward_masked, part.forward, pairs)
    return masked
