"""What layers with weights do to the identities of channels."""

from typing import Any

from torch import Tensor, nn

from sklcomp.nn._identities import Ids
from sklcomp.nn._tracing import (
    CONVOLUTIONS,
    TRANSPOSED,
    ChannelTracer,
    rule,
    unknown,
)


def _running(trace: ChannelTracer, kinds: Any) -> bool:
    """Whether the module that runs is of a kind whose attributes we can set."""
    return isinstance(trace.module.get_submodule(trace.path[-1]), kinds)


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
    trace: ChannelTracer, result: Tensor, input: Tensor, weight: Tensor,
    bias: Tensor | None = None,
) -> None:  # fmt: skip
    if id(weight) not in trace.names or weight.ndim != 2:
        return unknown(trace, result, input, weight, bias)
    axes, (outputs, inputs) = list(trace.axes(input)), trace.axes(weight)
    _tie_inputs(trace, inputs, axes[-1])
    _tie_vector(trace, bias, outputs)
    axes[-1] = outputs
    trace.set_axes(result, tuple(axes))
    trace.consume(weight, 1)
    trace.add_layer(weight, outputs, result)
    trace.count(weight, input.numel() // weight.shape[1])
    if _running(trace, (nn.Linear,)):
        _set_sizes(trace, in_features=inputs, out_features=outputs)
    return None


def _set_sizes(trace: ChannelTracer, **ids: Ids) -> None:
    module = trace.module.get_submodule(trace.path[-1])
    for name, axis in ids.items():
        if axis is not None and hasattr(module, name):
            trace.sizes[trace.path[-1], name] = axis


@rule("conv1d conv2d conv3d")
def _convolve(
    trace: ChannelTracer, result: Tensor, input: Tensor, weight: Tensor,
    bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> None:  # fmt: skip
    own = _running(trace, CONVOLUTIONS)
    if id(weight) not in trace.names or (groups > 1 and not own):
        return unknown(trace, result, input, weight, bias)
    channel = input.ndim - weight.ndim + 1
    axes = list(trace.axes(input))
    outputs, inputs = trace.axes(weight)[:2]
    if groups == 1:
        _tie_inputs(trace, inputs, axes[channel])
        trace.consume(weight, 1)
    else:
        _group(trace, axes[channel], inputs, outputs, groups)
    _finish(trace, result, input, weight, bias, outputs, channel)
    trace.count(weight, result.numel() // result.shape[channel])
    if own:
        counted = inputs if groups == 1 else axes[channel]
        _set_sizes(trace, in_channels=counted, out_channels=outputs)
    return None


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def _convolve_transposed(
    trace: ChannelTracer, result: Tensor, input: Tensor, weight: Tensor,
    bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> None:  # fmt: skip
    if id(weight) not in trace.names or groups > 1:
        return unknown(trace, result, input, weight, bias)
    channel = input.ndim - weight.ndim + 1
    axes = trace.axes(input)
    inputs, outputs = trace.axes(weight)[:2]
    _tie_inputs(trace, inputs, axes[channel])
    trace.consume(weight, 0)
    _finish(trace, result, input, weight, bias, outputs, channel)
    trace.count(weight, input.numel() // input.shape[channel])
    if _running(trace, TRANSPOSED):
        _set_sizes(trace, in_channels=inputs, out_channels=outputs)
    return None


def _finish(
    trace: ChannelTracer, result: Tensor, input: Tensor, weight: Tensor,
    bias: Tensor | None, outputs: Ids, channel: int,
) -> None:  # fmt: skip
    """What convolutions of both directions do to the axes that they return."""
    _tie_vector(trace, bias, outputs)
    axes = trace.axes(input)
    for spatial in axes[channel + 1 :]:
        trace.ids.freeze(spatial, f"is convolved along {trace.here}")
    found = (*axes[:channel], outputs, *[None] * (input.ndim - channel - 1))
    trace.set_axes(result, found)
    trace.add_layer(weight, outputs, result)


def _group(
    trace: ChannelTracer, entering: Ids, inputs: Ids, outputs: Ids, groups: int
) -> None:
    """Tie the channels of a grouped convolution.

    Either whole groups go, or the same offsets in every group: whichever is finer.
    """
    if outputs is None:
        return
    rows_out = outputs.reshape(groups, -1)
    rows_in = None if entering is None else entering.reshape(groups, -1)
    size_in = 1 if inputs is None else len(inputs)
    if groups >= max(size_in, rows_out.shape[1]):
        first = trace.ids.tie_rows(rows_out)
        into = None if rows_in is None else trace.ids.tie_rows(rows_in)
        _tie_inputs(trace, first, into)
        _set_sizes(trace, groups=first)
        return
    trace.ids.tie_columns(rows_out)
    if inputs is not None:
        into = None if rows_in is None else trace.ids.tie_columns(rows_in)
        _tie_inputs(trace, inputs, into)
        # The name of the weight is enough: its columns are at the same offsets.
        trace.consumers.setdefault((f"{trace.path[-1]}.weight".strip("."), 1), set())


@rule("embedding")
def _embed(
    trace: ChannelTracer, result: Tensor, input: Tensor, weight: Tensor, *args: Any,
    **kwargs: Any,
) -> None:  # fmt: skip
    entries, outputs = trace.axes(weight)
    trace.ids.freeze(entries, f"is looked up {trace.here}")
    trace.set_axes(result, (*trace.axes(input), outputs))
    trace.add_layer(weight, outputs, result)
    if _running(trace, (nn.Embedding,)):
        _set_sizes(trace, embedding_dim=outputs)


@rule("batch_norm instance_norm")
def _normalize_each(
    trace: ChannelTracer, result: Tensor, input: Tensor, mean: Tensor | None = None,
    var: Tensor | None = None, weight: Tensor | None = None, bias: Tensor | None = None,
    *args: Any, **kwargs: Any,
) -> None:  # fmt: skip
    axes = trace.axes(input)
    maker = trace.maker(input)
    parts = [t for t in (mean, var, weight, bias) if t is not None]
    parts += [t for t in kwargs.values() if isinstance(t, Tensor)]
    for part in parts:
        _tie_vector(trace, part, axes[1])
    trace.set_axes(result, axes)
    _set_sizes(trace, num_features=axes[1])
    if maker and mean is not None and id(mean) in trace.names and args[:1] != (True,):
        trace.shifts[maker] = trace.names[id(mean)]


@rule("prelu")
def _prelu(trace: ChannelTracer, result: Tensor, input: Tensor, weight: Tensor) -> None:
    axes = trace.axes(input)
    if weight.numel() > 1:
        _tie_vector(trace, weight, axes[1])
        _set_sizes(trace, num_parameters=axes[1])
    trace.set_axes(result, axes)


@rule("group_norm")
def _group_norm(
    trace: ChannelTracer, result: Tensor, input: Tensor, groups: int,
    weight: Tensor | None = None, bias: Tensor | None = None, *args: Any, **kwargs: Any,
) -> None:  # fmt: skip
    axes = trace.axes(input)
    ids = axes[1]
    if _running(trace, (nn.InstanceNorm2d,)):
        # Ours takes this way where channels are last, with a group for each.
        return _normalize_each(trace, result, input, None, None, weight, bias)
    if ids is None or not _running(trace, (nn.GroupNorm,)):
        return unknown(trace, result, input, weight, bias)
    for part in (weight, bias):
        _tie_vector(trace, part, ids)
    rows = ids.reshape(groups, -1)
    if groups >= rows.shape[1]:
        _set_sizes(trace, num_groups=trace.ids.tie_rows(rows))
    else:
        trace.ids.tie_columns(rows)
        trace.mixing[trace.path[-1]] = ids
    _set_sizes(trace, num_channels=ids)
    trace.set_axes(result, axes)
    return None


@rule("layer_norm rms_norm")
def _layer_norm(
    trace: ChannelTracer, result: Tensor, input: Tensor, shape: Any,
    weight: Tensor | None = None, bias: Tensor | None = None, *args: Any, **kwargs: Any,
) -> None:  # fmt: skip
    axes = trace.axes(input)
    known = _running(trace, (nn.LayerNorm, nn.RMSNorm))
    if len(shape) > 1 or axes[-1] is None or not known:
        return unknown(trace, result, input, weight, bias)
    for part in (weight, bias):
        if isinstance(part, Tensor):
            _tie_vector(trace, part, axes[-1])
    trace.mixing[trace.path[-1]] = axes[-1]
    _set_sizes(trace, normalized_shape=axes[-1])
    trace.set_axes(result, axes)
    return None
