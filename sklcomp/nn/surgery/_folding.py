"""``fold_batchnorm``: batch norms multiplied into the layers before them.

Users call it; ``DataFreeDistiller`` inserts and absorbs norms of its own with it.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sklcomp.nn._forms import check_form, plain_copy
from sklcomp.nn._running import BatchNorm, copied, evaluating, run, tensors_in
from sklcomp.nn.surgery._self_check import (
    MAX_ROUNDING,
    ROUNDING,
    Precision,
    columns_of,
    prepared,
)
from sklcomp.utils._messages import warn_user
from sklcomp.utils._validation import refuse_masked

# What hands its input on unchanged does not count as a reader of it.
_TRANSPARENT = (nn.Sequential, nn.Identity)

# By the id of a tensor, its maker; and all pairs of a reader and what it reads.
_Made = dict[int, tuple[nn.Module, Tensor]]
_Read = list[tuple[nn.Module, Tensor]]


@refuse_masked
def fold_batchnorm(module: nn.Module, example_input: Any) -> nn.Module:
    """A copy in which batch norms are part of the layers before them.

    Every batch norm that directly follows a convolution, transposed convolution or
    linear layer is multiplied into its weights and replaced by ``nn.Identity``. The
    copy gives the same answers, up to rounding, with fewer parameters and in less time.
    It is meant for evaluation: it cannot be trained as the original can.

    Parameters
    ----------
    module : nn.Module
        A network; it stays as it is. Its evaluation mode is what is folded.
    example_input : Tensor, or a tuple or dict of arguments
        Input of one forward, from which it is seen what follows what, and by which the
        result is checked: typical examples, as zeros show little. What the forward does
        not run is not folded.

    Returns
    -------
    folded : nn.Module
        In evaluation mode. Layers that run several times, whose output is read by more
        than the norm, or whose weights are computed from others, keep their norms.

    Warns
    -----
    UserWarning
        If folding a layer changed the answers, such as where its output is used besides
        the norm in a way that no hook can see. It is then left as it was.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklcomp.nn import fold_batchnorm
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4))
    >>> fold_batchnorm(net, torch.randn(2, 1, 8, 8))
    Sequential(
      (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1))
      (1): Identity()
    )
    """
    check_form(module, f"the module {type(module).__name__}", "cut")
    reference = plain_copy(module).eval()
    pairs = _find_pairs(reference, example_input)
    answers = _Answers(reference, example_input)
    # All at once first: mostly all can be folded, and each try is a forward.
    if answers.stay(pairs):
        return _fold(reference, pairs)
    kept: list[tuple[str, str]] = []
    for pair in pairs:
        if answers.stay([*kept, pair]):
            kept.append(pair)
    layers = ", ".join(layer for layer, norm in pairs if (layer, norm) not in kept)
    msg = (
        f"folding the batch norm after {layers} changed the answers, so it was left "
        "there; the output of the layer may be used besides the norm."
    )
    warn_user(msg, UserWarning)
    return _fold(reference, kept)


def _find_pairs(module: nn.Module, example: Any) -> list[tuple[str, str]]:
    """Names of the layers and norms that can be one."""
    with _watching(module) as (made, read):
        _run(module, example)
    names = {part: name for name, part in module.named_modules()}
    n_reads = Counter(part for part, _ in read)
    n_readers = Counter(id(x) for _, x in read)
    pairs = []
    for norm, x in read:
        if id(x) in made and isinstance(norm, BatchNorm):
            layer, _ = made[id(x)]
            once = n_reads[layer] == n_reads[norm] == n_readers[id(x)] == 1
            if once and _can_fold(layer, norm, x):
                pairs.append((names[layer], names[norm]))
    return pairs


@contextmanager
def _watching(module: nn.Module) -> Iterator[tuple[_Made, _Read]]:
    """Note who makes and reads tensors, and keep them, so that no id comes twice."""
    made: _Made = {}
    read: _Read = []

    def before(part: nn.Module, inputs: tuple, named: dict) -> None:
        read.extend((part, x) for x in tensors_in([inputs, named]))

    def after(part: nn.Module, inputs: tuple, output: Any) -> None:
        made[id(output)] = part, output

    handles = []
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            continue
        if type(part) not in _TRANSPARENT:
            handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
        if isinstance(part, (_ConvNd, nn.Linear)):
            handles.append(part.register_forward_hook(after))
    try:
        yield made, read
    finally:
        for handle in handles:
            handle.remove()


def _can_fold(layer: nn.Module, norm: BatchNorm, output: Tensor) -> bool:
    weight = layer._parameters.get("weight")
    return (
        # Statistics of the batch are no part of any weight.
        norm.running_mean is not None
        # A weight that is computed from others is no parameter.
        and weight is not None
        # A linear layer makes its features on the last axis, a norm reads the second.
        and output.ndim == weight.ndim
        and output.shape[1] == norm.num_features
    )


def _run(module: nn.Module, example: Any) -> list[Tensor]:
    with evaluating(module):
        returned, left = run(module, copied(example))
        return [tensor.clone() for tensor in returned + left]


class _Answers:
    """What a network says, in double precision if it can."""

    def __init__(self, module: nn.Module, example: Any):
        for dtype in (torch.float64, None):
            self.module, self.example = prepared(module, example, dtype, False)
            precision = Precision(self.module, self.example)
            try:
                with precision:
                    self.expected = _run(self.module, self.example)
                break
            except Exception:
                if dtype is None:
                    raise
        self.eps = precision.eps

    def stay(self, pairs: Sequence[tuple[str, str]]) -> bool:
        """Whether it says the same once these layers and norms are one."""
        found = _run(_fold(self.module, pairs), self.example)
        return len(found) == len(self.expected) and all(
            x.shape == y.shape and self._are_close(x, y, axis)
            for x, y in zip(found, self.expected, strict=True)
            if y.is_floating_point() and y.numel()
            for axis in {min(1, y.ndim - 1), -1}
        )

    def _are_close(self, x: Tensor, y: Tensor, axis: int) -> bool:
        """By how each column varies, so that an offset hides nothing."""
        x, y = (columns_of(t, axis) for t in (x, y))
        error, size = (x - y).abs().amax(1), y.abs().amax(1)
        spread = (y - y.mean(1, keepdim=True)).abs().amax(1)
        allowed = self.eps**0.5 * spread + min(ROUNDING * self.eps, MAX_ROUNDING) * size
        return bool((error <= allowed).all())


def _fold(module: nn.Module, pairs: Sequence[tuple[str, str]]) -> nn.Module:
    """A copy with these layers and norms made one."""
    module = copy.deepcopy(module)
    norms = {}
    for layer_name, norm_name in pairs:
        layer, norm = map(module.get_submodule, (layer_name, norm_name))
        _absorb(layer, norm)
        norms[norm] = nn.Identity().eval()
    # A module may have several names.
    for part in list(module.modules()):
        for name, child in part._modules.items():
            if child in norms:
                part._modules[name] = norms[child]
    return module


def _absorb(layer: Any, norm: Any) -> None:
    # With transpose=True torch folds no layer of several groups.
    groups = layer.groups if isinstance(layer, _ConvTransposeNd) else None
    weight, bias = fuse_conv_bn_weights(
        _swap_channels(layer.weight, groups),
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    requires_grad = layer.weight.requires_grad
    layer.weight = nn.Parameter(_swap_channels(weight.detach(), groups), requires_grad)
    layer.bias = nn.Parameter(bias.detach(), requires_grad)


def _swap_channels(weight: Tensor, groups: int | None) -> Tensor:
    """(inputs, outputs / groups, ...) to (outputs, inputs / groups, ...), or back."""
    if groups is None:
        return weight
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


class _Normalized(nn.Sequential):
    """A layer with a batch norm behind it, which is to be absorbed again.

    It has the attributes of the layer, of which a forward may read some.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer = self.__dict__.get("_modules", {}).get("0")
            if layer is None:
                raise
            return getattr(layer, name)


