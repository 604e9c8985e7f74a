"""Rules of the tracing for functions of torch without weights."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklcomp.nn._running import tensors_in
from sklcomp.nn.surgery._identities import Ids, reshape_axes
from sklcomp.nn.surgery._tracing import ChannelTracer, name_of, rule, unknown


@rule(
    "size dim shape device dtype ndim numel stride layout get_device element_size len "
    "requires_grad set_requires_grad storage_offset is_contiguous is_cuda is_sparse "
    "is_leaf is_floating_point is_complex is_quantized is_meta is_nested grad_fn grad "
    "data_ptr version backward_hooks format repr"
)
def _ask(trace: ChannelTracer, result: Any, *args: Any, **kwargs: Any) -> None:
    """Questions that leave the channels alone."""


@rule(
    "clone contiguous detach to float double half bfloat16 type type_as cpu cuda data "
    "dropout alpha_dropout feature_dropout feature_alpha_dropout dropout1d dropout2d "
    "dropout3d relu relu6 leaky_relu elu selu celu gelu silu mish softplus softsign "
    "softshrink hardshrink tanhshrink threshold hardtanh hardswish hardsigmoid "
    "log_sigmoid sigmoid tanh rrelu exp exp2 expm1 log log1p log2 log10 sqrt rsqrt "
    "square abs absolute neg negative positive sign sgn sin cos tan sinh cosh asin "
    "acos atan asinh acosh atanh erf erfc erfinv lgamma logit sinc reciprocal round "
    "floor ceil trunc frac nan_to_num isnan isinf isfinite logical_not invert int bool "
    "long zeros_like ones_like empty_like rand_like randn_like full_like bernoulli "
    "normal uniform exponential"
)
def _same(
    trace: ChannelTracer, result: Any, input: Tensor, *args: Any, **kwargs: Any
) -> None:
    if isinstance(result, Tensor):
        trace.set_axes(result, trace.axes(input))


@rule(
    "add sub rsub subtract mul multiply div rdiv divide true_divide floor_divide "
    "floordiv rfloordiv remainder rmod fmod pow rpow float_power maximum minimum fmax "
    "fmin clamp clamp_min clamp_max clip where lerp addcmul addcdiv eq ne lt le gt ge "
    "isclose logical_and logical_or logical_xor and or xor iand ior ixor masked_fill "
    "atan2 hypot logaddexp xlogy copysign heaviside"
)
def _elementwise(
    trace: ChannelTracer, result: Tensor, *args: Any, **kwargs: Any
) -> None:
    operands = tensors_in([args, kwargs])
    found: list[Ids] = [None] * result.ndim
    for k in range(result.ndim):
        behind = result.ndim - k
        parts = [
            trace.axes(t)[-behind]
            for t in operands
            if t.ndim >= behind and t.shape[-behind] > 1
        ]
        for part in parts[1:]:
            trace.ids.tie(parts[0], part, f"meets a tensor of fixed size {trace.here}")
        found[k] = next((part for part in parts if part is not None), None)
    trace.set_axes(result, tuple(found))


@rule("max min")
def _extremum(trace: ChannelTracer, result: Any, *args: Any, **kwargs: Any) -> None:
    if len(tensors_in([args, kwargs])) > 1:
        _elementwise(trace, result, *args, **kwargs)
    else:
        _reduce(trace, result, *args, **kwargs)


@rule("norm")
def _norm(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    p: Any = 2,
    dim: Any = None,
    **kwargs: Any,
) -> None:
    _reduce(trace, result, input, dim=dim)


@rule("normalize")
def _normalize(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    p: Any = 2,
    dim: int = 1,
    **kwargs: Any,
) -> None:
    _along(trace, result, input, dim=dim)


@rule(
    "mean sum amax amin std var prod logsumexp all any argmax argmin median "
    "nanmean count_nonzero"
)
def _reduce(
    trace: ChannelTracer, result: Any, input: Tensor, *args: Any, **kwargs: Any
) -> None:
    dims = kwargs.get("dim", kwargs.get("axis"))
    if dims is None:
        # In the same place others take an exponent, or whether axes are kept.
        dims = next((a for a in args if not isinstance(a, (float, bool))), None)
    dims = range(input.ndim) if dims is None else np.atleast_1d(dims)
    gone = {int(d) % input.ndim for d in dims} if input.ndim else set()
    axes = trace.axes(input)
    for d in gone:
        trace.ids.freeze(axes[d], f"is summed over the channels {trace.here}")
    kept = tensors_in(result)[0].ndim == input.ndim
    left = [
        None if d in gone else a for d, a in enumerate(axes) if kept or d not in gone
    ]
    for out in tensors_in(result):
        trace.set_axes(out, tuple(left))


@rule("roll")
def _roll(
    trace: ChannelTracer, result: Tensor, input: Tensor, shifts: Any, dims: Any = ()
) -> None:
    _along(trace, result, input, dims=dims)


@rule("softmax log_softmax softmin cumsum gumbel_softmax flip sort")
def _along(
    trace: ChannelTracer, result: Any, input: Tensor, *args: Any, **kwargs: Any
) -> None:
    """Functions that mix along the axes that their arguments name."""
    axes = list(trace.axes(input))
    named = kwargs.get("dim", kwargs.get("dims"))
    numbers = args if named is None else (named,)
    dims = {
        int(d)
        for a in numbers
        if np.ndim(a) < 2
        for d in np.atleast_1d(a)
        if isinstance(d, (int, np.integer))
    }
    dims = {d % input.ndim for d in dims if -input.ndim <= d < input.ndim}
    for d in dims or range(input.ndim):
        trace.ids.freeze(axes[d], f"is mixed with other channels {trace.here}")
    for out in tensors_in(result):
        trace.set_axes(out, tuple(axes))


@rule(
    "view reshape flatten unflatten squeeze unsqueeze view_as reshape_as ravel "
    "atleast_2d"
)
def _reshape(
    trace: ChannelTracer, result: Tensor, input: Tensor, *args: Any, **kwargs: Any
) -> None:
    new = reshape_axes(
        trace.ids,
        trace.axes(input),
        tuple(input.shape),
        tuple(result.shape),
        f"is merged with another axis of channels {trace.here}",
    )
    trace.set_axes(result, new)


@rule("permute transpose swapaxes swapdims movedim moveaxis t T mT adjoint H")
def _permute(
    trace: ChannelTracer, result: Tensor, input: Tensor, *args: Any, **kwargs: Any
) -> None:
    # The function itself says where the axes go.
    # Of lengths that tell the axes apart, and without data.
    sizes = list(range(2, 2 + input.ndim))
    moved = trace.function(torch.empty(sizes, device="meta"), *args, **kwargs)
    axes = trace.axes(input)
    trace.set_axes(result, tuple(axes[n - 2] for n in moved.shape))


@rule("expand expand_as broadcast_to repeat tile")
def _expand(
    trace: ChannelTracer, result: Tensor, input: Tensor, *args: Any, **kwargs: Any
) -> None:
    extra = result.ndim - input.ndim
    axes = trace.axes(input)
    found: list[Ids] = [None] * extra
    for k, axis in enumerate(axes):
        same = result.shape[extra + k] == input.shape[k]
        if not same:
            trace.ids.freeze(axis, f"is repeated {trace.here}")
        found.append(axis if same else None)
    trace.set_axes(result, tuple(found))


@rule("cat concat concatenate")
def _cat(
    trace: ChannelTracer, result: Tensor, tensors: Any, dim: int = 0, **kwargs: Any
) -> None:
    dim = kwargs.get("axis", dim) % result.ndim
    found: list[Ids] = list(trace.axes(tensors[0]))
    for k in range(result.ndim):
        if k != dim:
            for other in tensors[1:]:
                trace.ids.tie(
                    found[k],
                    trace.axes(other)[k],
                    f"is concatenated with a tensor of fixed size {trace.here}",
                )
            found[k] = next(
                (a for t in tensors if (a := trace.axes(t)[k]) is not None), None
            )
    parts = [trace.axes(t)[dim] for t in tensors]
    if any(part is not None for part in parts):
        found[dim] = np.concatenate(
            [
                trace.fixed(part, t.shape[dim])
                for part, t in zip(parts, tensors, strict=True)
            ]
        )
    trace.set_axes(result, tuple(found))


@rule("pad")
def _pad(
    trace: ChannelTracer,
    result: Tensor,
    input: Tensor,
    pad: Any,
    mode: str = "constant",
    value: Any = None,
) -> None:
    found = list(trace.axes(input))
    for k in range(len(pad) // 2):
        axis = input.ndim - 1 - k
        before, after = pad[2 * k], pad[2 * k + 1]
        ids = found[axis]
        if ids is None or before == after == 0:
            continue
        if mode != "constant" or min(before, after) < 0:
            trace.ids.freeze(
                ids, f"is padded or cropped along the channels {trace.here}"
            )
            found[axis] = None
            continue
        ends = trace.fixed(None, before), trace.fixed(None, after)
        found[axis] = np.concatenate([ends[0], ids, ends[1]])
    trace.set_axes(result, tuple(found))


@rule(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d "
    "lp_pool2d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate "
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices"
)
def _spatial(
    trace: ChannelTracer, result: Any, input: Tensor, *args: Any, **kwargs: Any
) -> None:
    """Functions of the axes behind the channels; unbatched input has one axis less."""
    axes, name = trace.axes(input), name_of(trace.function)
    n_spatial = next((int(c) for c in name if c.isdigit()), input.ndim - 2)
    for out in tensors_in(result):
        found = []
        for k, axis in enumerate(axes):
            same = out.ndim == input.ndim and out.shape[k] == input.shape[k]
            if not same or k >= input.ndim - n_spatial:
                trace.ids.freeze(axis, f"is pooled or resized {trace.here}")
            found.append(axis if same else None)
        trace.set_axes(out, tuple(found))


@rule("glu")
def _glu(trace: ChannelTracer, result: Tensor, input: Tensor, dim: int = -1) -> None:
    axes = list(trace.axes(input))
    ids = axes[dim]
    if ids is not None:
        axes[dim] = trace.ids.tie_columns(ids.reshape(2, -1))
    trace.set_axes(result, tuple(axes))


@rule("unbind")
def _unbind(trace: ChannelTracer, result: Any, input: Tensor, dim: int = 0) -> None:
    axes = list(trace.axes(input))
    trace.ids.freeze(axes.pop(dim), f"is taken apart {trace.here}")
    for out in result:
        trace.set_axes(out, tuple(axes))


@rule("stack")
def _stack(trace: ChannelTracer, result: Tensor, tensors: Any, dim: int = 0) -> None:
    axes = [trace.axes(t) for t in tensors]
    for other in axes[1:]:
        for a, b in zip(axes[0], other, strict=True):
            trace.ids.tie(a, b, f"is stacked on a tensor of fixed size {trace.here}")
    first = [
        next((a for a in same if a is not None), None)
        for same in zip(*axes, strict=True)
    ]
    first.insert(dim % result.ndim, None)
    trace.set_axes(result, tuple(first))


@rule("chunk tensor_split split split_with_sizes")
def _share(
    trace: ChannelTracer,
    result: Any,
    input: Tensor,
    parts: Any = None,
    dim: int = 0,
    **kwargs: Any,
) -> None:
    """Parts of an axis of channels: of equal length they stay so, else all is kept."""
    axes, dim = list(trace.axes(input)), dim % input.ndim
    ids, sizes = axes[dim], [part.shape[dim] for part in result]
    if ids is not None and len(set(sizes)) > 1:
        trace.ids.freeze(ids, f"is split into unequal parts {trace.here}")
    elif ids is not None:
        trace.ids.tie_columns(ids.reshape(len(sizes), -1))
    start = 0
    for part, n in zip(result, sizes, strict=True):
        axes[dim] = None if ids is None else ids[start : start + n]
        trace.set_axes(part, tuple(axes))
        start += n


@rule("getitem")
def _getitem(trace: ChannelTracer, result: Tensor, input: Tensor, index: Any) -> None:
    index = list(index) if isinstance(index, tuple) else [index]
    n_used = sum(i is not None and i is not Ellipsis for i in index)
    fill = [slice(None)] * (input.ndim - n_used)
    # Compared with a tensor, it would give a tensor.
    if Ellipsis in [i for i in index if not isinstance(i, Tensor)]:
        at = next(k for k, i in enumerate(index) if i is Ellipsis)
        index[at : at + 1] = fill
    else:
        index += fill
    axes, k = trace.axes(input), 0
    found: list[Ids] = []
    for i in index:
        if i is None:
            found.append(None)
            continue
        if isinstance(i, slice):
            found.append(_slice(trace, axes[k], i, input.shape[k]))
        elif isinstance(i, int):
            trace.ids.freeze(axes[k], f"is indexed by number {trace.here}")
        else:
            return unknown(trace, result, input)
        k += 1
    return trace.set_axes(result, tuple(found))


def _slice(trace: ChannelTracer, ids: Ids, part: slice, size: int) -> Ids:
    start, stop, step = part.indices(size)
    if ids is None or (start, stop, step) == (0, size, 1):
        return ids
    n = stop - start
    if step != 1 or n < 1 or size % n or start % n:
        trace.ids.freeze(ids, f"is sliced into unequal parts {trace.here}")
        return None
    trace.ids.tie_columns(ids.reshape(-1, n))
    return ids[part]


@rule("pixel_shuffle")
def _pixel_shuffle(
    trace: ChannelTracer, result: Tensor, input: Tensor, upscale_factor: int
) -> None:
    axes = list(trace.axes(input))
    ids = axes[-3]
    if ids is not None:
        axes[-3] = trace.ids.tie_rows(ids.reshape(-1, upscale_factor**2))
    trace.set_axes(result, tuple(axes))


@rule("pixel_unshuffle")
def _pixel_unshuffle(
    trace: ChannelTracer, result: Tensor, input: Tensor, downscale_factor: int
) -> None:
    axes = list(trace.axes(input))
    if axes[-3] is not None:
        axes[-3] = np.repeat(axes[-3], downscale_factor**2)
    trace.set_axes(result, tuple(axes))
