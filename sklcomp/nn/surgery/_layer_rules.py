"""Rules of the tracing for layers with weights: what they do to channel identities."""

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from sklcomp.nn.surgery._identities import Ids
from sklcomp.nn.surgery._tracing import ChannelTracer, rule, unknown


def _tie_vector(trace: ChannelTracer, vector: Tensor | None, channels: Ids) -> None:
    """Tie a parameter with one entry a channel, such as a bias."""
    if vector is not None:
        reason = f"is added to channels of fixed number {trace.here}"
        trace.ids.tie(trace.axes(vector)[0], channels, reason)


def _tie_inputs(trace: ChannelTracer, inputs: Ids, entering: Ids) -> None:
    """Tie the columns of a weight to the channels that enter it."""
    trace.ids.tie(inputs, entering, f"has inputs of fixed number {trace.here}")


@rule("linear")
def _linear(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> None:
    if id(weight) not in trace.names or weight.ndim != 2:
        return unknown(trace, result, input, weight, bias)
    axes, (outputs, inputs) = list(trace.axes(input)), trace.axes(weight)
    _tie_inputs(trace, inputs, axes[-1])
    _tie_vector(trace, bias, outputs)
    axes[-1] = outputs
    trace.set_axes(result, tuple(axes))
    trace.consume(weight, 1)
    trace.add_layer(weight, bias, outputs, result)
    trace.count(weight, input.numel() // weight.shape[1])
    trace.set_sizes(trace.owner(weight), in_features=inputs, out_features=outputs)
    return None


@rule("conv1d conv2d conv3d")
def _convolve(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> None:
    owner = trace.owner(weight)
    # A number in the code of a forward cannot be set to what is left.
    settable = getattr(trace.module.get_submodule(owner), "groups", None) == groups
    if id(weight) not in trace.names or (groups > 1 and not settable):
        return unknown(trace, result, input, weight, bias)
    channel = input.ndim - weight.ndim + 1
    axes = list(trace.axes(input))
    outputs, inputs = trace.axes(weight)[:2]
    if groups == 1:
        _tie_inputs(trace, inputs, axes[channel])
        trace.consume(weight, 1)
    else:
        _group(trace, weight, axes[channel], groups)
    _finish(trace, result, input, weight, bias, outputs, channel)
    trace.count(weight, result.numel() // result.shape[channel])
    counted = inputs if groups == 1 else axes[channel]
    trace.set_sizes(owner, in_channels=counted, out_channels=outputs)
    return None


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def _convolve_transposed(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> None:
    if id(weight) not in trace.names or groups > 1:
        return unknown(trace, result, input, weight, bias)
    channel = input.ndim - weight.ndim + 1
    axes = trace.axes(input)
    inputs, outputs = trace.axes(weight)[:2]
    _tie_inputs(trace, inputs, axes[channel])
    trace.consume(weight, 0)
    _finish(trace, result, input, weight, bias, outputs, channel)
    trace.count(weight, input.numel() // input.shape[channel])
    trace.set_sizes(trace.owner(weight), in_channels=inputs, out_channels=outputs)
    return None


def _finish(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    outputs: Ids,
    channel: int,
) -> None:
    """What convolutions of both directions do to the axes that they return."""
    _tie_vector(trace, bias, outputs)
    axes = trace.axes(input)
    for spatial in axes[channel + 1 :]:
        trace.ids.freeze(spatial, f"is convolved along {trace.here}")
    found = (*axes[:channel], outputs, *[None] * (input.ndim - channel - 1))
    trace.set_axes(result, found)
    trace.add_layer(weight, bias, outputs, result)


def _group(trace: ChannelTracer, weight: Tensor, entering: Ids, groups: int) -> None:
    """Tie the channels of a grouped convolution.

    Either whole groups go, or the same offsets in every group: whichever is finer.
    """
    outputs, inputs = trace.axes(weight)[:2]
    if outputs is None:
        return
    rows_out = outputs.reshape(groups, -1)
    rows_in = None if entering is None else entering.reshape(groups, -1)
    size_in = 1 if inputs is None else len(inputs)
    if groups >= max(size_in, rows_out.shape[1]):
        first = trace.ids.tie_rows(rows_out)
        into = None if rows_in is None else trace.ids.tie_rows(rows_in)
        _tie_inputs(trace, first, into)
        trace.set_sizes(trace.owner(weight), groups=first)
        return
    trace.ids.tie_columns(rows_out)
    if inputs is not None:
        into = None if rows_in is None else trace.ids.tie_columns(rows_in)
        _tie_inputs(trace, inputs, into)
        # The name of the weight is enough: its columns are at the same offsets.
        trace.consumers.setdefault((trace.names[id(weight)], 1), set())


@rule("embedding")
def _embed(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    *args: Any,
    **kwargs: Any,
) -> None:
    # Of torch.embedding the first argument is the weight.
    if id(weight) not in trace.names or trace.function is not F.embedding:
        return unknown(trace, result, input, weight)
    entries, outputs = trace.axes(weight)
    trace.ids.freeze(entries, f"is looked up {trace.here}")
    trace.set_axes(result, (*trace.axes(input), outputs))
    trace.add_layer(weight, None, outputs, result)
    trace.set_sizes(trace.owner(weight), embedding_dim=outputs)
    return None


@rule("batch_norm instance_norm")
def _normalize_each(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *args: Any,
    **kwargs: Any,
) -> None:
    # torch.batch_norm has another order of arguments.
    if trace.function not in (F.batch_norm, F.instance_norm):
        return unknown(trace, result, input, running_mean, running_var, weight, bias)
    axes = trace.axes(input)
    for part in (running_mean, running_var, weight, bias):
        _tie_vector(trace, part, axes[1])
    if training or running_mean is None or trace.function is F.instance_norm:
        for k, axis in enumerate(axes):
            if k != 1:
                trace.ids.freeze(axis, f"is normalised along {trace.here}")
    maker, mean = trace.maker(input), trace.names.get(id(running_mean))
    made = trace.outputs.get((maker or "").removesuffix(".weight"), np.empty(0))
    # A linear layer may make its features on another axis than a norm reads.
    is_behind = axes[1] is not None and np.array_equal(made, axes[1])
    if maker and mean and is_behind and not training:
        trace.shifts.add((maker, mean))
    trace.set_axes(result, axes)
    trace.set_sizes(trace.owner(weight), num_features=axes[1])
    return None


@rule("prelu")
def _prelu(trace: ChannelTracer, result: Tensor, input: Tensor, weight: Tensor) -> None:
    axes = trace.axes(input)
    if weight.numel() > 1:
        _tie_vector(trace, weight, axes[1])
        trace.set_sizes(trace.owner(weight), num_parameters=axes[1])
    trace.set_axes(result, axes)


@rule("group_norm")
def _group_norm(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> None:
    axes, owner = trace.axes(input), trace.owner(weight)
    ids = axes[1]
    for part in (weight, bias):
        _tie_vector(trace, part, ids)
    for spatial in axes[2:]:
        trace.ids.freeze(spatial, f"is normalised along {trace.here}")
    trace.set_axes(result, axes)
    if ids is None:
        return
    rows = ids.reshape(num_groups, -1)
    settable = getattr(trace.module.get_submodule(owner), "num_groups", None)
    if num_groups == len(ids) or (settable == num_groups >= rows.shape[1]):
        trace.set_sizes(owner, num_groups=trace.ids.tie_rows(rows))
    else:
        trace.ids.tie_columns(rows)
        _mix(trace, weight, ids)
    trace.set_sizes(owner, num_channels=ids, num_features=ids)


def _mix(trace: ChannelTracer, weight: Tensor | None, ids: np.ndarray) -> None:
    """Enter channels that are normalised together in the module that runs."""
    key = trace.path[-1], trace.names.get(id(weight), "")
    before = trace.mixing.setdefault(key, ids)
    trace.ids.tie(before, ids, "")


@rule("layer_norm rms_norm")
def _layer_norm(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> None:
    axes = trace.axes(input)
    if len(normalized_shape) > 1:
        return unknown(trace, result, input, weight, bias)
    for part in (weight, bias):
        if isinstance(part, Tensor):
            _tie_vector(trace, part, axes[-1])
    trace.set_axes(result, axes)
    if axes[-1] is not None:
        _mix(trace, weight, axes[-1])
        trace.set_sizes(trace.owner(weight), normalized_shape=axes[-1])
    return None