def insert_batch_norms(module: nn.Module, example_input: Any) -> nn.Module:
    """A copy with a new batch norm behind every layer that can absorb it again.

    Layers without a bias, that run several times or not at all, or are followed by a
    batch norm already, keep as they are, and so does the last one that runs. It is a
    help in training: :func:`absorb_batch_norms` gives back a network like the original.
    """
    module = copy.deepcopy(module)
    with _watching(module) as (made, read):
        _run(module, example_input)
    n_reads = Counter(part for part, _ in read)
    followed = {id(x) for part, x in read if isinstance(part, BatchNorm)}
    chosen = {
        layer: output
        for layer, output in list(made.values())[:-1]
        if n_reads[layer] == 1
        and id(output) not in followed
        and getattr(layer, "bias", None) is not None
        and layer._parameters.get("weight") is not None
        and output.ndim == layer.weight.ndim
    }
    norms = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    for part in list(module.modules()):
        for name, child in part._modules.items():
            if child in chosen:
                output = chosen[child]
                norm = norms[output.ndim](output.shape[1]).to(output)
                part._modules[name] = _Normalized(child, norm)
    return module


def absorb_batch_norms(module: nn.Module) -> nn.Module:
    """A copy in which what :func:`insert_batch_norms` put in is part of the layers."""
    module = copy.deepcopy(module)
    for part in list(module.modules()):
        for name, child in part._modules.items():
            if isinstance(child, _Normalized):
                layer, norm = child
                _absorb(layer, norm)
                part._modules[name] = layer
    return module
