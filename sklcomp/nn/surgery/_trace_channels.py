"""``trace_channels``: two forwards of a network, and the graph that they show.

Users and the pruners call it. What is cut by the graph is checked before it is given.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

import sklcomp.nn.surgery._layer_rules  # (enters its rules)
import sklcomp.nn.surgery._operation_rules  # noqa: F401
from sklcomp.nn._forms import check_form, eagerly
from sklcomp.nn._running import copied, run, tensors_in
from sklcomp.nn.surgery._cut import prune_channels
from sklcomp.nn.surgery._graph import ChannelGraph, build_graph
from sklcomp.nn.surgery._mask import mask_channels
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
